//! Products straight from the file's blocks, four rows at a time: for one token or a few.

use super::block32::Block32;
use super::block256::Block256;
use super::{fold, load, load128, products, sum_halves};
use crate::kernel::matmul::activations::Codes256;
use std::arch::x86_64::*;

/// The loops over rows, tokens and blocks for an instruction set that has the given features. The module around them has
/// `sums32`, the sums of code * activation of four blocks of 32, and `sums256`, parts of the sums of a block of 256, as
/// this module does.
macro_rules! decode_kernels {
    ($features:literal) => {
        use std::arch::x86_64::*;
        use $crate::kernel::matmul::Job;
        use $crate::kernel::matmul::activations::{Codes32, Codes256};
        use $crate::kernel::matmul::avx2::block32::{Block32, halves};
        use $crate::kernel::matmul::avx2::block256::Block256;
        use $crate::kernel::matmul::avx2::{fold, load, prefetch, store4, sum_halves};

        /// # Safety
        /// As `super::multiply`.
        #[target_feature(enable = $features)]
        pub(in crate::kernel::matmul) unsafe fn rows32<F: Block32>(job: &Job) {
            let x = job.acts.codes32();
            for r in (job.start..job.end).step_by(4) {
                for t in 0..job.acts.tokens() {
                    // SAFETY: the caller's promises.
                    unsafe { store4(job, r, t, dot32::<F>(job, r, &x[t..])) };
                }
            }
        }

        /// # Safety
        /// As `super::multiply`.
        #[target_feature(enable = $features)]
        pub(in crate::kernel::matmul) unsafe fn rows256<F: Block256>(job: &Job) {
            let x = job.acts.codes256();
            for r in (job.start..job.end).step_by(4) {
                for t in 0..job.acts.tokens() {
                    // SAFETY: the caller's promises.
                    unsafe { store4(job, r, t, dot256::<F>(job, r, &x[t..])) };
                }
            }
        }

        /// Four rows from `r` on with the token whose blocks are `x[0]`, `x[tokens]`, ...
        ///
        /// # Safety
        /// As `super::multiply`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn dot32<F: Block32>(job: &Job, r: usize, x: &[Codes32]) -> __m128 {
            let rows = [job.row(r), job.row(r + 1), job.row(r + 2), job.row(r + 3)];
            let mut y = _mm_setzero_ps();
            for (group, x) in x.iter().step_by(job.acts.tokens()).enumerate() {
                let at = 8 * F::BYTES * group;
                for row in rows {
                    prefetch(row, job.row_bytes, at, 8 * F::BYTES);
                }
                for sub in 0..(job.k / 32 - 8 * group).min(8) {
                    let blocks = rows.map(|row| row.wrapping_add(at + F::BYTES * sub));
                    // SAFETY: `sub` counts the blocks that the rows have; `x` has eight times 32 codes.
                    unsafe {
                        let q = load(x.q.as_ptr().add(32 * sub).cast());
                        let sum = super::sums32::<F>(blocks, q, x.sum[sub]);
                        let scale = _mm_mul_ps(F::scales(blocks), _mm_set1_ps(x.d[sub]));
                        y = _mm_fmadd_ps(_mm_cvtepi32_ps(sum), scale, y);
                        if F::MIN {
                            let mins = halves(blocks.map(|block| block.wrapping_add(2)));
                            y = _mm_fmadd_ps(mins, _mm_set1_ps(x.s[sub]), y);
                        }
                    }
                }
            }
            y
        }

        /// As [`dot32`].
        ///
        /// # Safety
        /// As `super::multiply`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn dot256<F: Block256>(job: &Job, r: usize, x: &[Codes256]) -> __m128 {
            let rows = [job.row(r), job.row(r + 1), job.row(r + 2), job.row(r + 3)];
            let mut y = _mm_setzero_ps();
            for (block, x) in x.iter().step_by(job.acts.tokens()).enumerate() {
                let at = F::BYTES * block;
                let mut parts = [_mm256_setzero_si256(); 4];
                // SAFETY: each row holds `k / 256` blocks, and `x` has no more.
                unsafe {
                    for (part, row) in parts.iter_mut().zip(rows) {
                        prefetch(row, job.row_bytes, at, F::BYTES);
                        *part = super::sums256::<F>(row.add(at), x);
                    }
                    let sums = sum_halves(parts);
                    let d = _mm_set1_ps(x.d);
                    let halves_at = rows.map(|row| row.wrapping_add(at + F::D));
                    if F::MINS {
                        let scales = _mm_mul_ps(halves(halves_at), d);
                        let mins = _mm_mul_ps(halves(halves_at.map(|p| p.wrapping_add(2))), d);
                        y = _mm_fmadd_ps(_mm_cvtepi32_ps(_mm256_castsi256_si128(sums)), scales, y);
                        y = _mm_fnmadd_ps(mins, _mm_cvtepi32_ps(_mm256_extracti128_si256::<1>(sums)), y);
                    } else {
                        y = _mm_fmadd_ps(_mm_cvtepi32_ps(fold(sums)), _mm_mul_ps(halves(halves_at), d), y);
                    }
                }
            }
            y
        }
    };
}
pub(in crate::kernel::matmul) use decode_kernels;

/// The kernels for AVX2.
pub(super) mod kernels {
    decode_kernels!("avx2,fma,f16c");
}

/// The sums of code * activation of four blocks with the 32 activations `q`, whose sum is `sum`.
///
/// # Safety
/// Each block is whole; the processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums32<F: Block32>(blocks: [*const u8; 4], q: __m256i, sum: i32) -> __m128i {
    let mut parts = [_mm256_setzero_si256(); 4];
    for (part, block) in parts.iter_mut().zip(blocks) {
        // SAFETY: the caller's promise.
        *part = products(F::SIGNED, unsafe { F::codes(block) }, q);
    }
    let sums = match F::SIGNED {
        true => sum_wide(parts),
        false => sum_narrow(parts),
    };
    _mm_sub_epi32(sums, _mm_set1_epi32(F::OFFSET * sum))
}

/// The sum of each of four vectors of 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_wide(parts: [__m256i; 4]) -> __m128i {
    let ones = _mm256_set1_epi16(1);
    fold(sum_halves([
        _mm256_madd_epi16(parts[0], ones),
        _mm256_madd_epi16(parts[1], ones),
        _mm256_madd_epi16(parts[2], ones),
        _mm256_madd_epi16(parts[3], ones),
    ]))
}

/// As [`sum_wide`] where any four of a vector's numbers can be added in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_narrow(parts: [__m256i; 4]) -> __m128i {
    let (first, second) = (_mm256_hadd_epi16(parts[0], parts[1]), _mm256_hadd_epi16(parts[2], parts[3]));
    fold(_mm256_madd_epi16(_mm256_hadd_epi16(first, second), _mm256_set1_epi16(1)))
}

/// Parts of a block's sum of scale * code * activation; in formats with mins these are the low half, and the high half
/// parts of the sum of min * activation.
///
/// # Safety
/// `block` is a whole block; the processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums256<F: Block256>(block: *const u8, x: &Codes256) -> __m256i {
    // SAFETY: the caller's promise; the loads of `x` are of its own fields.
    unsafe {
        let codes = F::codes(block);
        let [scales, mins] = F::scales(block);
        let spread = match F::SUB {
            // The scale of a vector's low half comes from the even ones, that of its high half from the odd ones.
            16 => _mm256_cvtepi8_epi16(_mm_shuffle_epi8(
                scales,
                _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15),
            )),
            _ => _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(scales)),
        };
        let mut sum = _mm256_setzero_si256();
        for (sub, codes) in codes.into_iter().enumerate() {
            let q = load(x.q.as_ptr().add(32 * sub).cast());
            let chosen = _mm256_set1_epi16(0x0100 + 0x0202 * sub as i16);
            let scale = _mm256_shuffle_epi8(spread, chosen);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products(F::SIGNED, codes, q), scale));
        }
        if F::OFFSET != 0 {
            let off = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), load(x.sum16.as_ptr().cast()));
            sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(off, _mm256_set1_epi32(F::OFFSET)));
        }
        if F::MINS {
            let mins = match F::SUB {
                16 => fold(_mm256_madd_epi16(_mm256_cvtepi8_epi16(mins), load(x.sum16.as_ptr().cast()))),
                _ => _mm_madd_epi16(_mm_cvtepi8_epi16(mins), load128(x.sum32.as_ptr().cast())),
            };
            sum = _mm256_set_m128i(mins, fold(sum));
        }
        sum
    }
}
