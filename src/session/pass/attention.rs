//! The attention block of a layer.

use super::{Buffers, Step};
use crate::arch::{Attention, Projection, SpanNorm};
use crate::error::Result;
use crate::exec::memory::SequenceMemory;
use crate::kernel::attention::{AttentionParameters, attend_layer};
use crate::kernel::rope::{self, Pairing};
use crate::kernel::rows;
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
    pub turned: &'a [Turned<'a>],
}

/// What a layer remembers: one of the layers of a sequence's memory.
pub struct LayerMemory<'a> {
    pub memory: &'a mut SequenceMemory,
    pub layer: usize,
}

impl Step<'_> {
    pub fn attention(
        &self,
        a: &Attention,
        place: &Place,
        b: &mut Buffers,
        remembered: &mut LayerMemory,
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
        self.prepare_heads(q, q_len, a.query_norm, turned);
        self.prepare_heads(k, k_len, a.key_norm, turned);
        let LayerMemory { memory, layer } = remembered;
        memory.append(self.pool, self.isa, *layer, place.position, k, v);
        let cache = memory.view(*layer);
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
    fn prepare_heads(&self, x: &mut [f32], len: usize, norm: Option<SpanNorm>, turned: Option<&Turned>) {
        if norm.is_none() && turned.is_none() {
            return;
        }
        let dim = self.model.description().shape.key_dim;
        rows::for_rows(self.pool, x, len, |t, row| {
            if let Some(SpanNorm { norm, span }) = norm {
                let weights = self.model.vector(norm.weight).len();
                for (i, stretch) in row.chunks_exact_mut(span).enumerate() {
                    self.norm_row(norm, i * span % weights, stretch);
                }
            }
            if let Some(turned) = turned {
                let at = t * turned.pairs..(t + 1) * turned.pairs;
                for head in row.chunks_exact_mut(dim) {
                    rope::apply(self.isa, turned.pairing, head, &turned.cos[at.clone()], &turned.sin[at.clone()]);
                }
            }
        });
    }
}
