use std::path::Path;
use std::sync::Arc;

use crate::generate::{Constraint, ConstraintKind, ConstraintState};
use crate::model::Options;
use crate::{Model, Status};

const GOLDEN: &str = "tests/data/golden/arch";

fn model(name: &str) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(GOLDEN).join(name);
    Model::open(&path, &Options { memory_budget: 64 << 20, context_length: 128, ..Options::default() }).unwrap()
}

/// The shortest way to say `text` to a constraint byte by byte; false where it stops.
fn follows(constraint: &Constraint, text: &str) -> bool {
    let mut constraint = constraint.copy();
    let tokenizer = constraint.model().clone();
    let tokenizer = tokenizer.tokenizer().unwrap();
    let single = |byte: u8| {
        (0..tokenizer.vocab_size() as i32).find(|&token| {
            let (bytes, what) = tokenizer.token_text(token).unwrap();
            bytes == [byte] && !what.control && (what.byte || !what.unknown)
        })
    };
    for byte in text.bytes() {
        let mask = constraint.mask().unwrap();
        let allowed = |token: i32| mask[token as usize / 32] >> (token % 32) & 1 == 1;
        let token = single(byte).unwrap();
        // A mask may ask for a longer token where the text goes on in one way alone; what it allows can be accepted.
        let accepted = constraint.accept(token).is_ok();
        assert!(accepted || !allowed(token), "{text:?}");
        if !accepted {
            return false;
        }
    }
    constraint.progress().unwrap() != ConstraintState::Open
}

fn made(kind: ConstraintKind, text: &str) -> Constraint {
    Constraint::new(&model("llama.gguf"), kind, text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn gbnf_says_what_llama_cpp_means_by_it() {
    for (grammar, right, wrong) in [
        ("root ::= \"ab\"", &["ab"][..], &["a", "", "b"][..]),
        ("root ::= \"a\" | \"b\" # or\n  \"c\"*", &["a", "b", "bccc"], &["ac", "c"]),
        ("root ::= [a-c]+ x\nx ::= \"-\"? [^0-9\\n]", &["abc-z", "c;"], &["a", "-z", "a9"]),
        ("root ::= \"a\"{2,3} (\"b\" | \"c\"){2}", &["aabc", "aaacc"], &["abc", "aaaabb", "aab"]),
        ("root ::= \"(\" root \")\" | \"x\"", &["x", "((x))"], &["((x)", "()"]),
        ("root ::= \"a\" x?\nx ::= \"b\" x | \"b\"", &["a", "abbb"], &["b", ""]),
        ("root ::= \"\\x41\\u0042\\t\\\\\\\"\"", &["AB\t\\\""], &["AB"]),
        ("root ::= . [\\]\\-^]{1,}", &["x]-^", "\n]"], &["x", "xa"]),
        ("root ::= a-b\na-b ::= \"q\"", &["q"], &["a"]),
        (
            "root ::= ws \"[\" ws (n (\",\" ws n)*)? \"]\" ws\nn ::= [0-9]+ ws | root\nws ::= [ ]*",
            &["[1, 2,[3] ]", " [ ]"],
            &["[1,]"],
        ),
        ("root ::= (\"a\" root)? \"b\"", &["b", "abb", "aabbb"], &["a", "ab"]),
    ] {
        let constraint = made(ConstraintKind::Gbnf, grammar);
        right.iter().for_each(|text| assert!(follows(&constraint, text), "{grammar}: {text:?}"));
        wrong.iter().for_each(|text| assert!(!follows(&constraint, text), "{grammar}: {text:?}"));
    }
}

#[test]
fn a_wrong_text_is_refused_with_its_place() {
    let model = model("llama.gguf");
    for (kind, text, word) in [
        (ConstraintKind::Gbnf, "root ::= \"a", "line 1"),
        (ConstraintKind::Gbnf, "root ::= a\n\nb ::= \"x\"", "\"a\""),
        (ConstraintKind::Gbnf, "x ::= \"a\"", "root"),
        (ConstraintKind::Gbnf, "root ::= \"a\"\nroot ::= \"b\"", "line 2"),
        (ConstraintKind::Gbnf, "root ::= [b-a]", "backwards"),
        (ConstraintKind::Gbnf, "root ::= \"a\"{3,2}", "repetitions"),
        (ConstraintKind::JsonSchema, "{", "JSON"),
        (ConstraintKind::JsonSchema, "{\"type\": \"nothing\"}", "nothing"),
        (ConstraintKind::JsonSchema, "{\"$ref\": \"https://example.org/x\"}", "example.org"),
        (ConstraintKind::Regex, "(a", "regex"),
        (ConstraintKind::Lark, "start: x", "x"),
    ] {
        let error = Constraint::new(&model, kind, text).err().unwrap_or_else(|| panic!("{text} passes"));
        assert_eq!(error.status(), Status::InvalidArgument, "{text}: {error}");
        assert!(error.message().contains(word) && !error.message().contains("backtrace"), "{text}: {error}");
    }
    let tokens = Constraint::new(&model, ConstraintKind::Gbnf, "root ::= <[3]>").err().unwrap();
    assert_eq!(tokens.status(), Status::Unsupported);
}

#[test]
fn a_token_that_does_not_follow_changes_nothing() {
    let mut constraint = made(ConstraintKind::Regex, "abc?");
    let text = constraint
        .model()
        .tokenizer()
        .unwrap()
        .tokenize(b"abcx", crate::TokenizeOptions { continues: true, ..Default::default() })
        .unwrap();
    let mask = constraint.mask().unwrap();
    for wrong in [text[3], -1, 1 << 20, constraint.model().tokenizer().unwrap().eos().unwrap()] {
        assert_eq!(constraint.accept(wrong).unwrap_err().status(), Status::InvalidArgument, "{wrong}");
    }
    assert!(constraint.accept_all(&text).is_err());
    assert_eq!(constraint.mask().unwrap(), mask);
    assert_eq!(constraint.progress().unwrap(), ConstraintState::Open);
    constraint.accept_all(&text[..2]).unwrap();
    assert_eq!(constraint.progress().unwrap(), ConstraintState::MayEnd);
    let mut copy = constraint.copy();
    copy.accept(text[2]).unwrap();
    assert_eq!(
        (copy.progress().unwrap(), constraint.progress().unwrap()),
        (ConstraintState::Complete, ConstraintState::MayEnd)
    );
    let end = constraint.model().tokenizer().unwrap().eos().unwrap();
    copy.accept(end).unwrap();
    constraint.accept(end).unwrap();
    assert_eq!(constraint.progress().unwrap(), ConstraintState::Complete);
    let words = constraint.mask().unwrap();
    let tokenizer = constraint.model().tokenizer().unwrap();
    for token in 0..tokenizer.vocab_size() as i32 {
        let is_allowed = words[token as usize / 32] >> (token % 32) & 1 == 1;
        assert_eq!(is_allowed, tokenizer.is_end(token).unwrap(), "{token}");
    }
}

#[test]
fn a_mask_allows_what_can_be_accepted() {
    // Every token is asked one by one what the mask says at once: inside a string, beside it, in short ones.
    let model = model("llama.gguf");
    let tokenizer = model.tokenizer().unwrap();
    for schema in [
        r#"{"type": "string"}"#,
        r#"{"type": "string", "maxLength": 4}"#,
        r#"{"type": "string", "maxLength": 40}"#,
        r#"{"type": "array", "items": {"type": ["integer", "boolean", "null"]}}"#,
        r#"{"type": "string", "pattern": "^[a-d]+ x"}"#,
    ] {
        let mut constraint = Constraint::new(&model, ConstraintKind::JsonSchema, schema).unwrap();
        let forced = constraint.forced().unwrap();
        constraint.accept_all(&forced).unwrap();
        let mask = constraint.mask().unwrap();
        let mut allowed = 0;
        for token in 0..tokenizer.vocab_size() as i32 {
            let is_allowed = mask[token as usize / 32] >> (token % 32) & 1 == 1;
            assert!(!is_allowed || constraint.copy().accept(token).is_ok(), "{schema}: {token}");
            allowed += usize::from(is_allowed);
        }
        assert!(allowed > 0, "{schema}");
    }
}
