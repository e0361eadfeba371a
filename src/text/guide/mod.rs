//! What constraints need of a vocabulary: the bytes of every token in a trie, and the tokens that may stand inside a
//! string apart. It is built once for a model, where a constraint is first made.

mod slices;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{ParserFactory, TokenParser};

use super::tokenizer::{TokenizeOptions, Tokenizer};
use super::vocabulary::Kind;
use crate::error::{Error, Result, Status};
use crate::sys::heap::{self, Trimmed};
use slices::{Computer, Nothing, Slice, Slices};

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
    factory: ParserFactory,
    computer: Arc<Computer>,
}

/// The tokens of a vocabulary by their bytes: what a guide is built from.
pub struct GuidePlan {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    slices: Vec<Option<Slice>>,
    nodes: usize,
    slice_bytes: u64,
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
        let mut plan = GuidePlan { bytes, ends, slices: Vec::new(), nodes: 1, slice_bytes: 0 };
        plan.leave_doubles_out(tokenizer)?;
        heap::reserve(&mut plan.slices, count, "tokens of constraints")?;
        for token in 0..count as u32 {
            let slice = Slice::of(plan.word(token));
            plan.slices.push(slice);
        }
        if plan.nodes >= MAX_NODES || count >= 1 << 24 {
            return Err(Error::unsupported(format!("constraints for a vocabulary of {count} tokens")));
        }
        plan.slice_bytes = Slices::memory_bytes(&plan.slices, |token| plan.word(token).len());
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
        for token in sorted {
            let range = self.range(token);
            let same = self.bytes[before.clone()].iter().zip(&self.bytes[range.clone()]);
            let common = same.take_while(|(a, b)| a == b).count();
            if !range.is_empty() && common == range.len() && common == before.len() {
                heap::push(&mut doubles, token, "tokens of constraints")?;
                continue;
            }
            self.nodes += range.len() - common;
            before = range;
        }
        doubles.sort_unstable();
        let (mut from, mut to, mut doubles) = (0, 0, doubles.into_iter().peekable());
        for (token, end) in self.ends.iter_mut().enumerate() {
            let range = from..*end as usize;
            from = range.end;
            if doubles.next_if_eq(&(token as u32)).is_none() {
                self.bytes.copy_within(range.clone(), to);
                to += range.len();
            }
            *end = to as u32;
        }
        self.bytes.truncate(to);
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
        trie_bytes(self.ends.len(), self.bytes.len(), self.nodes) + self.slice_bytes
    }

    /// Builds the guide. Beside what stays, that takes about 64 bytes for each token until it is done.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub fn build(self, tokenizer: Arc<Tokenizer>) -> Result<Guide> {
        let _heap = Trimmed;
        let words: Vec<Vec<u8>> = (0..self.ends.len() as u32).map(|token| self.word(token).to_vec()).collect();
        let ends: Vec<TokenId> = tokenizer.ends.clone();
        let slices = Slices::build(&self.slices, &words);
        let mut whole = trie(&words, ends.first().copied());
        drop(words);
        if ends.len() > 1 {
            whole = whole.with_eos_tokens(&ends);
        }
        let words = Arc::new(Words { tokenizer, whole: OnceLock::new(), empty: trie(&[], None) });
        let env: TokEnv = words.clone();
        // The factory makes slices of its own of the trie that it finds. Ours take the place of those: they take a tenth of
        // the memory.
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices::expressions());
        let mut factory =
            factory.map_err(|e| Error::new(Status::Internal, format!("the tokens of constraints: {e}")))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        // Nobody has set it before.
        let _ = words.whole.set(whole);
        Ok(Guide { factory, computer: Arc::new(Computer { slices, words }) })
    }
}

impl Guide {
    /// A parser of a grammar at its beginning.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the grammar cannot be read, asks for what is not built in, or goes beyond its bounds.
    pub fn parser(&self, grammar: TopLevelGrammar) -> Result<TokenParser> {
        let parser = self.factory.create_parser(grammar);
        let mut parser = parser.map_err(|e| Error::invalid(plain(&format!("{e:#}"))))?;
        // The bounds of states and steps hold from the first mask on. What is forced before that has none, and may be
        // without end: so there is a first mask of nothing.
        parser.parser.compute_bias(&Nothing(self.computer.clone()), b" ");
        parser.bias_computer = self.computer.clone();
        Ok(parser)
    }
}

/// The message of an error of the parser's, without what is meant for those who work on it.
pub fn plain(message: &str) -> String {
    let end = ["\n<backtrace>", "\n<state>", "\n<non-verbose/>"].iter().filter_map(|mark| message.find(mark)).min();
    message[..end.unwrap_or(message.len())].trim().to_string()
}

/// The tokens with their bytes, and how text is cut into them.
struct Words {
    tokenizer: Arc<Tokenizer>,
    whole: OnceLock<TokTrie>,
    /// In its place until it is there.
    empty: TokTrie,
}

impl TokenizerEnv for Words {
    fn tok_trie(&self) -> &TokTrie {
        self.whole.get().unwrap_or(&self.empty)
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        let options = TokenizeOptions { continues: true, ..TokenizeOptions::default() };
        let tokens = self.tokenizer.tokenize(text, options).unwrap_or_default();
        let tokens: Vec<TokenId> = tokens.into_iter().map(|token| token as u32).collect();
        let trie = self.tok_trie();
        let spelt = tokens.iter().flat_map(|&token| trie.token(token));
        // Some vocabularies change a text that they take in.
        if spelt.eq(text) { tokens } else { trie.greedy_tokenize(text) }
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

fn trie(words: &[Vec<u8>], end: Option<TokenId>) -> TokTrie {
    TokTrie::from(&TokRxInfo::new(words.len() as u32, end.unwrap_or(INVALID_TOKEN)), words)
}

/// The bytes of a trie: places of tokens, their order, their bytes, and the nodes, whose list grows by doubling.
fn trie_bytes(tokens: usize, bytes: usize, nodes: usize) -> u64 {
    (tokens * 12 + bytes + nodes.next_power_of_two() * 8) as u64
}

#[cfg(test)]
mod tests;
