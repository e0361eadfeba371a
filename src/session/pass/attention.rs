//! The attention block of a layer.

use super::{Buffers, Step};
use crate::arch::{Attention, Projection, SpanNorm};
use crate::error::Result;
use crate::kernel::attention::{AttentionParameters, LayerCache, attend_layer};
use crate::kernel::rope::{self, Pairing};
use crate::kernel::{rows, vector};
use crate::model::Model;
use crate::weights::Sweep;

/// How far the heads of a chunk's tokens are turned.
pub struct Turned<'a> {
    pairing: Pairing,
    /// [tokens][pairs]
    cos: &'a [f32],
    sin: &'a [f32],
    pairs: usize,
}

impl<'a> Turned<'a> {
    /// One for each of the model's rotations.
    pub fn all(model: &Model, context: usize, positions: &[u32], mut angles: &'a mut [f32]) -> Vec<Turned<'a>> {
        let mut all = Vec::with_capacity(model.rotations().len());
        for rotation in model.rotations() {
            let table = rotation.table(context);
            let count = positions.len() * table.pairs();
            let (cos, rest) = angles.split_at_mut(count);
            let (sin, rest) = rest.split_at_mut(count);
            table.fill(positions, cos, sin);
            all.push(Turned { pairing: rotation.pairing(), cos, sin, pairs: table.pairs() });
            angles = rest;
        }
        all
    }
}

/// Where the chunk stands.
pub struct Place<'a> {
    pub position: usize,
    pub context: usize,
    pub turned: &'a [Turned<'a>],
}

impl Step<'_> {
    pub fn attention(
        &self,
        a: &Attention,
        place: &Place,
        b: &mut Buffers,
        cache: &mut [u16],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let d = self.model.description();
        let s = d.shape;
        let n = self.tokens;
        let (q_len, k_len, v_len) = (s.heads * s.key_dim, s.kv_heads * s.key_dim, s.kv_heads * s.value_dim);
        let input = self.normed(a.norm, b.x, b.work);
        let acts = match &a.projection {
            Projection::Direct { query, key, value } => self.quantize(&[*query, *key, *value], input, b.forms),
            Projection::Latent(latent) => self.quantize(&latent.first_stage(), input, b.forms),
        };
        let (q, rest) = b.work.split_at_mut(n * q_len);
        let (k, rest) = rest.split_at_mut(n * k_len);
        let (v, rest) = rest.split_at_mut(n * v_len);
        let (mixed, rest) = rest.split_at_mut(n * s.heads * s.value_dim);
        match &a.projection {
            Projection::Direct { query, key, value } => {
                self.multiply_three([*query, *key, *value], &acts, [q, k, v], sweep)?;
            }
            Projection::Latent(latent) => {
                let made = self.latent_start(latent, &acts, rest, sweep)?;
                self.latent_heads(latent, made, (q, k, v), b.forms, sweep)?;
            }
        }

        let turned = a.rope.map(|rope| &place.turned[rope]);
        let after = a.norm_after_rotation;
        self.prepare_heads(q, q_len, a.query_norm, after, turned);
        if let Some(temperature) = a.temperature {
            rows::for_rows(self.pool, q, q_len, |t, row| {
                vector::scale(self.isa, row, temperature.factor(place.position + t));
            });
        }
        self.prepare_heads(k, k_len, a.key_norm, after, turned);
        let (keys, values) = cache.split_at_mut(s.kv_heads * place.context * s.key_dim);
        self.write_key_values(place, k, keys, s.key_dim);
        self.write_key_values(place, v, values, s.value_dim);
        let cache = LayerCache {
            keys,
            values,
            kv_heads: s.kv_heads,
            context: place.context,
            key_dim: s.key_dim,
            value_dim: s.value_dim,
        };
        let sinks = a.sinks.map(|sinks| self.model.vector(sinks));
        let until = (!d.causal).then_some(place.position + n);
        let parameters = AttentionParameters { scale: a.scale, softcap: a.softcap, sinks, window: a.window, until };
        attend_layer(self.pool, self.isa, &cache, &parameters, s.heads, place.position, q, mixed);

        let mixed = match &a.projection {
            Projection::Direct { .. } => mixed,
            Projection::Latent(latent) => self.latent_result(latent, mixed, rest, b.forms, sweep)?,
        };
        let acts = self.quantize(&[a.output], mixed, b.forms);
        self.add_block(a.output, &acts, [a.post_norm, a.sum_norm], b.work, b.x, sweep)
    }

    /// Norms and turns the heads of every token, rows of `len`.
    fn prepare_heads(
        &self,
        x: &mut [f32],
        len: usize,
        norm: Option<SpanNorm>,
        norm_last: bool,
        turned: Option<&Turned>,
    ) {
        if norm.is_none() && turned.is_none() {
            return;
        }
        let dim = self.model.description().shape.key_dim;
        rows::for_rows(self.pool, x, len, |t, row| {
            let norm_spans = |row: &mut [f32]| {
                let Some(SpanNorm { norm, span }) = norm else { return };
                let weights = self.model.vector(norm.weight).len();
                for (i, stretch) in row.chunks_exact_mut(span).enumerate() {
                    self.norm_row(norm, i * span % weights, stretch);
                }
            };
            if !norm_last {
                norm_spans(row);
            }
            if let Some(turned) = turned {
                let at = t * turned.pairs..(t + 1) * turned.pairs;
                for head in row.chunks_exact_mut(dim) {
                    rope::apply(self.isa, turned.pairing, head, &turned.cos[at.clone()], &turned.sin[at.clone()]);
                }
            }
            if norm_last {
                norm_spans(row);
            }
        });
    }

    /// Writes the keys or values of the chunk into the cache of their layer.
    fn write_key_values(&self, place: &Place, from: &[f32], cache: &mut [u16], dim: usize) {
        let heads = self.model.description().shape.kv_heads;
        let write = |head: usize, cache: &mut [u16]| {
            for t in 0..self.tokens {
                let to = &mut cache[(place.position + t) * dim..][..dim];
                vector::f32_to_f16(self.isa, &from[(t * heads + head) * dim..][..dim], to);
            }
        };
        // One token is less work than waking a thread.
        if self.tokens == 1 {
            cache.chunks_exact_mut(place.context * dim).enumerate().for_each(|(h, c)| write(h, c));
        } else {
            rows::for_rows(self.pool, cache, place.context * dim, write);
        }
    }
}
