//! Products straight from the file's blocks, four rows at a time: for one token or a few.

use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::avx_vnni::SHIFT;
use crate::kernel::matmul::avx2::block32::Block32;
use crate::kernel::matmul::avx2::block256::Block256;
use crate::kernel::matmul::avx2::decode::{Sums256, separate, without_offset};
use crate::kernel::matmul::avx2::{AHEAD, fold, halves_together, load, load128, prefetch, sum_halves};
use std::arch::x86_64::{_mm256_dpbusd_epi32 as dpbusd, *};

pub(super) mod kernels {
    crate::kernel::matmul::avx2::decode::decode_kernels!(
        "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
    );
}

crate::kernel::matmul::avx_vnni::decode::sums_of_32!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi"
);

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
        for (part, block) in parts.iter_mut().zip(blocks) {
            prefetch(block.wrapping_add(AHEAD), F::BYTES);
            *part = parts256::<F>(block, x);
        }
        separate::<F>(blocks, parts)
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
        // Whether four products can be added in 16 bits.
        let narrow = !F::SIGNED && F::FLUSH > 1;
        let spread = match narrow {
            false => _mm512_cvtepi8_epi32(scales),
            // As 16-bit factors with zeros above them, see below.
            true => _mm512_and_si512(_mm512_cvtepi8_epi32(scales), _mm512_set1_epi32(0xffff)),
        };
        // Four codes to a lane: which sub-block each lane of the first vector belongs to.
        let first = match F::SUB {
            16 => _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3),
            _ => _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
        };
        let mut sum = _mm512_setzero_si512();
        for (i, codes) in codes.into_iter().enumerate() {
            let q = _mm512_load_si512(x.q.as_ptr().add(64 * i).cast());
            let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), super::unsigned(F::SIGNED, codes), q);
            let chosen = _mm512_add_epi32(first, _mm512_set1_epi32((64 / F::SUB * i) as i32));
            let scale = _mm512_permutexvar_epi32(chosen, spread);
            sum = match narrow {
                false => _mm512_add_epi32(sum, _mm512_mullo_epi32(part, scale)),
                // Up to 63 * 127 * 4 either way: the low 16 bits hold it, and the high ones meet zeros.
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
