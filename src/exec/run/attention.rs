//! Heads, and what a sequence keeps of them.

use super::{Run, Work};
use crate::arch::SpanNorm;
use crate::exec::program::{Attend, Buffer, Turn};
use crate::exec::scratch::Arena;
use crate::kernel::attention::{AttentionParameters, Elements, attend_layer, rotate_back};
use crate::kernel::{rope, rows, vector};

impl Run<'_> {
    /// Norms and turns the heads of every token.
    pub(super) fn prepare_heads(
        &self,
        (heads, dim): (Buffer, usize),
        norm: Option<SpanNorm>,
        turn: Option<&Turn>,
        arena: &mut Arena,
    ) {
        let len = arena.width(heads);
        let pairs = turn.map_or(0, |turn| arena.width(turn.cos));
        let [x, cos, sin] = arena.slices_of(self.rows, [Some(heads), turn.map(|t| t.cos), turn.map(|t| t.sin)]);
        let pairing = turn.map(|turn| self.loaded.rotations[turn.rope].pairing());
        let (cos, sin) = (&*cos, &*sin);
        rows::for_rows(self.pool, x, len, |t, row| {
            match norm {
                Some(SpanNorm { norm: Some(norm), span }) => {
                    let weights = self.loaded.vector(norm.weight).len();
                    for (i, stretch) in row.chunks_exact_mut(span).enumerate() {
                        self.norm_row(norm, i * span % weights, stretch);
                    }
                }
                Some(SpanNorm { norm: None, span }) => {
                    let eps = self.shape().norm_eps;
                    row.chunks_exact_mut(span).for_each(|x| vector::rms_normalise(self.isa, x, eps));
                }
                None => {}
            }
            if let Some(pairing) = pairing {
                let at = t * pairs..(t + 1) * pairs;
                for head in row.chunks_exact_mut(dim) {
                    rope::apply(self.isa, pairing, head, &cos[at.clone()], &sin[at.clone()]);
                }
            }
        });
    }

    /// Appends each sequence's keys and values to those of a layer.
    pub(super) fn write_key_values(&self, layer: usize, keys: Buffer, values: Buffer, w: &mut Work) {
        let [key_width, value_width] = [keys, values].map(|buffer| w.arena.width(buffer));
        let [keys, values] = w.arena.slices(self.rows, [keys, values]);
        self.for_each_sequence(|place, loan| {
            let (keys, values) = (place.of(keys, key_width), place.of(values, value_width));
            loan.memory.append(self.pool, self.isa, layer, place.position, keys, values);
        });
    }

    /// Attention of each sequence to all that a layer has kept of it, the chunk's own keys and values among it.
    pub(super) fn attend(&self, a: &Attend, w: &mut Work) {
        let sinks = a.sinks.map(|sinks| self.loaded.vector(sinks));
        let slopes: Option<Vec<f32>> =
            a.slopes.map(|slopes| (0..a.heads).map(|head| slopes.of(head, a.heads)).collect());
        let slopes = slopes.as_deref();
        let Attend { scale, softcap, window, section, .. } = *a;
        let (width, result_width) = (w.arena.width(a.queries), w.arena.width(a.to));
        let [queries, to] = w.arena.slices(self.rows, [a.queries, a.to]);
        self.for_each_sequence(|place, loan| {
            let cache = loan.memory.view(a.layer);
            let until = (!self.loaded.program.causal).then_some(place.position + place.rows.len());
            let parameters = AttentionParameters { scale, softcap, sinks, window, section, slopes, until };
            let (queries, to) = (place.of_mut(queries, width), place.of_mut(to, result_width));
            let rotated = matches!(cache.keys.elements, Elements::Q8_0(_));
            if rotated {
                rows::for_rows(self.pool, queries, width, |_, row| rotate_back(row));
            }
            attend_layer(self.pool, self.isa, &cache, &parameters, a.heads, place.position, queries, to);
            if rotated {
                rows::for_rows(self.pool, to, result_width, |_, row| rotate_back(row));
            }
        });
    }
}
