//! One sweep: a chunk of tokens through all layers, page by page, as the model's description says.

mod attention;
mod experts;
mod feed_forward;
mod latent;

use super::Session;
use super::results::Wanted;
use super::scratch::{FORM_ALIGNMENT, Route, Scratch, forms_of};
use crate::arch::{Linear, Norm, NormKind};
use crate::error::Result;
use crate::kernel::matmul::{Activations, Form, activation_bytes};
use crate::kernel::page::{Rows, Target, Then, multiply_page};
use crate::kernel::pool::Pool;
use crate::kernel::{Isa, rows, vector};
use crate::model::{Embeddings, Model};
use crate::quant;
use crate::weights::frames::Memory;
use crate::weights::{MatrixId, Sweep};
use attention::{Place, Turned};

/// What every step of a sweep needs.
#[derive(Clone, Copy)]
struct Step<'a> {
    model: &'a Model,
    pool: &'a Pool,
    isa: Isa,
    tokens: usize,
}

impl Session {
    /// Takes a chunk in at the present position, and writes what is wanted of it. The cache beyond the position may be
    /// written even when this fails.
    pub(super) fn sweep(&mut self, tokens: &[i32], wanted: Wanted, since: u64) -> Result<()> {
        let Session { model, cache, position, context, interrupt, pass_bytes, .. } = self;
        let schedule = model.engine().schedule();
        let end = if wanted.logits.is_empty() { schedule.head_start } else { schedule.sweep_len };
        let mut sweep = model.engine().sweep(interrupt, since, end)?;
        let result = run_chunk(model, cache, (*position, *context), tokens, wanted, &mut sweep);
        *pass_bytes += sweep.read_bytes();
        result
    }
}

/// The buffers of a chunk.
struct Buffers<'a> {
    /// The residual stream, [tokens][embedding].
    x: &'a mut [f32],
    /// What a layer began with, where its blocks stand side by side.
    before: &'a mut [f32],
    work: &'a mut [f32],
    forms: &'a mut [u8],
    routes: &'a mut Vec<Route>,
    /// Experts in the order of a token's scores.
    ranking: &'a mut Vec<u32>,
}

/// Takes a chunk through the layers in a sweep that has begun. `place`: the chunk's position, and the context's length.
fn run_chunk(
    model: &Model,
    cache: &mut Memory,
    place: (usize, usize),
    tokens: &[i32],
    wanted: Wanted,
    sweep: &mut Sweep,
) -> Result<()> {
    let (position, context) = place;
    let d = model.description();
    let s = d.shape;
    let mut scratch = model.scratch().lock();
    let Scratch { residual, before, work, forms, angles, positions, row, routes, ranking } = &mut *scratch;
    let n = tokens.len();
    let step = Step { model, pool: model.pool(), isa: model.isa(), tokens: n };
    let mut b = Buffers {
        x: &mut residual.as_slice_mut::<f32>()[..n * s.embedding],
        before: before.as_slice_mut(),
        work: work.as_slice_mut(),
        forms: forms.bytes_mut(),
        routes,
        ranking,
    };
    step.embed(tokens, position, b.x, b.work, row, sweep)?;

    positions.clear();
    positions.extend((0..n).map(|i| (position + i) as u32));
    let turned = Turned::all(model, context, positions, angles.as_slice_mut());
    let place = Place { position, context, turned: &turned };
    let layer_values = s.kv_heads * context * (s.key_dim + s.value_dim);
    let caches = cache.as_slice_mut::<u16>();
    for (i, layer) in d.layers.iter().enumerate() {
        let cache = &mut caches[i.min(d.cached_layers() - 1) * layer_values..][..layer_values];
        if layer.parallel {
            b.before[..b.x.len()].copy_from_slice(b.x);
        }
        step.attention(&layer.attention, &place, &mut b, cache, sweep)?;
        step.feed_forward(&layer.feed_forward, layer.parallel, &mut b, sweep)?;
    }
    let Wanted { logits, embeddings, which } = wanted;
    let with_logits = logits.len() / s.vocab;
    let count = with_logits.max(positions_with(which, n));
    if count == 0 {
        return Ok(());
    }
    let hidden = Step { tokens: count, ..step }.normed(d.output_norm, &b.x[(n - count) * s.embedding..], b.work);
    step.keep_embeddings(which, hidden, embeddings);
    if let Some(head) = d.head.filter(|_| with_logits > 0) {
        let step = Step { tokens: with_logits, ..step };
        let acts = step.quantize(&[head], &hidden[(count - with_logits) * s.embedding..], b.forms);
        step.multiply(head, &acts, logits, Then::Keep, sweep)?;
        step.limit(logits);
    }
    Ok(())
}

/// How many of a chunk's last positions, `n` in all, hold what its embeddings are made of.
fn positions_with(which: Embeddings, n: usize) -> usize {
    match which {
        Embeddings::None => 0,
        Embeddings::Last => 1,
        Embeddings::All | Embeddings::Mean | Embeddings::First => n,
    }
}

impl Step<'_> {
    /// The embeddings of tokens, the first of which stands at `position`.
    fn embed(
        &self,
        tokens: &[i32],
        position: usize,
        x: &mut [f32],
        work: &mut [f32],
        buffer: &mut Memory,
        sweep: &Sweep,
    ) -> Result<()> {
        let d = self.model.description();
        let engine = self.model.engine();
        let mut take = |matrix, at, row: &mut [f32]| {
            sweep.check()?;
            let format = engine.schedule().matrix(matrix).format;
            engine.with_row(matrix, at, buffer, |bytes| quant::decode_row(format, bytes, row))
        };
        for (i, (&token, row)) in tokens.iter().zip(x.chunks_exact_mut(d.shape.embedding)).enumerate() {
            take(d.embedding, token as usize, row)?;
            if d.embedding_scale != 1.0 {
                vector::scale(self.isa, row, d.embedding_scale);
            }
            if let Some(kind) = d.token_type {
                vector::add_assign(self.isa, row, self.model.vector(kind));
            }
            if let Some(positions) = d.positions {
                let learned = &mut work[..row.len()];
                take(positions, position + i, learned)?;
                vector::add_assign(self.isa, row, learned);
            }
            if let Some(norm) = d.embedding_norm {
                self.norm_row(norm, 0, row);
            }
        }
        Ok(())
    }

    /// Puts hidden states of a chunk's last positions, normed, where they belong.
    fn keep_embeddings(&self, which: Embeddings, hidden: &[f32], out: &mut [f32]) {
        let width = self.model.description().shape.embedding;
        match which {
            Embeddings::None => {}
            Embeddings::All => out.copy_from_slice(hidden),
            Embeddings::Last => out.copy_from_slice(&hidden[hidden.len() - width..]),
            Embeddings::First => out.copy_from_slice(&hidden[..width]),
            Embeddings::Mean => hidden.chunks_exact(width).for_each(|row| vector::add_assign(self.isa, out, row)),
        }
    }

    /// Scales logits and caps them, where the model does.
    fn limit(&self, logits: &mut [f32]) {
        let d = self.model.description();
        if d.logit_scale == 1.0 && d.logit_softcap.is_none() {
            return;
        }
        rows::for_rows(self.pool, logits, d.shape.vocab, |_, row| {
            vector::scale(self.isa, row, d.logit_scale);
            if let Some(cap) = d.logit_softcap {
                vector::softcap(self.isa, row, cap);
            }
        });
    }

    /// The normed rows of `x`, in the beginning of `work`; without a norm, those of `x`.
    fn normed<'b>(&self, norm: Option<Norm>, x: &'b [f32], work: &'b mut [f32]) -> &'b [f32] {
        let Some(norm) = norm else { return x };
        let s = self.model.description().shape;
        let out = &mut work[..self.tokens * s.embedding];
        rows::for_rows(self.pool, out, s.embedding, |t, out| {
            let x = &x[t * s.embedding..][..s.embedding];
            match s.norm {
                NormKind::Rms => vector::rms_norm(self.isa, x, self.model.vector(norm.weight), s.norm_eps, out),
                NormKind::Layer => {
                    out.copy_from_slice(x);
                    self.norm_row(norm, 0, out);
                }
            }
        });
        out
    }

    /// Norms a row in place, with the weights from the `first` on.
    fn norm_row(&self, norm: Norm, first: usize, row: &mut [f32]) {
        let s = self.model.description().shape;
        let weight = &self.model.vector(norm.weight)[first..][..row.len()];
        let bias = norm.bias.map(|b| &self.model.vector(b)[first..][..row.len()]);
        match s.norm {
            NormKind::Rms => vector::rms_norm_in_place(self.isa, row, weight, s.norm_eps),
            NormKind::Layer => vector::layer_norm_in_place(self.isa, row, weight, bias, s.norm_eps),
        }
    }

    /// x = norms[1](x + s·norms[0](W·acts + b)), the end of a block; `projected` holds the product meanwhile.
    fn add_block(
        &self,
        linear: Linear,
        acts: &[Activations],
        norms: [Option<Norm>; 2],
        projected: &mut [f32],
        x: &mut [f32],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let projected = &mut projected[..x.len()];
        let [None, of_sum] = norms else {
            self.multiply(linear, acts, projected, Then::Keep, sweep)?;
            self.add_normed(norms, projected, x);
            return Ok(());
        };
        let scale = self.model.description().residual_scale;
        self.multiply(linear, acts, projected, Then::AddTo(x, scale), sweep)?;
        self.norm_rows(of_sum, x);
        Ok(())
    }

    /// x = norms[1](x + s·norms[0](y)).
    fn add_normed(&self, norms: [Option<Norm>; 2], y: &mut [f32], x: &mut [f32]) {
        let d = self.model.description();
        let width = d.shape.embedding;
        self.norm_rows(norms[0], y);
        rows::for_rows(self.pool, x, width, |t, row| {
            vector::add_scaled(self.isa, row, &y[t * width..][..width], d.residual_scale);
        });
        self.norm_rows(norms[1], x);
    }

    /// Norms rows in place, where there is a norm.
    fn norm_rows(&self, norm: Option<Norm>, x: &mut [f32]) {
        if let Some(norm) = norm {
            rows::for_rows(self.pool, x, self.model.description().shape.embedding, |_, row| {
                self.norm_row(norm, 0, row)
            });
        }
    }

    /// The common input of `linears`, at the beginning of `input`, in every form that they want.
    fn quantize<'b>(&self, linears: &[Linear], input: &[f32], mut forms: &'b mut [u8]) -> Vec<Activations<'b>> {
        let schedule = self.model.engine().schedule();
        let k = schedule.matrix(linears[0].weight).columns;
        let wanted = forms_of(schedule, linears);
        let mut made = Vec::with_capacity(wanted.len());
        for form in wanted {
            let acts;
            (acts, forms) = self.quantize_to(form, k, input, forms);
            made.push(acts);
        }
        made
    }

    /// Rows of `k` elements, at the beginning of `input`, in a form; and what is left of `forms`.
    fn quantize_to<'b>(
        &self,
        form: Form,
        k: usize,
        input: &[f32],
        forms: &'b mut [u8],
    ) -> (Activations<'b>, &'b mut [u8]) {
        let input = &input[..self.tokens * k];
        let bytes = activation_bytes(form, k, self.tokens).next_multiple_of(FORM_ALIGNMENT);
        let (here, rest) = forms.split_at_mut(bytes);
        (rows::quantize(self.pool, self.isa, form, k, input, self.tokens, here), rest)
    }

    /// Rows of a matrix.
    fn rows_of(&self, matrix: MatrixId) -> usize {
        self.model.engine().schedule().matrix(matrix).rows
    }

    /// out = W·acts + b, page by page as they come.
    fn multiply(
        &self,
        linear: Linear,
        acts: &[Activations],
        out: &mut [f32],
        then: Then,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let bias = linear.bias.map(|b| self.model.vector(b));
        self.multiply_with(linear.weight, bias, acts, out, then, sweep)
    }

    /// The same with a bias of its own.
    fn multiply_with(
        &self,
        matrix: MatrixId,
        bias: Option<&[f32]>,
        acts: &[Activations],
        out: &mut [f32],
        mut then: Then,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let schedule = self.model.engine().schedule();
        let matrix = schedule.matrix(matrix);
        let form = Form::of(matrix.format);
        let acts = acts.iter().find(|a| a.form() == form).expect("every form a stage wants was made");
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
}
