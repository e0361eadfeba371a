//! Half floats (IEEE binary16) as bits, with no branches so that compilers can vectorise them. The same bits as the
//! F16C instructions: ties to even, overflow to infinity, denormals kept, NaN quieted with its upper payload.

use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernel::Isa;

#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // The exponent's bias differs by 112. A multiplication by 2^112 is exact and makes denormals normal as well.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let quiet = if bits & 0x7fff > 0x7c00 { 0x0040_0000 } else { 0 };
    let rest = magnitude | 0x7f80_0000 | quiet;
    f32::from_bits(sign | if bits & 0x7c00 == 0x7c00 { rest } else { finite })
}

#[inline(always)]
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: the lower 13 bits are rounded off; a carry into the exponent is right, up to infinity.
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    // Denormal results: the unit in the last place of 0.5 is the least half float, so the addition does the rounding.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let nan = 0x7e00 | ((magnitude >> 13) & 0x3ff);
    let half = if magnitude > 0x7f80_0000 {
        nan
    } else if magnitude >= 0x4780_0000 {
        0x7c00
    } else if magnitude < 0x3880_0000 {
        small
    } else {
        normal
    };
    (sign | half) as u16
}

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
