//! SentencePiece BPE: characters join to the token with the best score; what is in no token is spelt in bytes.

use super::escape::{Fallback, Stretch, Words};
use super::long::{Long, is_long};
use super::merge::Merger;
use super::vocabulary::{NONE, TextTable, Vocabulary};
use crate::error::Result;

pub(super) struct Spm {
    scores: Vec<f32>,
    table: TextTable,
    fallback: Fallback,
    /// Length in bytes of the longest token of the table.
    longest: usize,
    words: Words,
}

impl Spm {
    /// `scores` has one entry per token. Control, unknown and byte tokens never come out of ordinary text by merging:
    /// a score cannot make text into an instruction.
    pub fn new(vocabulary: &Vocabulary, scores: Vec<f32>, unknown: Option<u32>) -> Result<Spm> {
        let texts = || vocabulary.of_text().map(|token| vocabulary.text(token));
        Ok(Spm {
            scores,
            table: TextTable::of(&vocabulary.texts, vocabulary.of_text()),
            fallback: Fallback::new(vocabulary, unknown)?,
            longest: texts().map(<[u8]>::len).max().unwrap_or(0),
            words: Words::new(texts()),
        })
    }

    /// Appends the tokens of a text, with a space in front of it if `prefix`.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, prefix: bool, merger: &mut Merger, out: &mut Vec<i32>) {
        let from = out.len();
        let mut buffer = String::new();
        self.words.each(text, prefix, &mut |word| {
            if is_long(word.len()) {
                self.encode_long(vocabulary, word, &mut buffer, from, out);
            } else {
                self.encode_word(vocabulary, word.escaped(&mut buffer), merger, from, out);
            }
        });
    }

    /// The token of each part is looked up again where it is needed, so that none is kept.
    fn encode_long(
        &self,
        vocabulary: &Vocabulary,
        word: Stretch,
        buffer: &mut String,
        from: usize,
        out: &mut Vec<i32>,
    ) {
        let mut long = Long::new(word.len(), false);
        word.starts().for_each(|start| long.push(start, NONE));
        let mut lookup = |from: usize, to: usize| {
            if to - from > self.longest {
                return None;
            }
            self.table.get(&vocabulary.texts, word.part(from, to, buffer).as_bytes())
        };
        long.merge(|pair| {
            let token = lookup(pair.start, pair.end)?;
            Some((rank(self.scores[token as usize]), token))
        });
        out.reserve(long.count());
        for (start, end, _) in long.symbols() {
            match lookup(start, end) {
                Some(token) => out.push(token as i32),
                None => self.fallback.spell(word.part(start, end, &mut String::new()).as_bytes(), from, out),
            }
        }
    }

    fn encode_word(&self, vocabulary: &Vocabulary, text: &str, merger: &mut Merger, from: usize, out: &mut Vec<i32>) {
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
        for (start, end, token) in merger.symbols(end) {
            if token != NONE {
                out.push(token as i32);
            } else {
                self.fallback.spell(&text.as_bytes()[start as usize..end as usize], from, out);
            }
        }
    }

    /// The token that stands for a byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        self.fallback.byte(byte)
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.scores.capacity() * size_of::<f32>()) as u64
            + self.table.memory_bytes()
            + self.fallback.memory_bytes()
            + self.words.memory_bytes()
    }
}

/// A number that is lower where the score is higher, in the total order of floats; both zeros are one.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let rank = if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) };
    // The highest number stands for no rank.
    rank.min(NONE - 1)
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
}
