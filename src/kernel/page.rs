//! Pages of matrices times the activations of a pass, and what follows from their rows at once, while they are hot.
//!
//! What is at hand together is one region of the pool: the threads meet once at its end, not after every page.

use std::ops::Range;

use super::matmul::{self, Activations, Output};
use super::pool::Pool;
use super::{Isa, vector};
use crate::operations::Activation;
use crate::quant::Format;

/// Rows that a thread takes at a time at least.
const GRAIN: usize = 16;

/// What becomes of the products y.
pub enum Epilogue<'a> {
    /// They stay.
    Keep,
    /// x += factor · y; x has the shape of the result.
    AddTo(&'a mut [f32], f32),
    /// y = f(gate) · y; gate has the shape of the result.
    Gate(Activation, &'a [f32]),
    /// y = f(y).
    Activate(Activation),
}

impl Epilogue<'_> {
    /// The same for the next page.
    pub fn again(&mut self) -> Epilogue<'_> {
        match self {
            Epilogue::Keep => Epilogue::Keep,
            Epilogue::AddTo(x, factor) => Epilogue::AddTo(x, *factor),
            Epilogue::Gate(f, gate) => Epilogue::Gate(*f, gate),
            Epilogue::Activate(f) => Epilogue::Activate(*f),
        }
    }
}

/// The rows of a page: `count` whole rows of `k` elements in `format`, end to end.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub bytes: &'a [u8],
    pub format: Format,
    pub k: usize,
    pub count: usize,
}

/// Pages of a matrix, one after the other, and what is made of them.
pub struct Product<'a> {
    pub pages: &'a [Rows<'a>],
    pub acts: &'a Activations<'a>,
    /// What all products are multiplied with before anything else happens to them.
    pub scale: Option<f32>,
    /// One number for each row of the pages.
    pub bias: Option<&'a [f32]>,
    /// [tokens][stride]
    pub out: &'a mut [f32],
    pub stride: usize,
    /// Where in a row of `out` the product of the first page's first row goes.
    pub column: usize,
    pub epilogue: Epilogue<'a>,
}

/// [`Epilogue`], as threads share it.
enum Next<'a> {
    Keep,
    AddTo(*mut f32, f32),
    Gate(Activation, &'a [f32]),
    Activate(Activation),
}

/// [`Product`], as threads share it.
struct Shared<'a> {
    pages: &'a [Rows<'a>],
    acts: &'a Activations<'a>,
    scale: Option<f32>,
    bias: Option<&'a [f32]>,
    out: *mut f32,
    stride: usize,
    column: usize,
    next: Next<'a>,
    /// Rows of all pages.
    rows: usize,
}

// SAFETY: the addresses are of memory borrowed for 'a, of which threads use disjoint columns: see `Shared::multiply`.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// # Panics
    /// If the shapes do not agree.
    fn new(product: Product<'a>) -> Shared<'a> {
        let Product { pages, acts, scale, bias, out, stride, column, epilogue } = product;
        let rows = pages.iter().map(|page| page.count).sum();
        let least = acts.tokens() * stride;
        assert!(column + rows <= stride && out.len() >= least);
        assert!(bias.is_none_or(|b| b.len() == rows));
        let next = match epilogue {
            Epilogue::Keep => Next::Keep,
            Epilogue::AddTo(x, factor) => {
                assert!(x.len() >= least);
                Next::AddTo(x.as_mut_ptr(), factor)
            }
            Epilogue::Gate(f, gate) => {
                assert!(gate.len() >= least);
                Next::Gate(f, gate)
            }
            Epilogue::Activate(f) => Next::Activate(f),
        };
        Shared { pages, acts, scale, bias, out: out.as_mut_ptr(), stride, column, next, rows }
    }

    /// The results of the rows `range` for token `t`.
    ///
    /// # Safety
    /// `range` lies in the rows; nobody else uses these results meanwhile.
    #[allow(clippy::mut_from_ref)]
    unsafe fn results(&self, t: usize, range: &Range<usize>) -> &mut [f32] {
        // SAFETY: they lie inside of the output, as checked when this was made, and are the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.out.add(self.at(t, range)), range.len()) }
    }

    fn at(&self, t: usize, range: &Range<usize>) -> usize {
        t * self.stride + self.column + range.start
    }

    /// The products of the rows `range`, counted through all pages, and what follows from them.
    ///
    /// # Safety
    /// `range` lies in the rows, and is this thread's alone.
    unsafe fn multiply(&self, isa: Isa, range: Range<usize>) {
        let mut first = 0;
        for page in self.pages {
            let here = range.start.max(first)..range.end.min(first + page.count);
            if !here.is_empty() {
                let rows = here.start - first..here.end - first;
                // SAFETY: the columns of `range` are the caller's alone, and lie inside, as checked.
                unsafe {
                    let to = Output { ptr: self.out.add(self.column + first), stride: self.stride };
                    matmul::multiply(isa, page.format, page.bytes, page.k, rows, self.acts, to);
                }
            }
            first += page.count;
        }
        if self.scale.is_none() && self.bias.is_none() && matches!(self.next, Next::Keep) {
            return;
        }
        for t in 0..self.acts.tokens() {
            // SAFETY: the caller's promise.
            let y = unsafe { self.results(t, &range) };
            if let Some(scale) = self.scale {
                vector::scale(isa, y, scale);
            }
            if let Some(bias) = self.bias {
                vector::add_assign(isa, y, &bias[range.clone()]);
            }
            let at = self.at(t, &range);
            match &self.next {
                Next::Keep => {}
                Next::AddTo(x, factor) => {
                    // SAFETY: as above: the residual has the shape of the result.
                    let x = unsafe { std::slice::from_raw_parts_mut(x.add(at), range.len()) };
                    // With a factor of 1 the product is exact: a plain addition.
                    vector::add_scaled(isa, x, y, *factor);
                }
                Next::Gate(f, gate) => vector::gate_assign(isa, *f, &gate[at..at + range.len()], y),
                Next::Activate(f) => vector::activate(isa, *f, y),
            }
        }
    }
}

/// Multiplies, adds biases where there are any, and goes on with each product as its epilogue says.
///
/// # Panics
/// If the shapes do not agree.
pub fn multiply<'a, const N: usize>(pool: &Pool, isa: Isa, products: [Product<'a>; N]) {
    let products = products.map(Shared::new);
    let units = |product: &Shared| product.rows.div_ceil(GRAIN);
    pool.for_ranges(products.iter().map(units).sum(), 1, &|range| {
        let mut first = 0;
        for product in &products {
            let end = first + units(product);
            let here = range.start.max(first)..range.end.min(end);
            if !here.is_empty() {
                let rows = (here.start - first) * GRAIN..((here.end - first) * GRAIN).min(product.rows);
                // SAFETY: the pool hands out each unit once, and each product has results of its own.
                unsafe { product.multiply(isa, rows) };
            }
            first = end;
        }
    });
}

/// up = f(gate) · up, each the product of its matrix: both are computed by the thread that joins them.
///
/// # Panics
/// If the shapes do not agree.
pub fn multiply_gated(pool: &Pool, isa: Isa, f: Activation, gate: Product, up: Product) {
    let (gate, up) = (Shared::new(gate), Shared::new(up));
    assert_eq!((gate.rows, gate.acts.tokens()), (up.rows, up.acts.tokens()));
    pool.for_ranges(up.rows, GRAIN, &|range| {
        // SAFETY: the pool hands out each row once.
        unsafe {
            gate.multiply(isa, range.clone());
            up.multiply(isa, range.clone());
            for t in 0..up.acts.tokens() {
                vector::gate_assign(isa, f, gate.results(t, &range), up.results(t, &range));
            }
        }
    });
}
