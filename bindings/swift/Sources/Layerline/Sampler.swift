import CLayerline

/// A step of a sampler's chain, in the default order.
public enum SamplingStep: Int32, CaseIterable, Sendable {
    case penalties, dry, topNSigma, topK, typicalP, topP, minP, xtc, temperature
}

/// How tokens are chosen. The steps of the chain and their order are llama.cpp's.
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

    /// Off the logit of a token for each time that it is among the last `repeatLast`.
    public var frequencyPenalty: Float = 0
    /// Off the logit of a token that is among them, once.
    public var presencePenalty: Float = 0
    /// Only the fewest tokens whose probabilities sum to more stay, beginning with those whose information is nearest to the
    /// entropy; 1: all.
    public var typicalP: Float = 1
    /// Only tokens whose logits are at most so many standard deviations below the greatest stay; 0: all.
    public var topNSigma: Float = 0
    /// How often of the tokens at least as probable as `xtcThreshold` only the least probable stays; 0: never.
    public var xtcProbability: Float = 0
    /// See `xtcProbability`.
    public var xtcThreshold: Float = 0.1
    /// How far the temperature goes up and down with the entropy; 0: it stays.
    public var temperatureRange: Float = 0
    /// How the temperature follows: above 1 it stays low for longer.
    public var temperatureExponent: Float = 1
    /// The surprise in bits that Mirostat 2 aims at; 0: off.
    public var mirostatTau: Float = 0
    /// The rate of Mirostat 2.
    public var mirostatEta: Float = 0.1
    /// A token that goes on with a sequence that was there before loses this times `dryBase` to the power of the sequence's
    /// length less `dryAllowedLength`; 0: off. Breakers come by ``Sampler/addDryBreaker(_:of:)``.
    public var dryMultiplier: Float = 0
    /// See `dryMultiplier`.
    public var dryBase: Float = 1.75
    /// See `dryMultiplier`.
    public var dryAllowedLength: Int = 2
    /// How many tokens back DRY looks.
    public var dryLast: Int = 1024
    /// What is added to logits, by token; minus infinity bans one.
    public var logitBias: [Token: Float] = [:]
    /// Which steps the chain has, in their order.
    public var steps: [SamplingStep] = SamplingStep.allCases

    /// Greedy until told otherwise, and of equal logits the lowest token. The rest of the chain is off, and set afterwards.
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
        try set("frequencyPenalty", sampling.frequencyPenalty) {
            layerline_sampler_set_frequency_penalty($0, sampling.frequencyPenalty)
        }
        try set("presencePenalty", sampling.presencePenalty) {
            layerline_sampler_set_presence_penalty($0, sampling.presencePenalty)
        }
        try set("typicalP", sampling.typicalP) { layerline_sampler_set_typical_p($0, sampling.typicalP) }
        try set("topNSigma", sampling.topNSigma) { layerline_sampler_set_top_n_sigma($0, sampling.topNSigma) }
        try set("xtcProbability", sampling.xtcProbability) {
            layerline_sampler_set_xtc($0, sampling.xtcProbability, sampling.xtcThreshold)
        }
        try set("temperatureRange", sampling.temperatureRange) {
            layerline_sampler_set_dynamic_temperature($0, sampling.temperatureRange, sampling.temperatureExponent)
        }
        try set("mirostatTau", sampling.mirostatTau) {
            layerline_sampler_set_mirostat($0, sampling.mirostatTau, sampling.mirostatEta)
        }
        let allowed: UInt32 = try exact(sampling.dryAllowedLength, "dryAllowedLength")
        let dryLast: UInt32 = try exact(sampling.dryLast, "dryLast")
        try set("dryMultiplier", sampling.dryMultiplier) {
            layerline_sampler_set_dry($0, sampling.dryMultiplier, sampling.dryBase, allowed, dryLast)
        }
        let biased = Array(sampling.logitBias.keys), biases = Array(sampling.logitBias.values)
        let steps = sampling.steps.map(\.rawValue)
        try handle.use { sampler in
            try checked { layerline_sampler_set_logit_biases(sampler, biased, biases, biased.count, $0) }
            try checked { layerline_sampler_set_steps(sampler, steps, steps.count, $0) }
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

    /// Adds a text that no sequence that DRY looks for goes across, in tokens of the model.
    public func addDryBreaker(_ text: String, of model: Model) throws {
        var text = text
        try text.withUTF8 { bytes in
            try bytes.withMemoryRebound(to: CChar.self) { chars in
                try model.handle.use { model in
                    try handle.use { sampler in
                        try checked {
                            layerline_sampler_add_dry_breaker(sampler, model, chars.baseAddress, chars.count, $0)
                        }
                    }
                }
            }
        }
    }

    /// Removes all of these texts.
    public func clearDryBreakers() throws {
        try handle.use { sampler in try checked { layerline_sampler_clear_dry_breakers(sampler, $0) } }
    }

    /// Shows it tokens of its sequence that it did not choose, for penalties.
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
