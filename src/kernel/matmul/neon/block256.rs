//! Blocks of 256 taken apart into bytes: codes in the order of the columns, scales and mins.

use super::block32::{halves, look_up, nibbles, pairs_of_halves, signed};
use super::{load, load_unsigned};
use crate::kernel::neon::*;
use crate::quant::tables;

/// One number for each sub-block, eight or sixteen of them.
pub(super) type Subs = [int16x8_t; 2];

/// What takes the codes of a block. A closure, which is called so often, would not be inlined.
pub(super) trait Visit {
    /// Takes the 32 codes `sub`.
    fn visit(&mut self, sub: usize, codes: [int8x16_t; 2]);
}

/// What the kernels need to know of a format with blocks of 256.
pub(super) trait Block256 {
    const BYTES: usize;
    /// Where the half `d` lies; `dmin` follows it in formats with mins.
    const D: usize;
    /// What the half is multiplied with, a power of two.
    const UNIT: f32 = 1.0;
    /// Elements of a sub-block with one scale: 16 or 32.
    const SUB: usize;
    /// Vectors of [`Subs`] that are in use.
    const SUB_VECTORS: usize = 32 / Self::SUB;
    const MINS: bool = false;
    /// Whether all scales are one.
    const UNSCALED: bool = false;

    /// Gives `to` each 32 codes of a block, in order.
    ///
    /// # Safety
    /// `block` is valid for reading `BYTES`.
    unsafe fn codes(block: *const u8, to: impl Visit);

    /// Scales and mins.
    ///
    /// # Safety
    /// As [`Self::codes`].
    unsafe fn scales(block: *const u8) -> [Subs; 2];

    /// `d` of four blocks, and `dmin` in formats with mins.
    ///
    /// # Safety
    /// As [`Self::codes`], for each block.
    #[inline(always)]
    unsafe fn d(blocks: [*const u8; 4]) -> [float32x4_t; 2] {
        // SAFETY: the halves lie in the blocks.
        unsafe {
            let at = blocks.each(|block| block.add(Self::D));
            if Self::MINS {
                return pairs_of_halves(at);
            }
            let d = halves(at);
            [if Self::UNIT == 1.0 { d } else { vmulq_n_f32(d, Self::UNIT) }; 2]
        }
    }
}

pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;
pub(super) struct Iq4Xs;
pub(super) struct Tq1_0;
pub(super) struct Tq2_0;

/// Where there are no mins, or no scales beyond the first eight.
#[inline(always)]
pub(super) fn none() -> int16x8_t {
    vdupq_n_s16(0)
}

/// Bytes as numbers of 16 bits.
#[inline(always)]
pub(super) fn widened(v: uint8x16_t) -> Subs {
    [vmovl_u8(vget_low_u8(v)), vmovl_high_u8(v)].each(|v| vreinterpretq_s16_u16(v))
}

/// The bits `mask` of every byte once it is shifted to the right by `SHIFT`.
#[inline(always)]
fn bits<const SHIFT: i32>(v: uint8x16_t, mask: u8) -> uint8x16_t {
    let v = match SHIFT {
        0 => v,
        1 => vshrq_n_u8::<1>(v),
        2 => vshrq_n_u8::<2>(v),
        3 => vshrq_n_u8::<3>(v),
        4 => vshrq_n_u8::<4>(v),
        5 => vshrq_n_u8::<5>(v),
        6 => vshrq_n_u8::<6>(v),
        -1 => vshlq_n_u8::<1>(v),
        -2 => vshlq_n_u8::<2>(v),
        -3 => vshlq_n_u8::<3>(v),
        -4 => vshlq_n_u8::<4>(v),
        _ => unreachable!("shifts of bits"),
    };
    vandq_u8(v, vdupq_n_u8(mask))
}

/// # Safety
/// `p` is valid for reading 32 bytes.
#[inline(always)]
unsafe fn load32(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe { [load_unsigned(p), load_unsigned(p.add(16))] }
}

/// # Safety
/// `p` is valid for reading four bytes.
#[inline(always)]
unsafe fn word(p: *const u8) -> u32 {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { p.cast::<u32>().read_unaligned() }
}

#[inline(always)]
fn from_words(words: [u32; 4]) -> uint32x4_t {
    // SAFETY: four words.
    unsafe { vld1q_u32(words.as_ptr()) }
}

/// Eight six-bit scales and eight six-bit mins from the last twelve of 16 bytes.
#[inline(always)]
fn six_bits(head: uint8x16_t) -> [Subs; 2] {
    let choose = |from: [u8; 4]| {
        let words = from.map(|word| 0x0302_0100 + 0x0404_0404 * word as u32);
        let at = opaque(vreinterpretq_s32_u32(from_words(words)));
        vreinterpretq_u32_u8(vqtbl1q_u8(head, vreinterpretq_u8_s32(at)))
    };
    // Scales 0..4 and 4..8, then the mins: the low bits, and above those of the last four two from the first words.
    let low = vshlq_u32(choose([1, 3, 2, 3]), vreinterpretq_s32_u32(from_words([0, 0, 0, -4i32 as u32])));
    let low = vandq_u32(low, from_words([0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f]));
    let high = vandq_u32(vshrq_n_u32::<2>(choose([1, 1, 2, 2])), from_words([0, 0x3030_3030, 0, 0x3030_3030]));
    let [scales, mins] = widened(vreinterpretq_u8_u32(vorrq_u32(low, high)));
    [[scales, none()], [mins, none()]]
}

/// Two-bit codes of four sub-blocks of 32 from the 32 bytes at `p`, from their lowest bits on.
///
/// # Safety
/// `p` is valid for reading 32 bytes.
#[inline(always)]
unsafe fn pairs_of_bits(p: *const u8) -> [[uint8x16_t; 2]; 4] {
    // SAFETY: the caller's promise.
    let v = unsafe { load32(p) };
    [
        v.each(|v| bits::<0>(v, 3)),
        v.each(|v| bits::<2>(v, 3)),
        v.each(|v| bits::<4>(v, 3)),
        v.each(|v| vshrq_n_u8::<6>(v)),
    ]
}

impl Block256 for Q2K {
    const BYTES: usize = 84;
    const D: usize = 80;
    const SUB: usize = 16;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        // SAFETY: 64 bytes of codes follow the 16 of the scales.
        unsafe {
            let [a, b, c, d] = pairs_of_bits(block.add(16));
            to.visit(0, a.each(signed));
            to.visit(1, b.each(signed));
            to.visit(2, c.each(signed));
            to.visit(3, d.each(signed));
            let [a, b, c, d] = pairs_of_bits(block.add(48));
            to.visit(4, a.each(signed));
            to.visit(5, b.each(signed));
            to.visit(6, c.each(signed));
            to.visit(7, d.each(signed));
        }
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: the block starts with 16 bytes of scales and mins.
        nibbles(unsafe { load_unsigned(block) }).each(widened)
    }
}

impl Block256 for Q3K {
    const BYTES: usize = 110;
    const D: usize = 108;
    const SUB: usize = 16;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        // SAFETY: 32 bytes of high bits and 64 of low ones start the block.
        let (high, first, last) =
            unsafe { (load32(block), pairs_of_bits(block.add(32)), pairs_of_bits(block.add(64))) };
        // Without its high bit a code is 4 less: what the bits above say.
        macro_rules! sub {
            ($sub:literal, $low:expr, $shift:literal) => {
                to.visit(
                    $sub,
                    [0, 1].each(|i| {
                        let high = bits::<$shift>(high[i], 4);
                        vsubq_s8(signed(vorrq_u8($low[i], high)), vdupq_n_s8(4))
                    }),
                )
            };
        }
        sub!(0, first[0], -2);
        sub!(1, first[1], -1);
        sub!(2, first[2], 0);
        sub!(3, first[3], 1);
        sub!(4, last[0], 2);
        sub!(5, last[1], 3);
        sub!(6, last[2], 4);
        sub!(7, last[3], 5);
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: the twelve bytes of scales start at 96.
        let (a, b, c) = unsafe { (word(block.add(96)), word(block.add(100)), word(block.add(104))) };
        let scales = from_words([
            a & 0x0f0f_0f0f | c << 4 & 0x3030_3030,
            b & 0x0f0f_0f0f | c << 2 & 0x3030_3030,
            a >> 4 & 0x0f0f_0f0f | c & 0x3030_3030,
            b >> 4 & 0x0f0f_0f0f | c >> 2 & 0x3030_3030,
        ]);
        let scales = widened(vreinterpretq_u8_u32(scales)).each(|v| vsubq_s16(v, vdupq_n_s16(32)));
        [scales, [none(); 2]]
    }
}

impl Block256 for Q4K {
    const BYTES: usize = 144;
    const D: usize = 0;
    const SUB: usize = 32;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        macro_rules! pair {
            ($pair:literal) => {
                // SAFETY: 128 bytes of codes follow 16 of scales.
                let [low, high] = unsafe { load32(block.add(16 + 32 * $pair)) }.each(nibbles);
                to.visit(2 * $pair, [low[0], high[0]].each(signed));
                to.visit(2 * $pair + 1, [low[1], high[1]].each(signed));
            };
        }
        pair!(0);
        pair!(1);
        pair!(2);
        pair!(3);
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: twelve bytes of scales follow the two halves.
        six_bits(unsafe { load_unsigned(block) })
    }
}

impl Block256 for Q5K {
    const BYTES: usize = 176;
    const D: usize = 0;
    const SUB: usize = 32;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        // SAFETY: 32 bytes of high bits follow 16 of scales.
        let fifth = unsafe { load32(block.add(16)) };
        // Bit n of a byte of `fifth` becomes bit 4 of sub-block n.
        macro_rules! pair {
            ($pair:literal, $low_shift:literal, $high_shift:literal) => {
                // SAFETY: 128 bytes of low bits follow the high ones.
                let [a, b] = unsafe { load32(block.add(48 + 32 * $pair)) }.each(nibbles);
                let with = |low, fifth| signed(vorrq_u8(low, fifth));
                to.visit(
                    2 * $pair,
                    [with(a[0], bits::<$low_shift>(fifth[0], 16)), with(b[0], bits::<$low_shift>(fifth[1], 16))],
                );
                to.visit(
                    2 * $pair + 1,
                    [with(a[1], bits::<$high_shift>(fifth[0], 16)), with(b[1], bits::<$high_shift>(fifth[1], 16))],
                );
            };
        }
        pair!(0, -4, -3);
        pair!(1, -2, -1);
        pair!(2, 0, 1);
        pair!(3, 2, 3);
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: twelve bytes of scales follow the two halves.
        six_bits(unsafe { load_unsigned(block) })
    }
}

impl Block256 for Q6K {
    const BYTES: usize = 210;
    const D: usize = 208;
    const SUB: usize = 16;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        let with = |low, high| vsubq_s8(signed(vorrq_u8(low, high)), vdupq_n_s8(32));
        macro_rules! half {
            ($half:literal) => {
                // SAFETY: the block starts with 128 bytes of low bits, then 64 of high ones.
                let (a, b, high) = unsafe {
                    (
                        load32(block.add(64 * $half)).each(nibbles),
                        load32(block.add(64 * $half + 32)).each(nibbles),
                        load32(block.add(128 + 32 * $half)),
                    )
                };
                to.visit(4 * $half, [0, 1].each(|i| with(a[i][0], bits::<-4>(high[i], 48))));
                to.visit(4 * $half + 1, [0, 1].each(|i| with(b[i][0], bits::<-2>(high[i], 48))));
                to.visit(4 * $half + 2, [0, 1].each(|i| with(a[i][1], bits::<0>(high[i], 48))));
                to.visit(4 * $half + 3, [0, 1].each(|i| with(b[i][1], bits::<2>(high[i], 48))));
            };
        }
        half!(0);
        half!(1);
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 16 bytes of scales start at 192.
        let scales = unsafe { load(block.add(192)) };
        [[vmovl_s8(vget_low_s8(scales)), vmovl_high_s8(scales)], [none(); 2]]
    }
}

impl Block256 for Iq4Xs {
    const BYTES: usize = 136;
    const D: usize = 0;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 128 bytes of codes follow eight bytes of scales.
            let packed = unsafe { load_unsigned(block.add(8 + 16 * sub)) };
            to.visit(sub, look_up(&tables::IQ4, nibbles(packed)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: eight bytes start the block.
        let (head, low) = unsafe { (word(block), word(block.add(4))) };
        // Nibble n of `low` is the low part of scale n; two bits of `head` are the high one.
        let low = vcreate_u8(low as u64);
        let low = vand_u8(vzip1_u8(low, vshr_n_u8::<4>(low)), vdup_n_u8(15));
        const DOWN: [i16; 8] = [0, -2, -4, -6, -8, -10, -12, -14];
        // SAFETY: eight numbers.
        let high = vshlq_u16(vdupq_n_u16((head >> 16) as u16), unsafe { vld1q_s16(DOWN.as_ptr()) });
        let high = vshlq_n_u16::<4>(vandq_u16(high, vdupq_n_u16(3)));
        let scales = vreinterpretq_s16_u16(vorrq_u16(high, vmovl_u8(low)));
        [[vsubq_s16(scales, vdupq_n_s16(32)), none()], [none(); 2]]
    }
}

impl Block256 for Tq1_0 {
    const BYTES: usize = 54;
    const D: usize = 52;
    const SUB: usize = 32;
    const UNSCALED: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        // SAFETY: the block starts with 32, 16 and 4 bytes of codes.
        let (mut first, mut next, last) = unsafe { (load32(block), load_unsigned(block.add(32)), word(block.add(48))) };
        // A byte is a fraction to the base of 3: its first digit is what overflows when it is tripled. One less is the code.
        let digit = |v: uint8x16_t| {
            let reaches = |least: u8| vreinterpretq_s8_u8(vcgeq_u8(v, vdupq_n_u8(least)));
            vsubq_s8(vdupq_n_s8(-1), vaddq_s8(reaches(86), reaches(171)))
        };
        let tripled = |v: uint8x16_t| vmulq_u8(v, vdupq_n_u8(3));
        macro_rules! digits {
            ($($sub:literal)*) => {
                $(
                    to.visit($sub, first.each(digit));
                    first = first.each(tripled);
                )*
            };
        }
        digits!(0 1 2 3);
        to.visit(4, first.each(digit));
        // Of 16 bytes two digits make 32 codes; with the fifth go the four of the last four bytes.
        macro_rules! two_digits {
            ($sub:literal) => {
                let second = tripled(next);
                to.visit($sub, [digit(next), digit(second)]);
                next = tripled(second);
            };
        }
        two_digits!(5);
        two_digits!(6);
        const POWERS: [u8; 16] = [1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27];
        // SAFETY: 16 bytes.
        let powers = unsafe { load_unsigned(POWERS.as_ptr()) };
        let last = vmulq_u8(vreinterpretq_u8_u32(vdupq_n_u32(last)), powers);
        to.visit(7, [digit(next), digit(last)]);
    }

    #[inline(always)]
    unsafe fn scales(_: *const u8) -> [Subs; 2] {
        [[vdupq_n_s16(1), none()], [none(); 2]]
    }
}

impl Block256 for Tq2_0 {
    const BYTES: usize = 66;
    const D: usize = 64;
    const SUB: usize = 32;
    const UNSCALED: bool = true;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        let less = |v: [uint8x16_t; 2]| v.each(|v| vsubq_s8(signed(v), vdupq_n_s8(1)));
        // SAFETY: the block starts with 64 bytes of codes.
        unsafe {
            let [a, b, c, d] = pairs_of_bits(block);
            to.visit(0, less(a));
            to.visit(1, less(b));
            to.visit(2, less(c));
            to.visit(3, less(d));
            let [a, b, c, d] = pairs_of_bits(block.add(32));
            to.visit(4, less(a));
            to.visit(5, less(b));
            to.visit(6, less(c));
            to.visit(7, less(d));
        }
    }

    #[inline(always)]
    unsafe fn scales(_: *const u8) -> [Subs; 2] {
        [[vdupq_n_s16(1), none()], [none(); 2]]
    }
}
