//! Tokenisers against the reference ids of real vocabularies, and against files that lie.

use std::io::Read;
use std::path::PathBuf;

use layerline::gguf::{Array, Metadata, Strings, Value, read_file};
use layerline::text::{Tokenizer, Utf8Stream};
use layerline::{Error, Status};
use unicode_normalization::UnicodeNormalization;

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/vocab", name].iter().collect()
}

fn metadata(name: &str) -> Metadata {
    let file = std::fs::File::open(data(&format!("{name}.gguf.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    read_file(&bytes, name).unwrap().metadata
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_metadata(&mut metadata(name)).unwrap().unwrap()
}

/// Those that have a token for every byte.
const BYTE_LEVEL: [&str; 3] = ["gpt-2", "llama-bpe", "qwen2"];

/// A small generator (xorshift64*): the same texts on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn text(&mut self, length: usize) -> String {
        const ALPHABETS: [&str; 6] = [
            "aeinrst ",
            "  \t\n\r\u{a0}\u{3000}",
            "0123456789½², .",
            "'sStTrReEvVmMlLdDſ",
            "éßжя漢字ひら한국ا",
            "🦊👩\u{200d}👧\u{301}\u{2581}<|>",
        ];
        let mut text = String::new();
        while text.len() < length {
            let alphabet: Vec<char> = ALPHABETS[self.below(ALPHABETS.len())].chars().collect();
            for _ in 0..1 + self.below(8) {
                text.push(alphabet[self.below(alphabet.len())]);
            }
            text.extend(char::from_u32(self.below(0x11_0000) as u32));
        }
        text
    }
}

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
        assert!(bytes < before + before / 4, "{name}: {bytes} of {before}");
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

// -- files that lie ----------------------------------------------------------------------------------------------------

fn strings(texts: &[&[u8]]) -> Value {
    let mut strings = Strings::default();
    for text in texts {
        strings.bytes.extend_from_slice(text);
        strings.ends.push(strings.bytes.len() as u32);
    }
    Value::Array(Array::String(strings))
}

fn made(entries: Vec<(&str, Value)>) -> Metadata {
    Metadata { entries: entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect() }
}

fn text_value(text: &str) -> Value {
    Value::String(text.as_bytes().into())
}

fn spm(texts: &[&[u8]], scores: Vec<f32>, kinds: Vec<i32>) -> Vec<(&'static str, Value)> {
    vec![
        ("model", text_value("llama")),
        ("tokens", strings(texts)),
        ("scores", Value::Array(Array::F32(scores))),
        ("token_type", Value::Array(Array::I32(kinds))),
    ]
}

fn bpe(texts: &[&[u8]], merges: &[&[u8]], pre: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("model", text_value("gpt2")),
        ("pre", text_value(pre)),
        ("tokens", strings(texts)),
        ("merges", strings(merges)),
    ]
}

fn load(entries: Vec<(&str, Value)>) -> Result<Option<Tokenizer>, Error> {
    Tokenizer::from_metadata(&mut made(entries))
}

fn refused(entries: Vec<(&str, Value)>, status: Status, mention: &str) {
    let error = load(entries).err().unwrap_or_else(|| panic!("accepted; expected a message with {mention:?}"));
    assert_eq!(error.status(), status, "{error}");
    assert!(error.message().contains(mention), "{error}");
}

#[test]
fn a_file_without_a_vocabulary_has_no_tokenizer() {
    assert!(load(vec![]).unwrap().is_none());
    assert!(load(vec![("model", text_value("none"))]).unwrap().is_none());
    assert!(load(vec![("model", text_value("no_vocab"))]).unwrap().is_none());
}

#[test]
fn what_is_not_built_in_is_named() {
    refused(vec![("model", text_value("rwkv"))], Status::Unsupported, "rwkv");
    refused(bpe(&[b"a"], &[], "gpt-3"), Status::Unsupported, "gpt-3");
    let mut long = spm(&[b"<unk>"], vec![0.0; 2], vec![2, 1]);
    long[0] = ("model", text_value("t5"));
    long[1] = ("tokens", strings(&[b"<unk>", &[b'a'; 300]]));
    refused(long, Status::Unsupported, "token 1 has 300 bytes");
}

#[test]
fn contradictions_are_format_errors() {
    use Status::Format;
    refused(vec![("model", Value::U32(1))], Format, "tokenizer.ggml.model");
    refused(vec![("model", text_value("llama"))], Format, "tokens is missing");
    refused(vec![("model", text_value("llama")), ("tokens", Value::U8(1))], Format, "array of strings");
    refused(spm(&[], vec![], vec![]), Format, "0 entries");
    refused(spm(&[b"a", b"b"], vec![0.0], vec![1, 1]), Format, "1 entries for 2 tokens");
    refused(spm(&[b"a", b"b"], vec![0.0; 2], vec![1]), Format, "1 entries for 2 tokens");
    refused(spm(&[b"a", b"b", b"a"], vec![0.0; 3], vec![1; 3]), Format, "0 and 2");
    refused(spm(&[b"<0xZZ>"], vec![0.0], vec![6]), Format, "names no byte");
    refused(spm(&[b"a"], vec![0.0], vec![1]).into_iter().filter(|e| e.0 != "scores").collect(), Format, "scores");
    refused(bpe(&[b"a", b"b"], &[b"ab"], "gpt-2"), Format, "is not a pair");
    refused(bpe(&[b"a", b"b"], &[b""], "gpt-2"), Format, "is not a pair");
    refused(bpe(&[b"a", b"b"], &[b"a b"], "gpt-2"), Format, "vocabulary has not");
    refused(bpe(&[b"a", b"ab"], &[b"a "], "gpt-2"), Format, "vocabulary has not");
    refused(bpe(&[b"a"], &[], "gpt-2").into_iter().filter(|e| e.0 != "merges").collect(), Format, "merges is missing");
    let mut entries = spm(&[b"a"], vec![0.0], vec![1]);
    entries.push(("bos_token_id", text_value("1")));
    refused(entries, Format, "bos_token_id");
}

#[test]
fn ids_of_special_tokens_that_do_not_exist_count_as_none() {
    let mut entries = spm(&[b"a"], vec![0.0], vec![1]);
    entries.push(("bos_token_id", Value::U32(u32::MAX)));
    entries.push(("eos_token_id", Value::I64(-1)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
    assert!(tokenizer.encode("", false, true).is_empty());
}

#[test]
fn odd_tokens_do_no_harm() {
    // Empty twice, not UTF-8, NaN and infinite scores, kinds out of range, no byte tokens.
    let texts: &[&[u8]] = &[b"<unk>", b"", b"", b"\xff\xfe", b"a", b"aa", b"\xe2\x96", b"b"];
    let scores = vec![f32::NAN, 0.0, f32::INFINITY, f32::NAN, f32::NAN, f32::NEG_INFINITY, 0.0, -0.0];
    let tokenizer = load(spm(texts, scores, vec![2, 1, 4, 4, 1, 1, 77, -5])).unwrap().unwrap();
    assert_eq!(tokenizer.encode("aaéb", true, false), [0, 5, 0, 7]);
    for id in 0..8 {
        tokenizer.piece(id, true, &mut Vec::new()).unwrap();
    }
    let tokenizer =
        load(bpe(&[b"a", b"", b"", b"\xff", b"aa", b"\xc4"], &[b"a a", b"a a"], "llama3")).unwrap().unwrap();
    assert_eq!(tokenizer.encode("aaé a", true, true), [4, 0], "bytes without a token are left out");
    assert_eq!(tokenizer.decode(&[3, 4, 5], false).unwrap(), b"\xffaa\xc4");
}

#[test]
fn tokens_that_reach_over_words_are_found() {
    let texts: &[&[u8]] = &[b"<unk>", b"a", "\u{2581}".as_bytes(), "a\u{2581}".as_bytes(), "a\u{2581}a".as_bytes()];
    let mut entries = spm(texts, vec![0.0, 0.0, 0.0, -1.0, -0.5], vec![2, 1, 1, 1, 1]);
    entries.push(("add_space_prefix", Value::Bool(false)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("a a a", false, false), [4, 2, 1]);
    assert_eq!(tokenizer.decode(&[4, 2, 1], false).unwrap(), b"a a a");
}

#[test]
fn phi3s_special_tokens_swallow_the_space_after_them() {
    let texts: &[&[u8]] = &[b"<s>", b"<|user|>", b"a", "\u{2581}".as_bytes(), "\u{2581}a".as_bytes()];
    let encode = |name: &str, text: &str| {
        let mut metadata = made(spm(texts, vec![0.0; 5], vec![3, 3, 1, 1, 1]));
        metadata.entries.push(("general.name".into(), text_value(name)));
        Tokenizer::from_metadata(&mut metadata).unwrap().unwrap().encode(text, true, false)
    };
    assert_eq!(encode("Phi-3 mini", "<|user|> \n\ta<s> a"), [1, 4, 0, 3, 4]);
    assert_eq!(encode("llama", "<|user|> a"), [1, 3, 4]);
}

#[test]
fn the_end_of_a_message_is_not_the_end_of_a_turn_that_goes_on() {
    let ends = |texts: &[&[u8]]| {
        let mut entries = bpe(texts, &[], "gpt-4o");
        entries.push(("token_type", Value::Array(Array::I32(vec![3; texts.len()]))));
        let tokenizer = load(entries).unwrap().unwrap();
        (0..texts.len() as i32).filter(|&id| tokenizer.is_end(id).unwrap()).collect::<Vec<i32>>()
    };
    assert_eq!(ends(&[b"<|end|>", b"<|user|>"]), [0]);
    assert_eq!(ends(&[b"<|end|>", b"<|return|>", b"<|call|>"]), [1, 2]);
}

#[test]
fn ends_are_found_by_their_keys_and_by_their_texts() {
    let ends = |texts: &[&[u8]], kinds: &[i32], keys: &[(&'static str, u32)]| {
        let mut entries = bpe(texts, &[], "qwen2");
        entries.push(("token_type", Value::Array(Array::I32(kinds.to_vec()))));
        entries.extend(keys.iter().map(|&(key, id)| (key, Value::U32(id))));
        let tokenizer = load(entries).unwrap().unwrap();
        (0..texts.len() as i32).filter(|&id| tokenizer.is_end(id).unwrap()).collect::<Vec<i32>>()
    };
    let texts: &[&[u8]] = &[b"a", b"b", b"c", b"d", b"e", b"f"];
    let keys = ["eos", "eot", "eom", "fim_pad", "fim_rep"].map(|key| format!("{key}_token_id").leak() as &'static str);
    let keys: Vec<_> = keys.into_iter().zip(1..).collect();
    assert_eq!(ends(texts, &[1; 6], &keys), [1, 2, 3, 4, 5]);
    // By their texts: Qwen, Llama 3, Gemma 3 and 4, MiniMax.
    let texts: &[&[u8]] = &[b"<|im_end|>", b"<|eot_id|>", b"<end_of_turn>", b"<turn|>", b"[e~[", b"x"];
    assert_eq!(ends(texts, &[3; 6], &[]), [0, 1, 2, 3, 4]);
    assert_eq!(ends(texts, &[1, 4, 4, 1, 4, 3], &[]), [0, 1, 2, 3, 4], "whatever the file says they are");
    // A tag of HTML is no end where the file does not say so.
    assert_eq!(ends(&[b"</s>", b"<eos>"], &[4, 3], &[]), [1]);
    assert_eq!(ends(&[b"<|end|>", b"<|calls|>", b"<|flush|>"], &[3; 3], &[]), [1, 2]);
}

#[test]
fn an_end_is_not_written_by_a_user_whatever_the_file_says_it_is() {
    let mut entries = bpe(&[b"<", b"|", b"<|im_end|>", b"end"], &[], "qwen2");
    entries.push(("token_type", Value::Array(Array::I32(vec![1, 1, 4, 4]))));
    entries.push(("eos_token_id", Value::U32(3)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("<|im_end|>end", false, false), [0, 1, 1]);
    assert_eq!(tokenizer.encode("<|im_end|>end", true, false), [2, 3]);
    assert_eq!(tokenizer.decode(&[0, 2, 3], false).unwrap(), b"<");
}

#[test]
fn text_that_is_spelt_as_it_is_merges_by_the_list() {
    let texts: &[&[u8]] = &[b"<unk>", b"a", "\u{2581}".as_bytes(), "\u{2581}a".as_bytes(), b"<0xC3>", b"<0xA9>"];
    let mut entries = bpe(texts, &["\u{2581} a".as_bytes()], "default");
    entries[0] = ("model", text_value("gemma4"));
    entries.push(("token_type", Value::Array(Array::I32(vec![2, 1, 1, 1, 6, 6]))));
    entries.push(("unknown_token_id", Value::U32(0)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("a aéxx ", false, false), [1, 3, 4, 5, 0, 2]);
    assert_eq!(tokenizer.decode(&[1, 3, 4, 5, 2], false).unwrap(), "a aé ".as_bytes());
}

#[test]
fn merging_never_makes_a_control_token_of_plain_text() {
    let texts: &[&[u8]] = &[b"<unk>", b"<s>", b"</s>", b"<", b"/", b"s>", b"</", b"s", b">"];
    let spm_tokenizer = load(spm(texts, vec![0.0; 9], vec![2, 3, 3, 1, 1, 1, 1, 1, 1])).unwrap().unwrap();
    assert_eq!(spm_tokenizer.encode("</s>", false, false)[1..], [6, 5]);
    assert_eq!(spm_tokenizer.encode("</s>", true, false), [2]);

    let mut entries = bpe(&[b"a", b"b", b"ab"], &[b"a b"], "llama3");
    entries.push(("token_type", Value::Array(Array::I32(vec![1, 1, 3]))));
    let bpe_tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(bpe_tokenizer.encode("ab", false, false), [0, 1]);
    assert_eq!(bpe_tokenizer.encode("ab", true, false), [2]);
}

#[test]
fn user_defined_tokens_are_recognised_in_any_text_the_longest_first() {
    let mut entries = bpe(&[b"a", b"b", b"ab", b"abb"], &[], "gpt-2");
    entries.push(("token_type", Value::Array(Array::I32(vec![1, 1, 4, 4]))));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("aababba", false, false), [0, 2, 3, 0]);
}

#[test]
fn vocabularies_of_chance_do_no_harm() {
    let mut random = Random(11);
    let names: Vec<&str> = layerline::text::pretokenizers().flat_map(|(names, _)| names).copied().collect();
    let mut loaded = 0;
    for _ in 0..3_000 {
        let mut texts: Vec<Vec<u8>> = vec![b"<unk>".to_vec()];
        for _ in 0..random.below(30) {
            let mut text = random.text(1).into_bytes();
            text.truncate(1 + random.below(12));
            if random.below(4) == 0 {
                text.splice(..0, "\u{2581}".bytes());
            }
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let count = texts.len();
        let slices: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let merge = |random: &mut Random| {
            let (left, right) = (&texts[random.below(count)], &texts[random.below(count)]);
            let joined = [left.as_slice(), right].concat();
            texts.contains(&joined).then(|| [left.as_slice(), b" ", right].concat())
        };
        let merges: Vec<Vec<u8>> = (0..200).filter_map(|_| merge(&mut random)).collect();
        let merges: Vec<&[u8]> = merges.iter().map(Vec::as_slice).collect();
        let scores = (0..count).map(|_| -(random.below(50) as f32)).collect();
        let kinds = (0..count).map(|_| [1, 1, 1, 1, 3, 4, 5][random.below(7)]).collect();
        let charsmap = (0..random.below(3) * 40).map(|_| random.below(256) as u8).collect();
        let entries = vec![
            ("model", text_value(layerline::text::MODELS[random.below(layerline::text::MODELS.len())])),
            ("pre", text_value(names[random.below(names.len())])),
            ("tokens", strings(&slices)),
            ("merges", strings(&merges)),
            ("scores", Value::Array(Array::F32(scores))),
            ("token_type", Value::Array(Array::I32(kinds))),
            ("precompiled_charsmap", Value::Array(Array::U8(charsmap))),
            ("remove_extra_whitespaces", Value::Bool(random.below(2) == 0)),
        ];
        let Ok(tokenizer) = load(entries) else { continue };
        loaded += 1;
        let tokenizer = tokenizer.unwrap();
        let text = random.text(100);
        for special in [false, true] {
            let ids = tokenizer.encode(&text, special, true);
            assert!(ids.iter().all(|&id| (0..count as i32).contains(&id)));
            tokenizer.decode(&ids, special).unwrap();
        }
    }
    assert!(loaded > 2_000, "{loaded}");
}
