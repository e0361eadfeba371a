//! The lanes as plain arrays: the truth, and what runs where there is nothing better. Written so that compilers
//! vectorise it for whatever the target's baseline is.

use super::math;
use super::simd::{Chunk, LANES, Simd, sum_lanes};
use crate::elementary::{f16_to_f32, f32_to_f16, fused};

#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: Chunk, b: Chunk, f: impl Fn(f32, f32) -> f32) -> Chunk {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = Chunk;

    #[inline(always)]
    fn splat(self, x: f32) -> Chunk {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> Chunk {
        *from
    }

    #[inline(always)]
    fn store(self, v: Chunk, to: &mut Chunk) {
        *to = v;
    }

    #[inline(never)] // A hundred instructions.
    fn load_f16(self, from: &[u16; LANES]) -> Chunk {
        from.map(f16_to_f32)
    }

    #[inline(never)] // Two hundred.
    fn store_f16(self, v: Chunk, to: &mut [u16; LANES]) {
        *to = v.map(f32_to_f16);
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Chunk {
        from.map(|byte| f32::from(byte as i8))
    }

    #[inline(always)]
    fn add(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Chunk, b: Chunk, c: Chunk) -> Chunk {
        std::array::from_fn(|i| fused(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn min(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Chunk, b: Chunk) -> Chunk {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn select_less(self, a: Chunk, b: Chunk, yes: Chunk, no: Chunk) -> Chunk {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }

    #[inline(always)]
    fn shift_to_exponent(self, v: Chunk) -> Chunk {
        v.map(|x| f32::from_bits(x.to_bits() << 23))
    }

    #[inline(never)] // Two hundred.
    fn exp(self, x: Chunk) -> Chunk {
        math::exp(self, x)
    }

    #[inline(always)]
    fn deinterleave(self, a: Chunk, b: Chunk) -> (Chunk, Chunk) {
        let at = |i: usize| if i < LANES { a[i] } else { b[i - LANES] };
        (std::array::from_fn(|i| at(2 * i)), std::array::from_fn(|i| at(2 * i + 1)))
    }

    #[inline(always)]
    fn interleave(self, even: Chunk, odd: Chunk) -> (Chunk, Chunk) {
        let at = |i: usize| if i.is_multiple_of(2) { even[i / 2] } else { odd[i / 2] };
        (std::array::from_fn(at), std::array::from_fn(|i| at(i + LANES)))
    }

    #[inline(always)]
    fn sums(self, v: [Chunk; LANES]) -> Chunk {
        std::array::from_fn(|i| sum_lanes(&v[i]))
    }
}
