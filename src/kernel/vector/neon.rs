//! The lanes in NEON registers, two for eight lanes.
//!
//! Every processor with 64-bit ARM code has NEON, so that nothing here needs a proof.

use super::simd::{Chunk, LANES, Simd};
use crate::kernel::neon;
use crate::kernel::neon::*;

#[derive(Clone, Copy)]
pub(crate) struct Neon;

/// The same operation on both registers.
macro_rules! register_op {
    ($name:ident($($arg:ident),*) = $body:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::V),*) -> Self::V {
            let half = |$($arg: float32x4_t),*| $body;
            [half($($arg[0]),*), half($($arg[1]),*)]
        }
    };
}

impl Simd for Neon {
    type V = [float32x4_t; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [vdupq_n_f32(x); 2]
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> Self::V {
        // SAFETY: the reference covers the 32 bytes read, and no alignment is needed.
        unsafe { [vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut Chunk) {
        // SAFETY: the reference covers the 32 bytes written, and no alignment is needed.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), v[0]);
            vst1q_f32(to.as_mut_ptr().add(4), v[1]);
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: the reference covers the 16 bytes read, and no alignment is needed.
        neon::from_halves(unsafe { vld1q_u16(from.as_ptr()) })
    }

    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u16; LANES]) {
        // SAFETY: the reference covers the 16 bytes written, and no alignment is needed.
        unsafe { vst1q_u16(to.as_mut_ptr(), neon::to_halves(v)) };
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::V {
        // SAFETY: the reference covers the 8 bytes read, and no alignment is needed.
        let wide = vmovl_s8(unsafe { vld1_s8(from.as_ptr().cast()) });
        [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))]
    }

    register_op!(add(a, b) = vaddq_f32(a, b));
    register_op!(sub(a, b) = vsubq_f32(a, b));
    register_op!(mul(a, b) = vmulq_f32(a, b));
    register_op!(div(a, b) = vdivq_f32(a, b));
    register_op!(mul_add(a, b, c) = vfmaq_f32(c, a, b));
    register_op!(min(a, b) = vbslq_f32(vcltq_f32(a, b), a, b));
    register_op!(max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b));
    register_op!(select_less(a, b, yes, no) = vbslq_f32(vcltq_f32(a, b), yes, no));
    register_op!(shift_to_exponent(v) = vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(v))));

    #[inline(always)]
    fn deinterleave(self, a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        ([vuzp1q_f32(a[0], a[1]), vuzp1q_f32(b[0], b[1])], [vuzp2q_f32(a[0], a[1]), vuzp2q_f32(b[0], b[1])])
    }

    #[inline(always)]
    fn interleave(self, even: Self::V, odd: Self::V) -> (Self::V, Self::V) {
        let both = |i: usize| [vzip1q_f32(even[i], odd[i]), vzip2q_f32(even[i], odd[i])];
        (both(0), both(1))
    }

    #[inline(always)]
    fn sums(self, v: [Self::V; LANES]) -> Self::V {
        // Two rounds of neighbours' sums leave the half-sums of four vectors: (x0+x1)+(x2+x3).
        let four = |v: [float32x4_t; 4]| vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
        let sums = |v: &[Self::V]| {
            vaddq_f32(four([v[0][0], v[1][0], v[2][0], v[3][0]]), four([v[0][1], v[1][1], v[2][1], v[3][1]]))
        };
        [sums(&v[..4]), sums(&v[4..])]
    }
}
