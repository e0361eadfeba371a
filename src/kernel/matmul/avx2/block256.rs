//! Blocks of 256 taken apart into bytes: codes in the order of the columns, scales and mins.

use super::block32::halves;
use super::{and, halves_together, load, load128};
use crate::kernel::matmul::avx512::points::Levels;
use crate::kernel::matmul::avx512::ternary;
use std::arch::x86_64::*;

/// What the kernels for tiles need to know of a format: formats of one kind share them.
pub(in super::super) trait Kind256 {
    /// Elements of a sub-block with one scale.
    const SUB: usize;
    const MINS: bool;
    /// Whether codes have an offset.
    const OFFSET: bool;
    /// Signed codes are never -128.
    const SIGNED: bool;
    /// How many products of two codes each with two activations can be added in 16 bits.
    const FLUSH: usize;
    /// The same for instruction sets that add in 32 bits.
    type Wide: Kind256;
}

/// Unsigned codes with mins.
pub(in super::super) struct Mins<const SUB: usize, const FLUSH: usize>;
/// Unsigned codes with an offset.
pub(in super::super) struct Offset<const SUB: usize, const FLUSH: usize>;
pub(in super::super) struct Signed<const SUB: usize>;

macro_rules! kind {
    ($name:ident<$($parameter:ident),*>, $wide:ty, mins $mins:literal, offset $offset:literal, signed $signed:literal,
     flush $flush:expr) => {
        impl<$(const $parameter: usize),*> Kind256 for $name<$($parameter),*> {
            const SUB: usize = SUB;
            const MINS: bool = $mins;
            const OFFSET: bool = $offset;
            const SIGNED: bool = $signed;
            const FLUSH: usize = $flush;
            type Wide = $wide;
        }
    };
}
kind!(Mins<SUB, FLUSH>, Mins<SUB, 1>, mins true, offset false, signed false, flush FLUSH);
kind!(Offset<SUB, FLUSH>, Offset<SUB, 1>, mins false, offset true, signed false, flush FLUSH);
kind!(Signed<SUB>, Signed<SUB>, mins false, offset false, signed true, flush 1);

/// How products of scales and codes, from which the offset is taken off, become bytes.
pub(in super::super) trait ScaledCodes {
    /// Whether they need two bytes; otherwise one with a sign.
    const TWO: bool;
    /// Whether the bytes are their negatives, since one of them is 128.
    const NEGATED: bool;
    /// Whether the bytes are their halves, rounded down: all of them are odd.
    const HALVED: bool;
}

pub(in super::super) struct TwoBytes;
pub(in super::super) struct OneByte;
pub(in super::super) struct NegatedByte;
pub(in super::super) struct HalvedByte;

macro_rules! scaled {
    ($name:ident, two $two:literal, negated $negated:literal, halved $halved:literal) => {
        impl ScaledCodes for $name {
            const TWO: bool = $two;
            const NEGATED: bool = $negated;
            const HALVED: bool = $halved;
        }
    };
}
scaled!(TwoBytes, two true, negated false, halved false);
scaled!(OneByte, two false, negated false, halved false);
scaled!(NegatedByte, two false, negated true, halved false);
scaled!(HalvedByte, two false, negated false, halved true);

/// What the kernels need to know of a format with blocks of 256.
pub(in super::super) trait Block256 {
    type Kind: Kind256;
    type Scaled: ScaledCodes;
    const BYTES: usize;
    /// Where the half `d` lies; `dmin` follows it in formats with mins.
    const D: usize;
    /// What the half is multiplied with, a power of two.
    const UNIT: f32 = 1.0;
    /// What is to be taken off the unsigned codes of [`Self::codes`]; zero where they are signed or have mins.
    const OFFSET: i32;
    const SUB: usize = Self::Kind::SUB;
    const MINS: bool = Self::Kind::MINS;
    const SIGNED: bool = Self::Kind::SIGNED;
    const FLUSH: usize = Self::Kind::FLUSH;
    /// Whether all scales are one.
    const UNSCALED: bool = false;
    /// Whether AVX-512 takes blocks apart in a way of its own.
    const WIDE: bool = false;
    /// Whether one instruction for a product and the addition of its result makes decoding faster.
    const FUSES: bool = false;
    /// Whether codes are levels with signs beside them, which [`Self::wide_levels`] has apart.
    const SIGNS: bool = false;

    /// All codes of a block.
    ///
    /// # Safety
    /// `block` is valid for reading `BYTES`; the processor has AVX2.
    unsafe fn codes(block: *const u8) -> [__m256i; 8];

    /// As [`Self::codes`], two sub-blocks of 32 to a vector.
    ///
    /// # Safety
    /// As [`Self::codes`]; the processor has AVX-512 with VBMI.
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn wide_codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        wide(unsafe { Self::codes(block) })
    }

    /// Magnitudes and signs of two blocks, in formats with [`Self::SIGNS`].
    ///
    /// # Safety
    /// As [`Self::wide_codes`], for both blocks.
    unsafe fn wide_levels(_blocks: [*const u8; 2]) -> [Levels; 2] {
        unreachable!("codes without signs of their own")
    }

    /// The codes of the sub-blocks of 32 `2 * pair` and `2 * pair + 1`: the first sixteen of both, then their last
    /// ones.
    ///
    /// # Safety
    /// As [`Self::codes`].
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn halves_of_codes(block: *const u8, pair: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        let codes = unsafe { Self::codes(block) };
        halves_together(codes[2 * pair], codes[2 * pair + 1])
    }

    /// Scales and mins as signed bytes, one per sub-block, from the lowest byte on.
    ///
    /// # Safety
    /// As [`Self::codes`].
    unsafe fn scales(block: *const u8) -> [__m128i; 2];

    /// `d` of four blocks.
    ///
    /// # Safety
    /// As [`Self::codes`], for each block; the processor has F16C.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn d(blocks: [*const u8; 4]) -> __m128 {
        // SAFETY: the halves lie in the blocks.
        let d = unsafe { halves(blocks.map(|block| block.wrapping_add(Self::D))) };
        if Self::UNIT == 1.0 { d } else { _mm_mul_ps(d, _mm_set1_ps(Self::UNIT)) }
    }

    /// `dmin` of four blocks, in formats with mins.
    ///
    /// # Safety
    /// As [`Self::d`].
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn dmin(blocks: [*const u8; 4]) -> __m128 {
        // SAFETY: the halves lie in the blocks.
        unsafe { halves(blocks.map(|block| block.wrapping_add(Self::D + 2))) }
    }
}

pub(in super::super) struct Q2K;
pub(in super::super) struct Q3K;
pub(in super::super) struct Q4K;
pub(in super::super) struct Q5K;
pub(in super::super) struct Q6K;
pub(in super::super) struct Iq4Xs;
pub(in super::super) struct Tq1_0;
pub(in super::super) struct Tq2_0;

/// Two vectors in each.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
pub(super) fn wide([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> [__m512i; 4] {
    let both = |low, high| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    [both(a, b), both(c, d), both(e, f), both(g, h)]
}

/// Bits `SHIFT..` of every byte that `mask` keeps.
#[inline]
#[target_feature(enable = "avx2")]
fn bits<const SHIFT: i32>(v: __m256i, mask: i8) -> __m256i {
    and(_mm256_srli_epi16::<SHIFT>(v), mask)
}

/// The low, then the high nibbles.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(v: __m256i) -> [__m256i; 2] {
    [and(v, 15), bits::<4>(v, 15)]
}

/// Four-bit codes of eight sub-blocks, each 32 bytes one in their low nibbles and the next in their high ones.
///
/// # Safety
/// `p` is valid for reading 128 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sub_blocks(p: *const u8) -> [__m256i; 8] {
    // SAFETY: the caller's promise.
    let (a, b, c, d) = unsafe { (load(p), load(p.add(32)), load(p.add(64)), load(p.add(96))) };
    let ([a, b], [c, d], [e, f], [g, h]) = (nibbles(a), nibbles(b), nibbles(c), nibbles(d));
    [a, b, c, d, e, f, g, h]
}

/// Two-bit codes of eight sub-blocks, each 32 bytes four of them from their lowest bits on.
///
/// # Safety
/// `p` is valid for reading 64 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pairs_of_bits(p: *const u8) -> [__m256i; 8] {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (load(p), load(p.add(32))) };
    [
        and(a, 3),
        bits::<2>(a, 3),
        bits::<4>(a, 3),
        bits::<6>(a, 3),
        and(b, 3),
        bits::<2>(b, 3),
        bits::<4>(b, 3),
        bits::<6>(b, 3),
    ]
}

/// Sixteen nibbles in order, each doubled and one more.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd_nibbles(packed: i64) -> __m128i {
    let packed = _mm_cvtsi64_si128(packed);
    let nibbles = _mm_and_si128(_mm_unpacklo_epi8(packed, _mm_srli_epi16::<4>(packed)), _mm_set1_epi8(15));
    _mm_or_si128(_mm_add_epi8(nibbles, nibbles), _mm_set1_epi8(1))
}

/// The highest four bits of eight words, each doubled and one more, as the first eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn odd_of_words(words: __m256i) -> __m128i {
    let odd = _mm256_or_si256(_mm256_srli_epi32::<27>(words), _mm256_set1_epi32(1));
    let odd = _mm_packs_epi32(_mm256_castsi256_si128(odd), _mm256_extracti128_si256::<1>(odd));
    _mm_packs_epi16(odd, odd)
}

/// # Safety
/// `p` is valid for reading four bytes.
#[inline]
unsafe fn word(p: *const u8) -> u32 {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { p.cast::<u32>().read_unaligned() }
}

/// Eight six-bit scales and eight six-bit mins from the twelve bytes at `p`, four bytes at a time.
///
/// # Safety
/// `p` is valid for reading twelve bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn six_bits(p: *const u8) -> [__m128i; 2] {
    // SAFETY: the caller's promise.
    let (a, b, c) = unsafe { (word(p), word(p.add(4)), word(p.add(8))) };
    let scales = (a & 0x3f3f_3f3f) as u64 | ((c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030) as u64) << 32;
    let mins = (b & 0x3f3f_3f3f) as u64 | ((c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030) as u64) << 32;
    [_mm_cvtsi64_si128(scales as i64), _mm_cvtsi64_si128(mins as i64)]
}

impl Block256 for Q2K {
    type Kind = Mins<16, 4>;
    type Scaled = OneByte;
    const BYTES: usize = 84;
    const D: usize = 80;
    const OFFSET: i32 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 64 bytes of codes follow the 16 of the scales.
        unsafe { pairs_of_bits(block.add(16)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: the block starts with 16 bytes of scales and mins.
        let both = unsafe { load128(block) };
        let low = _mm_set1_epi8(15);
        [_mm_and_si128(both, low), _mm_and_si128(_mm_srli_epi16::<4>(both), low)]
    }
}

impl Block256 for Q3K {
    type Kind = Offset<16, 4>;
    type Scaled = NegatedByte;
    const BYTES: usize = 110;
    const D: usize = 108;
    const OFFSET: i32 = 4;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 bytes of high bits and 64 of low ones start the block.
        let (high, a, b) = unsafe { (load(block), load(block.add(32)), load(block.add(64))) };
        // Bit n of a byte of `high` becomes bit 2.
        [
            _mm256_or_si256(and(a, 3), and(_mm256_slli_epi16::<2>(high), 4)),
            _mm256_or_si256(bits::<2>(a, 3), and(_mm256_slli_epi16::<1>(high), 4)),
            _mm256_or_si256(bits::<4>(a, 3), and(high, 4)),
            _mm256_or_si256(bits::<6>(a, 3), bits::<1>(high, 4)),
            _mm256_or_si256(and(b, 3), bits::<2>(high, 4)),
            _mm256_or_si256(bits::<2>(b, 3), bits::<3>(high, 4)),
            _mm256_or_si256(bits::<4>(b, 3), bits::<4>(high, 4)),
            _mm256_or_si256(bits::<6>(b, 3), bits::<5>(high, 4)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: the twelve bytes of scales start at 96.
        let (a, b, c) = unsafe { (word(block.add(96)), word(block.add(100)), word(block.add(104))) };
        let scales = _mm_set_epi32(
            (b >> 4 & 0x0f0f_0f0f | c >> 2 & 0x3030_3030) as i32,
            (a >> 4 & 0x0f0f_0f0f | c & 0x3030_3030) as i32,
            (b & 0x0f0f_0f0f | c << 2 & 0x3030_3030) as i32,
            (a & 0x0f0f_0f0f | c << 4 & 0x3030_3030) as i32,
        );
        [_mm_sub_epi8(scales, _mm_set1_epi8(32)), _mm_setzero_si128()]
    }
}

impl Block256 for Q4K {
    type Kind = Mins<32, 8>;
    type Scaled = TwoBytes;
    const BYTES: usize = 144;
    const D: usize = 0;
    const OFFSET: i32 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 128 bytes of codes follow 16 of scales.
        unsafe { sub_blocks(block.add(16)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: twelve bytes of scales follow the two halves.
        unsafe { six_bits(block.add(4)) }
    }
}

impl Block256 for Q5K {
    type Kind = Mins<32, 4>;
    type Scaled = TwoBytes;
    const BYTES: usize = 176;
    const D: usize = 0;
    const OFFSET: i32 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: 32 bytes of high bits and 128 of low ones follow 16 of scales.
        let (high, [a, b, c, d, e, f, g, h]) = unsafe { (load(block.add(16)), sub_blocks(block.add(48))) };
        // Bit n of a byte of `high` becomes bit 4 of sub-block n.
        [
            _mm256_or_si256(a, and(_mm256_slli_epi16::<4>(high), 16)),
            _mm256_or_si256(b, and(_mm256_slli_epi16::<3>(high), 16)),
            _mm256_or_si256(c, and(_mm256_slli_epi16::<2>(high), 16)),
            _mm256_or_si256(d, and(_mm256_slli_epi16::<1>(high), 16)),
            _mm256_or_si256(e, and(high, 16)),
            _mm256_or_si256(f, bits::<1>(high, 16)),
            _mm256_or_si256(g, bits::<2>(high, 16)),
            _mm256_or_si256(h, bits::<3>(high, 16)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: twelve bytes of scales follow the two halves.
        unsafe { six_bits(block.add(4)) }
    }
}

impl Block256 for Q6K {
    type Kind = Offset<16, 2>;
    type Scaled = TwoBytes;
    const BYTES: usize = 210;
    const D: usize = 208;
    const OFFSET: i32 = 32;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mut codes = [_mm256_setzero_si256(); 8];
        for half in 0..2 {
            // SAFETY: the block starts with 128 bytes of low bits, then 64 of high ones.
            let (a, b, high) = unsafe {
                (load(block.add(64 * half)), load(block.add(64 * half + 32)), load(block.add(128 + 32 * half)))
            };
            let ([a_low, a_high], [b_low, b_high]) = (nibbles(a), nibbles(b));
            codes[4 * half] = _mm256_or_si256(a_low, and(_mm256_slli_epi16::<4>(high), 48));
            codes[4 * half + 1] = _mm256_or_si256(b_low, and(_mm256_slli_epi16::<2>(high), 48));
            codes[4 * half + 2] = _mm256_or_si256(a_high, and(high, 48));
            codes[4 * half + 3] = _mm256_or_si256(b_high, bits::<2>(high, 48));
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: 16 bytes of scales start at 192.
        [unsafe { load128(block.add(192)) }, _mm_setzero_si128()]
    }
}

impl Block256 for Iq4Xs {
    type Kind = Signed<32>;
    type Scaled = TwoBytes;
    const BYTES: usize = 136;
    const D: usize = 0;
    const OFFSET: i32 = 0;
    const FUSES: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        let mut codes = [_mm256_setzero_si256(); 8];
        for (sub, codes) in codes.iter_mut().enumerate() {
            // SAFETY: 128 bytes of codes follow eight bytes of scales.
            *codes = unsafe { super::block32::iq4_codes(block.add(8 + 16 * sub)) };
        }
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn halves_of_codes(block: *const u8, pair: usize) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe {
            let codes = block.add(8 + 32 * pair);
            super::block32::halves_of_iq4_codes(codes, codes.add(16))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(block: *const u8) -> [__m128i; 2] {
        // SAFETY: eight bytes start the block.
        let (head, low) = unsafe { (word(block), word(block.add(4))) };
        // Nibble n of `low` is the low part of scale n: even ones to bytes 0, 2, 4, 6, odd ones between them.
        let low = _mm_cvtsi32_si128(low as i32);
        let nibbles = _mm_and_si128(_mm_unpacklo_epi8(low, _mm_srli_epi16::<4>(low)), _mm_set1_epi8(15));
        // Two bits for each scale, in order: one 32-bit lane each, shifted into place, packed to bytes.
        let pairs =
            _mm256_srlv_epi32(_mm256_set1_epi32((head >> 16) as i32), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
        let pairs = _mm256_slli_epi32::<4>(_mm256_and_si256(pairs, _mm256_set1_epi32(3)));
        let pairs = _mm_packs_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let pairs = _mm_packs_epi16(pairs, pairs);
        [_mm_sub_epi8(_mm_or_si128(nibbles, pairs), _mm_set1_epi8(32)), _mm_setzero_si128()]
    }
}

impl Block256 for Tq1_0 {
    type Kind = Offset<32, 8>;
    type Scaled = OneByte;
    const BYTES: usize = 54;
    const D: usize = 52;
    const OFFSET: i32 = 1;
    const UNSCALED: bool = true;
    const WIDE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: the block starts with 32, 16 and 4 bytes of codes.
        let (a, b, c) = unsafe { (load(block), load128(block.add(32)), word(block.add(48))) };
        // A byte is a fraction to the base of 3: its first digit is what overflows when it is tripled.
        let digit = |v: __m256i| {
            let reaches = |least: u8| {
                let least = _mm256_set1_epi8(least as i8);
                _mm256_cmpeq_epi8(_mm256_max_epu8(v, least), v)
            };
            _mm256_sub_epi8(_mm256_setzero_si256(), _mm256_add_epi8(reaches(86), reaches(171)))
        };
        let tripled = |v: __m256i| _mm256_add_epi8(_mm256_add_epi8(v, v), v);
        let mut codes = [_mm256_setzero_si256(); 8];
        let mut rest = a;
        for codes in &mut codes[..5] {
            *codes = digit(rest);
            rest = tripled(rest);
        }
        // Of 16 bytes two digits make 32 codes; with the fifth go the four of the last four bytes.
        let third = |v: __m128i| _mm_add_epi8(_mm_add_epi8(v, v), v);
        let tails = {
            let first = _mm_cvtsi32_si128(c as i32);
            let (second, last) = (third(first), third(third(first)));
            _mm_unpacklo_epi64(_mm_unpacklo_epi32(first, second), _mm_unpacklo_epi32(last, third(last)))
        };
        let second = third(b);
        rest = _mm256_set_m128i(second, b);
        codes[5] = digit(rest);
        rest = tripled(tripled(rest));
        codes[6] = digit(rest);
        rest = tripled(tripled(rest));
        codes[7] = digit(_mm256_inserti128_si256::<1>(rest, tails));
        codes
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn wide_codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe { ternary::tq1_0(block) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(_: *const u8) -> [__m128i; 2] {
        [_mm_set1_epi8(1), _mm_setzero_si128()]
    }
}

impl Block256 for Tq2_0 {
    type Kind = Offset<32, 8>;
    type Scaled = OneByte;
    const BYTES: usize = 66;
    const D: usize = 64;
    const OFFSET: i32 = 1;
    const UNSCALED: bool = true;
    const WIDE: bool = true;
    const FUSES: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8) -> [__m256i; 8] {
        // SAFETY: the block starts with 64 bytes of codes.
        unsafe { pairs_of_bits(block) }
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn wide_codes(block: *const u8) -> [__m512i; 4] {
        // SAFETY: the caller's promise.
        unsafe { ternary::tq2_0(block) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn scales(_: *const u8) -> [__m128i; 2] {
        [_mm_set1_epi8(1), _mm_setzero_si128()]
    }
}
