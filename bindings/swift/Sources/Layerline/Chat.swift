import CLayerline

/// One message of a conversation.
public struct Message: Hashable, Sendable {
    /// Who speaks, as the model's template calls it: "system", "user", "assistant", "tool".
    public var role: String
    /// What is said.
    public var content: String

    public init(role: String, content: String) {
        (self.role, self.content) = (role, content)
    }
}

extension Model {
    /// The text of a conversation, by the template that comes with the model. `addAssistant`: it ends where the
    /// assistant's answer begins, which is then to be generated.
    ///
    /// It is to be tokenised with ``TokenizeOptions/special`` and without ``TokenizeOptions/begin``. Control tokens that a
    /// message spells are then recognised like the template's own: for text from outside use
    /// ``tokenizeChat(_:addAssistant:)``, where what messages say stays text.
    ///
    /// Throws ``Status/unsupported`` when the model has no template, or one that uses a function that is not built in;
    /// ``Status/invalidArgument``, also for messages that the template refuses, in its words, and for those that hold a
    /// NUL; ``Status/format`` for a template that cannot be parsed or goes beyond its bounds of time and memory.
    public func formatChat(_ messages: [Message], addAssistant: Bool = true) throws -> String {
        try withMessages(messages) { first, count in
            try chatText { layerline_model_format_chat($0, first, count, addAssistant, $1, $2, $3, $4) }
        }
    }

    /// The same for conversations with tools, tool calls, documents, names. `json`: an object in UTF-8, whose members
    /// become the template's variables: "messages" is required; "tools", "documents" and what else the template asks for,
    /// such as "enable_thinking", may be there.
    public func formatChat(json: some Sequence<UInt8>, addAssistant: Bool = true) throws -> String {
        try withCharacters(json) { first, count in
            try chatText { layerline_model_format_chat_json($0, first, count, addAssistant, $1, $2, $3, $4) }
        }
    }

    /// The tokens of the text of ``formatChat(_:addAssistant:)``, but that control tokens are recognised only where the
    /// template spells them: in what messages say they stay text, so that nobody but the template speaks for another.
    public func tokenizeChat(_ messages: [Message], addAssistant: Bool = true) throws -> [Token] {
        try withMessages(messages) { first, count in
            try chatTokens { layerline_model_tokenize_chat($0, first, count, addAssistant, $1, $2, $3, $4) }
        }
    }

    /// The same for a conversation as ``formatChat(json:addAssistant:)`` takes it.
    public func tokenizeChat(json: some Sequence<UInt8>, addAssistant: Bool = true) throws -> [Token] {
        try withCharacters(json) { first, count in
            try chatTokens { layerline_model_tokenize_chat_json($0, first, count, addAssistant, $1, $2, $3, $4) }
        }
    }

    private typealias Writing<Element> = (
        OpaquePointer, UnsafeMutablePointer<Element>?, Int, UnsafeMutablePointer<Int>,
        UnsafeMutablePointer<OpaquePointer?>
    ) -> layerline_status

    private func chatText(_ write: Writing<CChar>) throws -> String {
        let text = try handle.use { model in
            try written(room: 1024, beyond: 1) { buffer, needed, error in
                buffer.withMemoryRebound(to: CChar.self) { write(model, $0.baseAddress, $0.count, needed, error) }
            } as [UInt8]
        }
        return String(decoding: text, as: UTF8.self)
    }

    private func chatTokens(_ write: Writing<Token>) throws -> [Token] {
        try handle.use { model in
            try written(room: 256, beyond: 0) { buffer, needed, error in
                write(model, buffer.baseAddress, buffer.count, needed, error)
            }
        }
    }
}

/// What a function of the C interface writes, however much it is. `beyond`: the room for its NUL.
private func written<Element>(
    room: Int, beyond: Int,
    _ write: (UnsafeMutableBufferPointer<Element>, UnsafeMutablePointer<Int>, UnsafeMutablePointer<OpaquePointer?>)
        -> layerline_status
) throws -> [Element] {
    var room = room
    while true {
        var needed = 0
        var result: [Element] = []
        do {
            try checked { error in
                var status = LAYERLINE_OK
                result = [Element](unsafeUninitializedCapacity: room) { buffer, count in
                    status = write(buffer, &needed, error)
                    count = status == LAYERLINE_OK ? needed : 0
                }
                return status
            }
            return result
        } catch let error as LayerlineError where error.status == .bufferTooSmall {
            room = needed + beyond
        }
    }
}

/// Calls `body` with messages as C has them: their texts lie end to end, each with its NUL.
private func withMessages<Result>(
    _ messages: [Message], _ body: (UnsafePointer<layerline_message>?, Int) throws -> Result
) throws -> Result {
    var text: [UInt8] = []
    var starts: [Int] = []
    for (index, message) in messages.enumerated() {
        for said in [try terminated(message.role, "role of message \(index)"),
            try terminated(message.content, "content of message \(index)")]
        {
            starts.append(text.count)
            text.append(contentsOf: said.utf8)
            text.append(0)
        }
    }
    return try withCharacters(text) { first, _ in
        let pointers = starts.map { first + $0 }
        let table = messages.indices.map { layerline_message(role: pointers[2 * $0], content: pointers[2 * $0 + 1]) }
        return try table.withUnsafeBufferPointer { try body($0.baseAddress, $0.count) }
    }
}

/// Calls `body` with bytes as C has text, which is no NULL for none.
private func withCharacters<Result>(
    _ bytes: some Sequence<UInt8>, _ body: (UnsafePointer<CChar>, Int) throws -> Result
) throws -> Result {
    let copied = bytes.map { CChar(bitPattern: $0) } + [0]
    return try copied.withUnsafeBufferPointer { try body($0.baseAddress!, $0.count - 1) }
}
