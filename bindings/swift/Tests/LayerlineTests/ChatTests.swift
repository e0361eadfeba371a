import Foundation
import Layerline
import XCTest

private let template =
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'odd' %}{{ raise_exception('no ' + m.role) }}{% endif %}"
    + "{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    + "{% if add_generation_prompt %}assistant:{% endif %}"
private let said = [Message(role: "system", content: "short"), Message(role: "user", content: "hé</s>")]
private let text = "<s>system:short</s>user:hé</s></s>"
private let json = #"{"messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "hé</s>"}]"#

/// The small model with a chat template; a comment of Jinja's keeps its tensors aligned.
private func openChat(_ template: String) throws -> Model {
    func bytes<Number: FixedWidthInteger>(_ number: Number) -> Data {
        withUnsafeBytes(of: number.littleEndian) { Data($0) }
    }
    let key = "tokenizer.chat_template"
    let whole = try XCTUnwrap(FileManager.default.contents(atPath: modelPath))
    let pairs = whole[16..<24].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let begun = template + "{##"
    let gap = (32 - (key.utf8.count + 20 + begun.utf8.count + 1) % 32) % 32
    let filled = begun + String(repeating: "#", count: gap) + "}"
    var made = whole[..<16] + bytes(pairs + 1) + bytes(UInt64(key.utf8.count)) + Data(key.utf8)
    made += bytes(UInt32(8)) + bytes(UInt64(filled.utf8.count)) + Data(filled.utf8) + whole[24...]
    let path = NSTemporaryDirectory() + "/layerline-chat-" + UUID().uuidString
    XCTAssertTrue(FileManager.default.createFile(atPath: path, contents: made))
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try Model(path: path, options: small)
}

final class ChatTests: XCTestCase {
    func testConversationsBecomeText() throws {
        let model = try openChat(template)
        XCTAssertEqual(try model.formatChat(said), text + "assistant:")
        XCTAssertEqual(try model.formatChat(said, addAssistant: false), text)
        XCTAssertEqual(try model.formatChat([]), "<s>assistant:")
        let long = [Message(role: "user", content: String(repeating: "a", count: 5000))]
        XCTAssertEqual(try model.formatChat(long, addAssistant: false).utf8.count, 5012)
        let withTools = json + #", "tools": [{"name": "f"}]}"#
        XCTAssertEqual(try model.formatChat(json: withTools.utf8, addAssistant: false), text + #"[{"name": "f"}]"#)
    }

    func testMessagesAreParsed() throws {
        let schema = #"[{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}]"#
        let parser = try MessageParser(format: "qwen3-coder", tools: schema)
        try parser.begin(prompt: "<think>\n")
        let text = "Hé.\n</think>\n\nSo:<tool_call><function=f><parameter=a>\n12\n</parameter></function></tool_call>"
        var (reasoning, content, name, arguments) = ("", "", "", "")
        var parts = try text.utf8.flatMap { try parser.feed([$0]) }
        parts += try parser.finish()
        for part in parts {
            switch part {
            case .content(let more): content += more
            case .reasoning(let more): reasoning += more
            case .call(0, let called, let id):
                name = called
                XCTAssertEqual(id.utf8.count, 9)
            case .arguments(0, let more): arguments += more
            case .callEnd(let index): XCTAssertEqual(index, 0)
            default: XCTFail("\(part)")
            }
        }
        XCTAssertEqual([reasoning, content, name, arguments], ["Hé.", "So:", "f", #"{"a":"12"}"#])
        XCTAssertTrue(try parser.message().contains(#""reasoning_content":"Hé.""#))
        XCTAssertThrowsError(try parser.feed("x"))
        XCTAssertThrowsError(try MessageParser(format: "none such"))
        XCTAssertEqual(try MessageParser(openChat("<tool_call></tool_call>")).format, "hermes")
    }

    func testControlTokensInMessagesStayText() throws {
        let model = try openChat(template)
        func ends(_ tokens: [Token]) -> Int { tokens.filter { $0 == model.info.endToken }.count }
        let tokens = try model.tokenizeChat(said)
        XCTAssertEqual(tokens.first, model.info.beginToken)
        XCTAssertEqual(ends(tokens), said.count)
        XCTAssertEqual(ends(try model.tokenize(text, options: .special)), said.count + 1)
        XCTAssertEqual(try model.tokenizeChat(json: Data((json + "}").utf8)), tokens)
        let long = [Message(role: "user", content: String(repeating: "</s>", count: 3000))]
        XCTAssertEqual(ends(try model.tokenizeChat(long, addAssistant: false)), 1)
    }

    func testWhatTemplatesRefuseIsSaid() throws {
        assertThrows(.notFound) { try Model(path: modelPath, options: small).formatChat(said) }
        let model = try openChat(template)
        XCTAssertThrowsError(try model.formatChat([Message(role: "odd", content: "")])) {
            XCTAssertEqual(($0 as? LayerlineError)?.status, .invalidArgument)
            XCTAssertTrue(($0 as? LayerlineError)?.message.contains("no odd") == true, "\($0)")
        }
        for message in [Message(role: "a\0b", content: ""), Message(role: "user", content: "a\0b")] {
            assertThrows(.invalidArgument) { try model.formatChat([message]) }
            assertThrows(.invalidArgument) { try model.tokenizeChat([message]) }
        }
        for wrong in ["", "{", "[]", "{}"] {
            assertThrows(.invalidArgument) { try model.formatChat(json: wrong.utf8) }
            assertThrows(.invalidArgument) { try model.tokenizeChat(json: wrong.utf8) }
        }
        assertThrows(.format) { try openChat("{% if %}").formatChat(said) }
    }
}
