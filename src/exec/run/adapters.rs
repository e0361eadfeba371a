//! What adapters add to products. Each sequence of a sweep has its own, so its rows are taken alone.

use super::Run;
use crate::exec::adapter::{AdapterSet, AdapterWeights, Factor, Pair, Work};
use crate::kernel::matmul::{Activations, Form};
use crate::kernel::page::{self, Epilogue, Product, Rows};
use crate::kernel::{rows, vector};
use crate::quant;
use crate::weights::MatrixId;
use std::ops::Range;

impl Run<'_> {
    /// Whether something is added to the products of a matrix in this sweep.
    pub(super) fn adapts(&self, matrix: MatrixId) -> bool {
        self.adapted && self.batch.places.iter().any(|p| p.adapters.as_ref().is_some_and(|set| set.adapts(matrix)))
    }

    /// Adds to the products of all tokens what the adapters of their sequences make of the same input.
    pub(super) fn adapt(&self, matrix: MatrixId, acts: &Activations, out: &mut [f32], stride: usize) {
        for place in &self.batch.places {
            if let Some(set) = &place.adapters {
                self.adapt_rows(set, matrix, (acts, place.rows.clone()), place.of_mut(out, stride));
            }
        }
    }

    /// The same for some rows of an input, whose products are `out`.
    pub(super) fn adapt_rows(
        &self,
        set: &AdapterSet,
        matrix: MatrixId,
        (acts, range): (&Activations, Range<usize>),
        out: &mut [f32],
    ) {
        let mut work = set.work().lock();
        for (weights, pair, factor) in set.of(matrix) {
            let places = Work::of(pair);
            for (first, out) in range.clone().step_by(places.rows).zip(out.chunks_mut(places.rows * pair.b.rows)) {
                let block = first..range.end.min(first + places.rows);
                self.add_product(weights, pair, factor, (acts, block), out, parts(work.bytes_mut(), &places));
            }
        }
    }

    /// out += factor · B·(A·x), for rows that the memory has room for.
    fn add_product(
        &self,
        weights: &AdapterWeights,
        pair: &Pair,
        factor: f32,
        (acts, range): (&Activations, Range<usize>),
        out: &mut [f32],
        [inputs, input_form, inner, inner_form, products]: [&mut [u8]; 5],
    ) {
        let (count, a, b) = (range.len(), &pair.a, &pair.b);
        let inputs = &mut rows::numbers_mut(inputs)[..count * a.columns];
        rows::for_rows(self.pool, inputs, a.columns, |i, row| acts.decode(range.start + i, row));
        let x = rows::quantize(self.pool, self.isa, Form::of(a.format), a.columns, inputs, count, input_form);
        let inner = &mut rows::numbers_mut(inner)[..count * a.rows];
        self.multiply_factor(weights, a, &x, inner, Epilogue::Keep);
        let h = rows::quantize(self.pool, self.isa, Form::of(b.format), b.columns, inner, count, inner_form);
        let products = &mut rows::numbers_mut(products)[..count * b.rows];
        self.multiply_factor(weights, b, &h, products, Epilogue::AddTo(out, factor));
    }

    /// Adds to the row of a table that token `t` of the sweep takes.
    pub(super) fn adapt_row(&self, table: MatrixId, t: usize, row: &mut [f32]) {
        let place = self.batch.places.iter().find(|place| place.rows.contains(&t));
        let Some(set) = place.and_then(|place| place.adapters.as_ref()) else { return };
        let mut work = set.work().lock();
        for (weights, pair, factor) in set.of(table) {
            let [_, _, inner, form, products] = parts(work.bytes_mut(), &Work::of(pair));
            let (a, b) = (&pair.a, &pair.b);
            let inner = &mut rows::numbers_mut(inner)[..a.columns];
            let bytes = &weights.bytes(a)[self.batch.tokens[t] as usize * a.row_bytes..][..a.row_bytes];
            quant::decode_row(a.format, bytes, inner);
            let h = rows::quantize(self.pool, self.isa, Form::of(b.format), b.columns, inner, 1, form);
            let products = &mut rows::numbers_mut(products)[..b.rows];
            self.multiply_factor(weights, b, &h, products, Epilogue::AddTo(row, factor));
        }
    }

    fn multiply_factor(
        &self,
        weights: &AdapterWeights,
        factor: &Factor,
        acts: &Activations,
        out: &mut [f32],
        epilogue: Epilogue,
    ) {
        let Factor { format, rows: count, columns: k, .. } = *factor;
        let pages = &[Rows { bytes: weights.bytes(factor), format, k, count }];
        let product = Product { pages, acts, scale: None, bias: None, out, stride: count, column: 0, epilogue };
        page::multiply(self.pool, self.isa, [product]);
    }

    /// What becomes of products that are complete.
    pub(super) fn conclude(&self, out: &mut [f32], stride: usize, epilogue: Epilogue) {
        let out = &mut out[..self.rows * stride];
        match epilogue {
            Epilogue::Keep => {}
            Epilogue::AddTo(x, factor) => {
                let out = &*out;
                rows::for_rows(self.pool, &mut x[..self.rows * stride], stride, |t, x| {
                    vector::add_scaled(self.isa, x, &out[t * stride..][..stride], factor);
                });
            }
            Epilogue::Gate(f, gate) => rows::for_rows(self.pool, out, stride, |t, y| {
                vector::gate_assign(self.isa, f, &gate[t * stride..][..stride], y);
            }),
            Epilogue::Activate(f) => rows::for_rows(self.pool, out, stride, |_, y| vector::activate(self.isa, f, y)),
        }
    }
}

fn parts<'b>(memory: &'b mut [u8], work: &Work) -> [&'b mut [u8]; 5] {
    let (mut rest, mut start) = (memory, 0);
    work.ends.map(|end| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(end - start);
        (rest, start) = (after, end);
        part
    })
}
