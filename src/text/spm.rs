//! SentencePiece BPE: characters join to the token with the best score; what is in no token is spelt in bytes.

use super::merge::Merger;
use super::vocabulary::{Kind, NONE, TextTable, Vocabulary, named_byte};
use crate::error::{Error, Result};

/// SentencePiece writes a space as U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// One stretch of text is merged at a time, and its positions are 32 bits wide: a longer one is cut.
const LONGEST_STRETCH: usize = 1 << 30;

pub(super) struct Spm {
    scores: Vec<f32>,
    table: TextTable,
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
    /// Length in bytes of the longest token of the table.
    longest: usize,
    /// Last bytes of the characters that some token has before a space. After any other, no merge reaches over the
    /// start of a word, and words can be merged one at a time.
    glued: Box<[bool; 256]>,
}

impl Spm {
    /// `scores` has one entry per token. Control, unknown and byte tokens never come out of ordinary text by merging:
    /// a score cannot make text into an instruction.
    pub fn new(vocabulary: &Vocabulary, scores: Vec<f32>, unknown: Option<u32>) -> Result<Spm> {
        let mut bytes = Box::new([NONE; 256]);
        let mut merged = Vec::new();
        for token in 0..vocabulary.len() as u32 {
            match vocabulary.kind(token) {
                Kind::Byte => {
                    let text = vocabulary.text(token);
                    let byte = named_byte(text).ok_or_else(|| {
                        let text = String::from_utf8_lossy(text);
                        Error::format(format!("token {token} is a byte token, its text {text:?} names no byte"))
                    })?;
                    bytes[byte as usize] = token;
                }
                Kind::Control | Kind::Unknown => {}
                _ => merged.push(token),
            }
        }
        merged.retain(|&token| !vocabulary.text(token).is_empty());
        let mut table = TextTable::new(merged.len());
        for &token in &merged {
            table.insert(&vocabulary.texts, token);
        }
        let longest = merged.iter().map(|&token| vocabulary.text(token).len()).max().unwrap_or(0);
        let mut glued = Box::new([false; 256]);
        merged.iter().for_each(|&token| mark_glued(vocabulary.text(token), &mut glued));
        Ok(Spm { scores, table, bytes, unknown, longest, glued })
    }

    /// Appends the tokens of a text, with a space in front of it if `prefix`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, prefix: bool, merger: &mut Merger, out: &mut Vec<i32>) {
        let mut stretch = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let cut = word_end(rest, &self.glued).min(boundary_below(rest, LONGEST_STRETCH));
            stretch.clear();
            if prefix && rest.len() == text.len() {
                stretch.push_str(SPACE);
            }
            for (i, part) in rest[..cut].split(' ').enumerate() {
                if i > 0 {
                    stretch.push_str(SPACE);
                }
                stretch.push_str(part);
            }
            self.encode_stretch(vocabulary, &stretch, merger, out);
            rest = &rest[cut..];
        }
    }

    fn encode_stretch(&self, vocabulary: &Vocabulary, text: &str, merger: &mut Merger, out: &mut Vec<i32>) {
        let lookup = |from: u32, to: u32| {
            let part = &text.as_bytes()[from as usize..to as usize];
            if part.len() > self.longest { None } else { self.table.get(&vocabulary.texts, part) }
        };
        let end = text.len() as u32;
        merger.clear();
        for (start, c) in text.char_indices() {
            let start = start as u32;
            merger.push(start, lookup(start, start + c.len_utf8() as u32).unwrap_or(NONE));
        }
        merger.merge(end, |left, _, to| {
            let token = lookup(left.start, to)?;
            Some((rank(self.scores[token as usize]), token))
        });
        for (from, to, token) in merger.symbols(end) {
            if token != NONE {
                out.push(token as i32);
                continue;
            }
            let bytes = &text.as_bytes()[from as usize..to as usize];
            if bytes.iter().all(|&byte| self.bytes[byte as usize] != NONE) {
                out.extend(bytes.iter().map(|&byte| self.bytes[byte as usize] as i32));
            } else {
                out.extend(self.unknown.map(|token| token as i32));
            }
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        let arrays = self.scores.capacity() * size_of::<f32>() + size_of_val(&*self.bytes) + size_of_val(&*self.glued);
        self.table.memory_bytes() + arrays as u64
    }
}

/// A number that is lower where the score is higher, in the total order of floats; both zeros are one.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
}

/// Marks the bytes that stand before a space in a text, but for those of another space.
fn mark_glued(text: &[u8], glued: &mut [bool; 256]) {
    let space = SPACE.as_bytes();
    for at in 1..text.len() {
        if text[at..].starts_with(space) && !text[..at].ends_with(space) {
            glued[text[at - 1] as usize] = true;
        }
    }
}

/// The last start of a character at or before `limit`, or the end of the text.
fn boundary_below(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Where the first word ends: spaces, then anything but spaces, and the next word too if it may be glued to it. A
/// U+2581 in the text counts as the space it will be taken for.
fn word_end(text: &str, glued: &[bool; 256]) -> usize {
    let is_space = |c: char| c == ' ' || SPACE.starts_with(c);
    let mut end = 0;
    loop {
        end += text[end..].find(|c| !is_space(c)).unwrap_or(text.len() - end);
        end += text[end..].find(is_space).unwrap_or(text.len() - end);
        if end == text.len() || !glued[text.as_bytes()[end - 1] as usize] {
            return end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_score_has_a_lower_rank() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -2.0, -1e9, f32::NEG_INFINITY];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn words_start_at_their_spaces_unless_a_token_reaches_over_them() {
        let mut glued = [false; 256];
        mark_glued("\u{2581}\u{2581}a".as_bytes(), &mut glued);
        assert!(!glued.contains(&true));
        mark_glued(">\u{2581}</".as_bytes(), &mut glued);
        let end = |text| word_end(text, &glued);
        assert_eq!(end("  ab c"), 4);
        assert_eq!(end("ab c"), 2);
        assert_eq!(end("a\u{2581}b"), 1);
        assert_eq!(end("   "), 3);
        assert_eq!(end("a> b c"), 4);
        assert_eq!(end("> "), 2);
    }
}
