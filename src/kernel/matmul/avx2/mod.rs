//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! A format is what takes its blocks apart into bytes ([`block32`], [`block256`], [`code_book`],
//! [`float`]); everything else is
//! written once for all formats of a family: [`decode`] runs over the file's own blocks, four rows at a time; [`tile`]
//! takes a stretch of rows apart once and uses it for all tokens.

pub(super) mod block256;
pub(super) mod block32;
pub(super) mod code_book;
pub(super) mod decode;
pub(super) mod float;
pub(super) mod micro;
pub(super) mod quantize;
pub(super) mod tile;

use super::Job;
use std::arch::x86_64::*;

/// From so many tokens on, taking blocks apart once for all tokens is faster than once for each.
pub(super) const TILED: usize = 4;

/// The choice of kernels by format and token count, from the modules `decode` and `micro` of the one around it, which says
/// in `TILED` from how many tokens on to take the latter.
macro_rules! multiply_by_format {
    () => {
        /// # Safety
        /// As `super::multiply`; the processor has the instruction set.
        pub(super) unsafe fn multiply(format: $crate::quant::Format, job: &$crate::kernel::matmul::Job) {
            use $crate::kernel::matmul::avx2::{block32, block256, code_book, float};
            use $crate::quant::Format;
            // SAFETY: the caller's promises are those of each function called.
            unsafe {
                match format {
                    Format::F32 => float::multiply::<float::F32>(job),
                    Format::F16 => float::multiply::<float::F16>(job),
                    Format::BF16 => float::multiply::<float::BF16>(job),
                    Format::Q4_0 => multiply32::<block32::Q4_0>(job),
                    Format::Q4_1 => multiply32::<block32::Q4_1>(job),
                    Format::Q5_0 => multiply32::<block32::Q5_0>(job),
                    Format::Q5_1 => multiply32::<block32::Q5_1>(job),
                    Format::Q8_0 => multiply32::<block32::Q8_0>(job),
                    Format::IQ4_NL => multiply32::<block32::Iq4Nl>(job),
                    Format::MXFP4 => multiply32::<block32::Mxfp4>(job),
                    Format::Q2_K => multiply256::<block256::Q2K>(job),
                    Format::Q3_K => multiply256::<block256::Q3K>(job),
                    Format::Q4_K => multiply256::<block256::Q4K>(job),
                    Format::Q5_K => multiply256::<block256::Q5K>(job),
                    Format::Q6_K => multiply256::<block256::Q6K>(job),
                    Format::IQ4_XS => multiply256::<block256::Iq4Xs>(job),
                    Format::IQ1_S => multiply256::<code_book::Iq1S>(job),
                    Format::IQ1_M => multiply256::<code_book::Iq1M>(job),
                    Format::IQ2_XXS => multiply256::<code_book::Iq2Xxs>(job),
                    Format::IQ2_XS => multiply256::<code_book::Iq2Xs>(job),
                    Format::IQ2_S => multiply256::<code_book::Iq2S>(job),
                    Format::IQ3_XXS => multiply256::<code_book::Iq3Xxs>(job),
                    Format::IQ3_S => multiply256::<code_book::Iq3S>(job),
                    Format::TQ1_0 => multiply256::<block256::Tq1_0>(job),
                    Format::TQ2_0 => multiply256::<block256::Tq2_0>(job),
                    Format::NVFP4 => multiply32::<block32::Nvfp4>(job),
                    Format::Q1_0 => multiply32::<block32::Q1_0>(job),
                    Format::Q2_0 => multiply32::<block32::Q2_0>(job),
                }
            }
        }

        /// # Safety
        /// As [`multiply`].
        pub(super) unsafe fn multiply32<F: $crate::kernel::matmul::avx2::block32::Block32>(
            job: &$crate::kernel::matmul::Job,
        ) {
            // SAFETY: as in `multiply`.
            unsafe {
                match job.acts.tokens() < TILED {
                    true => decode::rows32::<F>(job),
                    false => micro::rows32::<F>(job),
                }
            }
        }

        /// # Safety
        /// As [`multiply`].
        pub(super) unsafe fn multiply256<F: $crate::kernel::matmul::avx2::block256::Block256>(
            job: &$crate::kernel::matmul::Job,
        ) {
            // SAFETY: as in `multiply`.
            unsafe {
                match job.acts.tokens() < TILED {
                    true => decode::rows256::<F>(job),
                    false => micro::rows256::<F>(job),
                }
            }
        }
    };
}
pub(super) use multiply_by_format;

multiply_by_format!();

/// # Safety
/// `p` is valid for reading 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load128(p: *const u8) -> __m128i {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// What `mask` keeps of every byte.
#[inline]
#[target_feature(enable = "avx2")]
fn and(v: __m256i, mask: i8) -> __m256i {
    _mm256_and_si256(v, _mm256_set1_epi8(mask))
}

/// The low halves of both, then their high halves.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn halves_together(a: __m256i, b: __m256i) -> [__m256i; 2] {
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

/// Sums of two products each in 16 bits; for signed codes the activations take the codes' signs.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn products(signed: bool, codes: __m256i, x: __m256i) -> __m256i {
    match signed {
        true => _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes)),
        false => _mm256_maddubs_epi16(codes, x),
    }
}

/// As [`products`] for signed codes of which none is -128, the one that has no negative: they take the activations'
/// signs, so that the `magnitudes` of these serve the codes of many rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn products_of_negatable(codes: __m256i, x: __m256i, magnitudes: __m256i) -> __m256i {
    _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(codes, x))
}

/// The sum of the lanes of each half of `v`: four vectors become one with their low halves' sums, then their high
/// ones'.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_halves(v: [__m256i; 4]) -> __m256i {
    let first = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    let second = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    _mm256_add_epi32(_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second))
}

/// Where a permutation finds two neighbours among eight numbers, four times each.
pub(super) static EACH_FOUR_TIMES: [[u32; 8]; 4] =
    [[0, 0, 0, 0, 1, 1, 1, 1], [2, 2, 2, 2, 3, 3, 3, 3], [4, 4, 4, 4, 5, 5, 5, 5], [6, 6, 6, 6, 7, 7, 7, 7]];

/// The low half plus the high half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fold(v: __m256i) -> __m128i {
    _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v))
}

/// Writes the results of the rows of [`Job::four`] for token `t`, as many of them as the job has.
///
/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store4(job: &Job, r: usize, t: usize, y: __m128) {
    let mut four = [0f32; 4];
    // SAFETY: there is room for four; the caller lets this thread write the rows before `job.end`.
    unsafe {
        _mm_storeu_ps(four.as_mut_ptr(), y);
        for (row, y) in (r..job.end).step_by(job.quarter()).zip(four) {
            *job.out.ptr.add(t * job.out.stride + row) = y;
        }
    }
}

/// How many bytes ahead of its use a row asks for memory: enough to bridge the way there. Each of four rows for itself
/// (see [`Job::four`]).
pub(super) const AHEAD: usize = 2048;

/// Asks for the `bytes` at `p`.
#[inline]
pub(super) fn prefetch(p: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a hint, valid for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(line).cast()) };
    }
}
