//! Text to tokens and back.

use std::ffi::c_char;

use super::boundary::{Caller, caller};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use crate::error::{Error, Result};
use crate::text::{DetokenizeOptions, TokenAttributes, TokenizeOptions};

/// Recognise control tokens in the text: for templates, never for users' text.
pub const LAYERLINE_TOKENIZE_SPECIAL: u32 = 1;
/// Add the beginning token where the model wants one.
pub const LAYERLINE_TOKENIZE_BOS: u32 = 2;
/// Add the ending token where the model wants one: for a complete text, as encoders take it, never for a text that is to
/// be continued.
pub const LAYERLINE_TOKENIZE_EOS: u32 = 4;
/// The text goes on another: the space that some tokenisers, SentencePiece's above all, put before a text is left out.
pub const LAYERLINE_TOKENIZE_CONTINUE: u32 = 8;

/// Turns text into tokens.
///
/// `text`, `length`: UTF-8, `length` bytes; it need not end in NUL. A byte that is in no character becomes the token of
/// that byte, where the vocabulary has one.
/// `flags`: LAYERLINE_TOKENIZE_ values or-ed together.
/// `tokens`, `cap`: where the tokens are written; NULL with 0 asks for their count.
/// `needed`: set to the count of tokens, also when there is no room for them.
///
/// Outside the budget a call takes at most 1 MiB, 4 bytes for each byte of the text, one more where the tokeniser brings
/// text to a normal form first, and 12 for each token.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for unknown flags and for text that is not UTF-8 where the vocabulary has
/// no bytes; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser or one that is
/// not built in; LAYERLINE_ERROR_FORMAT when it is malformed. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_tokenize(
    model: *const layerline_model,
    text: *const c_char,
    length: usize,
    flags: u32,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, text) = (c.handle(model)?, c.array(text.cast::<u8>(), length, "text")?);
        let (out, needed) = (c.out_array(tokens, cap, "tokens")?, c.out(needed, "needed")?);
        let known =
            LAYERLINE_TOKENIZE_SPECIAL | LAYERLINE_TOKENIZE_BOS | LAYERLINE_TOKENIZE_EOS | LAYERLINE_TOKENIZE_CONTINUE;
        if flags & !known != 0 {
            return Err(Error::invalid(format!("flags is {flags:#x}; LAYERLINE_TOKENIZE_ flags are {known:#x}")));
        }
        let set = |flag: u32| flags & flag != 0;
        let options = TokenizeOptions {
            special: set(LAYERLINE_TOKENIZE_SPECIAL),
            bos: set(LAYERLINE_TOKENIZE_BOS),
            eos: set(LAYERLINE_TOKENIZE_EOS),
            continues: set(LAYERLINE_TOKENIZE_CONTINUE),
        };
        let tokens = model.model.tokenizer()?.tokenize(text, options)?;
        needed.set(tokens.len());
        out.set(&tokens)
    })
}

/// Give control, unknown and unused tokens the text of their names, such as "<|im_end|>", in place of none: to tell apart
/// the parts of an answer, such as what gpt-oss thinks and what it says.
pub const LAYERLINE_DETOKENIZE_CONTROL: u32 = 1;
/// The tokens go on a text: the space that the tokeniser puts before every text is not left out.
pub const LAYERLINE_DETOKENIZE_CONTINUE: u32 = 2;

pub(super) fn detokenizing(flags: u32) -> Result<DetokenizeOptions> {
    let known = LAYERLINE_DETOKENIZE_CONTROL | LAYERLINE_DETOKENIZE_CONTINUE;
    if flags & !known != 0 {
        return Err(Error::invalid(format!("flags is {flags:#x}; LAYERLINE_DETOKENIZE_ flags are {known:#x}")));
    }
    let (control, continues) = (flags & LAYERLINE_DETOKENIZE_CONTROL != 0, flags & LAYERLINE_DETOKENIZE_CONTINUE != 0);
    Ok(DetokenizeOptions { control, continues })
}

/// Turns a sequence of tokens into the bytes of its text; control tokens have none. A sequence may end inside a
/// character: then so does the text. A space that the tokeniser puts before every text is left out, which is right for a
/// whole sequence and wrong for parts of one that are to be joined: `layerline_model_detokenize_with` keeps it.
///
/// To print tokens as they come, in whole characters, use a layerline_detokenizer. `layerline_session_generate` gives
/// whole characters itself.
///
/// `tokens`, `count`: may be none.
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_BUFFER_TOO_SMALL;
/// LAYERLINE_ERROR_UNSUPPORTED and LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_detokenize(
    model: *const layerline_model,
    tokens: *const i32,
    count: usize,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| detokenize(c, model, (tokens, count), 0, (buf, cap, needed)))
}

/// As `layerline_model_detokenize`, with flags.
///
/// `flags`: LAYERLINE_DETOKENIZE_ values or-ed together.
/// `tokens`, `count`, `buf`, `cap`, `needed`: as for `layerline_model_detokenize`.
///
/// Errors: those of `layerline_model_detokenize`; LAYERLINE_ERROR_INVALID_ARGUMENT also for unknown flags. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_detokenize_with(
    model: *const layerline_model,
    tokens: *const i32,
    count: usize,
    flags: u32,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| detokenize(c, model, (tokens, count), flags, (buf, cap, needed)))
}

fn detokenize(
    c: &Caller,
    model: *const layerline_model,
    (tokens, count): (*const i32, usize),
    flags: u32,
    buffer: (*mut c_char, usize, *mut usize),
) -> Result<()> {
    let (model, tokens) = (c.handle(model)?, c.array(tokens, count, "tokens")?);
    let (buf, needed) = c.out_buffer(buffer)?;
    let bytes = model.model.tokenizer()?.detokenize(tokens, detokenizing(flags)?)?;
    needed.set(bytes.len());
    buf.set_text(&bytes)
}

/// The token steers the model: it begins or ends a text or a turn, or marks a role. It has no text in an answer.
pub const LAYERLINE_TOKEN_CONTROL: u32 = 1;
/// The token ends a text or a turn: generation stops at it.
pub const LAYERLINE_TOKEN_END: u32 = 2;
/// The token stands for one byte, which may be part of a character.
pub const LAYERLINE_TOKEN_BYTE: u32 = 4;
/// The token was added by the maker of the model and is recognised in any text as it is written.
pub const LAYERLINE_TOKEN_USER_DEFINED: u32 = 8;
/// The token stands for text that the vocabulary does not have.
pub const LAYERLINE_TOKEN_UNKNOWN: u32 = 16;
/// The vocabulary marks the token as unused.
pub const LAYERLINE_TOKEN_UNUSED: u32 = 32;

fn numbered(attributes: TokenAttributes) -> u32 {
    [
        (attributes.control, LAYERLINE_TOKEN_CONTROL),
        (attributes.end, LAYERLINE_TOKEN_END),
        (attributes.byte, LAYERLINE_TOKEN_BYTE),
        (attributes.user_defined, LAYERLINE_TOKEN_USER_DEFINED),
        (attributes.unknown, LAYERLINE_TOKEN_UNKNOWN),
        (attributes.unused, LAYERLINE_TOKEN_UNUSED),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |all, (_, number)| all | number)
}

/// Gives the bytes that one token adds to a text that goes on, and what the token is. The bytes may be part of a
/// character, and may hold NULs. A control, unknown or unused token has the bytes of its name, such as "<|im_end|>", which
/// `layerline_model_detokenize` leaves out.
///
/// `buf`, `cap`, `needed`: the bytes, as described for strings at the top.
/// `attributes`: set to LAYERLINE_TOKEN_ values or-ed together, also when there is no room for the bytes.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_BUFFER_TOO_SMALL;
/// LAYERLINE_ERROR_UNSUPPORTED and LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_token_text(
    model: *const layerline_model,
    token: i32,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    attributes: *mut u32,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, buf) = (c.handle(model)?, c.out_array(buf, cap, "buf")?);
        let (needed, out) = (c.out(needed, "needed")?, c.out(attributes, "attributes")?);
        let (bytes, attributes) = model.model.tokenizer()?.token_text(token)?;
        needed.set(bytes.len());
        out.set(numbered(attributes));
        buf.set_text(&bytes)
    })
}

/// Tells whether a token ends a text or a turn: sets `end`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED and
/// LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_token_is_end(
    model: *const layerline_model,
    token: i32,
    end: *mut bool,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, end) = (c.handle(model)?, c.out(end, "end")?);
        end.set(model.model.tokenizer()?.is_end(token)?);
        Ok(())
    })
}
