import CLayerline

/// A part of a message.
public enum MessagePart: Equatable, Sendable {
    /// More of the answer.
    case content(String)
    /// More of what the model thinks before it answers.
    case reasoning(String)
    /// A tool call begins: which of the message, its name, and what its result names it by.
    case call(index: Int, name: String, id: String)
    /// More of the arguments of a call: JSON, where the model makes no mistake.
    case arguments(index: Int, String)
    /// A tool call is complete.
    case callEnd(index: Int)
}

/// Turns what a model writes into messages: what it says, what it thinks, and the tools it calls. The text may be cut
/// anywhere, and nothing of it is refused. A call that finds it in use throws ``Status/busy``.
///
/// The formats deepseek, harmony, kimi and mistral, and llama3 in part, mark calls by control tokens: the text must have
/// them, by the sampler's `showControl` or ``DetokenizeOptions/control``.
public final class MessageParser: Sendable {
    private let handle: Handle

    /// For what `model` writes, as its chat template tells. `tools`: the JSON array "tools" of the conversation, or
    /// nothing: qwen3-coder, glm and minimax write strings without quotes, and the schemas say which are some.
    public init(_ model: Model, tools: String = "") throws {
        handle = try model.handle.use { model in try Self.made(model, nil, tools) }
    }

    /// For a format: "hermes" (also Qwen 2.5 and 3), "qwen3-coder" (also Qwen 3.5), "llama3", "mistral", "deepseek",
    /// "harmony" (gpt-oss), "glm", "kimi", "minimax", or "plain", which has reasoning alone. Another name throws
    /// ``Status/notFound``.
    public init(format: String, tools: String = "") throws {
        handle = try format.withCString { format in try Self.made(nil, format, tools) }
    }

    private static func made(_ model: OpaquePointer?, _ format: UnsafePointer<CChar>?, _ tools: String) throws -> Handle {
        var made: OpaquePointer?
        try tools.withCString { first in
            try checked { layerline_message_parser_new(model, format, first, tools.utf8.count, &made, $0) }
        }
        return try Handle(made, free: { layerline_message_parser_free($0) })
    }

    /// The name of the format.
    public var format: String {
        handle.use { own in String(cString: layerline_message_parser_format(own)) }
    }

    /// Begins another message, and forgets the last. `prompt`: the text that it answers, as ``Model/formatChat(_:addAssistant:)``
    /// gives it, or its last characters, or nothing: some templates end it inside the reasoning.
    public func begin(prompt: String = "") throws {
        try handle.use { own in
            try prompt.withCString { first in
                try checked { layerline_message_parser_begin(own, first, prompt.utf8.count, $0) }
            }
        }
    }

    /// Takes more of the text and gives the parts that it makes. Throws when the message has ended.
    public func feed(_ text: some Sequence<UInt8>) throws -> [MessagePart] {
        let text = text.map { CChar(bitPattern: $0) }
        return try handle.use { own in
            try text.withUnsafeBufferPointer { text in
                try checked { layerline_message_parser_feed(own, text.baseAddress, text.count, $0) }
            }
            return Self.parts(own)
        }
    }

    /// The same for text.
    public func feed(_ text: String) throws -> [MessagePart] {
        try feed(text.utf8)
    }

    /// Ends the message and gives the parts of what was kept back.
    public func finish() throws -> [MessagePart] {
        try handle.use { own in
            try checked { layerline_message_parser_finish(own, $0) }
            return Self.parts(own)
        }
    }

    /// The message so far as JSON, to go on the "messages" of ``Model/formatChat(json:addAssistant:)``: "role", "content",
    /// and where there are any "reasoning_content" and "tool_calls", whose arguments are an object, or text where they are
    /// not one.
    public func message() throws -> String {
        let text = try handle.use { own in try bytes { layerline_message_parser_message(own, $0, $1, $2, $3) } }
        return String(decoding: text, as: UTF8.self)
    }

    private static func parts(_ own: OpaquePointer) -> [MessagePart] {
        func string(_ first: UnsafePointer<CChar>?, _ count: Int) -> String {
            let characters = UnsafeBufferPointer(start: first, count: count)
            return String(decoding: characters.lazy.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        var parts: [MessagePart] = []
        var part = layerline_message_part()
        part.struct_size = UInt32(MemoryLayout<layerline_message_part>.size)
        while layerline_message_parser_next(own, &part) {
            let (text, index) = (string(part.text, part.length), Int(part.call))
            switch part.kind {
            case UInt32(LAYERLINE_PART_CONTENT): parts.append(.content(text))
            case UInt32(LAYERLINE_PART_REASONING): parts.append(.reasoning(text))
            case UInt32(LAYERLINE_PART_CALL):
                parts.append(.call(index: index, name: text, id: string(part.id, part.id_length)))
            case UInt32(LAYERLINE_PART_ARGUMENTS): parts.append(.arguments(index: index, text))
            case UInt32(LAYERLINE_PART_CALL_END): parts.append(.callEnd(index: index))
            default: break
            }
        }
        return parts
    }
}
