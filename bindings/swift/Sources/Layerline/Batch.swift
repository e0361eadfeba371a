import CLayerline
import Dispatch

/// What a session takes in within ``Model/forwardBatch(_:)``.
public struct BatchInput: Sendable {
    /// One of the model, in no other input.
    public var session: Session
    /// At least one.
    public var tokens: [Token]
    public var logits: LogitRows
    public var embeddings: EmbeddingRows

    public init(
        _ session: Session, _ tokens: [Token], logits: LogitRows = .last, embeddings: EmbeddingRows = .none
    ) {
        self.session = session
        self.tokens = tokens
        self.logits = logits
        self.embeddings = embeddings
    }
}

extension Model {
    /// Runs a pass of several sessions, with the weights read once for all of them: each session has the results that
    /// ``Session/forward(_:logits:embeddings:)`` gives, and each input its own success or failure. The session of one that
    /// failed is as it was before. Cancelling the task ends them all with ``Status/cancelled``.
    public func forwardBatch(_ inputs: [BatchInput]) async -> [Result<Void, LayerlineError>] {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                DispatchQueue.global().async { continuation.resume(returning: self.runBatch(inputs)) }
            }
        } onCancel: {
            inputs.forEach { $0.session.interrupt() }
        }
    }

    /// The same on the thread of the caller, for programs without tasks.
    @available(*, noasync, message: "it blocks the thread: use forwardBatch(_:)")
    public func forwardBatchAndWait(_ inputs: [BatchInput]) -> [Result<Void, LayerlineError>] {
        runBatch(inputs)
    }

    private func runBatch(_ inputs: [BatchInput]) -> [Result<Void, LayerlineError>] {
        let counts = inputs.map(\.tokens.count)
        let tokens = inputs.flatMap(\.tokens)
        var batch: [layerline_batch_input] = []
        return tokens.withUnsafeBufferPointer { tokens in
            use(inputs[...], holding: []) { sessions in
                var first = 0
                for (i, input) in inputs.enumerated() {
                    var next = layerline_batch_input()
                    next.struct_size = UInt32(MemoryLayout<layerline_batch_input>.size)
                    next.logits = input.logits.rawValue
                    next.embeddings = input.embeddings.rawValue
                    next.session = sessions[i]
                    next.tokens = tokens.baseAddress.map { $0 + first }
                    next.count = counts[i]
                    first += counts[i]
                    batch.append(next)
                }
                handle.use { model in
                    batch.withUnsafeMutableBufferPointer { batch in
                        _ = layerline_model_forward_batch(model, batch.baseAddress, batch.count, nil)
                    }
                }
                return batch.map { ended in
                    defer { layerline_error_free(ended.error) }
                    if ended.status == LAYERLINE_OK { return .success(()) }
                    let message = ended.error.map { String(cString: layerline_error_message($0)) }
                    return .failure(LayerlineError(Status(rawValue: ended.status), message))
                }
            }
        }
    }

    /// Calls `body` while none of the sessions is freed.
    private func use<R>(
        _ inputs: ArraySlice<BatchInput>, holding sessions: [OpaquePointer], _ body: ([OpaquePointer]) -> R
    ) -> R {
        guard let input = inputs.first else { return body(sessions) }
        return input.session.handle.use { use(inputs.dropFirst(), holding: sessions + [$0], body) }
    }
}
