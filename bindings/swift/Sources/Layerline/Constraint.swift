import CLayerline

/// What a text must be like, and how far it is: for a ``TextGeneration``, and for programs that sample themselves. It is
/// about the tokens of one model, which it keeps alive; a call that finds it in use throws ``Status/busy``.
public final class Constraint: Sendable {
    /// How a constraint is written.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32

        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// JSON that a schema describes.
        public static let jsonSchema = Kind(rawValue: LAYERLINE_CONSTRAINT_JSON_SCHEMA)
        /// A grammar in llama.cpp's GBNF, from its rule `root`.
        public static let gbnf = Kind(rawValue: LAYERLINE_CONSTRAINT_GBNF)
        /// A grammar in llguidance's Lark, from its rule `start`.
        public static let lark = Kind(rawValue: LAYERLINE_CONSTRAINT_LARK)
        /// A regular expression, which the whole text matches.
        public static let regex = Kind(rawValue: LAYERLINE_CONSTRAINT_REGEX)
    }

    /// How far the text is.
    public struct State: RawRepresentable, Hashable, Sendable {
        public let rawValue: Int32

        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// It goes on.
        public static let open = State(rawValue: LAYERLINE_CONSTRAINT_OPEN)
        /// It may end here, or go on.
        public static let mayEnd = State(rawValue: LAYERLINE_CONSTRAINT_MAY_END)
        /// Nothing can follow.
        public static let complete = State(rawValue: LAYERLINE_CONSTRAINT_COMPLETE)
    }

    let handle: Handle

    /// At the beginning of a text of the tokens of `model`.
    public init(_ model: Model, _ kind: Kind, _ text: String) throws {
        var (made, text): (OpaquePointer?, String) = (nil, text)
        try text.withUTF8 { utf8 in
            try utf8.withMemoryRebound(to: CChar.self) { text in
                try model.handle.use { model in
                    try checked {
                        layerline_constraint_new(model, kind.rawValue, text.baseAddress, text.count, &made, $0)
                    }
                }
            }
        }
        handle = try Handle(made, free: { layerline_constraint_free($0) })
    }

    private init(_ made: OpaquePointer?) throws {
        handle = try Handle(made, free: { layerline_constraint_free($0) })
    }

    /// A constraint that is as far as this one. The two have nothing in common.
    public func copy() throws -> Constraint {
        var made: OpaquePointer?
        try handle.use { own in try checked { layerline_constraint_copy(own, &made, $0) } }
        return try Constraint(made)
    }

    /// The tokens that may come next: bit i % 32 of word i / 32 is that of token i.
    public func mask() throws -> [UInt32] {
        try handle.use { own in
            var needed = 0
            let status = layerline_constraint_mask(own, nil, 0, &needed, nil)
            if status != LAYERLINE_ERROR_BUFFER_TOO_SMALL {
                try check(status)
            }
            var words = [UInt32](repeating: 0, count: needed)
            try checked { layerline_constraint_mask(own, &words, words.count, &needed, $0) }
            return words
        }
    }

    /// How the text goes on. Where one of the tokens may not come there, it throws, and none is taken.
    public func accept(_ tokens: [Token]) throws {
        try handle.use { own in
            try tokens.withUnsafeBufferPointer { tokens in
                try checked { layerline_constraint_accept(own, tokens.baseAddress, tokens.count, $0) }
            }
        }
    }

    /// The tokens that the text goes on with in any case. They are not accepted.
    public func forced() throws -> [Token] {
        try handle.use { own in
            var (needed, tokens) = (0, [Token](repeating: 0, count: 64))
            var status = layerline_constraint_forced(own, &tokens, tokens.count, &needed, nil)
            if status == LAYERLINE_ERROR_BUFFER_TOO_SMALL {
                tokens = [Token](repeating: 0, count: needed)
                status = layerline_constraint_forced(own, &tokens, tokens.count, &needed, nil)
            }
            try check(status)
            return Array(tokens.prefix(needed))
        }
    }

    /// How far the text is.
    public var state: State {
        get throws {
            var state: Int32 = 0
            try handle.use { own in try checked { layerline_constraint_get_state(own, &state, $0) } }
            return State(rawValue: state)
        }
    }
}
