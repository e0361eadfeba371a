import CLayerline
import Dispatch

/// A token and the natural logarithm of its probability.
public struct TokenLogprob: Hashable, Sendable {
    public let token: Token
    public let logprob: Float
}

/// How likely a token was, as natural logarithms.
public struct Logprobs: Hashable, Sendable {
    /// By the softmax of the model's logits.
    public let raw: Float
    /// By what it was drawn from: what the sampler's chain left, divided by the temperature. A greedy choice is certain.
    public let sampled: Float
    /// The likeliest tokens by the model's logits, the likeliest first.
    public let top: [TokenLogprob]
    /// Those of what was drawn from.
    public let sampledTop: [TokenLogprob]
}

/// A token that was generated, with the text that became whole with it.
public struct GeneratedToken: Hashable, Sendable {
    /// What was sampled.
    public let token: Token
    /// Whole characters; empty where the token ends inside one, or has no text.
    public let text: String
    /// Where ``TextGeneration/setLogprobs(top:)`` asks for them.
    public let logprobs: Logprobs?
}

extension Session {
    /// Runs a prompt and generates tokens, each when the loop asks for it:
    ///
    ///     for try await piece in session.generate(prompt, maxTokens: 64) { print(piece.text, terminator: "") }
    ///
    /// It ends after a token that ends the text (which is not given out), or `maxTokens`. Leaving the loop ends it too, and
    /// cancelling the task, within the time of one page; the session then holds what was run and can go on at once. An
    /// error it ends with is thrown: `CancellationError` for a task that was cancelled in the middle of a pass. A task that
    /// was cancelled between two of them sees the loop end, as with every `AsyncThrowingStream`.
    ///
    /// The session holds the prompt and all tokens given out but the last: to go on, begin the next prompt with that.
    ///
    /// - Parameters:
    ///   - prompt: may be empty: then it goes on from the last pass, which must have left logits.
    ///   - maxTokens: at most so many are sampled; with 0 the prompt alone is run.
    ///   - sampler: nil: greedy.
    public func generate(
        _ prompt: [Token], maxTokens: Int, sampler: Sampler? = nil
    ) -> AsyncThrowingStream<GeneratedToken, any Error> {
        stream { deliver in
            try self.run(prompt, .tokens(maxTokens), sampler, deliver)
        }
    }

    /// The same with the settings of a generation. With stop strings a text may belong to earlier tokens too, as it was kept
    /// back.
    public func generate(
        _ prompt: [Token], with generation: TextGeneration, sampler: Sampler? = nil
    ) -> AsyncThrowingStream<GeneratedToken, any Error> {
        stream { deliver in
            try self.run(prompt, .settings(generation), sampler, deliver)
        }
    }

    /// The same for a text, which begins with the beginning token where the model wants one and the session holds none.
    public func generate(
        _ prompt: String, maxTokens: Int, sampler: Sampler? = nil
    ) -> AsyncThrowingStream<GeneratedToken, any Error> {
        stream { deliver in
            try self.run(self.tokens(of: prompt), .tokens(maxTokens), sampler, deliver)
        }
    }

    /// The same on the thread of the caller, for programs without tasks: each token goes to `body`, which returns false to
    /// stop. What it throws ends the generation and comes out of here. It must not use the session, but for
    /// ``interrupt()``.
    @available(*, noasync, message: "it blocks the thread: use generate(_:maxTokens:sampler:)")
    public func generateAndWait(
        _ prompt: [Token], maxTokens: Int, sampler: Sampler? = nil, _ body: (GeneratedToken) throws -> Bool
    ) throws {
        let call = newCall()
        try turns.beginHere(call)
        try call.run { try run(prompt, .tokens(maxTokens), sampler, body) }
    }

    /// The same for a text.
    @available(*, noasync, message: "it blocks the thread: use generate(_:maxTokens:sampler:)")
    public func generateAndWait(
        _ prompt: String, maxTokens: Int, sampler: Sampler? = nil, _ body: (GeneratedToken) throws -> Bool
    ) throws {
        let call = newCall()
        try turns.beginHere(call)
        try call.run { try run(tokens(of: prompt), .tokens(maxTokens), sampler, body) }
    }

    /// The same with the settings of a generation.
    @available(*, noasync, message: "it blocks the thread: use generate(_:with:sampler:)")
    public func generateAndWait(
        _ prompt: [Token], with generation: TextGeneration, sampler: Sampler? = nil,
        _ body: (GeneratedToken) throws -> Bool
    ) throws {
        let call = newCall()
        try turns.beginHere(call)
        try call.run { try run(prompt, .settings(generation), sampler, body) }
    }

    private func tokens(of prompt: String) throws -> [Token] {
        let held = try handle.use { try facts(of: $0) }.position
        return try model.tokenize(prompt, options: held == 0 ? .begin : .continued)
    }

    private func stream(_ body: @escaping Generation.Body) -> AsyncThrowingStream<GeneratedToken, any Error> {
        let reader = Reader(Generation(on: self, body))
        return AsyncThrowingStream { try await reader.generation.next() }
    }

    private func run(
        _ prompt: [Token], _ extent: Extent, _ sampler: Sampler?, _ deliver: (GeneratedToken) throws -> Bool
    ) throws {
        let sampler = try sampler ?? Sampler()
        try withoutActuallyEscaping(deliver) { deliver in
            let receiver = Receiver(deliver)
            do {
                try handle.use { session in
                    try sampler.handle.use { sampler in
                        try prompt.withUnsafeBufferPointer { prompt in
                            let data = Unmanaged.passUnretained(receiver).toOpaque()
                            switch extent {
                            case .tokens(let maxTokens):
                                let most: UInt = try exact(maxTokens, "maxTokens")
                                try checked {
                                    layerline_session_generate(
                                        session, sampler, prompt.baseAddress, prompt.count, Int(most), Receiver.callback,
                                        data, $0)
                                }
                            case .settings(let generation):
                                let detailed = generation.hasLogprobs
                                try generation.handle.use { generation in
                                    try checked {
                                        detailed
                                            ? layerline_session_generate_detailed(
                                                session, generation, sampler, prompt.baseAddress, prompt.count,
                                                Receiver.detailed, data, $0)
                                            : layerline_session_generate_with(
                                                session, generation, sampler, prompt.baseAddress, prompt.count,
                                                Receiver.callback, data, $0)
                                    }
                                }
                            }
                        }
                    }
                }
            } catch {
                throw receiver.thrown ?? error
            }
            // Also keeps the receiver until here.
            if let thrown = receiver.thrown {
                throw thrown
            }
        }
    }
}

/// How long a generation goes on.
private enum Extent {
    case tokens(Int)
    case settings(TextGeneration)
}

/// What the callback of the C interface works on, on the thread that called it.
private final class Receiver {
    private let deliver: (GeneratedToken) throws -> Bool
    private(set) var thrown: (any Error)?

    init(_ deliver: @escaping (GeneratedToken) throws -> Bool) {
        self.deliver = deliver
    }

    static let callback: layerline_token_callback = { token, piece, length, data in
        Unmanaged<Receiver>.fromOpaque(data!).takeUnretainedValue().receive(token, piece, length, nil)
    }

    static let detailed: layerline_generated_callback = { generated, data in
        let made = generated!.pointee
        func all(_ first: UnsafePointer<layerline_token_logprob>?, _ count: Int) -> [TokenLogprob] {
            UnsafeBufferPointer(start: first, count: count).map { TokenLogprob(token: $0.token, logprob: $0.logprob) }
        }
        let logprobs = Logprobs(
            raw: made.logprob, sampled: made.sampled_logprob, top: all(made.top, made.top_count),
            sampledTop: all(made.sampled_top, made.sampled_top_count))
        return Unmanaged<Receiver>.fromOpaque(data!).takeUnretainedValue().receive(
            made.token, made.piece, made.length, logprobs)
    }

    private func receive(
        _ token: Token, _ piece: UnsafePointer<CChar>?, _ length: Int, _ logprobs: Logprobs?
    ) -> Bool {
        let text = String(decoding: UnsafeRawBufferPointer(start: piece, count: length), as: UTF8.self)
        do {
            return try deliver(GeneratedToken(token: token, text: text, logprobs: logprobs))
        } catch {
            thrown = error
            return false
        }
    }
}

/// Held by the stream alone: a generation that nobody can ask any more ends, and releases the session.
private final class Reader: Sendable {
    let generation: Generation

    init(_ generation: Generation) {
        self.generation = generation
    }

    deinit {
        generation.abandon()
    }
}

/// A generation that runs on the session's queue as far as it is asked for, so that what the session holds when a loop is
/// left does not depend on how fast it was.
private final class Generation: @unchecked Sendable {
    typealias Body = @Sendable (_ deliver: (GeneratedToken) throws -> Bool) throws -> Void
    typealias Next = CheckedContinuation<GeneratedToken?, any Error>

    private let turns: Turns
    private let queue: DispatchQueue
    private let call: Call
    // Under the lock of the session's turns. No continuation is resumed under it: who cancels a task may hold a lock of
    // that task, and then takes this one.
    private var asking: Next?
    private var over = false
    /// What is to run. Gone when it has begun: it holds the session, which nobody here may when the call is over.
    private var body: Body?

    init(on session: Session, _ body: @escaping Body) {
        (turns, queue, call) = (session.turns, session.queue, session.newCall())
        self.body = body
    }

    func next() async throws -> GeneratedToken? {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { ask($0) }
        } onCancel: {
            call.cancel()
        }
    }

    /// When nobody asks, and nobody will. No pass runs then.
    func abandon() {
        if turns.locked({ body == nil && !over }) {
            call.end()
        }
    }

    private func ask(_ next: Next) {
        let (first, refused) = turns.locked {
            let refused = over || asking != nil
            if !refused {
                asking = next
                turns.changed()
            }
            return (body != nil, refused)
        }
        if refused {
            next.resume(returning: nil)
        } else if first {
            begin()
        }
    }

    private func begin() {
        do {
            try turns.begin(call)
        } catch {
            return end(.failure(error))
        }
        queue.async { [self] in
            end(Result { try call.run { try taken()?(deliver) } })
        }
    }

    private func taken() -> Body? {
        turns.locked {
            defer { body = nil }
            return body
        }
    }

    /// Gives a token to the task that asks for it, and waits until the next one is asked for. False: it is not wanted any more.
    private func deliver(_ token: GeneratedToken) throws -> Bool {
        asked()?.resume(returning: token)
        return try turns.locked {
            while asking == nil && !call.cancelled {
                turns.wait()
            }
            if call.cancelled {
                throw CancellationError()
            }
            return true
        }
    }

    private func end(_ result: Result<Void, any Error>) {
        _ = taken()
        turns.locked { over = true }
        asked()?.resume(with: result.map { nil })
    }

    /// Whoever asks for a token, once.
    private func asked() -> Next? {
        turns.locked {
            defer { asking = nil }
            return asking
        }
    }
}
