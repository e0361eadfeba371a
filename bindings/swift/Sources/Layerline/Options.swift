import CLayerline

/// How weights are read from storage.
public struct IOMode: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Direct reads where the file system takes them, else buffered ones; ``Stats/io`` says which.
    public static let automatic = IOMode(rawValue: LAYERLINE_IO_AUTO)
    /// Direct reads, past the page cache.
    public static let direct = IOMode(rawValue: LAYERLINE_IO_DIRECT)
    /// Reads through the page cache.
    public static let buffered = IOMode(rawValue: LAYERLINE_IO_BUFFERED)
    /// A mapping of the file. A file that is truncated while it is mapped can kill the process.
    public static let mapped = IOMode(rawValue: LAYERLINE_IO_MMAP)
    /// By a ``Source``, which ``Stats/io`` then says. It cannot be chosen.
    public static let source = IOMode(rawValue: LAYERLINE_IO_SOURCE)
}

/// How sessions keep keys and values.
public struct KVType: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// Half floats.
    public static let f16 = KVType(rawValue: LAYERLINE_KV_F16)
    /// Signed bytes with a scale for every 32 of them: 17/32 of the memory, and results that differ a little.
    public static let q8_0 = KVType(rawValue: LAYERLINE_KV_Q8_0)
}

/// Settings for opening a model. 0 stands for what the library chooses. The model takes a copy.
public struct Options: Sendable {
    /// Bytes that the library may allocate for a model and all its sessions; 0: from the cgroup's limit and the free
    /// memory. ``MemoryPlan`` says beforehand what is needed.
    public var memoryBudget: UInt64
    /// Tokens that a new session can hold where it is not told otherwise; 0: 4096 or what the model was trained for, the
    /// lesser. Its key-value cache grows with them.
    public var contextLength: Int
    /// Tokens of a prompt that share one sweep over the weights; 0: 256.
    public var chunkLength: Int
    /// Threads that compute; 0: the CPUs this process may use.
    public var threads: Int
    /// Whether a background loader reads ahead of the pass. The results are the same.
    public var prefetch: Bool
    /// How many layers ahead of the pass the loader reads; 0: as far as the budget allows.
    public var prefetchDistance: Int
    /// At most this many layers held in memory, be the budget ever so large; 0: by budget alone.
    public var cacheLayers: Int
    /// How weights are read from storage.
    public var io: IOMode
    /// How sessions keep keys and values. Opening throws ``Status/unsupported`` for ``KVType/q8_0`` where the model's heads
    /// are not a multiple of 32 wide.
    public var kvType: KVType
    /// A file that ``Model/saveProfile(to:)`` wrote: where not all experts of the model fit, the likeliest ones are read
    /// before passes use them. Opening throws where it cannot be used: ``Status/io``, ``Status/format`` when it is not a
    /// profile or damaged, ``Status/unsupported`` when another version wrote it, ``Status/invalidArgument`` when it is of
    /// another model.
    public var profile: String?
    /// A budget to live on together with other models, in place of `memoryBudget`.
    public var sharedBudget: Budget?
    /// Whether passes of several sessions that wait share a sweep over the weights. The results are the same.
    public var shareSweeps: Bool
    /// Opens the layer of the file that predicts further tokens in place of the model: it drafts for the model, see
    /// ``TextGeneration/draft(with:contextLength:maxDrafts:)``. Opening throws ``Status/unsupported`` where there is none.
    public var predictor: Bool

    public init(
        memoryBudget: UInt64 = 0,
        contextLength: Int = 0,
        chunkLength: Int = 0,
        threads: Int = 0,
        prefetch: Bool = true,
        prefetchDistance: Int = 0,
        cacheLayers: Int = 0,
        io: IOMode = .automatic,
        kvType: KVType = .f16,
        profile: String? = nil,
        sharedBudget: Budget? = nil,
        shareSweeps: Bool = true,
        predictor: Bool = false
    ) {
        self.memoryBudget = memoryBudget
        self.contextLength = contextLength
        self.chunkLength = chunkLength
        self.threads = threads
        self.prefetch = prefetch
        self.prefetchDistance = prefetchDistance
        self.cacheLayers = cacheLayers
        self.io = io
        self.kvType = kvType
        self.profile = profile
        self.sharedBudget = sharedBudget
        self.shareSweeps = shareSweeps
        self.predictor = predictor
    }

    /// As the C interface has them, during a call.
    func use<Result>(_ call: (OpaquePointer) throws -> Result) throws -> Result {
        try Handle(layerline_options_new(), free: { layerline_options_free($0) }).use { options in
            try check(layerline_options_set_memory_budget(options, memoryBudget))
            try check(layerline_options_set_context_length(options, exact(contextLength, "contextLength")))
            try check(layerline_options_set_chunk_length(options, exact(chunkLength, "chunkLength")))
            try check(layerline_options_set_threads(options, exact(threads, "threads")))
            try check(layerline_options_set_prefetch(options, prefetch))
            try check(layerline_options_set_share_sweeps(options, shareSweeps))
            try check(layerline_options_set_predictor(options, predictor))
            try check(layerline_options_set_prefetch_distance(options, exact(prefetchDistance, "prefetchDistance")))
            try check(layerline_options_set_cache_layers(options, exact(cacheLayers, "cacheLayers")))
            if layerline_options_set_kv_type(options, kvType.rawValue) != LAYERLINE_OK {
                throw LayerlineError(.invalidArgument, "kvType is \(kvType.rawValue), which is no type")
            }
            if layerline_options_set_io(options, io.rawValue) != LAYERLINE_OK {
                throw LayerlineError(.invalidArgument, "io is \(io.rawValue), which is no mode")
            }
            if let profile {
                try check(layerline_options_set_profile(options, terminated(profile, "profile")))
            }
            try sharedBudget?.handle.use { try check(layerline_options_set_shared_budget(options, $0)) }
            return try call(options)
        }
    }
}

/// A memory budget that several models share: each gets what it cannot do without, and the rest is divided in proportion
/// to what each would need to stream nothing. Models keep it alive. Any thread may use it at any time.
public final class Budget: Sendable {
    let handle: Handle

    /// `bytes` to be shared.
    public init(bytes: UInt64) throws {
        handle = try Handle(layerline_budget_new(bytes), free: { layerline_budget_free($0) })
    }

    /// Changes the total, while passes run. When it returns the models use no more than that, which may take one page's
    /// time of their passes. Throws ``Status/memoryBudget`` when they need more, and nothing has changed.
    public func setBytes(_ bytes: UInt64) throws {
        try handle.use { budget in try checked { layerline_budget_set_bytes(budget, bytes, $0) } }
    }
}

/// What a model needs at given options, before anything is loaded. All sizes in bytes.
public struct MemoryPlan: Hashable, Sendable {
    /// Layers of the model.
    public let layerCount: Int
    /// The file, or all files of a model in several.
    public let fileBytes: UInt64
    /// All weights, as they are in the file.
    public let weightBytes: UInt64
    /// The least budget that works.
    public let floorBytes: UInt64
    /// The budget at which nothing is streamed.
    public let fullBytes: UInt64
    /// Part of both: what one session takes, its key-value cache and room for the results of a pass.
    public let kvBytes: UInt64
    /// Part of both: the activations of a running pass, and the stacks of threads.
    public let scratchBytes: UInt64
    /// Part of both: vocabulary, metadata, and small tensors that always stay.
    public let tablesBytes: UInt64
    /// Weights that stay, at these options.
    public let pinnedBytes: UInt64
    /// Weights read from storage in each forward pass, at these options.
    public let streamedBytes: UInt64
    /// Tensors of the file that are never read: those of parts that a pass over text does not run.
    public let unreadTensors: UInt64
    /// Part of the weights: what those tensors take in the file.
    public let unreadBytes: UInt64
    /// Weights of the experts that one token uses.
    public let expertWorkingSetBytes: UInt64

    /// Reads the directory of the file at `path`, no weights. A budget below the floor is no error here.
    public init(path: String, options: Options = Options()) throws {
        let path = try terminated(path, "path")
        try self.init(options: options) { layerline_options_plan($0, path, $1, $2) }
    }

    /// The same of a model in a source.
    public init(source: Source, options: Options = Options()) throws {
        try self = source.handle.use { source in
            try MemoryPlan(options: options) { layerline_options_plan_source($0, source, $1, $2) }
        }
    }

    private init(
        options: Options,
        fill: (OpaquePointer, UnsafeMutablePointer<layerline_plan>, UnsafeMutablePointer<OpaquePointer?>)
            -> layerline_status
    ) throws {
        var plan = layerline_plan()
        plan.struct_size = UInt32(MemoryLayout<layerline_plan>.size)
        try options.use { options in try checked { fill(options, &plan, $0) } }
        layerCount = Int(plan.layer_count)
        fileBytes = plan.file_bytes
        weightBytes = plan.weight_bytes
        floorBytes = plan.floor_bytes
        fullBytes = plan.full_bytes
        kvBytes = plan.kv_bytes
        scratchBytes = plan.scratch_bytes
        tablesBytes = plan.tables_bytes
        pinnedBytes = plan.pinned_bytes
        streamedBytes = plan.streamed_bytes
        unreadTensors = plan.unread_tensors
        unreadBytes = plan.unread_bytes
        expertWorkingSetBytes = plan.expert_working_set_bytes
    }
}
