import Layerline
import XCTest

final class EmbeddingTests: XCTestCase {
    func testPassesLeaveEmbeddings() async throws {
        let session = try Session(try Model(path: modelPath, options: small))
        try await session.forward(prompt, logits: .none, embeddings: .all)
        let rows = try (0..<prompt.count).map { try session.embeddings(row: $0) }
        XCTAssertEqual(rows.map(\.count), prompt.map { _ in session.model.info.embeddingLength })
        assertThrows(.invalidArgument) { try session.embeddings(row: prompt.count) }
        assertThrows(.invalidArgument) { try session.embeddings(row: -1) }
        assertThrows(.invalidArgument) { try session.logits() }
        for (which, want) in [(EmbeddingRows.first, rows[0]), (.last, rows[2])] {
            try session.truncate(to: 0)
            try await session.forward(prompt, embeddings: which)
            XCTAssertEqual(try session.embeddings(), want)  // bit for bit
            XCTAssertEqual(try session.logits().count, 320)
        }
        try session.truncate(to: 0)
        assertThrows(.invalidArgument) { try session.embeddings() }
    }

    func testTheMeanIsThatOfAllTokensHoweverThePassIsRun() throws {
        let session = try Session(try Model(path: modelPath, options: small))
        try session.forwardAndWait(prompt, logits: .none, embeddings: .mean)
        let mean = try session.embeddings()
        try session.truncate(to: 0)
        _ = try session.submit(prompt, logits: .none, embeddings: .all)
        XCTAssertEqual(try session.model.wait().first?.status, .ok)
        let rows = try (0..<prompt.count).map { try session.embeddings(row: $0) }
        for (index, value) in mean.enumerated() {
            XCTAssertEqual(value, rows.map { $0[index] }.reduce(0, +) / Float(rows.count), accuracy: 1e-5)
        }
    }
}
