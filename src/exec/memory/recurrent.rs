//! The states of recurrent layers. A pass must not change them before it has succeeded, so that it can be undone: there
//! are two banks of them, of which a pass reads one and writes the other, and the end of the pass makes the other the
//! present one. That costs no copy, and the second bank is a part of what a session takes from the budget.

use std::ops::Range;

use crate::error::Result;
use crate::kernel::recurrent::Before;
use crate::weights::frames::Memory;

/// The state of a layer, in f32: where it lies in a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateLayer(pub Range<usize>);

/// Two banks of the states of all recurrent layers.
pub struct States {
    memory: Memory,
    /// Elements of a bank.
    len: usize,
    /// The bank that holds the states of the sequence: 0 or 1.
    present: usize,
    /// The running pass has taken in a chunk: its states are in the other bank.
    begun: bool,
}

impl States {
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn new(layers: &[StateLayer]) -> Result<States> {
        let len = layers.last().map_or(0, |layer| layer.0.end);
        let memory = Memory::of(States::bytes(layers), "recurrent states")?;
        Ok(States { memory, len, present: 0, begun: false })
    }

    /// Bytes of both banks.
    pub fn bytes(layers: &[StateLayer]) -> u64 {
        let len = layers.last().map_or(0, |layer| layer.0.end) as u64;
        len.saturating_mul(2 * size_of::<f32>() as u64)
    }

    /// The states of the sequence, of all layers.
    pub fn present(&self) -> &[f32] {
        &self.memory.as_slice::<f32>()[self.present * self.len..][..self.len]
    }

    pub fn present_mut(&mut self) -> &mut [f32] {
        let (start, len) = (self.present * self.len, self.len);
        &mut self.memory.as_slice_mut::<f32>()[start..][..len]
    }

    /// The state that a chunk at `position` begins with, and where it leaves its own; `range` is a part of a bank.
    pub fn change(&mut self, range: Range<usize>, position: usize) -> (Before<'_>, &mut [f32]) {
        let (begun, present) = (self.begun, self.present);
        let (first, second) = self.memory.as_slice_mut::<f32>().split_at_mut(self.len);
        let (from, to) = if present == 0 { (first, second) } else { (second, first) };
        let before = match begun {
            true => Before::InPlace,
            // The present bank may hold what was forgotten.
            false if position == 0 => Before::Empty,
            false => Before::Elsewhere(&from[range.clone()]),
        };
        (before, &mut to[range])
    }

    /// The running pass has taken in a chunk.
    pub fn end_chunk(&mut self) {
        self.begun = self.len > 0;
    }

    /// Ends the pass: its states become the present ones if it has succeeded.
    pub fn end_pass(&mut self, succeeded: bool) {
        if self.begun && succeeded {
            self.present = 1 - self.present;
        }
        self.begun = false;
    }

    /// Takes back the last pass, which has succeeded.
    pub fn undo_pass(&mut self) {
        self.present = 1 - self.present;
    }
}
