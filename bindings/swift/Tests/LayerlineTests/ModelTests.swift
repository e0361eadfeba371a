import Foundation
import Layerline
import XCTest

final class ModelTests: XCTestCase {
    func testItSaysWhatItIs() throws {
        let model = try Model(path: modelPath, options: small)
        XCTAssertEqual(model.info.layerCount, 2)
        XCTAssertEqual(model.info.vocabularySize, 320)
        XCTAssertEqual(model.info.contextLength, 256)
        XCTAssertEqual(try model.metadata("general.architecture"), "llama")
        assertThrows(.notFound) { try model.metadata("no.such.key") }
        assertThrows(.invalidArgument) { try model.metadata("general.architecture\0") }
        let plan = try MemoryPlan(path: modelPath, options: small)
        XCTAssertEqual(plan.layerCount, 2)
        XCTAssertLessThan(plan.floorBytes, plan.fullBytes)
        XCTAssertEqual(plan.fileBytes, UInt64(try Data(contentsOf: URL(fileURLWithPath: modelPath)).count))
        XCTAssertEqual(try model.stats.budgetBytes, 1 << 30)
    }

    func testFailuresSayWhatIsWrong() throws {
        XCTAssertThrowsError(try Model(path: "/no/such/model")) {
            XCTAssertTrue("\($0)".contains("/no/such/model"), "\($0)")
        }
        assertThrows(.io) { try MemoryPlan(path: "/no/such/model") }
        assertThrows(.format) { try Model(path: #filePath) }
        assertThrows(.memoryBudget) { try Model(path: modelPath, options: Options(memoryBudget: 4096)) }
        assertThrows(.invalidArgument) { try Model(path: modelPath, options: Options(io: IOMode(rawValue: 17))) }
        assertThrows(.invalidArgument) { try Model(fileDescriptor: -1) }
        // What C would cut to size, or read in part.
        assertThrows(.invalidArgument) { try Model(path: modelPath + "\0.part") }
        assertThrows(.invalidArgument) { try Model(path: modelPath, options: Options(threads: 1 << 32 + 1)) }
        assertThrows(.invalidArgument) { try MemoryPlan(path: modelPath, options: Options(contextLength: -1)) }
        assertThrows(.invalidArgument) { try Session(try Model(path: modelPath, options: small), contextLength: -1) }
    }

    func testOptionsReachTheLibrary() throws {
        func plan(_ options: Options) throws -> MemoryPlan { try MemoryPlan(path: modelPath, options: options) }
        var options = Options(contextLength: 64, threads: 1)
        let before = try plan(options)
        options.contextLength = 128
        XCTAssertGreaterThan(try plan(options).kvBytes, before.kvBytes)
        options.contextLength = 64
        options.chunkLength = 512
        XCTAssertGreaterThan(try plan(options).scratchBytes, before.scratchBytes)
        options.chunkLength = 0
        options.threads = 3
        XCTAssertGreaterThan(try plan(options).scratchBytes, before.scratchBytes)
        options.threads = 1
        options.memoryBudget = before.fullBytes
        XCTAssertEqual(try plan(options).streamedBytes, 0)
        options.cacheLayers = 1
        XCTAssertGreaterThan(try plan(options).streamedBytes, 0)
        for io in [IOMode.buffered, .mapped] {
            XCTAssertEqual(try Model(path: modelPath, options: Options(contextLength: 64, io: io)).stats.io, io)
        }
        // The results are the same without, so only that they are taken can be seen.
        XCTAssertNoThrow(try Model(path: modelPath, options: Options(prefetch: false, prefetchDistance: 1)))
    }

    func testADescriptorWillDo() throws {
        let file = try XCTUnwrap(FileHandle(forReadingAtPath: modelPath))
        let model = try Model(fileDescriptor: file.fileDescriptor, options: small)
        try file.close()
        XCTAssertEqual(model.info.layerCount, 2)
    }

    func testTextGoesBothWays() throws {
        let model = try Model(path: modelPath, options: small)
        let text = String(repeating: "a-sea-of-words,", count: 300)
        let tokens = try model.tokenize(text)
        XCTAssertTrue(try model.detokenize(tokens).contains(text))
        XCTAssertEqual(try model.tokenize(""), [])
        XCTAssertEqual(try model.detokenize([]), "")
        XCTAssertEqual(try model.tokenize("a", options: .begin).first, model.info.beginToken)
        // The first byte of a character of three.
        let cut = try model.tokenize("\u{3042}").dropLast()
        XCTAssertTrue(try model.detokenize(Array(cut)).hasSuffix("\u{FFFD}"))
        XCTAssertEqual(try model.detokenizedBytes(Array(cut)).last, 0x81)
        assertThrows(.invalidArgument) { try model.detokenize([100_000]) }
        assertThrows(.invalidArgument) { try model.tokenize("a", options: TokenizeOptions(rawValue: 64)) }
        XCTAssertTrue(try model.isEnd(try XCTUnwrap(model.info.endToken)))
        XCTAssertFalse(try model.isEnd(40))
    }

    func testEventsComeWithAndWithoutATask() async throws {
        let model = try Model(path: modelPath, options: small)
        var layers: [Int] = []
        let ticket = try model.prefetch(0..<2)
        for try await event in model.events() {
            XCTAssertEqual(event.ticket, ticket)
            XCTAssertEqual(event.status, .ok)
            if event.kind == .done { break }
            layers.append(event.layer)
        }
        XCTAssertEqual(layers.sorted(), [0, 1])
        XCTAssertTrue([.ready, .pinned].contains(try model.state(ofLayer: 1)))
        XCTAssertEqual(try model.poll(), [])
        try model.cancel(ticket)
        assertThrows(.notFound) { try model.cancel(999_999) }
        assertThrows(.invalidArgument) { try model.prefetch(2..<3) }
        assertThrows(.invalidArgument) { try model.prefetch(-1..<1) }
        assertThrows(.invalidArgument) { try model.poll(limit: 0) }
        assertThrows(.invalidArgument) { try model.poll(limit: 1 << 40) }
        assertThrows(.invalidArgument) { try model.state(ofLayer: 2) }
    }

    func testEventsCanBeWaitedFor() throws {
        let model = try Model(path: modelPath, options: small)
        let ticket = try model.prefetch(0..<1)
        var events: [Event] = []
        while events.last?.kind != .done {
            events += try model.wait(limit: 1)
        }
        XCTAssertEqual(events.map(\.kind), [.layer, .done])
        XCTAssertEqual(Set(events.map(\.ticket)), [ticket])
        XCTAssertEqual(try model.wait(timeout: .zero), [])
        XCTAssertEqual(try model.wait(timeout: .seconds(-1)), [])
        XCTAssertEqual(try model.wait(timeout: .microseconds(10)), [])
    }

    func testWaitingForEventsEndsWithTheTask() async throws {
        let model = try Model(path: modelPath, options: small)
        let waiting = Task {
            for try await event in model.events() {
                XCTFail("\(event)")
            }
        }
        // Before it waits or while it does: it ends.
        for _ in 0..<10 { await Task.yield() }
        waiting.cancel()
        if case .failure(let error) = await waiting.result {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
        // And the descriptor still serves the next one.
        _ = try model.prefetch(0..<1)
        for try await event in model.events() where event.kind == .done { break }
    }

    func testTheBudgetMoves() throws {
        let plan = try MemoryPlan(path: modelPath, options: small)
        let model = try Model(path: modelPath, options: small)
        try model.setMemoryBudget(plan.floorBytes)
        XCTAssertEqual(try model.stats.budgetBytes, plan.floorBytes)
        assertThrows(.memoryBudget) { try model.setMemoryBudget(4096) }

        var options = Options(contextLength: 64)
        options.sharedBudget = try Budget(bytes: 4 * plan.fullBytes)
        let models = try (0..<2).map { _ in try Model(path: modelPath, options: options) }
        try options.sharedBudget?.setBytes(3 * plan.fullBytes)
        assertThrows(.memoryBudget) { try options.sharedBudget?.setBytes(4096) }
        XCTAssertLessThanOrEqual(try models.map { try $0.stats.budgetBytes }.reduce(0, +), 3 * plan.fullBytes)
        assertThrows(.invalidArgument) { try models[0].setMemoryBudget(plan.fullBytes) }
    }

    func testWhatIsForgottenIsFreed() throws {
        // Without prefetching nothing is loaded before the first pass.
        let model = try Model(path: modelPath, options: Options(contextLength: 64, prefetch: false))
        let before = try model.stats.usedBytes
        var sessions = try (0..<4).map { _ in try Session(model, contextLength: 256) }
        XCTAssertGreaterThan(try model.stats.usedBytes, before)
        XCTAssertEqual(sessions.count, 4)
        sessions = []
        XCTAssertEqual(try model.stats.usedBytes, before)
    }
}
