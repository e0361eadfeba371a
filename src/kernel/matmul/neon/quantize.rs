//! Rounding of activations to 8 bits.

use crate::kernel::neon::*;

/// Codes of 32 activations and their sum: `x * factor` to the nearest whole number, halves to even.
pub(in super::super) fn codes(x: &[f32; 32], factor: f32, q: &mut [i8; 32]) -> i32 {
    let mut whole = [vdupq_n_s32(0); 8];
    for (whole, x) in whole.iter_mut().zip(x.as_chunks::<4>().0) {
        // SAFETY: `x` is four singles.
        *whole = vcvtnq_s32_f32(vmulq_n_f32(unsafe { vld1q_f32(x.as_ptr()) }, factor));
    }
    let mut sums = vdupq_n_s32(0);
    for (whole, q) in whole.as_chunks::<4>().0.iter().zip(q.as_chunks_mut::<16>().0) {
        let pair = |a, b| vqmovn_high_s32(vqmovn_s32(a), b);
        let bytes = vqmovn_high_s16(vqmovn_s16(pair(whole[0], whole[1])), pair(whole[2], whole[3]));
        // SAFETY: `q` is 16 bytes.
        unsafe { vst1q_s8(q.as_mut_ptr(), bytes) };
        sums = vpadalq_s16(sums, vpaddlq_s8(bytes));
    }
    vaddvq_s32(sums)
}
