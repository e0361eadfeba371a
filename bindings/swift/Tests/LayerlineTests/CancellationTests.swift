import Foundation
import Layerline
import XCTest

/// A cancelled pass ends within the time of one page, by the library's own counting, and its session goes on.
final class CancellationTests: XCTestCase {
    /// Waits until `bytes` more were read than `before`: so many that a pass is in its middle.
    private func hasRead(_ model: Model, _ bytes: UInt64, since before: UInt64) async throws {
        while try model.stats.readBytes < before + bytes { await Task.yield() }
    }

    /// Runs eight tokens on a session, cancels `body` with 192 more in the middle of its pass, and looks whether it ended
    /// there and left the session as it was. Then that goes on as one which never knew of it.
    private func cancelling(
        _ path: String = modelPath, chunkLength: Int = 1,
        _ body: @escaping @Sendable (Session, [Token]) async throws -> Void
    ) async throws {
        let (model, plan) = try openStreaming(path, sessions: 2, chunkLength: chunkLength)
        let tokens = someTokens(200)
        let undisturbed = try Session(model)
        try await undisturbed.forward(Array(tokens[..<8]))
        let before = try undisturbed.logits()
        try await undisturbed.forward([9, 10])
        let after = try undisturbed.logits()

        // All that pages may be in, and the pass frees: the loader may fill it twice, up to the cancelled pass and from the
        // top again. What the pass would read on is many times that.
        let memory = try model.stats.budgetBytes - plan.scratchBytes - plan.tablesBytes - 2 * plan.kvBytes
        let whole = plan.streamedBytes * UInt64(192 / min(chunkLength, 192))
        XCTAssertGreaterThan(whole, 10 * memory)

        // On a busy machine a pass may be over before it is cancelled; one of many is not.
        let session = try Session(model)
        for _ in 0..<20 {
            try session.truncate(to: 0)
            try await session.forward(Array(tokens[..<8]))
            let stats = try model.stats
            let task = Task { try await body(session, Array(tokens[8...])) }
            try await hasRead(model, 2 * memory, since: stats.readBytes)
            task.cancel()
            let atCancel = try model.stats.readBytes
            do {
                try await task.value
                continue
            } catch is CancellationError {}
            XCTAssertEqual(try session.position, 8)
            let end = try model.stats
            XCTAssertLessThanOrEqual(end.readBytes - atCancel, 2 * memory)
            XCTAssertEqual(end.passes, stats.passes)
            XCTAssertEqual(try session.logits(), before)
            try await session.forward([9, 10])
            XCTAssertEqual(try session.logits(), after)
            return
        }
        XCTFail("no pass was cancelled in its middle")
    }

    /// Where a whole sweep is many times the memory: it ends at a page, not at the end of a sweep.
    func testAPassOfOneSweep() async throws {
        guard FileManager.default.fileExists(atPath: demoModelPath) else { throw XCTSkip("the model is not fetched") }
        try await cancelling(demoModelPath, chunkLength: 256) { session, tokens in try await session.forward(tokens) }
    }

    func testAPass() async throws {
        for _ in 0..<10 {
            try await cancelling { session, tokens in try await session.forward(tokens) }
        }
    }

    func testThePromptOfAGeneration() async throws {
        for _ in 0..<10 {
            try await cancelling { session, tokens in
                for try await piece in session.generate(tokens, maxTokens: 8) { XCTFail("\(piece)") }
            }
        }
    }

    /// However early: on its way to the pass, in its first pages.
    func testAPassThatHasJustBegun() async throws {
        let (model, plan) = try openStreaming()
        let session = try Session(model)
        var early = 0
        for round in 0..<300 {
            let before = try model.stats.readBytes
            let task = Task { try await session.forward(someTokens(200)) }
            for _ in 0..<round % 30 { await Task.yield() }
            task.cancel()
            let read = try model.stats.readBytes - before
            let result = await task.result
            if read < 100 * plan.streamedBytes {
                // Half of it was still to come.
                early += 1
                XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
            }
            try session.truncate(to: 0)
        }
        XCTAssertGreaterThan(early, 0)
    }

    func testATaskThatIsCancelledAlreadyBeginsNothing() async throws {
        let session = try Session(try openStreaming().0)
        let task = Task {
            while !Task.isCancelled { await Task.yield() }
            for try await _ in session.generate(prompt, maxTokens: 4) { XCTFail("it ran") }
            try await session.forward(prompt)
        }
        task.cancel()
        let result = await task.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        XCTAssertEqual(try session.position, 0)
        XCTAssertEqual(try session.model.stats.passes, 0)
    }

    /// At whatever moment of a generation: it ends, and what was given out is what the session holds.
    func testAGenerationAtAnyMoment() async throws {
        let (model, _) = try openStreaming()
        for round in 0..<40 {
            let session = try Session(model)
            let task = Task {
                var count = 0
                do {
                    for try await _ in session.generate(prompt, maxTokens: 200) { count += 1 }
                } catch is CancellationError {}
                return count
            }
            for _ in 0..<round * 50 { await Task.yield() }
            task.cancel()
            let count = try await task.value
            XCTAssertEqual(try session.position, count == 0 ? 0 : prompt.count + count - 1)
            XCTAssertLessThan(count, 200)
            // And goes on.
            try session.truncate(to: 0)
            try await session.forward(prompt)
            XCTAssertEqual(try session.position, 3)
        }
    }

    func testCallsOfOneSessionDoNotWaitForEachOther() async throws {
        let session = try Session(try openStreaming().0)
        for _ in 0..<20 {
            try session.truncate(to: 0)
            let stats = try session.model.stats
            let task = Task { try await session.forward(someTokens(200)) }
            try await hasRead(session.model, 1, since: stats.readBytes)
            do {
                try await session.forward([1])
            } catch let error as LayerlineError where error.status == .busy {
                // Not for one that is cancelled: the task that cancelled it can go on.
                task.cancel()
                try await session.forward([1])
                guard case .failure(let error) = await task.result else { continue }
                XCTAssertTrue(error is CancellationError, "\(error)")
                XCTAssertEqual(try session.position, 1)
                return
            }
            do {
                try await task.value
            } catch let error as LayerlineError where error.status == .busy {
                // What is read ahead counts too: the pass had not begun, and it was the one that was refused.
            }
        }
        XCTFail("no call came while a pass was running")
    }

    /// The budget has room for one session, so the next one needs all that it held.
    func testMemoryIsBackWhenACallIsOver() async throws {
        let (model, _) = try openStreaming()
        for _ in 0..<50 {
            try await Session(model).forward(prompt)
            for try await _ in try Session(model).generate(prompt, maxTokens: 2) {}
            for try await _ in try Session(model).generate(prompt, maxTokens: 20) { break }
            let session = try Session(model)
            let task = Task { try await Session(model).forward(prompt) }
            await assertThrows(.memoryBudget) { try await task.value }
            for try await _ in session.generate(prompt, maxTokens: 2) {}
        }
    }

    func testASessionCanBeDroppedWithAPassUnderWay() async throws {
        let (model, _) = try openStreaming()
        for _ in 0..<10 {
            // There is room for one: each is given back.
            var session: Session? = try Session(model)
            let ticket = try XCTUnwrap(session?.submit(someTokens(200)))
            session = nil
            for try await event in model.events() {
                XCTAssertEqual(event.ticket, ticket)
                XCTAssertTrue([.ok, .cancelled].contains(event.status))
                break
            }
        }
    }
}
