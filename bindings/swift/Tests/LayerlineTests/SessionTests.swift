import Layerline
import XCTest

final class SessionTests: XCTestCase {
    func testPassesLeaveLogits() async throws {
        let session = try Session(try Model(path: modelPath, options: small))
        try await session.forward(prompt, logits: .all)
        let last = try session.logits(row: 2)
        XCTAssertEqual(last.count, 320)
        XCTAssertEqual(try session.position, 3)
        try session.truncate(to: 2)
        try await session.forward([prompt[2]])
        XCTAssertEqual(try session.logits(), last)  // bit for bit
        let chosen = try Sampler().sample(session)
        XCTAssertEqual(last[Int(chosen)], last.max())
        assertThrows(.invalidArgument) { try session.logits(row: 1) }
        assertThrows(.invalidArgument) { try session.logits(row: -1) }
        assertThrows(.invalidArgument) { try session.truncate(to: 100) }
        assertThrows(.invalidArgument) { try session.truncate(to: -1) }
        await assertThrows(.invalidArgument) { try await session.forward([]) }
        await assertThrows(.contextFull) { try await session.forward([Token](repeating: 1, count: 100)) }
        XCTAssertEqual(try session.position, 3)
        try await session.forward([5], logits: .none)
        assertThrows(.invalidArgument) { try session.logits() }
    }

    func testPassesRunWithoutTasksToo() throws {
        let session = try Session(try Model(path: modelPath, options: small))
        try session.forwardAndWait(prompt)
        let logits = try session.logits()
        let other = try Session(session.model)
        let ticket = try other.submit(prompt)
        let event = try XCTUnwrap(session.model.wait().first)
        XCTAssertEqual(event.ticket, ticket)
        XCTAssertEqual(event.status, .ok)
        XCTAssertEqual(try other.logits(), logits)
    }

    func testATaskCanAwaitASubmittedPass() async throws {
        let session = try Session(try Model(path: modelPath, options: small))
        let ticket = try session.submit(prompt)
        for try await event in session.model.events() where event.ticket == ticket {
            XCTAssertEqual(event.status, .ok)
            break
        }
        XCTAssertEqual(try session.position, 3)
    }

    func testGenerationGivesTheSameTokensEachWay() async throws {
        let model = try Model(path: modelPath, options: small)
        var streamed: [GeneratedToken] = []
        for try await piece in try Session(model).generate(prompt, maxTokens: 8) {
            streamed.append(piece)
        }
        XCTAssertEqual(streamed.count, 8)
        let called = try generateHere(try Session(model), prompt, maxTokens: 8)
        XCTAssertEqual(called, streamed)

        // As a program does it that runs the passes itself.
        let session = try Session(model)
        let sampler = try Sampler()
        var token = Token(0)
        for index in 0..<8 {
            try await session.forward(index == 0 ? prompt : [token])
            token = try sampler.sample(session)
            XCTAssertEqual(token, streamed[index].token)
        }
        XCTAssertEqual(try model.detokenize(streamed.map(\.token)), streamed.map(\.text).joined())
    }

    func testGenerationsDraftAndStop() async throws {
        let model = try Model(path: modelPath, options: small)
        var plain: [GeneratedToken] = []
        for try await piece in try Session(model).generate(prompt, maxTokens: 8) {
            plain.append(piece)
        }
        let generation = try TextGeneration(maxTokens: 8)
        let drafters: [() throws -> Void] = [
            {}, { try generation.draftFromText(maxDrafts: 4) },
            { try generation.draft(with: model, contextLength: 64, maxDrafts: 4) }, { try generation.draft(with: nil) },
        ]
        for draft in drafters {
            try draft()
            var drafted: [GeneratedToken] = []
            for try await piece in try Session(model).generate(prompt, with: generation) {
                drafted.append(piece)
            }
            XCTAssertEqual(drafted, plain)
            let stats = try generation.stats
            XCTAssertEqual(stats.end, .length)
            XCTAssertEqual(stats.tokens, 8)
        }
        try generation.setLogprobs(top: 2)
        for try await piece in try Session(model).generate(prompt, with: generation) {
            let logprobs = try XCTUnwrap(piece.logprobs)
            XCTAssertEqual(logprobs.top.first?.token, piece.token)
            XCTAssertEqual(logprobs.top.first?.logprob, logprobs.raw)
            XCTAssertEqual(logprobs.top.count, 2)
            XCTAssertEqual(logprobs.sampled, 0)
        }
        try generation.setLogprobs(top: nil)
        let short = try Session(model, contextLength: 16)
        try generation.setContextPolicy(keptFirst: 2)
        for try await _ in try short.generate(prompt, with: TextGeneration(maxTokens: 4)) {}
        XCTAssertEqual(try short.commonPrefix(with: prompt + [7]), prompt.count)
        XCTAssertEqual(try short.reusePrefix(of: prompt), prompt.count - 1)
        for _ in 0..<4 {
            for try await _ in short.generate([9], with: generation) {}
        }
        XCTAssertGreaterThan(try generation.stats.dropped, 0)
        try generation.setContextPolicy(keptFirst: nil)
        assertThrows(.invalidArgument) { try generation.setLogprobs(top: 1000) }
        let text = plain.map(\.text).joined()
        try generation.addStop(String(text.prefix(1)))
        for try await piece in try Session(model).generate(prompt, with: generation) {
            XCTAssertEqual(piece.text, "")
        }
        XCTAssertEqual(try generation.stats.end, .stop)
        try generation.clearStops()
        assertThrows(.invalidArgument) { try generation.addStop("") }
        assertThrows(.invalidArgument) { try generation.draftFromText(maxDrafts: 1000) }
        var own = small
        own.predictor = true
        assertThrows(.unsupported) { _ = try Model(path: modelPath, options: own) }
    }

    func testTextsFollowConstraints() async throws {
        let model = try Model(path: modelPath, options: small)
        let constraint = try Constraint(model, .regex, "ab[0-9]{2}c")
        let generation = try TextGeneration()
        try generation.setConstraint(constraint)
        var text = ""
        for try await piece in try Session(model).generate(prompt, with: generation) {
            text += piece.text
        }
        XCTAssertEqual(text.count, 5)
        XCTAssertTrue(text.hasPrefix("ab") && text.hasSuffix("c"))
        XCTAssertEqual(try generation.stats.end, .constraint)
        try generation.setConstraint(nil)
        let copy = try constraint.copy()
        let forced = try copy.forced()
        XCTAssertEqual(try copy.mask().reduce(0) { $0 + $1.nonzeroBitCount }, 1)
        try copy.accept(forced)
        XCTAssertEqual(try copy.state, .open)
        assertThrows(.invalidArgument) { try copy.accept(forced) }
        assertThrows(.invalidArgument) { _ = try Constraint(model, .jsonSchema, "{") }
    }

    func testATextBeginsWithTheBeginningTokenOnlyWhereNothingIsHeld() async throws {
        let session = try Session(try Model(path: modelPath, options: small))
        let tokens = try session.model.tokenize("a", options: .begin)
        XCTAssertEqual(tokens.first, session.model.info.beginToken)
        for try await _ in session.generate("a", maxTokens: 0) {}
        XCTAssertEqual(try session.position, tokens.count)
        // A text that goes on has no beginning token, and no space put before it.
        let more = try session.model.tokenize("a", options: .continued)
        for try await _ in session.generate("a", maxTokens: 0) {}
        XCTAssertEqual(try session.position, tokens.count + more.count)
        // An empty prompt goes on from the logits that are there.
        for try await _ in session.generate([], maxTokens: 3) {}
        XCTAssertEqual(try session.position, tokens.count + more.count + 2)
    }

    func testWhatASessionHoldsWhenALoopIsLeftIsWhatWasGivenOut() async throws {
        let model = try Model(path: modelPath, options: small)
        for taken in [1, 2, 5] {
            let session = try Session(model)
            var count = 0
            for try await _ in session.generate(prompt, maxTokens: 20) {
                assertThrows(.busy) { try session.position }
                await assertThrows(.busy) { try await session.forward([1]) }
                count += 1
                if count == taken { break }
            }
            // At once: the generation has ended, or is waited for.
            XCTAssertEqual(try session.position, prompt.count + taken - 1)
        }
    }

    func testAStreamThatNobodyIteratesDoesNothing() async throws {
        let session = try Session(try Model(path: modelPath, options: small))
        let stream = session.generate(prompt, maxTokens: 4)
        try await session.forward(prompt)
        await assertThrows(.contextFull) {
            for try await _ in session.generate([Token](repeating: 1, count: 100), maxTokens: 1) {}
        }
        XCTAssertEqual(try session.position, 3)
        try session.truncate(to: 0)
        var count = 0
        for try await _ in stream { count += 1 }
        XCTAssertEqual(count, 4)
        for try await _ in stream { XCTFail("a stream has one run") }
    }

    func testErrorsOfAGenerationComeOutOfTheLoop() async throws {
        let session = try Session(try Model(path: modelPath, options: small), contextLength: 6)
        var count = 0
        await assertThrows(.contextFull) {
            for try await _ in session.generate(prompt, maxTokens: 20) { count += 1 }
        }
        XCTAssertEqual(count, 4)
        XCTAssertEqual(try session.position, 6)
        await assertThrows(.invalidArgument) { for try await _ in session.generate(prompt, maxTokens: -1) {} }
        await assertThrows(.invalidArgument) { for try await _ in session.generate([-1], maxTokens: 1) {} }
    }

    func testAFunctionCanStopAndThrow() throws {
        struct Enough: Error {}
        let session = try Session(try Model(path: modelPath, options: small))
        let whole = try generateHere(session, prompt, maxTokens: 8)
        try session.truncate(to: 0)
        var part: [GeneratedToken] = []
        try session.generateAndWait(prompt, maxTokens: 8) { part.append($0); return part.count < 2 }
        XCTAssertEqual(part, Array(whole.prefix(2)))
        try session.truncate(to: 0)
        XCTAssertThrowsError(try session.generateAndWait("a", maxTokens: 8) { _ in throw Enough() }) {
            XCTAssertTrue($0 is Enough)
        }
        try session.truncate(to: 0)
        assertThrows(.cancelled) {
            try session.generateAndWait(prompt, maxTokens: 8) { _ in session.interrupt(); return true }
        }
        XCTAssertEqual(try session.position, 3)
    }

    func testSamplersFollowTheirSettings() async throws {
        let model = try Model(path: modelPath, options: small)
        func tokens(_ sampling: Sampling) async throws -> [Token] {
            var tokens: [Token] = []
            for try await piece in try Session(model).generate(prompt, maxTokens: 12, sampler: Sampler(sampling)) {
                tokens.append(piece.token)
            }
            return tokens
        }
        let greedy = try await tokens(Sampling())
        let hot = Sampling(temperature: 5, seed: 5)
        let chance = try await tokens(hot)
        let again = try await tokens(hot)
        XCTAssertEqual(chance, again)
        XCTAssertNotEqual(chance, greedy)
        var changed = hot
        changed.seed = 6
        let reseeded = try await tokens(changed)
        XCTAssertNotEqual(reseeded, chance)
        // Each of these leaves one token to draw from.
        for only in [\Sampling.topP: 0, \Sampling.minP: 1] as [WritableKeyPath<Sampling, Float>: Float] {
            var one = hot
            one[keyPath: only.key] = only.value
            let chosen = try await tokens(one)
            XCTAssertEqual(chosen, greedy)
        }
        let first = try await tokens(Sampling(temperature: 5, topK: 1, seed: 5))
        XCTAssertEqual(first, greedy)
        let penalised = try await tokens(Sampling(repeatPenalty: 1e6, repeatLast: 64))
        XCTAssertEqual(Set(penalised).count, penalised.count)
        for wrong in [Sampling(temperature: -1), Sampling(topK: -1), Sampling(topP: 1.5), Sampling(minP: .nan),
            Sampling(repeatPenalty: 0), Sampling(repeatLast: -1)]
        {
            assertThrows(.invalidArgument) { try Sampler(wrong) }
        }
    }

    func testTheRestOfTheChainCanBeSet() throws {
        let logits: [Float] = [1, 3, 2, 0]
        func chosen(_ change: (inout Sampling) -> Void) throws -> Token {
            var sampling = Sampling()
            change(&sampling)
            return try Sampler(sampling).sample(logits: logits)
        }
        XCTAssertEqual(try chosen { $0.logitBias = [1: -.infinity, 0: 0.5] }, 2)
        XCTAssertEqual(try chosen { ($0.temperature, $0.topNSigma) = (1, 0.1) }, 1)
        XCTAssertEqual(try chosen { ($0.xtcProbability, $0.xtcThreshold) = (1, 0.2) }, 2)
        XCTAssertEqual(try chosen { ($0.xtcProbability, $0.steps) = (1, [.topK]) }, 1)
        XCTAssertEqual(try chosen { ($0.temperature, $0.mirostatTau) = (1e-6, 1) }, 1)
        assertThrows(.invalidArgument) { try chosen { $0.typicalP = 2 } }
        assertThrows(.invalidArgument) { try chosen { $0.frequencyPenalty = .nan } }
        assertThrows(.invalidArgument) { try chosen { $0.dryBase = 0.5 } }
        assertThrows(.invalidArgument) { try chosen { $0.logitBias = [-1: 0] } }
        assertThrows(.invalidArgument) { try chosen { $0.steps = [.topK, .topK] } }
        let model = try Model(path: modelPath, options: small)
        var sampling = Sampling()
        (sampling.dryMultiplier, sampling.dryBase, sampling.dryAllowedLength) = (100, 1, 3)
        let sampler = try Sampler(sampling)
        try sampler.accept([40, 41, 42, 50, 40, 41, 42])
        let broken = try sampler.copy()
        try broken.addDryBreaker(model.detokenize([42]), of: model)
        var row = [Float](repeating: 0, count: 64)
        (row[50], row[51]) = (9, 1)
        XCTAssertEqual(try sampler.sample(logits: row), 51)
        XCTAssertEqual(try broken.sample(logits: row), 50)
        try broken.clearDryBreakers()
    }

    func testTasksShareAModel() async throws {
        let model = try Model(path: modelPath, options: small)
        @Sendable func text() async throws -> String {
            var text = ""
            for try await piece in try Session(model).generate(prompt, maxTokens: 16) { text += piece.text }
            return text
        }
        let expected = try await text()
        try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<8 { group.addTask { try await text() } }
            for try await text in group { XCTAssertEqual(text, expected) }
        }
    }

    /// Tokens as a program without tasks gets them.
    private func generateHere(_ session: Session, _ prompt: [Token], maxTokens: Int) throws -> [GeneratedToken] {
        var tokens: [GeneratedToken] = []
        try session.generateAndWait(prompt, maxTokens: maxTokens) { tokens.append($0); return true }
        return tokens
    }
}
