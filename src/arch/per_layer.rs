//! What some models have beside the blocks of their layers: inputs of each layer's own, and several residual streams.

use super::{Linear, Norm, VectorId};
use crate::operations::Activation;
use crate::weights::MatrixId;

/// Inputs that every layer has of its own: `width` elements for each token and layer,
/// (table_scale·row(token) + norm(projection_scale·W·x)) / √2, x being the token's scaled embedding.
#[derive(Clone, Copy, Debug)]
pub struct LayerInputs {
    /// Rows of it are the tokens', [layers][width]. It is never held: a row is read when a pass needs it.
    pub table: MatrixId,
    pub table_scale: f32,
    pub projection: Linear,
    pub projection_scale: f32,
    /// Of each layer's part, with the same weights.
    pub norm: Norm,
    pub width: usize,
}

/// How a layer takes its own input p in: x += norm(W_out·(f(W_gate·x) ⊙ p)).
#[derive(Clone, Copy, Debug)]
pub struct LayerInput {
    pub gate: Linear,
    pub activation: Activation,
    pub output: Linear,
    pub norm: Norm,
}

/// Bounds what the steps of streams keep on the stack. Known models have 4.
pub const MAX_STREAMS: usize = 8;

/// Several residual streams in place of one (alternating updates, arXiv 2301.13310). The first is the token's embedding,
/// the others are products of it, all brought to its length (L2). Layers predict all of them, compute the first, and
/// correct the others by what the prediction missed. In the end the others' products, brought to the first one's length,
/// and the first one are averaged.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    pub count: usize,
    /// The matrices that make the other streams, end to end.
    pub spread: MatrixId,
    /// Those that take them back, end to end.
    pub merge: MatrixId,
}

/// What a layer does with the streams S. With m(y) = tanh(router·norm(y) / width): predictions are
/// P_j = S_j + Σ_k (predict·m(S_0))_{j,k}·S_k, and of P_0 the layer makes A; then S_j = P_j + (1 + (correct·m(A))_j)·(A − P_0).
/// The layer's own input is taken in by the other streams, its gate reading correct_scale ⊙ S_0.
#[derive(Clone, Copy, Debug)]
pub struct LayerStreams {
    pub norm: Norm,
    /// [streams][width]
    pub router: VectorId,
    /// [streams · streams][streams]
    pub predict: VectorId,
    /// [streams][streams]
    pub correct: VectorId,
    pub correct_scale: VectorId,
}
