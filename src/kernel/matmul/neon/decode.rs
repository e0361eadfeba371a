//! Products straight from the file's blocks, four rows at a time: for one token or a few.
//!
//! A block's sums of products are never set to zero between its sub-blocks. Of a row of sums s0, s0+s1, s0+s1+s2, ... each
//! is multiplied with the difference between its scale and the next one: the same total as that of each sum alone with its
//! scale, for one addition less. Whole numbers wrap around and come back, so that it is exact.

use super::block32::Block32;
use super::block256::{Block256, Subs, Visit};
use super::level::Level;
use super::{load, store4};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::neon::*;
use std::marker::PhantomData;

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows32<F: Block32, L: Level>(job: &Job) {
    let x = job.acts.codes32();
    for r in job.start..job.start + job.quarter() {
        for t in 0..job.acts.tokens() {
            // SAFETY: the caller's promises.
            unsafe { store4(job, r, t, dot32::<F, L>(job, r, &x[t..])) };
        }
    }
}

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows256<F: Block256, L: Level>(job: &Job) {
    let x = job.acts.codes256();
    for r in job.start..job.start + job.quarter() {
        for t in 0..job.acts.tokens() {
            // SAFETY: the caller's promises.
            unsafe { store4(job, r, t, dot256::<F, L>(job, r, &x[t..])) };
        }
    }
}

/// Each scale less the next one, the last as it is.
#[inline(always)]
pub(super) fn differences(scales: Subs, sub: usize) -> Subs {
    let zero = vdupq_n_s16(0);
    let [first, last] = scales;
    match sub {
        16 => [vsubq_s16(first, vextq_s16::<1>(first, last)), vsubq_s16(last, vextq_s16::<1>(last, zero))],
        _ => [vsubq_s16(first, vextq_s16::<1>(first, zero)), zero],
    }
}

/// The sum of each of four vectors.
#[inline(always)]
fn sum_each(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// `total + v * by[lane]`, for a lane that the compiler knows.
#[inline(always)]
fn add_scaled(total: int32x4_t, v: int32x4_t, by: int32x4_t, lane: usize) -> int32x4_t {
    match lane {
        0 => vmlaq_laneq_s32::<0>(total, v, by),
        1 => vmlaq_laneq_s32::<1>(total, v, by),
        2 => vmlaq_laneq_s32::<2>(total, v, by),
        _ => vmlaq_laneq_s32::<3>(total, v, by),
    }
}

/// `v * by[lane]`, for a lane that the compiler knows.
#[inline(always)]
fn times(v: float32x4_t, by: [float32x4_t; 2], lane: usize) -> float32x4_t {
    let half = by[lane / 4];
    match lane % 4 {
        0 => vmulq_laneq_f32::<0>(v, half),
        1 => vmulq_laneq_f32::<1>(v, half),
        2 => vmulq_laneq_f32::<2>(v, half),
        _ => vmulq_laneq_f32::<3>(v, half),
    }
}

/// The rows of `Job::four` with the token whose blocks are `x[0]`, `x[tokens]`, ...
///
/// # Safety
/// As `super::multiply`.
#[inline(never)]
unsafe fn dot32<F: Block32, L: Level>(job: &Job, r: usize, x: &[Codes32]) -> float32x4_t {
    let mut rows = job.four(r);
    let mut y = vdupq_n_f32(0.0);
    let mut sums = Running { sums: [vdupq_n_s32(0); 4], before: vdupq_n_s32(0), at: rows };
    for group in 0..job.k.div_ceil(256) {
        // SAFETY: there is a block of each token for 256 columns or what is left of them; the rows have as many blocks.
        unsafe {
            let x = x.get_unchecked(group * job.acts.tokens());
            let numbers = [eight(&x.d), eight(&x.s)];
            if group < job.k / 256 {
                super::eight!(sub => { y = next32::<F, L>(&mut sums, rows, x, sub, numbers, y); });
                rows = rows.each(|row| row.wrapping_add(F::EIGHT));
            } else {
                for sub in 0..job.k % 256 / 32 {
                    y = next32::<F, L>(&mut sums, rows, x, sub, numbers, y);
                }
            }
        }
    }
    y
}

#[inline(always)]
fn eight(numbers: &[f32; 8]) -> [float32x4_t; 2] {
    // SAFETY: eight numbers.
    unsafe { [vld1q_f32(numbers.as_ptr()), vld1q_f32(numbers.as_ptr().add(4))] }
}

/// Sums of products of four rows from the first column on, and their totals so far.
struct Running {
    sums: [int32x4_t; 4],
    before: int32x4_t,
    /// The next blocks, in formats with [`Block32::ONE_HALF`].
    at: [*const u8; 4],
}

impl Running {
    /// Adds the products of sixteen columns.
    ///
    /// # Safety
    /// `q` is valid for reading 16 bytes; the processor has the instruction set.
    #[inline(always)]
    unsafe fn add<L: Level>(&mut self, codes: [int8x16_t; 4], q: *const i8) {
        // SAFETY: the caller's promise.
        unsafe {
            let q = load(q.cast());
            for (sum, codes) in self.sums.iter_mut().zip(codes) {
                *sum = L::dot(*sum, codes, q);
            }
        }
    }

    /// The sums since the last call.
    #[inline(always)]
    fn take(&mut self) -> float32x4_t {
        let now = sum_each(self.sums);
        let sums = vsubq_s32(now, self.before);
        self.before = now;
        vcvtq_f32_s32(sums)
    }
}

/// `y` with the products of 32 columns, the sub-block `sub` of the activations, added.
///
/// # Safety
/// The rows are readable and have the sub-block; the processor has the instruction set.
#[inline(always)]
unsafe fn next32<F: Block32, L: Level>(
    sums: &mut Running,
    rows: [*const u8; 4],
    x: &Codes32,
    sub: usize,
    [dx, sx]: [[float32x4_t; 2]; 2],
    mut y: float32x4_t,
) -> float32x4_t {
    let blocks = rows.each(|row| row.wrapping_add(F::BYTES * (sub / F::PARTS)));
    // SAFETY: the caller's promises; the activations are a field of `x`.
    unsafe {
        let q = x.q.as_ptr().add(32 * sub);
        let part = sub % F::PARTS;
        let (codes, [d, min]) = if F::ONE_HALF {
            let (codes, d) = F::next(&mut sums.at);
            (codes, [d; 2])
        } else {
            (F::codes_of_four(blocks, part), F::scales(blocks, part))
        };
        sums.add::<L>(codes.each(|codes| codes[0]), q);
        let mut d = d;
        if F::HALVES {
            y = vfmaq_f32(y, sums.take(), times(d, dx, sub));
            d = min;
        }
        sums.add::<L>(codes.each(|codes| codes[1]), q.add(16));
        y = vfmaq_f32(y, sums.take(), times(d, dx, sub));
        if F::MIN {
            let half = sx[sub / 4];
            y = match sub % 4 {
                0 => vfmaq_laneq_f32::<0>(y, min, half),
                1 => vfmaq_laneq_f32::<1>(y, min, half),
                2 => vfmaq_laneq_f32::<2>(y, min, half),
                _ => vfmaq_laneq_f32::<3>(y, min, half),
            };
        }
    }
    y
}

/// As [`dot32`].
///
/// # Safety
/// As `super::multiply`.
#[inline(never)]
unsafe fn dot256<F: Block256, L: Level>(job: &Job, r: usize, x: &[Codes256]) -> float32x4_t {
    let mut rows = job.four(r);
    let mut y = vdupq_n_f32(0.0);
    for block in 0..job.k / 256 {
        // SAFETY: each row holds `k / 256` blocks, and `x` as many of each token.
        unsafe {
            let x = x.get_unchecked(block * job.acts.tokens());
            let sums = [
                row256::<F, L>(rows[0], x),
                row256::<F, L>(rows[1], x),
                row256::<F, L>(rows[2], x),
                row256::<F, L>(rows[3], x),
            ];
            let codes = vcvtq_f32_s32(sum_each(sums.each(|[codes, _]| codes)));
            let [d, dmin] = F::d(rows);
            y = vfmaq_f32(y, codes, vmulq_n_f32(d, x.d));
            if F::MINS {
                let mins = vcvtq_f32_s32(sum_each(sums.each(|[_, mins]| mins)));
                y = vfmsq_f32(y, mins, vmulq_n_f32(dmin, x.d));
            }
        }
        rows = rows.each(|row| row.wrapping_add(F::BYTES));
    }
    y
}

/// Parts of a block's sums of scale * code * activation, and of min * activation.
///
/// # Safety
/// `block` is a whole block; the processor has the instruction set.
#[inline(always)]
unsafe fn row256<F: Block256, L: Level>(block: *const u8, x: &Codes256) -> [int32x4_t; 2] {
    // SAFETY: the caller's promise; the activations are fields of `x`.
    unsafe {
        let [scales, mins] = F::scales(block);
        let [first, last] = differences(scales, F::SUB);
        let by = [
            opaque(vmovl_s16(vget_low_s16(first))),
            opaque(vmovl_high_s16(first)),
            opaque(vmovl_s16(vget_low_s16(last))),
            opaque(vmovl_high_s16(last)),
        ];
        let mut row =
            Row::<F, L> { q: x.q.as_ptr().cast(), by, sums: vdupq_n_s32(0), total: vdupq_n_s32(0), of: PhantomData };
        F::codes(block, &mut row);
        let mut off = vdupq_n_s32(0);
        if F::MINS {
            let sums = if F::SUB == 16 { x.sum16.as_ptr() } else { x.sum32.as_ptr() };
            for (i, mins) in mins[..F::SUB_VECTORS].iter().enumerate() {
                let sums = vld1q_s16(sums.add(8 * i));
                off = vmlal_s16(off, vget_low_s16(*mins), vget_low_s16(sums));
                off = vmlal_high_s16(off, *mins, sums);
            }
        }
        [row.total, off]
    }
}

/// The sums of a block so far.
struct Row<F, L> {
    q: *const u8,
    /// For each sub-block the difference between its scale and the next one.
    by: [int32x4_t; 4],
    sums: int32x4_t,
    total: int32x4_t,
    of: PhantomData<(F, L)>,
}

impl<F: Block256, L: Level> Visit for &mut Row<F, L> {
    #[inline(always)]
    fn visit(&mut self, sub: usize, codes: [int8x16_t; 2]) {
        // SAFETY: only `row256` makes one, with the activations of a block, where the processor has the instruction set.
        unsafe {
            let q = self.q.add(32 * sub);
            self.sums = L::dot(self.sums, codes[0], load(q));
            if F::SUB == 16 {
                self.total = add_scaled(self.total, self.sums, self.by[sub / 2], 2 * sub % 4);
            }
            self.sums = L::dot(self.sums, codes[1], load(q.add(16)));
            if F::UNSCALED {
                self.total = self.sums;
            } else if F::SUB == 16 {
                self.total = add_scaled(self.total, self.sums, self.by[sub / 2], 2 * sub % 4 + 1);
            } else {
                self.total = add_scaled(self.total, self.sums, self.by[sub / 4], sub % 4);
            }
        }
    }
}
