import Foundation
import Layerline
import XCTest

final class StateTests: XCTestCase {
    private var folder = ""
    private var path: String { "\(folder)/state" }

    override func setUpWithError() throws {
        folder = NSTemporaryDirectory() + "/layerline-state-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(atPath: folder)
    }

    private func held(_ session: Session) throws -> [Float] {
        XCTAssertEqual(try session.position, prompt.count)
        return try session.logits()
    }

    private func continued(_ session: Session) async throws -> [Float] {
        try await session.forward([7, 8, 9])
        return try session.logits()
    }

    func testAProfileOfUseIsOfAModelWithExpertsAndMustBeThere() throws {
        let model = try Model(path: modelPath, options: small)
        XCTAssertThrowsError(try model.saveProfile(to: path)) {
            XCTAssertEqual(($0 as? LayerlineError)?.status, .unsupported)
        }
        var options = small
        options.profile = path
        XCTAssertThrowsError(try Model(path: modelPath, options: options)) {
            XCTAssertEqual(($0 as? LayerlineError)?.status, .io)
        }
    }

    func testSessionsAreCopiedSavedAndLoaded() async throws {
        let first = try Session(try Model(path: modelPath, options: small))
        try await first.forward(prompt, logits: .all)
        let last = try first.logits(row: 2)
        try await first.save(to: path)
        let copy = try first.copy(contextLength: 32)
        XCTAssertTrue(copy.model === first.model)
        let want = try await continued(first)

        // Another opening of the model, as in another process.
        var options = small
        options.threads = 1
        let loaded = try Session(try Model(path: modelPath, options: options), contextLength: 16)
        try await loaded.forward([prompt[0]])
        try await loaded.load(from: path)
        for session in [copy, loaded] {
            XCTAssertEqual(try held(session), last)
            let rest = try await continued(session)
            XCTAssertEqual(rest, want)  // bit for bit
        }
    }

    func testStatesGoToMemoryAndBack() async throws {
        let model = try Model(path: modelPath, options: small)
        let first = try Session(model)
        try await first.forward(prompt)
        let last = try held(first)
        let state = try first.saveState()
        try await first.save(to: path)
        XCTAssertEqual(try Data(contentsOf: URL(fileURLWithPath: path)), Data(state))
        let want = try await continued(first)
        let other = try Session(model, contextLength: 16)
        try other.loadState(state)
        XCTAssertEqual(try held(other), last)
        let rest = try await continued(other)
        XCTAssertEqual(rest, want)
        var damaged = state
        damaged[100] ^= 1
        assertThrows(.format) { try other.loadState(damaged) }
        assertThrows(.format) { try other.loadState([]) }
        assertThrows(.contextFull) { try Session(model, contextLength: 2).loadState(state) }
        XCTAssertEqual(try other.logits(), want)
    }

    func testASessionGoesBackToACheckpoint() async throws {
        let model = try Model(path: modelPath, options: small)
        let session = try Session(model)
        try await session.forward(prompt)
        let before = try model.stats.usedBytes
        var checkpoint: Checkpoint? = try session.checkpoint()
        XCTAssertEqual(checkpoint?.position, prompt.count)
        XCTAssertEqual(try model.stats.usedBytes, before + (checkpoint?.memoryBytes ?? 0))
        let want = try await continued(session)
        for _ in 0..<2 {
            try session.restore(XCTUnwrap(checkpoint))
            XCTAssertEqual(try session.position, prompt.count)
            let rest = try await continued(session)
            XCTAssertEqual(rest, want)
        }
        assertThrows(.invalidArgument) { try Session(model).restore(XCTUnwrap(checkpoint)) }
        try session.truncate(to: 1)
        assertThrows(.invalidArgument) { try session.restore(XCTUnwrap(checkpoint)) }
        checkpoint = nil
        XCTAssertEqual(try model.stats.usedBytes, before)
    }

    func testKeysAndValuesAreKeptAsTheOptionsSay() throws {
        let info = try Session(try Model(path: modelPath, options: small)).info
        XCTAssertEqual(info.kvType, .f16)
        XCTAssertGreaterThan(info.cacheBytes, 0)
        XCTAssertLessThan(info.cacheBytes, info.memoryBytes)
        XCTAssertEqual(info.fewestTokens, 1)
        // Heads of this model are 16 wide: not a multiple of 32.
        var options = small
        options.kvType = .q8_0
        assertThrows(.unsupported) { try Model(path: modelPath, options: options) }
        options.kvType = KVType(rawValue: 7)
        assertThrows(.invalidArgument) { try Model(path: modelPath, options: options) }
    }

    func testTheyAreSavedAndLoadedWithoutTasksToo() throws {
        let model = try Model(path: modelPath, options: small)
        let first = try Session(model)
        try first.forwardAndWait(prompt)
        try first.saveAndWait(to: path)
        let other = try Session(model)
        try other.loadAndWait(from: path)
        XCTAssertEqual(try held(other), try held(first))
    }

    func testWhatIsRefusedChangesNothing() async throws {
        let model = try Model(path: modelPath, options: small)
        let session = try Session(model)
        try await session.forward(prompt)
        try await session.save(to: path)
        let before = try held(session)
        await assertThrows(.io) { try await session.save(to: "\(folder)/none/state") }
        await assertThrows(.io) { try await session.save(to: folder) }
        await assertThrows(.io) { try await session.load(from: "\(folder)/none") }
        await assertThrows(.invalidArgument) { try await session.save(to: "a\0b") }
        await assertThrows(.invalidArgument) { try await session.load(from: "a\0b") }
        await assertThrows(.format) { try await session.load(from: modelPath) }
        await assertThrows(.contextFull) { try await Session(model, contextLength: 2).load(from: path) }
        assertThrows(.contextFull) { try session.copy(contextLength: 2) }
        assertThrows(.invalidArgument) { try session.copy(contextLength: -1) }
        assertThrows(.memoryBudget) { try session.copy(contextLength: 1 << 31) }
        var bytes = try XCTUnwrap(FileManager.default.contents(atPath: path))
        bytes[100] ^= 1
        XCTAssertTrue(FileManager.default.createFile(atPath: path, contents: bytes))
        await assertThrows(.format) { try await session.load(from: path) }
        XCTAssertEqual(try held(session), before)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: folder), ["state"])
    }

    func testTasksContinueOnePromptAtOnce() async throws {
        let first = try Session(try Model(path: modelPath, options: small))
        try await first.forward(prompt)
        let copies = try (0..<4).map { _ in try first.copy() }
        let rows = try await withThrowingTaskGroup(of: [Float].self) { group in
            for copy in copies {
                group.addTask {
                    try await copy.forward([7, 8, 9])
                    return try copy.logits()
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let want = try await continued(first)
        XCTAssertEqual(rows, Array(repeating: want, count: copies.count))
    }

    func testACopyGoesBackToTheBudgetWithItsLastReference() async throws {
        let first = try Session(try Model(path: modelPath, options: Options(contextLength: 64, prefetch: false)))
        let before = try first.model.stats.usedBytes
        var copies = try (0..<4).map { _ in try first.copy(contextLength: 256) }
        XCTAssertGreaterThan(try first.model.stats.usedBytes, before)
        XCTAssertEqual(copies.count, 4)
        copies = []
        XCTAssertEqual(try first.model.stats.usedBytes, before)
    }
}
