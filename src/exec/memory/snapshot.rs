//! Copies of parts of a sequence's memory, to go back to.

use std::ops::Range;

use super::{Layer, SequenceMemory};
use crate::error::Result;
use crate::sys::heap;
use crate::weights::frames::Memory;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// What later tokens see of layers with a window, which passes may drop. States are not in it: a pass that fails leaves
    /// them alone.
    Windows,
    /// The same, and the states of recurrent layers: with what truncation leaves, the whole.
    Droppable,
    /// All that is in use.
    Everything,
}

/// A copy of what a sequence's layers had at some positions.
pub struct Snapshot {
    /// For each layer.
    positions: Vec<Range<usize>>,
    /// By layer, part and head: rows of the positions.
    cells: Memory,
    /// The states of all recurrent layers.
    states: Memory,
}

impl SequenceMemory {
    /// Which positions a snapshot of a sequence of `tokens` tokens has of a layer.
    fn positions(&self, layer: &Layer, held: Held, tokens: usize) -> Range<usize> {
        match held {
            Held::Everything => layer.first..tokens,
            Held::Windows | Held::Droppable if self.layout.drops(layer) => layer.first_seen(tokens)..tokens,
            Held::Windows | Held::Droppable => 0..0,
        }
    }

    /// The states that a snapshot of a sequence of `tokens` tokens has.
    fn held_states(&self, held: Held, tokens: usize) -> &[f32] {
        if tokens == 0 || held == Held::Windows { &[] } else { self.states.present() }
    }

    /// Bytes of a snapshot of a sequence of `tokens` tokens.
    pub fn snapshot_bytes(&self, held: Held, tokens: usize) -> u64 {
        let table = self.layers().len() * size_of::<Range<usize>>();
        let states = size_of_val(self.held_states(held, tokens));
        self.held_cell_bytes(held, tokens) + (table + states) as u64
    }

    fn held_cell_bytes(&self, held: Held, tokens: usize) -> u64 {
        let words = |l: &Layer| (self.positions(l, held, tokens).len() * l.position_words()) as u64;
        self.layers().iter().map(words).sum::<u64>() * 2
    }

    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn snapshot(&self, held: Held, tokens: usize) -> Result<Snapshot> {
        const WHAT: &str = "a copy of sequence memory";
        let mut positions = Vec::new();
        heap::reserve(&mut positions, self.layers().len(), WHAT)?;
        positions.extend(self.layers().iter().map(|l| self.positions(l, held, tokens)));
        let from = self.held_states(held, tokens);
        let mut states = Memory::of(size_of_val(from) as u64, WHAT)?;
        states.as_slice_mut::<f32>()[..from.len()].copy_from_slice(from);
        let mut cells = Memory::of(self.held_cell_bytes(held, tokens), WHAT)?;
        let (from, to) = (self.cells.as_slice::<u16>(), cells.as_slice_mut::<u16>());
        let mut end = 0;
        for range in ranges(self.layers(), &positions) {
            to[end..end + range.len()].copy_from_slice(&from[range.clone()]);
            end += range.len();
        }
        Ok(Snapshot { positions, cells, states })
    }

    /// Puts back what a snapshot of this memory holds.
    pub fn put_back(&mut self, snapshot: &Snapshot) {
        if !snapshot.states.is_empty() {
            let to = self.states.present_mut();
            to.copy_from_slice(&snapshot.states.as_slice::<f32>()[..to.len()]);
        }
        for (l, positions) in self.layout.layers.iter_mut().zip(&snapshot.positions) {
            if !positions.is_empty() {
                l.first = positions.start;
            }
        }
        let (from, to) = (snapshot.cells.as_slice::<u16>(), self.cells.as_slice_mut::<u16>());
        let mut end = 0;
        for range in ranges(&self.layout.layers, &snapshot.positions) {
            to[range.clone()].copy_from_slice(&from[end..end + range.len()]);
            end += range.len();
        }
    }
}

/// Where the rows of the positions lie in the layers as they are now.
fn ranges(layers: &[Layer], positions: &[Range<usize>]) -> impl Iterator<Item = Range<usize>> {
    layers.iter().zip(positions).filter(|(_, positions)| !positions.is_empty()).flat_map(|(l, positions)| {
        let places = positions.start - l.first..positions.end - l.first;
        let heads = l.heads;
        l.parts().flat_map(move |part| {
            let places = places.clone();
            (0..heads).map(move |head| part.rows(head, places.clone()))
        })
    })
}
