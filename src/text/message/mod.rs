//! From what a model writes to messages: what it says, what it thinks, and the tools it calls.
//!
//! The text comes in pieces of any size, and what is made of it does not depend on how it is cut. Nothing is refused: what
//! is not a call after all is text, arguments that are not JSON stay as they are written, and what is open at the end ends
//! there. Only marks, white space around them and members of a call that have no meaning here are left out.

mod calls;
mod channels;
mod format;
mod object;
mod output;
mod source;
mod tagged;
mod tools;

#[cfg(test)]
mod tests;

use std::ffi::CStr;

use super::utf8::Utf8Stream;
use crate::error::{Error, Result};
use format::{Calls, FORMATS, Format};
use object::{Nesting, Object};
use output::Output;
pub use output::{MessagePart, PartKind};
use source::{Found, Source, append};
use tools::Tools;

/// Where in a message the parser is.
enum State {
    /// Before the answer, where some formats have no mark for a call.
    Start,
    Text,
    Reasoning,
    Object(Object),
    /// After an object: another, or a mark.
    Between,
    /// Of a list: the name, after the mark.
    ListName,
    ListArguments(Nesting),
    /// Before a call of a section, after so many bytes of its mark.
    Section(usize),
    NamedHead,
    /// The name of a call whose head says what kind it is, so many bytes from here.
    NamedTyped(usize),
    NamedOpen,
    /// Arguments up to a mark, perhaps between fences.
    NamedArguments(bool),
    /// Before a call with tags, after so many bytes of the section's mark.
    Tags(usize),
    /// Where the name begins.
    TagName(usize),
    TagBody,
    TagStray,
    TagKey,
    TagGap,
    TagValue,
    Header,
    Body(channels::Body),
    Ended,
}

/// Turns the text that a model writes into the parts of a message.
///
/// ```
/// use layerline::{MessageParser, PartKind};
///
/// # fn main() -> layerline::Result<()> {
/// let mut parser = MessageParser::new("hermes", "")?;
/// parser.feed(b"<think>Hm.</think>\nOne moment.\n<tool_call>\n{\"name\": \"time\", \"argu")?;
/// parser.feed(b"ments\": {\"zone\": \"CET\"}}\n</tool_call>")?;
/// parser.finish()?;
/// let mut said = String::new();
/// while let Some(part) = parser.next_part() {
///     if part.kind == PartKind::Content {
///         said.push_str(part.text);
///     }
/// }
/// assert_eq!(said, "One moment.");
/// assert!(parser.message()?.contains(r#""arguments":{"zone":"CET"}"#));
/// # Ok(())
/// # }
/// ```
pub struct MessageParser {
    format: &'static Format,
    tools: Tools,
    marks: Vec<&'static str>,
    bytes: Utf8Stream,
    source: Source,
    out: Output,
    state: State,
    /// White space that may stand before a mark.
    space: String,
    /// A mark has come since the last text.
    marked: bool,
    call: tagged::Call,
}

impl MessageParser {
    /// A parser for a format by its name: `hermes` (and Qwen), `qwen3-coder`, `llama3`, `mistral`, `deepseek`, `harmony`,
    /// `glm`, `kimi`, `minimax`, or `plain`, which has reasoning alone.
    ///
    /// `tools`: the tools of the conversation as JSON, or empty. Formats that do not quote strings take the types of
    /// arguments from them.
    ///
    /// # Errors
    /// `NOT_FOUND`: no format has the name. `INVALID_ARGUMENT`: the tools are not a JSON array.
    pub fn new(format: &str, tools: &str) -> Result<MessageParser> {
        let found = format::named(format).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
            Error::not_found(format!("no message format is called {format:?}; there are {}", names.join(", ")))
        })?;
        Self::of(found, tools)
    }

    /// A parser for what a model writes whose chat template this is. Templates of families that are not known give
    /// `plain`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the tools are not a JSON array.
    pub fn for_template(template: &str, tools: &str) -> Result<MessageParser> {
        Self::of(format::of_template(template), tools)
    }

    fn of(format: &'static Format, tools: &str) -> Result<MessageParser> {
        let mut parser = MessageParser {
            format,
            tools: Tools::new(tools)?,
            marks: calls::marks(format),
            bytes: Utf8Stream::new(),
            source: Source::default(),
            out: Output::default(),
            state: State::Ended,
            space: String::new(),
            marked: false,
            call: tagged::Call::default(),
        };
        parser.begin("");
        Ok(parser)
    }

    /// The name of the format.
    pub fn format(&self) -> &'static str {
        self.format.name()
    }

    /// The name of the format for C.
    #[doc(hidden)]
    pub fn format_c(&self) -> &'static CStr {
        self.format.name
    }

    /// Begins another message, and forgets the last.
    ///
    /// `prompt`: the text before it, or the end of that, or nothing. Some templates begin the reasoning themselves.
    pub fn begin(&mut self, prompt: &str) {
        self.source.clear();
        self.out.clear();
        self.space.clear();
        self.bytes = Utf8Stream::new();
        self.marked = false;
        let thinks = prompt.trim_end().ends_with(self.format.reasoning.0);
        self.state = if thinks { State::Reasoning } else { State::Start };
    }

    /// Takes more of the text, cut anywhere. Bytes that can never become a character become U+FFFD.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the message has ended. `OUT_OF_MEMORY`: what has not been given out of the message is lost.
    pub fn feed(&mut self, text: &[u8]) -> Result<()> {
        if matches!(self.state, State::Ended) {
            return Err(Error::invalid("the message has ended: begin another"));
        }
        self.out.forget_taken();
        // In steps, so that the memory for what is taken does not grow with the piece.
        for piece in text.chunks(PIECE) {
            let mut whole = String::new();
            self.bytes.push(piece, &mut whole);
            self.take(&whole)?;
        }
        Ok(())
    }

    /// Ends the message: what was kept back is given out.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn finish(&mut self) -> Result<()> {
        if matches!(self.state, State::Ended) {
            return Ok(());
        }
        self.out.forget_taken();
        let mut rest = String::new();
        self.bytes.finish(&mut rest);
        self.source.ended = true;
        self.take(&rest)?;
        if self.in_call() {
            self.end_tagged()?;
            self.out.end_call()?;
        } else if !self.marked && !matches!(self.state, State::Reasoning | State::Body(channels::Body::Reasoning)) {
            self.out.content(&self.space)?;
        }
        self.state = State::Ended;
        Ok(())
    }

    /// The next part of what has been fed, or `None` until more is.
    pub fn next_part(&mut self) -> Option<MessagePart<'_>> {
        self.out.next()
    }

    /// The message so far as JSON, as a conversation has it: `role`, `content`, and where there are any
    /// `reasoning_content` and `tool_calls`. Arguments are an object, or text where they are not one.
    ///
    /// # Errors
    /// `INTERNAL`: it cannot be written, which does not happen.
    pub fn message(&self) -> Result<String> {
        let written = serde_json::to_string(&self.out.message());
        written.map_err(|e| Error::new(crate::error::Status::Internal, format!("a message cannot be written: {e}")))
    }

    /// Bytes that have been looked at, to test that they are not too many.
    #[doc(hidden)]
    pub fn work(&self) -> u64 {
        self.source.work
    }

    fn take(&mut self, text: &str) -> Result<()> {
        self.source.push(text)?;
        while self.step()? {}
        Ok(())
    }

    fn go(&mut self, state: State) -> Result<bool> {
        self.go_from(state, 0)
    }

    /// Goes on in a state that searches so many bytes from here.
    fn go_from(&mut self, state: State, from: usize) -> Result<bool> {
        self.source.search_from(from);
        self.state = state;
        Ok(true)
    }

    /// A step of the parser; false where it needs more text.
    fn step(&mut self) -> Result<bool> {
        match &mut self.state {
            State::Ended => Ok(false),
            State::Start => self.start(),
            State::Text => self.text(),
            State::Reasoning => self.reasoning(),
            State::Object(object) => {
                let outcome = object.read(&mut self.source, &mut self.out)?;
                self.after_object(outcome)
            }
            State::Between => self.between(),
            State::ListName => self.list_name(),
            State::ListArguments(_) => self.list_arguments(),
            &mut State::Section(mark) => self.section(mark),
            State::NamedHead => self.named_head(),
            &mut State::NamedTyped(from) => self.named_typed(from),
            State::NamedOpen => self.named_open(),
            &mut State::NamedArguments(fenced) => self.named_arguments(fenced),
            &mut State::Tags(mark) => self.tags(mark),
            &mut State::TagName(from) => self.tag_name(from),
            State::TagBody => self.tag_body(),
            State::TagStray => self.tag_stray(),
            State::TagKey => self.tag_key(),
            State::TagGap => self.tag_gap(),
            State::TagValue => self.tag_value(),
            State::Header => self.header(),
            &mut State::Body(body) => self.body(body),
        }
    }

    /// Whether a call has begun and not ended, other than that of an object.
    fn in_call(&self) -> bool {
        use State::{Body, ListArguments, NamedArguments, NamedOpen, TagBody, TagGap, TagKey, TagStray, TagValue};
        let arguments = matches!(self.state, Body(channels::Body::Arguments));
        arguments
            || matches!(self.state, ListArguments(_) | NamedOpen | NamedArguments(_))
            || matches!(self.state, TagBody | TagStray | TagKey | TagGap | TagValue)
    }

    /// What follows white space decides whether the answer is a call.
    fn start(&mut self) -> Result<bool> {
        let (at, byte) = self.source.skip(&[]);
        if byte.is_none() && !self.source.ended {
            return Ok(false);
        }
        match self.format.calls {
            Calls::Bare { .. } if byte == Some(b'{') => self.go(State::Object(Object::new(at, true))),
            Calls::Channels => self.channel_start(at),
            _ => self.go(State::Text),
        }
    }

    fn text(&mut self) -> Result<bool> {
        let marks = std::mem::take(&mut self.marks);
        let found = self.source.find(&marks);
        let length = |which: usize| marks.get(which).map_or(0, |mark| mark.len());
        let (at, mark) = match found {
            Found::NoneBefore(at) => (at, None),
            Found::Mark(at, which) => (at, Some((which, length(which)))),
        };
        self.marks = marks;
        self.say(at)?;
        let Some((which, length)) = mark else { return Ok(false) };
        match which {
            _ if matches!(self.format.calls, Calls::Channels) => self.channel_mark(which, length),
            0 if !self.out.has_content() && !self.out.has_reasoning() && !self.out.has_calls() => {
                self.take_mark(length);
                self.space.clear();
                self.go(State::Reasoning)
            }
            // The prompt may have begun and ended the reasoning in part.
            1 if !self.out.has_content() && !self.out.has_calls() => {
                self.take_mark(length);
                self.go(State::Start)
            }
            0 | 1 => {
                self.say(length)?;
                self.go(State::Text)
            }
            _ => self.call_mark(which - 2, length),
        }
    }

    fn reasoning(&mut self) -> Result<bool> {
        let section = match self.format.calls {
            Calls::Named { section, .. } => section.0,
            _ => "",
        };
        let close = self.format.reasoning.1;
        match self.source.find(&[close, section]) {
            Found::NoneBefore(at) => {
                self.think(at)?;
                Ok(false)
            }
            Found::Mark(at, which) => {
                self.think(at)?;
                self.space.clear();
                self.take_mark(if which == 0 { close.len() } else { 0 });
                self.go(State::Start)
            }
        }
    }

    /// Takes a mark.
    fn take_mark(&mut self, length: usize) {
        self.source.advance(length);
        self.marked = true;
    }

    /// Gives out text as content. White space at its end waits for what follows.
    fn say(&mut self, bytes: usize) -> Result<()> {
        let text = &self.source.rest()[..bytes];
        let solid = text.trim_end_matches(is_space);
        let first = self.marked && !self.out.has_content();
        if !solid.is_empty() {
            if !first {
                self.out.content(&self.space)?;
            }
            self.space.clear();
            self.out.content(if first { solid.trim_start_matches(is_space) } else { solid })?;
            self.marked = false;
        }
        append(&mut self.space, &text[solid.len()..])?;
        self.source.advance(bytes);
        Ok(())
    }

    /// Gives out text as reasoning, without white space around all of it.
    fn think(&mut self, bytes: usize) -> Result<()> {
        let text = &self.source.rest()[..bytes];
        let solid = text.trim_end_matches(is_space);
        let first = !self.out.has_reasoning();
        if !solid.is_empty() {
            if !first {
                self.out.reasoning(&self.space)?;
            }
            self.space.clear();
            self.out.reasoning(if first { solid.trim_start_matches(is_space) } else { solid })?;
        }
        append(&mut self.space, &text[solid.len()..])?;
        self.source.advance(bytes);
        Ok(())
    }

    /// Gives out text as arguments, without white space around them, and without the fence where there is one.
    fn argue(&mut self, bytes: usize, fenced: bool) -> Result<()> {
        let text = &self.source.rest()[..bytes];
        let solid = text.trim_end_matches(|c| is_space(c) || fenced && c == '`');
        let first = !self.out.has_arguments();
        if !solid.is_empty() {
            if !first {
                self.out.arguments(&self.space)?;
            }
            self.space.clear();
            self.out.arguments(if first { solid.trim_start_matches(is_space) } else { solid })?;
        }
        append(&mut self.space, &text[solid.len()..])?;
        self.source.advance(bytes);
        Ok(())
    }
}

/// Bytes that are looked at before what is made of them is given out.
const PIECE: usize = 16 << 10;

fn is_space(c: char) -> bool {
    c.is_ascii_whitespace()
}
