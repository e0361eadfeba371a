//! What models write to messages: tool calls and reasoning.

use std::ffi::c_char;

use parking_lot::Mutex;

use super::boundary::{Handle, Poison, busy, caller, owned, versioned};
use super::error::{layerline_error, layerline_status};
use super::model::layerline_model;
use crate::error::Error;
use crate::text::{MessageParser, PartKind};

/// More of the answer.
pub const LAYERLINE_PART_CONTENT: u32 = 0;
/// More of what the model thinks before it answers.
pub const LAYERLINE_PART_REASONING: u32 = 1;
/// A tool call begins: `text` is its name.
pub const LAYERLINE_PART_CALL: u32 = 2;
/// More of the arguments of a call: JSON, where the model makes no mistake.
pub const LAYERLINE_PART_ARGUMENTS: u32 = 3;
/// A tool call is complete.
pub const LAYERLINE_PART_CALL_END: u32 = 4;

/// A part of a message.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct layerline_message_part {
    /// Set by the caller to sizeof(layerline_message_part) before the call.
    pub struct_size: u32,
    /// A LAYERLINE_PART_ value.
    pub kind: u32,
    /// Which call of the message, from 0; 0 for other parts.
    pub call: u32,
    /// Always 0.
    pub reserved: u32,
    /// UTF-8 of `length` bytes, without a NUL: text, a name, or nothing. Valid until the next call on the parser.
    pub text: *const c_char,
    /// Bytes of `text`.
    pub length: usize,
    /// Of a call: what its result names it by, the model's own or one of nine letters and digits. As `text`.
    pub id: *const c_char,
    /// Bytes of `id`; 0 for what is no call.
    pub id_length: usize,
}

versioned!(layerline_message_part as "message_part", up to id_length: usize);

/// Turns what a model writes into messages: what it says, what it thinks, and the tools it calls. It belongs to one
/// message at a time. Its memory, a few times that of the message, is outside every budget.
///
/// The text may be cut anywhere: the parts are the same. Nothing is refused: what is not a call after all is content,
/// arguments that are not JSON stay as they are written, and what is open at the end ends there. White space around marks
/// is left out, and so are members of a call that have no meaning here. Time and memory grow with the text and no faster.
///
/// Some formats mark calls by control tokens: deepseek, harmony, kimi and mistral, and llama3 in part. The text must have
/// them: `layerline_sampler_set_show_control`, LAYERLINE_DETOKENIZE_CONTROL.
pub struct layerline_message_parser {
    poison: Poison,
    parser: Mutex<MessageParser>,
}

impl Handle for layerline_message_parser {
    const NAME: &'static str = "message parser";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// Makes a parser for what a model writes.
///
/// `model`: its chat template tells the format; NULL where `format` names it. It is not kept.
/// `format`: NULL, or one of "hermes" (also Qwen 2.5 and 3), "qwen3-coder" (also Qwen 3.5), "llama3", "mistral", "deepseek",
/// "harmony" (gpt-oss), "glm", "kimi", "minimax", and "plain", which has reasoning alone. A template that is of none of
/// these families makes it "plain".
/// `tools`, `length`: the JSON array "tools" of the conversation, or NULL and 0. "qwen3-coder", "glm" and "minimax" write
/// strings without quotes: from the schemas the parser knows which arguments are strings. Without them "12" is a number.
/// `parser`: set to a parser that the caller owns: `layerline_message_parser_free`. It is ready for a message.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where `tools` is not a JSON array, and where neither a model nor a format
/// is given; LAYERLINE_ERROR_NOT_FOUND: no format has the name; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_new(
    model: *const layerline_model,
    format: *const c_char,
    tools: *const c_char,
    length: usize,
    parser: *mut *mut layerline_message_parser,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (model, out) = (c.optional(model)?, c.out(parser, "parser")?);
        let tools = c.text(tools, length, "tools")?;
        let inner = match (format.is_null(), model) {
            (false, _) => MessageParser::new(c.c_text(format, "format")?, tools)?,
            (true, Some(model)) => model.model.chat().message_parser(tools)?,
            (true, None) => return Err(Error::invalid("model and format are NULL: one of them tells the format")),
        };
        out.set(owned(layerline_message_parser { poison: Poison::default(), parser: Mutex::new(inner) })?);
        Ok(())
    })
}

/// Frees a parser; NULL is a no-op. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_free(parser: *mut layerline_message_parser) {
    caller!().free(parser);
}

/// Returns the name of the format; "" for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_format(parser: *const layerline_message_parser) -> *const c_char {
    caller!().or(c"".as_ptr(), |c| {
        let handle = c.handle(parser)?;
        Ok(handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?.format_c().as_ptr())
    })
}

/// Begins another message, and forgets the last.
///
/// `prompt`, `length`: the text that the message answers, as `layerline_model_format_chat` gives it, or its last bytes, or
/// NULL and 0: some templates end it inside the reasoning, which the parser must know.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the parser runs. One thread at a
/// time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_begin(
    parser: *mut layerline_message_parser,
    prompt: *const c_char,
    length: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, prompt) = (c.handle(parser)?, c.array(prompt.cast::<u8>(), length, "prompt")?);
        let end = &prompt[prompt.len().saturating_sub(256)..];
        let mut parser = handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?;
        parser.begin(&String::from_utf8_lossy(end));
        Ok(())
    })
}

/// Takes more of the text. Then `layerline_message_parser_next` gives the parts.
///
/// `text`, `length`: cut anywhere, also inside a character. Bytes that can never become one become U+FFFD.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also when the message has ended; LAYERLINE_ERROR_OUT_OF_MEMORY: begin another
/// message; LAYERLINE_ERROR_BUSY while another call on the parser runs. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_feed(
    parser: *mut layerline_message_parser,
    text: *const c_char,
    length: usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, text) = (c.handle(parser)?, c.array(text.cast::<u8>(), length, "text")?);
        handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?.feed(text)
    })
}

/// Ends the message: what was kept back becomes parts.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_BUSY while another call on the
/// parser runs. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_finish(
    parser: *mut layerline_message_parser,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let handle = c.handle(parser)?;
        handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?.finish()
    })
}

/// Gives the next part of what has been fed.
///
/// `part`: filled; its texts are valid until the next call on the parser.
///
/// Returns whether there was one: false until more is fed, and for NULL. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_next(
    parser: *mut layerline_message_parser,
    part: *mut layerline_message_part,
) -> bool {
    caller!().or(false, |c| {
        let (handle, out) = (c.handle(parser)?, c.out_struct(part)?);
        let mut parser = handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?;
        let Some(next) = parser.next_part() else { return Ok(false) };
        let kind = match next.kind {
            PartKind::Content => LAYERLINE_PART_CONTENT,
            PartKind::Reasoning => LAYERLINE_PART_REASONING,
            PartKind::Call => LAYERLINE_PART_CALL,
            PartKind::Arguments => LAYERLINE_PART_ARGUMENTS,
            PartKind::CallEnd => LAYERLINE_PART_CALL_END,
        };
        // What is empty has an address too, that nothing is read from.
        let start = |text: &str| if text.is_empty() { c"".as_ptr() } else { text.as_ptr().cast() };
        out.set(layerline_message_part {
            struct_size: 0,
            kind,
            call: next.call,
            reserved: 0,
            text: start(next.text),
            length: next.text.len(),
            id: start(next.id),
            id_length: next.id.len(),
        });
        Ok(true)
    })
}

/// Gives the message so far as JSON: {"role": "assistant", "content": …, "reasoning_content": …, "tool_calls": [{"id": …,
/// "type": "function", "function": {"name": …, "arguments": …}}]}, the last two members where there are any. Arguments
/// are an object, or text where they are not one. So it goes on the "messages" of `layerline_model_format_chat_json`.
///
/// `buf`, `cap`, `needed`: the text, as described for strings at the top.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on
/// the parser runs. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_message_parser_message(
    parser: *const layerline_message_parser,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let (handle, (buf, needed)) = (c.handle(parser)?, c.out_buffer((buf, cap, needed))?);
        let message = handle.parser.try_lock().ok_or_else(busy::<layerline_message_parser>)?.message()?;
        needed.set(message.len());
        buf.set_text(message.as_bytes())
    })
}
