//! Tokens to text as they come.

use std::ffi::c_char;
use std::sync::Arc;

use parking_lot::Mutex;

use super::boundary::{Handle, OutArray, Poison, busy, caller, owned};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use super::text::detokenizing;
use crate::error::Result;
use crate::model::Model;
use crate::text::Detokenizer;

/// Turns tokens into text as they come, for programs with a loop of their own: what it hands out is whole UTF-8
/// characters. It belongs to one text at a time and keeps the model alive. Its memory, under a hundred bytes, is outside
/// every budget.
pub struct layerline_detokenizer {
    poison: Poison,
    model: Arc<Model>,
    detokenizer: Mutex<Detokenizer>,
}

impl Handle for layerline_detokenizer {
    const NAME: &'static str = "detokenizer";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

impl layerline_detokenizer {
    /// Writes what `step` gives; where there is no room for it, the step is not taken.
    fn write(
        &self,
        buf: &OutArray<'_, c_char>,
        needed: impl FnOnce(usize),
        step: impl FnOnce(&mut Detokenizer, &mut String) -> Result<()>,
    ) -> Result<()> {
        let mut detokenizer = self.detokenizer.try_lock().ok_or_else(busy::<layerline_detokenizer>)?;
        let (mut next, mut text) = (detokenizer.clone(), String::new());
        step(&mut next, &mut text)?;
        needed(text.len());
        buf.set_text(text.as_bytes())?;
        *detokenizer = next;
        Ok(())
    }
}

/// Makes a detokeniser for the tokens of a model.
///
/// `flags`: LAYERLINE_DETOKENIZE_ values or-ed together. For what a model adds to a prompt, LAYERLINE_DETOKENIZE_CONTINUE.
/// `detokenizer`: set to a detokeniser that the caller owns: `layerline_detokenizer_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for unknown flags; LAYERLINE_ERROR_UNSUPPORTED and
/// LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_detokenizer_new(
    model: *const layerline_model,
    flags: u32,
    detokenizer: *mut *mut layerline_detokenizer,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, out) = (c.handle(model)?, c.out(detokenizer, "detokenizer")?);
        let inner = Detokenizer::new(detokenizing(flags)?);
        model.model.tokenizer()?;
        let model = Arc::clone(&model.model);
        let made = layerline_detokenizer { poison: Poison::default(), model, detokenizer: Mutex::new(inner) };
        out.set(owned(made)?);
        Ok(())
    })
}

/// Frees a detokeniser; NULL is a no-op. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_detokenizer_free(detokenizer: *mut layerline_detokenizer) {
    caller!().free(detokenizer);
}

/// Takes tokens and gives the text that became whole with them, often none or more than that of the last. Bytes that can
/// never become a character come as U+FFFD.
///
/// `tokens`, `count`: may be none.
/// `buf`, `cap`, `needed`: the text, as described for strings at the top. Where it has no room, the tokens are not taken.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have: then none is taken;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on the detokeniser runs. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_detokenizer_push(
    detokenizer: *mut layerline_detokenizer,
    tokens: *const i32,
    count: usize,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, tokens) = (c.handle(detokenizer)?, c.array(tokens, count, "tokens")?);
        let (buf, needed) = c.out_buffer((buf, cap, needed))?;
        let tokenizer = handle.model.tokenizer()?;
        handle.write(&buf, |length| needed.set(length), |next, text| next.push(tokenizer, tokens, text))
    })
}

/// Ends a text: gives U+FFFD where it ends inside a character, else nothing. The next token begins another text.
///
/// `buf`, `cap`, `needed`: the text, as described for strings at the top. Where it has no room, the text has not ended.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on
/// the detokeniser runs. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_detokenizer_finish(
    detokenizer: *mut layerline_detokenizer,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let handle = c.handle(detokenizer)?;
        let (buf, needed) = c.out_buffer((buf, cap, needed))?;
        let finish = |next: &mut Detokenizer, text: &mut String| {
            next.finish(text);
            Ok(())
        };
        handle.write(&buf, |length| needed.set(length), finish)
    })
}
