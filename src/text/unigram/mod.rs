//! SentencePiece unigram: of all ways to cut a text into tokens, the one whose scores sum up to the most.

mod charsmap;

pub(super) use charsmap::Charsmap;

use std::ops::Range;

use super::escape::{Fallback, SPACE, Words};
use super::trie::Trie;
use super::vocabulary::{Kind, NONE, Vocabulary};
use super::work::limit;
use crate::error::{Error, Result};

/// Bytes of a word whose ways are kept at a time.
const SEGMENT: usize = 16 << 10;

/// What the unknown token's score is below the least of the vocabulary.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The longest token, in bytes: at each place of a text up to as many tokens are tried.
const LONGEST_TOKEN: usize = 256;

pub(super) struct Unigram {
    trie: Trie,
    scores: Vec<f32>,
    unknown_score: f64,
    fallback: Fallback,
    words: Words,
    normalizer: Normalizer,
}

/// What is done to a text before it is cut.
pub(super) struct Normalizer {
    pub charsmap: Option<Charsmap>,
    /// Put a space before the text, or behind it with `space_is_suffix`.
    pub add_space: bool,
    pub space_is_suffix: bool,
    /// Spaces at both ends go, several in a row become one.
    pub merge_spaces: bool,
}

/// The best way to reach a place in a text: by which token from where, `NONE` for a character that is in no token.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: u32,
    from: u32,
}

/// The token of a way that came from before the segment.
const EARLIER: u32 = NONE - 1;

const START: Best = Best { score: 0.0, token: NONE, from: 0 };
const UNREACHED: Best = Best { score: f64::NEG_INFINITY, token: NONE, from: 0 };

impl Unigram {
    /// `scores` has one entry per token. Control, unknown and byte tokens never come out of ordinary text.
    pub fn new(
        vocabulary: &Vocabulary,
        scores: Vec<f32>,
        unknown: Option<u32>,
        normalizer: Normalizer,
    ) -> Result<Unigram> {
        let entries: Vec<u32> = (0..vocabulary.len() as u32)
            .filter(|&token| matches!(vocabulary.kind(token), Kind::Normal | Kind::UserDefined | Kind::Unused))
            .filter(|&token| !vocabulary.text(token).is_empty() && !vocabulary.is_doubled(token))
            .collect();
        if let Some(long) = entries.iter().find(|&&token| vocabulary.text(token).len() > LONGEST_TOKEN) {
            let length = vocabulary.text(*long).len();
            return Err(Error::unsupported(format!(
                "token {long} has {length} bytes; a unigram tokeniser takes at most {LONGEST_TOKEN}"
            )));
        }
        if let Some(token) = entries.iter().find(|&&token| !scores[token as usize].is_finite()) {
            let score = scores[*token as usize];
            return Err(Error::format(format!("tokenizer.ggml.scores: token {token} has the score {score}")));
        }
        let normal = entries.iter().filter(|&&token| vocabulary.kind(token) == Kind::Normal);
        let least = normal.map(|&token| f64::from(scores[token as usize])).fold(f64::INFINITY, f64::min);
        Ok(Unigram {
            words: Words::new(entries.iter().map(|&token| vocabulary.text(token))),
            trie: Trie::new(vocabulary, entries),
            scores,
            unknown_score: if least.is_finite() { least - UNKNOWN_PENALTY } else { -UNKNOWN_PENALTY },
            fallback: Fallback::new(vocabulary, unknown)?,
            normalizer,
        })
    }

    /// Appends the tokens of a text, with a space at it where the model wants one and `space` allows it.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, space: bool, out: &mut Vec<i32>) {
        let from = out.len();
        let normal = self.normalizer.apply(text, space);
        let mut best = Vec::new();
        self.words.each(&normal, false, &mut |word| self.encode_word(vocabulary, word.text, &mut best, from, out));
    }

    /// The best way through a word, found in segments: of a long word the scores at the start of each are kept, and the
    /// ways through it found a second time, from the last segment to the first, so that memory hardly grows with the word.
    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, best: &mut Vec<Best>, from: usize, out: &mut Vec<i32>) {
        let (mut bases, mut marks) = (vec![0], Vec::<Box<[f64]>>::new());
        let mut base = 0;
        best.clear();
        best.push(START);
        loop {
            let end = boundary_above(word, base + limit(SEGMENT, LONGEST_TOKEN + 4));
            self.forward(word, base..end, best);
            if end == word.len() {
                break;
            }
            best.drain(..end - base);
            marks.push(best.iter().map(|best| best.score).collect());
            best.iter_mut().for_each(|best| best.token = EARLIER);
            bases.push(end);
            base = end;
        }
        // Back along the best way.
        let first = out.len();
        let mut end = word.len();
        loop {
            while end > base && best[end - base].token != EARLIER {
                let Best { token, from, .. } = best[end - base];
                out.push(token as i32);
                end = from as usize;
            }
            if base == 0 {
                break;
            }
            let before = base;
            bases.pop();
            marks.pop();
            base = bases.last().copied().unwrap_or(0);
            best.clear();
            match marks.last().filter(|_| base > 0) {
                Some(mark) => best.extend(mark.iter().map(|&score| Best { score, token: EARLIER, from: 0 })),
                None => best.push(START),
            }
            self.forward(word, base..before, best);
        }
        out[first..].reverse();
        if out[first..].contains(&(NONE as i32)) {
            let pieces = out.split_off(first);
            let mut rest = word;
            for piece in pieces {
                let unknown = piece == NONE as i32;
                let length = if unknown {
                    rest.chars().next().map_or(0, char::len_utf8)
                } else {
                    vocabulary.text(piece as u32).len()
                };
                let (text, after) = rest.split_at(length);
                if unknown {
                    self.fallback.spell(text.as_bytes(), from, out)
                } else {
                    out.push(piece)
                }
                rest = after;
            }
        }
    }

    /// Goes from each character of a segment to where the tokens from there end. `best` begins at the segment's start.
    fn forward(&self, word: &str, segment: Range<usize>, best: &mut Vec<Best>) {
        let (bytes, base) = (word.as_bytes(), segment.start);
        best.resize((segment.end + LONGEST_TOKEN).min(bytes.len()) - base + 1, UNREACHED);
        for (at, c) in word[segment].char_indices() {
            let start = base + at;
            let score = best[at].score;
            let mut node = Trie::ROOT;
            let mut whole = false;
            for (at, &byte) in bytes.iter().enumerate().skip(start) {
                let Some(next) = self.trie.step(node, byte) else { break };
                node = next;
                if let Some(token) = self.trie.token(node) {
                    whole |= at + 1 == start + c.len_utf8();
                    let score = score + f64::from(self.scores[token as usize]);
                    reach(&mut best[at + 1 - base], score, token, start);
                }
            }
            if !whole {
                reach(&mut best[start + c.len_utf8() - base], score + self.unknown_score, NONE, start);
            }
        }
    }

    /// The token that stands for a byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        self.fallback.byte(byte)
    }

    pub fn memory_bytes(&self) -> u64 {
        self.trie.memory_bytes()
            + (self.scores.capacity() * size_of::<f32>()) as u64
            + self.fallback.memory_bytes()
            + self.words.memory_bytes()
            + self.normalizer.charsmap.as_ref().map_or(0, Charsmap::memory_bytes)
    }
}

/// The first start of a character at or behind `limit`, or the end of the text.
fn boundary_above(text: &str, limit: usize) -> usize {
    (limit..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

fn reach(best: &mut Best, score: f64, token: u32, from: usize) {
    if score > best.score {
        *best = Best { score, token, from: from as u32 };
    }
}

impl Normalizer {
    fn apply(&self, text: &str, space: bool) -> String {
        // In no more memory than it takes: a space becomes three bytes.
        let spaces = text.bytes().filter(|&byte| byte == b' ').count();
        let length = match &self.charsmap {
            Some(charsmap) => {
                let mut length = 0;
                charsmap.apply(text, &mut |c| length += if c == ' ' { SPACE.len() } else { c.len_utf8() });
                length
            }
            None => text.len() + spaces * (SPACE.len() - 1),
        };
        let mut out = String::with_capacity(length + SPACE.len());
        if space && self.add_space && !self.space_is_suffix {
            out.push_str(SPACE);
        }
        let empty = out.len();
        let mut after_space = self.merge_spaces;
        let mut push = |c: char| {
            let space = c == ' ';
            if !(space && after_space) {
                out.push(if space { '\u{2581}' } else { c });
            }
            after_space = space && self.merge_spaces;
        };
        match &self.charsmap {
            Some(charsmap) => charsmap.apply(text, &mut push),
            None => text.chars().for_each(push),
        }
        while self.merge_spaces && out.len() > empty && out.ends_with(SPACE) {
            out.truncate(out.len() - SPACE.len());
        }
        if out.len() == empty {
            return String::new();
        }
        if space && self.add_space && self.space_is_suffix {
            out.push_str(SPACE);
        }
        out
    }
}
