//! No message makes a control token, in any template: random pieces of control tokens in every string of a conversation,
//! over templates of models and over every operation that could join or turn them about, with a vocabulary of each family.
//!
//! LAYERLINE_FORGERIES sets how many conversations are tried, LAYERLINE_CHAT_CASES names a file of further templates
//! (scripts/make_chat_cases.py).

use std::collections::BTreeSet;
use std::io::Read;

use layerline::gguf::{Array, Metadata, Value, read_file};
use layerline::{Chat, Conversation, Error, Tokenizer};
use serde_json::Value as Json;

/// Small numbers that look random.
fn random(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % below
}

/// A vocabulary that has a token for each of these texts, and the first of the control tokens.
fn vocabulary_with(name: &str, controls: &[String], user_defined: &[&str]) -> (Metadata, i32) {
    let path = format!("{}/tests/data/vocab/{name}.gguf.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    let mut metadata = read_file(&bytes, name).unwrap().metadata;
    let find = |metadata: &Metadata, key: &str| metadata.entries.iter().position(|(name, _)| name == key);
    let tokens = find(&metadata, "tokenizer.ggml.tokens").unwrap();
    let Value::Array(Array::String(texts)) = &mut metadata.entries[tokens].1 else { panic!("no tokens") };
    let first = texts.ends.len();
    for text in controls.iter().map(String::as_str).chain(user_defined.iter().copied()) {
        texts.bytes.extend_from_slice(text.as_bytes());
        texts.ends.push(texts.bytes.len() as u32);
    }
    let added = controls.len() + user_defined.len();
    if let Some(at) = find(&metadata, "tokenizer.ggml.scores")
        && let Value::Array(Array::F32(scores)) = &mut metadata.entries[at].1
    {
        scores.extend(vec![0.0; added]);
    }
    let more = controls.iter().map(|_| 3).chain(user_defined.iter().map(|_| 4));
    match find(&metadata, "tokenizer.ggml.token_type") {
        Some(at) => {
            let Value::Array(Array::I32(kinds)) = &mut metadata.entries[at].1 else { panic!("no kinds") };
            kinds.extend(more);
        }
        None => {
            let kinds = std::iter::repeat_n(1, first).chain(more).collect();
            metadata.entries.push(("tokenizer.ggml.token_type".into(), Value::Array(Array::I32(kinds))));
        }
    }
    metadata.entries.retain(|(key, _)| key != "tokenizer.chat_template");
    (metadata, first as i32)
}

/// Texts between angle brackets or square ones that a template writes and does not look for in a message.
fn controls_of(template: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut looked_for = BTreeSet::new();
    for (open, close) in [('<', '>'), ('[', ']'), ('\u{ff5c}', '\u{ff5c}')] {
        for (at, _) in template.match_indices(open) {
            let part: String = template[at..].chars().take(40).collect();
            let Some(end) = part.char_indices().skip(2).find(|&(_, c)| c == close) else { continue };
            let text = &part[..end.0 + close.len_utf8()];
            let inside = &text[open.len_utf8()..text.len() - close.len_utf8()];
            if inside.contains(['<', '[', '\'', '"', '{', '\n', '.', ':']) || inside.chars().all(|c| c.is_ascii_digit())
            {
                continue;
            }
            let before = &template[..at];
            let in_statement = before.rfind("{%") > before.rfind("%}");
            let argument = before.ends_with("('") || before.ends_with("(\"");
            let compared = template[at + text.len()..].get(..5).is_some_and(|after| after[1..].starts_with(" in "));
            if in_statement || argument || compared {
                looked_for.insert(text.to_string());
            } else {
                found.insert(text.to_string());
            }
        }
    }
    found.difference(&looked_for).take(12).cloned().collect()
}

/// Templates that do to a message what could make a control token of it.
fn operations() -> Vec<String> {
    let turn = |operation: &str| {
        format!(
            "{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{{{ {operation} }}}}<|im_end|>\n</s>{{% endfor %}}[INST]"
        )
    };
    [
        "m.content",
        "m.content | lower",
        "m.content | title",
        "m.content | upper | lower",
        "m.content | capitalize",
        "m.content.replace('x', '')",
        "m.content | replace(' ', '')",
        "m.content.replace('>', '|>')",
        "m.content.split('x') | join",
        "m.content.split() | join('')",
        "m.content.split(' ') | reverse | join",
        "m.content[1:]",
        "m.content[::-1]",
        "m.content[::2]",
        "m.content[:3] ~ m.content[3:]",
        "m.content | reverse",
        "m.content | list | join",
        "m.content | list | unique | join",
        "m.content | list | sort | join",
        "m.content ~ m.name",
        "m.content + m.name",
        "[m.content, m.name] | join",
        "[m.content, m.name] | join('|')",
        "m.name.join(['<', '>'])",
        "m.content.split(' ') | join('|')",
        "m.content | trim",
        "m.content.lower()",
        "m.content.title()",
        "'<' + m.content + '>'",
        "'<|' ~ m.content ~ '|>'",
        "'[' ~ m.content ~ ']'",
        "m.content | tojson",
        "m.content.strip('x')",
        "m.content.lstrip('<|').rstrip('|>')",
        "'%s%s' % (m.content, m.name)",
        "'<|%s|>' % m.content",
        "'{}{}'.format(m.content, m.name)",
        "'<|{}|>'.format(m.content)",
        "m.content | indent(1)",
        "m.content * 2",
        "m.content | format(m.name)",
        "m",
        "m.content.split('|') | map('trim') | join('|')",
        "(m.content ~ '<|im_end|>')[:-1]",
        "('<|im_end|>' ~ m.content) | reverse | reverse",
        "'<|im_end|>'.replace('im_end', m.content)",
        "('<|im_end|>' ~ m.content).replace('im_end', 'x')",
        "'<|im_' ~ m.content",
        "m.content ~ '_end|>'",
    ]
    .into_iter()
    .map(turn)
    .collect()
}

fn templates() -> Vec<String> {
    let mut templates = operations();
    for file in std::fs::read_dir(format!("{}/tests/data/chat", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        templates.push(std::fs::read_to_string(file.unwrap().path()).unwrap());
    }
    if let Ok(path) = std::env::var("LAYERLINE_CHAT_CASES") {
        let all: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        templates.extend(
            all["templates"].as_array().unwrap().iter().filter_map(|t| t["template"].as_str()).map(String::from),
        );
    }
    templates
}

/// As many control tokens come out of a conversation with pieces of them as of the same with harmless words.
#[test]
fn no_message_forges_a_control_token_in_any_template() {
    let plain = ["\u{2042}", "<|a b|>", "<|im_start|>", "<|im_end|>", "</s>", "[INST]", "<end_of_turn>"];
    let fixed = [
        "<end_of",
        "_turn>",
        "<|",
        "|>",
        "\u{2581}",
        "x",
        " ",
        "|",
        ">",
        "<",
        "[",
        "]",
        "<|a\u{2581}b|>",
        "_",
        "\u{ff5c}",
    ];
    let templates = templates();
    assert!(templates.len() >= 20);
    let tries: usize = std::env::var("LAYERLINE_FORGERIES").map_or(4_000, |tries| tries.parse().unwrap());
    let bases = ["gpt-2", "llama-spm"];
    let each = tries.div_ceil(templates.len() * bases.len());
    let (mut seed, mut tried, mut passed_over) = (7, 0, 0);
    for (number, template) in templates.iter().enumerate() {
        let mut controls: BTreeSet<String> = controls_of(template).into_iter().collect();
        controls.extend(plain.iter().filter(|text| !template.contains(**text)).map(ToString::to_string));
        if number < operations().len() {
            controls.extend(plain.map(String::from));
        }
        let controls: Vec<String> = controls.into_iter().collect();
        let mut pieces: Vec<String> = fixed.iter().map(ToString::to_string).collect();
        for control in &controls {
            let middle = control.char_indices().nth(control.chars().count() / 2).map_or(0, |(at, _)| at);
            pieces.extend([&control[..middle], &control[middle..], control, control].map(String::from));
            pieces.push(control.chars().rev().collect());
            pieces.push(control.to_uppercase());
            pieces.push(control.replace(' ', "\u{2581}"));
        }
        for base in bases {
            let (mut metadata, first) = vocabulary_with(base, &controls, &["d|><", "<|im", "f_turn", ">\n"]);
            let tokenizer: Result<Tokenizer, Error> = Tokenizer::from_metadata(&mut metadata).map(Option::unwrap);
            assert!(tokenizer.is_ok(), "{:?}", tokenizer.as_ref().err());
            metadata.entries.push(("tokenizer.chat_template".into(), template.as_str().into()));
            let chat = Chat::new(&metadata, &tokenizer);
            let control = |token: &i32| (first..first + controls.len() as i32).contains(token);
            let tokens = |content: &str, name: &str| {
                let json = serde_json::json!({"messages": [{"role": "user", "content": content, "name": name}]});
                let tokens = chat.tokenize(&Conversation::from_json(&json.to_string(), true).unwrap());
                tokens.map(|tokens| tokens.into_iter().filter(control).collect::<Vec<i32>>())
            };
            let Ok(honest) = tokens("good", "day") else {
                passed_over += 1;
                continue;
            };
            for _ in 0..each {
                let mut text = || -> String {
                    (0..1 + random(&mut seed, 6)).map(|_| &*pieces[random(&mut seed, pieces.len())]).collect()
                };
                let (content, name) = (text(), text());
                let Ok(forged) = tokens(&content, &name) else { continue };
                assert_eq!(forged, honest, "{base}, {controls:?}: {content:?} {name:?} in {template}");
                tried += 1;
            }
        }
    }
    println!("{tried} conversations over {} templates, {passed_over} of which take no such message", templates.len());
    assert!(tried > tries / 2, "{tried} of {tries}");
}
