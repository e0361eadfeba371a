import Layerline
import XCTest

final class AdapterTests: XCTestCase {
    func testSessionsHaveAdapters() async throws {
        let model = try Model(path: modelPath, options: small)
        let (session, other) = (try Session(model), try Session(model))
        func last(_ session: Session) async throws -> [Float] {
            try session.truncate(to: 0)
            try await session.forward(prompt)
            return try session.logits()
        }
        let plain = try await last(session)
        do {
            let adapter = try Adapter(model, path: "\(root)/tests/data/lora.gguf")
            XCTAssertGreaterThan(adapter.memoryBytes, 768)
            try session.setAdapters([(adapter, 0.5), (adapter, 0.5)])
            assertThrows(.invalidArgument) { try session.setAdapters([(adapter, .nan)]) }
        }
        let adapted = try await last(session)
        XCTAssertNotEqual(adapted, plain)
        let beside = try await last(other)
        XCTAssertEqual(beside, plain)
        try session.setAdapters([])
        let again = try await last(session)
        XCTAssertEqual(again, plain)
        assertThrows(.invalidArgument) { _ = try Adapter(model, path: modelPath) }
    }
}
