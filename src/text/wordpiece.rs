//! WordPiece, as BERT has it: words by spaces and marks, each cut into the longest tokens from its start.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup as Group, UnicodeGeneralCategory};

use super::escape::SPACE;
use super::trie::{Node, Trie};
use super::vocabulary::Vocabulary;
use crate::error::Result;
use crate::sys::heap;

/// A word of more characters is unknown.
const LONGEST_WORD: usize = 100;

pub(super) struct WordPiece {
    /// Tokens that begin a word start with U+2581 in the file.
    trie: Trie,
    unknown: Option<u32>,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub fn new(
        vocabulary: &Vocabulary,
        unknown: Option<u32>,
        lowercase: bool,
        strip_accents: bool,
    ) -> Result<WordPiece> {
        let tokens = heap::collected(vocabulary.of_text(), "tokens")?;
        Ok(WordPiece { trie: Trie::new(vocabulary, tokens)?, unknown, lowercase, strip_accents })
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, text: &str, out: &mut Vec<i32>) {
        let mut word = Word { pieces: self, text: String::new(), length: 0, out };
        let clean = text.chars().filter(|&c| !is_dropped(c));
        // What stands alone is told from the character as it was written.
        let mut push = |c: char| {
            if c.is_whitespace() {
                word.end();
            } else if is_mark(c) || is_chinese(c) {
                word.end();
                word.push(c);
                word.end();
            } else {
                word.push(c);
            }
        };
        let mut lower = |c: char| {
            if self.lowercase { c.to_lowercase().for_each(&mut push) } else { push(c) }
        };
        if self.strip_accents {
            // As a string: decomposing is compiled anew for each iterator.
            let clean: String = clean.collect();
            clean.nfd().filter(|c| c.general_category() != GeneralCategory::NonspacingMark).for_each(&mut lower);
        } else {
            clean.for_each(&mut lower);
        }
        word.end();
    }

    /// Appends the tokens of a word; false, and nothing, if it cannot be cut into tokens.
    fn encode_word(&self, word: &str, out: &mut Vec<i32>) -> bool {
        let before = out.len();
        let mut from = 0;
        let first = SPACE.bytes().try_fold(Trie::ROOT, |node, byte| self.trie.step(node, byte));
        while from < word.len() {
            let start = if from == 0 { first } else { Some(Trie::ROOT) };
            // What begins a word does not go on with one.
            let found = start.filter(|_| from == 0 || !word.as_bytes()[from..].starts_with(SPACE.as_bytes()));
            match found.and_then(|node| self.longest(node, &word.as_bytes()[from..])) {
                Some((token, length)) => {
                    out.push(token as i32);
                    from += length;
                }
                None => {
                    out.truncate(before);
                    return false;
                }
            }
        }
        true
    }

    fn longest(&self, mut node: Node, text: &[u8]) -> Option<(u32, usize)> {
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            let Some(next) = self.trie.step(node, byte) else { break };
            node = next;
            longest = self.trie.token(node).map(|token| (token, at + 1)).or(longest);
        }
        longest
    }

    pub fn memory_bytes(&self) -> u64 {
        self.trie.memory_bytes()
    }
}

/// The word that is being read.
struct Word<'a> {
    pieces: &'a WordPiece,
    text: String,
    /// In characters; those of a word that is too long are not kept.
    length: usize,
    out: &'a mut Vec<i32>,
}

impl Word<'_> {
    fn push(&mut self, c: char) {
        self.length += 1;
        if self.length <= LONGEST_WORD {
            self.text.push(c);
        }
    }

    fn end(&mut self) {
        if self.length > 0 {
            let known = self.length <= LONGEST_WORD && self.pieces.encode_word(&self.text, self.out);
            if !known {
                self.out.extend(self.pieces.unknown.map(|token| token as i32));
            }
        }
        self.text.clear();
        self.length = 0;
    }
}

/// Control characters and the like, but for those that are spaces.
fn is_dropped(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{fffd}' => true,
        _ => c.general_category_group() == Group::Other && c.general_category() != GeneralCategory::Unassigned,
    }
}

fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == Group::Punctuation
}

/// Ideographs, each a word. The start of the sixth range is that of the tool the models were made with.
fn is_chinese(c: char) -> bool {
    matches!(
        c,
        '\u{4e00}'..='\u{9fff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{20000}'..='\u{2a6df}'
            | '\u{2a700}'..='\u{2b73f}'
            | '\u{2b740}'..='\u{2b81f}'
            | '\u{2b920}'..='\u{2ceaf}'
            | '\u{f900}'..='\u{faff}'
            | '\u{2f800}'..='\u{2fa1f}'
    )
}
