//! A constraint and the choices of a text: whatever they are, the constraint is refused or followed. Every token of a mask is
//! accepted and no other is, forced tokens are in the mask, and a copy goes on alike.
//!
//! Input: a byte for the kind, the constraint up to the first 0xff, and bytes that choose among the tokens of each mask.

#![no_main]

use std::sync::{Arc, OnceLock};

use layerline::{Constraint, ConstraintKind, ConstraintState, Model, Options, Status};
use libfuzzer_sys::fuzz_target;

const KINDS: [ConstraintKind; 4] =
    [ConstraintKind::JsonSchema, ConstraintKind::Gbnf, ConstraintKind::Lark, ConstraintKind::Regex];

fn model() -> &'static Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden/arch/llama.gguf");
        let options = Options { memory_budget: 64 << 20, context_length: 64, threads: 1, ..Options::default() };
        Model::open(path.as_ref(), &options).expect("the small model opens")
    })
}

/// A constraint may become too complex; nothing else may go wrong.
fn followed<T>(result: layerline::Result<T>) -> Option<T> {
    result.map_err(|e| assert_eq!(e.status(), Status::Unsupported, "{e}")).ok()
}

fn follow<'a>(constraint: &mut Constraint, choices: impl Iterator<Item = &'a u8>) -> Option<()> {
    for &choice in choices {
        let forced = followed(constraint.forced())?;
        let mask = followed(constraint.mask())?;
        let has = |token: i32| mask[token as usize / 32] >> (token % 32) & 1 == 1;
        let tokens: Vec<i32> = (0..32 * mask.len() as i32).filter(|&token| has(token)).collect();
        assert!(forced.first().is_none_or(|&token| has(token)));
        if tokens.is_empty() || followed(constraint.progress())? == ConstraintState::Complete {
            return Some(());
        }
        let other = i32::from(choice);
        assert!(has(other) || followed(constraint.allowed(&[other]))? == 0, "{other} is not in the mask");
        let token = tokens[usize::from(choice) * 7 % tokens.len()];
        let mut copy = constraint.copy();
        followed(constraint.accept(token))?;
        followed(copy.accept(token))?;
        assert_eq!(followed(constraint.mask()), followed(copy.mask()));
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let [kind, rest @ ..] = data else { return };
    let end = rest.iter().position(|&byte| byte == 0xff).unwrap_or(rest.len());
    let Ok(text) = std::str::from_utf8(&rest[..end]) else { return };
    let choices = rest.iter().skip(end + 1).take(40);
    match Constraint::new(model(), KINDS[usize::from(*kind) % KINDS.len()], text) {
        Ok(mut constraint) => drop(follow(&mut constraint, choices)),
        Err(e) => assert!(matches!(e.status(), Status::InvalidArgument | Status::Unsupported), "{e}"),
    }
});
