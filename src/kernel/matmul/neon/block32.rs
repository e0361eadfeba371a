//! Blocks of 32, 64 and 128 taken apart into bytes in the order of the columns, 32 at a time.

use super::{load, load_unsigned};
use crate::kernel::matmul::look_up::MXFP4_SCALES;
use crate::kernel::neon;
use crate::kernel::neon::*;
use crate::quant::tables;

/// What the kernels need to know of a format with blocks of 32, 64 or 128.
pub(super) trait Block32 {
    const BYTES: usize;
    /// How many times 32 elements a block has: 1, 2 or 4.
    const PARTS: usize = 1;
    /// Bytes of 256 elements.
    const EIGHT: usize = 8 / Self::PARTS * Self::BYTES;
    const MIN: bool = false;
    /// Whether each 16 elements have a scale of their own.
    const HALVES: bool = false;
    /// Whether a block is 32 elements that share one scale, a half at the start.
    const ONE_HALF: bool = false;

    /// The codes of part `part` of a block.
    ///
    /// # Safety
    /// `block` is valid for reading `BYTES`, and `part` is less than `PARTS`.
    unsafe fn codes(block: *const u8, part: usize) -> [int8x16_t; 2];

    /// Scales of part `part` of four blocks, and their mins, which follow the scales in formats that have any. With
    /// [`Self::HALVES`] the scales of the first sixteen elements and then those of the last.
    ///
    /// # Safety
    /// As [`Self::codes`], for each block.
    #[inline(always)]
    unsafe fn scales(blocks: [*const u8; 4], _part: usize) -> [float32x4_t; 2] {
        // SAFETY: the caller's promise; the halves start the block.
        unsafe { if Self::MIN { pairs_of_halves(blocks) } else { [halves(blocks); 2] } }
    }

    /// The codes of part `part` of four blocks.
    ///
    /// # Safety
    /// As [`Self::codes`], for each block.
    #[inline(always)]
    unsafe fn codes_of_four(blocks: [*const u8; 4], part: usize) -> [[int8x16_t; 2]; 4] {
        // SAFETY: the caller's promise.
        blocks.each(|block| unsafe { Self::codes(block, part) })
    }

    /// The codes and scales of four blocks, which become the next ones, in formats with [`Self::ONE_HALF`].
    ///
    /// # Safety
    /// As [`Self::codes`], for each block.
    #[inline(always)]
    unsafe fn next(at: &mut [*const u8; 4]) -> ([[int8x16_t; 2]; 4], float32x4_t) {
        // SAFETY: the caller's promise.
        unsafe {
            let codes = Self::codes_of_four(*at, 0);
            let scales = match Self::BYTES {
                18 => neon::halves_in_steps::<18>(at),
                22 => neon::halves_in_steps::<22>(at),
                _ => unreachable!("bytes of a block with one half"),
            };
            (codes, scales)
        }
    }
}

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q8_0;
pub(super) struct Iq4Nl;
pub(super) struct Mxfp4;
pub(super) struct Nvfp4;
pub(super) struct Q1_0;
pub(super) struct Q2_0;

/// The halves at four addresses, as singles.
///
/// # Safety
/// Each address is valid for reading two bytes.
#[inline(always)]
pub(super) unsafe fn halves(at: [*const u8; 4]) -> float32x4_t {
    // SAFETY: the caller's promise; no alignment is needed.
    let [a, b, c, d] = at.each(|at| unsafe { at.cast::<u16>().read_unaligned() });
    let bits = vset_lane_u16::<1>(b, vset_lane_u16::<0>(a, vdup_n_u16(0)));
    neon::from_four_halves(vset_lane_u16::<3>(d, vset_lane_u16::<2>(c, bits)))
}

/// The two halves at each of four addresses, as singles: the first ones, then the others.
///
/// # Safety
/// Each address is valid for reading four bytes.
#[inline(always)]
pub(super) unsafe fn pairs_of_halves(at: [*const u8; 4]) -> [float32x4_t; 2] {
    // SAFETY: the caller's promise; no alignment is needed.
    let words = at.each(|at| unsafe { at.cast::<u32>().read_unaligned() });
    // SAFETY: four words.
    let both = vreinterpretq_u16_u32(unsafe { vld1q_u32(words.as_ptr()) });
    [vuzp1q_u16(both, both), vuzp2q_u16(both, both)].each(|bits| neon::from_four_halves(vget_low_u16(bits)))
}

#[inline(always)]
pub(super) fn signed(v: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(v)
}

/// The low, then the high nibbles.
#[inline(always)]
pub(super) fn nibbles(packed: uint8x16_t) -> [uint8x16_t; 2] {
    [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)]
}

/// What 32 nibbles stand for.
#[inline(always)]
pub(super) fn look_up(table: &[i8; 16], nibbles: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    // SAFETY: the table has 16 bytes.
    let table = unsafe { vld1q_s8(table.as_ptr()) };
    nibbles.each(|nibbles| vqtbl1q_s8(table, nibbles))
}

/// Byte j has all bits where the word at `p` has bit j.
///
/// # Safety
/// `p` is valid for reading four bytes.
#[inline(always)]
unsafe fn each_bit(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise; no alignment is needed.
    let word = vreinterpretq_u8_u32(vdupq_n_u32(unsafe { p.cast::<u32>().read_unaligned() }));
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let at = |low: u64, high: u64| vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)));
    let spread = [at(0, 0x0101_0101_0101_0101), at(0x0202_0202_0202_0202, 0x0303_0303_0303_0303)];
    spread.each(|at| vtstq_u8(vqtbl1q_u8(word, at), bit))
}

impl Block32 for Q4_0 {
    const BYTES: usize = 18;
    const ONE_HALF: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of codes follow the half.
        let packed = unsafe { load_unsigned(block.add(2)) };
        nibbles(packed).each(|v| vsubq_s8(signed(v), vdupq_n_s8(8)))
    }
}

impl Block32 for Q4_1 {
    const BYTES: usize = 20;
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of codes follow two halves.
        nibbles(unsafe { load_unsigned(block.add(4)) }).each(signed)
    }
}

impl Block32 for Q5_0 {
    const BYTES: usize = 22;
    const ONE_HALF: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: a word of fifth bits and 16 bytes of codes follow the half.
        let (low, high) = unsafe { (nibbles(load_unsigned(block.add(6))), each_bit(block.add(2))) };
        // Without the fifth bit a code is 16 less, which is what the upper bits say.
        [0, 1].each(|i| signed(vorrq_u8(low[i], vbicq_u8(vdupq_n_u8(0xf0), high[i]))))
    }
}

impl Block32 for Q5_1 {
    const BYTES: usize = 24;
    const MIN: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: a word of fifth bits and 16 bytes of codes follow two halves.
        let (low, high) = unsafe { (nibbles(load_unsigned(block.add(8))), each_bit(block.add(4))) };
        [0, 1].each(|i| signed(vorrq_u8(low[i], vandq_u8(vdupq_n_u8(16), high[i]))))
    }
}

impl Block32 for Q8_0 {
    const BYTES: usize = 34;
    const ONE_HALF: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: 32 codes follow the half.
        unsafe { [load(block.add(2)), load(block.add(18))] }
    }

    #[inline(always)]
    unsafe fn next(at: &mut [*const u8; 4]) -> ([[int8x16_t; 2]; 4], float32x4_t) {
        // SAFETY: 32 codes follow the half.
        unsafe {
            let scales = neon::halves_in_steps::<2>(at);
            (neon::load_32_in_steps(at), scales)
        }
    }
}

impl Block32 for Iq4Nl {
    const BYTES: usize = 18;
    const ONE_HALF: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of codes follow the half.
        look_up(&tables::IQ4, nibbles(unsafe { load_unsigned(block.add(2)) }))
    }
}

impl Block32 for Mxfp4 {
    const BYTES: usize = 17;

    #[inline(always)]
    unsafe fn codes(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of codes follow the exponent.
        look_up(&tables::MXFP4, nibbles(unsafe { load_unsigned(block.add(1)) }))
    }

    #[inline(always)]
    unsafe fn scales(blocks: [*const u8; 4], _: usize) -> [float32x4_t; 2] {
        // SAFETY: the exponent is the first byte.
        let d = blocks.each(|block| MXFP4_SCALES[unsafe { *block } as usize]);
        // SAFETY: four numbers.
        [unsafe { vld1q_f32(d.as_ptr()) }; 2]
    }
}

impl Block32 for Nvfp4 {
    const BYTES: usize = 36;
    const PARTS: usize = 2;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: 16 bytes of codes for each part follow the four scales.
        let [low, high] = nibbles(unsafe { load_unsigned(block.add(4 + 16 * part)) }).each(|v| vreinterpretq_u64_u8(v));
        // Eight bytes hold sixteen codes: the first ones in their low nibbles.
        let in_order = [vtrn1q_u64(low, high), vtrn2q_u64(low, high)].each(|v| vreinterpretq_u8_u64(v));
        look_up(&tables::MXFP4, in_order)
    }

    #[inline(always)]
    unsafe fn scales(blocks: [*const u8; 4], part: usize) -> [float32x4_t; 2] {
        [0, 1].each(|half| {
            // SAFETY: the four scales start the block.
            let bytes = blocks.each(|block| unsafe { *block.add(2 * part + half) } as u32);
            // SAFETY: four numbers.
            let bytes = unsafe { vld1q_u32(bytes.as_ptr()) };
            // The one that is no number counts as zero, and the highest bit means nothing.
            let magnitudes = vandq_u32(bytes, vdupq_n_u32(127));
            let bytes = vbicq_u32(magnitudes, vceqq_u32(bytes, vdupq_n_u32(127)));
            // With zeros around them they are halves, too small by what their exponents count from.
            let singles = neon::from_four_halves(vmovn_u32(vshlq_n_u32::<7>(bytes)));
            vmulq_n_f32(singles, 128.0)
        })
    }
}

impl Block32 for Q1_0 {
    const BYTES: usize = 18;
    const PARTS: usize = 4;

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: four bytes of codes for each part follow the half.
        let bits = unsafe { each_bit(block.add(2 + 4 * part)) };
        // All bits are minus one: 1 where there is a bit, and -1 elsewhere.
        bits.each(|v| signed(vorrq_u8(vmvnq_u8(v), vdupq_n_u8(1))))
    }
}

impl Block32 for Q2_0 {
    const BYTES: usize = 18;
    const PARTS: usize = 2;

    #[inline(always)]
    unsafe fn codes(block: *const u8, part: usize) -> [int8x16_t; 2] {
        // SAFETY: eight bytes of codes for each part follow the half.
        let packed = unsafe { vld1_u8(block.add(2 + 8 * part)) };
        let packed = vcombine_u8(packed, packed);
        let at = |low: u64, high: u64| vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high)));
        let spread =
            [at(0x0101_0101_0000_0000, 0x0303_0303_0202_0202), at(0x0505_0505_0404_0404, 0x0707_0707_0606_0606)];
        // Each byte four times, its four codes brought to the lowest bits.
        let down = vreinterpretq_s8_u32(vdupq_n_u32(0xfafc_fe00));
        spread.each(|at| {
            let codes = vandq_u8(vshlq_u8(vqtbl1q_u8(packed, at), down), vdupq_n_u8(3));
            vsubq_s8(signed(codes), vdupq_n_s8(1))
        })
    }
}
