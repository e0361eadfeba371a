//! Rounding of activations to 8 bits.

use std::arch::x86_64::*;

/// Codes of 32 activations and their sum: `x * factor` to the nearest whole number, halves to even.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) fn codes(x: &[f32; 32], factor: f32, q: &mut [i8; 32]) -> i32 {
    let factor = _mm256_set1_ps(factor);
    let mut whole = [_mm256_setzero_si256(); 4];
    for (whole, x) in whole.iter_mut().zip(x.as_chunks::<8>().0) {
        // SAFETY: `x` is eight singles.
        *whole = _mm256_cvtps_epi32(_mm256_mul_ps(unsafe { _mm256_loadu_ps(x.as_ptr()) }, factor));
    }
    let [a, b, c, d] = whole;
    let total = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d));
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // Packing works within 128-bit halves: puts the groups of four codes back in order.
    let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    // SAFETY: `q` is 32 bytes.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
    let total = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256::<1>(total));
    let total = _mm_add_epi32(total, _mm_unpackhi_epi64(total, total));
    _mm_cvtsi128_si32(_mm_add_epi32(total, _mm_srli_epi64::<32>(total)))
}
