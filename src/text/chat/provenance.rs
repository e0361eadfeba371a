//! Which characters of a rendered text are the template's own.
//!
//! Where a template writes a literal, the characters that may be part of a control token are moved to a plane of private
//! use, one for one, so that lengths and slices stay as they are. No operation makes such a character out of one of a
//! message: a control token is one only where all its characters are the template's own.

use std::ops::Range;

/// First code points of the two planes of private use.
const PLANES: [u32; 2] = [0x10_0000, 0xf_0000];
/// The last two code points of a plane are no characters.
const LAST: u32 = 0xfffd;

/// Words that templates join to a control token, as in `'<|' + message.role + '|>'`.
const ROLES: &[&str] =
    &["system", "user", "assistant", "tool", "developer", "function", "ipython", "model", "environment", "observation"];

/// Moves the template's own characters.
#[derive(Clone, Debug)]
pub(super) struct Tagger {
    plane: u32,
    /// Texts of the control tokens, sorted.
    controls: Vec<String>,
    /// The same read backwards, sorted.
    backwards: Vec<Vec<u8>>,
    /// Bytes of the longest.
    longest: usize,
}

impl Tagger {
    /// With a plane that none of the texts uses; `None` where both are in use.
    pub fn new(mut controls: Vec<String>, texts: impl FnOnce(&mut dyn FnMut(&str))) -> Option<Tagger> {
        let mut used = [false; 2];
        texts(&mut |text| {
            for c in text.chars() {
                for (used, plane) in used.iter_mut().zip(PLANES) {
                    *used |= (plane..=plane + LAST).contains(&(c as u32));
                }
            }
        });
        let plane = PLANES.into_iter().zip(used).find(|&(_, used)| !used)?.0;
        controls.sort_unstable();
        let mut backwards: Vec<Vec<u8>> = controls.iter().map(|text| text.bytes().rev().collect()).collect();
        backwards.sort_unstable();
        let longest = controls.iter().map(String::len).max().unwrap_or(0);
        Some(Tagger { plane, controls, backwards, longest })
    }

    /// A literal, with what may be part of a control token moved.
    pub fn literal(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut moved = vec![false; bytes.len()];
        for at in 0..bytes.len() {
            let length = self.longest_prefix(&bytes[at..]);
            moved[at..at + length].fill(true);
        }
        let longest = self.longest.min(bytes.len());
        // A beginning of a control token at the end of the literal, and an end of one at its beginning.
        if let Some(from) = (bytes.len() - longest..bytes.len()).find(|&from| is_prefix(&self.controls, &bytes[from..]))
        {
            moved[from..].fill(true);
        }
        let reversed: Vec<u8> = bytes[..longest].iter().rev().copied().collect();
        if let Some(from) = (0..reversed.len()).find(|&from| is_prefix(&self.backwards, &reversed[from..])) {
            moved[..longest - from].fill(true);
        }
        text.char_indices().map(|(at, c)| if moved[at] { self.moved(c) } else { c }).collect()
    }

    /// The name of a role, moved where it is one of those that templates join to control tokens.
    pub fn role(&self, text: &str) -> Option<String> {
        ROLES.contains(&text).then(|| self.whole(text))
    }

    pub fn whole(&self, text: &str) -> String {
        text.chars().map(|c| self.moved(c)).collect()
    }

    fn moved(&self, c: char) -> char {
        // White space stays, so that trimming finds it.
        let own = Some(c as u32).filter(|&code| code <= LAST && !c.is_whitespace());
        own.and_then(|code| char::from_u32(self.plane + code)).unwrap_or(c)
    }

    /// A rendered text with every character in its place, and which bytes of it are the template's own.
    pub fn restore(&self, text: &str) -> (String, Vec<Range<usize>>) {
        let mut out = String::with_capacity(text.len());
        let mut own: Vec<Range<usize>> = Vec::new();
        for c in text.chars() {
            let code = (c as u32).wrapping_sub(self.plane);
            let moved = Some(code).filter(|&code| code <= LAST).and_then(char::from_u32);
            let from = out.len();
            out.push(moved.unwrap_or(c));
            match own.last_mut() {
                _ if moved.is_none() => {}
                Some(last) if last.end == from => last.end = out.len(),
                _ => own.push(from..out.len()),
            }
        }
        (out, own)
    }

    /// Bytes of the longest control token that a text begins with.
    fn longest_prefix(&self, text: &[u8]) -> usize {
        let mut candidates = &self.controls[..];
        let mut longest = 0;
        for (depth, &byte) in text.iter().enumerate() {
            let at = |control: &String| control.as_bytes().get(depth).copied();
            let low = candidates.partition_point(|control| at(control) < Some(byte));
            let high = candidates.partition_point(|control| at(control) <= Some(byte));
            candidates = &candidates[low..high];
            let Some(first) = candidates.first() else { break };
            if first.len() == depth + 1 {
                longest = depth + 1;
            }
        }
        longest
    }
}

/// Whether one of the sorted texts begins with `part`.
fn is_prefix(sorted: &[impl AsRef<[u8]>], part: &[u8]) -> bool {
    let at = sorted.partition_point(|text| text.as_ref() < part);
    sorted.get(at).is_some_and(|text| text.as_ref().starts_with(part))
}
