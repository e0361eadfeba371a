//! What a sequence remembers of its tokens. The arithmetic of where a key or value lies stands here alone.
//!
//! | file | |
//! |---|---|
//! | `layout` | the kinds of memory a layer can have, and the sizes |
//! | `recurrent` | the states of layers that keep no positions |
//! | `snapshot` | copies of parts of it, for passes that fail, checkpoints and loading |
//! | `transfer` | the rows of positions in the order of a state file, and from one sequence to another |
//!
//! A layer with a window lies in a straight buffer that is longer than the window. When a chunk does not fit behind what
//! is there, the positions that it can still see are moved to the front. So kernels see consecutive positions, and
//! because attention takes its blocks by absolute positions, the bits do not depend on where the buffer begins.

mod layout;
mod recurrent;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;

use crate::error::{Error, Result};
use crate::kernel::attention::{CacheRows, Elements, LayerCache, Q8_0_BLOCK, Q8_0_BYTES, f32_to_q8_0, rotate};
use crate::kernel::pool::Pool;
use crate::kernel::recurrent::Before;
use crate::kernel::{Isa, rows, vector};
use crate::operations::MAX_HEAD_DIM;
use crate::weights::frames::Memory;
use recurrent::States;

pub use layout::{Kind, KvType, Layer, MemoryLayout};
pub use recurrent::StateLayer;
pub use snapshot::{Held, Snapshot};
pub use transfer::{Row, RowMut};

/// The memory of one sequence. It does not know how many tokens the sequence has: callers say.
pub struct SequenceMemory {
    layout: MemoryLayout,
    cells: Memory,
    states: States,
}

impl SequenceMemory {
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn new(layout: MemoryLayout) -> Result<SequenceMemory> {
        let cells = Memory::of(layout.words.saturating_mul(2), "keys and values")?;
        Ok(SequenceMemory { states: States::new(&layout.states)?, layout, cells })
    }

    /// What it takes from the budget.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// The part of it that keys and values take.
    pub fn cell_bytes(&self) -> u64 {
        self.layout.words.saturating_mul(2)
    }

    /// What the layers keep.
    pub fn layers(&self) -> &[Layer] {
        &self.layout.layers
    }

    /// The states of recurrent layers, beside what `layers` keep.
    pub fn state_layers(&self) -> &[StateLayer] {
        &self.layout.states
    }

    /// The state of a recurrent layer that a chunk at `position` begins with, and where it leaves its own.
    pub fn change_state(&mut self, layer: usize, position: usize) -> (Before<'_>, &mut [f32]) {
        self.states.change(self.layout.states[layer].0.clone(), position)
    }

    /// A chunk of a pass has been taken in.
    pub fn end_chunk(&mut self) {
        self.states.end_chunk();
    }

    /// Ends a pass. Recurrent states are as before it where it has not succeeded.
    pub fn end_pass(&mut self, succeeded: bool) {
        self.states.end_pass(succeeded);
    }

    /// Adds the keys and values of consecutive tokens, of which the first stands at `position`: `keys` is
    /// [tokens][kv_heads][key_dim], `values` [tokens][kv_heads][value_dim]. What a layer had at these positions and after
    /// them is replaced. Of a compressed layer the keys are taken alone.
    ///
    /// # Panics
    /// If the layer has no room for them, or they do not follow on what it has.
    pub fn append(&mut self, pool: &Pool, isa: Isa, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let l = self.layout.layers[layer];
        let tokens = keys.len() / (l.heads * l.key_dim);
        self.make_room(layer, position, tokens);
        let l = self.layout.layers[layer];
        let place = position - l.first;
        for (part, from, dim) in
            [(Some(l.keys()), keys, l.key_dim), (l.values(), values, l.value_dim)].into_iter().filter_map(keep_first)
        {
            let range = part.range();
            match l.kv_type {
                KvType::F16 => {
                    let cells = &mut self.cells.as_slice_mut::<u16>()[range];
                    let write = |from: &[f32], to: &mut [u16]| vector::f32_to_f16(isa, from, to);
                    write_rows(pool, cells, (l.capacity, place), part.row_words, (from, l.heads, dim), write);
                }
                KvType::Q8_0 => {
                    let cells = &mut self.cells.bytes_mut()[2 * range.start..2 * range.end];
                    let write = |from: &[f32], to: &mut [u8]| {
                        let mut row = [0.0; MAX_HEAD_DIM];
                        let row = &mut row[..from.len()];
                        row.copy_from_slice(from);
                        rotate(row);
                        f32_to_q8_0(isa, row, to);
                    };
                    write_rows(pool, cells, (l.capacity, place), 2 * part.row_words, (from, l.heads, dim), write);
                }
            }
        }
    }

    /// The keys and values of a layer, for attention. Quantised ones are rotated (`kernel::attention::rotate`).
    pub fn view(&self, layer: usize) -> LayerCache<'_> {
        let l = &self.layout.layers[layer];
        let elements = |range: std::ops::Range<usize>| match l.kv_type {
            KvType::F16 => Elements::F16(&self.cells.as_slice::<u16>()[range]),
            KvType::Q8_0 => Elements::Q8_0(&self.cells.bytes()[2 * range.start..2 * range.end]),
        };
        let units = match l.kv_type {
            KvType::F16 => 1,
            KvType::Q8_0 => 2,
        };
        let rows = |part: layout::Part, skip: usize, dim| {
            let range = part.range();
            CacheRows { elements: elements(range.start + skip..range.end), dim, stride: part.row_words * units }
        };
        let keys = rows(l.keys(), 0, l.key_dim);
        let values = match (l.values(), l.kind) {
            (Some(values), _) => rows(values, 0, l.value_dim),
            (None, Kind::Compressed { value_start }) => {
                let skip = match l.kv_type {
                    KvType::F16 => value_start,
                    KvType::Q8_0 => value_start / Q8_0_BLOCK * (Q8_0_BYTES / 2),
                };
                rows(l.keys(), skip, l.value_dim)
            }
            (None, Kind::Full | Kind::Windowed { .. }) => unreachable!("these kinds keep values"),
        };
        LayerCache { first: l.first, keys, values, kv_heads: l.heads, capacity: l.capacity }
    }

    /// Makes the places of `count` positions from `position` on, by dropping what the first of them does not see.
    fn make_room(&mut self, layer: usize, position: usize, count: usize) {
        let l = &mut self.layout.layers[layer];
        assert!(position >= l.first, "position {position} is before the first one kept, {}", l.first);
        if position - l.first + count <= l.capacity {
            return;
        }
        let first = l.first_seen(position).max(l.first);
        assert!(position - first + count <= l.capacity, "{count} positions do not fit");
        let (from, end) = (first - l.first, position - l.first);
        l.first = first;
        let l = *l;
        let cells = self.cells.as_slice_mut::<u16>();
        for part in l.parts() {
            for head in 0..l.heads {
                cells.copy_within(part.rows(head, from..end), part.rows(head, 0..end - from).start);
            }
        }
    }

    /// Whether taking in `count` tokens at `position` may drop something that the token at `position` sees.
    pub fn may_drop(&self, position: usize, count: usize) -> bool {
        let droppable = |l: &&Layer| self.layout.drops(l) && position > 0;
        self.layout.layers.iter().filter(droppable).any(|l| position - l.first + count > l.capacity)
    }

    /// The fewest tokens of `tokens`, beside none, that [`SequenceMemory::truncate`] can leave.
    pub fn fewest_tokens(&self, tokens: usize) -> usize {
        if self.layout.states.is_empty() { self.fewest_in_windows() } else { tokens.max(1) }
    }

    /// As far as layers with a window go.
    fn fewest_in_windows(&self) -> usize {
        let fewest = |l: &Layer| match l.kind {
            Kind::Windowed { window } if l.first > 0 => l.first + window - 1,
            _ => 1,
        };
        self.layout.layers.iter().map(fewest).max().unwrap_or(1)
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.layout.layers.iter_mut().for_each(|l| l.first = 0);
    }

    /// Gives the memory back to the system, for good.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`: it goes when this is dropped.
    pub fn free(&mut self) -> Result<()> {
        self.layout.states.clear();
        self.states = States::new(&[])?;
        self.cells = Memory::of(0, "keys and values")?;
        self.layout.layers.clear();
        Ok(())
    }

    /// Takes back the last pass, which began at `tokens`: recurrent states are what they were before it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a layer with a window has dropped what the next token would see.
    pub fn undo_pass(&mut self, tokens: usize) -> Result<()> {
        self.truncate_windows(tokens)?;
        self.states.undo_pass();
        Ok(())
    }

    /// Keeps the first `tokens` of the sequence's tokens, which has more.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a layer with a window has dropped what the next token would see, or a recurrent layer has the
    /// state of the last token alone.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens == 0 {
            self.clear();
        } else if !self.layout.states.is_empty() {
            return Err(Error::invalid(format!(
                "{tokens} tokens cannot stay: recurrent layers keep the state after the last token alone; 0 tokens can stay, or those of a checkpoint"
            )));
        }
        self.truncate_windows(tokens)
    }

    fn truncate_windows(&mut self, tokens: usize) -> Result<()> {
        let fewest = self.fewest_in_windows();
        if tokens > 0 && tokens < fewest {
            return Err(Error::invalid(format!(
                "{tokens} tokens cannot stay: layers with a window have dropped what the next token would see; 0 tokens can stay, or {fewest} and more, or those of a checkpoint"
            )));
        }
        Ok(())
    }
}

fn keep_first<P, R, D>((part, rows, dim): (Option<P>, R, D)) -> Option<(P, R, D)> {
    Some((part?, rows, dim))
}

/// Writes rows [tokens][heads][dim] into [heads][capacity] rows of `row_len`, from `place` on.
fn write_rows<T: Send>(
    pool: &Pool,
    cells: &mut [T],
    (capacity, place): (usize, usize),
    row_len: usize,
    (from, heads, dim): (&[f32], usize, usize),
    write: impl Fn(&[f32], &mut [T]) + Sync,
) {
    let tokens = from.len() / (heads * dim);
    let write = |head: usize, cells: &mut [T]| {
        let to = cells[place * row_len..].chunks_exact_mut(row_len);
        for (to, from) in to.zip(from.chunks_exact(heads * dim)) {
            write(&from[head * dim..][..dim], to);
        }
    };
    // One token is less work than waking a thread.
    if tokens == 1 {
        cells.chunks_exact_mut(capacity * row_len).enumerate().for_each(|(head, cells)| write(head, cells));
    } else {
        rows::for_rows(pool, cells, capacity * row_len, write);
    }
}
