//! Files that contradict themselves, that are odd, and that are made by chance.

use layerline::Status;
use layerline::gguf::{Array, Value};
use layerline::text::Tokenizer;

use crate::{Random, bpe, load, made, refused, spm, strings, text_value};

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
    refused(spm(&[b"<0xZZ>"], vec![0.0], vec![6]), Format, "names no byte");
    refused(spm(&[b"a"], vec![0.0], vec![1]).into_iter().filter(|e| e.0 != "scores").collect(), Format, "scores");
    refused(bpe(&[b"a", b"b"], &[b"ab"], "gpt-2"), Format, "is not a pair");
    refused(bpe(&[b"a", b"b"], &[b""], "gpt-2"), Format, "is not a pair");
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
fn white_space_that_only_parts_words_is_dropped() {
    let encode = |lowercase| {
        let mut entries = bpe(&[b"<unk>", b"a", b"b", b"ab", "\u{e9}".as_bytes()], &[b"a b"], "whitespace");
        entries.push(("normalizer.lowercase", Value::Bool(lowercase)));
        entries.push(("token_type", Value::Array(Array::I32(vec![2, 1, 1, 1, 1]))));
        entries.push(("unknown_token_id", Value::U32(0)));
        load(entries).unwrap().unwrap().encode(" ab \n\u{3000}aB\u{c9} a b", false, false)
    };
    assert_eq!(encode(true), [3, 3, 4, 1, 2]);
    assert_eq!(encode(false), [3, 1, 0, 1, 2]);
}

#[test]
fn gemma_4_begins_with_its_token_whatever_the_file_says() {
    let mut entries = bpe(&[b"<bos>", b"a"], &[], "default");
    entries[0] = ("model", text_value("gemma4"));
    entries.push(("bos_token_id", Value::U32(0)));
    entries.push(("add_bos_token", Value::Bool(false)));
    assert_eq!(load(entries).unwrap().unwrap().encode("a", false, true), [0, 1]);
}

#[test]
fn scores_may_be_whole_numbers() {
    let mut entries = spm(&[b"<unk>", b"a", b"b", b"ab", b"ba"], vec![], vec![2, 1, 1, 1, 1]);
    entries[2] = ("scores", Value::Array(Array::I32(vec![0, 0, 0, -2, -1])));
    entries.push(("add_space_prefix", Value::Bool(false)));
    assert_eq!(load(entries).unwrap().unwrap().encode("aba", false, false), [1, 4]);
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
fn a_space_mark_in_the_text_is_a_space_to_user_defined_tokens_too() {
    let texts: &[&[u8]] = &[b"<unk>", b"a", "\u{2581}".as_bytes(), b"  "];
    let mut entries = spm(texts, vec![0.0; 4], vec![2, 1, 1, 4]);
    entries.push(("add_space_prefix", Value::Bool(false)));
    let tokenizer = load(entries).unwrap().unwrap();
    for text in ["a   a", "a\u{2581}\u{2581}\u{2581}a", "a \u{2581} a"] {
        assert_eq!(tokenizer.encode(text, false, false), [1, 3, 2, 1], "{text:?}");
    }
    // A token that is itself written with the mark is found as it is written.
    let mut entries = spm(&[b"<unk>", b"a", "a\u{2581}b".as_bytes()], vec![0.0; 3], vec![2, 1, 3]);
    entries.push(("add_space_prefix", Value::Bool(false)));
    assert_eq!(load(entries).unwrap().unwrap().encode("a\u{2581}b", true, false), [2]);
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
