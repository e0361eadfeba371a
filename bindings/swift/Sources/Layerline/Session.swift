import CLayerline
import Dispatch

/// Which tokens of a pass get logits.
public enum LogitRows: Int32, Hashable, Sendable {
    /// The last one.
    case last = 0
    /// Every one.
    case all = 1
    /// None.
    case none = 2
}

/// Which embeddings a pass leaves: hidden states after the final norm, not normalised.
public enum EmbeddingRows: Int32, Hashable, Sendable {
    /// None.
    case none = 0
    /// Of every token.
    case all = 1
    /// Of the last token.
    case last = 2
    /// The mean of those of all tokens of the pass.
    case mean = 3
    /// Of the first token.
    case first = 4
    /// In place of an embedding the outputs of the model's classifier: one, the score, of a reranker.
    case score = 5
}

/// One sequence of tokens on a model: its key-value cache and its passes. Its memory goes back to the budget with the
/// last reference.
///
/// One pass or generation at a time: a call meanwhile throws ``Status/busy``, but for ``interrupt()``. Where that one was
/// cancelled, the call waits for its end, which takes the time of one page at most. Any task may hold the session.
public final class Session: Sendable {
    /// The model it was made on.
    public let model: Model
    let handle: Handle
    let turns = Turns()
    let queue = DispatchQueue(label: "layerline.session")

    /// `contextLength`: tokens it can hold; 0: what the model's options say. Throws ``Status/memoryBudget`` when the
    /// budget has no room for its key-value cache.
    public init(_ model: Model, contextLength: Int = 0) throws {
        let length: UInt32 = try exact(contextLength, "contextLength")
        var session: OpaquePointer?
        try model.handle.use { model in try checked { layerline_session_new(model, length, &session, $0) } }
        handle = try Handle(session, free: { layerline_session_free($0) })
        self.model = model
    }

    private init(_ model: Model, owning session: OpaquePointer?) throws {
        handle = try Handle(session, free: { layerline_session_free($0) })
        self.model = model
    }

    /// A second session with the tokens of this one and its last logits, as row 0, so that a prompt is run once and
    /// continued in many ways. The two have nothing in common from then on. `contextLength`: tokens it can hold; 0: as
    /// many as this one. Throws ``Status/memoryBudget`` when the budget has no room for its key-value cache,
    /// ``Status/contextFull`` when this one holds more tokens, ``Status/unsupported`` for an encoder.
    public func copy(contextLength: Int = 0) throws -> Session {
        let length: UInt32 = try exact(contextLength, "contextLength")
        var copy: OpaquePointer?
        try briefly { session in try checked { layerline_session_copy(session, length, &copy, $0) } }
        return try Session(model, owning: copy)
    }

    /// Writes what the session holds to a file: keys and values of its tokens, and the logits of the last one where the
    /// last pass left some. ``load(from:)`` goes on from there with the same bits, in another process too. The tokens
    /// themselves are in it.
    ///
    /// The file gets its name when it is complete and on storage: what had the name before is replaced whole, or stays.
    /// Only its owner can read it. Throws ``Status/io``, and ``Status/unsupported`` for an encoder.
    public func save(to path: String) async throws {
        let path = try terminated(path, "path")
        try await inTurn { session in try checked { layerline_session_save(session, path, $0) } }
    }

    /// The same on the thread of the caller, for programs without tasks.
    @available(*, noasync, message: "it blocks the thread: use save(to:)")
    public func saveAndWait(to path: String) throws {
        let path = try terminated(path, "path")
        try inTurnHere { session in try checked { layerline_session_save(session, path, $0) } }
    }

    /// Replaces what the session holds by what ``save(to:)`` wrote in a session of the same model. Their context lengths
    /// may differ.
    ///
    /// After an error the session is as it was before: ``Status/io``; ``Status/format`` when it is not a state, cut short or
    /// damaged; ``Status/unsupported`` when a newer library wrote it, and for an encoder; ``Status/invalidArgument`` when it
    /// is of another model or ``KVType``; ``Status/contextFull`` when it holds more tokens than the session can;
    /// ``Status/memoryBudget`` when the budget has no room for a copy of what the session holds. Checkpoints of what the
    /// session held are lost.
    public func load(from path: String) async throws {
        let path = try terminated(path, "path")
        try await inTurn { session in try checked { layerline_session_load(session, path, $0) } }
    }

    /// The same on the thread of the caller, for programs without tasks.
    @available(*, noasync, message: "it blocks the thread: use load(from:)")
    public func loadAndWait(from path: String) throws {
        let path = try terminated(path, "path")
        try inTurnHere { session in try checked { layerline_session_load(session, path, $0) } }
    }

    /// The bytes that ``save(to:)`` would write to a file. The first state of a model waits for a sample of its file.
    public func saveState() throws -> [UInt8] {
        try briefly { session in
            var size = 0
            do {
                try checked { layerline_session_save_buffer(session, nil, 0, &size, $0) }
            } catch let error as LayerlineError where error.status == .bufferTooSmall {}
            return try [UInt8](unsafeUninitializedCapacity: size) { state, count in
                try checked { layerline_session_save_buffer(session, state.baseAddress, state.count, &size, $0) }
                count = size
            }
        }
    }

    /// Replaces what the session holds by what ``saveState()`` gave, or ``save(to:)`` wrote, in a session of the same model.
    /// After an error, which is one of ``load(from:)``, the session is as it was before.
    public func loadState(_ state: [UInt8]) throws {
        try briefly { session in
            try state.withUnsafeBufferPointer { state in
                try checked { layerline_session_load_buffer(session, state.baseAddress, state.count, $0) }
            }
        }
    }

    /// Keeps the point where the session is now, so that ``restore(_:)`` can go back to it where ``truncate(to:)`` cannot.
    /// Throws ``Status/memoryBudget`` when the budget has no room, ``Status/unsupported`` for an encoder.
    public func checkpoint() throws -> Checkpoint {
        var made: OpaquePointer?
        try briefly { session in try checked { layerline_session_checkpoint(session, &made, $0) } }
        return try Checkpoint(owning: made)
    }

    /// Goes back to a checkpoint of this session, as often as wanted. Throws ``Status/invalidArgument`` when it is of another
    /// session, or when this one has gone back to fewer tokens or was loaded since; nothing changes then.
    public func restore(_ checkpoint: Checkpoint) throws {
        try briefly { session in
            try checkpoint.handle.use { point in try checked { layerline_session_restore(session, point, $0) } }
        }
    }

    /// Runs tokens through the model, after those the session holds already. After an error the session is as it was
    /// before; cancelling the task is one, `CancellationError`.
    public func forward(
        _ tokens: [Token], logits: LogitRows = .last, embeddings: EmbeddingRows = .none
    ) async throws {
        try await inTurn { try pass($0, tokens, logits, embeddings) }
    }

    /// The same on the thread of the caller, for programs without tasks.
    @available(*, noasync, message: "it blocks the thread: use forward(_:logits:embeddings:)")
    public func forwardAndWait(
        _ tokens: [Token], logits: LogitRows = .last, embeddings: EmbeddingRows = .none
    ) throws {
        try inTurnHere { try pass($0, tokens, logits, embeddings) }
    }

    /// Begins the same pass on a thread of the library, and returns its ticket at once. An event of the model, of kind
    /// ``Event/Kind-swift.struct/done``, tells how it ended; until then calls throw ``Status/busy``.
    public func submit(
        _ tokens: [Token], logits: LogitRows = .last, embeddings: EmbeddingRows = .none
    ) throws -> Ticket {
        var ticket: Ticket = 0
        try briefly { session in
            try tokens.withUnsafeBufferPointer { tokens in
                try checked {
                    layerline_session_submit(
                        session, tokens.baseAddress, tokens.count, logits.rawValue, embeddings.rawValue, &ticket, $0)
                }
            }
        }
        return ticket
    }

    /// Ends the pass or generation of the session within the time of one page, from any thread: it throws
    /// ``Status/cancelled``. Where there is none, it ends the next one. In a task, cancel that instead.
    public func interrupt() {
        handle.use { layerline_session_interrupt($0) }
    }

    /// Takes back an interrupt that no pass has seen.
    public func clearInterrupt() {
        handle.use { layerline_session_clear_interrupt($0) }
    }

    /// How far the running pass has come, or the last one where none runs. Never waits; from any thread.
    public var progress: Progress {
        get throws {
            try handle.use { session in
                var now = layerline_progress()
                now.struct_size = UInt32(MemoryLayout<layerline_progress>.size)
                try checked { layerline_session_get_progress(session, &now, $0) }
                return Progress(
                    bytesDone: now.bytes_done, bytes: now.bytes, tokensDone: Int(now.tokens_done), tokens: Int(now.tokens))
            }
        }
    }

    /// The logits of one position of the last pass, before any softmax. `row`: 0 after a pass with ``LogitRows/last``;
    /// the token's index in the pass after one with ``LogitRows/all``.
    public func logits(row: Int = 0) throws -> [Float] {
        try copied(row, layerline_session_logits)
    }

    /// One embedding that the last pass left, as long as ``ModelInfo/embeddingLength``, not normalised. `row`: the token's
    /// index in the pass after one with ``EmbeddingRows/all``; else 0. Which pooling a model asks for is its metadata
    /// "{architecture}.pooling_type".
    public func embeddings(row: Int = 0) throws -> [Float] {
        try copied(row, layerline_session_embeddings)
    }

    /// How many tokens the session holds.
    public var position: Int {
        get throws {
            try info.position
        }
    }

    /// Facts of the session.
    public var info: SessionInfo {
        get throws {
            try briefly { try facts(of: $0) }
        }
    }

    /// Keeps what the session has in common with the beginning of `tokens`, forgets the rest, and says how many stay: the next
    /// prompt is what follows them. That is less than all, unless the session holds just these tokens and the logits of the
    /// last. Where it cannot go back to as many, none stay: with recurrent layers all that it holds stays, or nothing.
    public func reusePrefix(of tokens: [Token]) throws -> Int {
        var kept = 0
        try briefly { session in
            try checked { layerline_session_reuse_prefix(session, tokens, tokens.count, &kept, $0) }
        }
        return kept
    }

    /// How many of the first of `tokens` the session holds, whether or not it could go back to them.
    public func commonPrefix(with tokens: [Token]) throws -> Int {
        var common = 0
        try briefly { session in
            try checked { layerline_session_common_prefix(session, tokens, tokens.count, &common, $0) }
        }
        return common
    }

    /// Forgets all tokens after the first `count`, so that the sequence can go on differently from there. Throws
    /// ``Status/invalidArgument`` when a layer with a sliding window has dropped what the next token would see:
    /// ``SessionInfo/fewestTokens`` says how far back it goes.
    public func truncate(to count: Int) throws {
        try briefly { session in try checked { layerline_session_truncate(session, count, $0) } }
    }

    /// A short call on the session, between passes.
    func briefly<Result>(_ call: (OpaquePointer) throws -> Result) throws -> Result {
        try turns.briefly { try handle.use(call) }
    }

    func newCall() -> Call {
        Call(
            turns,
            interrupt: { [weak handle] in handle?.use { layerline_session_interrupt($0) } },
            clear: { [weak handle] in handle?.use { layerline_session_clear_interrupt($0) } }
        )
    }

    /// Runs what may take long on the session's queue, when it has the turn.
    private func inTurn(_ body: @escaping @Sendable (OpaquePointer) throws -> Void) async throws {
        let call = newCall()
        // Kept alive from here alone: when this returns, the caller's reference is the last, and letting go of it gives the
        // memory back.
        defer { withExtendedLifetime(self) {} }
        try await withTaskCancellationHandler {
            try turns.begin(call)
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                queue.async { [unowned self] in
                    continuation.resume(with: Result { try call.run { try handle.use(body) } })
                }
            }
        } onCancel: {
            call.cancel()
        }
    }

    /// The same on the thread of the caller.
    private func inTurnHere(_ body: (OpaquePointer) throws -> Void) throws {
        let call = newCall()
        try turns.beginHere(call)
        try call.run { try handle.use(body) }
    }

    private func copied(
        _ row: Int,
        _ look: (OpaquePointer?, Int, UnsafeMutablePointer<UnsafePointer<Float>?>?, UnsafeMutablePointer<Int>?,
            UnsafeMutablePointer<OpaquePointer?>?) -> layerline_status
    ) throws -> [Float] {
        try briefly { session in
            var values: UnsafePointer<Float>?
            var count = 0
            try checked { look(session, row, &values, &count, $0) }
            return Array(UnsafeBufferPointer(start: values, count: count))
        }
    }
}

/// Facts of a session.
public struct Progress: Hashable, Sendable {
    /// Bytes of weights that the pass has gone past, from memory or from storage.
    public let bytesDone: UInt64
    /// Bytes that it goes past in all.
    public let bytes: UInt64
    /// Tokens whose chunk is done.
    public let tokensDone: Int
    /// Tokens of the pass.
    public let tokens: Int
}

/// Facts of a session.
public struct SessionInfo: Hashable, Sendable {
    /// Tokens that it can hold.
    public let contextLength: Int
    /// Tokens that it holds.
    public let position: Int
    /// The fewest tokens, beside 0, to which it can be truncated now.
    public let fewestTokens: Int
    /// Bytes that it takes from the model's budget, without its checkpoints.
    public let memoryBytes: UInt64
    /// Part of `memoryBytes`: keys and values.
    public let cacheBytes: UInt64
    /// How keys and values are kept.
    public let kvType: KVType
}

/// A point of a session that it can go back to: ``Session/checkpoint()`` makes one. Its memory goes back to the model's
/// budget with the last reference. It keeps the model alive, not the session.
public final class Checkpoint: Sendable {
    let handle: Handle

    init(owning checkpoint: OpaquePointer?) throws {
        handle = try Handle(checkpoint, free: { layerline_checkpoint_free($0) })
    }

    /// Tokens that the session held.
    public var position: Int { handle.use { Int(layerline_checkpoint_position($0)) } }
    /// Bytes that it takes from the model's budget.
    public var memoryBytes: UInt64 { handle.use { layerline_checkpoint_memory_bytes($0) } }
}

func facts(of session: OpaquePointer) throws -> SessionInfo {
    var info = layerline_session_info()
    info.struct_size = UInt32(MemoryLayout<layerline_session_info>.size)
    try checked { layerline_session_get_info(session, &info, $0) }
    return SessionInfo(
        contextLength: Int(info.context_length), position: Int(info.position), fewestTokens: Int(info.fewest_tokens),
        memoryBytes: info.memory_bytes, cacheBytes: info.cache_bytes, kvType: KVType(rawValue: info.kv_type))
}

private func pass(
    _ session: OpaquePointer, _ tokens: [Token], _ logits: LogitRows, _ embeddings: EmbeddingRows
) throws {
    try tokens.withUnsafeBufferPointer { tokens in
        try checked {
            layerline_session_forward(
                session, tokens.baseAddress, tokens.count, logits.rawValue, embeddings.rawValue, $0)
        }
    }
}
