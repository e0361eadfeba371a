//! Text that goes on, bytes that are not UTF-8, control tokens as text, and text that comes in whole characters.

use layerline::{DetokenizeOptions, Detokenizer, Status, TokenizeOptions};

use super::{Random, tokenizer};

const GOES_ON: TokenizeOptions = TokenizeOptions { special: false, bos: false, eos: false, continues: true };
const WHOLE: DetokenizeOptions = DetokenizeOptions { control: false, continues: false };
const PART: DetokenizeOptions = DetokenizeOptions { control: false, continues: true };

#[test]
fn text_that_goes_on_has_no_space_put_before_it() {
    for (name, spaced) in
        [("llama-spm", true), ("phi-3", true), ("xlm-r-small", true), ("gpt-2", false), ("qwen2", false)]
    {
        let tokenizer = tokenizer(name);
        let tokens = |text: &str, options| tokenizer.tokenize(text.as_bytes(), options).unwrap();
        let (begun, continued) = (tokens("sea", TokenizeOptions::default()), tokens("sea", GOES_ON));
        assert_eq!(begun, tokenizer.encode("sea", false, false), "{name}");
        assert_eq!(begun != continued, spaced, "{name}");
        let text = |tokens: &[i32], options| String::from_utf8(tokenizer.detokenize(tokens, options).unwrap()).unwrap();
        assert_eq!(text(&continued, PART), "sea", "{name}");
        assert_eq!(text(&begun, PART), if spaced { " sea" } else { "sea" }, "{name}");
        if name != "xlm-r-small" {
            assert_eq!(text(&begun, WHOLE), "sea", "{name}");
            // A text in two halves: tokens of a whole, and of what goes on, are joined by their bytes.
            let halves = [tokens("The s", TokenizeOptions::default()), tokens("ea is", GOES_ON)].concat();
            assert_eq!(text(&halves, WHOLE), "The sea is", "{name}");
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_are_tokens_where_the_vocabulary_has_bytes() {
    let mut random = Random(9);
    for name in ["llama-spm", "phi-3", "gpt-2", "llama-bpe", "deepseek-llm"] {
        let tokenizer = tokenizer(name);
        for _ in 0..200 {
            let mut bytes = random.text(1 + random.0 as usize % 40).into_bytes();
            for _ in 0..4 {
                let at = random.below(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            let tokens = tokenizer.tokenize(&bytes, GOES_ON).unwrap();
            // SentencePiece takes U+2581 for a space.
            let spelt = tokenizer.detokenize(&tokens, PART).unwrap();
            let same = spelt == bytes || bytes.windows(3).any(|part| part == "\u{2581}".as_bytes());
            assert!(same || name == "deepseek-llm", "{name}: {bytes:?} {spelt:?}");
        }
    }
    let error = tokenizer("bert-bge").tokenize(b"ab\xff", TokenizeOptions::default()).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("at byte 2"), "{error}");
}

#[test]
fn tokens_one_by_one_give_the_text_of_all_in_whole_characters() {
    let mut random = Random(11);
    for name in ["llama-spm", "gpt-2", "llama-bpe", "qwen2", "bert-bge", "xlm-r-small"] {
        let tokenizer = tokenizer(name);
        for round in 0..60 {
            let size = tokenizer.vocab_size();
            let tokens: Vec<i32> = (0..random.below(60)).map(|_| random.below(size) as i32).collect();
            let options = DetokenizeOptions { control: round % 2 == 0, continues: round % 3 == 0 };
            let mut detokenizer = Detokenizer::new(options);
            let mut text = String::new();
            let mut rest = &tokens[..];
            while !rest.is_empty() {
                let (some, others) = rest.split_at(1 + random.below(rest.len().min(3)));
                detokenizer.push(&tokenizer, some, &mut text).unwrap();
                rest = others;
            }
            let before = text.clone();
            assert!(detokenizer.push(&tokenizer, &[0, size as i32], &mut text).is_err());
            assert_eq!(text, before);
            detokenizer.finish(&mut text);
            assert_eq!(text, String::from_utf8_lossy(&tokenizer.detokenize(&tokens, options).unwrap()), "{name}");
        }
    }
}

#[test]
fn control_tokens_have_a_text_when_asked_for() {
    let tokenizer = tokenizer("qwen2");
    let tokens = tokenizer.encode("<|im_start|>hi<|im_end|>", true, false);
    let control = DetokenizeOptions { control: true, ..WHOLE };
    assert_eq!(tokenizer.detokenize(&tokens, control).unwrap(), b"<|im_start|>hi<|im_end|>");
    assert_eq!(tokenizer.detokenize(&tokens, WHOLE).unwrap(), b"hi");
}
