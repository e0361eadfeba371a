//! Kernels for x86-64 with AVX-512 and VNNI.
//!
//! Blocks are taken apart by the code for AVX2; what differs are the sums of products, four codes to a lane at once.
//! Those take unsigned codes, so signed ones are shifted up by 128 and the sums put right. Floating-point weights are
//! left to AVX2: their order of summation is that of eight lanes.

mod decode;
mod micro;

use super::avx2::multiply_by_format;
use std::arch::x86_64::*;

multiply_by_format!();

/// What signed codes are shifted by.
const SHIFT: i32 = 128;

/// Signed codes with [`SHIFT`] added; unsigned ones as they are.
#[inline]
#[target_feature(enable = "avx512f")]
fn unsigned(signed: bool, codes: __m512i) -> __m512i {
    match signed {
        true => _mm512_xor_si512(codes, _mm512_set1_epi8(-128)),
        false => codes,
    }
}

/// Adds to each lane of `sum` the products of two pairs of 16-bit numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    match cfg!(miri) {
        // The interpreter knows no `vpdpwssd`.
        true => _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)),
        false => _mm512_dpwssd_epi32(sum, a, b),
    }
}
