//! One page of a matrix times the activations of a pass, and what follows from its rows at once, while they are hot.

use super::matmul::{Activations, Output, multiply};
use super::pool::Pool;
use super::vector::Activation;
use super::{Isa, vector};
use crate::quant::Format;

/// Rows that a thread takes at a time at least.
const GRAIN: usize = 16;

/// What becomes of the products y.
pub enum Then<'a> {
    /// They stay.
    Keep,
    /// x += factor · y; x has the target's shape.
    AddTo(&'a mut [f32], f32),
    /// y = f(gate) · y; gate has the target's shape.
    Gate(Activation, &'a [f32]),
    /// y = f(y).
    Activate(Activation),
}

impl Then<'_> {
    /// The same for the next page.
    pub fn again(&mut self) -> Then<'_> {
        match self {
            Then::Keep => Then::Keep,
            Then::AddTo(x, factor) => Then::AddTo(x, *factor),
            Then::Gate(f, gate) => Then::Gate(*f, gate),
            Then::Activate(f) => Then::Activate(*f),
        }
    }
}

/// Where the products of a matrix go: `out` is [tokens][stride], and the page's first row is column `column`.
pub struct Target<'a> {
    pub out: &'a mut [f32],
    pub stride: usize,
    pub column: usize,
}

/// The rows of a page: `count` whole rows of `k` elements in `format`, end to end.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub bytes: &'a [u8],
    pub format: Format,
    pub k: usize,
    pub count: usize,
}

/// [`Then`], as threads share it.
enum Next<'a> {
    Keep,
    AddTo(Shared, f32),
    Gate(Activation, &'a [f32]),
    Activate(Activation),
}

struct Shared(*mut f32);
// SAFETY: an address; threads use disjoint columns of what it leads to.
unsafe impl Sync for Shared {}

/// Multiplies, adds `bias` (one number per row of the page) where there is one, and goes on as `then` says.
///
/// # Panics
/// If the shapes do not agree.
pub fn multiply_page(
    pool: &Pool,
    isa: Isa,
    rows: Rows<'_>,
    acts: &Activations<'_>,
    bias: Option<&[f32]>,
    target: Target<'_>,
    then: Then<'_>,
) {
    let Target { out, stride, column } = target;
    let tokens = acts.tokens();
    assert!(column + rows.count <= stride && out.len() >= tokens * stride);
    assert!(bias.is_none_or(|b| b.len() == rows.count));
    let shape_fits = |other: &[f32]| assert!(other.len() >= tokens * stride);
    let next = match then {
        Then::Keep => Next::Keep,
        Then::AddTo(x, factor) => {
            shape_fits(x);
            Next::AddTo(Shared(x.as_mut_ptr()), factor)
        }
        Then::Gate(f, gate) => {
            shape_fits(gate);
            Next::Gate(f, gate)
        }
        Then::Activate(f) => Next::Activate(f),
    };
    let out = Shared(out.as_mut_ptr());
    let (out, next) = (&out, &next);
    pool.for_ranges(rows.count, GRAIN, &|range| {
        // SAFETY: columns `range` of each token belong to this call alone, and lie inside, as checked above; `isa` was
        // found on this processor.
        unsafe {
            let to = Output { ptr: out.0.add(column), stride };
            multiply(isa, rows.format, rows.bytes, rows.k, range.clone(), acts, to);
        }
        if bias.is_none() && matches!(next, Next::Keep) {
            return;
        }
        for t in 0..tokens {
            let at = t * stride + column + range.start;
            // SAFETY: as above.
            let y = unsafe { std::slice::from_raw_parts_mut(out.0.add(at), range.len()) };
            if let Some(bias) = bias {
                vector::add_assign(isa, y, &bias[range.clone()]);
            }
            match next {
                Next::Keep => {}
                Next::AddTo(x, factor) => {
                    // SAFETY: as above: the residual has the target's shape.
                    let x = unsafe { std::slice::from_raw_parts_mut(x.0.add(at), range.len()) };
                    // With a factor of 1 the product is exact: a plain addition.
                    vector::add_scaled(isa, x, y, *factor);
                }
                Next::Gate(f, gate) => vector::gate_assign(isa, *f, &gate[at..at + range.len()], y),
                Next::Activate(f) => vector::activate(isa, *f, y),
            }
        }
    });
}
