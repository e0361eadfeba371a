//! Products straight from the file's blocks, four rows at a time: for one token or a few.

use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::avx_vnni::SHIFT;
use crate::kernel::matmul::avx2::block32::Block32;
use crate::kernel::matmul::avx2::block256::Block256;
use crate::kernel::matmul::avx2::decode::{self as narrow, Sums256, separate, without_offset};
use crate::kernel::matmul::avx2::{AHEAD, fold, halves_together, load, load128, prefetch, sum_halves};
use crate::kernel::matmul::avx512::points::Levels;
use std::arch::x86_64::{_mm256_dpbusd_epi32 as dpbusd, *};

mod kernels {
    crate::kernel::matmul::avx2::decode::decode_kernels!(
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    );
}
pub(in crate::kernel::matmul) use kernels::rows32;

/// Wide vectors serve blocks that are taken apart by them. For the others those of AVX2 are faster, by a seventh and more:
/// of Q4_K one thread makes 39 in place of 33 Gweights/s from the second cache, of Q3_K 29 in place of 22.
///
/// # Safety
/// As `super::multiply`.
pub(in crate::kernel::matmul) unsafe fn rows256<F: Block256>(job: &Job) {
    // SAFETY: the caller's promises; the processor has AVX2.
    unsafe {
        match (F::WIDE, F::FUSES) {
            (true, _) => kernels::rows256::<F>(job),
            (_, true) => super::fused::kernels::rows256::<F>(job),
            _ => narrow::rows256::<F>(job),
        }
    }
}

mod codes {
    use super::{Block32, Codes32, dpbusd, fold, halves_together, load, sum_halves, without_offset};
    use std::arch::x86_64::*;

    crate::kernel::matmul::avx_vnni::decode::sums_of_32!(
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    );
}

pub(super) use codes::sums32;

/// As the one for AVX-VNNI. Of codes that are bits the activations are taken where there is one.
///
/// # Safety
/// Each block is whole; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn pair32<F: Block32>(
    first: [*const u8; 4],
    second: [*const u8; 4],
    x: &Codes32,
    sub: usize,
) -> __m256i {
    // SAFETY: the caller's promise; `sub` is even, and the load of `x` is of its own fields.
    unsafe {
        if !F::BITS {
            return codes::pair32::<F>(first, second, x, sub);
        }
        let q = _mm512_load_si512(x.q.as_ptr().add(32 * sub).cast());
        let mut parts = [_mm512_setzero_si512(); 4];
        for (part, block) in parts.iter_mut().zip(first) {
            let q = _mm512_maskz_mov_epi8(F::bits(block, sub % F::PARTS), q);
            *part = _mm512_dpbusd_epi32(*part, _mm512_set1_epi8(2), q);
        }
        let sums = sum_quarters(parts);
        let sums = _mm512_add_epi32(
            _mm512_shuffle_i32x4::<0b10_00_10_00>(sums, sums),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(sums, sums),
        );
        without_offset(_mm512_castsi512_si256(sums), F::OFFSET, x, sub)
    }
}

/// As `sum_halves`: of each quarter the sum of its lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_quarters([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let first = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let second = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second))
}

/// The sums of each sixteen elements of four blocks of 64 and what they are to be multiplied with.
///
/// # Safety
/// Each of `blocks` is a whole block, and `sub` even; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn sixteens<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> [[__m128; 2]; 4] {
    const { assert!(!F::HALVES || F::PARTS == 2 && !F::SIGNED) };
    // SAFETY: the caller's promise; the loads of `x` are of its own fields, of which there are four sums and two scales.
    unsafe {
        let q = _mm512_load_si512(x.q.as_ptr().add(32 * sub).cast());
        let mut parts = [_mm512_setzero_si512(); 4];
        for (part, block) in parts.iter_mut().zip(blocks) {
            *part = _mm512_dpbusd_epi32(*part, F::wide_codes(block), q);
        }
        let sums = sum_quarters(parts);
        let off = _mm_loadl_epi64(x.sum16.as_ptr().add(2 * sub).cast());
        let off = _mm_cvtepi16_epi32(_mm_mullo_epi16(off, _mm_set1_epi16(F::OFFSET as i16)));
        let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let sums = _mm512_sub_epi32(sums, _mm512_permutexvar_epi32(each, _mm512_castsi128_si512(off)));
        let sums = _mm512_cvtepi32_ps(sums);
        let [d0, d1] = F::scales_of_sixteens(blocks);
        let d0 = _mm256_mul_ps(d0, _mm256_set1_ps(x.d[sub]));
        let d1 = _mm256_mul_ps(d1, _mm256_set1_ps(x.d[sub + 1]));
        [
            [_mm512_castps512_ps128(sums), _mm256_castps256_ps128(d0)],
            [_mm512_extractf32x4_ps::<1>(sums), _mm256_extractf128_ps::<1>(d0)],
            [_mm512_extractf32x4_ps::<2>(sums), _mm256_castps256_ps128(d1)],
            [_mm512_extractf32x4_ps::<3>(sums), _mm256_extractf128_ps::<1>(d1)],
        ]
    }
}

/// As the one for AVX2.
///
/// # Safety
/// Each of `blocks` is a whole block; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn sums256<F: Block256>(blocks: [*const u8; 4], x: &Codes256) -> Sums256 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut parts = [_mm256_setzero_si256(); 4];
        for (parts, blocks) in parts.chunks_mut(2).zip(blocks.as_chunks::<2>().0) {
            for block in blocks {
                prefetch(block.wrapping_add(AHEAD), F::BYTES);
            }
            if F::SIGNS {
                let [first, second] = F::wide_levels(*blocks);
                parts[0] = parts_of_levels::<F>(blocks[0], &first, x);
                parts[1] = parts_of_levels::<F>(blocks[1], &second, x);
            } else {
                parts[0] = parts256::<F>(blocks[0], x);
                parts[1] = parts256::<F>(blocks[1], x);
            }
        }
        separate::<F>(blocks, parts)
    }
}

/// Which sub-block the vector `i` has four codes of in each lane: where a permutation finds its scale.
#[inline]
#[target_feature(enable = "avx512f")]
fn sub_blocks<F: Block256>(i: usize) -> __m512i {
    let first = match F::SUB {
        16 => _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
        _ => _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
    };
    _mm512_add_epi32(first, _mm512_set1_epi32((64 / F::SUB * i) as i32))
}

/// Scales as 16-bit factors with zeros above them: a sum of four products that fits in 16 bits meets its scale, and its
/// sign above meets zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn narrow_scales(scales: __m128i) -> __m512i {
    _mm512_and_si512(_mm512_cvtepi8_epi32(scales), _mm512_set1_epi32(0xffff))
}

/// As [`parts256`] of a block whose levels are given. The activations take the codes' signs, so that there is no offset.
///
/// # Safety
/// As [`parts256`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn parts_of_levels<F: Block256>(block: *const u8, levels: &Levels, x: &Codes256) -> __m256i {
    // SAFETY: the caller's promise; the loads of `x` are of its own fields.
    unsafe {
        let scales = narrow_scales(F::scales(block)[0]);
        let mut sum = _mm512_setzero_si512();
        for i in 0..4 {
            let q = _mm512_load_si512(x.q.as_ptr().add(64 * i).cast());
            let q = _mm512_mask_sub_epi8(q, levels.minus[i], _mm512_setzero_si512(), q);
            // Up to 62 * 127 * 4 either way.
            let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), levels.levels[i], q);
            sum = _mm512_dpwssd_epi32(sum, part, _mm512_permutexvar_epi32(sub_blocks::<F>(i), scales));
        }
        _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum))
    }
}

/// Parts of a block's sum of scale * code * activation; in formats with mins these are the low half, and the high half
/// parts of the sum of min * activation.
///
/// # Safety
/// `block` is a whole block; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn parts256<F: Block256>(block: *const u8, x: &Codes256) -> __m256i {
    // SAFETY: the caller's promise; the loads of `x` are of its own fields.
    unsafe {
        let codes = F::wide_codes(block);
        let [scales, mins] = F::scales(block);
        // Whether four products can be added in 16 bits: up to 63 * 127 * 4 either way.
        let narrow = !F::SIGNED && F::FLUSH > 1;
        let spread = match narrow {
            false => _mm512_cvtepi8_epi32(scales),
            true => narrow_scales(scales),
        };
        let mut sum = _mm512_setzero_si512();
        for (i, codes) in codes.into_iter().enumerate() {
            let q = _mm512_load_si512(x.q.as_ptr().add(64 * i).cast());
            if F::UNSCALED {
                sum = _mm512_dpbusd_epi32(sum, codes, q);
                continue;
            }
            let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), super::unsigned(F::SIGNED, codes), q);
            let scale = _mm512_permutexvar_epi32(sub_blocks::<F>(i), spread);
            sum = match narrow {
                false => _mm512_add_epi32(sum, _mm512_mullo_epi32(part, scale)),
                true => _mm512_add_epi32(sum, _mm512_madd_epi16(part, scale)),
            };
        }
        let mut sum = _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
        let offset = if F::SIGNED { SHIFT } else { F::OFFSET };
        if offset != 0 {
            let off = min_sums(F::SUB, scales, x);
            sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(off, _mm256_set1_epi32(offset)));
        }
        if F::MINS {
            sum = _mm256_set_m128i(fold(min_sums(F::SUB, mins, x)), fold(sum));
        }
        sum
    }
}

/// Parts of the sum of each sub-block's min, or scale, times the sum of its activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn min_sums(sub: usize, mins: __m128i, x: &Codes256) -> __m256i {
    // SAFETY: fields of `x` that long.
    unsafe {
        match sub {
            16 => _mm256_madd_epi16(_mm256_cvtepi8_epi16(mins), load(x.sum16.as_ptr().cast())),
            _ => _mm256_zextsi128_si256(_mm_madd_epi16(_mm_cvtepi8_epi16(mins), load128(x.sum32.as_ptr().cast()))),
        }
    }
}
