//! What a chunk of a pass leaves.

use super::Candidates;
use super::memory::MemoryLayout;
use crate::arch::Description;

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

/// Where a chunk writes its part of the results.
pub struct Wanted<'a> {
    /// Of the chunk's last positions, as many rows as it holds: [positions][vocabulary].
    pub logits: &'a mut [f32],
    /// What `which` asks for, [positions][embedding]; to a mean the chunk's rows are added.
    pub embeddings: &'a mut [f32],
    pub which: Embeddings,
}

impl Wanted<'_> {
    /// How many of the last positions of a chunk of `tokens` tokens its embeddings are made of.
    pub fn embedding_positions(&self, tokens: usize) -> usize {
        match self.which {
            Embeddings::None => 0,
            Embeddings::Last => 1,
            Embeddings::All | Embeddings::Mean | Embeddings::First | Embeddings::Score => tokens,
        }
    }
}

/// Bytes that a session takes from the budget: its memory, a row of logits and an embedding, twice because those of the
/// last pass stay until the next one has succeeded, what samplers compare its tokens in, and the tokens of a submitted
/// pass.
pub fn session_bytes(d: &Description, layout: &MemoryLayout) -> u64 {
    let rows = (d.shape.vocab + d.shape.embedding) as u64 * size_of::<f32>() as u64;
    let tokens = (layout.context as u64).saturating_mul(size_of::<i32>() as u64);
    let candidates = if d.head.is_some() { Candidates::bytes(d.shape.vocab) } else { 0 };
    layout.bytes().saturating_add(2 * rows).saturating_add(candidates).saturating_add(tokens)
}
