import CLayerline

/// Turns tokens into text as they come, for programs with a loop of their own: what it hands out is whole characters. It
/// keeps the model alive; a call that finds it in use throws ``Status/busy``.
public final class Detokenizer: Sendable {
    private let handle: Handle

    /// For the tokens of `model`. For what a model adds to a prompt, `.continued`.
    public init(_ model: Model, options: DetokenizeOptions = []) throws {
        var made: OpaquePointer?
        try model.handle.use { model in try checked { layerline_detokenizer_new(model, options.rawValue, &made, $0) } }
        handle = try Handle(made, free: { layerline_detokenizer_free($0) })
    }

    /// Takes tokens and gives the text that became whole with them. A token that the model does not have throws, and none
    /// is taken.
    public func push(_ tokens: [Token]) throws -> String {
        let text = try handle.use { own in
            try tokens.withUnsafeBufferPointer { tokens in
                try bytes { layerline_detokenizer_push(own, tokens.baseAddress, tokens.count, $0, $1, $2, $3) }
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// Ends the text: gives U+FFFD where it ends inside a character. The next token begins another text.
    public func finish() throws -> String {
        let text = try handle.use { own in try bytes { layerline_detokenizer_finish(own, $0, $1, $2, $3) } }
        return String(decoding: text, as: UTF8.self)
    }
}
