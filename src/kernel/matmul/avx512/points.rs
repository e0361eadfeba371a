//! IQ1, IQ2 and IQ3 taken apart with AVX-512: a block of 256 as four vectors, the signs as masks.
//!
//! Points of a grid are looked up in registers, 64 at a time, a byte of each in turn: that takes two blocks of IQ2 at once
//! and one of IQ3. The grid of IQ1 is too large for that: its points are gathered from a table in the first
//! cache.

use crate::kernel::matmul::avx2::{load, load128};
use crate::kernel::matmul::look_up::IQ1;
use crate::quant::{grids, tables};
use std::arch::x86_64::*;

/// The magnitudes of 256 codes, none above 62, and which of them are negative.
pub(in crate::kernel::matmul) struct Levels {
    pub levels: [__m512i; 4],
    pub minus: [u64; 4],
}

impl Levels {
    /// The codes plus `offset`, which is no less than any of the levels.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    #[allow(clippy::needless_range_loop)] // Of two arrays.
    pub fn codes(&self, offset: i32) -> [__m512i; 4] {
        let offset = _mm512_set1_epi8(offset as i8);
        let mut codes = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            let plus = _mm512_add_epi8(offset, self.levels[i]);
            codes[i] = _mm512_mask_sub_epi8(plus, self.minus[i], offset, self.levels[i]);
        }
        codes
    }
}

/// Both blocks' vectors in one.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
fn both(first: __m256i, second: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
}

/// A bit for each of 256 signs of two blocks.
#[inline]
#[target_feature(enable = "avx512f")]
fn masks(signs: __m512i) -> [[u64; 4]; 2] {
    let mut masks = [[0; 4]; 2];
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(masks.as_mut_ptr().cast(), signs) };
    masks
}

/// Bytes of seven bits with an eighth that makes the number of ones even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn even_signs(v: __m512i) -> __m512i {
    let folded = _mm512_and_si512(_mm512_xor_si512(v, _mm512_srli_epi16::<4>(v)), _mm512_set1_epi8(15));
    let odd =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    _mm512_or_si512(v, _mm512_shuffle_epi8(odd, folded))
}

/// Four times seven bits of every 32, each in a byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
fn sevens(v: __m512i) -> __m512i {
    let shifts = _mm512_set1_epi64(0x352e_2720_150e_0700);
    _mm512_and_si512(_mm512_multishift_epi64_epi8(shifts, v), _mm512_set1_epi8(127))
}

/// The bytes of `table` at 64 indices: their eight lowest bits are in `at`, each further one in one of `above`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
pub(super) fn bytes_at<const N: usize>(table: &[u8; N], at: __m512i, above: &[u64]) -> __m512i {
    const { assert!(N == 256 || N == 512 || N == 1024) };
    let mut parts = [_mm512_setzero_si512(); 8];
    for (part, table) in parts.iter_mut().zip(table.as_chunks::<128>().0) {
        // SAFETY: 128 bytes.
        let (low, high) =
            unsafe { (_mm512_loadu_si512(table.as_ptr().cast()), _mm512_loadu_si512(table[64..].as_ptr().cast())) };
        *part = _mm512_permutex2var_epi8(low, at, high);
    }
    choose(&mut parts, N / 256, _mm512_movepi8_mask(at));
    if N > 256 {
        choose(&mut parts, N / 512, above[0]);
    }
    if N > 512 {
        choose(&mut parts, N / 1024, above[1]);
    }
    parts[0]
}

/// Makes `count` of twice as many vectors: of two neighbours the bytes of the second where `mask` has a bit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn choose(parts: &mut [__m512i; 8], count: usize, mask: u64) {
    for i in 0..count {
        parts[i] = _mm512_mask_mov_epi8(parts[2 * i], mask, parts[2 * i + 1]);
    }
}

/// Of each point of a grid the low bits of its eight levels' numbers in a byte, and the high bits in another.
const fn bits_of<const N: usize>(grid: &[u16; N]) -> [[u8; N]; 2] {
    let mut bits = [[0; N]; 2];
    let mut point = 0;
    while point < N {
        let mut i = 0;
        while i < 8 {
            bits[0][point] |= ((grid[point] >> (2 * i) & 1) as u8) << i;
            bits[1][point] |= ((grid[point] >> (2 * i + 1) & 1) as u8) << i;
            i += 1;
        }
        point += 1;
    }
    bits
}

static IQ2_XXS: [[u8; 256]; 2] = bits_of(&grids::IQ2_XXS);
static IQ2_XS: [[u8; 512]; 2] = bits_of(&grids::IQ2_XS);
static IQ2_S: [[u8; 1024]; 2] = bits_of(&grids::IQ2_S);

/// The level of number 0, and the matrix of bits that makes the others of it: a bit of a level is that of the first one,
/// changed where the sum of some bits of the number is odd. What is above two bits of a number changes nothing.
const LEVELS: (i32, i64) = {
    let [first, second, third] = tables::IQ2;
    let mut rows = [0; 8];
    let mut bit = 0;
    while bit < 8 {
        // The row of the lowest bit comes last.
        rows[7 - bit] = ((first ^ second) >> bit & 1) | ((first ^ third) >> bit & 1) << 1;
        bit += 1;
    }
    (first as i32, i64::from_le_bytes(rows))
};

/// The levels of 64 points of IQ2, of which two blocks have half each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
fn points_of_eight<const N: usize>(grid: &[[u8; N]; 2], at: __m512i, above: &[u64]) -> [[__m512i; 4]; 2] {
    let (low, high) = (bytes_at(&grid[0], at, above), bytes_at(&grid[1], at, above));
    // Eight points in each 16 bytes: those of the first vector, then of the second, sixteen of them after another.
    let eights = [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)];
    // A point for each eight bytes, as the matrix that picks two bits of it for each of them: its rows, of which the last
    // makes the lowest bit, are the point's bytes. The other rows make bits that change nothing.
    let rows = |point: i64| (2 * point) << 56 | (2 * point + 1) << 48;
    let spread = _mm512_setr_epi64(rows(0), rows(1), rows(2), rows(3), rows(4), rows(5), rows(6), rows(7));
    let each = _mm512_set1_epi64(0x8040_2010_0804_0201_u64 as i64);
    let levels = _mm512_set1_epi64(LEVELS.1);
    let mut found = [[_mm512_setzero_si512(); 4]; 2];
    for (i, found) in found.as_flattened_mut().iter_mut().enumerate() {
        let from = _mm512_set1_epi64(0x1010_0000_0000_0000 * (i as i64 / 2));
        let points = _mm512_permutexvar_epi8(_mm512_add_epi8(spread, from), eights[i % 2]);
        let numbers = _mm512_gf2p8affine_epi64_epi8::<0>(each, points);
        *found = _mm512_gf2p8affine_epi64_epi8::<{ LEVELS.0 }>(numbers, levels);
    }
    found
}

/// Two blocks of IQ2_XXS.
///
/// # Safety
/// Each of `blocks` is valid for reading 66 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq2_xxs(blocks: [*const u8; 2]) -> [Levels; 2] {
    // SAFETY: 64 bytes follow the half.
    let (a, b) = unsafe { (_mm512_loadu_si512(blocks[0].add(2).cast()), _mm512_loadu_si512(blocks[1].add(2).cast())) };
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let at = _mm512_permutex2var_epi32(a, even, b);
    let words = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
    levels(points_of_eight(&IQ2_XXS, at, &[]), masks(even_signs(sevens(words))))
}

/// Two blocks of IQ2_XS.
///
/// # Safety
/// Each of `blocks` is valid for reading 74 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq2_xs(blocks: [*const u8; 2]) -> [Levels; 2] {
    // SAFETY: 32 words follow the half.
    let (a, b) = unsafe { (_mm512_loadu_si512(blocks[0].add(2).cast()), _mm512_loadu_si512(blocks[1].add(2).cast())) };
    let from = |first: i64| 0x0e0c_0a08_0604_0200 + 0x1010_1010_1010_1010 * first;
    let even = _mm512_setr_epi64(from(0), from(1), from(2), from(3), from(4), from(5), from(6), from(7));
    let at = _mm512_permutex2var_epi8(a, even, b);
    // Seven signs above the ninth bit of the point.
    let high = _mm512_permutex2var_epi8(a, _mm512_add_epi8(even, _mm512_set1_epi8(1)), b);
    let ninth = _mm512_test_epi8_mask(high, _mm512_set1_epi8(1));
    let signs = _mm512_and_si512(_mm512_srli_epi16::<1>(high), _mm512_set1_epi8(127));
    levels(points_of_eight(&IQ2_XS, at, &[ninth]), masks(even_signs(signs)))
}

/// Two blocks of IQ2_S.
///
/// # Safety
/// Each of `blocks` is valid for reading 82 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq2_s(blocks: [*const u8; 2]) -> [Levels; 2] {
    // SAFETY: 32 bytes of points, 32 of signs and 8 of the points' high bits follow the half.
    let (at, minus, [a, b]) = unsafe {
        (
            both(load(blocks[0].add(2)), load(blocks[1].add(2))),
            blocks.map(|block| block.add(34).cast::<[u64; 4]>().read_unaligned()),
            blocks.map(|block| block.add(66).cast::<i64>().read_unaligned()),
        )
    };
    // Two bits of 64 for each point.
    let each = |first: i64| 0x0e0c_0a08_0604_0200 + 0x1010_1010_1010_1010 * first;
    let shifts = _mm512_setr_epi64(each(0), each(1), each(2), each(3), each(0), each(1), each(2), each(3));
    let high = _mm512_multishift_epi64_epi8(shifts, both(_mm256_set1_epi64x(a), _mm256_set1_epi64x(b)));
    let bit = |bit| _mm512_set1_epi8(bit);
    let above = [_mm512_test_epi8_mask(high, bit(1)), _mm512_test_epi8_mask(high, bit(2))];
    levels(points_of_eight(&IQ2_S, at, &above), minus)
}

#[inline]
fn levels([a, b]: [[__m512i; 4]; 2], [c, d]: [[u64; 4]; 2]) -> [Levels; 2] {
    [Levels { levels: a, minus: c }, Levels { levels: b, minus: d }]
}

/// The first two levels of each point as the nibbles of a byte, and the last two.
const fn nibbles_of<const N: usize>(grid: &[u16; N], levels: [u8; 8]) -> [[u8; N]; 2] {
    let mut nibbles = [[0; N]; 2];
    let mut point = 0;
    while point < N {
        let mut i = 0;
        while i < 4 {
            nibbles[i / 2][point] |= levels[(grid[point] >> (3 * i) & 7) as usize] << (4 * (i % 2));
            i += 1;
        }
        point += 1;
    }
    nibbles
}

/// As indices into [`tables::IQ3_XXS`].
static IQ3_XXS: [[u8; 256]; 2] = nibbles_of(&grids::IQ3_XXS, [0, 1, 2, 3, 4, 5, 6, 7]);
static IQ3_S: [[u8; 512]; 2] = nibbles_of(&grids::IQ3_S, tables::IQ3_S);

/// The nibbles of 64 points of IQ3 in the order of the columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,gfni")]
fn points_of_four<const N: usize>(grid: &[[u8; N]; 2], at: __m512i, above: &[u64]) -> [__m512i; 4] {
    // Joining bytes works within each 16: so these get four points of each of the four vectors that it makes.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let a = _mm512_permutexvar_epi32(order, bytes_at(&grid[0], at, above));
    let b = _mm512_permutexvar_epi32(order, bytes_at(&grid[1], at, above));
    let nibble = _mm512_set1_epi8(15);
    let mut nibbles = [_mm512_setzero_si512(); 4];
    for (i, pairs) in [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)].into_iter().enumerate() {
        let low = _mm512_and_si512(pairs, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(pairs), nibble);
        (nibbles[2 * i], nibbles[2 * i + 1]) = (_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high));
    }
    nibbles
}

/// Two blocks of IQ3_XXS.
///
/// # Safety
/// Each of `blocks` is valid for reading 98 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq3_xxs(blocks: [*const u8; 2]) -> [Levels; 2] {
    // SAFETY: 64 bytes of points and 32 of signs follow the half; the table has 8 bytes.
    let (at, words, table) = unsafe {
        (
            [_mm512_loadu_si512(blocks[0].add(2).cast()), _mm512_loadu_si512(blocks[1].add(2).cast())],
            both(load(blocks[0].add(66)), load(blocks[1].add(66))),
            _mm512_broadcast_i32x4(_mm_loadl_epi64(tables::IQ3_XXS.as_ptr().cast())),
        )
    };
    let mut points = [[_mm512_setzero_si512(); 4]; 2];
    for (points, at) in points.iter_mut().zip(at) {
        *points = points_of_four(&IQ3_XXS, at, &[]);
        for point in points {
            *point = _mm512_shuffle_epi8(table, *point);
        }
    }
    levels(points, masks(even_signs(sevens(words))))
}

/// Two blocks of IQ3_S.
///
/// # Safety
/// Each of `blocks` is valid for reading 110 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq3_s(blocks: [*const u8; 2]) -> [Levels; 2] {
    let (mut points, mut minus) = ([[_mm512_setzero_si512(); 4]; 2], [[0; 4]; 2]);
    for ((points, minus), block) in points.iter_mut().zip(&mut minus).zip(blocks) {
        // SAFETY: 64 bytes of points, 8 of their high bits and 32 of signs follow the half.
        let (at, ninth) = unsafe {
            *minus = block.add(74).cast::<[u64; 4]>().read_unaligned();
            (_mm512_loadu_si512(block.add(2).cast()), block.add(66).cast::<u64>().read_unaligned())
        };
        *points = points_of_four(&IQ3_S, at, &[ninth]);
    }
    levels(points, minus)
}

/// Whether this processor gathers from memory faster than it loads one by one. Those that do not, or whose microcode
/// makes it slow to keep what it gathers from leaking, have no AVX-VNNI.
#[inline]
pub(in crate::kernel::matmul) fn gathers() -> bool {
    is_x86_feature_detected!("avxvnni")
}

/// Codes of IQ1: points of three high bits at the high byte of each word of `high`, two more for each point whose word
/// has no bit of `down`.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn iq1(low: __m256i, high: __m512i, down: i16) -> [__m512i; 4] {
    let at = _mm512_or_si512(_mm512_cvtepu8_epi16(low), _mm512_and_si512(high, _mm512_set1_epi16(0x700)));
    let up = _mm512_testn_epi16_mask(high, _mm512_set1_epi16(down));
    let eights = [
        _mm512_castsi512_si128(at),
        _mm512_extracti32x4_epi32::<1>(at),
        _mm512_extracti32x4_epi32::<2>(at),
        _mm512_extracti32x4_epi32::<3>(at),
    ];
    let mut codes = [_mm512_setzero_si512(); 4];
    for (i, codes) in codes.iter_mut().enumerate() {
        let at = _mm256_cvtepu16_epi32(eights[i]);
        // SAFETY: indices of eleven bits.
        let points = unsafe { _mm512_i32gather_epi64::<8>(at, IQ1.as_ptr().cast()) };
        *codes = _mm512_mask_add_epi64(points, (up >> (8 * i)) as u8, points, _mm512_set1_epi8(2));
    }
    codes
}

/// The codes of IQ1_S.
///
/// # Safety
/// `block` is valid for reading 50 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq1_s(block: *const u8) -> [__m512i; 4] {
    // SAFETY: 32 bytes and 8 words follow the half.
    let (low, high) = unsafe { (load(block.add(2)), load128(block.add(34))) };
    // Of each word four times three bits to the high bytes of four, its own high byte to their low ones.
    let shifts = _mm512_set1_epi64(0x0908_0608_0308_0008);
    iq1(low, _mm512_multishift_epi64_epi8(shifts, _mm512_cvtepu16_epi64(high)), 0x80)
}

/// The codes of IQ1_M.
///
/// # Safety
/// `block` is valid for reading 56 bytes; the processor has the instruction set.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
pub(in crate::kernel::matmul) unsafe fn iq1_m(block: *const u8) -> [__m512i; 4] {
    // SAFETY: 32 bytes and 8 words start the block.
    let (low, high) = unsafe { (load(block), load128(block.add(32))) };
    // Of each word four times four bits to the high bytes of four.
    let shifts = _mm512_set1_epi64(0x0c00_0800_0400_0000);
    iq1(low, _mm512_multishift_epi64_epi8(shifts, _mm512_cvtepu16_epi64(high)), 0x800)
}
