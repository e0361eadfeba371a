//! Calls as JSON objects, in lists and in sections.

use super::format::{Calls, Format};
use super::object::{Nesting, Object, Outcome, Step};
use super::source::Found;
use super::{MessageParser, State};
use crate::error::Result;

/// What may begin something in text: the marks of reasoning, then those of calls.
pub(super) fn marks(format: &Format) -> Vec<&'static str> {
    let mut marks = vec![format.reasoning.0, format.reasoning.1];
    match format.calls {
        Calls::None => {}
        Calls::Objects { open, .. } | Calls::List { open, .. } => marks.push(open),
        Calls::Bare { mark, ends } => {
            marks.push(mark);
            marks.extend(ends);
        }
        Calls::Named { section, call, .. } => marks.extend([section.0, call.0, section.1]),
        Calls::Tagged(tags) => marks.extend([tags.open, tags.name.0]),
        Calls::Channels => marks = super::channels::MARKS.to_vec(),
    }
    marks
}

impl MessageParser {
    /// A mark of calls stands at the beginning of the rest.
    pub(super) fn call_mark(&mut self, which: usize, length: usize) -> Result<bool> {
        match self.format.calls {
            Calls::Objects { .. } => self.go(State::Object(Object::new(length, false))),
            Calls::List { .. } => self.go_from(State::ListName, length),
            // A mark of the end.
            Calls::Bare { .. } if which > 0 => {
                self.take_mark(length);
                Ok(true)
            }
            Calls::Bare { .. } => self.go(State::Object(Object::new(length, true))),
            Calls::Named { .. } if which == 0 => self.go_from(State::Section(length), length),
            Calls::Named { .. } if which == 1 => self.go_from(State::NamedHead, length),
            Calls::Named { .. } if self.out.has_calls() => {
                self.take_mark(length);
                Ok(true)
            }
            Calls::Tagged(_) if which == 0 => self.go_from(State::Tags(length), length),
            Calls::Tagged(_) => self.go_from(State::TagName(length), length),
            Calls::Named { .. } | Calls::None | Calls::Channels => self.no_call(length),
        }
    }

    /// The mark was text.
    pub(super) fn no_call(&mut self, length: usize) -> Result<bool> {
        self.say(length)?;
        self.go(State::Text)
    }

    pub(super) fn after_object(&mut self, outcome: Outcome) -> Result<bool> {
        match outcome {
            Outcome::More => Ok(false),
            Outcome::Text(bytes) => self.no_call(bytes),
            Outcome::Call | Outcome::Broken => {
                self.marked = true;
                self.go(State::Between)
            }
        }
    }

    pub(super) fn between(&mut self) -> Result<bool> {
        let (at, byte) = self.source.skip(b",;");
        let (close, strict) = match self.format.calls {
            Calls::Objects { close, .. } => (close, false),
            calls => ("", matches!(calls, Calls::Bare { .. })),
        };
        match byte {
            None if self.source.ended => {
                self.source.advance(at);
                self.go(State::Text)
            }
            None => Ok(false),
            Some(b'{') => self.go(State::Object(Object::new(at, strict))),
            Some(b']') if !strict => {
                self.source.advance(at + 1);
                self.go(State::Between)
            }
            // The rest of an object that broke off.
            Some(b'}') if !strict => {
                self.source.advance(at + 1);
                self.go(State::Between)
            }
            Some(_) => match self.source.begins(at, close) {
                None => Ok(false),
                Some(true) if !close.is_empty() => {
                    self.take_mark(at + close.len());
                    self.go(State::Text)
                }
                Some(_) => self.go(State::Text),
            },
        }
    }

    pub(super) fn list_name(&mut self) -> Result<bool> {
        let Calls::List { open, arguments, id } = self.format.calls else { return self.go(State::Text) };
        let (at, byte) = self.source.skip(&[]);
        match byte {
            None if self.source.ended => return self.no_call(open.len()),
            None => return Ok(false),
            Some(b'[' | b'{') => return self.go(State::Object(Object::new(at, false))),
            Some(_) => {}
        }
        let (end, which) = match self.source.find(&[arguments, "{", "\n", "\""]) {
            Found::Mark(end, which) => (end, which),
            Found::NoneBefore(end) if self.source.ended => return self.no_call(end),
            Found::NoneBefore(_) => return Ok(false),
        };
        let head = self.source.rest()[at.min(end)..end].trim();
        let (name, id) = head.split_once(id).map_or((head, None), |(name, id)| (name, Some(id)));
        if which > 1 || !is_name(name) {
            return self.no_call(end);
        }
        self.out.begin_call(name, id)?;
        self.take_mark(end + if which == 0 { arguments.len() } else { 0 });
        self.go(State::ListArguments(Nesting::default()))
    }

    /// Arguments that no mark ends.
    pub(super) fn list_arguments(&mut self) -> Result<bool> {
        let State::ListArguments(nesting) = &mut self.state else { return Ok(false) };
        let rest = self.source.rest();
        let (mut at, mut ended) = (0, false);
        for &byte in rest.as_bytes() {
            let step = nesting.step(byte);
            ended = !matches!(step, Step::Inside);
            at += usize::from(matches!(step, Step::Inside | Step::Last));
            if ended {
                break;
            }
        }
        self.out.arguments(&rest[..at])?;
        self.source.work += at as u64 + 1;
        self.source.advance(at);
        if !ended {
            return Ok(false);
        }
        self.out.end_call()?;
        self.go(State::Text)
    }

    pub(super) fn section(&mut self, mark: usize) -> Result<bool> {
        let Calls::Named { section, call, .. } = self.format.calls else { return self.go(State::Text) };
        let (at, _) = self.source.skip(&[]);
        match (self.source.begins(at, call.0), self.source.begins(at, section.1)) {
            (Some(true), _) => {
                self.take_mark(at);
                self.go_from(State::NamedHead, call.0.len())
            }
            (_, Some(true)) if mark == 0 => {
                self.take_mark(at + section.1.len());
                self.go(State::Text)
            }
            (None, _) | (_, None) => Ok(false),
            _ if mark > 0 => self.no_call(mark),
            _ => self.go(State::Text),
        }
    }

    /// What stands before the arguments.
    pub(super) fn named_head(&mut self) -> Result<bool> {
        let Calls::Named { call, arguments, .. } = self.format.calls else { return self.go(State::Text) };
        let (end, which) = match self.source.find(&[arguments, call.1]) {
            Found::Mark(end, which) => (end, which),
            Found::NoneBefore(end) if self.source.ended => return self.no_call(end),
            Found::NoneBefore(_) => return Ok(false),
        };
        let head = self.source.rest()[call.0.len()..end].trim();
        if which == 0 && head == "function" {
            let from = end + arguments.len();
            return self.go_from(State::NamedTyped(from), from);
        }
        // "functions.name:0" is both id and name.
        let numbered = head.rsplit_once(':').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
        let name = numbered.map_or(head, |(name, _)| name);
        let name = name.strip_prefix("functions.").unwrap_or(name);
        if !is_name(name) {
            return self.no_call(end);
        }
        self.out.begin_call(name, numbered.map(|_| head))?;
        self.take_mark(if which == 0 { end + arguments.len() } else { end });
        self.space.clear();
        self.go(State::NamedOpen)
    }

    /// After "function" and a mark the name has a line of its own. A function may also be called so.
    pub(super) fn named_typed(&mut self, from: usize) -> Result<bool> {
        let Calls::Named { call, .. } = self.format.calls else { return self.go(State::Text) };
        let (end, line) = match self.source.find(&["\n", "{", call.1]) {
            Found::Mark(end, which) => (end, which == 0),
            Found::NoneBefore(_) if self.source.ended => (self.source.rest().len(), false),
            Found::NoneBefore(_) => return Ok(false),
        };
        let name = self.source.rest()[from..end].trim();
        let (name, end) = if line && is_name(name) { (name, end) } else { ("function", from) };
        self.out.begin_call(name, None)?;
        self.take_mark(end);
        self.space.clear();
        self.go(State::NamedOpen)
    }

    pub(super) fn named_open(&mut self) -> Result<bool> {
        const FENCE: &str = "```json";
        let (at, _) = self.source.skip(&[]);
        match self.source.begins(at, FENCE) {
            None => Ok(false),
            Some(fenced) => {
                self.take_mark(if fenced { at + FENCE.len() } else { at });
                self.go(State::NamedArguments(fenced))
            }
        }
    }

    pub(super) fn named_arguments(&mut self, fenced: bool) -> Result<bool> {
        let Calls::Named { section, call, .. } = self.format.calls else { return self.go(State::Text) };
        match self.source.find(&[call.1, section.1]) {
            Found::NoneBefore(at) => {
                self.argue(at, fenced)?;
                Ok(false)
            }
            Found::Mark(at, which) => {
                self.argue(at, fenced)?;
                self.space.clear();
                self.take_mark(if which == 0 { call.1.len() } else { 0 });
                self.out.end_call()?;
                self.go(State::Section(0))
            }
        }
    }
}

/// Whether a text may be the name of a function.
pub(super) fn is_name(text: &str) -> bool {
    let taken = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | '[' | ']' | '"' | '<' | '>');
    !text.is_empty() && !text.contains(taken)
}
