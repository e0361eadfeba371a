//! Architectures as data: a description of what each layer computes and of which tensors, which the one forward routine
//! executes. Each family has a file that makes its description from the metadata and the tensor directory.

mod build;
mod llama;

use crate::error::{Error, Result};
use crate::gguf::Directory;
use crate::kernel::rope::{Pairing, Scaling};
use crate::weights::{MatrixId, Schedule};

pub use build::VectorSource;

/// A small tensor that is read at open and stays, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorId(pub u32);

/// y = W·x + b.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub weight: MatrixId,
    pub bias: Option<VectorId>,
}

/// Sizes that do not change from layer to layer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub embedding: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub key_dim: usize,
    pub value_dim: usize,
    pub feed_forward: usize,
    pub vocab: usize,
    /// Tokens the model was trained for.
    pub context: u32,
    pub norm_eps: f32,
}

/// The rotary embedding of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    pub pairing: Pairing,
    /// Rotated elements of each head.
    pub dims: usize,
    pub base: f64,
    pub scaling: Scaling,
    /// One divisor per pair.
    pub divisors: Option<VectorId>,
}

/// x += W_o·attention(rope(W_q·h), rope(W_k·h), W_v·h), h = rms_norm(x).
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub norm: VectorId,
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    /// Multiplies q·k.
    pub scale: f32,
}

/// x += W_down·(silu(W_gate·h) ⊙ W_up·h), h = rms_norm(x).
#[derive(Clone, Copy, Debug)]
pub struct FeedForward {
    pub norm: VectorId,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub attention: Attention,
    pub feed_forward: FeedForward,
}

/// What a model computes.
#[derive(Debug)]
pub struct Description {
    pub shape: Shape,
    pub rope: Rope,
    /// Rows of it are the tokens' embeddings; may be the head's matrix.
    pub embedding: MatrixId,
    pub layers: Vec<Layer>,
    pub output_norm: VectorId,
    pub head: MatrixId,
}

/// A described model: what it computes, the schedule of its pages, and the small tensors to read at open.
pub struct Described {
    pub description: Description,
    pub schedule: Schedule,
    pub vectors: Vec<VectorSource>,
}

/// Describes the model of a directory. `starts` says where the model begins in each of its files, `alignment` what reads
/// of them are aligned to.
///
/// # Errors
/// `UNSUPPORTED` names an architecture, or a feature of it, that is not built in; `FORMAT` a key or tensor that is
/// missing or does not fit.
pub fn describe(directory: &Directory, starts: Vec<u64>, alignment: u64) -> Result<Described> {
    match directory.metadata.require_str("general.architecture")? {
        "llama" => llama::describe(directory, starts, alignment),
        other => Err(Error::unsupported(format!("architecture {other:?} is not built in (built in: llama)"))),
    }
}
