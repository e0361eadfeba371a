//! Softmax and the greatest element.

use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernel::Isa;

/// x = e^(x − max) / Σ e^(x − max). Entries may be −∞ (their share is 0) as long as one is not. A NaN makes the whole
/// row NaN.
pub fn softmax_in_place(isa: Isa, x: &mut [f32]) {
    if !x.is_empty() {
        dispatch(isa, Softmax { x });
    }
}

/// The place of the greatest element, the first of several equal ones; NaN is passed over. None if there is none.
pub fn argmax(isa: Isa, x: &[f32]) -> Option<usize> {
    let max = dispatch(isa, Max { x });
    x.iter().position(|&x| x == max)
}

struct Max<'a> {
    x: &'a [f32],
}

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        max_of(s, self.x)
    }
}

/// The greatest element that is a number, −∞ if there is none.
#[inline(always)]
pub(crate) fn max_of<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut max = s.load_part(tail, f32::NEG_INFINITY);
    // The second operand is what max returns for NaN.
    max = s.max(max, s.splat(f32::NEG_INFINITY));
    for x in chunks {
        max = s.max(s.load(x), max);
    }
    s.max_lane(max)
}

struct Softmax<'a> {
    x: &'a mut [f32],
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Elements summed in f32 before the sum goes to f64.
        const RUN: usize = 512;
        let max = s.splat(max_of(s, self.x));
        let mut total = 0.0;
        for run in self.x.chunks_mut(RUN) {
            let mut sum = s.splat(0.0);
            let (chunks, tail) = run.as_chunks_mut::<LANES>();
            for x in chunks {
                let y = s.exp(s.sub(s.load(x), max));
                sum = s.add(sum, y);
                s.store(y, x);
            }
            if !tail.is_empty() {
                let y = s.exp(s.sub(s.load_part(tail, f32::NEG_INFINITY), max));
                sum = s.add(sum, y);
                s.store_part(y, tail);
            }
            total += f64::from(s.sum(sum));
        }
        let factor = s.splat((1.0 / total) as f32);
        let (chunks, tail) = self.x.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(s.mul(s.load(x), factor), x);
        }
        s.store_part(s.mul(s.load_part(tail, 0.0), factor), tail);
    }
}
