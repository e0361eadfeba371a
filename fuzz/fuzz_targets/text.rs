//! A vocabulary and a text, whatever they are: tokens are in the vocabulary, and can be turned back.
//!
//! Input: a byte for the family, one for the pre-tokeniser, then parts that end with 0xff: the text, the replacements of
//! `t5`, and the tokens, each with a first byte for its kind and score.

#![no_main]

use layerline::gguf::{Array, Metadata, Strings, Value};
use layerline::text::{MODELS, Tokenizer, pretokenizers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [model, pre, rest @ ..] = data else { return };
    let names: Vec<&str> = pretokenizers().flat_map(|(names, _)| names).copied().collect();
    let mut parts = rest.split(|&byte| byte == 0xff);
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let charsmap = parts.next().unwrap_or_default().to_vec();
    let (mut tokens, mut kinds, mut scores) = (Strings::default(), vec![], vec![]);
    let mut texts: Vec<&[u8]> = vec![];
    for part in parts {
        let Some((&kind, text)) = part.split_first() else { continue };
        tokens.bytes.extend_from_slice(text);
        tokens.ends.push(tokens.bytes.len() as u32);
        kinds.push(i32::from(kind % 8));
        scores.push(-f32::from(kind / 8));
        texts.push(text);
    }
    let mut merges = Strings::default();
    for whole in &texts {
        for cut in 1..whole.len() {
            if texts.contains(&&whole[..cut]) && texts.contains(&&whole[cut..]) {
                merges.bytes.extend([&whole[..cut], b" ", &whole[cut..]].concat());
                merges.ends.push(merges.bytes.len() as u32);
            }
        }
    }
    let string = |text: &str| Value::String(text.as_bytes().into());
    let entries = [
        ("model", string(MODELS[usize::from(*model) % MODELS.len()])),
        ("pre", string(names[usize::from(*pre) % names.len()])),
        ("tokens", Value::Array(Array::String(tokens))),
        ("merges", Value::Array(Array::String(merges))),
        ("scores", Value::Array(Array::F32(scores))),
        ("token_type", Value::Array(Array::I32(kinds))),
        ("precompiled_charsmap", Value::Array(Array::U8(charsmap))),
        ("remove_extra_whitespaces", Value::Bool(model % 2 == 0)),
    ];
    let entries = entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    let Ok(Some(tokenizer)) = Tokenizer::from_metadata(&mut Metadata { entries }) else { return };
    for special in [false, true] {
        let ids = tokenizer.encode(&text, special, true);
        assert!(ids.iter().all(|&id| usize::try_from(id).is_ok_and(|id| id < tokenizer.vocab_size())));
        tokenizer.decode(&ids, special).expect("the tokens are in the vocabulary");
    }
});
