//! Products of matrices: at once where all pages of them stay, else page by page as they come.

use super::Run;
use crate::arch::Linear;
use crate::error::Result;
use crate::exec::program::{Buffer, Contents, Finish, Input, Weight};
use crate::exec::scratch::Arena;
use crate::kernel::matmul::{Activations, Form, Quantizer};
use crate::kernel::page::{self, Epilogue, Product, Rows};
use crate::kernel::rows;
use crate::operations::Activation;
use crate::weights::{Matrix, MatrixId, PageGuard, Sweep};

/// Pages are taken together for no more tokens than this: for more of them a page is worth a meeting of the threads, and
/// a pass ends within one page's time when it is told to.
const REGION_TOKENS: usize = 4;
/// No more than this is taken together, so that it takes no longer than a page does with a chunk of tokens.
const REGION_BYTES: usize = 64 << 20;

/// A matrix, the factor of its products, and its bias.
#[derive(Clone, Copy)]
pub(super) struct Biased<'a> {
    pub matrix: &'a Matrix,
    pub scale: Option<f32>,
    pub bias: Option<&'a [f32]>,
}

/// An input of products in the forms that were made.
type Forms<'a> = [Option<Activations<'a>>; Input::MAX_FORMS];

impl<'a> Run<'a> {
    pub(super) fn matrix(&self, matrix: MatrixId) -> &'a Matrix {
        self.loaded.engine.schedule().matrix(matrix)
    }

    pub(super) fn biased(&self, linear: Linear) -> Biased<'a> {
        let scale = linear.scale.map(|s| self.loaded.vector(s)[0]);
        Biased { matrix: self.matrix(linear.weight), scale, bias: linear.bias.map(|b| self.loaded.vector(b)) }
    }

    fn weight(&self, weight: Weight) -> Biased<'a> {
        match weight {
            Weight::Fixed(linear) => self.biased(linear),
            Weight::OfExpert(part) => {
                let chosen = self.expert.expect("an expert's matrices are used for an expert");
                let matrix = self.matrix(chosen.experts.matrices(chosen.number)[part]);
                let of_all = chosen.experts.biases[part].map(|b| self.loaded.vector(b));
                let scale = chosen.experts.scales[part].map(|s| self.loaded.vector(s)[chosen.number]);
                Biased { matrix, scale, bias: of_all.map(|b| &b[chosen.number * matrix.rows..][..matrix.rows]) }
            }
        }
    }

    /// The common input of products, in every form that they want.
    pub(super) fn quantize(&self, from: Buffer, to: &Input, arena: &mut Arena) {
        for buffer in to.buffers() {
            let contents = arena.contents(buffer);
            let [from, to] = arena.slices(self.rows, [from, buffer]);
            self.quantize_rows(contents, from, to);
        }
    }

    /// Rows in the form that a buffer holds.
    pub(super) fn quantize_rows<'b>(&self, contents: Contents, from: &[f32], to: &'b mut [f32]) -> Activations<'b> {
        let (form, k) = form_of(contents);
        rows::quantize(self.pool, self.isa, form, k, from, self.rows, rows::bytes_mut(to))
    }

    /// What a buffer holds since it was written.
    pub(super) fn made<'b>(&self, contents: Contents, buffer: &'b mut [f32]) -> Activations<'b> {
        let (form, k) = form_of(contents);
        Quantizer::new(form, k, self.rows, rows::bytes_mut(buffer)).finish()
    }

    pub(super) fn multiply_step(
        &self,
        weight: Weight,
        input: Buffer,
        to: Buffer,
        finish: Finish,
        arena: &mut Arena,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let other = match finish {
            Finish::Keep | Finish::Activate(_) => None,
            Finish::AddTo(buffer, _) | Finish::Gate(_, buffer) => Some(buffer),
        };
        let contents = arena.contents(input);
        let [input, to, other] = arena.slices_of(self.rows, [Some(input), Some(to), other]);
        let epilogue = match finish {
            Finish::Keep => Epilogue::Keep,
            Finish::AddTo(_, factor) => Epilogue::AddTo(other, factor),
            Finish::Gate(f, _) => Epilogue::Gate(f, other),
            Finish::Activate(f) => Epilogue::Activate(f),
        };
        self.multiply_with(self.weight(weight), &self.made(contents, input), to, epilogue, sweep)
    }

    /// out = W·acts + b.
    pub(super) fn multiply(
        &self,
        linear: Linear,
        acts: &Activations,
        out: &mut [f32],
        sweep: &mut Sweep,
    ) -> Result<()> {
        self.multiply_with(self.biased(linear), acts, out, Epilogue::Keep, sweep)
    }

    fn multiply_with(
        &self,
        weight: Biased,
        acts: &Activations,
        out: &mut [f32],
        mut epilogue: Epilogue,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let Biased { matrix, scale, bias } = weight;
        let stride = matrix.rows;
        if let Some(held) = self.acquire_all([matrix], sweep)? {
            let pages = &rows_of_all(matrix, &held);
            page::multiply(
                self.pool,
                self.isa,
                [Product { pages, acts, scale, bias, out, stride, column: 0, epilogue }],
            );
            return Ok(());
        }
        for p in matrix.pages() {
            let held = sweep.page(p)?;
            let rows = rows_of(matrix, &held);
            let column = held.page().first_row as usize;
            let bias = bias.map(|b| &b[column..column + rows.count]);
            let (out, epilogue) = (&mut *out, epilogue.again());
            page::multiply(
                self.pool,
                self.isa,
                [Product { pages: &[rows], acts, scale, bias, out, stride, column, epilogue }],
            );
        }
        Ok(())
    }

    /// out = W·acts + b, with all pages of W at hand.
    pub(super) fn multiply_held(&self, linear: Linear, acts: &Activations, out: &mut [f32], held: &[PageGuard]) {
        let Biased { matrix, scale, bias } = self.biased(linear);
        let (pages, stride, epilogue) = (&rows_of_all(matrix, held), matrix.rows, Epilogue::Keep);
        page::multiply(self.pool, self.isa, [Product { pages, acts, scale, bias, out, stride, column: 0, epilogue }]);
    }

    /// The products of three matrices with the same input.
    pub(super) fn multiply_three(
        &self,
        linears: [Linear; 3],
        input: &Input,
        to: [Buffer; 3],
        arena: &mut Arena,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let contents = input.forms.map(|form| form.map(|(_, buffer)| arena.contents(buffer)));
        let [i, j, k] = input.forms.map(|form| form.map(|(_, buffer)| buffer));
        let [x, y, z] = to.map(Some);
        let [i, j, k, x, y, z] = arena.slices_of(self.rows, [i, j, k, x, y, z]);
        let acts = &self.forms(contents, [i, j, k]);
        let weights = linears.map(|linear| self.biased(linear));
        let Some(held) = self.acquire_all(weights.map(|w| w.matrix), sweep)? else {
            let mut pairs = weights.into_iter().zip([x, y, z]);
            return pairs
                .try_for_each(|(w, out)| self.multiply_with(w, form_for(w.matrix, acts), out, Epilogue::Keep, sweep));
        };
        let mut held = &held[..];
        let pages = weights.map(|w| {
            let (here, rest) = held.split_at(w.matrix.pages().len());
            held = rest;
            rows_of_all(w.matrix, here)
        });
        let products = [
            whole(weights[0], &pages[0], acts, x),
            whole(weights[1], &pages[1], acts, y),
            whole(weights[2], &pages[2], acts, z),
        ];
        page::multiply(self.pool, self.isa, products);
        Ok(())
    }

    /// to = f(W_gate·acts + b) · (W_up·acts + b).
    pub(super) fn multiply_gated(
        &self,
        f: Activation,
        linears: [Linear; 2],
        input: &Input,
        (gates, to): (Buffer, Buffer),
        arena: &mut Arena,
        sweep: &mut Sweep,
    ) -> Result<()> {
        let contents = input.forms.map(|form| form.map(|(_, buffer)| arena.contents(buffer)));
        let [i, j, k] = input.forms.map(|form| form.map(|(_, buffer)| buffer));
        let [i, j, k, gates, to] = arena.slices_of(self.rows, [i, j, k, Some(gates), Some(to)]);
        let acts = &self.forms(contents, [i, j, k]);
        let [gate, up] = linears.map(|linear| self.biased(linear));
        let Some(held) = self.acquire_all([gate.matrix, up.matrix], sweep)? else {
            self.multiply_with(gate, form_for(gate.matrix, acts), gates, Epilogue::Keep, sweep)?;
            return self.multiply_with(up, form_for(up.matrix, acts), to, Epilogue::Gate(f, gates), sweep);
        };
        let (gate_held, up_held) = held.split_at(gate.matrix.pages().len());
        let pages = [rows_of_all(gate.matrix, gate_held), rows_of_all(up.matrix, up_held)];
        let (gate, up) = (whole(gate, &pages[0], acts, gates), whole(up, &pages[1], acts, to));
        page::multiply_gated(self.pool, self.isa, f, gate, up);
        Ok(())
    }

    fn forms<'b>(&self, contents: [Option<Contents>; 3], buffers: [&'b mut [f32]; 3]) -> Forms<'b> {
        let mut contents = contents.into_iter();
        buffers.map(|buffer| contents.next().flatten().map(|contents| self.made(contents, buffer)))
    }

    /// All pages of matrices that follow each other, where they stay and a pass over them together is short.
    fn acquire_all<'s, const N: usize>(
        &self,
        matrices: [&Matrix; N],
        sweep: &mut Sweep<'s>,
    ) -> Result<Option<Vec<PageGuard<'s>>>> {
        let bytes: usize = matrices.iter().map(|m| m.rows * m.row_bytes).sum();
        if self.rows > REGION_TOKENS || bytes > REGION_BYTES {
            return Ok(None);
        }
        sweep.acquire_pinned(matrices.into_iter().flat_map(Matrix::pages))
    }
}

/// The product of a matrix of which all pages are at hand.
fn whole<'b>(weight: Biased<'b>, pages: &'b [Rows<'b>], acts: &'b Forms<'b>, out: &'b mut [f32]) -> Product<'b> {
    let Biased { matrix, scale, bias } = weight;
    let acts = form_for(matrix, acts);
    Product { pages, acts, scale, bias, out, stride: matrix.rows, column: 0, epilogue: Epilogue::Keep }
}

/// The form of the activations that a matrix wants.
fn form_for<'b, 'c>(matrix: &Matrix, acts: &'b Forms<'c>) -> &'b Activations<'c> {
    let form = Form::of(matrix.format);
    acts.iter().flatten().find(|a| a.form() == form).expect("an input is made in every form that its products want")
}

pub(super) fn form_of(contents: Contents) -> (Form, usize) {
    match contents {
        Contents::Activations { form, columns, .. } => (form, columns),
        Contents::Rows { .. } | Contents::Row { .. } => panic!("rows are not the input of a product"),
    }
}

fn rows_of<'b>(matrix: &Matrix, held: &'b PageGuard) -> Rows<'b> {
    Rows { bytes: held.bytes(), format: matrix.format, k: matrix.columns, count: held.page().rows as usize }
}

fn rows_of_all<'b>(matrix: &Matrix, held: &'b [PageGuard]) -> Vec<Rows<'b>> {
    held.iter().map(|held| rows_of(matrix, held)).collect()
}
