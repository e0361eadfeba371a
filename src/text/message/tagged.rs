//! Calls whose arguments stand between marks of their own.

use super::calls::is_name;
use super::format::{Calls, Tags};
use super::source::Found;
use super::{MessageParser, State};
use crate::error::Result;

/// The call that is being read.
#[derive(Default)]
pub(super) struct Call {
    name: String,
    key: String,
    arguments: usize,
}

impl MessageParser {
    fn own_tags(&self) -> Option<Tags> {
        match self.format.calls {
            Calls::Tagged(tags) => Some(tags),
            _ => None,
        }
    }

    pub(super) fn tags(&mut self, mark: usize) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        let (at, _) = self.source.skip(&[]);
        // Without a mark of its own the name follows the section's.
        if tags.name.0.is_empty() && mark > 0 {
            return self.go_from(State::TagName(mark), mark);
        }
        let name = if tags.name.0.is_empty() { Some(false) } else { self.source.begins(at, tags.name.0) };
        match (name, self.source.begins(at, tags.close)) {
            (Some(true), _) => {
                let from = at + tags.name.0.len();
                self.go_from(State::TagName(from), from)
            }
            (_, Some(true)) if mark == 0 => {
                self.take_mark(at + tags.close.len());
                self.go(State::Text)
            }
            (None, _) | (_, None) => Ok(false),
            _ if mark > 0 => self.no_call(mark),
            _ => self.go(State::Text),
        }
    }

    pub(super) fn tag_name(&mut self, from: usize) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        let alone = tags.name.1.is_empty();
        let marks = if alone { [tags.key.0, tags.close, "\n", "{"] } else { [tags.name.1, "\n", "{", ""] };
        let (end, which) = match self.source.find(&marks) {
            Found::Mark(end, which) => (end, which),
            Found::NoneBefore(end) if self.source.ended => return self.no_call(end),
            Found::NoneBefore(_) => return Ok(false),
        };
        let name = self.source.rest()[from..end].trim();
        if which > if alone { 2 } else { 0 } || !is_name(name) {
            return self.no_call(end);
        }
        self.out.begin_call(name, None)?;
        self.call = Call { name: name.to_string(), ..Call::default() };
        self.take_mark(end + tags.name.1.len());
        self.go(State::TagBody)
    }

    pub(super) fn tag_body(&mut self) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        let (at, byte) = self.source.skip(&[]);
        if byte.is_none() {
            self.source.advance(at);
            return Ok(false);
        }
        let begins = |mark: &str| if mark.is_empty() { Some(false) } else { self.source.begins(at, mark) };
        match (begins(tags.key.0), begins(tags.end), begins(tags.close)) {
            (Some(true), _, _) => {
                self.take_mark(at + tags.key.0.len());
                self.go(State::TagKey)
            }
            (_, end @ Some(true), _) | (_, end, Some(true)) => {
                self.end_tagged()?;
                self.out.end_call()?;
                let ended = end == Some(true);
                self.take_mark(at + if ended { tags.end.len() } else { tags.close.len() });
                self.go(if ended { State::Tags(0) } else { State::Text })
            }
            (None, _, _) | (_, None, _) | (_, _, None) => Ok(false),
            _ => {
                self.source.advance(at);
                self.go(State::TagStray)
            }
        }
    }

    /// Text in the midst of a call.
    pub(super) fn tag_stray(&mut self) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        match self.source.find(&[tags.key.0, tags.end, tags.close]) {
            Found::NoneBefore(at) => {
                self.say(at)?;
                Ok(false)
            }
            Found::Mark(at, _) => {
                self.say(at)?;
                self.go(State::TagBody)
            }
        }
    }

    pub(super) fn tag_key(&mut self) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        match self.source.find(&[tags.key.1]) {
            Found::Mark(end, _) => {
                self.call.key = self.source.rest()[..end].trim().to_string();
                self.take_mark(end + tags.key.1.len());
                self.go(if tags.value.0.is_empty() { State::TagValue } else { State::TagGap })
            }
            Found::NoneBefore(_) if self.source.ended => {
                let bytes = self.source.rest().len();
                self.say(bytes)?;
                Ok(false)
            }
            Found::NoneBefore(_) => Ok(false),
        }
    }

    pub(super) fn tag_gap(&mut self) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        let (at, _) = self.source.skip(&[]);
        match self.source.begins(at, tags.value.0) {
            None => Ok(false),
            Some(begins) => {
                self.take_mark(if begins { at + tags.value.0.len() } else { at });
                self.go(State::TagValue)
            }
        }
    }

    pub(super) fn tag_value(&mut self) -> Result<bool> {
        let Some(tags) = self.own_tags() else { return self.go(State::Text) };
        let (end, mark) = match self.source.find(&[tags.value.1]) {
            Found::Mark(end, _) => (end, tags.value.1.len()),
            Found::NoneBefore(end) if self.source.ended => (end, 0),
            Found::NoneBefore(_) => return Ok(false),
        };
        let mut value = &self.source.rest()[..end];
        if mark == 0 {
            // The text ends without the mark, but perhaps with those that follow it.
            for other in [tags.close, tags.end] {
                let bare = value.trim_end().strip_suffix(other).filter(|_| !other.is_empty());
                value = bare.unwrap_or(value);
            }
        }
        if tags.lines {
            value = value.strip_prefix('\n').unwrap_or(value);
            value = value.strip_suffix('\n').unwrap_or(value);
        }
        let before = if self.call.arguments == 0 { "{" } else { "," };
        let written = self.tools.written(&self.call.name, &self.call.key, value)?;
        self.out.arguments(before)?;
        self.out.arguments(&written)?;
        self.call.arguments += 1;
        self.take_mark(end + mark);
        self.go(State::TagBody)
    }

    /// Ends the object of arguments.
    pub(super) fn end_tagged(&mut self) -> Result<()> {
        if self.own_tags().is_some() && self.call.arguments > 0 {
            self.out.arguments("}")?;
        }
        self.call.arguments = 0;
        Ok(())
    }
}
