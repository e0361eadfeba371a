//! Heads, and what a sequence keeps of them.

use super::{Run, Work};
use crate::arch::SpanNorm;
use crate::exec::program::{Attend, Buffer, Turn};
use crate::exec::scratch::Arena;
use crate::kernel::attention::{AttentionParameters, LayerCache, attend_layer};
use crate::kernel::{rope, rows, vector};

impl Run<'_> {
    /// Norms and turns the heads of every token.
    pub(super) fn prepare_heads(&self, heads: Buffer, norm: Option<SpanNorm>, turn: Option<&Turn>, arena: &mut Arena) {
        let dim = self.shape().key_dim;
        let len = arena.width(heads);
        let pairs = turn.map_or(0, |turn| arena.width(turn.cos));
        let [x, cos, sin] = arena.slices_of(self.rows, [Some(heads), turn.map(|t| t.cos), turn.map(|t| t.sin)]);
        let pairing = turn.map(|turn| self.loaded.rotations[turn.rope].pairing());
        let (cos, sin) = (&*cos, &*sin);
        rows::for_rows(self.pool, x, len, |t, row| {
            if let Some(SpanNorm { norm, span }) = norm {
                let weights = self.loaded.vector(norm.weight).len();
                for (i, stretch) in row.chunks_exact_mut(span).enumerate() {
                    self.norm_row(norm, i * span % weights, stretch);
                }
            }
            if let Some(pairing) = pairing {
                let at = t * pairs..(t + 1) * pairs;
                for head in row.chunks_exact_mut(dim) {
                    rope::apply(self.isa, pairing, head, &cos[at.clone()], &sin[at.clone()]);
                }
            }
        });
    }

    /// Appends the chunk's keys and values to those of a layer.
    pub(super) fn write_key_values(&self, layer: usize, keys: Buffer, values: Buffer, w: &mut Work) {
        let s = self.shape();
        let [new_keys, new_values] = w.arena.slices(self.rows, [keys, values]);
        let (position, context) = (w.memory.position, w.memory.context);
        let per_layer = s.kv_heads * context * (s.key_dim + s.value_dim);
        let cache = &mut w.memory.cache[layer * per_layer..][..per_layer];
        let (keys, values) = cache.split_at_mut(s.kv_heads * context * s.key_dim);
        self.write_heads((position, context), new_keys, keys, s.key_dim);
        self.write_heads((position, context), new_values, values, s.value_dim);
    }

    fn write_heads(&self, (position, context): (usize, usize), from: &[f32], cache: &mut [u16], dim: usize) {
        let heads = self.shape().kv_heads;
        let write = |head: usize, cache: &mut [u16]| {
            for t in 0..self.rows {
                let to = &mut cache[(position + t) * dim..][..dim];
                vector::f32_to_f16(self.isa, &from[(t * heads + head) * dim..][..dim], to);
            }
        };
        // One token is less work than waking a thread.
        if self.rows == 1 {
            cache.chunks_exact_mut(context * dim).enumerate().for_each(|(h, c)| write(h, c));
        } else {
            rows::for_rows(self.pool, cache, context * dim, write);
        }
    }

    /// Attention to all that a layer has kept, the chunk's own keys and values among it.
    pub(super) fn attend(&self, a: &Attend, w: &mut Work) {
        let s = self.shape();
        let (position, context) = (w.memory.position, w.memory.context);
        let per_layer = s.kv_heads * context * (s.key_dim + s.value_dim);
        let (keys, values) =
            w.memory.cache[a.layer * per_layer..][..per_layer].split_at(s.kv_heads * context * s.key_dim);
        let cache =
            LayerCache { keys, values, kv_heads: s.kv_heads, context, key_dim: s.key_dim, value_dim: s.value_dim };
        let sinks = a.sinks.map(|sinks| self.loaded.vector(sinks));
        let until = (!self.loaded.program.causal).then_some(position + self.rows);
        let parameters = AttentionParameters { scale: a.scale, softcap: a.softcap, sinks, window: a.window, until };
        let [queries, to] = w.arena.slices(self.rows, [a.queries, a.to]);
        attend_layer(self.pool, self.isa, &cache, &parameters, s.heads, position, queries, to);
    }
}
