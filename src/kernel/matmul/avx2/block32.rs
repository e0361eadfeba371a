//! Blocks of 32 taken apart into bytes in the order of the columns, and those of 64 and 128 in parts of 32.

use super::{and, halves_together, load, load128};
use crate::kernel::matmul::look_up::MXFP4_SCALES;
use crate::quant::tables;
use std::arch::x86_64::*;

/// What the kernels for tiles need to know of a format: formats of one kind share them.
pub(in super::super) trait Kind32 {
    const MIN: bool;
    /// Whether each 16 elements have a scale of their own.
    const HALVES: bool;
    /// Whether codes have an offset.
    const OFFSET: bool;
    const SIGNED: bool;
    /// How many products of two codes each with two activations can be added in 16 bits.
    const FLUSH: usize;
    /// The same for instruction sets that add in 32 bits.
    type Wide: Kind32;
}

/// Unsigned codes with a min.
pub(in super::super) struct Min<const FLUSH: usize>;
/// Unsigned codes with an offset.
pub(in super::super) struct Offset<const FLUSH: usize>;
/// The same with a scale for each 16 elements.
pub(in super::super) struct Sixteens<const FLUSH: usize>;
pub(in super::super) struct Signed;

macro_rules! kind {
    ([$($parameter:tt)*] $name:ty, $wide:ty, min $min:literal, halves $halves:literal, offset $offset:literal,
     signed $signed:literal, flush $flush:expr) => {
        impl $($parameter)* Kind32 for $name {
            const MIN: bool = $min;
            const HALVES: bool = $halves;
            const OFFSET: bool = $offset;
            const SIGNED: bool = $signed;
            const FLUSH: usize = $flush;
            type Wide = $wide;
        }
    };
}
kind!([<const F: usize>] Min<F>, Min<1>, min true, halves false, offset false, signed false, flush F);
kind!([<const F: usize>] Offset<F>, Offset<1>, min false, halves false, offset true, signed false, flush F);
kind!([<const F: usize>] Sixteens<F>, Sixteens<1>, min false, halves true, offset true, signed false, flush F);
kind!([] Signed, Signed, min false, halves false, offset false, signed true, flush 1);

/// What the kernels need to know of a format with blocks of 32, 64 or 128.
pub(in super::super) trait Block32 {
    type Kind: Kind32;
    const BYTES: usize;
    /// How many times 32 elements a block has: 1, 2 or 4.
    const PARTS: usize = 1;
    /// Bytes of 256 elements.
    const EIGHT: usize = 8 / Self::PARTS * Self::BYTES;
    /// What is to be taken off the unsigned codes of [`Self::codes`]; zero where they are signed or have a min.
    const OFFSET: i32;
    const MIN: bool = Self::Kind::MIN;
    const HALVES: bool = Self::Kind::HALVES;
    const SIGNED: bool = Self::Kind::SIGNED;
    const FLUSH: usize = Self::Kind::FLUSH;
    /// Whether they are signed and none of them is -128.
    const NEGATABLE: bool = false;
    /// Whether codes are twice a bit.
    const BITS: bool = false;

    /// The codes of part `part` of a block.
    ///
    /// # Safety
    /// `block` is valid for reading `BYTES`, and `part` is less than `PARTS`; the processor has AVX2.
    unsafe fn codes(block: *const u8, part: usize) -> __m256i;

    /// The bits of the parts `part`, an even one, and `part + 1`.
    ///
    /// # Safety
    /// `block` is a whole block, and the codes are bits.
    unsafe fn bits(_block: *const u8, _part: usize) -> u64 {
        0
    }

    /// The first sixteen codes of `part` in one block and then of the part after it, which lies in the block `second`, and
    /// the last sixteen of both.
    ///
    /// # Safety
    /// As [`Self::codes`], for both blocks.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn halves_of_codes(first: *const u8, second: *const u8, part: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { halves_together(Self::codes(first, part), Self::codes(second, (part + 1) % Self::PARTS)) }
    }

    /// All codes of a block of 64.
    ///
    /// # Safety
    /// As [`Self::codes`]; the processor has AVX-512 with VBMI.
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn wide_codes(block: *const u8) -> __m512i {
        // SAFETY: the caller's promise.
        let (first, last) = unsafe { (Self::codes(block, 0), Self::codes(block, 1)) };
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), last)
    }

    /// In formats with [`Self::HALVES`] the scales of each sixteen elements of four blocks of 64: of all blocks the first,
    /// then the second, and in the other vector the third and fourth.
    ///
    /// # Safety
    /// As [`Self::scales`].
    unsafe fn scales_of_sixteens(_blocks: [*const u8; 4]) -> [__m256; 2] {
        unreachable!("no scales for sixteen elements")
    }

    /// Scales of part `part` of four blocks, and their mins, which follow the scales in formats that have any. With
    /// [`Self::HALVES`] the scales of the first sixteen elements and then those of the last.
    ///
    /// # Safety
    /// As [`Self::codes`], for each block; the processor has F16C.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(blocks: [*const u8; 4], _part: usize) -> [__m128; 2] {
        // SAFETY: the caller's promise; the scale is a half at the start.
        unsafe {
            if !Self::MIN {
                return [halves(blocks), _mm_setzero_ps()];
            }
            let [a, b, c, d] = blocks.map(|block| block.cast::<i32>().read_unaligned());
            let both = _mm_setr_epi32(a, b, c, d);
            let both = _mm_shuffle_epi8(both, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
            let both = _mm256_cvtph_ps(both);
            [_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both)]
        }
    }
}

pub(in super::super) struct Q4_0;
pub(in super::super) struct Q4_1;
pub(in super::super) struct Q5_0;
pub(in super::super) struct Q5_1;
pub(in super::super) struct Q8_0;
pub(in super::super) struct Iq4Nl;
pub(in super::super) struct Mxfp4;
pub(in super::super) struct Nvfp4;
pub(in super::super) struct Q1_0;
pub(in super::super) struct Q2_0;

/// The halves at four addresses, as singles.
///
/// # Safety
/// Each address is valid for reading two bytes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(in super::super) unsafe fn halves(at: [*const u8; 4]) -> __m128 {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe {
        let first = _mm_cvtsi32_si128(at[0].cast::<u16>().read_unaligned() as i32);
        let bits = _mm_insert_epi16::<1>(first, at[1].cast::<u16>().read_unaligned() as i32);
        let bits = _mm_insert_epi16::<2>(bits, at[2].cast::<u16>().read_unaligned() as i32);
        _mm_cvtph_ps(_mm_insert_epi16::<3>(bits, at[3].cast::<u16>().read_unaligned() as i32))
    }
}

/// Low nibbles of 16 bytes, then their high nibbles.
///
/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn nibbles(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let packed = unsafe { load128(p) };
    and(_mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed), 15)
}

/// Low nibbles of 16 bytes at `p` and 16 at `q`, then their high nibbles.
///
/// # Safety
/// Both are valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn halves_of_nibbles(p: *const u8, q: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    let packed = unsafe { _mm256_set_m128i(load128(q), load128(p)) };
    [and(packed, 15), and(_mm256_srli_epi16::<4>(packed), 15)]
}

/// Byte j has all bits where `word` has bit j.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn each_bit(word: i32) -> __m256i {
    // Each byte gets the byte of the word that holds its bit, then only that bit.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
    let chosen = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32(word), spread), bit);
    _mm256_cmpeq_epi8(chosen, bit)
}

/// Bit j of the word at `p` as `VALUE` in byte j.
///
/// # Safety
/// `p` is valid for reading four bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn single_bits<const VALUE: i8>(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise; no alignment is needed.
    and(each_bit(unsafe { p.cast::<i32>().read_unaligned() }), VALUE)
}

/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn look_up(table: &[i8; 16], p: *const u8) -> __m256i {
    // SAFETY: the caller's promise; the table has 16 bytes.
    unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table.as_ptr().cast())), nibbles(p)) }
}

/// # Safety
/// As [`halves_of_nibbles`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn look_up_halves(table: &[i8; 16], p: *const u8, q: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise; the table has 16 bytes.
    unsafe {
        let table = _mm256_broadcastsi128_si256(load128(table.as_ptr().cast()));
        let [low, high] = halves_of_nibbles(p, q);
        [_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high)]
    }
}

/// The values of the first halves of 32 four-bit codes each at `p` and `q` in the IQ4 formats, then of the second
/// halves.
///
/// # Safety
/// Both are valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn halves_of_iq4_codes(p: *const u8, q: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe { look_up_halves(&tables::IQ4, p, q) }
}

/// The values of 32 four-bit codes of the IQ4 formats.
///
/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn iq4_codes(p: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { look_up(&tables::IQ4, p) }
}

/// A format whose codes are nibbles at `$codes`, with a fifth bit in the word at `$fifth` if there is one.
macro_rules! nibble_format {
    ($name:ident: $bytes:literal bytes, $kind:ty, offset $offset:literal, codes at $codes:literal $(, fifth bits at $fifth:literal)?) => {
        impl Block32 for $name {
            // Two codes of 4 bits with two activations make up to 3810, of 5 bits 7874.
            type Kind = $kind;
            const BYTES: usize = $bytes;
            const OFFSET: i32 = $offset;

            #[inline]
            #[target_feature(enable = "avx2")]
            unsafe fn codes(block: *const u8, _: usize) -> __m256i {
                // SAFETY: both fields lie in the block.
                unsafe {
                    let codes = nibbles(block.add($codes));
                    $(let codes = _mm256_or_si256(codes, single_bits::<16>(block.add($fifth)));)?
                    codes
                }
            }

            #[inline]
            #[target_feature(enable = "avx2")]
            unsafe fn halves_of_codes(first: *const u8, second: *const u8, _: usize) -> [__m256i; 2] {
                // SAFETY: both fields lie in the blocks.
                unsafe {
                    let codes = halves_of_nibbles(first.add($codes), second.add($codes));
                    $(let codes = {
                        let fifth = halves_together(single_bits::<16>(first.add($fifth)), single_bits::<16>(second.add($fifth)));
                        [_mm256_or_si256(codes[0], fifth[0]), _mm256_or_si256(codes[1], fifth[1])]
                    };)?
                    codes
                }
            }
        }
    };
}

nibble_format!(Q4_0: 18 bytes, Offset<8>, offset 8, codes at 2);
nibble_format!(Q4_1: 20 bytes, Min<8>, offset 0, codes at 4);
nibble_format!(Q5_0: 22 bytes, Offset<4>, offset 16, codes at 6, fifth bits at 2);
nibble_format!(Q5_1: 24 bytes, Min<4>, offset 0, codes at 8, fifth bits at 4);

impl Block32 for Q8_0 {
    type Kind = Signed;
    const BYTES: usize = 34;
    const OFFSET: i32 = 0;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, _: usize) -> __m256i {
        // SAFETY: 32 codes follow the half.
        unsafe { load(block.add(2)) }
    }
}

impl Block32 for Iq4Nl {
    type Kind = Signed;
    const BYTES: usize = 18;
    const OFFSET: i32 = 0;
    const NEGATABLE: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, _: usize) -> __m256i {
        // SAFETY: 16 bytes of codes follow the half.
        unsafe { iq4_codes(block.add(2)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn halves_of_codes(first: *const u8, second: *const u8, _: usize) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { halves_of_iq4_codes(first.add(2), second.add(2)) }
    }
}

/// The values of MXFP4 codes plus 12.
const SHIFTED: [i8; 16] = {
    let mut table = tables::MXFP4;
    let mut i = 0;
    while i < 16 {
        table[i] += 12;
        i += 1;
    }
    table
};

impl Block32 for Mxfp4 {
    type Kind = Offset<4>;
    const BYTES: usize = 17;
    const OFFSET: i32 = 12;
    // Two codes of up to 24 with two activations make up to 6096.

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, _: usize) -> __m256i {
        // SAFETY: 16 bytes of codes follow the exponent.
        unsafe { look_up(&SHIFTED, block.add(1)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn halves_of_codes(first: *const u8, second: *const u8, _: usize) -> [__m256i; 2] {
        // SAFETY: as above.
        unsafe { look_up_halves(&SHIFTED, first.add(1), second.add(1)) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(blocks: [*const u8; 4], _: usize) -> [__m128; 2] {
        // SAFETY: the exponent is the first byte.
        let [a, b, c, d] = blocks.map(|block| MXFP4_SCALES[unsafe { *block } as usize]);
        [_mm_setr_ps(a, b, c, d), _mm_setzero_ps()]
    }
}

impl Block32 for Nvfp4 {
    type Kind = Sixteens<4>;
    const BYTES: usize = 36;
    const PARTS: usize = 2;
    const OFFSET: i32 = 12;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: 16 bytes of codes for each part follow the four scales; the table has 16 bytes.
        let (packed, table) = unsafe { (load128(block.add(4 + 16 * part)), load128(SHIFTED.as_ptr().cast())) };
        // Eight bytes hold sixteen codes: the first ones in their low nibbles.
        let high = _mm_srli_epi16::<4>(packed);
        let nibbles = _mm256_set_m128i(_mm_unpackhi_epi64(packed, high), _mm_unpacklo_epi64(packed, high));
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), and(nibbles, 15))
    }

    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn wide_codes(block: *const u8) -> __m512i {
        // SAFETY: 32 bytes of codes follow the four scales; the table has 16 bytes.
        let (packed, table) = unsafe { (load(block.add(4)), load128(SHIFTED.as_ptr().cast())) };
        // Eight bytes hold sixteen codes: once as they are, and once with the high nibbles brought down. What is left above
        // a code changes nothing, as the table repeats.
        let twice = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), _mm512_castsi256_si512(packed));
        let at = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4));
        _mm512_permutexvar_epi8(at, _mm512_broadcast_i32x4(table))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales(blocks: [*const u8; 4], part: usize) -> [__m128; 2] {
        // SAFETY: the caller's promise.
        let both = unsafe { Self::scales_of_sixteens(blocks) }[part];
        [_mm256_castps256_ps128(both), _mm256_extractf128_ps::<1>(both)]
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn scales_of_sixteens(blocks: [*const u8; 4]) -> [__m256; 2] {
        // SAFETY: the four scales start the block.
        let [a, b, c, d] = blocks.map(|block| unsafe { block.cast::<i32>().read_unaligned() });
        let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let bytes = _mm_shuffle_epi8(_mm_setr_epi32(a, b, c, d), order);
        // The one that is no number counts as zero, and the highest bit means nothing.
        let magnitudes = _mm_and_si128(bytes, _mm_set1_epi8(127));
        let bytes = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(127)), magnitudes);
        // With zeros around them they are halves, too small by what their exponents count from.
        let bits = _mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(bytes));
        let unit = _mm256_set1_ps(128.0);
        [
            _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(bits)), unit),
            _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256::<1>(bits)), unit),
        ]
    }
}

impl Block32 for Q1_0 {
    type Kind = Offset<8>;
    const BYTES: usize = 18;
    const PARTS: usize = 4;
    const OFFSET: i32 = 1;
    const BITS: bool = true;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: four bytes of codes for each part follow the half.
        unsafe { single_bits::<2>(block.add(2 + 4 * part)) }
    }

    #[inline]
    unsafe fn bits(block: *const u8, part: usize) -> u64 {
        // SAFETY: four bytes of codes for each part follow the half; `part` is even.
        unsafe { block.add(2 + 4 * part).cast::<u64>().read_unaligned() }
    }
}

impl Block32 for Q2_0 {
    type Kind = Offset<8>;
    const BYTES: usize = 18;
    const PARTS: usize = 2;
    const OFFSET: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes(block: *const u8, part: usize) -> __m256i {
        // SAFETY: eight bytes of codes for each part follow the half.
        let packed = unsafe { _mm_loadl_epi64(block.add(2 + 8 * part).cast()) };
        // Each byte in a lane of its own, its four codes brought to the four bytes of the lane.
        let lanes = _mm256_cvtepu8_epi32(packed);
        let pairs = _mm256_or_si256(lanes, _mm256_slli_epi32::<6>(lanes));
        and(_mm256_or_si256(pairs, _mm256_slli_epi32::<12>(pairs)), 3)
    }
}
