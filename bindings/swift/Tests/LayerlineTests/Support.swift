import Foundation
import Layerline
import XCTest

/// The checkout that this package stands in.
let root = URL(fileURLWithPath: #filePath).pathComponents.dropLast(5).joined(separator: "/").dropFirst()

/// The small model of the tests.
let modelPath = "\(root)/tests/data/golden/arch/llama.gguf"
let small = Options(memoryBudget: 1 << 30, contextLength: 64, threads: 2)
/// The one of `make demo`, where it is fetched.
let demoModelPath = "\(root)/models/SmolLM2-135M-Instruct.Q4_1.gguf"
let prompt: [Token] = [1, 40, 50]

func contents(_ file: String) throws -> String {
    try String(contentsOfFile: "\(root)/\(file)", encoding: .utf8)
}

/// All texts that a pattern's first group matches.
func matches(_ pattern: String, in text: String) throws -> [String] {
    let expression = try NSRegularExpression(pattern: pattern, options: [.anchorsMatchLines, .dotMatchesLineSeparators])
    return expression.matches(in: text, range: NSRange(text.startIndex..., in: text)).map {
        String(text[Range($0.range(at: 1), in: text)!])
    }
}

/// A model at the least budget with room for `sessions`, so that weights are read while passes run; and what it needs.
/// `chunkLength` 1: a pass of many sweeps, one for each token.
func openStreaming(
    _ path: String = modelPath, sessions: UInt64 = 1, chunkLength: Int = 1
) throws -> (Model, MemoryPlan) {
    var options = Options(contextLength: 256, chunkLength: chunkLength, threads: 2)
    let least = try MemoryPlan(path: path, options: options)
    options.memoryBudget = least.floorBytes + (sessions - 1) * least.kvBytes
    return (try Model(path: path, options: options), try MemoryPlan(path: path, options: options))
}

/// Tokens of no meaning, always the same.
func someTokens(_ count: Int) -> [Token] {
    (0..<count).map { Token(3 + $0 * 37 % 300) }
}

extension XCTestCase {
    func assertThrows<T>(
        _ status: Status, file: StaticString = #filePath, line: UInt = #line, _ body: () throws -> T
    ) {
        do {
            _ = try body()
            XCTFail("nothing was thrown", file: file, line: line)
        } catch {
            assertIs(status, error, file: file, line: line)
        }
    }

    func assertThrows<T>(
        _ status: Status, file: StaticString = #filePath, line: UInt = #line, _ body: () async throws -> T
    ) async {
        do {
            _ = try await body()
            XCTFail("nothing was thrown", file: file, line: line)
        } catch {
            assertIs(status, error, file: file, line: line)
        }
    }

    private func assertIs(_ status: Status, _ error: any Error, file: StaticString, line: UInt) {
        guard let error = error as? LayerlineError else {
            return XCTFail("\(error) is no LayerlineError", file: file, line: line)
        }
        XCTAssertEqual(error.status, status, error.message, file: file, line: line)
        XCTAssertFalse(error.message.isEmpty, file: file, line: line)
        XCTAssertEqual(error.localizedDescription, error.message, file: file, line: line)
    }
}
