import CLayerline
import Layerline
import XCTest

final class InterfaceTests: XCTestCase {
    func testEveryNumberAndFieldOfTheHeaderHasAPlace() throws {
        let header = try contents("include/layerline.h")
        let folder = "bindings/swift/Sources/Layerline"
        let sources = try FileManager.default.contentsOfDirectory(atPath: "\(root)/\(folder)").map {
            try contents("\(folder)/\($0)")
        }.joined()
        let numbers = try matches(#"^#define (LAYERLINE_(?:ERROR|IO|KV|LAYER|EVENT|TOKENIZE)_\w+) "#, in: header)
        XCTAssertGreaterThan(numbers.count, 20)
        for number in numbers {
            XCTAssertTrue(sources.contains("\(number))"), number)
        }
        XCTAssertEqual(try matches(#"^#define (LAYERLINE_LOGITS_\w+) "#, in: header).count, 3)
        XCTAssertEqual(LogitRows.last.rawValue, LAYERLINE_LOGITS_LAST)
        XCTAssertEqual(LogitRows.all.rawValue, LAYERLINE_LOGITS_ALL)
        XCTAssertEqual(LogitRows.none.rawValue, LAYERLINE_LOGITS_NONE)
        XCTAssertEqual(try matches(#"^#define (LAYERLINE_EMBEDDINGS_\w+) "#, in: header).count, 6)
        XCTAssertEqual(EmbeddingRows.none.rawValue, LAYERLINE_EMBEDDINGS_NONE)
        XCTAssertEqual(EmbeddingRows.all.rawValue, LAYERLINE_EMBEDDINGS_ALL)
        XCTAssertEqual(EmbeddingRows.last.rawValue, LAYERLINE_EMBEDDINGS_LAST)
        XCTAssertEqual(EmbeddingRows.mean.rawValue, LAYERLINE_EMBEDDINGS_MEAN)
        XCTAssertEqual(EmbeddingRows.first.rawValue, LAYERLINE_EMBEDDINGS_FIRST)
        XCTAssertEqual(EmbeddingRows.score.rawValue, LAYERLINE_EMBEDDINGS_SCORE)
        for name in ["plan", "model_info", "session_info", "stats", "event"] {
            let body = try matches("^typedef struct layerline_\(name) \\{(.*?)^\\}", in: header)[0]
            let fields = try matches(#"^    \w+ (\w+);"#, in: body)
            XCTAssertGreaterThan(fields.count, 6)
            let variable = name.hasSuffix("info") ? "info" : name
            for field in fields where field != "reserved" {
                XCTAssertTrue(sources.contains("\(variable).\(field)"), "\(name).\(field)")
            }
        }
    }

    func testVersionIsThePackages() throws {
        XCTAssertEqual(try matches(#"^version = "(.*?)""#, in: contents("Cargo.toml")).first, LayerlineLibrary.version)
        let numbers = LayerlineLibrary.version.split(separator: ".").compactMap { Int($0) }
        XCTAssertEqual(numbers[0] * 1_000_000 + numbers[1] * 1000 + numbers[2], LayerlineLibrary.versionNumber)
        XCTAssertEqual(LayerlineLibrary.buildInfo.components(separatedBy: "; ").count, 4)
    }

    func testStatusesHaveTheirNames() {
        XCTAssertEqual(Status(rawValue: -5), .memoryBudget)
        XCTAssertEqual(Status(rawValue: -4711).description, "unknown status")
        XCTAssertNotEqual(Status.io.description, Status.format.description)
    }
}
