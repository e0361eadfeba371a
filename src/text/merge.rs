//! The merging both families share: while any two neighbours may become one token, join the best pair.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::NONE;
use super::work::step;

/// A stretch of the text and its token.
pub(super) struct Symbol {
    /// Where it starts; it ends where the next one starts.
    pub start: u32,
    /// `NONE` where no token has this text.
    pub token: u32,
    prev: u32,
    next: u32,
    /// Rank and token of this symbol joined with the next; `NONE` where they do not join, or this symbol is gone.
    pair_rank: u32,
    pair_token: u32,
}

/// A list of symbols and a heap of their pairs: n log n in the number of symbols. Kept between words, so that its
/// memory is allocated once.
#[derive(Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// Rank above, position below: the lowest rank first, then the leftmost.
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    pub fn clear(&mut self) {
        self.symbols.clear();
    }

    pub fn push(&mut self, start: u32, token: u32) {
        let index = self.symbols.len() as u32;
        let prev = index.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start, token, prev, next: index + 1, pair_rank: 0, pair_token: NONE });
    }

    /// Joins pairs until none is left. `pair` is given two neighbours and where the second ends; it returns the rank
    /// (lower goes first) and the token of the two joined. `end` is where the last symbol ends.
    pub fn merge(&mut self, end: u32, pair: impl Fn(&Symbol, &Symbol, u32) -> Option<(u32, u32)>) {
        let Some(last) = self.symbols.last_mut() else { return };
        last.next = NONE;
        // The first pairs go in all at once: building a heap of n takes n steps, n insertions more.
        let mut first = std::mem::take(&mut self.heap).into_vec();
        first.clear();
        for left in 0..self.symbols.len() as u32 - 1 {
            first.extend(self.join(left, end, &pair));
        }
        self.heap = first.into();

        while let Some(Reverse(key)) = self.heap.pop() {
            let (rank, left) = ((key >> 32) as u32, key as u32);
            let symbol = &self.symbols[left as usize];
            // An entry is stale once either of its two was joined with another.
            if symbol.pair_token == NONE || symbol.pair_rank != rank {
                continue;
            }
            let (token, prev, right) = (symbol.pair_token, symbol.prev, symbol.next);
            let gone = &mut self.symbols[right as usize];
            gone.pair_token = NONE;
            let next = gone.next;
            let symbol = &mut self.symbols[left as usize];
            (symbol.token, symbol.next, symbol.pair_token) = (token, next, NONE);
            if next != NONE {
                self.symbols[next as usize].prev = left;
                let entry = self.join(left, end, &pair);
                self.heap.extend(entry);
            }
            if prev != NONE {
                let entry = self.join(prev, end, &pair);
                self.heap.extend(entry);
            }
        }
    }

    /// Notes what `left` and its neighbour join to, and returns the heap entry for it.
    fn join(
        &mut self,
        left: u32,
        end: u32,
        pair: &impl Fn(&Symbol, &Symbol, u32) -> Option<(u32, u32)>,
    ) -> Option<Reverse<u64>> {
        step();
        let symbol = &self.symbols[left as usize];
        let right = &self.symbols[symbol.next as usize];
        let right_end = self.symbols.get(right.next as usize).map_or(end, |after| after.start);
        let joined = pair(symbol, right, right_end);
        let symbol = &mut self.symbols[left as usize];
        (symbol.pair_rank, symbol.pair_token) = joined.unwrap_or((0, NONE));
        joined.map(|(rank, _)| Reverse(u64::from(rank) << 32 | u64::from(left)))
    }

    /// The symbols that are left: start, end and token of each.
    pub fn symbols(&self, end: u32) -> impl Iterator<Item = (u32, u32, u32)> {
        let mut at = if self.symbols.is_empty() { NONE } else { 0 };
        std::iter::from_fn(move || {
            let symbol = self.symbols.get(at as usize)?;
            at = symbol.next;
            Some((symbol.start, self.symbols.get(at as usize).map_or(end, |next| next.start), symbol.token))
        })
    }
}
