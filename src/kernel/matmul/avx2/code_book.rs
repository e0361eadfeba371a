//! IQ1, IQ2 and IQ3 taken apart: points of a grid are looked up in tables that stay in the first cache, eight or four codes
//! at a time, and take their signs.

use super::block32::each_bit;
use super::block256::{Block256, HalvedByte, Offset, TwoBytes, odd_nibbles, odd_of_words, wide};
use super::{and, load};
use crate::kernel::matmul::avx512::points::{self, Levels};
use crate::kernel::matmul::look_up::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use std::arch::x86_64::*;

pub(in super::super) struct Iq1S;
pub(in super::super) struct Iq1M;
pub(in super::super) struct Iq2Xxs;
pub(in super::super) struct Iq2Xs;
pub(in super::super) struct Iq2S;
pub(in super::super) struct Iq3Xxs;
pub(in super::super) struct Iq3S;

/// Four points of eight.
#[inline]
#[target_feature(enable = "avx2")]
fn four_points<const N: usize>(table: &[u64; N], at: impl Fn(usize) -> usize) -> __m256i {
    let point = |n| table[at(n) % N] as i64;
    _mm256_setr_epi64x(point(0), point(1), point(2), point(3))
}

/// Eight points of four.
#[inline]
#[target_feature(enable = "avx2")]
fn eight_points<const N: usize>(table: &[u32; N], at: impl Fn(usize) -> usize) -> __m256i {
    let point = |n| table[at(n) % N] as i32;
    _mm256_setr_epi32(point(0), point(1), point(2), point(3), point(4), point(5), point(6), point(7))
}

/// `levels`, negative where `signs` has a bit, plus `offset`.
#[inline]
#[target_feature(enable = "avx2")]
fn signed(levels: __m256i, signs: u32, offset: i32) -> __m256i {
    let minus = each_bit(signs as i32);
    _mm256_add_epi8(_mm256_xor_si256(levels, minus), _mm256_sub_epi8(_mm256_set1_epi8(offset as i8), minus))
}

/// Bytes of seven bits with an eighth that makes the number of ones even, as one word for each 32 signs.
#[inline]
#[target_feature(enable = "avx2")]
fn even_signs(v: __m256i) -> [u32; 8] {
    let folded = and(_mm256_xor_si256(v, _mm256_srli_epi16::<4>(v)), 15);
    let odd = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0,
    ));
    words(_mm256_or_si256(v, _mm256_shuffle_epi8(odd, folded)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn words(v: __m256i) -> [u32; 8] {
    let mut words = [0; 8];
    // SAFETY: room for 32 bytes.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), v) };
    words
}

/// Four times seven bits of every 32, each in a byte.
#[inline]
#[target_feature(enable = "avx2")]
fn sevens(v: __m256i) -> __m256i {
    let part = |v, mask| _mm256_and_si256(v, _mm256_set1_epi32(mask));
    let low = _mm256_or_si256(part(v, 0x7f), part(_mm256_slli_epi32::<1>(v), 0x7f00));
    let high =
        _mm256_or_si256(part(_mm256_slli_epi32::<2>(v), 0x7f_0000), part(_mm256_slli_epi32::<3>(v), 0x7f00_0000));
    _mm256_or_si256(low, high)
}

/// The eight words of an IQ2_XXS block that hold signs and scales.
///
/// # Safety
/// `block` is valid for reading 66 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn iq2_xxs_words(block: *const u8) -> __m256i {
    // SAFETY: 64 bytes follow the half.
    let (a, b) = unsafe { (_mm256_castsi256_ps(load(block.add(2))), _mm256_castsi256_ps(load(block.add(34)))) };
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)))
}

/// Codes by [`points`], where the processor gathers fast.
macro_rules! wide_codes {
    ($points:ident) => {
        #[inline]
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
        unsafe fn wide_codes(block: *const u8) -> [__m512i; 4] {
            // SAFETY: the caller's promise.
            unsafe { if points::gathers() { points::$points(block) } else { wide(Self::codes(block)) } }
        }
    };
}

/// Levels by [`points`].
macro_rules! wide_levels {
    ($points:ident) => {
        #[inline]
        #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
        unsafe fn wide_levels(blocks: [*const u8; 2]) -> [Levels; 2] {
            // SAFETY: the caller's promise.
            unsafe { points::$points(blocks) }
        }
    };
}

impl Block256 for Iq1S {
    type Kind = Offset<32, 4>;
    type Scaled = HalvedByte;
    const BYTES: usize = 50;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const OFFSET: i32 = 9;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 bytes and 8 words follow the half.
        let (low, high) =
            unsafe { (block.add(2).cast::<[u8; 32]>().read(), block.add(34).cast::<[u16; 8]>().read_unaligned()) };
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            let high = high[sub] as usize;
            let points = four_points(&IQ1, |n| low[4 * sub + n] as usize | (high << 8 >> (3 * n)) & 0x700);
            let shift = if high >> 15 == 1 { 0 } else { 2 };
            *codes = _mm256_add_epi8(points, _mm256_set1_epi8(shift));
        }
        codes
    }

    wide_codes!(iq1_s);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 8 words lie at 34.
        let high = unsafe { super::load128(block.add(34)) };
        let three = _mm_and_si128(_mm_srli_epi16::<11>(high), _mm_set1_epi16(14));
        let odd = _mm_or_si128(three, _mm_set1_epi16(1));
        [_mm_packs_epi16(odd, odd), _mm_setzero_si128()]
    }
}

impl Block256 for Iq1M {
    type Kind = Offset<16, 4>;
    type Scaled = HalvedByte;
    const BYTES: usize = 56;
    const D: usize = 48;
    const UNIT: f32 = 0.125;
    const OFFSET: i32 = 9;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 bytes and 8 words start the block.
        let (low, high) =
            unsafe { (block.cast::<[u8; 32]>().read(), block.add(32).cast::<[u16; 8]>().read_unaligned()) };
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            let high = high[sub] as usize;
            let points = four_points(&IQ1, |n| low[4 * sub + n] as usize | (high << 8 >> (4 * n)) & 0x700);
            let bit = _mm256_setr_epi64x(0x8, 0x80, 0x800, 0x8000);
            let up = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(high as i64), bit), _mm256_setzero_si256());
            *codes = _mm256_add_epi8(points, and(up, 2));
        }
        codes
    }

    wide_codes!(iq1_m);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 8 bytes lie at 48.
        let packed = unsafe { block.add(48).cast::<i64>().read_unaligned() };
        // Each word four times, shifted for each of the four scales in it: a product with a power of two keeps what is
        // below the bits wanted above them.
        let each = |from: i8| {
            _mm_setr_epi8(
                from,
                from + 1,
                from,
                from + 1,
                from,
                from + 1,
                from,
                from + 1,
                from + 2,
                from + 3,
                from + 2,
                from + 3,
                from + 2,
                from + 3,
                from + 2,
                from + 3,
            )
        };
        let all = _mm_cvtsi64_si128(packed);
        let shift = _mm_setr_epi16(0x2000, 0x400, 0x80, 0x10, 0x2000, 0x400, 0x80, 0x10);
        let scale = |from| {
            let top = _mm_mullo_epi16(_mm_shuffle_epi8(all, each(from)), shift);
            _mm_or_si128(_mm_and_si128(_mm_srli_epi16::<12>(top), _mm_set1_epi16(14)), _mm_set1_epi16(1))
        };
        [_mm_packs_epi16(scale(0), scale(4)), _mm_setzero_si128()]
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: [*const u8; 4]) -> __m128 {
        let [a, b, c, d] = blocks.map(|block| {
            // SAFETY: 8 bytes lie at 48 of each block.
            let words = unsafe { block.add(Self::D).cast::<u64>().read_unaligned() };
            (words >> 12 & 15 | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000) as i16
        });
        let bits = _mm_setr_epi16(a, b, c, d, 0, 0, 0, 0);
        _mm_mul_ps(_mm_cvtph_ps(bits), _mm_set1_ps(Self::UNIT))
    }
}

impl Block256 for Iq2Xxs {
    type Kind = Offset<32, 1>;
    type Scaled = TwoBytes;
    const BYTES: usize = 66;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const OFFSET: i32 = 43;
    const SIGNS: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 64 bytes follow the half.
        let (packed, words) = unsafe { (block.add(2).cast::<[[u8; 8]; 8]>().read(), iq2_xxs_words(block)) };
        let signs = even_signs(sevens(words));
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            *codes = signed(four_points(&IQ2_XXS, |n| packed[sub][n] as usize), signs[sub], Self::OFFSET);
        }
        codes
    }

    wide_levels!(iq2_xxs);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: the caller's promise.
        [odd_of_words(unsafe { iq2_xxs_words(block) }), _mm_setzero_si128()]
    }
}

impl Block256 for Iq2Xs {
    type Kind = Offset<16, 1>;
    type Scaled = TwoBytes;
    const BYTES: usize = 74;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const OFFSET: i32 = 43;
    const SIGNS: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 words follow the half.
        let (packed, a, b) =
            unsafe { (block.add(2).cast::<[u16; 32]>().read_unaligned(), load(block.add(2)), load(block.add(34))) };
        let sevens = _mm256_packus_epi16(_mm256_srli_epi16::<9>(a), _mm256_srli_epi16::<9>(b));
        let signs = even_signs(_mm256_permute4x64_epi64::<0b11_01_10_00>(sevens));
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            *codes = signed(four_points(&IQ2_XS, |n| packed[4 * sub + n] as usize), signs[sub], Self::OFFSET);
        }
        codes
    }

    wide_levels!(iq2_xs);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 8 bytes of scales lie at 66.
        [odd_nibbles(unsafe { block.add(66).cast::<i64>().read_unaligned() }), _mm_setzero_si128()]
    }
}

impl Block256 for Iq2S {
    type Kind = Offset<16, 1>;
    type Scaled = TwoBytes;
    const BYTES: usize = 82;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const OFFSET: i32 = 43;
    const SIGNS: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 bytes of points, 32 of signs and 8 of the points' high bits follow the half.
        let (low, signs, high) = unsafe {
            (block.add(2).cast::<[u8; 32]>().read(), words(load(block.add(34))), block.add(66).cast::<[u8; 8]>().read())
        };
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            let high = high[sub] as usize;
            let points = four_points(&IQ2_S, |n| low[4 * sub + n] as usize | (high << (8 - 2 * n)) & 0x300);
            *codes = signed(points, signs[sub], Self::OFFSET);
        }
        codes
    }

    wide_levels!(iq2_s);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 8 bytes of scales lie at 74.
        [odd_nibbles(unsafe { block.add(74).cast::<i64>().read_unaligned() }), _mm_setzero_si128()]
    }
}

impl Block256 for Iq3Xxs {
    type Kind = Offset<32, 1>;
    type Scaled = TwoBytes;
    const BYTES: usize = 98;
    const D: usize = 0;
    const UNIT: f32 = 0.25;
    const OFFSET: i32 = 62;
    const SIGNS: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 64 bytes of points and 32 of signs follow the half.
        let (packed, words) = unsafe { (block.add(2).cast::<[[u8; 8]; 8]>().read(), load(block.add(66))) };
        let signs = even_signs(sevens(words));
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            *codes = signed(eight_points(&IQ3_XXS, |n| packed[sub][n] as usize), signs[sub], Self::OFFSET);
        }
        codes
    }

    wide_levels!(iq3_xxs);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 32 bytes of signs and scales lie at 66.
        [odd_of_words(unsafe { load(block.add(66)) }), _mm_setzero_si128()]
    }
}

impl Block256 for Iq3S {
    type Kind = Offset<32, 4>;
    type Scaled = TwoBytes;
    const BYTES: usize = 110;
    const D: usize = 0;
    const OFFSET: i32 = 15;
    const SIGNS: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 64 bytes of points, 8 of their high bits and 32 of signs follow the half.
        let (low, high, signs) = unsafe {
            (
                block.add(2).cast::<[[u8; 8]; 8]>().read(),
                block.add(66).cast::<[u8; 8]>().read(),
                words(load(block.add(74))),
            )
        };
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            let high = high[sub] as usize;
            let points = eight_points(&IQ3_S, |n| low[sub][n] as usize | (high << (8 - n)) & 0x100);
            *codes = signed(points, signs[sub], Self::OFFSET);
        }
        codes
    }

    wide_levels!(iq3_s);

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 4 bytes of scales lie at 106.
        let packed = unsafe { block.add(106).cast::<u32>().read_unaligned() };
        [odd_nibbles(packed as i64), _mm_setzero_si128()]
    }
}
