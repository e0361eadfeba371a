//! Constraints: what a text must be like.

use std::ffi::c_char;

use parking_lot::{Mutex, MutexGuard};

use super::boundary::{Handle, Poison, busy, caller, owned};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use crate::error::{Error, Result};
use crate::generate::{Constraint, ConstraintKind, ConstraintState};

/// A JSON schema: the text is JSON that it describes. Members come in the order of the schema's "properties"; between them
/// stands ", ", and ": " after their names, as models write it. A member "x-guidance" of the schema changes that:
/// {"whitespace_flexible": true} allows any white space.
pub const LAYERLINE_CONSTRAINT_JSON_SCHEMA: i32 = 0;

/// A grammar in llama.cpp's GBNF: the text is what its rule "root" says. Where one part of a rule can go on with what the
/// next one begins with, and the rule is part of a recursion, it does.
pub const LAYERLINE_CONSTRAINT_GBNF: i32 = 1;

/// A grammar in llguidance's variant of Lark: the text is what its rule "start" says.
pub const LAYERLINE_CONSTRAINT_LARK: i32 = 2;

/// A regular expression in the syntax of Rust's crate `regex`, which the whole text matches.
pub const LAYERLINE_CONSTRAINT_REGEX: i32 = 3;

/// The text goes on.
pub const LAYERLINE_CONSTRAINT_OPEN: i32 = 0;

/// The text may end here, or go on.
pub const LAYERLINE_CONSTRAINT_MAY_END: i32 = 1;

/// The text is complete: nothing can follow but a token that ends it.
pub const LAYERLINE_CONSTRAINT_COMPLETE: i32 = 2;

/// What a text must be like, and how far it is: for generations, by `layerline_generation_set_constraint`, and for hosts
/// that sample themselves, token by token. It is about the tokens of one model, which it keeps alive.
///
/// The first constraint of a model takes memory from the model's budget, once and for as long as the model is open: the
/// tokens by their bytes, 30 to 60 bytes for each of the vocabulary. Building that takes up to 100 bytes more for each, which
/// are outside the budget and freed before the call returns. What a constraint itself takes is outside every budget: mostly
/// less than a MiB. It is bounded, as its time is: texts have 1 MiB at most, grammars 1,000 rules and 200,000 symbols, schemas
/// 1,000 references and 2,000 properties in an object, regular expressions 50,000 states of 1 to 2 KiB each; a call that would
/// go beyond such a bound fails. This memory, and what building takes
/// but for its lists, is small or follows from the text: without memory for it the process ends, as for tokenising.
/// Calls take 512 KiB of stack at most.
pub struct layerline_constraint {
    poison: Poison,
    constraint: Mutex<Constraint>,
}

impl Handle for layerline_constraint {
    const NAME: &'static str = "constraint";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_constraint {
    fn boxed(constraint: Constraint) -> Result<*mut layerline_constraint> {
        owned(layerline_constraint { poison: Poison::default(), constraint: Mutex::new(constraint) })
    }

    pub(super) fn lock(&self) -> Result<MutexGuard<'_, Constraint>> {
        self.constraint.try_lock().ok_or_else(busy::<layerline_constraint>)
    }
}

/// Makes a constraint on texts of a model's tokens, at the beginning of such a text.
///
/// `kind`: how it is written: LAYERLINE_CONSTRAINT_JSON_SCHEMA, _GBNF, _LARK or _REGEX.
/// `text`, `length`: the schema, grammar or expression in UTF-8, 1 MiB at most. Nothing is fetched that it refers to.
/// `constraint`: set to a constraint that the caller owns: `layerline_constraint_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT says what is wrong with the text, also where it asks for what is not built in, or
/// for more than a constraint may take; LAYERLINE_ERROR_UNSUPPORTED: the library was built without constraints, or as for
/// `layerline_model_tokenize`; LAYERLINE_ERROR_FORMAT as there; LAYERLINE_ERROR_MEMORY_BUDGET: no room for the tokens;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; the first call on a model takes up to a second, and others wait for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_new(
    model: *const layerline_model,
    kind: i32,
    text: *const c_char,
    length: usize,
    constraint: *mut *mut layerline_constraint,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, text) = (c.handle(model)?, c.text(text, length, "text")?);
        let out = c.out(constraint, "constraint")?;
        let kind = match kind {
            LAYERLINE_CONSTRAINT_JSON_SCHEMA => ConstraintKind::JsonSchema,
            LAYERLINE_CONSTRAINT_GBNF => ConstraintKind::Gbnf,
            LAYERLINE_CONSTRAINT_LARK => ConstraintKind::Lark,
            LAYERLINE_CONSTRAINT_REGEX => ConstraintKind::Regex,
            other => return Err(Error::invalid(format!("{other} is no kind of constraint"))),
        };
        out.set(layerline_constraint::boxed(Constraint::new(&model.model, kind, text)?)?);
        Ok(())
    })
}

/// Frees a constraint; NULL is a no-op. Generations that were given it have copies. Any thread, once, with no call on it
/// running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_free(constraint: *mut layerline_constraint) {
    caller!().free(constraint);
}

/// Copies a constraint: what it asks for, and how far its text is. The two have nothing in common from then on.
///
/// `copy`: set to a constraint that the caller owns: `layerline_constraint_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the constraint runs;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_copy(
    constraint: *const layerline_constraint,
    copy: *mut *mut layerline_constraint,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, out) = (c.handle(constraint)?, c.out(copy, "copy")?);
        let copy = handle.lock()?.copy();
        out.set(layerline_constraint::boxed(copy)?);
        Ok(())
    })
}

/// Tells which tokens may come next, among them those that end the text where it may end. It is best called while the pass
/// runs whose logits it is for, and most often takes less than a millisecond.
///
/// `words`, `cap`, `needed`: 32 tokens in each: bit i % 32, from the lowest, of word i / 32 is that of token i. `*needed` is
/// the vocabulary divided by 32, rounded up, also where there is no room: then the call returns
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL and takes no time. Logits beyond the vocabulary belong to no token.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on the
/// constraint runs; LAYERLINE_ERROR_UNSUPPORTED: to go on goes beyond what a constraint may take, or no token of the
/// vocabulary goes on with the text: all further calls fail then. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_mask(
    constraint: *mut layerline_constraint,
    words: *mut u32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let handle = c.handle(constraint)?;
        let (words, needed) = c.out_buffer((words, cap, needed))?;
        let mut constraint = handle.lock()?;
        let length = constraint.mask_len();
        needed.set(length);
        if cap < length {
            return words.refuse(length);
        }
        words.set(&constraint.mask()?)
    })
}

/// Tells the constraint how its text goes on.
///
/// `tokens`, `count`: in their order; may be none. The last of them may end the text, where it may end.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where one of them may not come there: then none is taken;
/// LAYERLINE_ERROR_BUSY and LAYERLINE_ERROR_UNSUPPORTED as for `layerline_constraint_mask`. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_accept(
    constraint: *mut layerline_constraint,
    tokens: *const i32,
    count: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, tokens) = (c.handle(constraint)?, c.array(tokens, count, "tokens")?);
        handle.lock()?.accept_all(tokens)
    })
}

/// Gives the tokens that the text goes on with in any case, as the model's tokeniser would cut that text. They are not
/// accepted: where they are fed to a session, tell the constraint too. There is none where the text has a choice, or is
/// complete.
///
/// `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY and
/// LAYERLINE_ERROR_UNSUPPORTED as for `layerline_constraint_mask`. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_forced(
    constraint: *mut layerline_constraint,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, out) = (c.handle(constraint)?, c.out_array(tokens, cap, "tokens")?);
        let needed = c.out(needed, "needed")?;
        let tokens = handle.lock()?.forced()?;
        needed.set(tokens.len());
        out.set(&tokens)
    })
}

/// Tells how far the text is.
///
/// `state`: set to LAYERLINE_CONSTRAINT_OPEN, _MAY_END or _COMPLETE.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY and LAYERLINE_ERROR_UNSUPPORTED as for
/// `layerline_constraint_mask`. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_constraint_get_state(
    constraint: *mut layerline_constraint,
    state: *mut i32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, out) = (c.handle(constraint)?, c.out(state, "state")?);
        out.set(match handle.lock()?.progress()? {
            ConstraintState::Open => LAYERLINE_CONSTRAINT_OPEN,
            ConstraintState::MayEnd => LAYERLINE_CONSTRAINT_MAY_END,
            ConstraintState::Complete => LAYERLINE_CONSTRAINT_COMPLETE,
        });
        Ok(())
    })
}
