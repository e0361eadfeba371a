//! One sweep: a chunk of tokens through all layers, page by page, as the model's description says.

use super::Session;
use super::scratch::{FORM_ALIGNMENT, forms_of};
use crate::arch::{Attention, FeedForward, Linear, VectorId};
use crate::error::Result;
use crate::kernel::attention::{LayerCache, Rule, attend_layer};
use crate::kernel::matmul::{Activations, Form, activation_bytes};
use crate::kernel::page::{Rows, Target, Then, multiply_page};
use crate::kernel::pool::Pool;
use crate::kernel::{Isa, rope, rows, vector};
use crate::model::Model;
use crate::quant;
use crate::weights::Sweep;
use crate::weights::frames::Memory;

/// What every step of a sweep needs.
struct Step<'a> {
    model: &'a Model,
    pool: &'a Pool,
    isa: Isa,
    tokens: usize,
}

impl Session {
    /// Takes a chunk in at the present position, and writes the logits of its last positions to `logits`, as many rows
    /// as it holds. The cache beyond the position may be written even when this fails.
    pub(super) fn sweep(&mut self, tokens: &[i32], logits: &mut [f32], since: u64) -> Result<()> {
        let Session { model, cache, position, context, interrupt, pass_bytes, .. } = self;
        let schedule = model.engine().schedule();
        let end = if logits.is_empty() { schedule.head_start } else { schedule.sweep_len };
        let mut sweep = model.engine().sweep(interrupt, since, end)?;
        let result = run_chunk(model, cache, (*position, *context), tokens, logits, &mut sweep);
        *pass_bytes += sweep.read_bytes();
        result
    }
}

/// Takes a chunk through the layers in a sweep that has begun. `place`: the chunk's position, and the context's length.
fn run_chunk(
    model: &Model,
    cache: &mut Memory,
    place: (usize, usize),
    tokens: &[i32],
    logits: &mut [f32],
    sweep: &mut Sweep,
) -> Result<()> {
    let (position, context) = place;
    let d = model.description();
    let s = d.shape;
    let schedule = model.engine().schedule();
    let mut scratch = model.scratch().lock();
    let scratch = &mut *scratch;
    let n = tokens.len();
    let step = Step { model, pool: model.pool(), isa: model.isa(), tokens: n };

    let x = &mut scratch.residual.as_slice_mut::<f32>()[..n * s.embedding];
    for (&token, row) in tokens.iter().zip(x.chunks_exact_mut(s.embedding)) {
        sweep.check()?;
        let format = schedule.matrix(d.embedding).format;
        let decode = |bytes: &[u8]| quant::decode_row(format, bytes, row);
        model.engine().with_row(d.embedding, token as usize, &mut scratch.row, decode)?;
    }
    let pairs = model.rope().pairs();
    let (cos, sin) = scratch.angles.as_slice_mut::<f32>().split_at_mut(n * pairs);
    let sin = &mut sin[..n * pairs];
    scratch.positions.clear();
    scratch.positions.extend((0..n).map(|i| (position + i) as u32));
    model.rope().fill(&scratch.positions, cos, sin);
    let turn = Turn { position, context, cos, sin };

    let work = scratch.work.as_slice_mut::<f32>();
    let forms = scratch.forms.bytes_mut();
    let layer_values = s.kv_heads * context * (s.key_dim + s.value_dim);
    let caches = cache.as_slice_mut::<u16>().chunks_exact_mut(layer_values);
    for (layer, cache) in d.layers.iter().zip(caches) {
        step.attention(&layer.attention, &turn, x, work, forms, cache, sweep)?;
        step.feed_forward(&layer.feed_forward, x, work, forms, sweep)?;
    }
    if !logits.is_empty() {
        let count = logits.len() / s.vocab;
        let step = Step { tokens: count, ..step };
        let x = &x[(n - count) * s.embedding..];
        step.norm(d.output_norm, x, work);
        let head = Linear { weight: d.head, bias: None };
        let acts = step.quantize(&[head], work, forms);
        step.multiply(head, &acts, logits, Then::Keep, sweep)?;
    }
    Ok(())
}

/// Where the chunk stands, and how far its heads are turned.
struct Turn<'a> {
    position: usize,
    context: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Step<'_> {
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &self,
        a: &Attention,
        turn: &Turn,
        x: &mut [f32],
        work: &mut [f32],
        forms: &mut [u8],
        cache: &mut [u16],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let s = self.model.description().shape;
        let n = self.tokens;
        let (q_len, k_len, v_len) = (s.heads * s.key_dim, s.kv_heads * s.key_dim, s.kv_heads * s.value_dim);
        self.norm(a.norm, x, work);
        let acts = self.quantize(&[a.query, a.key, a.value], work, forms);
        let (q, rest) = work.split_at_mut(n * q_len);
        let (k, rest) = rest.split_at_mut(n * k_len);
        let (v, rest) = rest.split_at_mut(n * v_len);
        let mixed = &mut rest[..n * s.heads * s.value_dim];
        self.multiply(a.query, &acts, q, Then::Keep, sweep)?;
        self.multiply(a.key, &acts, k, Then::Keep, sweep)?;
        self.multiply(a.value, &acts, v, Then::Keep, sweep)?;

        self.rotate(turn, q, s.heads);
        self.rotate(turn, k, s.kv_heads);
        let (keys, values) = cache.split_at_mut(s.kv_heads * turn.context * s.key_dim);
        self.remember(turn, k, keys, s.key_dim);
        self.remember(turn, v, values, s.value_dim);
        let cache = LayerCache {
            keys,
            values,
            kv_heads: s.kv_heads,
            context: turn.context,
            key_dim: s.key_dim,
            value_dim: s.value_dim,
        };
        let rule = Rule { scale: a.scale, softcap: None, sinks: None, window: None };
        attend_layer(self.pool, self.isa, &cache, &rule, s.heads, turn.position, q, mixed);

        let acts = self.quantize(&[a.output], mixed, forms);
        let projected = &mut work[..n * s.embedding];
        self.multiply(a.output, &acts, projected, Then::AddTo(x), sweep)
    }

    fn feed_forward(
        &self,
        f: &FeedForward,
        x: &mut [f32],
        work: &mut [f32],
        forms: &mut [u8],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let s = self.model.description().shape;
        let n = self.tokens;
        self.norm(f.norm, x, work);
        let acts = self.quantize(&[f.gate, f.up], work, forms);
        let (gate, rest) = work.split_at_mut(n * s.feed_forward);
        let up = &mut rest[..n * s.feed_forward];
        self.multiply(f.gate, &acts, gate, Then::Keep, sweep)?;
        self.multiply(f.up, &acts, up, Then::SiluGate(gate), sweep)?;
        let acts = self.quantize(&[f.down], up, forms);
        let projected = &mut work[..n * s.embedding];
        self.multiply(f.down, &acts, projected, Then::AddTo(x), sweep)
    }

    /// Norms the rows of `x` into the beginning of `work`.
    fn norm(&self, weight: VectorId, x: &[f32], work: &mut [f32]) {
        let s = self.model.description().shape;
        let weight = self.model.vector(weight);
        rows::for_rows(self.pool, &mut work[..self.tokens * s.embedding], s.embedding, |t, out| {
            vector::rms_norm(self.isa, &x[t * s.embedding..][..s.embedding], weight, s.norm_eps, out);
        });
    }

    /// The common input of `linears`, at the beginning of `input`, in every form that they want.
    fn quantize<'b>(&self, linears: &[Linear], input: &[f32], mut forms: &'b mut [u8]) -> Vec<Activations<'b>> {
        let schedule = self.model.engine().schedule();
        let k = schedule.matrix(linears[0].weight).columns;
        let input = &input[..self.tokens * k];
        let wanted = forms_of(schedule, linears);
        let mut made = Vec::with_capacity(wanted.len());
        for form in wanted {
            let bytes = activation_bytes(form, k, self.tokens).next_multiple_of(FORM_ALIGNMENT);
            let (here, rest) = forms.split_at_mut(bytes);
            made.push(rows::quantize(self.pool, self.isa, form, k, input, self.tokens, here));
            forms = rest;
        }
        made
    }

    /// out = W·acts + b, page by page as they come.
    fn multiply(
        &self,
        linear: Linear,
        acts: &[Activations],
        out: &mut [f32],
        mut then: Then,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let schedule = self.model.engine().schedule();
        let matrix = schedule.matrix(linear.weight);
        let form = Form::of(matrix.format);
        let acts = acts.iter().find(|a| a.form() == form).expect("every form a stage wants was made");
        let bias = linear.bias.map(|b| self.model.vector(b));
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let (first, count) = (held.page().first_row as usize, held.page().rows as usize);
            let rows = Rows { bytes: held.bytes(), format: matrix.format, k: matrix.columns, count };
            let bias = bias.map(|b| &b[first..first + count]);
            let target = Target { out: &mut *out, stride: matrix.rows, column: first };
            multiply_page(self.pool, self.isa, rows, acts, bias, target, then.again());
        }
        Ok(())
    }

    /// Turns every head of every token.
    fn rotate(&self, turn: &Turn, x: &mut [f32], heads: usize) {
        let s = self.model.description().shape;
        let pairs = self.model.rope().pairs();
        let pairing = self.model.description().rope.pairing;
        rows::for_rows(self.pool, x, heads * s.key_dim, |t, row| {
            let (cos, sin) = (&turn.cos[t * pairs..][..pairs], &turn.sin[t * pairs..][..pairs]);
            for head in row.chunks_exact_mut(s.key_dim) {
                rope::apply(self.isa, pairing, head, cos, sin);
            }
        });
    }

    /// Writes the keys or values of the chunk into the cache of their layer.
    fn remember(&self, turn: &Turn, from: &[f32], cache: &mut [u16], dim: usize) {
        let heads = self.model.description().shape.kv_heads;
        let write = |head: usize, cache: &mut [u16]| {
            for t in 0..self.tokens {
                let to = &mut cache[(turn.position + t) * dim..][..dim];
                vector::f32_to_f16(self.isa, &from[(t * heads + head) * dim..][..dim], to);
            }
        };
        // One token is less work than waking a thread.
        if self.tokens == 1 {
            cache.chunks_exact_mut(turn.context * dim).enumerate().for_each(|(h, c)| write(h, c));
        } else {
            rows::for_rows(self.pool, cache, turn.context * dim, write);
        }
    }
}
