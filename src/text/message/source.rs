//! Text that has come and is not parsed yet.

use crate::error::{Error, Result};

/// The text, and how far it has been looked at: no byte is looked at more often than the longest mark has bytes.
#[derive(Default)]
pub(super) struct Source {
    text: String,
    at: usize,
    /// From `at`: no mark begins before it.
    searched: usize,
    /// From `at`: what has been skipped.
    skipped: usize,
    /// No more text comes.
    pub ended: bool,
    /// Bytes looked at.
    pub work: u64,
}

/// What a search finds.
pub(super) enum Found {
    /// Where a mark begins, and which.
    Mark(usize, usize),
    /// None; no mark begins before this place.
    NoneBefore(usize),
}

pub(super) fn append(to: &mut String, text: &str) -> Result<()> {
    to.try_reserve(text.len()).map_err(|_| Error::out_of_memory(format!("{} bytes of a message", text.len())))?;
    to.push_str(text);
    Ok(())
}

impl Source {
    pub fn clear(&mut self) {
        self.text.clear();
        (self.at, self.searched, self.skipped, self.ended) = (0, 0, 0, false);
    }

    /// Takes more text, and forgets what is parsed.
    pub fn push(&mut self, text: &str) -> Result<()> {
        if self.at > 0 {
            self.text.drain(..self.at);
            self.at = 0;
        }
        append(&mut self.text, text)
    }

    pub fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    pub fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.searched = self.searched.saturating_sub(bytes);
        self.skipped = self.skipped.saturating_sub(bytes);
    }

    /// Looks for something else, so many bytes from here.
    pub fn search_from(&mut self, from: usize) {
        (self.searched, self.skipped) = (from, from);
    }

    /// The first of `marks` in the rest. Where the text ends with the beginning of one, it may still become one.
    pub fn find(&mut self, marks: &[&str]) -> Found {
        let rest = &self.text.as_bytes()[self.at..];
        let mut i = self.searched;
        while i < rest.len() {
            self.work += 1;
            for (which, mark) in marks.iter().enumerate().filter(|(_, mark)| !mark.is_empty()) {
                let same = rest[i..].iter().zip(mark.as_bytes()).take_while(|(a, b)| a == b).count();
                self.work += same as u64;
                if same == mark.len() {
                    self.searched = i;
                    return Found::Mark(i, which);
                }
                if i + same == rest.len() && !self.ended {
                    self.searched = i;
                    return Found::NoneBefore(i);
                }
            }
            i += 1;
        }
        self.searched = i;
        Found::NoneBefore(i)
    }

    /// Where the rest goes on after white space and the bytes of `others`, and with which byte.
    pub fn skip(&mut self, others: &[u8]) -> (usize, Option<u8>) {
        let bytes = self.text.as_bytes();
        let byte = loop {
            self.work += 1;
            match bytes.get(self.at + self.skipped) {
                Some(byte) if byte.is_ascii_whitespace() || others.contains(byte) => self.skipped += 1,
                other => break other.copied(),
            }
        };
        (self.skipped, byte)
    }

    /// Whether the rest, from `from` on, begins with `mark`; `None` while that may still come.
    pub fn begins(&self, from: usize, mark: &str) -> Option<bool> {
        let rest = &self.rest()[from..];
        if rest.starts_with(mark) {
            Some(true)
        } else if !self.ended && mark.as_bytes().starts_with(rest.as_bytes()) {
            None
        } else {
            Some(false)
        }
    }
}
