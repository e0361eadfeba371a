//! Tokens found in the text as they are written, before anything else looks at it.

use crate::order;
use std::borrow::Cow;

use super::escape::SPACE;
use super::vocabulary::{Kind, Vocabulary};
use super::work::step;
use crate::error::Result;
use crate::sys::heap;

/// The longest token that is looked for, in bytes: at each place of a text up to as many bytes are compared.
const LONGEST: usize = 256;

/// Special tokens in the order of their texts.
pub(super) struct Specials {
    tokens: Vec<u32>,
    /// Which bytes such a token starts with.
    starts: Box<[bool; 256]>,
    /// Whether one of them has a U+2581.
    has_space_mark: bool,
}

impl Specials {
    /// The tokens of these kinds. A text that is not UTF-8 cannot be found in UTF-8 and is left out, as is one of more
    /// than 256 bytes.
    pub fn new(vocabulary: &Vocabulary, kinds: &[Kind]) -> Result<Specials> {
        let tokens = (0..vocabulary.len() as u32)
            .filter(|&token| kinds.contains(&vocabulary.kind(token)) && !vocabulary.is_doubled(token))
            .filter(|&token| (1..=LONGEST).contains(&vocabulary.text(token).len()))
            .filter(|&token| std::str::from_utf8(vocabulary.text(token)).is_ok());
        let mut tokens = heap::collected(tokens, "special tokens")?;
        order::sort(&mut tokens, &mut |a, b| vocabulary.text(a).cmp(vocabulary.text(b)));
        tokens.shrink_to_fit();
        let mut starts = Box::new([false; 256]);
        let mut has_space_mark = false;
        for &token in &tokens {
            let text = vocabulary.text(token);
            starts[text[0] as usize] = true;
            has_space_mark |= text.windows(SPACE.len()).any(|part| part == SPACE.as_bytes());
        }
        Ok(Specials { tokens, starts, has_space_mark })
    }

    /// A text in which U+2581 stands for a space: with spaces, which these tokens are written with.
    pub fn with_spaces<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.has_space_mark || !text.contains(SPACE) { text.into() } else { text.replace(SPACE, " ").into() }
    }

    /// The leftmost special token at or after `from`, the longest of those that start there: where it starts, and the
    /// token.
    pub fn find(&self, vocabulary: &Vocabulary, text: &[u8], from: usize) -> Option<(usize, u32)> {
        if self.tokens.is_empty() {
            return None;
        }
        (from..text.len())
            .filter(|&at| self.starts[text[at] as usize])
            .find_map(|at| self.longest_prefix(vocabulary, &text[at..]).map(|token| (at, token)))
    }

    /// Texts of the tokens that are recognised only where special tokens are asked for.
    pub fn controls<'a>(&'a self, vocabulary: &'a Vocabulary) -> impl Iterator<Item = &'a [u8]> {
        let tokens = self.tokens.iter().filter(|&&token| vocabulary.kind(token) != Kind::UserDefined);
        tokens.map(|&token| vocabulary.text(token))
    }

    fn longest_prefix(&self, vocabulary: &Vocabulary, text: &[u8]) -> Option<u32> {
        let mut candidates = &self.tokens[..];
        let mut longest = None;
        // All candidates share the first `depth` bytes with the text; those that end there come first.
        for (depth, &byte) in text.iter().enumerate() {
            step();
            let at = |token: &u32| vocabulary.text(*token).get(depth).copied();
            let low = candidates.partition_point(|token| at(token) < Some(byte));
            let high = candidates.partition_point(|token| at(token) <= Some(byte));
            candidates = &candidates[low..high];
            let Some(&first) = candidates.first() else { break };
            if vocabulary.text(first).len() == depth + 1 {
                longest = Some(first);
            }
        }
        longest
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.tokens.capacity() * size_of::<u32>() + self.starts.len()) as u64
    }
}
