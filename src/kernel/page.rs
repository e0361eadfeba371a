//! One page of a matrix times the activations of a pass, and what follows from its rows at once, while they are hot.

use super::matmul::{Activations, Output, multiply};
use super::pool::Pool;
use super::{Isa, vector};
use crate::quant::Format;

/// Rows that a thread takes at a time at least.
const GRAIN: usize = 16;

/// What becomes of the products y.
pub enum Then<'a> {
    /// They stay.
    Keep,
    /// x += y; x has the target's shape.
    AddTo(&'a mut [f32]),
    /// y = silu(gate) · y; gate has the target's shape.
    SiluGate(&'a [f32]),
}

impl Then<'_> {
    /// The same for the next page.
    pub fn again(&mut self) -> Then<'_> {
        match self {
            Then::Keep => Then::Keep,
            Then::AddTo(x) => Then::AddTo(x),
            Then::SiluGate(gate) => Then::SiluGate(gate),
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
    let (residual, gate) = match then {
        Then::Keep => (None, None),
        Then::AddTo(x) => {
            assert!(x.len() >= tokens * stride);
            (Some(Shared(x.as_mut_ptr())), None)
        }
        Then::SiluGate(g) => {
            assert!(g.len() >= tokens * stride);
            (None, Some(g))
        }
    };
    let out = Shared(out.as_mut_ptr());
    let (out, residual) = (&out, &residual);
    pool.for_ranges(rows.count, GRAIN, &|range| {
        // SAFETY: columns `range` of each token belong to this call alone, and lie inside, as checked above; `isa` was
        // found on this processor.
        unsafe {
            let to = Output { ptr: out.0.add(column), stride };
            multiply(isa, rows.format, rows.bytes, rows.k, range.clone(), acts, to);
        }
        if bias.is_none() && residual.is_none() && gate.is_none() {
            return;
        }
        for t in 0..tokens {
            let at = t * stride + column + range.start;
            // SAFETY: as above.
            let y = unsafe { std::slice::from_raw_parts_mut(out.0.add(at), range.len()) };
            if let Some(bias) = bias {
                vector::add_assign(isa, y, &bias[range.clone()]);
            }
            if let Some(x) = residual {
                // SAFETY: as above: the residual has the target's shape.
                let x = unsafe { std::slice::from_raw_parts_mut(x.0.add(at), range.len()) };
                vector::add_assign(isa, x, y);
            }
            if let Some(gate) = gate {
                vector::silu_mul_assign(isa, &gate[at..at + range.len()], y);
            }
        }
    });
}
