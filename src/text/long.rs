//! Merging of long words in little memory: the same joins in the same order as `merge` makes them, at less than a byte for
//! each byte of the word, or four where tokens must be kept. It takes some ten looks at pairs for each join.

use super::vocabulary::NONE;
use super::work::{limit, step};

/// Words of more bytes are merged here.
const LONG: usize = 1_024;

/// Whether a word of so many bytes is merged here.
pub(super) fn is_long(length: usize) -> bool {
    length > limit(LONG, 2)
}

/// What stands for a token that is not there, in 24 bits.
const NO_TOKEN: u32 = 0xff_ffff;
/// Children of a node, and positions of a leaf: one byte of the bits.
const FAN: usize = 8;

/// A word as stretches of positions, each a symbol. Positions are its bytes.
pub(super) struct Long {
    end: usize,
    /// A bit for each position, set where a symbol starts.
    starts: Vec<u64>,
    /// The token of the symbol that starts at a position, in 24 bits; empty where tokens are not kept.
    tokens: Vec<[u8; 3]>,
    /// The lowest rank of the pairs whose left side starts in each eight positions, then of each eight of those, up to one.
    levels: Vec<Vec<u32>>,
}

/// A symbol and the one behind it.
pub(super) struct Pair {
    pub start: usize,
    pub end: usize,
    pub left: u32,
    pub right: u32,
}

impl Long {
    /// Whether the tokens of a vocabulary of this size can be kept.
    pub fn holds(vocabulary: usize) -> bool {
        vocabulary < NO_TOKEN as usize
    }

    /// A word of `end` positions without symbols.
    pub fn new(end: usize, tokens: bool) -> Long {
        let tokens = if tokens { vec![[0xff; 3]; end] } else { Vec::new() };
        Long { end, starts: vec![0; end.div_ceil(64)], tokens, levels: Vec::new() }
    }

    /// Enters a symbol.
    pub fn push(&mut self, start: usize, token: u32) {
        self.starts[start / 64] |= 1 << (start % 64);
        self.set_token(start, token);
    }

    fn set_token(&mut self, start: usize, token: u32) {
        if let Some(kept) = self.tokens.get_mut(start) {
            let [a, b, c, _] = token.min(NO_TOKEN).to_le_bytes();
            *kept = [a, b, c];
        }
    }

    fn token(&self, start: usize) -> u32 {
        let Some(&[a, b, c]) = self.tokens.get(start) else { return NONE };
        let token = u32::from_le_bytes([a, b, c, 0]);
        if token == NO_TOKEN { NONE } else { token }
    }

    /// Where the first symbol at or behind a position starts; the end of the word where there is none.
    fn from(&self, at: usize) -> usize {
        let mut word = at / 64;
        let Some(&bits) = self.starts.get(word) else { return self.end };
        let mut bits = bits >> (at % 64) << (at % 64);
        while bits == 0 {
            word += 1;
            let Some(&next) = self.starts.get(word) else { return self.end };
            bits = next;
        }
        word * 64 + bits.trailing_zeros() as usize
    }

    /// Where the symbol before a position starts.
    fn before(&self, at: usize) -> Option<usize> {
        let mut word = at / 64;
        let mut bits = self.starts.get(word).copied().unwrap_or(0) & ((1 << (at % 64)) - 1);
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.starts[word];
        }
        Some(word * 64 + 63 - bits.leading_zeros() as usize)
    }

    /// Each symbol that starts in a leaf, with the rank and token of its pair, until `found` wants no more.
    fn leaf(
        &self,
        leaf: usize,
        pair: &mut impl FnMut(Pair) -> Option<(u32, u32)>,
        mut found: impl FnMut(usize, usize, u32, u32) -> bool,
    ) {
        let mut start = self.from(leaf * FAN);
        let mut right = self.from(start + 1);
        while start < (leaf + 1) * FAN && right < self.end {
            step();
            let end = self.from(right + 1);
            let joined = pair(Pair { start, end, left: self.token(start), right: self.token(right) });
            if let Some((rank, token)) = joined
                && !found(start, right, rank, token)
            {
                return;
            }
            (start, right) = (right, end);
        }
    }

    fn lowest(&self, leaf: usize, pair: &mut impl FnMut(Pair) -> Option<(u32, u32)>) -> u32 {
        let mut lowest = NONE;
        self.leaf(leaf, pair, |_, _, rank, _| {
            lowest = lowest.min(rank);
            true
        });
        lowest
    }

    /// Looks at the pairs of a leaf again.
    fn update(&mut self, leaf: usize, pair: &mut impl FnMut(Pair) -> Option<(u32, u32)>) {
        let (mut at, mut lowest) = (leaf, self.lowest(leaf, pair));
        for level in 0..self.levels.len() {
            if self.levels[level][at] == lowest {
                return;
            }
            self.levels[level][at] = lowest;
            at /= FAN;
            let siblings = self.levels[level].iter().skip(at * FAN).take(FAN);
            lowest = siblings.copied().min().unwrap_or(NONE);
        }
    }

    /// Joins pairs until none is left, of the lowest rank first and of those the leftmost. `pair` gives the rank, which is
    /// below 2^32 - 1, and the token of two joined.
    pub fn merge(&mut self, mut pair: impl FnMut(Pair) -> Option<(u32, u32)>) {
        let pair = &mut pair;
        let leaves = (0..self.end.div_ceil(FAN)).map(|leaf| self.lowest(leaf, pair)).collect();
        self.levels = vec![leaves];
        while let Some(last) = self.levels.last().filter(|last| last.len() > 1) {
            let next = last.chunks(FAN).map(|some| some.iter().copied().min().unwrap_or(NONE)).collect();
            self.levels.push(next);
        }
        while let Some(&lowest) = self.levels.last().and_then(|top| top.first()).filter(|&&lowest| lowest != NONE) {
            let mut at = 0;
            for level in self.levels.iter().rev().skip(1) {
                let children = level.iter().skip(at * FAN).take(FAN);
                at = at * FAN + children.copied().position(|rank| rank == lowest).unwrap_or(0);
            }
            let mut join = None;
            self.leaf(at, pair, |start, right, rank, token| {
                join = (rank == lowest).then_some((start, right, token));
                join.is_none()
            });
            let Some((start, right, token)) = join else { break };
            self.starts[right / 64] &= !(1 << (right % 64));
            self.set_token(start, token);
            let before = self.before(start).map(|before| before / FAN);
            self.update(start / FAN, pair);
            if right / FAN != start / FAN {
                self.update(right / FAN, pair);
            }
            if let Some(before) = before.filter(|&before| before != start / FAN) {
                self.update(before, pair);
            }
        }
        self.levels = Vec::new();
    }

    /// How many symbols there are.
    pub fn count(&self) -> usize {
        self.starts.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// Start, end and token of each symbol.
    pub fn symbols(&self) -> impl Iterator<Item = (usize, usize, u32)> {
        let mut at = self.from(0);
        std::iter::from_fn(move || {
            let start = Some(at).filter(|&start| start < self.end)?;
            at = self.from(start + 1);
            Some((start, at, self.token(start)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::Merger;
    use super::*;

    /// Random words over small alphabets, with random ranks: the same symbols as the other merger comes to.
    #[test]
    fn long_words_are_joined_as_short_ones_are() {
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..600 {
            let (letters, length) = (1 + random(4), 1 + random(300));
            // Token a + b joins with few tokens, at ranks that repeat.
            let ranks: Vec<Option<(u32, u32)>> = (0..4_096)
                .map(|pair| {
                    let joins = random(100) < 20 + round % 60;
                    joins.then(|| (random(30) as u32, (letters + pair % 50) as u32))
                })
                .collect();
            let joined = |left: u32, right: u32| ranks[(left as usize * 64 + right as usize) % ranks.len()];
            let (mut long, mut short) = (Long::new(length * 2, true), Merger::default());
            for i in 0..length {
                // Symbols of one and of two bytes.
                let (start, token) = (i * 2 - usize::from(i % 3 == 2), random(letters) as u32);
                long.push(start, token);
                short.push(start as u32, token);
            }
            long.merge(|pair| joined(pair.left, pair.right));
            short.merge(length as u32 * 2, |left, right, _| joined(left.token, right.token));
            let short: Vec<_> = short.symbols(length as u32 * 2).map(|(a, b, c)| (a as usize, b as usize, c)).collect();
            assert_eq!(long.symbols().collect::<Vec<_>>(), short);
            assert_eq!(long.count(), short.len());
        }
    }
}
