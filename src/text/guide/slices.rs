//! Tokens that may stand inside a string as they are, by their length. Where a constraint allows any text of such a length,
//! as inside the strings of JSON, they are allowed all at once, and only the others are looked at one by one.

use std::sync::Arc;

use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{SimpleVob, TokTrie, TokenId, TokenizerEnv};

use super::{Words, trie, trie_bytes};

/// Characters of the first and the second slice's tokens, at most.
const LENGTHS: [usize; 2] = [10, 30];

/// How hard it is tried to show that a slice is allowed, in steps of derivation.
const EFFORT: u64 = 1000;

/// Tokens of characters that a string of JSON has as they are, of up to 10, up to 30, or more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    Short = 0,
    Middle = 1,
    Long = 2,
}

impl Slice {
    /// The slice of a token; none where it has other characters, or none, or parts of some.
    pub fn of(word: &[u8]) -> Option<Slice> {
        let text = std::str::from_utf8(word).ok()?;
        let is_plain = |c: char| !matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f');
        if text.is_empty() || !text.chars().all(is_plain) {
            return None;
        }
        let length = text.chars().count();
        Some(match length {
            _ if length <= LENGTHS[0] => Slice::Short,
            _ if length <= LENGTHS[1] => Slice::Middle,
            _ => Slice::Long,
        })
    }
}

/// The slices as regular expressions: each has those before it.
pub fn expressions() -> Vec<String> {
    let plain = r#"[^"\\\x00-\x1F\x7F]"#;
    vec![format!("{plain}{{1,{}}}", LENGTHS[0]), format!("{plain}{{1,{}}}", LENGTHS[1]), format!("{plain}+")]
}

pub struct Slices {
    /// The tokens of each slice.
    masks: [SimpleVob; 3],
    /// Tokens of the second and the third slice, and those of none.
    rests: [Rest; 3],
}

/// Some tokens in a trie of their own, where they have other numbers.
struct Rest {
    trie: TokTrie,
    tokens: Vec<TokenId>,
}

impl Slices {
    pub fn build(slices: &[Option<Slice>], words: &[Vec<u8>]) -> Slices {
        let of = |slice: Option<Slice>| (0..words.len()).filter(move |&token| slices[token] == slice);
        let mask = |slice| {
            let mut mask = SimpleVob::alloc(words.len());
            of(Some(slice)).for_each(|token| mask.allow_token(token as TokenId));
            mask
        };
        let rest = |slice| {
            let tokens = of(slice).filter(|&token| !words[token].is_empty());
            let tokens: Vec<TokenId> = tokens.map(|token| token as TokenId).collect();
            let own: Vec<Vec<u8>> = tokens.iter().map(|&token| words[token as usize].clone()).collect();
            Rest { trie: trie(&own, None), tokens }
        };
        Slices {
            masks: [mask(Slice::Short), mask(Slice::Middle), mask(Slice::Long)],
            rests: [rest(Some(Slice::Middle)), rest(Some(Slice::Long)), rest(None)],
        }
    }

    /// What slices of these tokens hold, at most.
    pub fn memory_bytes(slices: &[Option<Slice>], length: impl Fn(u32) -> usize) -> u64 {
        let (mut tokens, mut bytes) = ([0; 3], [0; 3]);
        for (token, slice) in slices.iter().enumerate() {
            let rest = match slice {
                Some(Slice::Short) => continue,
                Some(Slice::Middle) => 0,
                Some(Slice::Long) => 1,
                None => 2,
            };
            tokens[rest] += 1;
            bytes[rest] += length(token as u32);
        }
        let rests = tokens.iter().zip(&bytes).map(|(&tokens, &bytes)| trie_bytes(tokens, bytes, bytes + 1));
        let numbers: usize = tokens.iter().map(|tokens| tokens.next_power_of_two() * size_of::<TokenId>()).sum();
        rests.sum::<u64>() + (numbers + 3 * slices.len().div_ceil(8)) as u64
    }
}

/// Finds the tokens that a parser allows.
pub struct Computer {
    pub(super) slices: Slices,
    pub(super) words: Arc<Words>,
}

impl BiasComputer for Computer {
    fn compute_bias(&self, recognizer: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut allowed = self.trie().alloc_token_set();
        let state = recognizer.lexer_state();
        let widest = if start.is_empty() && recognizer.lexer_mut().subsume_possible(state) {
            let is_allowed =
                |&slice: &usize| recognizer.lexer_mut().check_subsume(state, slice, EFFORT, None).unwrap_or(false);
            (0..3).rev().find(is_allowed)
        } else {
            None
        };
        let Some(widest) = widest else {
            self.trie().add_bias(recognizer, &mut allowed, start);
            return allowed;
        };
        self.slices.masks[..=widest].iter().for_each(|mask| allowed.or(mask));
        for rest in &self.slices.rests[widest..] {
            let mut own = rest.trie.alloc_token_set();
            rest.trie.add_bias(recognizer, &mut own, &[]);
            own.iter().for_each(|token| allowed.allow_token(rest.tokens[token as usize]));
        }
        allowed
    }

    fn trie(&self) -> &TokTrie {
        self.words.tok_trie()
    }
}

/// Finds none.
pub struct Nothing(pub Arc<Computer>);

impl BiasComputer for Nothing {
    fn compute_bias(&self, _: &mut ParserRecognizer<'_>, _: &[u8]) -> SimpleVob {
        self.trie().alloc_token_set()
    }

    fn trie(&self) -> &TokTrie {
        self.0.trie()
    }
}
