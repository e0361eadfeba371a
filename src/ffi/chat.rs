//! Conversations, by the model's own template: as text, and as tokens.

use std::ffi::c_char;

use super::boundary::{self, Out, OutArray, array, c_bytes, enter, text, utf8};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use crate::error::Result;
use crate::text::Conversation;

/// One message of a conversation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_message {
    /// Who speaks, as the model's template calls it: "system", "user", "assistant", "tool". NUL-terminated UTF-8.
    pub role: *const c_char,
    /// What is said. NUL-terminated UTF-8, may be empty.
    pub content: *const c_char,
}

/// # Safety
/// `messages` is NULL or has `count` messages, whose strings are NULL or NUL-terminated.
unsafe fn conversation(messages: *const layerline_message, count: usize, add_assistant: bool) -> Result<Conversation> {
    // SAFETY: the caller vouches for it.
    let messages = unsafe { array(messages, count, "messages") }?;
    let mut pairs = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let string = |pointer, field: &str| {
            let name = format!("{field} of message {i}");
            // SAFETY: the caller vouches for it.
            utf8(unsafe { c_bytes(pointer, &name) }?, &name)
        };
        pairs.push((string(message.role, "role")?, string(message.content, "content")?));
    }
    Ok(Conversation::new(pairs, add_assistant))
}

/// # Safety
/// As for [`text`].
unsafe fn parsed(json: *const c_char, length: usize, add_assistant: bool) -> Result<Conversation> {
    // SAFETY: the caller vouches for it.
    Conversation::from_json(unsafe { text(json, length, "json") }?, add_assistant)
}

/// Writes the text of a conversation.
///
/// # Safety
/// The pointers are NULL or what the header asks for.
unsafe fn format(
    model: *const layerline_model,
    conversation: Result<Conversation>,
    (buf, cap, needed): (*mut c_char, usize, *mut usize),
) -> Result<()> {
    // SAFETY: the caller vouches for it.
    let (model, buf, needed) = unsafe { (enter(model)?, OutArray::new(buf, cap, "buf")?, Out::new(needed, "needed")?) };
    let text = model.model.chat().format(&conversation?)?;
    needed.set(text.len());
    buf.set_text(text.as_bytes())
}

/// Writes the tokens of a conversation.
///
/// # Safety
/// The pointers are NULL or what the header asks for.
unsafe fn tokenize(
    model: *const layerline_model,
    conversation: Result<Conversation>,
    (tokens, cap, needed): (*mut i32, usize, *mut usize),
) -> Result<()> {
    // SAFETY: the caller vouches for it.
    let (model, out, needed) =
        unsafe { (enter(model)?, OutArray::new(tokens, cap, "tokens")?, Out::new(needed, "needed")?) };
    let tokens = model.model.chat().tokenize(&conversation?)?;
    needed.set(tokens.len());
    out.set(&tokens)
}

/// The text of a conversation, by the template that comes with the model.
///
/// `messages`, `count`: in the order in which they were said. Which roles there are and whether they must alternate is the
/// template's business.
/// `add_assistant`: end where the assistant's answer begins, which is then to be generated.
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// The text is to be tokenised with LAYERLINE_TOKENIZE_SPECIAL and without LAYERLINE_TOKENIZE_BOS: templates spell the
/// beginning token where the model wants it. Control tokens that a message spells, such as "<|im_end|>" in what a user
/// typed, are recognised like the template's own, so that a user could speak for the system. For text from outside use
/// `layerline_chat_tokenize`, where what messages say stays text.
///
/// A template is rendered as the `transformers` package does it, so that the model sees what it was trained with. The
/// same messages give the same text, but for templates that ask for the date, which is UTC's. A call parses the template,
/// takes at most a second and 128 MiB whatever the template does, mostly a millisecond and little more than the text, and
/// frees all of it.
///
/// Errors: LAYERLINE_ERROR_UNSUPPORTED when the model has no template, or one that uses a function that is not built in;
/// LAYERLINE_ERROR_INVALID_ARGUMENT, also for messages that the template refuses or fails on, in its words;
/// LAYERLINE_ERROR_FORMAT for a template that cannot be parsed or goes beyond its bounds;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_chat_format(
    model: *const layerline_model,
    messages: *const layerline_message,
    count: usize,
    add_assistant: bool,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || format(model, conversation(messages, count, add_assistant), (buf, cap, needed)))
    }
}

/// The text of a conversation that is more than roles and contents: with tools, tool calls, documents, names.
///
/// `json`, `length`: a JSON object in UTF-8. Its members become the template's variables, as they are:
///   "messages"    required: an array of objects, most with "role" and "content". What else a message has, such as
///                 "tool_calls", "tool_call_id", "name" or "reasoning_content", the template finds in it; members that
///                 are null count as absent.
///   "tools"       an array: tools the model may call, each {"type": "function", "function": {"name": …, "description":
///                 …, "parameters": a JSON schema}}. A template for tools is taken where the model has one of its own.
///   "documents"   an array of objects, for templates that know them.
///   any other     what the template asks for: "enable_thinking", "reasoning_effort". "bos_token" and the like replace
///                 the texts of the model's own tokens.
/// `add_assistant`, `buf`, `cap`, `needed`: as for `layerline_chat_format`, and what is said there holds here.
///
/// Errors: those of `layerline_chat_format`; LAYERLINE_ERROR_INVALID_ARGUMENT says where the JSON is wrong. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_chat_format_json(
    model: *const layerline_model,
    json: *const c_char,
    length: usize,
    add_assistant: bool,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe { boundary::with_error(err, || format(model, parsed(json, length, add_assistant), (buf, cap, needed))) }
}

/// The tokens of a conversation: those of the text of `layerline_chat_format`, but that control tokens are recognised only
/// where the template spells them. In what messages say they stay text, so that nobody but the template speaks for another.
/// (A template that looks for control tokens inside a message does not find them.)
///
/// `messages`, `count`, `add_assistant`: as for `layerline_chat_format`.
/// `tokens`, `cap`, `needed`: the tokens, as for `layerline_tokenize`.
///
/// Errors: those of `layerline_chat_format` and of `layerline_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_chat_tokenize(
    model: *const layerline_model,
    messages: *const layerline_message,
    count: usize,
    add_assistant: bool,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe {
        boundary::with_error(err, || {
            tokenize(model, conversation(messages, count, add_assistant), (tokens, cap, needed))
        })
    }
}

/// The tokens of a conversation given as for `layerline_chat_format_json`, with control tokens as for
/// `layerline_chat_tokenize`: none in any string of the JSON is recognised, tools and documents included.
///
/// `json`, `length`, `add_assistant`: as for `layerline_chat_format_json`.
/// `tokens`, `cap`, `needed`: the tokens, as for `layerline_tokenize`.
///
/// Errors: those of `layerline_chat_format_json` and of `layerline_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_chat_tokenize_json(
    model: *const layerline_model,
    json: *const c_char,
    length: usize,
    add_assistant: bool,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    // SAFETY: each pointer is NULL or what the header asks for.
    unsafe { boundary::with_error(err, || tokenize(model, parsed(json, length, add_assistant), (tokens, cap, needed))) }
}
