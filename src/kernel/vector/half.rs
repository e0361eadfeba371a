//! Rows of half floats (IEEE binary16), as bits.

use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::elementary::{f16_to_f32, f32_to_f16};
use crate::kernel::Isa;

/// Rounds `from` to half floats in `to`: to nearest, ties to even, the same bits with every instruction set.
///
/// # Panics
/// If the lengths differ.
pub fn to_f16(isa: Isa, from: &[f32], to: &mut [u16]) {
    assert_eq!(from.len(), to.len());
    dispatch(isa, ToHalf { from, to });
}

/// Widens the half floats of `from` to `to`: exact.
///
/// # Panics
/// If the lengths differ.
pub fn from_f16(isa: Isa, from: &[u16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len());
    dispatch(isa, FromHalf { from, to });
}

struct ToHalf<'a> {
    from: &'a [f32],
    to: &'a mut [u16],
}

impl Kernel for ToHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, from_tail) = self.from.as_chunks::<LANES>();
        let (to, to_tail) = self.to.as_chunks_mut::<LANES>();
        for (from, to) in from.iter().zip(to) {
            s.store_f16(s.load(from), to);
        }
        for (&from, to) in from_tail.iter().zip(to_tail) {
            *to = f32_to_f16(from);
        }
    }
}

struct FromHalf<'a> {
    from: &'a [u16],
    to: &'a mut [f32],
}

impl Kernel for FromHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (from, from_tail) = self.from.as_chunks::<LANES>();
        let (to, to_tail) = self.to.as_chunks_mut::<LANES>();
        for (from, to) in from.iter().zip(to) {
            s.store(s.load_f16(from), to);
        }
        for (&from, to) in from_tail.iter().zip(to_tail) {
            *to = f16_to_f32(from);
        }
    }
}
