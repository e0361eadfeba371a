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
use crate::kernel::page::{self, Product, Rows, Then};
use crate::kernel::pool::Pool;
use crate::kernel::vector::Activation;
use crate::kernel::{Isa, rows, vector};
use crate::model::{Embeddings, Model};
use crate::quant;
use crate::weights::frames::Memory;
use crate::weights::{HeldPage, Matrix, MatrixId, Sweep};
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

    /// out = s·W·acts + b: at once where all of W stays, else page by page as they come.
    fn multiply(
        &self,
        linear: Linear,
        acts: &[Activations],
        out: &mut [f32],
        then: Then,
        sweep: &mut Sweep,
    ) -> Result<()> {
        self.multiply_with(linear.weight, (self.scale_of(linear), self.bias_of(linear)), acts, out, then, sweep)
    }

    /// The same with a scale and a bias of its own.
    fn multiply_with(
        &self,
        matrix: MatrixId,
        (scale, bias): (Option<f32>, Option<&[f32]>),
        acts: &[Activations],
        out: &mut [f32],
        mut then: Then,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let matrix = self.model.engine().schedule().matrix(matrix);
        let (stride, acts) = (matrix.rows, form_of(matrix, acts));
        if let Some(held) = self.hold_all([matrix], sweep)? {
            let pages = &rows_of_all(matrix, &held);
            page::multiply(self.pool, self.isa, [Product { pages, acts, scale, bias, out, stride, column: 0, then }]);
            return Ok(());
        }
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let rows = rows_of(matrix, &held);
            let column = held.page().first_row as usize;
            let bias = bias.map(|b| &b[column..column + rows.count]);
            let (out, then) = (&mut *out, then.again());
            page::multiply(
                self.pool,
                self.isa,
                [Product { pages: &[rows], acts, scale, bias, out, stride, column, then }],
            );
        }
        Ok(())
    }

    /// The products of three matrices with the same input.
    fn multiply_three(
        &self,
        linears: [Linear; 3],
        acts: &[Activations],
        outs: [&mut [f32]; 3],
        sweep: &mut Sweep,
    ) -> Result<()> {
        let schedule = self.model.engine().schedule();
        let matrices = linears.map(|linear| schedule.matrix(linear.weight));
        let Some(held) = self.hold_all(matrices, sweep)? else {
            let mut pairs = linears.into_iter().zip(outs);
            return pairs.try_for_each(|(linear, out)| self.multiply(linear, acts, out, Then::Keep, sweep));
        };
        let mut held = &held[..];
        let pages = matrices.map(|matrix| {
            let (here, rest) = held.split_at(matrix.pages().len());
            held = rest;
            rows_of_all(matrix, here)
        });
        let [a, b, c] = outs;
        let products = [
            self.whole(linears[0], matrices[0], &pages[0], acts, a),
            self.whole(linears[1], matrices[1], &pages[1], acts, b),
            self.whole(linears[2], matrices[2], &pages[2], acts, c),
        ];
        page::multiply(self.pool, self.isa, products);
        Ok(())
    }

    /// up = f(W_gate·acts + b) · (W_up·acts + b), with `gated` for the gate's products.
    fn multiply_gated(
        &self,
        f: Activation,
        [gate, up]: [Linear; 2],
        acts: &[Activations],
        (gated, out): (&mut [f32], &mut [f32]),
        sweep: &mut Sweep,
    ) -> Result<()> {
        let schedule = self.model.engine().schedule();
        let matrices = [gate, up].map(|linear| schedule.matrix(linear.weight));
        let Some(held) = self.hold_all(matrices, sweep)? else {
            self.multiply(gate, acts, gated, Then::Keep, sweep)?;
            return self.multiply(up, acts, out, Then::Gate(f, gated), sweep);
        };
        let (gate_held, up_held) = held.split_at(matrices[0].pages().len());
        let pages = [rows_of_all(matrices[0], gate_held), rows_of_all(matrices[1], up_held)];
        let gate = self.whole(gate, matrices[0], &pages[0], acts, gated);
        let up = self.whole(up, matrices[1], &pages[1], acts, out);
        page::multiply_gated(self.pool, self.isa, f, gate, up);
        Ok(())
    }

    /// The product of a matrix of which all pages are at hand.
    fn whole<'b>(
        &'b self,
        linear: Linear,
        matrix: &Matrix,
        pages: &'b [Rows<'b>],
        acts: &'b [Activations<'b>],
        out: &'b mut [f32],
    ) -> Product<'b> {
        let (acts, scale, bias) = (form_of(matrix, acts), self.scale_of(linear), self.bias_of(linear));
        Product { pages, acts, scale, bias, out, stride: matrix.rows, column: 0, then: Then::Keep }
    }

    /// All pages of matrices that follow each other, where they stay and a pass over them together is short.
    fn hold_all<'s, const N: usize>(
        &self,
        matrices: [&Matrix; N],
        sweep: &mut Sweep<'s>,
    ) -> Result<Option<Vec<HeldPage<'s>>>> {
        let bytes: usize = matrices.iter().map(|m| m.rows * m.row_bytes).sum();
        if self.tokens > REGION_TOKENS || bytes > REGION_BYTES {
            return Ok(None);
        }
        sweep.pages_that_stay(matrices.into_iter().flat_map(Matrix::pages))
    }

    fn scale_of(&self, linear: Linear) -> Option<f32> {
        linear.scale.map(|s| self.model.vector(s)[0])
    }

    fn bias_of(&self, linear: Linear) -> Option<&[f32]> {
        linear.bias.map(|b| self.model.vector(b))
    }
}

/// Pages are taken together for no more tokens than this: for more of them a page is worth a meeting of the threads, and
/// a pass ends within one page's time when it is told to.
const REGION_TOKENS: usize = 4;
/// No more than this is taken together, so that it takes no longer than a page does with a chunk of tokens.
const REGION_BYTES: usize = 64 << 20;

/// The form of the activations that the matrix wants.
fn form_of<'b>(matrix: &Matrix, acts: &'b [Activations<'b>]) -> &'b Activations<'b> {
    let form = Form::of(matrix.format);
    acts.iter().find(|a| a.form() == form).expect("every form a stage wants was made")
}

fn rows_of<'b>(matrix: &Matrix, held: &'b HeldPage) -> Rows<'b> {
    Rows { bytes: held.bytes(), format: matrix.format, k: matrix.columns, count: held.page().rows as usize }
}

fn rows_of_all<'b>(matrix: &Matrix, held: &'b [HeldPage]) -> Vec<Rows<'b>> {
    held.iter().map(|held| rows_of(matrix, held)).collect()
}
