//! How much work texts are that invite more of it than their length tells.

use std::io::Read;

use super::Tokenizer;
use super::work::steps;
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
fn tokenizers() -> Vec<(String, Tokenizer)> {
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
                assert!(many < 9 * few + 1_000, "{name} on {part:?}…{end:?}: {few} steps, for 8 times the text {many}");
                // What holds for ten megabytes, then.
                assert!(many < 200 * (64 << 10), "{name} on {part:?}…{end:?}: {many} steps for 64 KiB");
            }
        }
    }
}
