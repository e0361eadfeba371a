//! Text to tokens and back.

use std::ffi::c_char;

use super::boundary::{self, Out, OutArray, array, enter, text};
use super::error::layerline_status;
use super::model::layerline_model;
use crate::error::Error;

/// Recognise control tokens in the text: for templates, never for users' text.
pub const LAYERLINE_TOKENIZE_SPECIAL: u32 = 1;
/// Add the beginning token where the model wants one.
pub const LAYERLINE_TOKENIZE_BOS: u32 = 2;
/// Add the ending token where the model wants one: for a text that is complete, as encoders take it, never for one that
/// is to be gone on with.
pub const LAYERLINE_TOKENIZE_EOS: u32 = 4;

/// Turns text into tokens.
///
/// `text`, `length`: UTF-8, `length` bytes; it need not end in NUL.
/// `flags`: LAYERLINE_TOKENIZE_ values or-ed together.
/// `tokens`, `cap`: where the tokens go; NULL with 0 asks for their count.
/// `needed`: set to the count of tokens, also when there is no room for them.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for text that is not UTF-8 and for unknown flags;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_tokenize(
    model: *const layerline_model,
    text: *const c_char,
    length: usize,
    flags: u32,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (model, text) = (enter(model)?, self::text(text, length, "text")?);
        let (out, needed) = (OutArray::new(tokens, cap, "tokens")?, Out::new(needed, "needed")?);
        let known = LAYERLINE_TOKENIZE_SPECIAL | LAYERLINE_TOKENIZE_BOS | LAYERLINE_TOKENIZE_EOS;
        if flags & !known != 0 {
            return Err(Error::invalid(format!("{flags:#x} holds unknown LAYERLINE_TOKENIZE_ flags")));
        }
        let (special, bos) = (flags & LAYERLINE_TOKENIZE_SPECIAL != 0, flags & LAYERLINE_TOKENIZE_BOS != 0);
        let tokenizer = model.model.tokenizer()?;
        let mut tokens = tokenizer.encode(text, special, bos);
        tokens.extend(tokenizer.closing().filter(|_| flags & LAYERLINE_TOKENIZE_EOS != 0));
        needed.set(tokens.len());
        out.set(&tokens)
    })
}

/// Turns a sequence of tokens into the bytes of its text; control tokens have none. A sequence may end inside a
/// character: then so does the text. A space that the tokeniser puts before every text is left out: that is right for a
/// whole sequence, not for parts of one to be joined.
///
/// To print tokens as they come: the bytes of a token in a text that goes on are what detokenising it behind some token
/// that has text gives more than that token alone. They may be part of a character, to be kept until the rest has come.
/// layerline_generate hands out whole characters itself.
///
/// `tokens`, `count`: may be none.
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_BUFFER_TOO_SMALL;
/// LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_detokenize(
    model: *const layerline_model,
    tokens: *const i32,
    count: usize,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (model, tokens) = (enter(model)?, array(tokens, count, "tokens")?);
        let (buf, needed) = (OutArray::new(buf, cap, "buf")?, Out::new(needed, "needed")?);
        let bytes = model.model.tokenizer()?.decode(tokens, false)?;
        needed.set(bytes.len());
        buf.set_text(&bytes)
    })
}

/// Whether a token ends a text or a turn: sets `end`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED when
/// the model has no tokeniser that is built in. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_token_is_end(
    model: *const layerline_model,
    token: i32,
    end: *mut bool,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    boundary::status(|| unsafe {
        let (model, end) = (enter(model)?, Out::new(end, "end")?);
        end.set(model.model.tokenizer()?.is_end(token)?);
        Ok(())
    })
}
