//! The feed-forward block of a layer.

use super::{Buffers, Step};
use crate::arch::{Block, FeedForward, Mlp};
use crate::error::Result;
use crate::kernel::matmul::Activations;
use crate::kernel::page::Epilogue;
use crate::weights::Sweep;

impl Step<'_> {
    /// `parallel`: the block reads what the layer began with.
    pub fn feed_forward(&self, f: &FeedForward, parallel: bool, b: &mut Buffers, sweep: &mut Sweep) -> Result<()> {
        let mlp = match &f.block {
            Block::Dense(mlp) => mlp,
            Block::Experts(experts) => return self.experts(experts, f, parallel, b, sweep),
        };
        let from = if parallel { &b.before[..b.x.len()] } else { &*b.x };
        let input = self.normed(f.norm, from, b.work);
        let acts = self.quantize(&mlp.up_projections(), input, b.forms);
        let inner = self.inner(mlp, &acts, b.work, sweep)?;
        let acts = self.quantize(&[mlp.down], inner, b.forms);
        self.add_block(mlp.down, &acts, [f.post_norm, f.sum_norm], b.work, b.x, sweep)
    }

    /// f(W_gate·h) ⊙ W_up·h, or f(W_up·h), in `work`.
    pub fn inner<'b>(
        &self,
        mlp: &Mlp,
        acts: &[Activations],
        work: &'b mut [f32],
        sweep: &mut Sweep,
    ) -> Result<&'b [f32]> {
        let length = self.rows_of(mlp.up.weight) * self.tokens;
        let (up, rest) = work.split_at_mut(length);
        match mlp.gate {
            Some(gate) => {
                let linears = [gate, mlp.up];
                self.multiply_gated(mlp.activation, linears, acts, (&mut rest[..length], &mut *up), sweep)?;
            }
            None => self.multiply(mlp.up, acts, up, Epilogue::Activate(mlp.activation), sweep)?,
        }
        Ok(up)
    }
}
