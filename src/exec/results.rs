//! What a chunk of a pass leaves.

use std::ops::Range;

use super::Candidates;
use super::memory::MemoryLayout;
use crate::arch::Description;
use crate::error::{Error, Result};
use crate::weights::frames::Memory;

/// Which positions of a pass yield logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    Last,
    All,
    None,
}

/// Which embeddings a pass yields: hidden states after the final norm, not normalised to a length of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Embeddings {
    None,
    /// One of each token.
    All,
    /// That of the pass's last token.
    Last,
    /// The mean over the pass's tokens: summed in f32 in their order, then divided.
    Mean,
    /// That of the pass's first token.
    First,
    /// In their place the outputs of the model's classifier, one row of them.
    Score,
}

/// What a pass yields. Logits alone are an `Outputs` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    pub logits: Logits,
    pub embeddings: Embeddings,
}

impl From<Logits> for Outputs {
    fn from(logits: Logits) -> Outputs {
        Outputs { logits, embeddings: Embeddings::None }
    }
}

/// Embeddings without logits: the output head is not read.
impl From<Embeddings> for Outputs {
    fn from(embeddings: Embeddings) -> Outputs {
        Outputs { logits: Logits::None, embeddings }
    }
}

/// Which rows of its pass's results a chunk fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of its last positions.
    pub logits: Range<usize>,
    /// What `which` asks for; to a mean the chunk's rows are added.
    pub embeddings: Range<usize>,
    pub which: Embeddings,
}

impl Wanted {
    /// Of the `count` tokens from the `first` on, of `tokens` that the pass has in all.
    pub fn of_chunk(outputs: Outputs, first: usize, count: usize, tokens: usize) -> Wanted {
        let last = first + count == tokens;
        let logits = match outputs.logits {
            Logits::All => first..first + count,
            Logits::Last if last => 0..1,
            Logits::Last | Logits::None => 0..0,
        };
        let (embeddings, which) = match outputs.embeddings {
            Embeddings::All => (first..first + count, Embeddings::All),
            Embeddings::Last if last => (0..1, Embeddings::Last),
            Embeddings::First if first == 0 => (0..1, Embeddings::First),
            Embeddings::Mean => (0..1, Embeddings::Mean),
            Embeddings::Score if last => (0..1, Embeddings::Score),
            Embeddings::None | Embeddings::Last | Embeddings::First | Embeddings::Score => (0..0, Embeddings::None),
        };
        Wanted { logits, embeddings, which }
    }

    /// How many of the last positions of a chunk of `tokens` tokens its results are made of.
    pub fn positions(&self, tokens: usize) -> usize {
        let of_embeddings = match self.which {
            Embeddings::None => 0,
            Embeddings::Last => 1,
            Embeddings::All | Embeddings::Mean | Embeddings::First | Embeddings::Score => tokens,
        };
        of_embeddings.max(self.logits.len())
    }
}

/// Rows of results, [count][width].
#[derive(Default)]
pub struct Rows {
    /// Memory of its own, not the heap's: what the heap is given back it may keep, beyond the budget.
    values: Option<Memory>,
    pub count: usize,
    width: usize,
}

impl Rows {
    /// Without memory yet.
    pub fn new(count: usize, width: usize) -> Rows {
        Rows { values: None, count, width }
    }

    /// In memory that has room for them; None: without memory yet.
    pub fn in_memory(memory: Option<Memory>, count: usize, width: usize) -> Rows {
        Rows { values: memory, count, width }
    }

    /// # Errors
    /// `INVALID_ARGUMENT`: there is no such row of `what`.
    pub fn row(&self, row: usize, what: &str) -> Result<&[f32]> {
        if row >= self.count {
            return Err(Error::invalid(format!("row {row} of {} rows of {what}", self.count)));
        }
        Ok(&self.all()[row * self.width..][..self.width])
    }

    fn all(&self) -> &[f32] {
        self.values.as_ref().map_or(&[], |values| &values.as_slice()[..self.count * self.width])
    }

    pub fn all_mut(&mut self) -> &mut [f32] {
        let count = self.count * self.width;
        self.values.as_mut().map_or(&mut [], |values| &mut values.as_slice_mut()[..count])
    }

    pub fn rows_mut(&mut self, rows: Range<usize>) -> &mut [f32] {
        let width = self.width;
        &mut self.all_mut()[rows.start * width..rows.end * width]
    }

    /// Gives it memory where it has none: `spare` where that has the size.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn allocate(&mut self, spare: &mut Option<Memory>, what: &str) -> Result<()> {
        if self.values.is_some() {
            return Ok(());
        }
        let bytes = self.count.saturating_mul(self.width).saturating_mul(size_of::<f32>());
        if bytes == 0 {
            return Ok(());
        }
        self.values = spare.take().filter(|spare| spare.len() == bytes);
        if self.values.is_none() {
            let memory = Memory::of(bytes as u64, format_args!("{what} of {} positions", self.count))?;
            self.values = Some(memory);
        }
        Ok(())
    }

    /// Gives its memory up.
    pub fn take(&mut self) -> Option<Memory> {
        self.values.take()
    }

    /// What it takes beside one row.
    pub fn extra_bytes(&self) -> u64 {
        (self.width as u64 * 4).saturating_mul((self.count as u64).saturating_sub(1))
    }
}

/// Bytes that a session takes from the budget: its memory, a row of logits and an embedding, twice because those of the
/// last pass stay until the next one has succeeded, what samplers compare its tokens in, and the tokens of a pass.
pub fn session_bytes(d: &Description, layout: &MemoryLayout) -> u64 {
    let rows = (d.shape.vocab + d.shape.embedding) as u64 * size_of::<f32>() as u64;
    let tokens = (layout.context as u64).saturating_mul(size_of::<i32>() as u64);
    let candidates = if d.head.is_some() { Candidates::bytes(d.shape.vocab) } else { 0 };
    layout.bytes().saturating_add(2 * rows).saturating_add(candidates).saturating_add(tokens)
}
