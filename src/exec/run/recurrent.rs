//! The steps of recurrent blocks.

use super::{Run, Work};
use crate::exec::program::{Buffer, Convolve, GateFunction, Recur, RecurRule, Stretches};
use crate::exec::scratch::Arena;
use crate::kernel::recurrent::{Convolution, Decay, Recurrence, Rule, convolve, recur};
use crate::kernel::rows;
use crate::kernel::vector;
use crate::operations::Activation;

impl Run<'_> {
    pub(super) fn copy_stretches(
        &self,
        (from, source): (Buffer, Stretches),
        (to, target): (Buffer, Stretches),
        [length, count]: [usize; 2],
        arena: &mut Arena,
    ) {
        let [from_width, width] = [from, to].map(|buffer| arena.width(buffer));
        let [from, to] = arena.slices(self.rows, [from, to]);
        for (from, to) in from.chunks_exact(from_width).zip(to.chunks_exact_mut(width)) {
            for i in 0..count {
                let part = &from[source.first + i * source.stride..][..length];
                to[target.first + i * target.stride..][..length].copy_from_slice(part);
            }
        }
    }

    /// rows ·= f(from).
    pub(super) fn gate_rows(&self, function: GateFunction, from: Buffer, rows: Buffer, arena: &mut Arena) {
        let width = arena.width(rows);
        let [from, rows] = arena.slices(self.rows, [from, rows]);
        rows::for_rows(self.pool, rows, width, |t, row| {
            let from = &from[t * width..][..width];
            match function {
                GateFunction::Plain => vector::multiply_assign(self.isa, row, from),
                GateFunction::Sigmoid => vector::sigmoid_assign(self.isa, row, from),
                GateFunction::Silu => vector::gate_assign(self.isa, Activation::Silu, from, row),
            }
        });
    }

    /// Convolves columns of the chunk's rows.
    pub(super) fn convolve(&self, c: &Convolve, w: &mut Work) {
        let width = w.arena.width(c.rows);
        let [rows] = w.arena.slices(self.rows, [c.rows]);
        let range = c.state..c.state + c.convolution.state_len();
        let (before, state) = w.memory.memory.change_state(c.layer, w.memory.position);
        let convolution = Convolution {
            weights: self.loaded.vector(c.convolution.weights),
            bias: c.convolution.bias.map(|bias| self.loaded.vector(bias)),
            kernel: c.convolution.kernel,
            silu: c.silu,
        };
        let states = (before.part(range.clone()), &mut state[range]);
        convolve(self.pool, self.isa, &convolution, states, (rows, width, c.first));
    }

    /// Takes the chunk's tokens into the matrices of a layer.
    pub(super) fn recur(&self, r: &Recur, w: &mut Work) {
        let width = w.arena.width(r.rows);
        let strengths = match r.rule {
            RecurRule::Delta { strengths } => Some(strengths),
            RecurRule::Plain { .. } => None,
        };
        let buffers = [Some(r.decays), Some(r.rows), Some(r.to), strengths];
        let [decays, rows, to, strengths] = w.arena.slices_of(self.rows, buffers);
        let rule = match r.rule {
            RecurRule::Delta { .. } => Rule::Delta { strengths, eps: self.shape().norm_eps },
            RecurRule::Plain { skip } => Rule::Plain { skip: Some(self.loaded.vector(skip)) },
        };
        let decay = Decay { inputs: decays, bias: self.loaded.vector(r.bias), factors: self.loaded.vector(r.factors) };
        let Recur { heads, queries, keys, values, .. } = *r;
        let recurrence = Recurrence { heads, decay, rule, rows, width, queries, keys, values };
        let range = r.state..r.state + heads.state_len();
        let (before, state) = w.memory.memory.change_state(r.layer, w.memory.position);
        recur(self.pool, self.isa, &recurrence, (before.part(range.clone()), &mut state[range]), to);
    }
}
