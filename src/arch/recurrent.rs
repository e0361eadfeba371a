//! Layers that keep a state of one size in place of keys and values: what they compute, and of which tensors.

use super::{Linear, Norm, SpanNorm, VectorId};
use crate::operations::StateHeads;

/// x + W_out·mix(norm(x)), in place of attention or beside it.
#[derive(Clone, Copy, Debug)]
pub struct Recurrent {
    /// The attention's, where the layer has both.
    pub norm: Option<Norm>,
    pub mixer: Mixer,
    pub output: Linear,
}

/// What is made of h.
#[derive(Clone, Copy, Debug)]
pub enum Mixer {
    /// c ⊙ convolution(b ⊙ x), \[b | c | x\] = W_in·h.
    ShortConvolution {
        parts: [Linear; 3],
        convolution: Convolution,
    },
    Delta(Delta),
    StateSpace(StateSpace),
}

/// A causal convolution of each channel.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// \[channels\]\[kernel\]
    pub weights: VectorId,
    pub bias: Option<VectorId>,
    pub channels: usize,
    pub kernel: usize,
}

impl Convolution {
    /// Elements of its state.
    pub fn state_len(&self) -> usize {
        self.channels.saturating_mul(self.kernel - 1)
    }
}

/// Gated delta net (arXiv 2412.06464) and Kimi delta attention (arXiv 2510.26692): \[q | k | v\] = SiLU(convolution(W·h)),
/// then the gated delta rule for each head, its result normed and multiplied with f(gate).
#[derive(Clone, Copy, Debug)]
pub struct Delta {
    pub heads: StateHeads,
    pub rows: DeltaRows,
    /// Of parts of \[q | k | v\], end to end.
    pub convolutions: [Option<Convolution>; 3],
    pub strength: DeltaStrength,
    /// Added to what the decay is made of.
    pub bias: VectorId,
    /// −e^A of each head.
    pub factors: VectorId,
    pub norm: SpanNorm,
}

/// Where \[q | k | v\] and the gate come from.
#[derive(Clone, Copy, Debug)]
pub enum DeltaRows {
    /// \[q | k | v\], and the gate; f is SiLU.
    Together { rows: Linear, gate: Linear },
    /// For each key head its q, k, the v of its heads and their gates; f is SiLU.
    Grouped(Linear),
    /// q, k and v, and the gate of low rank; f is the sigmoid.
    Apart { parts: [Linear; 3], gate: [Linear; 2] },
}

/// Where the strength of the delta rule and the decay come from.
#[derive(Clone, Copy, Debug)]
pub enum DeltaStrength {
    ByHead {
        strength: Linear,
        decay: Linear,
    },
    /// For each key head the strengths of its heads, then their decays.
    Grouped(Linear),
    /// A decay of low rank for each element of the keys.
    ByElement {
        strength: Linear,
        decay: [Linear; 2],
    },
}

/// Mamba 2 (arXiv 2405.21060): \[z | xBC | dt\] = W_in·h, \[x | B | C\] = SiLU(convolution(xBC)), the state space of each
/// head with x as values, B as keys and C as queries, and norm(SiLU(z) ⊙ y) of its result.
#[derive(Clone, Copy, Debug)]
pub struct StateSpace {
    pub heads: StateHeads,
    pub parts: [Linear; 3],
    pub convolution: Convolution,
    pub bias: VectorId,
    /// −e^A of each head.
    pub factors: VectorId,
    /// Multiplies x, which is added to the result.
    pub skip: VectorId,
    pub norm: Option<SpanNorm>,
}

impl Recurrent {
    /// Elements of its state: those of the convolutions, then those of the heads.
    pub fn state_len(&self) -> usize {
        match &self.mixer {
            Mixer::ShortConvolution { convolution, .. } => convolution.state_len(),
            Mixer::Delta(d) => {
                let convolutions = d.convolutions.iter().flatten().map(Convolution::state_len);
                convolutions.fold(d.heads.state_len(), usize::saturating_add)
            }
            Mixer::StateSpace(s) => s.convolution.state_len().saturating_add(s.heads.state_len()),
        }
    }
}
