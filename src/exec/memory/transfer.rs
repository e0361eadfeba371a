//! Rows of positions on their way to and from a state file, or into another sequence's memory.

use std::io;
use std::ops::Range;

use super::{KvType, Layer, SequenceMemory};
use crate::operations::MAX_HEAD_DIM;

/// A row, as a file holds it: numbers of two bytes, or bytes; or the state of a layer.
pub enum Row<'a> {
    Halves(&'a [u16]),
    Bytes(&'a [u8]),
    Floats(&'a [f32]),
}

/// The same, to be filled.
pub enum RowMut<'a> {
    Halves(&'a mut [u16]),
    Bytes(&'a mut [u8]),
    Floats(&'a mut [f32]),
}

impl SequenceMemory {
    /// Gives `put` all rows that a sequence of `tokens` tokens has: for each layer its keys, [positions][heads], from the
    /// layer's first position on, then its values; then, unless there are no tokens, the states of recurrent layers.
    pub fn save(&self, tokens: usize, mut put: impl FnMut(Row) -> io::Result<()>) -> io::Result<()> {
        for l in self.layers() {
            for range in rows_of(l, l.first..tokens) {
                put(match l.kv_type {
                    KvType::F16 => Row::Halves(&self.cells.as_slice()[range]),
                    KvType::Q8_0 => Row::Bytes(&self.cells.bytes()[2 * range.start..2 * range.end]),
                })?;
            }
        }
        if tokens > 0 {
            put(Row::Floats(self.states.present()))?;
        }
        Ok(())
    }

    /// Takes the rows of `tokens` tokens in the order of [`SequenceMemory::save`] from `take`; `firsts` says where those
    /// of each layer begin. Of more positions than a layer has room for, the last are kept.
    ///
    /// # Panics
    /// If a layer's rows begin after what the next token sees, or there are not as many layers.
    pub fn load(
        &mut self,
        tokens: usize,
        firsts: &[usize],
        mut take: impl FnMut(RowMut) -> io::Result<()>,
    ) -> io::Result<()> {
        assert_eq!(firsts.len(), self.layers().len());
        let mut dropped = [0u16; MAX_HEAD_DIM];
        let mut dropped_bytes = [0u8; 2 * MAX_HEAD_DIM];
        for (i, &first) in firsts.iter().enumerate() {
            let l = &mut self.layout.layers[i];
            assert!(first <= l.first_seen(tokens), "the rows begin too late");
            l.first = first.max(tokens.saturating_sub(l.capacity));
            let l = *l;
            let missing = (l.first - first) * l.heads;
            for part in l.parts() {
                for _ in 0..missing {
                    take(match l.kv_type {
                        KvType::F16 => RowMut::Halves(&mut dropped[..part.row_words]),
                        KvType::Q8_0 => RowMut::Bytes(&mut dropped_bytes[..2 * part.row_words]),
                    })?;
                }
                for place in 0..tokens - l.first {
                    for head in 0..l.heads {
                        let range = part.rows(head, place..place + 1);
                        take(match l.kv_type {
                            KvType::F16 => RowMut::Halves(&mut self.cells.as_slice_mut()[range]),
                            KvType::Q8_0 => RowMut::Bytes(&mut self.cells.bytes_mut()[2 * range.start..2 * range.end]),
                        })?;
                    }
                }
            }
        }
        if tokens > 0 {
            take(RowMut::Floats(self.states.present_mut()))?;
        }
        Ok(())
    }

    /// Takes over what `other`, of the same model and type, has of `tokens` tokens: as much as there is room for.
    pub fn copy_from(&mut self, other: &SequenceMemory, tokens: usize) {
        self.states.present_mut().copy_from_slice(other.states.present());
        let cells = self.cells.as_slice_mut::<u16>();
        for (to, from) in self.layout.layers.iter_mut().zip(other.layers()) {
            to.first = from.first.max(tokens.saturating_sub(to.capacity));
            for (part, theirs) in to.parts().zip(from.parts()) {
                for head in 0..to.heads {
                    let used = theirs.rows(head, to.first - from.first..tokens - from.first);
                    cells[part.rows(head, 0..tokens - to.first)].copy_from_slice(&other.cells.as_slice()[used]);
                }
            }
        }
    }
}

/// Where each row of the positions lies, [positions][heads], the keys before the values.
fn rows_of(l: &Layer, positions: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let (heads, places) = (l.heads, positions.start - l.first..positions.end - l.first);
    l.parts().flat_map(move |part| {
        places.clone().flat_map(move |place| (0..heads).map(move |head| part.rows(head, place..place + 1)))
    })
}
