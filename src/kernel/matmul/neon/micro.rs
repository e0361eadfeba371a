//! Products of a tile with many tokens: eight rows with up to four tokens at a time, in registers.

use super::block32::Block32;
use super::block256::Block256;
use super::level::Level;
use super::load;
use super::tile::{GROUPS, ROWS, Spread, Tile32, Tile256};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Activations, Codes32, Codes256};
use crate::kernel::neon::*;

/// Groups of four rows that share a pass over the activations.
const PAIR: usize = 2;

/// Tokens whose results are kept at hand while the columns go by: 64 KB. Were they summed in the output, whose rows lie
/// whole multiples of 4 KB apart in most models, few of them would stay in a cache. Each panel takes the blocks apart anew.
const PANEL: usize = 512;

/// Results so far: of each token, all rows of a tile.
#[repr(C, align(64))]
struct Results([[f32; ROWS]; PANEL]);

/// What a tile of rows is for the loop over rows, columns and tokens.
trait Tile: Sized {
    const EMPTY: Self;
    /// 256 activations of a token.
    type X;
    fn of<'a>(acts: &'a Activations) -> &'a [Self::X];
}

impl Tile for Tile32 {
    const EMPTY: Tile32 = Tile32::EMPTY;
    type X = Codes32;
    fn of<'a>(acts: &'a Activations) -> &'a [Codes32] {
        acts.codes32()
    }
}

impl Tile for Tile256 {
    const EMPTY: Tile256 = Tile256::EMPTY;
    type X = Codes256;
    fn of<'a>(acts: &'a Activations) -> &'a [Codes256] {
        acts.codes256()
    }
}

/// Takes blocks apart for a tile.
type Fill<T> = unsafe fn(&mut T, &Job, usize);
/// Multiplies a tile with some pairs of tokens.
type Multiply<T> = unsafe fn(&Step<T>, usize, *mut [f32; ROWS]);

/// A tile of so many rows, and the activations of a panel's tokens that belong to its columns.
struct Step<'a, T: Tile> {
    tile: &'a T,
    x: &'a [T::X],
    columns: usize,
    rows: usize,
}

impl<T: Tile> Step<'_, T> {
    /// The token `t`, or the last one where `t` lies beyond it.
    #[inline(always)]
    fn token(&self, t: usize) -> &T::X {
        &self.x[t.min(self.x.len() - 1)]
    }

    /// The groups with rows, the first of every pair.
    #[inline(always)]
    fn groups(&self) -> impl Iterator<Item = usize> + use<T> {
        (0..self.rows.div_ceil(4)).step_by(PAIR)
    }
}

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows32<F: Block32, L: Level>(job: &Job) {
    let steps: [Multiply<Tile32>; 2] = match (F::MIN, F::HALVES) {
        (true, _) => [step32::<true, false, L, 1>, step32::<true, false, L, 2>],
        (_, true) => [step32::<false, true, L, 1>, step32::<false, true, L, 2>],
        _ => [step32::<false, false, L, 1>, step32::<false, false, L, 2>],
    };
    // SAFETY: the caller's promises.
    unsafe { panels(job, |tile, job, eight| tile.fill::<F, L>(job, eight), steps) }
}

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows256<F: Block256, L: Level>(job: &Job) {
    let steps: [Multiply<Tile256>; 2] = match (F::SUB, F::MINS) {
        (16, false) => [step256::<16, false, L, 1>, step256::<16, false, L, 2>],
        (16, true) => [step256::<16, true, L, 1>, step256::<16, true, L, 2>],
        (_, false) => [step256::<32, false, L, 1>, step256::<32, false, L, 2>],
        (_, true) => [step256::<32, true, L, 1>, step256::<32, true, L, 2>],
    };
    // SAFETY: the caller's promises.
    unsafe { panels(job, |tile, job, block| tile.fill::<F, L>(job, block), steps) }
}

/// The loop over rows, columns and tokens. Formats and instruction sets share it: it is given what takes the format's
/// blocks apart, and what multiplies a tile with one and with two pairs of tokens.
///
/// # Safety
/// As `super::multiply`; `fill` is that of the rows' format, and the processor has the instruction set of `steps`.
#[inline(never)]
unsafe fn panels<T: Tile>(job: &Job, fill: Fill<T>, [one, two]: [Multiply<T>; 2]) {
    let (x, tokens) = (T::of(job.acts), job.acts.tokens());
    let mut tile = T::EMPTY;
    let mut results = Results([[0.0; ROWS]; PANEL]);
    for start in (job.start..job.end).step_by(ROWS) {
        let part = Job { start, end: job.end.min(start + ROWS), ..*job };
        for from in (0..tokens).step_by(PANEL) {
            let count = PANEL.min(tokens - from);
            // Tokens go by pairs.
            let places = count.next_multiple_of(2);
            results.0[..places].fill([0.0; ROWS]);
            for block in 0..job.k.div_ceil(256) {
                // SAFETY: the caller's promises; there are results for each pair of tokens.
                unsafe {
                    fill(&mut tile, &part, block);
                    let x = &x[block * tokens + from..][..count];
                    let columns = (job.k - 256 * block).min(256);
                    let step = Step { tile: &tile, x, columns, rows: part.end - part.start };
                    let mut t = 0;
                    while t + 4 <= places {
                        two(&step, t, results.0[t..].as_mut_ptr());
                        t += 4;
                    }
                    while t < places {
                        one(&step, t, results.0[t..].as_mut_ptr());
                        t += 2;
                    }
                }
            }
            for (i, y) in results.0[..count].iter().enumerate() {
                // SAFETY: the caller lets this thread write its rows of every token.
                unsafe {
                    let to = job.out.ptr.add((from + i) * job.out.stride + part.start);
                    to.copy_from_nonoverlapping(y.as_ptr(), part.end - part.start);
                }
            }
        }
    }
}

/// Sums of `P` pairs of tokens with a pair of groups.
type Sums<V, const P: usize> = [[[V; 2]; PAIR]; P];

/// The codes of `P` pairs of tokens as [`Level::products`] wants them, sixteen columns at a time. All groups of rows share
/// them, at one address.
type Arranged<const P: usize> = [[[int8x16_t; 2]; P]; 16];

/// Arranges the first `count` times sixteen columns of pairs of tokens.
///
/// # Safety
/// The addresses are valid for reading as many bytes.
#[inline(always)]
unsafe fn arrange<L: Level, const P: usize>(q: [[*const i8; 2]; P], count: usize) -> Arranged<P> {
    let mut arranged = [[[vdupq_n_s8(0); 2]; P]; 16];
    for (chunk, arranged) in arranged[..count].iter_mut().enumerate() {
        for (arranged, q) in arranged.iter_mut().zip(q) {
            // SAFETY: the caller's promise.
            *arranged =
                unsafe { L::arrange_tokens([load(q[0].add(16 * chunk).cast()), load(q[1].add(16 * chunk).cast())]) };
        }
    }
    arranged
}

/// Adds the products of sixteen columns.
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
unsafe fn add_products<L: Level, const P: usize>(
    mut sums: Sums<int32x4_t, P>,
    codes: &[[i8; 64]; GROUPS],
    group: usize,
    q: &[[int8x16_t; 2]; P],
) -> Sums<int32x4_t, P> {
    // SAFETY: four vectors of codes; the instruction set is the caller's promise.
    unsafe {
        let w: [[int8x16_t; 4]; PAIR] = std::array::from_fn(|j| {
            let codes: *const u8 = codes[group + j].as_ptr().cast();
            std::array::from_fn(|i| load(codes.add(16 * i)))
        });
        for (sums, q) in sums.iter_mut().zip(q) {
            for (sums, w) in sums.iter_mut().zip(w) {
                *sums = L::products(*sums, w, *q);
            }
        }
    }
    sums
}

/// A number of each row of a pair of groups.
#[inline(always)]
fn spread<L: Level>(from: &Spread, group: usize) -> [[float32x4_t; 2]; PAIR] {
    std::array::from_fn(|j| L::spread(&from[group + j]))
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
    let x: [[&Codes32; 2]; P] = std::array::from_fn(|p| [0, 1].map(|i| step.token(t + 2 * p + i)));
    let count = (step.columns / 32).min(8);
    // SAFETY: as many columns are there.
    let q = unsafe { arrange::<L, P>(x.map(|pair| pair.map(|x| x.q.as_ptr())), 2 * count) };
    let mut scales = [[[vdupq_n_f32(0.0); 2]; P]; 8];
    let mut sums_of_x = scales;
    for sub in 0..count {
        for p in 0..P {
            scales[sub][p] = L::of_tokens([x[p][0].d[sub], x[p][1].d[sub]]);
            if MIN {
                sums_of_x[sub][p] = L::of_tokens([x[p][0].s[sub], x[p][1].s[sub]]);
            }
        }
    }
    let zero = [[[vdupq_n_s32(0); 2]; PAIR]; P];
    for group in step.groups() {
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let at = |p: usize, j: usize, i: usize| to.add(2 * p + i).cast::<f32>().add(4 * (group + j));
            let mut y: Sums<float32x4_t, P> = std::array::from_fn(|p| {
                std::array::from_fn(|j| L::by_sums([vld1q_f32(at(p, j, 0)), vld1q_f32(at(p, j, 1))]))
            });
            for sub in 0..count {
                let d = spread::<L>(&step.tile.d[sub], group);
                let last = spread::<L>(&step.tile.min[sub], group);
                let dx = scales[sub];
                let add = |y: &mut Sums<float32x4_t, P>, sums: Sums<int32x4_t, P>, d: [[float32x4_t; 2]; PAIR]| {
                    for ((y, sums), dx) in y.iter_mut().zip(sums).zip(dx) {
                        for ((y, sums), d) in y.iter_mut().zip(sums).zip(d) {
                            for i in 0..2 {
                                y[i] = vfmaq_f32(y[i], vcvtq_f32_s32(sums[i]), vmulq_f32(d[i], dx[i]));
                            }
                        }
                    }
                };
                let first = add_products::<L, P>(zero, &step.tile.codes[2 * sub], group, &q[2 * sub]);
                if HALVES {
                    add(&mut y, first, d);
                }
                let start = if HALVES { zero } else { first };
                let sums = add_products::<L, P>(start, &step.tile.codes[2 * sub + 1], group, &q[2 * sub + 1]);
                add(&mut y, sums, if HALVES { last } else { d });
                if MIN {
                    for (y, sx) in y.iter_mut().zip(sums_of_x[sub]) {
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
    let x: [[&Codes256; 2]; P] = std::array::from_fn(|p| [0, 1].map(|i| step.token(t + 2 * p + i)));
    // SAFETY: 256 columns are there.
    let q = unsafe { arrange::<L, P>(x.map(|pair| pair.map(|x| x.q.as_ptr())), 16) };
    for group in step.groups() {
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let mut sums = [[[vdupq_n_s32(0); 2]; PAIR]; P];
            let mut totals = sums;
            for (sub, codes) in step.tile.codes.chunks_exact(SUB / 16).enumerate() {
                for (i, codes) in codes.iter().enumerate() {
                    sums = add_products::<L, P>(sums, codes, group, &q[SUB / 16 * sub + i]);
                }
                let scales = spread::<L>(&step.tile.scales[sub], group);
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
