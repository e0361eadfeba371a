//! Tokens that may stand inside a string as they are, by their length. Where a constraint allows any text of such a length,
//! as inside the strings of JSON, they are allowed all at once, and only the others are looked at one by one.

use std::sync::Arc;

use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{SimpleVob, TokTrie, TokenId, TokenizerEnv};

use super::{Words, trie, trie_bytes};

/// Characters of a slice's tokens, at most. The last slice has longer ones. Where a string may have few more characters,
/// a short slice is allowed as a whole, and of the others little more than as many characters is looked at.
const LENGTHS: [usize; 9] = [1, 2, 3, 4, 6, 8, 10, 16, 30];

const COUNT: usize = LENGTHS.len() + 1;

/// How hard it is tried to show that a slice is allowed, in steps of derivation.
const EFFORT: u64 = 1000;

/// Which slice a token is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice(u8);

impl Slice {
    /// The slice of a token; none where it has characters that a string of JSON has not as they are, or none, or parts of
    /// some.
    pub fn of(word: &[u8]) -> Option<Slice> {
        let text = std::str::from_utf8(word).ok()?;
        let is_plain = |c: char| !matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f');
        if text.is_empty() || !text.chars().all(is_plain) {
            return None;
        }
        let length = text.chars().count();
        Some(Slice(LENGTHS.iter().filter(|&&most| length > most).count() as u8))
    }
}

/// The slices as regular expressions: each has those before it.
pub fn expressions() -> Vec<String> {
    let plain = r#"[^"\\\x00-\x1F\x7F]"#;
    let bounded = LENGTHS.iter().map(|most| format!("{plain}{{1,{most}}}"));
    bounded.chain([format!("{plain}+")]).collect()
}

pub struct Slices {
    /// The tokens of each slice.
    masks: Vec<SimpleVob>,
    /// Tokens of each slice but the first, and those of none.
    rests: Vec<Rest>,
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
            of(Some(Slice(slice))).for_each(|token| mask.allow_token(token as TokenId));
            mask
        };
        let rest = |slice| {
            let tokens = of(slice).filter(|&token| !words[token].is_empty());
            let tokens: Vec<TokenId> = tokens.map(|token| token as TokenId).collect();
            let own: Vec<Vec<u8>> = tokens.iter().map(|&token| words[token as usize].clone()).collect();
            Rest { trie: trie(&own, None), tokens }
        };
        let rests = (1..COUNT as u8).map(|slice| Some(Slice(slice))).chain([None]);
        Slices { masks: (0..COUNT as u8).map(mask).collect(), rests: rests.map(rest).collect() }
    }

    /// What slices of these tokens hold, at most.
    pub fn memory_bytes(slices: &[Option<Slice>], length: impl Fn(u32) -> usize) -> u64 {
        let (mut tokens, mut bytes) = ([0; COUNT], [0; COUNT]);
        for (token, slice) in slices.iter().enumerate() {
            let rest = match slice {
                Some(Slice(0)) => continue,
                Some(Slice(number)) => *number as usize - 1,
                None => COUNT - 1,
            };
            tokens[rest] += 1;
            bytes[rest] += length(token as u32);
        }
        let rests = tokens.iter().zip(&bytes).map(|(&tokens, &bytes)| trie_bytes(tokens, bytes, bytes + 1));
        let numbers: usize = tokens.iter().map(|tokens: &usize| tokens.next_power_of_two() * size_of::<TokenId>()).sum();
        rests.sum::<u64>() + (numbers + COUNT * slices.len().div_ceil(8)) as u64
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
            let mut is_allowed =
                |slice: usize| recognizer.lexer_mut().check_subsume(state, slice, EFFORT, None).unwrap_or(false);
            // Each slice has those before it: most often all of them are allowed, or else it is searched for the last.
            let (mut from, mut to) = if is_allowed(COUNT - 1) { (COUNT, COUNT) } else { (0, COUNT - 1) };
            while from < to {
                let middle = from + (to - from) / 2;
                if is_allowed(middle) { from = middle + 1 } else { to = middle }
            }
            from.checked_sub(1)
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
