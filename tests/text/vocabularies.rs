//! What real vocabularies make of texts.

use std::path::PathBuf;

use layerline::Status;
use layerline::gguf::Value;
use layerline::text::{Tokenizer, Utf8Stream};
use unicode_normalization::UnicodeNormalization;

use crate::{Random, data, load, metadata, refused, spm, text_value, tokenizer};

/// Those that have a token for every byte.
const BYTE_LEVEL: [&str; 3] = ["gpt-2", "llama-bpe", "qwen2"];

/// Texts, and what the reference makes of each.
fn references(name: &str, texts: &str) -> Vec<(String, Vec<i32>)> {
    let texts = std::fs::read_to_string(data(texts)).unwrap();
    let ids = std::fs::read_to_string(data(&format!("{name}.ids"))).unwrap();
    let texts: Vec<String> = texts
        .strip_suffix("\n__ggml_vocab_test__\n")
        .unwrap()
        .split("\n__ggml_vocab_test__\n")
        .map(str::to_string)
        .collect();
    let ids: Vec<Vec<i32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    assert_eq!(texts.len(), ids.len());
    texts.into_iter().zip(ids).collect()
}

fn check_ids(name: &str) {
    let tokenizer = tokenizer(name);
    for (text, ids) in references(name, "texts.txt") {
        assert_eq!(tokenizer.encode(&text, false, false), ids, "{name}: {text:?}");
    }
}

fn check_reference(name: &str, texts: &str) {
    let tokenizer = tokenizer(name);
    for (text, ids) in references(name, texts) {
        assert_eq!(tokenizer.encode(&text, false, false), ids, "{name}: {text:?}");
        assert_eq!(String::from_utf8(tokenizer.decode(&ids, false).unwrap()).unwrap(), text, "{name}");
    }
}

#[test]
fn llama_spm_ids_are_the_references() {
    check_reference("llama-spm", "texts.txt");
}

#[test]
fn llama_bpe_ids_are_the_references() {
    check_reference("llama-bpe", "texts.txt");
}

#[test]
fn qwen2_ids_are_the_references() {
    check_reference("qwen2", "texts.txt");
}

#[test]
fn gpt2_ids_are_the_references() {
    check_reference("gpt-2", "texts.txt");
}

#[test]
fn phi3_ids_are_the_references() {
    check_reference("phi-3", "texts.txt");
}

#[test]
fn deepseek_llm_ids_are_the_references() {
    check_reference("deepseek-llm", "texts.txt");
}

#[test]
fn bert_ids_are_the_references() {
    check_ids("bert-bge");
}

#[test]
fn unigram_ids_are_the_references() {
    check_ids("xlm-r-small");
}

#[test]
fn words_are_those_the_expressions_define() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/words.json"].iter().collect();
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut checked = 0;
    for (names, expressions) in layerline::text::pretokenizers() {
        let lengths = &vectors[names[0]];
        assert_eq!(lengths.is_null(), expressions.is_empty(), "{names:?}: scripts/compare_tokenizers.py makes vectors");
        for (text, lengths) in vectors["texts"].as_array().unwrap().iter().zip(lengths.as_array().into_iter().flatten())
        {
            let text = text.as_str().unwrap();
            let words = layerline::text::pretokenize(names[0], text).unwrap();
            let lengths: Vec<u64> = lengths.as_array().unwrap().iter().map(|length| length.as_u64().unwrap()).collect();
            let ours: Vec<u64> = words.iter().map(|word| word.len() as u64).collect();
            assert_eq!(ours, lengths, "{}: {text:?}", names[0]);
            checked += 1;
        }
    }
    assert!(checked > 300);
}

#[test]
fn smollm_ids_are_the_references() {
    check_reference("smollm2", "smollm2.txt");
}

#[test]
fn byte_level_text_comes_back_as_it_was() {
    let mut random = Random(7);
    for name in BYTE_LEVEL {
        let tokenizer = tokenizer(name);
        for _ in 0..50 {
            let text = random.text(400);
            // Qwen's tokeniser is defined with a normalisation.
            let text: String = if name == "qwen2" { text.nfc().collect() } else { text };
            for special in [false, true] {
                let ids = tokenizer.encode(&text, special, false);
                assert_eq!(String::from_utf8(tokenizer.decode(&ids, true).unwrap()).unwrap(), text, "{name}");
            }
        }
    }
}

#[test]
fn spm_text_comes_back_as_it_was_but_for_the_space_mark() {
    let mut random = Random(8);
    let tokenizer = tokenizer("llama-spm");
    for _ in 0..50 {
        let text = random.text(400).replace('\u{2581}', " ");
        let ids = tokenizer.encode(&text, false, true);
        assert_eq!(String::from_utf8(tokenizer.decode(&ids, false).unwrap()).unwrap(), text);
    }
}

#[test]
fn long_runs_take_no_more_than_a_moment() {
    let texts =
        ["a", " ", "🦊", "\n", "\u{2581}", " a", "'", "漢", "\u{301}"].map(|part| part.repeat(1_000_000 / part.len()));
    for name in ["llama-spm", "gpt-2", "llama-bpe", "qwen2", "smollm2"] {
        let tokenizer = tokenizer(name);
        for text in &texts {
            let ids = tokenizer.encode(text, true, false);
            let decoded = String::from_utf8(tokenizer.decode(&ids, false).unwrap()).unwrap();
            let expected = if name == "llama-spm" { &text.replace('\u{2581}', " ") } else { text };
            assert!(decoded == *expected, "{name}: {:?}…", &text[..4]);
        }
    }
    for name in ["bert-bge", "xlm-r-small"] {
        let tokenizer = tokenizer(name);
        for text in &texts {
            tokenizer.encode(text, true, false);
        }
    }
}

#[test]
fn control_tokens_are_recognised_only_when_asked_for() {
    let tokenizer = tokenizer("smollm2");
    let text = "<|im_start|>user\nHi<|im_end|>";
    let special = tokenizer.encode(text, true, false);
    assert_eq!(special[0], 1);
    assert_eq!(*special.last().unwrap(), 2);
    let plain = tokenizer.encode(text, false, false);
    assert!(plain.iter().all(|&id| id > 16), "no control token: {plain:?}");
    assert_eq!(tokenizer.decode(&plain, false).unwrap(), text.as_bytes());
    assert_eq!(tokenizer.decode(&special, false).unwrap(), b"user\nHi");
    assert_eq!(tokenizer.decode(&special, true).unwrap(), text.as_bytes());
}

#[test]
fn the_beginning_token_comes_where_the_model_wants_one() {
    let first = |name: &str| tokenizer(name).encode("x", false, true)[0];
    assert_eq!(first("llama-spm"), 1);
    assert_eq!(first("llama-bpe"), 128_000);
    let smollm = tokenizer("smollm2");
    assert_eq!(smollm.encode("x", false, true), smollm.encode("x", false, false));
    assert!(!smollm.adds_bos());
    assert_eq!(tokenizer("llama-spm").encode("", false, true), [1]);
    assert!(tokenizer("llama-spm").encode("", false, false).is_empty());
}

#[test]
fn ends_are_those_of_the_file_and_the_well_known_ones() {
    let smollm = tokenizer("smollm2");
    let ends: Vec<i32> = (0..smollm.vocab_size() as i32).filter(|&id| smollm.is_end(id).unwrap()).collect();
    assert_eq!(ends, [0, 2, 4], "<|endoftext|>, <|im_end|>, and <reponame>, which begins another repository");
    assert_eq!((smollm.bos(), smollm.eos()), (Some(1), Some(2)));
    let llama = tokenizer("llama-bpe");
    let ends: Vec<i32> = (0..llama.vocab_size() as i32).filter(|&id| llama.is_end(id).unwrap()).collect();
    assert_eq!(ends, [128_001, 128_009], "<|end_of_text|> and <|eot_id|>");
}

#[test]
fn the_closing_token_is_there_where_the_model_wants_one() {
    let closing = |name: &str| tokenizer(name).closing();
    assert_eq!(closing("bert-bge"), Some(102));
    assert_eq!(closing("xlm-r-small"), Some(2));
    assert_eq!(closing("llama-spm"), None);
    assert_eq!(closing("smollm2"), None);
    assert_eq!(tokenizer("bert-bge").encode("x", false, true)[0], 101);
    let mut entries = spm(&[b"<unk>", b"<s>", b"</s>"], vec![0.0; 3], vec![2, 3, 3]);
    entries.push(("add_eos_token", Value::Bool(true)));
    assert_eq!(load(entries).unwrap().unwrap().closing(), Some(2));
}

#[test]
fn what_bert_normalises_is_found() {
    let tokenizer = tokenizer("bert-bge");
    let ids = |text: &str| tokenizer.encode(text, false, false);
    assert_eq!(ids("Résumé, naïve"), ids("resume , naive"));
    assert_eq!(ids("a\u{200b}b\u{0}c"), ids("abc"), "control characters are left out");
    assert_eq!(ids("漢字"), ids("漢 字"));
    assert_eq!(ids(&"a".repeat(101)), [100]);
    assert_eq!(ids("a\u{2581}the"), [100], "a token that begins a word does not go on with one");
    assert_eq!(tokenizer.decode(&ids("unaffable words"), false).unwrap(), b"unaffable words");
}

#[test]
fn what_unigram_normalises_is_found() {
    let tokenizer = tokenizer("xlm-r-small");
    let ids = |text: &str| tokenizer.encode(text, false, false);
    assert_eq!(ids("  ｆｕｌｌ\u{3000}\twidth  "), ids("full width"));
    assert_eq!(ids("ﬁne ½"), ids("fine 1⁄2"));
    assert!(ids(" \n ").is_empty());
    assert_eq!(ids("🦊🦊 🦊").iter().filter(|&&id| id == 3).count(), 2, "unknown characters in a row are one token");
    assert_eq!(tokenizer.decode(&ids("some words"), false).unwrap(), b"some words");
}

#[test]
fn ids_outside_the_vocabulary_are_invalid_arguments() {
    let tokenizer = tokenizer("smollm2");
    for id in [-1, 49_152, i32::MIN, i32::MAX] {
        assert_eq!(tokenizer.piece(id, false, &mut Vec::new()).unwrap_err().status(), Status::InvalidArgument);
        assert_eq!(tokenizer.decode(&[5, id], false).unwrap_err().status(), Status::InvalidArgument);
        assert_eq!(tokenizer.is_end(id).unwrap_err().status(), Status::InvalidArgument);
    }
}

#[test]
fn only_a_whole_sequence_loses_the_space_put_before_it() {
    let tokenizer = tokenizer("llama-spm");
    let ids = tokenizer.encode("Hello world", false, true);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), b"Hello world");
    let mut pieces = Vec::new();
    ids.iter().for_each(|&id| tokenizer.piece(id, false, &mut pieces).unwrap());
    assert_eq!(pieces, b" Hello world");
    let ids = tokenizer.encode("  two", false, false);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), b"  two");
}

#[test]
fn what_a_token_adds_behind_another_is_its_piece() {
    for name in ["llama-spm", "phi-3", "smollm2", "bert-bge", "xlm-r-small"] {
        let tokenizer = tokenizer(name);
        let ids = tokenizer.encode("a fox  and 🦊 two", false, true);
        let whole = tokenizer.decode(&ids, false).unwrap();
        let anchor = *ids.iter().find(|&&id| !tokenizer.decode(&[id], false).unwrap().is_empty()).unwrap();
        let alone = tokenizer.decode(&[anchor], false).unwrap();
        let mut streamed = alone.clone();
        for &id in ids.iter().skip_while(|&&id| id != anchor).skip(1) {
            streamed.extend_from_slice(&tokenizer.decode(&[anchor, id], false).unwrap()[alone.len()..]);
        }
        assert_eq!(streamed, whole, "{name}");
    }
}

#[test]
fn streamed_pieces_are_whole_characters() {
    let tokenizer = tokenizer("smollm2");
    let text = "fox 🦊 年 é";
    let mut stream = Utf8Stream::new();
    let mut out = String::new();
    for id in tokenizer.encode(text, false, false) {
        let mut piece = Vec::new();
        tokenizer.piece(id, false, &mut piece).unwrap();
        stream.push(&piece, &mut out);
        assert!(!out.contains('\u{fffd}'));
    }
    stream.finish(&mut out);
    assert_eq!(out, text);
}

#[test]
fn a_vocabulary_stays_in_the_order_of_its_file() {
    for name in ["llama-spm", "gpt-2", "llama-bpe", "qwen2", "smollm2"] {
        let mut metadata = metadata(name);
        let before = metadata.memory_bytes();
        let tokenizer = Tokenizer::from_metadata(&mut metadata).unwrap().unwrap();
        let bytes = tokenizer.memory_bytes();
        // Beside the texts, the table that finds them takes up to 12 bytes a token.
        assert!(bytes < before + before / 2, "{name}: {bytes} of {before}");
        assert!(metadata.memory_bytes() < 100_000, "{name}: the arrays have moved");
    }
}

#[test]
fn the_readme_names_what_is_built_in() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "README.md"].iter().collect();
    let readme = std::fs::read_to_string(path).unwrap();
    let named = |row: &str| {
        let row = readme.lines().find_map(|line| line.strip_prefix(&format!("| {row} | "))).unwrap();
        row.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(named("tokenisers"), layerline::text::MODELS);
    let mut names: Vec<&str> = layerline::text::pretokenizers().flat_map(|(names, _)| names).copied().collect();
    names.sort_unstable();
    assert_eq!(named("pre-tokenisers"), names);
    for model in layerline::text::MODELS {
        refused(vec![("model", text_value(model))], Status::Format, "tokens is missing");
    }
}
