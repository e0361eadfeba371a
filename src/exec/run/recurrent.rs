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

    /// Convolves columns of each sequence's rows.
    pub(super) fn convolve(&self, c: &Convolve, w: &mut Work) {
        let width = w.arena.width(c.rows);
        let [rows] = w.arena.slices(self.rows, [c.rows]);
        let range = c.state..c.state + c.convolution.state_len();
        let convolution = Convolution {
            weights: self.loaded.vector(c.convolution.weights),
            bias: c.convolution.bias.map(|bias| self.loaded.vector(bias)),
            kernel: c.convolution.kernel,
            silu: c.silu,
        };
        self.for_each_sequence(|place, loan| {
            let (before, state) = loan.memory.change_state(c.layer, place.position);
            let states = (before.part(range.clone()), &mut state[range.clone()]);
            convolve(self.pool, self.isa, &convolution, states, (place.of_mut(rows, width), width, c.first));
        });
    }

    /// Takes each sequence's tokens into its matrices of a layer.
    pub(super) fn recur(&self, r: &Recur, w: &mut Work) {
        let [width, to_width, decay_width] = [r.rows, r.to, r.decays].map(|buffer| w.arena.width(buffer));
        let strengths = match r.rule {
            RecurRule::Delta { strengths } => Some(strengths),
            RecurRule::Plain { .. } => None,
        };
        let buffers = [Some(r.decays), Some(r.rows), Some(r.to), strengths];
        let strength_width = strengths.map_or(0, |buffer| w.arena.width(buffer));
        let [decays, rows, to, strengths] = w.arena.slices_of(self.rows, buffers);
        let Recur { heads, queries, keys, values, .. } = *r;
        let (bias, factors) = (self.loaded.vector(r.bias), self.loaded.vector(r.factors));
        let range = r.state..r.state + heads.state_len();
        self.for_each_sequence(|place, loan| {
            let strengths = place.of(strengths, strength_width);
            let rule = match r.rule {
                RecurRule::Delta { .. } => Rule::Delta { strengths, eps: self.shape().norm_eps },
                RecurRule::Plain { skip } => Rule::Plain { skip: Some(self.loaded.vector(skip)) },
            };
            let decay = Decay { inputs: place.of(decays, decay_width), bias, factors };
            let rows = place.of(rows, width);
            let recurrence = Recurrence { heads, decay, rule, rows, width, queries, keys, values };
            let (before, state) = loan.memory.change_state(r.layer, place.position);
            let states = (before.part(range.clone()), &mut state[range.clone()]);
            recur(self.pool, self.isa, &recurrence, states, place.of_mut(to, to_width));
        });
    }
}
