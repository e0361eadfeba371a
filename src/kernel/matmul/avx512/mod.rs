//! Kernels for x86-64 with AVX-512 and VNNI.
//!
//! As those for AVX-VNNI with vectors of 512 bits where these serve. Floating-point weights are left to AVX2: their order
//! of summation is that of eight lanes.

pub(super) mod decode;
mod fused;
pub(super) mod micro;
pub(super) mod points;
pub(super) mod ternary;

use super::avx2::{TILED, multiply_by_format};
use std::arch::x86_64::*;

multiply_by_format!();

/// Signed codes with [`SHIFT`](super::avx_vnni::SHIFT) added; unsigned ones as they are.
#[inline]
#[target_feature(enable = "avx512f")]
fn unsigned(signed: bool, codes: __m512i) -> __m512i {
    match signed {
        true => _mm512_xor_si512(codes, _mm512_set1_epi8(-128)),
        false => codes,
    }
}
