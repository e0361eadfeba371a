//! Vocabularies in which two tokens have one text, and lists of merges that name tokens which are not there.

use layerline::gguf::{Array, Metadata, Strings, Value};
use layerline::text::Tokenizer;

use super::{Random, bpe, data, load, metadata, spm, tokenizer};

const ALL: [&str; 9] =
    ["llama-spm", "phi-3", "gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "smollm2", "bert-bge", "xlm-r-small"];

fn array<'a>(metadata: &'a mut Metadata, key: &str) -> Option<&'a mut Array> {
    let key = format!("tokenizer.ggml.{key}");
    let found = metadata.entries.iter_mut().find(|(name, _)| *name == key)?;
    if let Value::Array(array) = &mut found.1 { Some(array) } else { None }
}

/// Appends copies of tokens, of the given kind.
fn double(metadata: &mut Metadata, tokens: &[usize], kind: i32) {
    let Some(Array::String(texts)) = array(metadata, "tokens") else { panic!("no tokens") };
    let count = texts.ends.len();
    for &token in tokens {
        let text = texts.get(token).unwrap().to_vec();
        texts.bytes.extend_from_slice(&text);
        texts.ends.push(texts.bytes.len() as u32);
    }
    if let Some(Array::F32(scores)) = array(metadata, "scores") {
        scores.extend(tokens.iter().map(|_| 1e9));
    }
    match array(metadata, "token_type") {
        Some(Array::I32(kinds)) => kinds.extend(tokens.iter().map(|_| kind)),
        Some(_) => panic!("kinds of another type"),
        None => {
            let mut kinds = vec![1; count];
            kinds.extend(tokens.iter().map(|_| kind));
            metadata.entries.push(("tokenizer.ggml.token_type".into(), Value::Array(Array::I32(kinds))));
        }
    }
}

/// Real vocabularies with some of their tokens twice: the same tokens come of every text, and both have it.
#[test]
fn a_double_changes_nothing_and_has_a_text_of_its_own() {
    let mut random = Random(5);
    let texts = std::fs::read_to_string(data("texts.txt")).unwrap();
    for name in ALL {
        let plain = tokenizer(name);
        let size = plain.vocab_size();
        let tokens: Vec<usize> = (0..500).map(|_| random.below(size)).chain(0..10).collect();
        for kind in [1, 4, 5, 0] {
            let mut entries = metadata(name);
            double(&mut entries, &tokens, kind);
            let doubled = Tokenizer::from_metadata(&mut entries).unwrap().unwrap();
            assert_eq!(doubled.vocab_size(), size + tokens.len());
            // A user-defined double is taken for a token of the vocabulary that is less than it.
            if kind != 4 {
                for special in [false, true] {
                    let same = |text: &str| {
                        assert_eq!(
                            doubled.encode(text, special, true),
                            plain.encode(text, special, true),
                            "{name} {kind}"
                        );
                    };
                    same(&texts);
                    (0..20).for_each(|_| same(&random.text(200)));
                    same(&String::from_utf8_lossy(&plain.decode(&[1, 2, 3, 4, 5], true).unwrap()));
                }
            }
            for (i, &token) in tokens.iter().enumerate() {
                let both = [token, size + i].map(|token| doubled.token_text(token as i32).unwrap());
                assert_eq!(both[0].0, plain.token_text(token as i32).unwrap().0, "{name} {kind}");
                let spelt = both[0].1.control || both[0].1.byte || both[0].1.unused || both[0].1.unknown;
                if kind == 1 && !spelt && !both[0].1.user_defined {
                    assert_eq!(both[0].0, both[1].0, "{name} {kind} {token}");
                }
            }
        }
    }
}

#[test]
fn of_two_tokens_the_control_token_or_the_normal_one_is_taken() {
    let texts: &[&[u8]] = &[b"a", b"b", b"a", b"b", b"<x>", b"<x>", b"b"];
    let mut entries = spm(texts, vec![0.0; 7], vec![5, 1, 1, 1, 1, 3, 5]);
    entries.push(("add_space_prefix", Value::Bool(false)));
    let tokenizer = load(entries).unwrap().unwrap();
    assert_eq!(tokenizer.encode("ab", false, false), [2, 1]);
    assert_eq!(tokenizer.encode("<x>", true, false), [5]);
    assert!(!tokenizer.encode("<x>", false, false).iter().any(|token| [4, 5].contains(token)));
    for (token, text) in [(0, "a"), (2, "a"), (1, "b"), (3, "b"), (4, "<x>"), (5, "<x>")] {
        assert_eq!(tokenizer.token_text(token).unwrap().0, text.as_bytes());
    }
    // Each of a thousand tokens of one text, and a double of what ends a turn.
    let many: Vec<&[u8]> = std::iter::repeat_n(&b"a"[..], 1_000).chain([&b"<|im_end|>"[..]; 2]).collect();
    let tokenizer = load(spm(&many, vec![0.0; 1_002], vec![1; 1_002])).unwrap().unwrap();
    assert!(tokenizer.is_end(1_000).unwrap() && tokenizer.is_end(1_001).unwrap());
    assert!(!tokenizer.encode("<|im_end|>", false, false).contains(&1_001));
}

#[test]
fn merges_of_tokens_that_are_not_there_are_left_out() {
    let small = load(bpe(&[b"a", b"b", b"ab"], &[b"b a", b"ba a", b"a ba", b"a ", b"a b"], "gpt-2")).unwrap().unwrap();
    assert_eq!(small.encode("abab", false, false), [2, 2]);
    // Real lists with merges between their own that cannot be applied.
    let texts = std::fs::read_to_string(data("texts.txt")).unwrap();
    for name in ["gpt-2", "llama-bpe", "qwen2"] {
        let mut entries = metadata(name);
        let Some(Array::String(merges)) = array(&mut entries, "merges") else { panic!("no merges") };
        let mut mixed = Strings::default();
        for rank in 0..merges.ends.len() {
            for merge in [merges.get(rank).unwrap(), b"e no\xff\xfe", b"no\xff\xfe e"].into_iter().take(1 + rank % 3) {
                mixed.bytes.extend_from_slice(merge);
                mixed.ends.push(mixed.bytes.len() as u32);
            }
        }
        *merges = mixed;
        let mixed = Tokenizer::from_metadata(&mut entries).unwrap().unwrap();
        assert_eq!(mixed.encode(&texts, false, true), tokenizer(name).encode(&texts, false, true), "{name}");
    }
}
