//! Kernels for x86-64 with AVX2 and AVX-VNNI: 256-bit vectors, of whose bytes one instruction adds up four products.
//!
//! Blocks are taken apart by the code for AVX2; what differs are the sums of products. Those take unsigned codes, so
//! signed ones are shifted up by 128 and the sums put right. Floating-point weights are left to AVX2.
//!
//! [`decode`] and [`micro`] write out what the kernels for AVX-512 share.

pub(super) mod decode;
pub(super) mod micro;

use super::avx2::{TILED, multiply_by_format};
use std::arch::x86_64::*;

multiply_by_format!();

/// What signed codes are shifted by.
pub(super) const SHIFT: i32 = 128;

/// Signed codes with [`SHIFT`] added; unsigned ones as they are.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unsigned(signed: bool, codes: __m256i) -> __m256i {
    match signed {
        true => _mm256_xor_si256(codes, _mm256_set1_epi8(-128)),
        false => codes,
    }
}
