//! IQ1, IQ2 and IQ3 taken apart: points of a grid and signs are looked up in tables that stay in the first cache, eight or
//! four codes at a time.

use super::block32::nibbles;
use super::block256::{Block256, Subs, none, widened};
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
fn four_eights(at: impl Fn(usize) -> u64) -> [int8x16_t; 2] {
    [0, 2].map(|i| vcombine_s8(vcreate_s8(at(i)), vcreate_s8(at(i + 1))))
}

/// 32 bytes, four at a time.
#[inline(always)]
fn eight_fours(at: impl Fn(usize) -> u32) -> [int8x16_t; 2] {
    four_eights(|i| at(2 * i) as u64 | (at(2 * i + 1) as u64) << 32)
}

/// Codes from their magnitudes and signs.
#[inline(always)]
fn products(levels: [int8x16_t; 2], signs: [int8x16_t; 2]) -> [int8x16_t; 2] {
    [vmulq_s8(levels[0], signs[0]), vmulq_s8(levels[1], signs[1])]
}

/// Four times seven bits of a word as signs.
#[inline(always)]
fn four_signs(word: u32) -> [int8x16_t; 2] {
    four_eights(|n| EVEN_SIGNS[(word >> (7 * n)) as usize & 127])
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
    let odd = widened(vzip1q_u8(low, high)).map(|v| vorrq_s16(vshlq_n_s16::<1>(v), vdupq_n_s16(1)));
    [odd, [none(); 2]]
}

impl Block256 for Iq1S {
    const BYTES: usize = 50;
    const D: usize = 0;
    const UNIT: f32 = 0.125;
    const SUB: usize = 32;

    #[inline(always)]
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        // SAFETY: 32 bytes and 8 words follow the half.
        let (low, high) =
            unsafe { (block.add(2).cast::<[u8; 32]>().read(), block.add(34).cast::<[u16; 8]>().read_unaligned()) };
        super::eight!(sub => {
            let high = high[sub] as usize;
            let points = four_eights(|n| IQ1[low[4 * sub + n] as usize | (high << 8 >> (3 * n)) & 0x700]);
            let shift = vdupq_n_s8(if high >> 15 == 1 { -9 } else { -7 });
            visit(sub, points.map(|points| vaddq_s8(points, shift)));
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        // SAFETY: 32 bytes and 8 words start the block.
        let (low, high) =
            unsafe { (block.cast::<[u8; 32]>().read(), block.add(32).cast::<[u16; 8]>().read_unaligned()) };
        super::eight!(sub => {
            let high = high[sub] as usize;
            let points = four_eights(|n| IQ1[low[4 * sub + n] as usize | (high << 8 >> (4 * n)) & 0x700]);
            // -9 where the fourth bit is set, otherwise -7.
            let shifts = four_eights(|n| 0xf9f9_f9f9_f9f9_f9f9 ^ (high >> (4 * n + 3) & 1) as u64 * 0x0e0e_0e0e_0e0e_0e0e);
            visit(sub, [0, 1].map(|i| vaddq_s8(points[i], shifts[i])));
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
        let bits = blocks.map(|block| {
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        super::eight!(sub => {
            // SAFETY: eight times four bytes of points and a word of signs follow the half.
            let (points, signs) = unsafe {
                let at = block.add(2 + 8 * sub);
                (at.cast::<[u8; 4]>().read(), at.add(4).cast::<u32>().read_unaligned())
            };
            visit(sub, products(four_eights(|n| IQ2_XXS[points[n] as usize]), four_signs(signs)));
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        super::eight!(sub => {
            // SAFETY: 32 words follow the half.
            let packed = unsafe { block.add(2 + 8 * sub).cast::<[u16; 4]>().read_unaligned() };
            let points = four_eights(|n| IQ2_XS[packed[n] as usize & 511]);
            visit(sub, products(points, four_eights(|n| EVEN_SIGNS[packed[n] as usize >> 9])));
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        super::eight!(sub => {
            // SAFETY: 32 bytes of points, 32 of signs and 8 of the points' high bits follow the half.
            let (low, signs, high) = unsafe {
                let at = block.add(2 + 4 * sub);
                (at.cast::<[u8; 4]>().read(), at.add(32).cast::<[u8; 4]>().read(), *block.add(66 + sub) as usize)
            };
            let points = four_eights(|n| IQ2_S[low[n] as usize | (high << (8 - 2 * n)) & 0x300]);
            visit(sub, products(points, four_eights(|n| SIGNS[signs[n] as usize])));
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        super::eight!(sub => {
            // SAFETY: 64 bytes of points and eight words of signs follow the half.
            let (points, signs) = unsafe {
                (block.add(2 + 8 * sub).cast::<[u8; 8]>().read(), block.add(66 + 4 * sub).cast::<u32>().read_unaligned())
            };
            visit(sub, products(eight_fours(|n| IQ3_XXS[points[n] as usize]), four_signs(signs)));
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
    unsafe fn codes(block: *const u8, mut visit: impl FnMut(usize, [int8x16_t; 2])) {
        super::eight!(sub => {
            // SAFETY: 64 bytes of points, 8 of their high bits and 32 of signs follow the half.
            let (low, high, signs) = unsafe {
                (
                    block.add(2 + 8 * sub).cast::<[u8; 8]>().read(),
                    *block.add(66 + sub) as usize,
                    block.add(74 + 4 * sub).cast::<[u8; 4]>().read(),
                )
            };
            let points = eight_fours(|n| IQ3_S[low[n] as usize | (high << (8 - n)) & 0x100]);
            visit(sub, products(points, four_eights(|n| SIGNS[signs[n] as usize])));
        });
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8) -> [Subs; 2] {
        // SAFETY: 4 bytes of scales lie at 106.
        let [odd, mins] = odd_nibbles(unsafe { block.add(106).cast::<u32>().read_unaligned() } as u64);
        [[odd[0], none()], mins]
    }
}
