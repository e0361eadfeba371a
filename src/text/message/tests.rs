//! What models write, whole, cut everywhere, broken and hostile.

use super::format::{FORMATS, of_template};
use super::{MessageParser, PartKind};

/// The parts of a text in pieces, those that belong together joined: `T` content, `R` reasoning, `C` a call, `A` its
/// arguments, `E` its end.
fn parsed(format: &str, prompt: &str, pieces: &[&[u8]], tools: &str) -> Vec<String> {
    let mut parser = MessageParser::new(format, tools).unwrap();
    parser.begin(prompt);
    let mut parts: Vec<String> = Vec::new();
    let mut take = |parser: &mut MessageParser| {
        while let Some(part) = parser.next_part() {
            let kind = match part.kind {
                PartKind::Content => "T",
                PartKind::Reasoning => "R",
                PartKind::Call => "C",
                PartKind::Arguments => "A",
                PartKind::CallEnd => "E",
            };
            match parts.last_mut().filter(|last| last.starts_with(kind) && !matches!(kind, "C" | "E")) {
                Some(last) => last.push_str(part.text),
                None => parts.push(format!("{kind}{}", part.text)),
            }
        }
    };
    for piece in pieces {
        parser.feed(piece).unwrap();
        take(&mut parser);
    }
    parser.finish().unwrap();
    take(&mut parser);
    let message: serde_json::Value = serde_json::from_str(&parser.message().unwrap()).unwrap();
    let joined = |kind: &str| parts.iter().filter_map(|part| part.strip_prefix(kind)).collect::<String>();
    assert_eq!(message["content"], joined("T"));
    assert_eq!(message["reasoning_content"].as_str().unwrap_or_default(), joined("R"));
    parts
}

/// The parts of a text, which are the same however it is cut in two, and byte by byte.
fn parts_with(format: &str, prompt: &str, text: &str, tools: &str) -> Vec<String> {
    let whole = parsed(format, prompt, &[text.as_bytes()], tools);
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(parsed(format, prompt, &bytes, tools), whole, "{format}, byte by byte: {text}");
    for at in 0..=text.len() {
        let (left, right) = text.as_bytes().split_at(at);
        assert_eq!(parsed(format, prompt, &[left, right], tools), whole, "{format}, cut at {at}: {text}");
    }
    whole
}

fn parts(format: &str, text: &str) -> Vec<String> {
    parts_with(format, "", text, "")
}

const TOOLS: &str = r#"[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
    "code": {"type": "string"}, "n": {"type": "integer"}, "on": {"type": "boolean"}, "any": {}}}}}]"#;

#[test]
fn each_format_is_read() {
    let one = ["RHm.", "TLook:", "Cf", r#"A{"a": "x<y", "n": [1, {"b": null}]}"#, "E"];
    let arguments = r#"{"a": "x<y", "n": [1, {"b": null}]}"#;
    let cases = [
        ("hermes", "<think>\nHm.\n</think>\n\nLook:\n<tool_call>\n{\"name\": \"f\", \"arguments\": @@}\n</tool_call>"),
        ("hermes", "<think>Hm.</think>Look:<tool_call>{\"arguments\":@@,\"name\":\"f\"}</tool_call>\n"),
        (
            "hermes",
            "<think>Hm.</think>Look:<tool_call>[{\"id\": \"x\", \"function\": {\"name\": \"f\", \"arguments\": @@}}]</tool_call>",
        ),
        ("mistral", "[THINK]Hm.[/THINK]Look:[TOOL_CALLS][{\"name\": \"f\", \"arguments\": @@, \"id\": \"abcdefghi\"}]"),
        ("mistral", "[THINK]Hm.[/THINK]Look:[TOOL_CALLS]f[ARGS]@@"),
        ("mistral", "[THINK]Hm.[/THINK]Look:[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]@@"),
        ("mistral", "[THINK]Hm.[/THINK]Look: [TOOL_CALLS] f@@"),
        (
            "deepseek",
            "<think>\nHm.\n</think>\n\nLook:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>@@<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "deepseek",
            "<think>Hm.</think>Look:<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n@@\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "kimi",
            "<think>Hm.</think>Look:<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>@@<|tool_call_end|><|tool_calls_section_end|>",
        ),
        (
            "harmony",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>Look:<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>@@<|call|>",
        ),
        (
            "harmony",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Look:<|end|><|start|>assistant to=functions.f<|channel|>commentary json<|message|>@@",
        ),
    ];
    for (format, text) in cases {
        assert_eq!(parts(format, &text.replace("@@", arguments)), one, "{format}: {text}");
    }
    let bare = r#"{"name": "f", "parameters": {"a": "x<y", "n": [1, {"b": null}]}}"#;
    assert_eq!(parts("llama3", bare), one[2..]);
    assert_eq!(parts("llama3", &format!("<think>Hm.</think>\n{bare}<|eom_id|>")), [&one[..1], &one[2..]].concat());
    assert_eq!(parts("llama3", &format!("Look: <|python_tag|>{bare}")), one[1..]);
    assert_eq!(parts("llama3", &format!("{bare}; {bare}\n{bare}")), [&one[2..]; 3].concat());
}

#[test]
fn arguments_between_tags_become_json() {
    let wanted = ["TSo", "Cf", r#"A{"code":"a\n  <b> \"c\"","n":12,"on":true,"any":[1, {"x":2}],"free":"12 x"}"#, "E"];
    let qwen = "So\n<tool_call>\n<function=f>\n<parameter=code>\na\n  <b> \"c\"\n</parameter>\n<parameter=n>\n12\n</parameter>\n<parameter=on>\nTrue\n</parameter>\n<parameter=any>\n[1, {\"x\":2}]\n</parameter>\n<parameter=free>\n12 x\n</parameter>\n</function>\n</tool_call>";
    let glm = "\nSo\n<tool_call>f\n<arg_key>code</arg_key>\n<arg_value>a\n  <b> \"c\"</arg_value>\n<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n<arg_key>on</arg_key>\n<arg_value>true</arg_value><arg_key>any</arg_key><arg_value>[1, {\"x\":2}]</arg_value>\n<arg_key>free</arg_key>\n<arg_value>12 x</arg_value>\n</tool_call>";
    let minimax = "So\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"code\">a\n  <b> \"c\"</parameter>\n<parameter name=\"n\">12</parameter>\n<parameter name=\"on\">true</parameter>\n<parameter name=\"any\">[1, {\"x\":2}]</parameter>\n<parameter name=\"free\">12 x</parameter>\n</invoke>\n</minimax:tool_call>";
    assert_eq!(parts_with("qwen3-coder", "", qwen, TOOLS), wanted);
    assert_eq!(parts_with("glm", "<|assistant|><think></think>", glm, TOOLS)[1..], wanted[1..]);
    assert_eq!(parts_with("minimax", "", minimax, TOOLS), wanted);
    // A string that looks like a number stays one where the schema says so.
    let text = "<tool_call><function=f><parameter=code>12</parameter></function></tool_call>";
    assert_eq!(parts_with("qwen3-coder", "", text, TOOLS)[1], r#"A{"code":"12"}"#);
    assert_eq!(parts("qwen3-coder", text)[1], r#"A{"code":12}"#);
    // Without the outer mark, without arguments, several.
    let two = "<function=g>\n</function>\n<function=f>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>";
    assert_eq!(parts("qwen3-coder", two), ["Cg", "A{}", "E", "Cf", r#"A{"n":1}"#, "E"]);
    assert_eq!(
        parts("glm", "<tool_call>g</tool_call>\n<tool_call>h\n</tool_call>"),
        ["Cg", "A{}", "E", "Ch", "A{}", "E"]
    );
}

#[test]
fn several_calls_follow_each_other() {
    let two = ["Cf", "A{}", "E", "Cg", r#"A{"x": 1}"#, "E"];
    let cases = [
        (
            "hermes",
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": 1}}\n</tool_call>",
        ),
        ("hermes", "<tool_call>{\"name\": \"f\"}\n{\"name\": \"g\", \"arguments\": {\"x\": 1}}</tool_call>"),
        ("mistral", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {\"x\": 1}}]"),
        ("mistral", "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{\"x\": 1}"),
        (
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>g<｜tool▁sep｜>{\"x\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
        (
            "kimi",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_call_begin|>g:1<|tool_call_argument_begin|>{\"x\": 1}<|tool_call_end|><|tool_calls_section_end|>",
        ),
    ];
    for (format, text) in cases {
        assert_eq!(parts(format, text), two, "{format}: {text}");
    }
    let mut parser = MessageParser::new("kimi", "").unwrap();
    parser.feed(cases[5].1.as_bytes()).unwrap();
    let message: serde_json::Value = serde_json::from_str(&parser.message().unwrap()).unwrap();
    assert_eq!(message["tool_calls"][0]["id"], "functions.f:0");
    assert_eq!(message["tool_calls"][1]["function"]["arguments"]["x"], 1);
    // Ids that the model does not give are never the same, also in the next message, and from another parser.
    let mut parsers = [(); 2].map(|()| MessageParser::new("hermes", "").unwrap());
    let mut ids = std::collections::BTreeSet::new();
    for i in [0, 0, 1] {
        let parser = &mut parsers[i];
        parser.begin("");
        parser.feed(cases[0].1.as_bytes()).unwrap();
        while let Some(part) = parser.next_part() {
            assert_eq!(part.id.len(), 9);
            ids.insert(part.id.to_string());
        }
    }
    assert_eq!(ids.len(), 6);
}

#[test]
fn reasoning_that_the_prompt_begins_is_known() {
    assert_eq!(parts_with("hermes", "…<think>\n", "Hm\n\nhm.\n</think>\n\nYes.\n", ""), ["RHm\n\nhm.", "TYes.\n"]);
    assert_eq!(parts_with("plain", "<think>", "Hm", ""), ["RHm"]);
    assert_eq!(parts("plain", "<think>\n\n</think>\n\nYes."), ["TYes."]);
    assert_eq!(parts("plain", "</think>Yes."), ["TYes."]);
    assert_eq!(
        parts_with(
            "kimi",
            "<think>",
            "Hm<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{}<|tool_call_end|>",
            ""
        ),
        ["RHm", "Cf", "A{}", "E"]
    );
}

#[test]
fn text_is_never_lost() {
    for (format, text) in [
        ("hermes", "Write <tool_call>like this</tool_call>, in <think>tags</think>. "),
        ("hermes", " <tool_call>{\"no\": \"name\"}</tool_call>"),
        ("hermes", "<tool_call>{\"no"),
        ("hermes", "a < b <tool_cal"),
        ("llama3", "{\"name\": \"Ann\", \"age\": 3}"),
        ("llama3", "{\"name\": \"Ann\""),
        ("llama3", "{\"a\": [1, 2]} and {\"name\": \"f\", \"parameters\": {}}"),
        ("llama3", "<|python_tag|>print(1)"),
        ("mistral", "x [TOOL_CALLS] is a mark"),
        ("mistral", "[TOOL_CALLS]"),
        ("deepseek", "<｜tool▁calls▁begin｜>no call"),
        ("kimi", "<|tool_call_begin|>two words<|tool_call_end|>"),
        ("qwen3-coder", "<tool_call>\n{\"name\": 1}"),
        ("qwen3-coder", "if a <function=b\n"),
        ("glm", "<tool_call>two words\n"),
        ("minimax", "<minimax:tool_call> none"),
        ("harmony", "No marks at all "),
        ("harmony", "<|start|>assistant"),
        ("plain", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"),
    ] {
        assert_eq!(parts(format, text), [format!("T{text}")], "{format}");
    }
}

#[test]
fn broken_calls_keep_what_there_is() {
    let call = |arguments: &str| ["Cf".to_string(), format!("A{arguments}"), "E".to_string()];
    let hermes =
        |arguments: &str| parts("hermes", &format!("<tool_call>{{\"name\": \"f\", \"arguments\": {arguments}"));
    assert_eq!(hermes("{\"a\": 1}}"), call("{\"a\": 1}"));
    assert_eq!(hermes("{\"a\": 1}</tool_call>"), call("{\"a\": 1}"));
    assert_eq!(hermes("{\"a\": \"un"), call("{\"a\": \"un"));
    assert_eq!(hermes("{'a': 1, b: }}</tool_call>"), call("{'a': 1, b: }"));
    assert_eq!(hermes("\"{\\\"a\\\": 1}\"}</tool_call>"), call("{\"a\": 1}"));
    assert_eq!(hermes("{\"a\": 1}</tool_call> Then"), [&call("{\"a\": 1}")[..], &["TThen".to_string()]].concat());
    assert_eq!(
        parts("hermes", "<tool_call>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}</tool_call>")[1..],
        call("{}")
    );
    let open = parts("qwen3-coder", "<tool_call><function=f><parameter=a>\n1\n</function>\n</tool_call>");
    assert_eq!(open, call(r#"{"a":1}"#));
    assert_eq!(parts("qwen3-coder", "<tool_call><function=f><parameter=a>x</parameter>"), call(r#"{"a":"x"}"#));
    assert_eq!(parts("glm", "<tool_call>f<arg_key>a</arg_key>1</arg_value></tool_call>"), call(r#"{"a":1}"#));
    assert_eq!(
        parts("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": \"`\"}"),
        call("{\"a\": \"`\"}")
    );
    assert_eq!(parts("harmony", " to=functions.f<|channel|>commentary json<|message|> {x "), call("{x"));
    // Text in the midst of a call is content.
    let stray = parts("qwen3-coder", "<function=f>oh <parameter=a>1</parameter> well</function>");
    assert_eq!(stray, ["Cf", "Toh", r#"A{"a":1"#, "T well", "A}", "E"]);
}

#[test]
fn work_is_linear_in_the_text() {
    let units = [
        "<tool_call>",
        "<tool_call>{\"a\":\"",
        "<tool_call>{\",\":[\",\":\"",
        "<",
        "{",
        "[",
        "\"",
        "\\",
        " ",
        "\n",
        "`",
        "é",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]f",
        "<think>",
        "</think>",
        "<|channel|>",
        "<|start|>",
        "<|message|>",
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "<arg_key>",
        "<tool_call>f<arg_key>",
        "<invoke name=\"",
        "<minimax:tool_call>\n",
        "<|tool_call_begin|>f<|tool_call_argument_begin|>{",
        "<|tool_calls_section_begin|> ",
        "{\"name\":\"f\",\"parameters\":{",
        "{\"name\":\"f\",\"parameters\":{}}",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        "<tool_call>{\"name\":\"f\",\"arguments\":{}}",
        "<tool_call>{\"name\":\"f\",\"id\":\"",
        "{\"function\":",
        "<|python_tag|>{\"name\":\"f\",",
    ];
    for format in FORMATS {
        for unit in units {
            let text = unit.repeat(20_000 / unit.len());
            for piece in [text.len(), 1] {
                let mut parser = MessageParser::new(format.name(), "").unwrap();
                for piece in text.as_bytes().chunks(piece) {
                    parser.feed(piece).unwrap();
                    while parser.next_part().is_some() {}
                }
                parser.finish().unwrap();
                let most = 80 * text.len() as u64;
                assert!(parser.work() < most, "{} {unit:?} by {piece}: {}", format.name(), parser.work());
            }
        }
    }
}

#[test]
fn a_format_is_known_by_its_template() {
    for (template, name) in [
        ("{{ '<tool_call>' }} … </tool_call>", "hermes"),
        ("<tool_call> <function=x> <parameter=y> </tool_call>", "qwen3-coder"),
        ("<tool_call> <arg_key> </tool_call>", "glm"),
        ("[AVAILABLE_TOOLS] [TOOL_CALLS]", "mistral"),
        ("<|start_header_id|> '\"parameters\": '", "llama3"),
        ("<|im_start|>", "plain"),
        ("", "plain"),
    ] {
        assert_eq!(of_template(template).name(), name, "{template}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let error = MessageParser::new("nonsense", "").err().unwrap();
    assert!(error.message().contains("hermes"), "{error}");
    assert!(MessageParser::new("glm", "{}").is_err() && MessageParser::new("glm", "[").is_err());
    let mut parser = MessageParser::new("glm", "null").unwrap();
    parser.finish().unwrap();
    parser.finish().unwrap();
    assert!(parser.feed(b"x").is_err());
    parser.begin("");
    parser.feed(b"\xff\xe2\x82").unwrap();
    parser.finish().unwrap();
    assert_eq!(parser.next_part().unwrap().text, "\u{fffd}\u{fffd}");
}
