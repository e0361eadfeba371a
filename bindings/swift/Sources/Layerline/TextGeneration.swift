import CLayerline
import Foundation

/// Why a generation ended.
public struct GenerationEnd: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// It has not ended, or by an error.
    public static let none = GenerationEnd(rawValue: LAYERLINE_END_NONE)
    /// By a token that ends the text.
    public static let token = GenerationEnd(rawValue: LAYERLINE_END_TOKEN)
    /// The most tokens that were asked for are there.
    public static let length = GenerationEnd(rawValue: LAYERLINE_END_LENGTH)
    /// A stop string came.
    public static let stop = GenerationEnd(rawValue: LAYERLINE_END_STOP)
    /// Nobody wanted more.
    public static let callback = GenerationEnd(rawValue: LAYERLINE_END_CALLBACK)
    /// The text is complete by its constraint.
    public static let constraint = GenerationEnd(rawValue: LAYERLINE_END_CONSTRAINT)
    /// The context was full: the call threw ``Status/contextFull``.
    public static let context = GenerationEnd(rawValue: LAYERLINE_END_CONTEXT)
}

/// Figures of the last generation.
public struct GenerationStats: Hashable, Sendable {
    public let end: GenerationEnd
    /// Tokens chosen, one that ended the text included.
    public let tokens: UInt64
    /// Passes after those of the prompt.
    public let passes: UInt64
    /// Tokens that were drafted.
    public let drafted: UInt64
    /// Those of them that the sampler chose.
    public let accepted: UInt64
    /// Nanoseconds that drafts have saved by estimate, less those they have cost.
    public let gainedNanoseconds: Int64
    /// Tokens of the session that were dropped to make room.
    public let dropped: UInt64
}

/// Settings of generations: their length, what ends them, and who drafts tokens. It can be used for many, one after the
/// other; a call that finds it in use throws ``Status/busy``. Drafts change no token, and save readings of the weights where
/// these are streamed.
public final class TextGeneration: @unchecked Sendable {
    let handle: Handle
    private let lock = NSLock()
    // Under the lock.
    private var logprobs = false

    /// Whether tokens come with log-probabilities.
    var hasLogprobs: Bool {
        lock.lock()
        defer { lock.unlock() }
        return logprobs
    }

    /// - Parameters:
    ///   - maxTokens: at most so many are generated; nil: until the text ends or the session is full.
    ///   - stops: texts that end it where they come. Neither they nor parts of them are given out.
    public init(maxTokens: Int? = nil, stops: [String] = []) throws {
        handle = try Handle(layerline_generation_new(), free: { layerline_generation_free($0) })
        if let maxTokens {
            let most: UInt = try exact(maxTokens, "maxTokens")
            try handle.use { try check(layerline_generation_set_max_tokens($0, Int(most))) }
        }
        for stop in stops {
            try addStop(stop)
        }
    }

    /// Adds a stop string.
    public func addStop(_ text: String) throws {
        var text = text
        try text.withUTF8 { utf8 in
            try utf8.withMemoryRebound(to: CChar.self) { text in
                try handle.use { own in
                    try checked { layerline_generation_add_stop(own, text.baseAddress, text.count, $0) }
                }
            }
        }
    }

    /// Removes all stop strings.
    public func clearStops() throws {
        try handle.use { own in try checked { layerline_generation_clear_stops(own, $0) } }
    }

    /// Drafts what followed the last tokens where they stood before, up to `maxDrafts` tokens for a pass, at most 64; 0: no
    /// drafts.
    public func draftFromText(maxDrafts: Int) throws {
        let most: UInt32 = try exact(maxDrafts, "maxDrafts")
        try handle.use { try check(layerline_generation_set_draft_text($0, most)) }
    }

    /// Lets another model with the same tokens, or one opened with ``Options/predictor``, draft up to `maxDrafts` tokens for a
    /// pass, in a session of its own with room for `contextLength` tokens; 0: what its options say. nil: no drafts.
    public func draft(with model: Model?, contextLength: Int = 0, maxDrafts: Int = 8) throws {
        let (context, most): (UInt32, UInt32) = try (
            exact(contextLength, "contextLength"), exact(maxDrafts, "maxDrafts")
        )
        try handle.use { own in
            guard let model else {
                return try checked { layerline_generation_set_draft_model(own, nil, context, most, $0) }
            }
            try model.handle.use { model in
                try checked { layerline_generation_set_draft_model(own, model, context, most, $0) }
            }
        }
    }

    /// Lets a full context drop its oldest tokens after the first `keptFirst`: the older half of them, or as many as are
    /// needed. The rest is taken in again at its new positions, with the bits of a new session that was given what stays; that
    /// costs a pass over those tokens. nil, the default: a full context ends a generation with ``Status/contextFull``.
    public func setContextPolicy(keptFirst: Int?) throws {
        let kept: UInt = try exact(keptFirst ?? 0, "keptFirst")
        let policy = keptFirst == nil ? LAYERLINE_CONTEXT_STOP : LAYERLINE_CONTEXT_DROP_OLDEST
        try handle.use { try check(layerline_generation_set_context_policy($0, policy, Int(kept))) }
    }

    /// Lets tokens come with their log-probabilities, and those of the likeliest `top`, at most 256; nil: without.
    public func setLogprobs(top: Int?) throws {
        let most: UInt32 = try exact(top ?? 0, "top")
        try handle.use { try check(layerline_generation_set_logprobs($0, top != nil, most)) }
        lock.lock()
        defer { lock.unlock() }
        logprobs = top != nil
    }

    /// Lets texts follow a copy of a constraint, from where it is now. nil: they are free.
    public func setConstraint(_ constraint: Constraint?) throws {
        try handle.use { own in
            guard let constraint else {
                return try checked { layerline_generation_set_constraint(own, nil, $0) }
            }
            try constraint.handle.use { constraint in
                try checked { layerline_generation_set_constraint(own, constraint, $0) }
            }
        }
    }

    /// Tells of the last generation.
    public var stats: GenerationStats {
        get throws {
            var stats = layerline_generation_stats()
            stats.struct_size = UInt32(MemoryLayout<layerline_generation_stats>.size)
            try handle.use { own in try checked { layerline_generation_get_stats(own, &stats, $0) } }
            return GenerationStats(
                end: GenerationEnd(rawValue: stats.end),
                tokens: stats.tokens,
                passes: stats.passes,
                drafted: stats.drafted,
                accepted: stats.accepted,
                gainedNanoseconds: stats.gained_ns,
                dropped: stats.dropped)
        }
    }
}
