//! Messages with tool calls: what a chat template makes of them is parsed back.
//!
//! The templates here are made for the test and write as those of the public families do. LAYERLINE_CHAT_TEMPLATES names
//! a folder of templates; each file there is tried too.

use layerline::gguf::Metadata;
use layerline::{Chat, Conversation, Error, MessageParser, Tokenizer};
use serde_json::{Value, json};

/// A template, the format that it stands for, and whether it writes reasoning and several calls.
const TEMPLATES: &[(&str, &str, bool, bool)] = &[
    (
        "hermes",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>\n{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        true,
        true,
    ),
    (
        "qwen3-coder",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments | items %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        false,
        true,
    ),
    (
        "llama3",
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% if m.tool_calls %}{\"name\": \"{{ m.tool_calls[0].function.name }}\", \"parameters\": {{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        false,
        false,
    ),
    (
        "mistral",
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{% if m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{{ (c.function | tojson)[:-1] }}, \"id\": \"{{ c.id }}\"}{{ ', ' if not loop.last }}{% endfor %}]{% endif %}</s>{% endif %}{% endfor %}",
        false,
        true,
    ),
    (
        "mistral",
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>{% endif %}{% endfor %}",
        true,
        true,
    ),
    (
        "deepseek",
        "{% for m in messages %}<｜{{ m.role }}｜>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}<｜tool▁call▁begin｜>{{ c.function.name }}<｜tool▁sep｜>{{ c.function.arguments | tojson }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>{% endfor %}{% if add_generation_prompt %}<｜assistant｜>{% endif %}",
        true,
        true,
    ),
    (
        "deepseek",
        "{% for m in messages %}<｜{{ m.role }}｜>{{ m.content }}{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}{{ '\n' if not loop.first }}<｜tool▁call▁begin｜>{{ c.type }}<｜tool▁sep｜>{{ c.function.name }}\n```json\n{{ c.function.arguments | tojson }}\n```<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>{% endfor %}{% if add_generation_prompt %}<｜assistant｜>{% endif %}",
        false,
        true,
    ),
    (
        "harmony",
        "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% else %}{% if m.reasoning_content %}<|start|>assistant<|channel|>analysis<|message|>{{ m.reasoning_content }}<|end|>{% endif %}{% if m.content %}<|start|>assistant<|channel|>{{ 'commentary' if m.tool_calls else 'final' }}<|message|>{{ m.content }}<|end|>{% endif %}{% for c in m.tool_calls %}<|start|>assistant<|channel|>commentary to=functions.{{ c.function.name }} <|constrain|>json<|message|>{{ c.function.arguments | tojson }}<|call|>{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        true,
        true,
    ),
    (
        "glm",
        "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}<think>{{ m.reasoning_content }}</think>\n{% endif %}{{ m.content }}{% for c in m.tool_calls %}\n<tool_call>{{ c.function.name }}\n{% for k, v in c.function.arguments | items %}<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        true,
        true,
    ),
    (
        "kimi",
        "{% for m in messages %}<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>{% if m.role == 'assistant' %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}{% if m.tool_calls %}<|tool_calls_section_begin|>{% for c in m.tool_calls %}<|tool_call_begin|>functions.{{ c.function.name }}:{{ loop.index0 }}<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}",
        true,
        true,
    ),
    (
        "minimax",
        "{% for m in messages %}]~b]{{ m.role }}\n{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}{% if m.tool_calls %}\n<minimax:tool_call>\n{% for c in m.tool_calls %}<invoke name=\"{{ c.function.name }}\">\n{% for k, v in c.function.arguments | items %}<parameter name=\"{{ k }}\">{{ v if v is string else v | tojson }}</parameter>\n{% endfor %}</invoke>\n{% endfor %}</minimax:tool_call>{% endif %}[e~[\n{% endfor %}{% if add_generation_prompt %}]~b]assistant\n<think>\n{% endif %}",
        true,
        true,
    ),
];

/// Marks of the end of a turn, which the tokens that end a generation are.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "</s>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
    "<eos>",
    "<|eot|>",
    "<|end_of_text|>",
    "<|role_end|>",
    "</assistant>",
    "<sep>",
];

fn rendered(template: &str, conversation: &Value, add_assistant: bool) -> layerline::Result<String> {
    let metadata = Metadata { entries: vec![("tokenizer.chat_template".into(), template.into())] };
    let tokenizer: Result<Tokenizer, Error> = Err(Error::unsupported("no tokenizer"));
    Chat::new(&metadata, &tokenizer).format(&Conversation::from_json(&conversation.to_string(), add_assistant)?)
}

fn tools() -> Value {
    let properties = json!({
        "place": {"type": "string", "description": "a place"},
        "days": {"type": "integer", "description": "how many"},
        "metric": {"type": "boolean", "description": "units"},
        "parts": {"type": "array", "items": {"type": "string"}, "description": "which"}
    });
    let parameters = json!({"type": "object", "properties": properties, "required": ["place"]});
    json!([{"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": parameters}}])
}

/// A conversation that ends with a message of the assistant's, and without it.
fn conversations(answer: &Value) -> (Value, Value) {
    let before = vec![json!({"role": "user", "content": "How is the weather?"})];
    let after = [&before[..], std::slice::from_ref(answer)].concat();
    let whole =
        |messages: Vec<Value>| json!({"messages": messages, "tools": tools(), "bos_token": "<s>", "eos_token": "</s>"});
    (whole(before), whole(after))
}

fn answers(reasoning: bool, several: bool) -> Vec<Value> {
    let call = |id: &str, arguments: Value| json!({"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}});
    let first = call(
        "abcdefgh1",
        json!({"place": "S\u{e3}o \"Paulo\" <1>\n{x}", "days": 3, "metric": true, "parts": ["a]", "b}"]}),
    );
    let second = call("abcdefgh2", json!({"place": "12"}));
    let with = |content: &str, thought: Option<&str>, calls: &[Value]| {
        let mut answer = json!({"role": "assistant", "content": content});
        if let Some(thought) = thought {
            answer["reasoning_content"] = thought.into();
        }
        if !calls.is_empty() {
            answer["tool_calls"] = calls.into();
        }
        answer
    };
    let mut all = vec![with("", None, std::slice::from_ref(&first)), with("It rains.\n\nA lot.", None, &[])];
    if several {
        all.push(with("", None, &[first.clone(), second]));
    }
    if reasoning {
        all.push(with("", Some("I need\n\nthe weather."), &[first]));
        all.push(with("Sunny.", Some("Well."), &[]));
    }
    all
}

/// What is compared: arguments as what they say, no ids.
fn essence(message: &Value) -> Value {
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let call = |call: &Value| {
        let arguments = &call["function"]["arguments"];
        json!([call["function"]["name"], arguments])
    };
    let text = |key: &str| message[key].as_str().unwrap_or_default().to_string();
    json!([text("content"), text("reasoning_content"), calls.iter().map(call).collect::<Vec<_>>()])
}

/// The assistant's part of what a template renders, and the prompt before it.
fn answer_text(template: &str, answer: &Value) -> layerline::Result<(String, String)> {
    let (before, after) = conversations(answer);
    let (mut prompt, text) = (rendered(template, &before, true)?, rendered(template, &after, false)?);
    // The prompt may begin reasoning that the message does not have: nothing is cut inside a mark.
    let common = prompt.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let common = (0..=common).rev().find(|&at| prompt.is_char_boundary(at) && text.is_char_boundary(at)).unwrap();
    let mark = text[..common].rfind('<').filter(|&mark| !text[mark..common].contains('>'));
    let common = mark.unwrap_or(common);
    prompt.truncate(common);
    let mut said = text[common..].trim_end().to_string();
    for end in ENDS {
        said.truncate(said.strip_suffix(end).unwrap_or(&said).len());
    }
    Ok((prompt, said))
}

fn parsed(parser: &mut MessageParser, prompt: &str, text: &str, piece: usize) -> Value {
    parser.begin(prompt);
    for piece in text.as_bytes().chunks(piece) {
        parser.feed(piece).unwrap();
    }
    parser.finish().unwrap();
    serde_json::from_str(&parser.message().unwrap()).unwrap()
}

#[test]
fn what_a_template_renders_is_parsed_back() {
    let tools = tools().to_string();
    for &(format, template, reasoning, several) in TEMPLATES {
        let mut parser = MessageParser::for_template(template, &tools).unwrap();
        assert_eq!(parser.format(), format);
        for answer in answers(reasoning, several) {
            let (prompt, text) = answer_text(template, &answer).unwrap();
            for piece in [1, 7, usize::MAX] {
                let back = parsed(&mut parser, &prompt, &text, piece);
                assert_eq!(essence(&back), essence(&answer), "{format} in pieces of {piece}, after {prompt:?}: {text}");
            }
            // The message that was parsed renders as the one that was written.
            let back = parsed(&mut parser, &prompt, &text, 3);
            let again = json!({"role": "assistant", "content": back["content"], "reasoning_content": back["reasoning_content"], "tool_calls": back["tool_calls"]});
            let ids = answer["tool_calls"].as_array().is_some_and(|_| template.contains("c.id"));
            assert!(ids || answer_text(template, &again).unwrap().1 == text, "{format}: {text}");
        }
    }
}

#[test]
fn templates_of_a_folder_are_parsed_back() {
    let Ok(folder) = std::env::var("LAYERLINE_CHAT_TEMPLATES") else { return };
    let mut failures = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "jinja")) {
        let (name, template) = (file.file_name().unwrap().to_string_lossy(), std::fs::read_to_string(file).unwrap());
        let mut parser = MessageParser::for_template(&template, &tools().to_string()).unwrap();
        let (mut good, mut bad, mut refused) = (0, 0, 0);
        for answer in answers(true, true) {
            let Ok((prompt, text)) = answer_text(&template, &answer) else {
                refused += 1;
                continue;
            };
            let back = parsed(&mut parser, &prompt, &text, 5);
            if essence(&back) == essence(&answer) {
                good += 1;
            } else {
                bad += 1;
                failures.push(format!(
                    "{name} ({}): {prompt:?} {text:?}\n  {}\n  {}",
                    parser.format(),
                    essence(&back),
                    essence(&answer)
                ));
            }
        }
        println!("{name}: {}: {good} good, {bad} bad, {refused} refused", parser.format());
    }
    println!("{}", failures.join("\n"));
}

/// Texts of marks, pieces of JSON and words in any order, which no model writes: the message is the same however the text is
/// cut, and the work is linear.
#[test]
fn texts_of_marks_in_any_order_are_the_same_however_they_are_cut() {
    const PIECES: &[&str] = &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "{\"name\": \"f\", ",
        "\"arguments\": ",
        "{\"a\": 1}",
        "}",
        "{",
        "[",
        "]",
        "\"",
        "\\",
        ",",
        ":",
        " ",
        "\n",
        "<",
        "word",
        "é",
        "[TOOL_CALLS]",
        "f",
        "[ARGS]",
        "[CALL_ID]",
        "[THINK]",
        "[/THINK]",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "function",
        "<｜tool▁sep｜>",
        "```json\n",
        "\n```",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<|start|>",
        "assistant",
        "<|channel|>",
        "analysis",
        "final",
        " to=functions.f",
        "<|message|>",
        "<|end|>",
        "<|call|>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<function=",
        ">",
        "<parameter=",
        "</parameter>",
        "</function>",
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "functions.f:0",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
        "<minimax:tool_call>",
        "</minimax:tool_call>",
        "<invoke name=\"",
        "\">",
        "<parameter name=\"",
        "</invoke>",
        "<|python_tag|>",
        "<|eom_id|>",
        "\"parameters\": ",
        "\"id\": \"x\"",
        "\"function\": ",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    for format in
        ["hermes", "qwen3-coder", "llama3", "mistral", "deepseek", "harmony", "glm", "kimi", "minimax", "plain"]
    {
        let mut parser = MessageParser::new(format, "").unwrap();
        for _ in 0..1500 {
            let count = 1 + below(14);
            let text: String = (0..count).map(|_| PIECES[below(PIECES.len())]).collect();
            let whole = |message: Value| json!([message["content"], message["reasoning_content"], essence(&message)]);
            let before = parser.work();
            let wanted = whole(parsed(&mut parser, "", &text, usize::MAX));
            assert!(parser.work() - before <= 80 * text.len() as u64 + 80, "{format}: {text}");
            for piece in [1, 2, 3, 5 + below(9)] {
                let found = whole(parsed(&mut parser, "", &text, piece));
                assert_eq!(found, wanted, "{format} in pieces of {piece}: {text}");
            }
        }
    }
}
