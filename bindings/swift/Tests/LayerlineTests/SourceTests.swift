import Foundation
import Layerline
import XCTest

final class SourceTests: XCTestCase {
    private struct Gone: Error {}

    /// A file in memory whose reads fail on command.
    private final class Storage: @unchecked Sendable {
        let bytes: Data
        private let lock = NSLock()
        private var fails = false

        init(_ path: String) throws {
            bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        }

        func fail(_ fails: Bool) {
            lock.lock()
            self.fails = fails
            lock.unlock()
        }

        func source(_ name: String, isConcurrent: Bool = true) throws -> Source {
            try Source(size: UInt64(bytes.count), name: name, isConcurrent: isConcurrent) { [self] offset, buffer in
                lock.lock()
                defer { lock.unlock() }
                if fails {
                    throw Gone()
                }
                // As short as a read may be.
                let count = min(buffer.count, 5000)
                bytes.copyBytes(to: buffer, from: Int(offset)..<Int(offset) + count)
                return count
            }
        }
    }

    private func logits(_ session: Session) async throws -> [Float] {
        try session.truncate(to: 0)
        try await session.forward(prompt)
        return try session.logits()
    }

    func testASourceGivesWhatTheFileGives() async throws {
        let expected = try await logits(Session(Model(path: modelPath, options: small)))
        let storage = try Storage(modelPath)
        var options = small
        options.prefetch = false
        let model: Model
        do {
            let source = try storage.source("tiny.gguf")
            let plan = try MemoryPlan(source: source, options: options)
            XCTAssertEqual(plan.fileBytes, UInt64(storage.bytes.count))
            options.memoryBudget = plan.floorBytes + 2 * plan.kvBytes
            model = try Model(source: source, options: options)
        }
        let session = try Session(model)
        let found = try await logits(session)
        XCTAssertEqual(found, expected)
        XCTAssertEqual(try model.stats.io, .source)

        storage.fail(true)
        await assertThrows(.io) { try await self.logits(session) }
        storage.fail(false)
        let again = try await logits(session)
        XCTAssertEqual(again, expected)
    }

    func testWhatIsWrongWithASourceIsRefused() throws {
        let source = try Storage(modelPath).source("tiny.gguf", isConcurrent: false)
        let lora = try Storage("\(root)/tests/data/lora.gguf").source("lora.gguf")
        var options = small
        options.io = .mapped
        assertThrows(.unsupported) { try Model(source: source, options: options) }
        let model = try Model(path: modelPath, options: small)
        XCTAssertGreaterThan(try Adapter(model, source: lora).memoryBytes, 768)
        try source.addFile(lora)
        assertThrows(.invalidArgument) { try lora.addFile(source) }
        assertThrows(.invalidArgument) { try Model(source: source, options: small) }
        assertThrows(.invalidArgument) { try Source(size: 9, name: "a\0b") { _, _ in 0 } }
    }
}
