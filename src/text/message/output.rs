//! What becomes of the text: the parts of a message as they come, and the message.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

use super::source::append;
use crate::error::Result;
use crate::sys::heap;

/// What a part of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// More of the answer.
    Content,
    /// More of what the model thinks before it answers.
    Reasoning,
    /// A tool call begins: its name.
    Call,
    /// More of the arguments of a call, which are JSON where the model makes no mistake.
    Arguments,
    /// A tool call is complete.
    CallEnd,
}

/// A part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagePart<'a> {
    pub kind: PartKind,
    /// Which call of the message, from 0; 0 for other parts.
    pub call: u32,
    /// Text, a name, or nothing.
    pub text: &'a str,
    /// What the call is named by when its result is given; empty for what is no call.
    pub id: &'a str,
}

struct Part {
    kind: PartKind,
    call: usize,
    text: Range<usize>,
}

struct Call {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Default)]
pub(super) struct Output {
    text: String,
    parts: Vec<Part>,
    taken: usize,
    content: String,
    reasoning: String,
    calls: Vec<Call>,
}

/// "call" with five digits or letters: not given before by this process, until sixty million were, and another process is
/// unlikely to have begun with the same.
fn new_id() -> String {
    static NEXT: LazyLock<AtomicU64> =
        LazyLock::new(|| AtomicU64::new(RandomState::new().hash_one(std::process::id())));
    let mut number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = *b"call00000";
    for digit in id[4..].iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    id.iter().map(|&byte| char::from(byte)).collect()
}

impl Output {
    pub fn clear(&mut self) {
        *self = Output::default();
    }

    /// Frees the parts, where all of them are taken.
    pub fn forget_taken(&mut self) {
        if self.taken == self.parts.len() {
            self.text.clear();
            self.parts.clear();
            self.taken = 0;
        }
    }

    pub fn next(&mut self) -> Option<MessagePart<'_>> {
        let part = self.parts.get(self.taken)?;
        self.taken += 1;
        let of_call = matches!(part.kind, PartKind::Call | PartKind::Arguments | PartKind::CallEnd);
        let id = if of_call { self.calls[part.call].id.as_str() } else { "" };
        Some(MessagePart { kind: part.kind, call: part.call as u32, text: &self.text[part.text.clone()], id })
    }

    fn part(&mut self, kind: PartKind, call: usize, text: &str) -> Result<()> {
        let at = self.text.len();
        append(&mut self.text, text)?;
        let open = self.parts[self.taken..].last_mut();
        let goes_on = |last: &Part| last.kind == kind && last.call == call && last.text.end == at;
        match open.filter(|last| goes_on(last) && !matches!(kind, PartKind::Call | PartKind::CallEnd)) {
            Some(last) => last.text.end = self.text.len(),
            None => heap::push(&mut self.parts, Part { kind, call, text: at..self.text.len() }, "parts of a message")?,
        }
        Ok(())
    }

    pub fn content(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        append(&mut self.content, text)?;
        self.part(PartKind::Content, 0, text)
    }

    pub fn reasoning(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        append(&mut self.reasoning, text)?;
        self.part(PartKind::Reasoning, 0, text)
    }

    pub fn has_content(&self) -> bool {
        !self.content.is_empty()
    }

    pub fn has_reasoning(&self) -> bool {
        !self.reasoning.is_empty()
    }

    pub fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether the last call has arguments.
    pub fn has_arguments(&self) -> bool {
        self.calls.last().is_some_and(|call| !call.arguments.is_empty())
    }

    /// Begins a call. One without an id gets one of nine letters and digits, as some templates want it.
    pub fn begin_call(&mut self, name: &str, id: Option<&str>) -> Result<()> {
        let id = match id.filter(|id| !id.is_empty()) {
            Some(id) => copied(id)?,
            None => new_id(),
        };
        heap::push(&mut self.calls, Call { id, name: copied(name)?, arguments: String::new() }, "tool calls")?;
        self.part(PartKind::Call, self.calls.len() - 1, name)
    }

    /// More of the arguments of the last call.
    pub fn arguments(&mut self, text: &str) -> Result<()> {
        let Some(call) = self.calls.last_mut().filter(|_| !text.is_empty()) else { return Ok(()) };
        append(&mut call.arguments, text)?;
        self.part(PartKind::Arguments, self.calls.len() - 1, text)
    }

    /// The last call is complete. One without arguments gets an empty object.
    pub fn end_call(&mut self) -> Result<()> {
        if self.calls.last().is_some_and(|call| call.arguments.is_empty()) {
            self.arguments("{}")?;
        }
        self.part(PartKind::CallEnd, self.calls.len().saturating_sub(1), "")
    }

    /// The message, as a conversation has it.
    pub fn message(&self) -> Value {
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), self.content.as_str().into());
        if self.has_reasoning() {
            message.insert("reasoning_content".into(), self.reasoning.as_str().into());
        }
        if self.has_calls() {
            let call = |call: &Call| {
                let read = serde_json::from_str::<Map<String, Value>>(&call.arguments).ok();
                let arguments = read.map_or_else(|| call.arguments.as_str().into(), Value::Object);
                let function = json!({ "name": call.name, "arguments": arguments });
                json!({ "id": call.id, "type": "function", "function": function })
            };
            message.insert("tool_calls".into(), self.calls.iter().map(call).collect());
        }
        Value::Object(message)
    }
}

fn copied(text: &str) -> Result<String> {
    let mut copy = String::new();
    append(&mut copy, text)?;
    Ok(copy)
}
