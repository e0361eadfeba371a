import CLayerline

/// How tokens are chosen. The chain is llama.cpp's default order: repeat penalty, top-k, top-p, min-p, temperature, draw.
public struct Sampling: Hashable, Sendable {
    /// What logits are divided by before the draw; 0: greedy, and nothing else but the repeat penalty counts.
    public var temperature: Float
    /// Only the `topK` likeliest tokens stay; 0: all.
    public var topK: Int
    /// Only the fewest likeliest tokens whose probabilities sum to `topP` stay, at least one; 1: all.
    public var topP: Float
    /// Only tokens at least `minP` times as probable as the likeliest stay; 0: all.
    public var minP: Float
    /// What logits of the last `repeatLast` tokens are divided by where positive, multiplied by where not; 1: none.
    public var repeatPenalty: Float
    /// How many tokens the repeat penalty looks at: those that the sampler chose, and the prompts that `generate` ran.
    public var repeatLast: Int
    /// Of the random sequence. The same seed, settings and logits give the same tokens on one platform.
    public var seed: UInt64
    /// Whether `generate` gives the text of control tokens, which else have none.
    public var showControl: Bool

    /// Greedy until told otherwise, and of equal logits the lowest token.
    public init(
        temperature: Float = 0,
        topK: Int = 0,
        topP: Float = 1,
        minP: Float = 0,
        repeatPenalty: Float = 1,
        repeatLast: Int = 64,
        seed: UInt64 = 0,
        showControl: Bool = false
    ) {
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        self.minP = minP
        self.repeatPenalty = repeatPenalty
        self.repeatLast = repeatLast
        self.seed = seed
        self.showControl = showControl
    }
}

/// Chooses tokens for one sequence, and remembers them for the repeat penalty. Any task may hold it; a call that finds it
/// in use throws ``Status/busy``.
public final class Sampler: Sendable {
    let handle: Handle

    /// Throws ``Status/invalidArgument`` for settings out of range.
    public init(_ sampling: Sampling = Sampling()) throws {
        let handle = try Handle(layerline_sampler_new(), free: { layerline_sampler_free($0) })
        let topK: UInt32 = try exact(sampling.topK, "topK")
        let repeatLast: UInt32 = try exact(sampling.repeatLast, "repeatLast")
        func set(_ name: String, _ value: Float, _ set: (OpaquePointer) -> layerline_status) throws {
            if handle.use(set) != LAYERLINE_OK {
                throw LayerlineError(.invalidArgument, "\(name) is \(value), which is out of range")
            }
        }
        try set("temperature", sampling.temperature) { layerline_sampler_set_temperature($0, sampling.temperature) }
        try set("topP", sampling.topP) { layerline_sampler_set_top_p($0, sampling.topP) }
        try set("minP", sampling.minP) { layerline_sampler_set_min_p($0, sampling.minP) }
        try set("repeatPenalty", sampling.repeatPenalty) {
            layerline_sampler_set_repeat_penalty($0, sampling.repeatPenalty, repeatLast)
        }
        try handle.use {
            try check(layerline_sampler_set_top_k($0, topK))
            try check(layerline_sampler_set_seed($0, sampling.seed))
            try check(layerline_sampler_set_show_control($0, sampling.showControl))
        }
        self.handle = handle
    }

    /// Chooses a token by the logits of the session's last pass. It is not fed to the session: give it to
    /// `forward`. It may be one that ends the text: ``Model/isEnd(_:)``.
    public func sample(_ session: Session) throws -> Token {
        var token: Token = 0
        try session.briefly { session in
            try handle.use { sampler in try checked { layerline_sampler_sample(sampler, session, &token, $0) } }
        }
        return token
    }

    /// Chooses a token by given logits, one for each token of the vocabulary.
    public func sample(logits: [Float]) throws -> Token {
        var token: Token = 0
        try handle.use { sampler in
            try checked { layerline_sampler_sample_logits(sampler, logits, logits.count, &token, $0) }
        }
        return token
    }

    /// Shows it tokens of its sequence that it did not choose, for the repeat penalty.
    public func accept(_ tokens: [Token]) throws {
        try handle.use { sampler in try checked { layerline_sampler_accept(sampler, tokens, tokens.count, $0) } }
    }

    /// Forgets the tokens seen and starts the random sequence anew. Settings stay.
    public func reset() throws {
        try handle.use { sampler in try checked { layerline_sampler_reset(sampler, $0) } }
    }

    private init(_ handle: Handle) {
        self.handle = handle
    }

    /// A second sampler with the settings of this one and all that it has seen.
    public func copy() throws -> Sampler {
        var made: OpaquePointer?
        try handle.use { sampler in try checked { layerline_sampler_copy(sampler, &made, $0) } }
        return Sampler(try Handle(made, free: { layerline_sampler_free($0) }))
    }
}
