//! What the three instruction sets do in their own ways: products of bytes.
//!
//! The unit of a prompt are four rows and two tokens: their eight sums stand in two vectors. Without products of matrices
//! the first vector has the four rows with the first token, the other one those with the second; with them
//! the first vector has two rows with both tokens, the other one the other two rows.

use crate::kernel::neon;
use crate::kernel::neon::*;

/// NEON alone.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon;
/// With dot products of bytes.
#[derive(Clone, Copy)]
pub(in super::super) struct NeonDot;
/// With dot products and products of matrices of bytes.
#[derive(Clone, Copy)]
pub(in super::super) struct NeonI8mm;

/// One of the instruction sets. Codes are signed bytes, those of activations never -128.
pub(in super::super) trait Level {
    /// Adds the products of sixteen bytes, in some order, to the four lanes.
    ///
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t;

    /// Sixteen columns of four rows as [`Self::products`] wants them.
    fn arrange(rows: [int8x16_t; 4]) -> [int8x16_t; 4];

    /// Sixteen columns of two tokens as [`Self::products`] wants them.
    fn arrange_tokens(tokens: [int8x16_t; 2]) -> [int8x16_t; 2];

    /// Adds the products of sixteen columns.
    ///
    /// # Safety
    /// The processor has the instruction set.
    unsafe fn products(sums: [int32x4_t; 2], w: [int8x16_t; 4], q: [int8x16_t; 2]) -> [int32x4_t; 2];

    /// A number of each of four rows as it meets the sums, and as [`Self::spread`] reads it.
    fn store_spread(of_rows: float32x4_t, to: &mut [f32; 8]);

    /// What [`Self::store_spread`] has stored, at any alignment.
    fn spread(from: &[f32; 8]) -> [float32x4_t; 2];

    /// A number of each of two tokens as it meets the sums.
    fn of_tokens(numbers: [f32; 2]) -> [float32x4_t; 2];

    /// Sums as they are made, as those of the first token and those of the second.
    fn by_token(sums: [int32x4_t; 2]) -> [int32x4_t; 2];

    /// The inverse of [`Self::by_token`].
    fn by_sums(tokens: [float32x4_t; 2]) -> [float32x4_t; 2];
}

/// What does not differ where each vector of sums is that of one token.
macro_rules! token_each {
    () => {
        #[inline(always)]
        fn arrange(rows: [int8x16_t; 4]) -> [int8x16_t; 4] {
            let [a, b, c, d] = rows.each(|row| vreinterpretq_s32_s8(row));
            let wide = |v| vreinterpretq_s64_s32(v);
            let (even, odd) = ([vtrn1q_s32(a, b), vtrn1q_s32(c, d)], [vtrn2q_s32(a, b), vtrn2q_s32(c, d)]);
            let ([e0, e1], [o0, o1]) = (even.each(wide), odd.each(wide));
            [vtrn1q_s64(e0, e1), vtrn1q_s64(o0, o1), vtrn2q_s64(e0, e1), vtrn2q_s64(o0, o1)]
                .each(|v| vreinterpretq_s8_s64(v))
        }

        #[inline(always)]
        fn arrange_tokens(tokens: [int8x16_t; 2]) -> [int8x16_t; 2] {
            tokens
        }

        #[inline(always)]
        fn store_spread(of_rows: float32x4_t, to: &mut [f32; 8]) {
            // SAFETY: room for eight numbers.
            unsafe { vst1q_f32(to.as_mut_ptr(), of_rows) };
        }

        #[inline(always)]
        fn spread(from: &[f32; 8]) -> [float32x4_t; 2] {
            // SAFETY: eight numbers.
            [unsafe { vld1q_f32(from.as_ptr()) }; 2]
        }

        #[inline(always)]
        fn of_tokens(numbers: [f32; 2]) -> [float32x4_t; 2] {
            numbers.each(|x| vdupq_n_f32(x))
        }

        #[inline(always)]
        fn by_token(sums: [int32x4_t; 2]) -> [int32x4_t; 2] {
            sums
        }

        #[inline(always)]
        fn by_sums(tokens: [float32x4_t; 2]) -> [float32x4_t; 2] {
            tokens
        }
    };
}

impl Level for Neon {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // Two products fit in 16 bits, as no activation is -128.
        vpadalq_s16(sums, vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(q)), w, q))
    }

    token_each!();

    #[inline(always)]
    unsafe fn products(sums: [int32x4_t; 2], w: [int8x16_t; 4], q: [int8x16_t; 2]) -> [int32x4_t; 2] {
        let mut sums = sums;
        for (sums, q) in sums.iter_mut().zip(q) {
            let q = vreinterpretq_s32_s8(q);
            let q =
                [vdupq_laneq_s32::<0>(q), vdupq_laneq_s32::<1>(q), vdupq_laneq_s32::<2>(q), vdupq_laneq_s32::<3>(q)];
            let q = q.each(|q| vreinterpretq_s8_s32(q));
            // Two rows each: of each two sums of four products, in pairs.
            let low = |a: usize, b: usize| {
                let product = vmull_s8(vget_low_s8(w[a]), vget_low_s8(q[a]));
                vmlal_s8(product, vget_low_s8(w[b]), vget_low_s8(q[b]))
            };
            let high = |a: usize, b: usize| vmlal_high_s8(vmull_high_s8(w[a], q[a]), w[b], q[b]);
            let first = vpadalq_s16(vpaddlq_s16(low(0, 1)), low(2, 3));
            let last = vpadalq_s16(vpaddlq_s16(high(0, 1)), high(2, 3));
            *sums = vaddq_s32(*sums, vpaddq_s32(first, last));
        }
        sums
    }
}

impl Level for NeonDot {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { neon::sdot(sums, w, q) }
    }

    token_each!();

    #[inline(always)]
    unsafe fn products(sums: [int32x4_t; 2], w: [int8x16_t; 4], q: [int8x16_t; 2]) -> [int32x4_t; 2] {
        let mut sums = sums;
        for (sums, q) in sums.iter_mut().zip(q) {
            // SAFETY: the caller's promise.
            unsafe {
                *sums = neon::sdot_lane::<0>(*sums, w[0], q);
                *sums = neon::sdot_lane::<1>(*sums, w[1], q);
                *sums = neon::sdot_lane::<2>(*sums, w[2], q);
                *sums = neon::sdot_lane::<3>(*sums, w[3], q);
            }
        }
        sums
    }
}

/// The first halves of both, then the second ones.
#[inline(always)]
fn halves(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [vreinterpretq_s8_s64(vtrn1q_s64(a, b)), vreinterpretq_s8_s64(vtrn2q_s64(a, b))]
}

impl Level for NeonI8mm {
    #[inline(always)]
    unsafe fn dot(sums: int32x4_t, w: int8x16_t, q: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { neon::sdot(sums, w, q) }
    }

    #[inline(always)]
    fn arrange([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
        let ([first, second], [third, fourth]) = (halves(a, b), halves(c, d));
        [first, second, third, fourth]
    }

    #[inline(always)]
    fn arrange_tokens([a, b]: [int8x16_t; 2]) -> [int8x16_t; 2] {
        halves(a, b)
    }

    #[inline(always)]
    unsafe fn products(sums: [int32x4_t; 2], w: [int8x16_t; 4], q: [int8x16_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                neon::smmla(neon::smmla(sums[0], w[0], q[0]), w[1], q[1]),
                neon::smmla(neon::smmla(sums[1], w[2], q[0]), w[3], q[1]),
            ]
        }
    }

    #[inline(always)]
    fn store_spread(of_rows: float32x4_t, to: &mut [f32; 8]) {
        // SAFETY: room for eight numbers.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), vzip1q_f32(of_rows, of_rows));
            vst1q_f32(to.as_mut_ptr().add(4), vzip2q_f32(of_rows, of_rows));
        }
    }

    #[inline(always)]
    fn spread(from: &[f32; 8]) -> [float32x4_t; 2] {
        // SAFETY: eight numbers.
        unsafe { [vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))] }
    }

    #[inline(always)]
    fn of_tokens([a, b]: [f32; 2]) -> [float32x4_t; 2] {
        let both = vset_lane_f32::<1>(b, vdup_n_f32(a));
        [vcombine_f32(both, both); 2]
    }

    #[inline(always)]
    fn by_token([a, b]: [int32x4_t; 2]) -> [int32x4_t; 2] {
        [vuzp1q_s32(a, b), vuzp2q_s32(a, b)]
    }

    #[inline(always)]
    fn by_sums([a, b]: [float32x4_t; 2]) -> [float32x4_t; 2] {
        [vzip1q_f32(a, b), vzip2q_f32(a, b)]
    }
}
