//! TQ1_0 and TQ2_0 taken apart with AVX-512: a block of 256 as four vectors.

use super::points::bytes_at;
use crate::kernel::matmul::avx2::{load, load128};
use std::arch::x86_64::*;

/// Of each byte of TQ1_0 its first four digits, two bits each, and its last.
static DIGITS: [[u8; 256]; 2] = {
    let mut digits = [[0; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        // A fraction to the base of 3: its first digit is what overflows when it is tripled.
        let (mut rest, mut i) = (byte, 0);
        while i < 5 {
            digits[i / 4][byte] |= ((3 * rest) >> 8 << (2 * (i % 4))) as u8;
            rest = 3 * rest % 256;
            i += 1;
        }
        byte += 1;
    }
    digits
};

/// The codes of TQ1_0, plus one.
///
/// # Safety
/// `block` is valid for reading 54 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vbmi")]
pub(in crate::kernel::matmul) unsafe fn tq1_0(block: *const u8) -> [__m512i; 4] {
    // SAFETY: the block starts with 32, 16 and 4 bytes of codes.
    let (a, b, c) = unsafe {
        (load(block), load128(block.add(32)), _mm_cvtsi32_si128(block.add(48).cast::<i32>().read_unaligned()))
    };
    let all = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), _mm256_set_m128i(c, b));
    let (four, d4, digit) = (bytes_at(&DIGITS[0], all, &[]), bytes_at(&DIGITS[1], all, &[]), _mm512_set1_epi8(3));
    let d0 = _mm512_and_si512(four, digit);
    let d1 = _mm512_and_si512(_mm512_srli_epi16::<2>(four), digit);
    let d2 = _mm512_and_si512(_mm512_srli_epi16::<4>(four), digit);
    let d3 = _mm512_and_si512(_mm512_srli_epi16::<6>(four), digit);
    // Of each digit the first 32 elements, then 16 of each, then four of the first four digits.
    let first = |low, high| _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high));
    let from = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 8, 9, 10, 11, 24, 25, 26, 27);
    let third = _mm512_mask_mov_epi32(d4, 0xff00, _mm512_permutex2var_epi32(d0, from, d1));
    let from = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 0, 0, 0, 0, 0, 0, 12, 28);
    let last = _mm512_mask_mov_epi32(_mm512_permutex2var_epi32(d2, from, d3), 0x0f00, d4);
    let last = _mm512_mask_mov_epi32(last, 0x1000, d0);
    let last = _mm512_mask_shuffle_epi32::<0>(last, 0x2000, d1);
    [first(d0, d1), first(d2, d3), third, last]
}

/// The codes of TQ2_0, plus one.
///
/// # Safety
/// `block` is valid for reading 66 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
pub(in crate::kernel::matmul) unsafe fn tq2_0(block: *const u8) -> [__m512i; 4] {
    // SAFETY: the block starts with 64 bytes of codes, of which each 32 hold four sub-blocks.
    let (a, b) = unsafe { (_mm512_broadcast_i64x4(load(block)), _mm512_broadcast_i64x4(load(block.add(32)))) };
    let (first, last) = (_mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2), _mm512_setr_epi64(4, 4, 4, 4, 6, 6, 6, 6));
    let bits = |v, by| _mm512_and_si512(_mm512_srlv_epi64(v, by), _mm512_set1_epi8(3));
    [bits(a, first), bits(a, last), bits(b, first), bits(b, last)]
}
