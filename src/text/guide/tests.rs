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
        let guide = plan.build(tokenizer.clone()).unwrap();
        let mut seen = 0;
        for grammar in grammars() {
            let mut parser = guide.parser(grammar).unwrap();
            parser.start_without_prompt();
            for step in 0..4 {
                if !parser.compute_ff_tokens().is_empty() {
                    let forced = parser.consume_ff_tokens().unwrap();
                    // They say what has to be said, and as they stand in the vocabulary.
                    assert!(forced.iter().all(|&token| has_word[token as usize]), "{name}");
                }
                let Ok(mask) = parser.compute_mask() else { break };
                let step_of = (tokenizer.vocab_size() / 3000).max(1);
                for token in (step..tokenizer.vocab_size()).step_by(step_of) {
                    if tokenizer.is_end(token as i32).unwrap() {
                        continue;
                    }
                    let valid = has_word[token] && parser.validate_tokens_raw(&[token as u32]).unwrap() == 1;
                    assert_eq!(mask.is_allowed(token as u32), valid, "{name}, step {step}: {token}");
                    seen += usize::from(valid);
                }
                let allowed: Vec<u32> = mask.iter().filter(|&token| !tokenizer.is_end(token as i32).unwrap()).collect();
                let Some(&token) = allowed.get(allowed.len() / 2) else { break };
                parser.consume_token(token).unwrap();
                if parser.check_stop().unwrap() {
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
        let guide = GuidePlan::new(&tokenizer).unwrap().build(tokenizer.clone()).unwrap();
        let text = "the quick brown fox says 42 times: no";
        let mut parser = guide.parser(TopLevelGrammar::from_regex(text)).unwrap();
        parser.start_without_prompt();
        let (mut spelt, mut tokens) = (Vec::new(), 0);
        while !parser.stopped() {
            let mask = parser.compute_mask().unwrap();
            let token = mask.iter().next().unwrap();
            parser.consume_token(token).unwrap();
            let forced = parser.consume_ff_tokens().unwrap();
            for token in [token].into_iter().chain(forced) {
                tokenizer.piece(token as i32, false, &mut spelt).unwrap();
                tokens += 1;
            }
            parser.check_stop().unwrap();
        }
        assert_eq!(String::from_utf8(spelt).unwrap(), text, "{name}");
        assert!(tokens <= text.len(), "{name}");
    }
}
