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
