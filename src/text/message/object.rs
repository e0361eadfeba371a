//! A call that is a JSON object with the name and the arguments, read as it comes.

use super::output::Output;
use super::source::{Source, append};
use crate::error::Result;

/// Where a JSON value ends.
#[derive(Clone, Copy, Default)]
pub(super) struct Nesting {
    depth: usize,
    string: bool,
    escaped: bool,
    begun: bool,
}

pub(super) enum Step {
    Inside,
    /// The byte is the last.
    Last,
    /// The value has ended before the byte.
    Ended,
    /// The byte stands in no JSON.
    Foreign,
}

impl Nesting {
    pub fn step(&mut self, byte: u8) -> Step {
        if self.string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.string = false;
                    if self.depth == 0 {
                        return Step::Last;
                    }
                }
                _ => {}
            }
            return Step::Inside;
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth == 0 => return Step::Ended,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    return Step::Last;
                }
            }
            b'<' => return Step::Foreign,
            b',' if self.depth == 0 => return Step::Ended,
            _ if byte.is_ascii_whitespace() && self.depth == 0 && self.begun => return Step::Ended,
            _ if byte.is_ascii_whitespace() => return Step::Inside,
            _ => {}
        }
        self.begun = true;
        Step::Inside
    }
}

enum Phase {
    Open,
    Key,
    Colon,
    Value,
    /// A string: of which use, and where it begins.
    String(Use, usize, bool),
    /// A member that is not asked for.
    Skip(Nesting),
    Arguments(Nesting, usize),
}

#[derive(Clone, Copy, PartialEq)]
enum Use {
    Key,
    Name,
    Id,
    Arguments,
}

/// What came of it.
pub(super) enum Outcome {
    /// More text is needed.
    More,
    /// The object is complete, and all of it taken.
    Call,
    /// It is no call: so many bytes have been looked at. Nothing of it is taken.
    Text(usize),
    /// It was a call and broke off. What follows is not taken.
    Broken,
}

/// The object, from its beginning in a source. Nothing is taken until it is known for a call.
pub(super) struct Object {
    /// An object without arguments is no call.
    strict: bool,
    phase: Phase,
    at: usize,
    depth: usize,
    key: String,
    name: Option<String>,
    id: Option<String>,
    /// Arguments that came before the name.
    early: Option<String>,
    begun: bool,
}

impl Object {
    /// An object that begins so many bytes from here, perhaps after a bracket.
    pub fn new(at: usize, strict: bool) -> Object {
        let (key, name, id, early) = (String::new(), None, None, None);
        Object { strict, phase: Phase::Open, at, depth: 0, key, name, id, early, begun: false }
    }

    pub fn read(&mut self, source: &mut Source, out: &mut Output) -> Result<Outcome> {
        while let Some(&byte) = source.rest().as_bytes().get(self.at) {
            source.work += 1;
            let space = byte.is_ascii_whitespace();
            match &mut self.phase {
                Phase::Open if space || byte == b'[' => self.at += 1,
                Phase::Open if byte == b'{' => self.next(Phase::Key),
                Phase::Key if space || byte == b',' => self.at += 1,
                Phase::Key if byte == b'"' => self.next(Phase::String(Use::Key, self.at + 1, false)),
                Phase::Key if byte == b'}' && self.depth > 0 => {
                    self.depth -= 1;
                    self.at += 1;
                }
                Phase::Key if byte == b'}' => {
                    if !self.begun && (self.strict && self.early.is_none() || !self.begin(out)?) {
                        return Ok(Outcome::Text(self.at));
                    }
                    out.end_call()?;
                    source.advance(self.at + 1);
                    return Ok(Outcome::Call);
                }
                Phase::Colon if space => self.at += 1,
                Phase::Colon if byte == b':' => self.next(Phase::Value),
                Phase::Value if space => self.at += 1,
                Phase::Value => self.value(byte, source, out)?,
                Phase::String(_, _, escaped) if *escaped => {
                    *escaped = false;
                    self.at += 1;
                }
                Phase::String(_, _, escaped) if byte == b'\\' => {
                    *escaped = true;
                    self.at += 1;
                }
                &mut Phase::String(used, from, _) if byte == b'"' => self.string(used, from, source, out)?,
                Phase::String(..) => self.at += 1,
                Phase::Skip(nesting) => match nesting.step(byte) {
                    Step::Inside => self.at += 1,
                    Step::Last => self.next(Phase::Key),
                    Step::Ended => self.phase = Phase::Key,
                    Step::Foreign => return self.broken(source, out),
                },
                Phase::Arguments(nesting, from) => {
                    let (step, from) = (nesting.step(byte), *from);
                    match step {
                        Step::Inside => self.at += 1,
                        Step::Last | Step::Ended => {
                            self.at += usize::from(matches!(step, Step::Last));
                            self.take_arguments(from, source, out)?;
                            self.phase = Phase::Key;
                        }
                        Step::Foreign => return self.broken(source, out),
                    }
                }
                Phase::Open | Phase::Key | Phase::Colon => return self.broken(source, out),
            }
        }
        if source.ended {
            return self.broken(source, out);
        }
        if self.begun {
            self.take_begun(source, out)?;
        }
        Ok(Outcome::More)
    }

    fn next(&mut self, phase: Phase) {
        self.phase = phase;
        self.at += 1;
    }

    /// Begins the call; false while it has no name.
    fn begin(&mut self, out: &mut Output) -> Result<bool> {
        let Some(name) = &self.name else { return Ok(false) };
        out.begin_call(name, self.id.as_deref())?;
        self.begun = true;
        if let Some(early) = self.early.take() {
            out.arguments(&early)?;
        }
        Ok(true)
    }

    fn value(&mut self, byte: u8, source: &mut Source, out: &mut Output) -> Result<()> {
        let fresh = !self.begun && self.early.is_none();
        let string = |used| Phase::String(used, self.at + 1, false);
        match (self.key.as_str(), byte) {
            ("name" | "function", b'"') if self.name.is_none() => self.next(string(Use::Name)),
            ("function", b'{') if self.name.is_none() => {
                self.depth += 1;
                self.next(Phase::Key);
            }
            ("id", b'"') if self.id.is_none() => self.next(string(Use::Id)),
            ("arguments" | "parameters", b'"') if fresh => self.next(string(Use::Arguments)),
            ("arguments" | "parameters", _) if fresh => {
                if self.begin(out)? {
                    source.advance(self.at);
                    self.at = 0;
                }
                self.phase = Phase::Arguments(Nesting::default(), self.at);
            }
            _ => self.phase = Phase::Skip(Nesting::default()),
        }
        Ok(())
    }

    /// A string is complete.
    fn string(&mut self, used: Use, from: usize, source: &mut Source, out: &mut Output) -> Result<()> {
        source.work += (self.at - from) as u64;
        let written = &source.rest()[from - 1..=self.at];
        // Escapes that JSON does not know stay as they are written.
        let text = serde_json::from_str(written).unwrap_or_else(|_| written[1..written.len() - 1].to_string());
        match used {
            Use::Key => self.key = text,
            Use::Name => self.name = Some(text),
            Use::Id => self.id = Some(text),
            Use::Arguments => self.early = Some(text),
        }
        let known = self.early.is_some() && !self.begun;
        self.next(if used == Use::Key { Phase::Colon } else { Phase::Key });
        if known && used != Use::Key && self.begin(out)? {
            source.advance(self.at);
            self.at = 0;
        }
        Ok(())
    }

    /// Arguments from `from` up to here.
    fn take_arguments(&mut self, from: usize, source: &mut Source, out: &mut Output) -> Result<()> {
        if self.begun {
            out.arguments(&source.rest()[from..self.at])?;
            source.advance(self.at);
            self.at = 0;
        } else {
            let mut early = String::new();
            append(&mut early, &source.rest()[from..self.at])?;
            self.early = Some(early);
        }
        Ok(())
    }

    /// Gives out what has come of the arguments, and takes what has been looked at but for a string.
    fn take_begun(&mut self, source: &mut Source, out: &mut Output) -> Result<()> {
        match &mut self.phase {
            Phase::String(..) => return Ok(()),
            Phase::Arguments(_, from) => {
                out.arguments(&source.rest()[*from..self.at])?;
                *from = 0;
            }
            _ => {}
        }
        source.advance(self.at);
        self.at = 0;
        Ok(())
    }

    /// The object ends here without its brace.
    fn broken(&mut self, source: &mut Source, out: &mut Output) -> Result<Outcome> {
        if let (false, Phase::Arguments(_, from)) = (self.begun, &self.phase) {
            let from = *from;
            self.take_arguments(from, source, out)?;
        }
        if !self.begun && (self.strict || !self.begin(out)?) {
            return Ok(Outcome::Text(self.at));
        }
        self.take_begun_at_end(source, out)?;
        out.end_call()?;
        Ok(Outcome::Broken)
    }

    fn take_begun_at_end(&mut self, source: &mut Source, out: &mut Output) -> Result<()> {
        if matches!(self.phase, Phase::String(..)) {
            self.phase = Phase::Key;
        }
        self.take_begun(source, out)
    }
}
