use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use serde_json::json;

use super::*;
use crate::text::tests::tokenizers;

/// Those with the vocabularies of models: of each family one at least.
fn real_tokenizers() -> impl Iterator<Item = (String, Tokenizer)> {
    tokenizers().into_iter().take(9)
}

fn grammars() -> Vec<TopLevelGrammar> {
    vec![
        TopLevelGrammar::from_regex("[a-fA-F é€]{3,20}x?"),
        TopLevelGrammar::from_regex("\\s*[^x]{1,4}"),
        TopLevelGrammar::from_json_schema(json!({"type": "string"})),
        TopLevelGrammar::from_json_schema(json!({"type": "string", "maxLength": 12})),
        TopLevelGrammar::from_json_schema(json!({"type": "string", "maxLength": 35})),
        TopLevelGrammar::from_json_schema(json!({"type": ["integer", "null", "array"]})),
    ]
}

#[test]
fn a_mask_has_what_each_token_by_itself_may_do_in_every_vocabulary() {
    for (name, tokenizer) in real_tokenizers() {
        let tokenizer = Arc::new(tokenizer);
        let plan = GuidePlan::new(&tokenizer).unwrap();
        let bytes = plan.memory_bytes();
        assert!(bytes < 80 * tokenizer.vocab_size() as u64 + (1 << 20), "{name}: {bytes} bytes");
        let has_word: Vec<bool> =
            (0..tokenizer.vocab_size() as u32).map(|token| !plan.word(token).is_empty()).collect();
        let guide = Arc::new(plan.build(tokenizer.clone()));
        let mut seen = 0;
        for grammar in grammars() {
            let mut reader = Reader::new(&guide, grammar).unwrap();
            for step in 0..4 {
                for token in reader.forced().unwrap() {
                    // They say what has to be said, and as they stand in the vocabulary.
                    assert!(has_word[token as usize], "{name}");
                    assert!(reader.accept(token).unwrap(), "{name}");
                }
                let mask = reader.mask().unwrap();
                let is_allowed = |token: usize| mask[token / 32] >> (token % 32) & 1 == 1;
                let step_of = (tokenizer.vocab_size() / 3000).max(1);
                for token in (step..tokenizer.vocab_size()).step_by(step_of) {
                    if tokenizer.is_end(token as i32).unwrap() {
                        continue;
                    }
                    let valid = has_word[token] && reader.allowed(&[token as i32]).unwrap() == 1;
                    assert_eq!(is_allowed(token), valid, "{name}, step {step}: {token}");
                    seen += usize::from(valid);
                }
                let chosen = |token: &usize| is_allowed(*token) && !tokenizer.is_end(*token as i32).unwrap();
                let allowed: Vec<usize> = (0..tokenizer.vocab_size()).filter(chosen).collect();
                let Some(&token) = allowed.get(allowed.len() / 2) else { break };
                assert!(reader.accept(token as i32).unwrap(), "{name}");
                if reader.is_complete() {
                    break;
                }
            }
        }
        assert!(seen > 20, "{name}: {seen}");
    }
}

#[test]
fn texts_that_are_forced_are_cut_as_the_tokeniser_cuts_them() {
    for (name, tokenizer) in real_tokenizers() {
        let tokenizer = Arc::new(tokenizer);
        let guide = Arc::new(GuidePlan::new(&tokenizer).unwrap().build(tokenizer.clone()));
        let text = "the quick brown fox says 42 times: no";
        let mut reader = Reader::new(&guide, TopLevelGrammar::from_regex(text)).unwrap();
        let (mut spelt, mut tokens) = (Vec::new(), 0);
        while !reader.is_complete() {
            let mask = reader.mask().unwrap();
            let at = mask.iter().position(|&word| word != 0).unwrap();
            let token = (at * 32) as i32 + mask[at].trailing_zeros() as i32;
            assert!(reader.accept(token).unwrap(), "{name}");
            let forced = reader.forced().unwrap();
            for &token in &forced {
                assert!(reader.accept(token).unwrap(), "{name}");
            }
            for token in [token].into_iter().chain(forced) {
                tokenizer.piece(token, false, &mut spelt).unwrap();
                tokens += 1;
            }
        }
        assert_eq!(String::from_utf8(spelt).unwrap(), text, "{name}");
        assert!(tokens <= text.len(), "{name}");
    }
}

/// A text of up to `most` tokens, each drawn among those that are allowed.
fn drawn(
    reader: &mut Reader,
    tokenizer: &Tokenizer,
    seed: u64,
    most: usize,
    mut look: impl FnMut(&mut Reader),
) -> Vec<i32> {
    let (mut tokens, mut random) = (Vec::new(), seed);
    while tokens.len() < most && !reader.is_complete() {
        look(reader);
        let Ok(mask) = reader.mask() else { break };
        let allowed: Vec<i32> = (0..tokenizer.vocab_size() as i32)
            .filter(|&token| mask[token as usize / 32] >> (token % 32) & 1 == 1 && !tokenizer.is_end(token).unwrap())
            .collect();
        if allowed.is_empty() {
            break;
        }
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let token = allowed[(random >> 33) as usize % allowed.len()];
        assert!(reader.accept(token).unwrap());
        tokens.push(token);
    }
    tokens
}

#[test]
fn masks_of_groups_are_those_of_single_tokens() {
    let grammars = [
        TopLevelGrammar::from_json_schema(json!({"type": "object"})),
        TopLevelGrammar::from_json_schema(
            json!({"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 3}),
        ),
        TopLevelGrammar::from_json_schema(json!({"type": "string", "minLength": 30, "maxLength": 40})),
        TopLevelGrammar::from_json_schema(json!({"type": "string", "pattern": "^[A-Z][a-z]{2,12}( [a-z]+)*$"})),
        TopLevelGrammar::from_json_schema(json!({"type": "string", "format": "uri"})),
        TopLevelGrammar::from_regex(r"(- [^\r\n\x0b\x0c\x85\u2028\u2029]+\n)+"),
        TopLevelGrammar::from_regex(r"([a-z_]+ ?= ?(\w|\s){1,5};\n?)+"),
        TopLevelGrammar::from_regex(r"([^<>]|<[^ ]{1,4} >)+"),
        TopLevelGrammar::from_regex(r"(Über )?[^,]{20,30}([A-Z]{3}|[a-z]{17}|[ -~]{2})*"),
        TopLevelGrammar::from_lark("start: (word \" \"?)+\nword: /[a-z]+/ | /[A-Z][a-zA-Z0-9]*/ | /[^ -~]+/".into()),
    ];
    let (mut by_groups, mut masks) = (0, 0);
    for (name, tokenizer) in real_tokenizers().filter(|(_, tokenizer)| tokenizer.vocab_size() > 30_000) {
        let tokenizer = Arc::new(tokenizer);
        let guide = Arc::new(GuidePlan::new(&tokenizer).unwrap().build(tokenizer.clone()));
        for (number, grammar) in grammars.iter().enumerate() {
            let mut reader = Reader::new(&guide, grammar.clone()).unwrap();
            drawn(&mut reader, &tokenizer, number as u64, 12, |reader| {
                let Some(expected) = reader.mask_by_trie() else { return };
                // Where no token goes on, there are none either.
                let mask = reader.mask().unwrap_or_else(|_| vec![0; expected.len()]);
                for token in 0..tokenizer.vocab_size() {
                    let is_allowed = |mask: &[u32]| mask[token / 32] >> (token % 32) & 1 == 1;
                    if !tokenizer.is_end(token as i32).unwrap() {
                        assert_eq!(is_allowed(&mask), is_allowed(&expected), "{name}, grammar {number}: {token}");
                    }
                }
                masks += 1;
                by_groups += usize::from(mask.iter().map(|word| word.count_ones()).sum::<u32>() > 2000);
            });
        }
    }
    assert!(by_groups > 50 && masks > by_groups, "{by_groups} of {masks}");
}

#[test]
fn in_every_family_the_text_that_followed_is_what_its_tokens_say() {
    let schema = json!({"type": "object", "properties": {
        "a text": {"type": "string", "maxLength": 20}, "größe": {"enum": ["klein", "groß", "日本語", "🦀 \"x\""]},
        "n": {"type": "number", "minimum": -5, "maximum": 5000}}, "required": ["a text", "größe", "n"],
        "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}});
    for (name, tokenizer) in tokenizers() {
        let tokenizer = Arc::new(tokenizer);
        let guide = Arc::new(GuidePlan::new(&tokenizer).unwrap().build(tokenizer.clone()));
        let mut whole = 0;
        for seed in 0..12 {
            // What a vocabulary cannot say, it cannot be held to.
            let Ok(mut reader) = Reader::new(&guide, TopLevelGrammar::from_json_schema(schema.clone())) else {
                continue;
            };
            if reader.mask().is_err() {
                continue;
            }
            let tokens = drawn_or_stuck(&mut reader, &tokenizer, seed);
            let mut bytes = Vec::new();
            tokens.iter().for_each(|&token| tokenizer.piece(token, false, &mut bytes).unwrap());
            let (mut stream, mut text) = (crate::text::Utf8Stream::default(), String::new());
            stream.push(&bytes, &mut text);
            if !reader.is_complete() {
                continue;
            }
            stream.finish(&mut text);
            assert_eq!(text.as_bytes(), bytes, "{name}");
            let value: serde_json::Value =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {text:?}: {e}"));
            let members = value.as_object().unwrap();
            assert_eq!(members.keys().collect::<Vec<_>>(), ["a text", "größe", "n"], "{name}: {text}");
            assert!(members["a text"].as_str().unwrap().chars().count() <= 20, "{name}: {text}");
            assert!((-5.0..=5000.0).contains(&members["n"].as_f64().unwrap()), "{name}: {text}");
            whole += 1;
        }
        println!("{name}: {whole} texts");
        // The vocabularies of embedding models say words alone.
        let words = ["bert-bge", "xlm-r-small"].contains(&name.as_str());
        assert!(words || tokenizer.vocab_size() < 1000 || whole > 0, "{name}");
        for seed in 0..4 {
            let mut reader = Reader::new(&guide, TopLevelGrammar::from_regex("( ?[a-z]){3,40}")).unwrap();
            let tokens = drawn_or_stuck(&mut reader, &tokenizer, seed);
            let mut bytes = Vec::new();
            tokens.iter().for_each(|&token| tokenizer.piece(token, false, &mut bytes).unwrap());
            let letters = bytes.iter().filter(|byte| byte.is_ascii_lowercase()).count();
            assert!(bytes.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b' ') && letters <= 40, "{name}");
            assert!(tokenizer.vocab_size() < 1000 || reader.may_end().unwrap() && letters >= 3, "{name}: {bytes:?}");
        }
    }
}

/// As `drawn`, up to where no token goes on.
fn drawn_or_stuck(reader: &mut Reader, tokenizer: &Tokenizer, seed: u64) -> Vec<i32> {
    let mut tokens = Vec::new();
    for step in 0..200 {
        if reader.is_complete() || reader.mask().is_err() {
            break;
        }
        tokens.extend(drawn(reader, tokenizer, seed * 1000 + step, 1, |_| ()));
    }
    tokens
}

#[test]
fn a_panic_in_the_parser_is_an_error_of_this_text_and_those_forked_from_it() {
    let (_, tokenizer) = real_tokenizers().next().unwrap();
    let tokenizer = Arc::new(tokenizer);
    let guide = Arc::new(GuidePlan::new(&tokenizer).unwrap().build(tokenizer.clone()));
    let mut reader = Reader::new(&guide, TopLevelGrammar::from_regex("a+")).unwrap();
    let (mut copy, mut fork) = (reader.copy(), reader.fork());
    let error = reader.panic_inside().unwrap_err();
    assert_eq!(error.status(), crate::Status::Internal);
    assert!(error.message().contains("synthetic"), "{error}");
    assert_eq!(reader.mask().unwrap_err().status(), crate::Status::Internal);
    assert!(reader.copy().mask().is_err() && reader.fork().mask().is_err());
    assert!(fork.copy().mask().is_err() && fork.mask().is_err());
    assert!(copy.mask().is_ok() && copy.copy().mask().is_ok());
}
