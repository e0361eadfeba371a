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

    /// Runs tokens through the model, after those the session holds already. After an error the session is as it was
    /// before; cancelling the task is one, `CancellationError`.
    public func forward(_ tokens: [Token], logits: LogitRows = .last) async throws {
        let call = newCall()
        // Kept alive from here alone: when this returns, the caller's reference is the last, and letting go of it gives the
        // memory back.
        defer { withExtendedLifetime(self) {} }
        try await withTaskCancellationHandler {
            try turns.begin(call)
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                queue.async { [unowned self] in
                    continuation.resume(with: Result { try call.run { try pass(tokens, logits) } })
                }
            }
        } onCancel: {
            call.cancel()
        }
    }

    /// The same on the thread of the caller, for programs without tasks.
    @available(*, noasync, message: "it blocks the thread: use forward(_:logits:)")
    public func forwardAndWait(_ tokens: [Token], logits: LogitRows = .last) throws {
        let call = newCall()
        try turns.beginHere(call)
        try call.run { try pass(tokens, logits) }
    }

    /// Begins the same pass on a thread of the library, and returns its ticket at once. An event of the model, of kind
    /// ``Event/Kind-swift.struct/done``, tells how it ended; until then calls throw ``Status/busy``.
    public func submit(_ tokens: [Token], logits: LogitRows = .last) throws -> Ticket {
        var ticket: Ticket = 0
        try briefly { session in
            try tokens.withUnsafeBufferPointer { tokens in
                try checked {
                    layerline_forward_submit(session, tokens.baseAddress, tokens.count, logits.rawValue, &ticket, $0)
                }
            }
        }
        return ticket
    }

    /// Ends the pass or generation of the session within the time of one page, from any thread: it throws
    /// ``Status/cancelled``. Does nothing when there is none. In a task, cancel that instead: it counts also when the
    /// pass is only about to begin.
    public func interrupt() {
        handle.use { layerline_session_interrupt($0) }
    }

    /// The logits of one position of the last pass, before any softmax. `row`: 0 after a pass with ``LogitRows/last``;
    /// the token's index in the pass after one with ``LogitRows/all``.
    public func logits(row: Int = 0) throws -> [Float] {
        try briefly { session in
            var values: UnsafePointer<Float>?
            var count = 0
            try check(layerline_logits(session, row, &values, &count))
            return Array(UnsafeBufferPointer(start: values, count: count))
        }
    }

    /// How many tokens the session holds.
    public var position: Int {
        get throws {
            var tokens = 0
            try briefly { try check(layerline_session_position($0, &tokens)) }
            return tokens
        }
    }

    /// Forgets all tokens after the first `count`, so that the sequence can go on differently from there.
    public func truncate(to count: Int) throws {
        try briefly { try check(layerline_session_truncate($0, count)) }
    }

    /// A short call on the session, between passes.
    func briefly<Result>(_ call: (OpaquePointer) throws -> Result) throws -> Result {
        try turns.briefly { try handle.use(call) }
    }

    func newCall() -> Call {
        Call(turns) { [weak handle] in handle?.use { layerline_session_interrupt($0) } }
    }

    private func pass(_ tokens: [Token], _ logits: LogitRows) throws {
        try handle.use { session in
            try tokens.withUnsafeBufferPointer { tokens in
                try checked { layerline_forward(session, tokens.baseAddress, tokens.count, logits.rawValue, $0) }
            }
        }
    }
}
