//! Conversations, by the model's own template: as text, and as tokens.

use std::ffi::c_char;

use super::boundary::{Caller, caller};
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

fn conversation(
    c: &Caller,
    messages: *const layerline_message,
    count: usize,
    add_assistant: bool,
) -> Result<Conversation> {
    let messages = c.array(messages, count, "messages")?;
    let mut pairs = Vec::with_capacity(messages.len());
    for (i, message) in messages.iter().enumerate() {
        let string = |pointer, field: &str| c.c_text(pointer, &format!("{field} of message {i}"));
        pairs.push((string(message.role, "role")?, string(message.content, "content")?));
    }
    Ok(Conversation::new(pairs, add_assistant))
}

fn parsed(c: &Caller, json: *const c_char, length: usize, add_assistant: bool) -> Result<Conversation> {
    Conversation::from_json(c.text(json, length, "json")?, add_assistant)
}

/// Writes the text of a conversation.
fn format(
    c: &Caller,
    model: *const layerline_model,
    conversation: Result<Conversation>,
    buffer: (*mut c_char, usize, *mut usize),
) -> Result<()> {
    let (model, (buf, needed)) = (c.handle(model)?, c.out_buffer(buffer)?);
    let text = model.model.chat().format(&conversation?)?;
    needed.set(text.len());
    buf.set_text(text.as_bytes())
}

/// Writes the tokens of a conversation.
fn tokenize(
    c: &Caller,
    model: *const layerline_model,
    conversation: Result<Conversation>,
    (tokens, cap, needed): (*mut i32, usize, *mut usize),
) -> Result<()> {
    let (model, out, needed) = (c.handle(model)?, c.out_array(tokens, cap, "tokens")?, c.out(needed, "needed")?);
    let tokens = model.model.chat().tokenize(&conversation?)?;
    needed.set(tokens.len());
    out.set(&tokens)
}

/// Gives the text of a conversation, by the template that comes with the model.
///
/// `messages`, `count`: in the order in which they were said. The template decides which roles there are and whether they
/// must alternate.
/// `add_assistant`: end where the assistant's answer begins, which is then to be generated.
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// The text is to be tokenised with LAYERLINE_TOKENIZE_SPECIAL and without LAYERLINE_TOKENIZE_BOS: templates spell the
/// beginning token where the model wants it. Control tokens that a message spells, such as "<|im_end|>" in what a user
/// typed, are recognised like the template's own, so that a user could speak for the system. For text from outside use
/// `layerline_model_tokenize_chat`, where the text of messages stays text.
///
/// A template is rendered as the `transformers` package does it, so that the model sees what it was trained with. The
/// same messages give the same text, except for templates that ask for the date, which is that of UTC. A call parses the
/// template, takes at most a second, 128 MiB and 512 KiB of stack whatever the template does, mostly a millisecond and
/// little more than the text, and frees all of it. Each further MiB of messages allows for as much again. The text has at
/// most 2 MiB and 16 bytes for each of the messages.
///
/// Errors: LAYERLINE_ERROR_NOT_FOUND when the model has no template; LAYERLINE_ERROR_UNSUPPORTED when it uses a function
/// that is not built in; LAYERLINE_ERROR_INVALID_ARGUMENT, also for messages that the template refuses or fails on, in its
/// words;
/// LAYERLINE_ERROR_FORMAT for a template that cannot be parsed or goes beyond its bounds;
/// LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_format_chat(
    model: *const layerline_model,
    messages: *const layerline_message,
    count: usize,
    add_assistant: bool,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| format(c, model, conversation(c, messages, count, add_assistant), (buf, cap, needed)))
}

/// Gives the text of a conversation that is more than roles and contents: with tools, tool calls, documents, names.
///
/// `json`, `length`: a JSON object in UTF-8. Its members become the template's variables, as they are, also integers of any
/// length:
///   "messages"    required: an array of objects, most with "role" and "content". What else a message has, such as
///                 "tool_calls", "tool_call_id", "name" or "reasoning_content", the template finds in it; members that
///                 are null count as absent, unless the template fails without them. Arguments of tool calls that are
///                 JSON text are read where the template fails on text.
///   "tools"       an array: tools the model may call, each {"type": "function", "function": {"name": …, "description":
///                 …, "parameters": a JSON schema}}. A template for tools is taken where the model has one.
///   "documents"   an array of objects, for templates that know them.
///   any other     what the template asks for: "enable_thinking", "reasoning_effort". "bos_token" and the like replace
///                 the texts of the model's own tokens.
/// `add_assistant`, `buf`, `cap`, `needed`: as for `layerline_model_format_chat`, and what is said there holds here.
///
/// Errors: those of `layerline_model_format_chat`; LAYERLINE_ERROR_INVALID_ARGUMENT says where the JSON is wrong. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_format_chat_json(
    model: *const layerline_model,
    json: *const c_char,
    length: usize,
    add_assistant: bool,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| format(c, model, parsed(c, json, length, add_assistant), (buf, cap, needed)))
}

/// Gives the tokens of a conversation: those of the text of `layerline_model_format_chat`, except that control tokens are
/// recognised only where the template spells them. In the text of messages they stay text, so that a message cannot speak
/// for another role.
/// (A template that looks for control tokens inside a message does not find them.)
/// Beside what rendering takes, a call takes the memory of `layerline_model_tokenize` for the text.
///
/// `messages`, `count`, `add_assistant`: as for `layerline_model_format_chat`.
/// `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
///
/// Errors: those of `layerline_model_format_chat` and of `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_tokenize_chat(
    model: *const layerline_model,
    messages: *const layerline_message,
    count: usize,
    add_assistant: bool,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| tokenize(c, model, conversation(c, messages, count, add_assistant), (tokens, cap, needed)))
}

/// Gives the tokens of a conversation given as for `layerline_model_format_chat_json`, with control tokens as for
/// `layerline_model_tokenize_chat`: none in any string of the JSON is recognised, tools and documents included.
///
/// `json`, `length`, `add_assistant`: as for `layerline_model_format_chat_json`.
/// `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
///
/// Errors: those of `layerline_model_format_chat_json` and of `layerline_model_tokenize`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_model_tokenize_chat_json(
    model: *const layerline_model,
    json: *const c_char,
    length: usize,
    add_assistant: bool,
    tokens: *mut i32,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| tokenize(c, model, parsed(c, json, length, add_assistant), (tokens, cap, needed)))
}
