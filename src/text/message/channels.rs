//! Messages with channels, as gpt-oss writes them.

use super::calls::is_name;
use super::source::Found;
use super::{MessageParser, State};
use crate::error::Result;

const START: &str = "<|start|>";
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const ENDS: [&str; 3] = ["<|end|>", "<|return|>", "<|call|>"];

pub(super) const MARKS: [&str; 6] = [START, CHANNEL, MESSAGE, ENDS[0], ENDS[1], ENDS[2]];

/// What the text of a message is.
#[derive(Clone, Copy)]
pub(super) enum Body {
    Content,
    Reasoning,
    Arguments,
}

impl MessageParser {
    /// The prompt ends inside a header.
    pub(super) fn channel_start(&mut self, at: usize) -> Result<bool> {
        match (self.source.begins(at, "to="), self.source.begins(at, CHANNEL)) {
            (Some(true), _) | (_, Some(true)) => {
                self.source.advance(at);
                self.go(State::Header)
            }
            (None, _) | (_, None) => Ok(false),
            _ => self.go(State::Text),
        }
    }

    pub(super) fn channel_mark(&mut self, which: usize, length: usize) -> Result<bool> {
        match which {
            0 | 1 => self.go(State::Header),
            2 => {
                self.take_mark(length);
                self.go(State::Body(Body::Content))
            }
            _ => {
                self.take_mark(length);
                Ok(true)
            }
        }
    }

    /// The header, which says who is spoken to and on which channel.
    pub(super) fn header(&mut self) -> Result<bool> {
        let end = match self.source.find(&[MESSAGE, ENDS[0], ENDS[1], ENDS[2]]) {
            Found::Mark(end, 0) => end,
            Found::Mark(end, _) => return self.no_call(end),
            Found::NoneBefore(end) if self.source.ended => return self.no_call(end),
            Found::NoneBefore(_) => return Ok(false),
        };
        let header = &self.source.rest()[..end];
        let word = |mark: &str| {
            let (_, after) = header.split_once(mark)?;
            Some(&after[..after.find(|c: char| c == '<' || c.is_whitespace()).unwrap_or(after.len())])
        };
        let spoken_to = word("to=").map(|name| name.strip_prefix("functions.").unwrap_or(name));
        let body = match (spoken_to, word(CHANNEL)) {
            (Some(name), _) if is_name(name) && !["user", "all", "assistant"].contains(&name) => {
                self.out.begin_call(name, None)?;
                self.space.clear();
                Body::Arguments
            }
            (_, Some("analysis")) => Body::Reasoning,
            _ => Body::Content,
        };
        self.take_mark(end + MESSAGE.len());
        let goes_on = match body {
            Body::Content => self.out.has_content(),
            Body::Reasoning => self.out.has_reasoning(),
            Body::Arguments => false,
        };
        if goes_on {
            self.space.clear();
            self.space.push('\n');
        }
        self.go(State::Body(body))
    }

    pub(super) fn body(&mut self, body: Body) -> Result<bool> {
        let found = self.source.find(&[ENDS[0], ENDS[1], ENDS[2], START, CHANNEL]);
        let (Found::NoneBefore(at) | Found::Mark(at, _)) = found;
        match body {
            Body::Content => self.say(at)?,
            Body::Reasoning => self.think(at)?,
            Body::Arguments => self.argue(at, false)?,
        }
        let Found::Mark(_, which) = found else { return Ok(false) };
        if matches!(body, Body::Arguments) {
            self.out.end_call()?;
        }
        self.space.clear();
        self.take_mark(ENDS.get(which).map_or(0, |mark| mark.len()));
        self.go(State::Text)
    }
}
