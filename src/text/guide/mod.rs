//! What constraints need of a vocabulary: the bytes of every token in a trie, and tokens in groups. It is built once for a
//! model, where a constraint is first made. A reader follows a text by it.
//!
//! | file | |
//! |---|---|
//! | `reader` | a text and a grammar, token by token |
//! | `computer` | the tokens that may come next |
//! | `groups` | tokens by the kinds of their characters |
//! | `reach` | what texts of some kinds the lexer allows |

mod computer;
mod groups;
mod reach;
mod reader;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use llguidance::api::ParserLimits;
use llguidance::toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::tokenizer::{TokenizeOptions, Tokenizer};
use super::vocabulary::Kind;
use crate::error::{Error, Result};
use crate::sys::heap::{self, Trimmed};
use groups::Groups;
pub use reader::Reader;

/// A longer token is never allowed: nodes of the trie count their depth in 10 bits.
const LONGEST_TOKEN: usize = 1000;

/// Nodes of a trie are counted in 22 bits.
const MAX_NODES: usize = 1 << 22;

/// What making and using one constraint may take. The units of fuel are steps of the derivation of regular expressions.
fn limits() -> ParserLimits {
    ParserLimits {
        // Items of one position: how many ways of reading the text there may be at once.
        max_items_in_row: 2000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // 1 to 2 KiB each.
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}

/// A vocabulary as constraints see it.
pub struct Guide {
    words: Arc<Words>,
    groups: Arc<Groups>,
    /// In their order.
    ends: Vec<TokenId>,
}

/// The tokens of a vocabulary by their bytes: what a guide is built from.
pub struct GuidePlan {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Tokens with bytes of their own, in the order of these.
    sorted: Vec<u32>,
    nodes: usize,
}

impl GuidePlan {
    /// Looks at every token.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`; `UNSUPPORTED`: there are too many tokens.
    pub fn new(tokenizer: &Tokenizer) -> Result<GuidePlan> {
        let count = tokenizer.vocab_size();
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        heap::reserve(&mut ends, count, "tokens of constraints")?;
        heap::reserve(&mut bytes, tokenizer.vocabulary.texts.bytes.len() + count, "tokens of constraints")?;
        for token in 0..count as u32 {
            let from = bytes.len();
            tokenizer.append_word(token, &mut bytes)?;
            if bytes.len() - from > LONGEST_TOKEN {
                bytes.truncate(from);
            }
            ends.push(bytes.len() as u32);
        }
        let mut plan = GuidePlan { bytes, ends, sorted: Vec::new(), nodes: 1 };
        plan.leave_doubles_out(tokenizer)?;
        if plan.nodes >= MAX_NODES || count >= 1 << 24 {
            return Err(Error::unsupported(format!("constraints for a vocabulary of {count} tokens")));
        }
        Ok(plan)
    }

    /// Of tokens with the same bytes one stays: a plain one rather than one that stands for a byte. Counts the nodes of
    /// the trie.
    fn leave_doubles_out(&mut self, tokenizer: &Tokenizer) -> Result<()> {
        let mut sorted = heap::collected(0..self.ends.len() as u32, "tokens of constraints")?;
        let is_byte = |token: u32| tokenizer.vocabulary.kind(token) == Kind::Byte;
        sorted.sort_unstable_by(|&a, &b| match self.word(a).cmp(self.word(b)) {
            Ordering::Equal => (is_byte(a), a).cmp(&(is_byte(b), b)),
            order => order,
        });
        let mut before: Range<usize> = 0..0;
        let mut doubles = Vec::new();
        for &token in &sorted {
            let range = self.range(token);
            let same = self.bytes[before.clone()].iter().zip(&self.bytes[range.clone()]);
            let common = same.take_while(|(a, b)| a == b).count();
            if common == range.len() && common == before.len() {
                heap::push(&mut doubles, token, "tokens of constraints")?;
                continue;
            }
            self.nodes += range.len() - common;
            before = range;
        }
        doubles.sort_unstable();
        let (mut from, mut to, mut left_out) = (0, 0, doubles.iter().peekable());
        for (token, end) in self.ends.iter_mut().enumerate() {
            let range = from..*end as usize;
            from = range.end;
            if left_out.next_if_eq(&&(token as u32)).is_none() {
                self.bytes.copy_within(range.clone(), to);
                to += range.len();
            }
            *end = to as u32;
        }
        self.bytes.truncate(to);
        sorted.retain(|token| doubles.binary_search(token).is_err());
        self.sorted = sorted;
        Ok(())
    }

    fn range(&self, token: u32) -> Range<usize> {
        let from = if token == 0 { 0 } else { self.ends[token as usize - 1] };
        from as usize..self.ends[token as usize] as usize
    }

    fn word(&self, token: u32) -> &[u8] {
        &self.bytes[self.range(token)]
    }

    /// What the guide holds, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let trie = self.ends.len() * 12 + self.bytes.len() + self.nodes.next_power_of_two() * 8;
        trie as u64 + Groups::memory_bytes(self.ends.len(), self.bytes.len())
    }

    /// Builds the guide. Beside what stays, that takes about 64 bytes for each token until it is done.
    pub fn build(self, tokenizer: Arc<Tokenizer>) -> Guide {
        let _heap = Trimmed;
        let groups = Groups::build(self.ends.len(), self.sorted.iter().map(|&token| (token, self.word(token))));
        let words: Vec<Vec<u8>> = (0..self.ends.len() as u32).map(|token| self.word(token).to_vec()).collect();
        let ends: Vec<TokenId> = tokenizer.ends.clone();
        let info = TokRxInfo::new(words.len() as u32, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        drop(words);
        if ends.len() > 1 {
            trie = trie.with_eos_tokens(&ends);
        }
        Guide { words: Arc::new(Words { tokenizer, trie }), groups: Arc::new(groups), ends }
    }
}

impl Guide {
    fn vocabulary(&self) -> usize {
        self.words.tokenizer.vocab_size()
    }

    fn is_end(&self, token: i32) -> bool {
        u32::try_from(token).is_ok_and(|token| self.ends.binary_search(&token).is_ok())
    }
}

/// The tokens with their bytes, and how text is cut into them.
struct Words {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Words {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        let options = TokenizeOptions { continues: true, ..TokenizeOptions::default() };
        let tokens = self.tokenizer.tokenize(text, options).unwrap_or_default();
        let tokens: Vec<TokenId> = tokens.into_iter().map(|token| token as u32).collect();
        let spelt = tokens.iter().flat_map(|&token| self.trie.token(token));
        // Some vocabularies change a text that they take in.
        if spelt.eq(text) { tokens } else { self.trie.greedy_tokenize(text) }
    }
}

impl Tokenizer {
    /// Appends the bytes that a token adds to a text. What is no text, but may be named in a grammar, has its name behind
    /// a mark; what can never be chosen has none.
    fn append_word(&self, token: u32, out: &mut Vec<u8>) -> Result<()> {
        let from = out.len();
        match self.vocabulary.kind(token) {
            _ if self.ends.binary_search(&token).is_ok() => self.append_name(token, out),
            Kind::Control => self.append_name(token, out),
            _ => {
                self.piece(token as i32, false, out)?;
                // No UTF-8 text has that byte.
                if out[from..].contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
                    out.truncate(from);
                }
            }
        }
        Ok(())
    }

    fn append_name(&self, token: u32, out: &mut Vec<u8>) {
        out.push(TokTrie::SPECIAL_TOKEN_MARKER);
        out.extend_from_slice(self.vocabulary.text(token));
    }
}

#[cfg(test)]
mod tests;
