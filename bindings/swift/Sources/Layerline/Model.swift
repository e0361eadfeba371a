import CLayerline

/// A token's number in the vocabulary.
public typealias Token = Int32

/// The library that this program runs with.
public enum LayerlineLibrary {
    /// "MAJOR.MINOR.PATCH".
    public static var version: String { String(cString: layerline_version()) }
    /// MAJOR * 1000000 + MINOR * 1000 + PATCH.
    public static var versionNumber: Int { Int(layerline_version_number()) }
    /// Target, instruction set in use, features: for logs.
    public static var buildInfo: String { String(cString: layerline_build_info()) }
}

/// Facts of a model.
public struct ModelInfo: Hashable, Sendable {
    /// Layers, counted from 0 wherever one is named.
    public let layerCount: Int
    /// Numbers in the hidden state of a token.
    public let embeddingLength: Int
    /// Attention heads of a layer.
    public let headCount: Int
    /// Heads of keys and values, which attention heads share.
    public let keyValueHeadCount: Int
    /// Tokens of the vocabulary, which are numbered from 0.
    public let vocabularySize: Int
    /// Tokens of context the model was trained for.
    public let contextLength: Int
    /// 0: the model has no experts.
    public let expertCount: Int
    /// Experts that a token is routed to.
    public let expertUsedCount: Int
    /// The token that begins a text.
    public let beginToken: Token?
    /// The token that ends a text.
    public let endToken: Token?
    /// Passes can leave logits.
    public let hasHead: Bool
    /// A token sees only those before it; false in encoders.
    public let isCausal: Bool
    /// Conversations can be formatted by the model's own template.
    public let hasChatTemplate: Bool
    /// A session cannot be truncated to every length.
    public let hasRecurrentMemory: Bool
    /// Weights, each counted as one whatever its format.
    public let parameterCount: UInt64
}

/// Counters since a model was opened.
public struct Stats: Hashable, Sendable {
    /// The mode in use.
    public let io: IOMode
    /// The budget now: the model's own, or its share.
    public let budgetBytes: UInt64
    /// What is allocated of it now.
    public let usedBytes: UInt64
    /// The most that was ever allocated.
    public let peakBytes: UInt64
    /// Weights that stay, as planned now.
    public let pinnedBytes: UInt64
    /// Passes that ended well.
    public let passes: UInt64
    /// Tokens of those passes.
    public let tokens: UInt64
    /// Accesses of a layer that found every page pinned and there.
    public let layersResident: UInt64
    /// Accesses of a layer with streamed pages, all there in time.
    public let layersPrefetched: UInt64
    /// Accesses of a layer that had to wait.
    public let layersStalled: UInt64
    /// How long passes waited for pages.
    public let stallTime: Duration
    /// How long passes computed.
    public let computeTime: Duration
    /// Summed over all reads; reads overlap.
    public let readTime: Duration
    /// Read from storage, for passes and prefetches.
    public let readBytes: UInt64
    /// Calls of ``Model/prefetch(_:)`` that returned a ticket.
    public let prefetchRequests: UInt64
    /// Layers of them that failed.
    public let prefetchFailures: UInt64
    /// Pages evicted to make room for others.
    public let evictions: UInt64
    /// Experts that passes were routed to and found in memory. One that several tokens of a chunk use counts once.
    public let expertHits: UInt64
    /// Experts that passes were routed to and had to read.
    public let expertMisses: UInt64
    /// What had to be read of those.
    public let expertMissedBytes: UInt64
    /// Experts evicted to make room for others, or because the budget fell.
    public let expertEvictions: UInt64
    /// What the experts that one token uses take.
    public let expertWorkingSetBytes: UInt64
}

/// How text is read.
public struct TokenizeOptions: OptionSet, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Recognise control tokens in the text: for templates, never for users' text.
    public static let special = TokenizeOptions(rawValue: UInt32(LAYERLINE_TOKENIZE_SPECIAL))
    /// Add the beginning token where the model wants one.
    public static let begin = TokenizeOptions(rawValue: UInt32(LAYERLINE_TOKENIZE_BOS))
    /// Adds the ending token where the model wants one: for a text that is complete.
    public static let end = TokenizeOptions(rawValue: UInt32(LAYERLINE_TOKENIZE_EOS))
    /// The text goes on another: no space is put before it.
    public static let continued = TokenizeOptions(rawValue: UInt32(LAYERLINE_TOKENIZE_CONTINUE))
}

/// How tokens are turned into text.
public struct DetokenizeOptions: OptionSet, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// Control tokens have the text of their names.
    public static let control = DetokenizeOptions(rawValue: UInt32(LAYERLINE_DETOKENIZE_CONTROL))
    /// The tokens go on a text: its first space stays.
    public static let continued = DetokenizeOptions(rawValue: UInt32(LAYERLINE_DETOKENIZE_CONTINUE))
}

/// An open model. It is closed with the last reference; its sessions hold one. Any thread may use it at any time.
public final class Model: Sendable {
    let handle: Handle
    /// Facts of the model.
    public let info: ModelInfo

    /// Opens the file at `path`, the first one of a model in several. Returns as soon as its directory is read and
    /// checked; weights arrive in the background.
    public convenience init(path: String, options: Options = Options()) throws {
        let path = try terminated(path, "path")
        try self.init(options: options) { layerline_model_open(path, $0, $1, $2) }
    }

    /// Opens `length` bytes from `offset` of an open file; `length` 0: to its end. The descriptor is duplicated: the
    /// caller keeps and closes its own.
    public convenience init(
        fileDescriptor: Int32, offset: UInt64 = 0, length: UInt64 = 0, options: Options = Options()
    ) throws {
        try self.init(options: options) { layerline_model_open_fd(fileDescriptor, offset, length, $0, $1, $2) }
    }

    /// Opens a model out of a source. ``Options/io`` must be automatic or buffered.
    public convenience init(source: Source, options: Options = Options()) throws {
        let own = source.handle
        try self.init(options: options) { options, model, error in
            own.use { layerline_model_open_source($0, options, model, error) }
        }
    }

    private init(
        options: Options,
        open: (OpaquePointer, UnsafeMutablePointer<OpaquePointer?>, UnsafeMutablePointer<OpaquePointer?>)
            -> layerline_status
    ) throws {
        var model: OpaquePointer?
        try options.use { options in try checked { open(options, &model, $0) } }
        let handle = try Handle(model, free: { layerline_model_free($0) })
        var info = layerline_model_info()
        info.struct_size = UInt32(MemoryLayout<layerline_model_info>.size)
        try handle.use { model in try checked { layerline_model_get_info(model, &info, $0) } }
        self.handle = handle
        self.info = ModelInfo(
            layerCount: Int(info.layer_count),
            embeddingLength: Int(info.embedding_length),
            headCount: Int(info.head_count),
            keyValueHeadCount: Int(info.head_count_kv),
            vocabularySize: Int(info.vocab_size),
            contextLength: Int(info.context_length),
            expertCount: Int(info.expert_count),
            expertUsedCount: Int(info.expert_used_count),
            beginToken: info.bos_token < 0 ? nil : info.bos_token,
            endToken: info.eos_token < 0 ? nil : info.eos_token,
            hasHead: info.has_head,
            isCausal: info.causal,
            hasChatTemplate: info.has_chat_template,
            hasRecurrentMemory: info.has_recurrent_memory,
            parameterCount: info.parameter_count
        )
    }

    /// Counters so far, also while passes run.
    public var stats: Stats {
        get throws {
            var stats = layerline_stats()
            stats.struct_size = UInt32(MemoryLayout<layerline_stats>.size)
            try handle.use { model in try checked { layerline_model_get_stats(model, &stats, $0) } }
            return Stats(
                io: IOMode(rawValue: stats.io),
                budgetBytes: stats.budget_bytes,
                usedBytes: stats.used_bytes,
                peakBytes: stats.peak_bytes,
                pinnedBytes: stats.pinned_bytes,
                passes: stats.passes,
                tokens: stats.tokens,
                layersResident: stats.layers_resident,
                layersPrefetched: stats.layers_prefetched,
                layersStalled: stats.layers_stalled,
                stallTime: .nanoseconds(Int64(clamping: stats.stall_ns)),
                computeTime: .nanoseconds(Int64(clamping: stats.compute_ns)),
                readTime: .nanoseconds(Int64(clamping: stats.read_ns)),
                readBytes: stats.read_bytes,
                prefetchRequests: stats.prefetch_requests,
                prefetchFailures: stats.prefetch_failures,
                evictions: stats.evictions,
                expertHits: stats.expert_hits,
                expertMisses: stats.expert_misses,
                expertMissedBytes: stats.expert_missed_bytes,
                expertEvictions: stats.expert_evictions,
                expertWorkingSetBytes: stats.expert_working_set_bytes
            )
        }
    }

    /// A scalar or string of the file's metadata as text, such as that of "general.name". Throws
    /// ``Status/notFound`` where the file has no such key, ``Status/unsupported`` where it has an array there.
    public func metadata(_ key: String) throws -> String {
        let key = try terminated(key, "key")
        let text = try handle.use { model in try bytes { layerline_model_metadata(model, key, $0, $1, $2, $3) } }
        return String(decoding: text, as: UTF8.self)
    }

    /// The keys of the file's metadata, but for the vocabulary's arrays.
    public var metadataKeys: [String] {
        get throws {
            try handle.use { model in
                var count = 0
                try checked { layerline_model_metadata_count(model, &count, $0) }
                return try (0..<count).map { index in
                    let key = try bytes { layerline_model_metadata_key_at(model, index, $0, $1, $2, $3) }
                    return String(decoding: key, as: UTF8.self)
                }
            }
        }
    }

    /// Changes the memory budget while passes run, and returns at once; 0: from the cgroup's limit and the free memory.
    /// Of a smaller one, memory goes back now, but for what a running pass uses, which follows within one page's time.
    /// Throws ``Status/memoryBudget`` when the open sessions need more, and nothing changes.
    public func setMemoryBudget(_ bytes: UInt64) throws {
        try handle.use { model in try checked { layerline_model_set_memory_budget(model, bytes, $0) } }
    }

    /// Writes how likely each expert is to be used, by all passes so far and by the profile that the model was opened with,
    /// to a file for ``Options/profile``. The file gets its name when it is complete and on storage. Throws
    /// ``Status/unsupported`` when the model has no experts, and ``Status/io``. It waits for storage.
    public func saveProfile(to path: String) throws {
        let path = try terminated(path, "path")
        try handle.use { model in try checked { layerline_model_profile_save(model, path, $0) } }
    }

    /// The tokens of a text.
    public func tokenize(_ text: String, options: TokenizeOptions = []) throws -> [Token] {
        var text = text
        return try text.withUTF8 { utf8 in
            try utf8.withMemoryRebound(to: CChar.self) { text in
                var room = text.count / 3 + 8
                while true {
                    var needed = 0
                    var tokens: [Token] = []
                    do {
                        try checked { error in
                            var status = LAYERLINE_OK
                            tokens = [Token](unsafeUninitializedCapacity: room) { buffer, written in
                                status = handle.use {
                                    layerline_model_tokenize(
                                        $0, text.baseAddress, text.count, options.rawValue, buffer.baseAddress,
                                        buffer.count, &needed, error)
                                }
                                written = status == LAYERLINE_OK ? needed : 0
                            }
                            return status
                        }
                        return tokens
                    } catch let error as LayerlineError where error.status == .bufferTooSmall {
                        room = needed
                    }
                }
            }
        }
    }

    /// The text of a whole sequence; a character that its end cuts becomes U+FFFD. Control tokens have no text.
    public func detokenize(_ tokens: [Token], options: DetokenizeOptions = []) throws -> String {
        String(decoding: try detokenizedBytes(tokens, options: options), as: UTF8.self)
    }

    /// The bytes of the text of a whole sequence, UTF-8 but for a character that its end may cut.
    public func detokenizedBytes(_ tokens: [Token], options: DetokenizeOptions = []) throws -> [UInt8] {
        try handle.use { model in
            try tokens.withUnsafeBufferPointer { tokens in
                guard !options.isEmpty else {
                    return try bytes { layerline_model_detokenize(model, tokens.baseAddress, tokens.count, $0, $1, $2, $3) }
                }
                return try bytes {
                    layerline_model_detokenize_with(
                        model, tokens.baseAddress, tokens.count, options.rawValue, $0, $1, $2, $3)
                }
            }
        }
    }

    /// Whether a token ends a text or a turn.
    public func isEnd(_ token: Token) throws -> Bool {
        var end = false
        try handle.use { model in try checked { layerline_model_token_is_end(model, token, &end, $0) } }
        return end
    }

    /// The bytes that a token adds to a text that goes on, which may be part of a character, and what it is. A control
    /// token has the bytes of its name.
    public func text(of token: Token) throws -> (bytes: [UInt8], attributes: TokenAttributes) {
        var attributes: UInt32 = 0
        let text = try handle.use { model in
            try bytes { layerline_model_token_text(model, token, $0, $1, $2, &attributes, $3) }
        }
        return (text, TokenAttributes(rawValue: attributes))
    }
}

/// What a token is.
public struct TokenAttributes: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) {
        self.rawValue = rawValue
    }

    /// It steers the model, and has no text in an answer.
    public static let control = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_CONTROL))
    /// It ends a text or a turn.
    public static let end = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_END))
    /// It stands for one byte, which may be part of a character.
    public static let byte = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_BYTE))
    /// It is recognised in any text as it is written.
    public static let userDefined = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_USER_DEFINED))
    /// It stands for text that the vocabulary does not have.
    public static let unknown = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_UNKNOWN))
    /// The vocabulary marks it as unused.
    public static let unused = TokenAttributes(rawValue: UInt32(LAYERLINE_TOKEN_UNUSED))
}
