//! SentencePiece unigram: of all ways to cut a text into tokens, the one whose scores sum up to the most.

mod charsmap;

pub(super) use charsmap::Charsmap;

use super::escape::{Fallback, SPACE, Words};
use super::trie::Trie;
use super::vocabulary::{Kind, NONE, Vocabulary};
use crate::error::{Error, Result};

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

    /// Appends the tokens of a text.
    pub fn encode(&self, text: &str, out: &mut Vec<i32>) {
        let from = out.len();
        let normal = self.normalizer.apply(text);
        let mut best = Vec::new();
        self.words.each(&normal, false, &mut |word| self.encode_word(word, &mut best, from, out));
    }

    fn encode_word(&self, word: &str, best: &mut Vec<Best>, from: usize, out: &mut Vec<i32>) {
        let bytes = word.as_bytes();
        best.clear();
        best.resize(bytes.len() + 1, UNREACHED);
        best[0].score = 0.0;
        for (start, c) in word.char_indices() {
            let score = best[start].score;
            let mut node = Trie::ROOT;
            let mut whole = false;
            for (at, &byte) in bytes.iter().enumerate().skip(start) {
                let Some(next) = self.trie.step(node, byte) else { break };
                node = next;
                if let Some(token) = self.trie.token(node) {
                    whole |= at + 1 == start + c.len_utf8();
                    reach(&mut best[at + 1], score + f64::from(self.scores[token as usize]), token, start);
                }
            }
            if !whole {
                reach(&mut best[start + c.len_utf8()], score + self.unknown_score, NONE, start);
            }
        }
        // Back along the best way, turning each step to point forwards.
        let mut at = bytes.len();
        let mut next = at;
        while at > 0 {
            let Best { from, .. } = best[at];
            best[at].from = next as u32;
            next = at;
            at = from as usize;
        }
        while next > at {
            let Best { token, from: after, .. } = best[next];
            if token == NONE {
                self.fallback.spell(&bytes[at..next], from, out);
            } else {
                out.push(token as i32);
            }
            at = next;
            next = after as usize;
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.trie.memory_bytes()
            + (self.scores.capacity() * size_of::<f32>()) as u64
            + self.fallback.memory_bytes()
            + self.words.memory_bytes()
            + self.normalizer.charsmap.as_ref().map_or(0, Charsmap::memory_bytes)
    }
}

fn reach(best: &mut Best, score: f64, token: u32, from: usize) {
    if score > best.score {
        *best = Best { score, token, from: from as u32 };
    }
}

impl Normalizer {
    fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + SPACE.len());
        if self.add_space && !self.space_is_suffix {
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
        if self.add_space && self.space_is_suffix {
            out.push_str(SPACE);
        }
        out
    }
}
