//! Products of a tile with many tokens: eight rows with up to four tokens at a time, in registers.

use super::block32::Block32;
use super::block256::Block256;
use super::level::Level;
use super::load;
use super::tile::{GROUPS, PAIR, Spread, Tile32, Tile256};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::panels::{Multiply, ROWS, Step, Tile, panels};
use crate::kernel::neon::*;
use std::mem::MaybeUninit;

/// Pairs of tokens: the last one may be half of a token that is not there.
fn steps<T: Tile>(one: Multiply<T>, two: Multiply<T>) -> [(usize, Multiply<T>); 4] {
    [(1, one), (2, one), (3, two), (4, two)]
}

/// The token `t`, or the last one where `t` lies beyond it.
#[inline(always)]
fn token<'a, T: Tile>(step: &Step<'a, T>, t: usize) -> &'a T::X {
    &step.x[t.min(step.x.len() - 1)]
}

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows32<F: Block32, L: Level>(job: &Job) {
    let [one, two]: [Multiply<Tile32>; 2] = match (F::MIN, F::HALVES) {
        (true, _) => [step32::<true, false, L, 1>, step32::<true, false, L, 2>],
        (_, true) => [step32::<false, true, L, 1>, step32::<false, true, L, 2>],
        _ => [step32::<false, false, L, 1>, step32::<false, false, L, 2>],
    };
    // SAFETY: the caller's promises.
    unsafe { panels(job, |tile, job, eight| tile.fill::<F, L>(job, eight), &steps(one, two)) }
}

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows256<F: Block256, L: Level>(job: &Job) {
    let [one, two]: [Multiply<Tile256>; 2] = match (F::SUB, F::MINS) {
        (16, false) => [step256::<16, false, L, 1>, step256::<16, false, L, 2>],
        (16, true) => [step256::<16, true, L, 1>, step256::<16, true, L, 2>],
        (_, false) => [step256::<32, false, L, 1>, step256::<32, false, L, 2>],
        (_, true) => [step256::<32, true, L, 1>, step256::<32, true, L, 2>],
    };
    // SAFETY: the caller's promises.
    unsafe { panels(job, |tile, job, block| tile.fill::<F, L>(job, block), &steps(one, two)) }
}

/// Sums of `P` pairs of tokens with a pair of groups.
type Sums<V, const P: usize> = [[[V; 2]; PAIR]; P];

/// The codes of `P` pairs of tokens as [`Level::products`] wants them, sixteen columns at a time. All groups of rows share
/// them, at one address.
type Arranged<const P: usize> = [MaybeUninit<[[int8x16_t; 2]; P]>; 16];

/// Arranges 32 columns of pairs of tokens for each two of `to`.
///
/// # Safety
/// The addresses are valid for reading as many bytes.
#[inline(always)]
unsafe fn arrange<L: Level, const P: usize>(q: [[*const i8; 2]; P], to: &mut [MaybeUninit<[[int8x16_t; 2]; P]>]) {
    for (i, to) in to.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        for (half, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let of = |q: *const i8| unsafe { load(q.add(32 * i + 16 * half).cast()) };
            to.write(q.map(|[a, b]| L::arrange_tokens([of(a), of(b)])));
        }
    }
}

/// `address`, which the compiler does not know before it has the sums.
#[inline(always)]
fn behind_all<T, const P: usize>(mut address: *const T, sums: &Sums<int32x4_t, P>) -> *const T {
    for [[a, b], [c, d]] in sums {
        for sums in [a, b, c, d] {
            address = behind(address, *sums);
        }
    }
    address
}

/// Adds the products of the sixteen columns that start at `codes`, which become the next ones.
///
/// # Safety
/// The codes of a pair of groups are readable; the processor has the instruction set.
#[inline(always)]
unsafe fn add_products<L: Level, const P: usize>(
    mut sums: Sums<int32x4_t, P>,
    codes: &mut *const i8,
    q: &[[int8x16_t; 2]; P],
) -> Sums<int32x4_t, P> {
    *codes = behind_all(*codes, &sums);
    // SAFETY: the caller's promises.
    unsafe {
        let w: [[int8x16_t; 4]; PAIR] = load_128_in_steps(codes);
        for (sums, q) in sums.iter_mut().zip(q) {
            for (sums, w) in sums.iter_mut().zip(w) {
                *sums = L::products(*sums, w, *q);
            }
        }
    }
    sums
}

/// What a tile has for each row, of a pair of groups.
#[inline(always)]
fn of_pair(from: &Spread, group: usize) -> &[[f32; 8]; PAIR] {
    &from.as_chunks().0[group / PAIR]
}

/// A number of each row of a pair of groups.
#[inline(always)]
fn spread<L: Level>(from: &[[f32; 8]; PAIR]) -> [[float32x4_t; 2]; PAIR] {
    std::array::from_fn(|j| L::spread(&from[j]))
}

/// All rows of the tile with the pairs of tokens from `t` on, added to the results at `to`.
///
/// # Safety
/// `to` holds the results of `P` pairs of tokens; the processor has the instruction set.
#[inline(never)] // Formats of a kind share it.
unsafe fn step32<const MIN: bool, const HALVES: bool, L: Level, const P: usize>(
    step: &Step<Tile32>,
    t: usize,
    to: *mut [f32; ROWS],
) {
    let x: [[&Codes32; 2]; P] = std::array::from_fn(|p| [0, 1].map(|i| token(step, t + 2 * p + i)));
    let count = (step.columns / 32).min(8);
    let mut q: Arranged<P> = [const { MaybeUninit::uninit() }; 16];
    // SAFETY: as many columns are there.
    unsafe { arrange::<L, P>(x.map(|pair| pair.map(|x| x.q.as_ptr())), &mut q[..2 * count]) };
    // Of each 32 columns the scales of the activations, and what their codes add up to.
    let mut numbers: [[MaybeUninit<[[float32x4_t; 2]; P]>; 2]; 8] = [const { [const { MaybeUninit::uninit() }; 2] }; 8];
    for (sub, [scales, sums]) in numbers[..count].iter_mut().enumerate() {
        scales.write(x.map(|[a, b]| L::of_tokens([a.d[sub], b.d[sub]])));
        if MIN {
            sums.write(x.map(|[a, b]| L::of_tokens([a.s[sub], b.s[sub]])));
        }
    }
    let zero = [[[vdupq_n_s32(0); 2]; PAIR]; P];
    for group in step.groups(4, PAIR) {
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let at = |p: usize, j: usize, i: usize| to.add(2 * p + i).cast::<f32>().add(4 * (group + j));
            let mut y: Sums<float32x4_t, P> = std::array::from_fn(|p| {
                std::array::from_fn(|j| L::by_sums([vld1q_f32(at(p, j, 0)), vld1q_f32(at(p, j, 1))]))
            });
            let mut codes = step.tile.codes[group / PAIR].as_ptr().cast();
            for sub in 0..count {
                let add = |y: &mut Sums<float32x4_t, P>, sums: Sums<int32x4_t, P>, d: &[Spread; 8]| {
                    let d = spread::<L>(&*behind_all(of_pair(&d[sub], group), &sums));
                    let [dx, _] = &*behind_all(&numbers[sub], &sums);
                    let dx = dx.assume_init_ref();
                    for ((y, sums), dx) in y.iter_mut().zip(sums).zip(dx) {
                        for ((y, sums), d) in y.iter_mut().zip(sums).zip(d) {
                            for i in 0..2 {
                                y[i] = vfmaq_f32(y[i], vcvtq_f32_s32(sums[i]), vmulq_f32(d[i], dx[i]));
                            }
                        }
                    }
                };
                let (d, last) = (&step.tile.d, &step.tile.min);
                let first = add_products::<L, P>(zero, &mut codes, q[2 * sub].assume_init_ref());
                if HALVES {
                    add(&mut y, first, d);
                }
                let start = if HALVES { zero } else { first };
                let sums = add_products::<L, P>(start, &mut codes, q[2 * sub + 1].assume_init_ref());
                add(&mut y, sums, if HALVES { last } else { d });
                if MIN {
                    let last = spread::<L>(of_pair(&last[sub], group));
                    for (y, sx) in y.iter_mut().zip(numbers[sub][1].assume_init_ref()) {
                        for (y, min) in y.iter_mut().zip(last) {
                            for i in 0..2 {
                                y[i] = vfmaq_f32(y[i], min[i], sx[i]);
                            }
                        }
                    }
                }
            }
            for (p, y) in y.into_iter().enumerate() {
                for (j, y) in y.into_iter().enumerate() {
                    let tokens = L::by_token([vreinterpretq_s32_f32(y[0]), vreinterpretq_s32_f32(y[1])]);
                    for (i, y) in tokens.into_iter().enumerate() {
                        vst1q_f32(at(p, j, i), vreinterpretq_f32_s32(y));
                    }
                }
            }
        }
    }
}

/// As [`step32`].
///
/// # Safety
/// As [`step32`].
#[inline(never)] // Formats of a kind share it.
unsafe fn step256<const SUB: usize, const MINS: bool, L: Level, const P: usize>(
    step: &Step<Tile256>,
    t: usize,
    to: *mut [f32; ROWS],
) {
    let x: [[&Codes256; 2]; P] = std::array::from_fn(|p| [0, 1].map(|i| token(step, t + 2 * p + i)));
    let mut q: Arranged<P> = [const { MaybeUninit::uninit() }; 16];
    // SAFETY: 256 columns are there.
    unsafe { arrange::<L, P>(x.map(|pair| pair.map(|x| x.q.as_ptr())), &mut q) };
    for group in step.groups(4, PAIR) {
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; PAIR]; P];
            let mut totals = sums;
            let mut codes = step.tile.codes[group / PAIR].as_ptr().cast();
            for (sub, q) in q.chunks_exact(SUB / 16).enumerate() {
                for q in q {
                    sums = add_products::<L, P>(sums, &mut codes, q.assume_init_ref());
                }
                let scales = spread::<L>(&*behind_all(of_pair(&step.tile.scales[sub], group), &sums));
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for ((totals, sums), scales) in totals.iter_mut().zip(sums).zip(scales) {
                        for i in 0..2 {
                            totals[i] = vmlaq_s32(totals[i], sums[i], vreinterpretq_s32_f32(scales[i]));
                        }
                    }
                }
            }
            for j in 0..PAIR {
                let d = vld1q_f32(step.tile.d[group + j].as_ptr());
                let dmin = vld1q_f32(step.tile.dmin[group + j].as_ptr());
                for (p, totals) in totals.iter().enumerate() {
                    for (i, total) in L::by_token(totals[j]).into_iter().enumerate() {
                        let x = x[p][i];
                        let to = to.add(2 * p + i).cast::<f32>().add(4 * (group + j));
                        let mut y = vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(total), vmulq_n_f32(d, x.d));
                        if MINS {
                            let mins = vcvtq_f32_s32(sum_of_mins::<SUB>(&step.tile.mins, group + j, x));
                            y = vfmsq_f32(y, mins, vmulq_n_f32(dmin, x.d));
                        }
                        vst1q_f32(to, y);
                    }
                }
            }
        }
    }
}

/// The sums of min * activation of four rows.
#[inline(always)]
fn sum_of_mins<const SUB: usize>(mins: &[[[i16; 4]; GROUPS]; 16], group: usize, x: &Codes256) -> int32x4_t {
    let mut sum = vdupq_n_s32(0);
    let sums: &[i16] = if SUB == 16 { &x.sum16 } else { &x.sum32 };
    for (mins, sums) in mins.as_chunks::<8>().0.iter().zip(sums.as_chunks::<8>().0) {
        // SAFETY: eight numbers.
        let sums = unsafe { vld1q_s16(sums.as_ptr()) };
        // SAFETY: four numbers.
        let of = |sub: usize| unsafe { vld1_s16(mins[sub][group].as_ptr()) };
        sum = vmlal_laneq_s16::<0>(sum, of(0), sums);
        sum = vmlal_laneq_s16::<1>(sum, of(1), sums);
        sum = vmlal_laneq_s16::<2>(sum, of(2), sums);
        sum = vmlal_laneq_s16::<3>(sum, of(3), sums);
        sum = vmlal_laneq_s16::<4>(sum, of(4), sums);
        sum = vmlal_laneq_s16::<5>(sum, of(5), sums);
        sum = vmlal_laneq_s16::<6>(sum, of(6), sums);
        sum = vmlal_laneq_s16::<7>(sum, of(7), sums);
    }
    sum
}
