//! IQ1, IQ2 and IQ3 taken apart: points of a grid and signs are looked up in tables that stay in the first cache, eight or
//! four codes at a time.

use super::block32::nibbles;
use super::block256::{Block256, Subs, Visit, none, widened};
use crate::kernel::matmul::look_up::{EVEN_SIGNS, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, SIGNS};
use crate::kernel::neon;
use crate::kernel::neon::*;

pub(super) struct Iq1S;
pub(super) struct Iq1M;
pub(super) struct Iq2Xxs;
pub(super) struct Iq2Xs;
pub(super) struct Iq2S;
pub(super) struct Iq3Xxs;
pub(super) struct Iq3S;

/// 32 bytes, eight at a time.
#[inline(always)]
fn four_eights([a, b, c, d]: [u64; 4]) -> [int8x16_t; 2] {
    [vcombine_s8(vcreate_s8(a), vcreate_s8(b)), vcombine_s8(vcreate_s8(c), vcreate_s8(d))]
}

/// Four points of eight, or the signs of as many.
#[inline(always)]
fn four_points<const N: usize>(table: &[u64; N], [a, b, c, d]: [usize; 4]) -> [int8x16_t; 2] {
    four_eights([table[a % N], table[b % N], table[c % N], table[d % N]])
}

/// Eight points of four.
#[inline(always)]
fn eight_points<const N: usize>(table: &[u32; N], [a, b, c, d, e, f, g, h]: [usize; 8]) -> [int8x16_t; 2] {
    let four = |a: usize, b: usize, c: usize, d: usize| {
        let words = [table[a % N], table[b % N], table[c % N], table[d % N]];
        // SAFETY: four words.
        vreinterpretq_s8_u32(unsafe { vld1q_u32(words.as_ptr()) })
    };
    [four(a, b, c, d), four(e, f, g, h)]
}

/// Four bytes at `p`, as indices.
///
/// # Safety
/// `p` is valid for reading them.
#[inline(always)]
unsafe fn four_bytes(p: *const u8) -> [usize; 4] {
    // SAFETY: the caller's promise.
    unsafe { [*p as usize, *p.add(1) as usize, *p.add(2) as usize, *p.add(3) as usize] }
}

/// Codes from their magnitudes and signs.
#[inline(always)]
fn products(levels: [int8x16_t; 2], signs: [int8x16_t; 2]) -> [int8x16_t; 2] {
    [vmulq_s8(levels[0], signs[0]), vmulq_s8(levels[1], signs[1])]
}

/// What is added to eight points of IQ1, which are eight too large, by whether the bit beside them is set.
static IQ1_SHIFTS: [u64; 2] = [u64::from_ne_bytes([0xf9; 8]), u64::from_ne_bytes([0xf7; 8])];

/// Four times seven bits of a word as signs.
#[inline(always)]
fn four_signs(word: u32) -> [int8x16_t; 2] {
    {
        let word = word as usize;
        four_points(&EVEN_SIGNS, [word, word >> 7, word >> 14, word >> 21])
    }
}

/// Numbers of 16 bits for the sub-blocks.
#[inline(always)]
fn subs(numbers: [i16; 16]) -> Subs {
    // SAFETY: sixteen numbers.
    unsafe { [vld1q_s16(numbers.as_ptr()), vld1q_s16(numbers.as_ptr().add(8))] }
}

/// The highest four bits of eight words, each doubled and one more.
#[inline(always)]
fn odd_of_words(words: [u32; 8]) -> [Subs; 2] {
    // SAFETY: eight words.
    let (a, b) = unsafe { (vld1q_u32(words.as_ptr()), vld1q_u32(words.as_ptr().add(4))) };
    let nibbles = vcombine_u16(vshrn_n_u32::<16>(a), vshrn_n_u32::<16>(b));
    // The bit below the four comes to where the one is set.
    let odd = vorrq_u16(vshrq_n_u16::<11>(nibbles), vdupq_n_u16(1));
    [[vreinterpretq_s16_u16(odd), none()], [none(); 2]]
}

/// Sixteen nibbles in order, each doubled and one more.
#[inline(always)]
fn odd_nibbles(packed: u64) -> [Subs; 2] {
    let packed = vcombine_u8(vcreate_u8(packed), vcreate_u8(0));
    let [low, high] = nibbles(packed);
    let odd = widened(vzip1q_u8(low, high)).each(|v| vorrq_s16(vshlq_n_s16::<1>(v), vdupq_n_s16(1)));
    [odd, [none(); 2]]
}

impl Block256 for Iq1S {
    const BYTES: usize = 50;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 32 bytes and 8 words follow the half.
            let ([a, b, c, d], high) = unsafe {
                let high = block.add(34 + 2 * sub).cast::<u16>().read_unaligned();
                (four_bytes(block.add(2 + 4 * sub)), high as usize)
            };
            let above = [high << 8 & 0x700, high << 5 & 0x700, high << 2 & 0x700, high >> 1 & 0x700];
            let points = four_points(&IQ1, [a | above[0], b | above[1], c | above[2], d | above[3]]);
            let shift = vdupq_n_s8(if high >> 15 == 1 { -9 } else { -7 });
            to.visit(sub, points.each(|points| vaddq_s8(points, shift)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 8 words lie at 34.
        let high = unsafe { vld1q_u16(block.add(34).cast()) };
        let odd = vorrq_u16(vandq_u16(vshrq_n_u16::<11>(high), vdupq_n_u16(14)), vdupq_n_u16(1));
        [[vreinterpretq_s16_u16(odd), none()], [none(); 2]]
    }
}

impl Block256 for Iq1M {
    const BYTES: usize = 56;
    const D: usize = 48;
    const UNIT: f32 = 0.125;
    const SUB: usize = 16;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 32 bytes and 8 words start the block.
            let ([a, b, c, d], high) = unsafe {
                let high = block.add(32 + 2 * sub).cast::<u16>().read_unaligned();
                (four_bytes(block.add(4 * sub)), high as usize)
            };
            let above = [high << 8 & 0x700, high << 4 & 0x700, high & 0x700, high >> 4 & 0x700];
            let points = four_points(&IQ1, [a | above[0], b | above[1], c | above[2], d | above[3]]);
            let shifts = four_points(&IQ1_SHIFTS, [high >> 3 & 1, high >> 7 & 1, high >> 11 & 1, high >> 15 & 1]);
            to.visit(sub, [0, 1].each(|i| vaddq_s8(points[i], shifts[i])));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 8 bytes lie at 48.
        let packed = unsafe { block.add(48).cast::<[u16; 4]>().read_unaligned() };
        let scale = |sub: usize| 2 * (packed[sub / 4] >> (3 * (sub % 4)) & 7) as i16 + 1;
        [subs(std::array::from_fn(scale)), [none(); 2]]
    }

    #[inline(always)]
    unsafe fn d(blocks: [*const u8; 4]) -> [float32x4_t; 2] {
        let bits = blocks.each(|block| {
            // SAFETY: 8 bytes lie at 48 of each block.
            let words = unsafe { block.add(Self::D).cast::<u64>().read_unaligned() };
            (words >> 12 & 15 | words >> 24 & 0xf0 | words >> 36 & 0xf00 | words >> 48 & 0xf000) as u16
        });
        // SAFETY: four numbers.
        [vmulq_n_f32(neon::from_four_halves(unsafe { vld1_u16(bits.as_ptr()) }), Self::UNIT); 2]
    }
}

impl Block256 for Iq2Xxs {
    const BYTES: usize = 66;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: eight times four bytes of points and a word of signs follow the half.
            let (points, signs) = unsafe {
                let at = block.add(2 + 8 * sub);
                (four_bytes(at), at.add(4).cast::<u32>().read_unaligned())
            };
            to.visit(sub, products(four_points(&IQ2_XXS, points), four_signs(signs)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 64 bytes follow the half.
        let words = unsafe { block.add(2).cast::<[[u32; 2]; 8]>().read_unaligned() };
        odd_of_words(words.map(|[_, word]| word))
    }
}

impl Block256 for Iq2Xs {
    const BYTES: usize = 74;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const SUB: usize = 16;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 32 words follow the half.
            let packed = unsafe { block.add(2 + 8 * sub).cast::<[u16; 4]>().read_unaligned() };
            let [a, b, c, d] = packed.each(|word| word as usize);
            let points = four_points(&IQ2_XS, [a, b, c, d]);
            to.visit(sub, products(points, four_points(&EVEN_SIGNS, [a >> 9, b >> 9, c >> 9, d >> 9])));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 8 bytes of scales lie at 66.
        odd_nibbles(unsafe { block.add(66).cast::<u64>().read_unaligned() })
    }
}

impl Block256 for Iq2S {
    const BYTES: usize = 82;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const SUB: usize = 16;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 32 bytes of points, 32 of signs and 8 of the points' high bits follow the half.
            let ([a, b, c, d], signs, high) = unsafe {
                let at = block.add(2 + 4 * sub);
                (four_bytes(at), four_bytes(at.add(32)), *block.add(66 + sub) as usize)
            };
            let above = [high << 8 & 0x300, high << 6 & 0x300, high << 4 & 0x300, high << 2 & 0x300];
            let points = four_points(&IQ2_S, [a | above[0], b | above[1], c | above[2], d | above[3]]);
            to.visit(sub, products(points, four_points(&SIGNS, signs)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 8 bytes of scales lie at 74.
        odd_nibbles(unsafe { block.add(74).cast::<u64>().read_unaligned() })
    }
}

impl Block256 for Iq3Xxs {
    const BYTES: usize = 98;
    const D: usize = 0;
    const UNIT: f32 = 0.25;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 64 bytes of points and eight words of signs follow the half.
            let ([a, b, c, d], [e, f, g, h], signs) = unsafe {
                let at = block.add(2 + 8 * sub);
                (four_bytes(at), four_bytes(at.add(4)), block.add(66 + 4 * sub).cast::<u32>().read_unaligned())
            };
            to.visit(sub, products(eight_points(&IQ3_XXS, [a, b, c, d, e, f, g, h]), four_signs(signs)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 32 bytes of signs and scales lie at 66.
        odd_of_words(unsafe { block.add(66).cast::<[u32; 8]>().read_unaligned() })
    }
}

impl Block256 for Iq3S {
    const BYTES: usize = 110;
    const D: usize = 0;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut to: impl Visit) {
        super::eight!(sub => {
            // SAFETY: 64 bytes of points, 8 of their high bits and 32 of signs follow the half.
            let ([a, b, c, d], [e, f, g, h], high, signs) = unsafe {
                let at = block.add(2 + 8 * sub);
                (four_bytes(at), four_bytes(at.add(4)), *block.add(66 + sub) as usize, four_bytes(block.add(74 + 4 * sub)))
            };
            let above = |n: usize| high << (8 - n) & 0x100;
            let first = [a | above(0), b | above(1), c | above(2), d | above(3)];
            let last = [e | above(4), f | above(5), g | above(6), h | above(7)];
            let [a, b, c, d] = first;
            let [e, f, g, h] = last;
            to.visit(sub, products(eight_points(&IQ3_S, [a, b, c, d, e, f, g, h]), four_points(&SIGNS, signs)));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 4 bytes of scales lie at 106.
        let [odd, mins] = odd_nibbles(unsafe { block.add(106).cast::<u32>().read_unaligned() } as u64);
        [[odd[0], none()], mins]
    }
}
