//! How much work texts are that invite more of it than their length tells.

use std::io::Read;

use super::Tokenizer;
use super::work::{steps, with_small_limits};
use crate::gguf::{Array, Metadata, Strings, Value, read_file};

fn vocabulary(name: &str) -> Metadata {
    let path = format!("{}/tests/data/vocab/{name}.gguf.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    read_file(&bytes, name).unwrap().metadata
}

/// A vocabulary whose tokens invite trouble: powers of two of one letter, of spaces and of newlines, as merges and as
/// tokens that are looked for in the text.
fn doubling(model: &str, kind: i32) -> Metadata {
    let (mut texts, mut merges) = (Strings::default(), Strings::default());
    let (mut kinds, mut scores) = (vec![], vec![]);
    let mut token = |text: &str, kind, score| {
        texts.bytes.extend_from_slice(text.as_bytes());
        texts.ends.push(texts.bytes.len() as u32);
        kinds.push(kind);
        scores.push(score);
    };
    token("<unk>", 2, 0.0);
    for part in ["a", "\u{2581}", "\n"] {
        for power in 0..7 {
            let text = part.repeat(1 << power);
            token(&text, if power > 2 { kind } else { 1 }, -(power as f32));
            if power > 0 {
                let half = part.repeat(1 << (power - 1));
                merges.bytes.extend_from_slice(format!("{half} {half}").as_bytes());
                merges.ends.push(merges.bytes.len() as u32);
            }
        }
    }
    let entries = [
        ("model", Value::String(model.as_bytes().into())),
        ("tokens", Value::Array(Array::String(texts))),
        ("token_type", Value::Array(Array::I32(kinds))),
        ("scores", Value::Array(Array::F32(scores))),
        ("merges", Value::Array(Array::String(merges))),
        ("unknown_token_id", Value::U32(0)),
    ];
    Metadata { entries: entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect() }
}

/// A tokeniser of each family, and of `gpt2` one for each way of cutting that has code of its own.
pub(super) fn tokenizers() -> Vec<(String, Tokenizer)> {
    let mut all = Vec::new();
    let mut add = |name: String, mut metadata| {
        all.push((name, Tokenizer::from_metadata(&mut metadata).unwrap().unwrap()));
    };
    for name in
        ["llama-spm", "phi-3", "gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "smollm2", "bert-bge", "xlm-r-small"]
    {
        add(name.into(), vocabulary(name));
    }
    for pre in ["afmoe", "tiny_aya", "superbpe", "falcon", "jais-2", "kimi-k2"] {
        let mut metadata = vocabulary("gpt-2");
        let at = metadata.entries.iter().position(|(key, _)| key == "tokenizer.ggml.pre").unwrap();
        metadata.entries[at].1 = Value::String(pre.as_bytes().into());
        add(pre.into(), metadata);
    }
    for model in ["llama", "t5", "gemma4"] {
        for kind in [1, 4] {
            add(format!("{model} of doubling tokens of kind {kind}"), doubling(model, kind));
        }
    }
    all
}

#[test]
fn work_grows_as_the_text_does() {
    let parts = [
        "a",
        " ",
        "🦊",
        "\n",
        "7",
        "a\u{301}",
        "\u{301}",
        "\u{2581}",
        " a",
        "漢",
        "'",
        "<",
        "👩\u{200d}",
        "\r\n",
        "\0",
    ];
    for (name, tokenizer) in tokenizers() {
        for part in parts {
            for end in ["", "b"] {
                let work = |bytes: usize| {
                    let text = part.repeat(bytes / part.len()) + end;
                    steps(|| drop(tokenizer.encode(&text, true, false)))
                };
                let (few, many) = (work(8 << 10), work(64 << 10));
                // The ways through a long word are found twice, to save memory.
                assert!(
                    many < 17 * few + 1_000,
                    "{name} on {part:?}…{end:?}: {few} steps, for 8 times the text {many}"
                );
                // What holds for ten megabytes, then.
                assert!(many < 400 * (64 << 10), "{name} on {part:?}…{end:?}: {many} steps for 64 KiB");
            }
        }
    }
}

/// Words of any length come to the same tokens in the way in which long ones are worked on.
#[test]
fn long_words_have_the_tokens_of_short_ones() {
    let parts = [
        "a", "in", "the", " ", "  ", "\u{2581}", "1", "23", "漢字", "é", "🦊", "'s", "<", "\n", "aaaa", "er", "ﬁ",
        "\u{1}",
    ];
    let mut state = 3u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (name, tokenizer) in tokenizers() {
        for _ in 0..40 {
            let (length, few) = (random(300), 1 + random(parts.len()));
            let first = random(parts.len());
            let text: String = (0..length).map(|_| parts[(first + random(few)) % parts.len()]).collect();
            let long = with_small_limits(|| tokenizer.encode(&text, true, true));
            assert_eq!(long, tokenizer.encode(&text, true, true), "{name} on {text:?}");
        }
    }
}
