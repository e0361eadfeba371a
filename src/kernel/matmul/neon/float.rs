//! Products of floating-point weights: 256 columns at a time, eight partial sums each, in two vectors.
//!
//! The instructions for BF16 are not used: they round twice where a fused product rounds once, and take subnormal numbers
//! for zero.

use super::store4;
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{COLUMNS, Floats};
use crate::kernel::neon;
use crate::kernel::neon::*;

/// An unblocked format.
pub(super) trait Float {
    const BYTES: usize;

    /// Eight elements as singles.
    ///
    /// # Safety
    /// `p` is valid for reading `8 * BYTES`.
    unsafe fn load8(p: *const u8) -> [float32x4_t; 2];
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Float for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load8(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller's promise; no alignment is needed.
        unsafe { [super::load(p), super::load(p.add(16))] }.each(|v| vreinterpretq_f32_s8(v))
    }
}

impl Float for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load8(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller's promise; no alignment is needed.
        neon::from_halves(vreinterpretq_u16_s8(unsafe { super::load(p) }))
    }
}

impl Float for BF16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load8(p: *const u8) -> [float32x4_t; 2] {
        // SAFETY: the caller's promise; no alignment is needed.
        let bits = vreinterpretq_u16_s8(unsafe { super::load(p) });
        [vshll_n_u16::<16>(vget_low_u16(bits)), vshll_high_n_u16::<16>(bits)].each(|v| vreinterpretq_f32_u32(v))
    }
}

/// Rows that are converted together where there are many tokens: 16 KB of singles.
const ROWS: usize = 16;

/// 256 columns of some rows as singles.
#[repr(C, align(64))]
struct Tile([[f32; COLUMNS]; ROWS]);

/// The last columns of four rows with zeros behind them.
struct Tail([[u8; 4 * COLUMNS]; 4]);

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn multiply<F: Float>(job: &Job) {
    // SAFETY: the caller's promises.
    unsafe {
        match job.acts.tokens() < super::TILED {
            true => rows::<F>(job),
            false => tiles::<F>(job),
        }
    }
}

/// Straight from the file's elements, four rows at a time.
///
/// # Safety
/// As `super::multiply`.
#[inline(never)]
unsafe fn rows<F: Float>(job: &Job) {
    let (x, tokens) = (job.acts.floats(), job.acts.tokens());
    for r in job.start..job.start + job.quarter() {
        let rows = job.four(r);
        for t in 0..tokens {
            let mut y = vdupq_n_f32(0.0);
            for block in 0..job.k / COLUMNS {
                let here = rows.each(|row| row.wrapping_add(COLUMNS * F::BYTES * block));
                // SAFETY: the rows hold this block whole.
                y = vaddq_f32(y, unsafe { dot_block::<F>(here, &x[block * tokens + t]) });
            }
            let left = job.k % COLUMNS;
            if left > 0 {
                let mut tail = Tail([[0; 4 * COLUMNS]; 4]);
                for (tail, row) in tail.0.iter_mut().zip(rows) {
                    // SAFETY: the last `left` elements of a row of the caller's slice.
                    let row = unsafe { std::slice::from_raw_parts(row, job.row_bytes) };
                    tail[..left * F::BYTES].copy_from_slice(&row[(job.k - left) * F::BYTES..]);
                }
                let [a, b, c, d] = &tail.0;
                let here = [a.as_ptr(), b.as_ptr(), c.as_ptr(), d.as_ptr()];
                // SAFETY: each tail has room for 256 elements of the largest format.
                y = vaddq_f32(y, unsafe { dot_block::<F>(here, &x[job.k / COLUMNS * tokens + t]) });
            }
            // SAFETY: the caller's promises.
            unsafe { store4(job, r, t, y) };
        }
    }
}

/// Each of four rows' 256 elements with the activations.
///
/// # Safety
/// Each address is valid for reading 256 elements.
#[inline(always)]
unsafe fn dot_block<F: Float>(rows: [*const u8; 4], x: &Floats) -> float32x4_t {
    let mut sums = [[vdupq_n_f32(0.0); 2]; 4];
    for (i, x) in x.x.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: `x` is eight singles, and `i` less than 32.
        unsafe {
            let x = [vld1q_f32(x.as_ptr()), vld1q_f32(x.as_ptr().add(4))];
            for (sum, row) in sums.iter_mut().zip(rows) {
                let w = F::load8(row.add(8 * F::BYTES * i));
                *sum = [vfmaq_f32(sum[0], w[0], x[0]), vfmaq_f32(sum[1], w[1], x[1])];
            }
        }
    }
    sum_rows(sums)
}

/// ((l0+l2) + (l1+l3)) + ((l4+l6) + (l5+l7)) of each of four times eight lanes.
#[inline(always)]
fn sum_rows(v: [[float32x4_t; 2]; 4]) -> float32x4_t {
    let pair = |a: float32x4_t, b: float32x4_t| {
        let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
        vaddq_f32(vreinterpretq_f32_f64(vtrn1q_f64(a, b)), vreinterpretq_f32_f64(vtrn2q_f64(a, b)))
    };
    let four = |i: usize| vpaddq_f32(pair(v[0][i], v[1][i]), pair(v[2][i], v[3][i]));
    vaddq_f32(four(0), four(1))
}

/// 256 columns of 16 rows at a time, converted once for all tokens. The results so far stand in the output.
///
/// # Safety
/// As `super::multiply`.
#[inline(never)]
unsafe fn tiles<F: Float>(job: &Job) {
    let (x, tokens) = (job.acts.floats(), job.acts.tokens());
    let mut tile = Tile([[0.0; COLUMNS]; ROWS]);
    for start in (job.start..job.end).step_by(ROWS) {
        let part = Job { start, end: job.end.min(start + ROWS), ..*job };
        for block in 0..job.k.div_ceil(COLUMNS) {
            convert::<F>(&part, block, &mut tile);
            let x = &x[block * tokens..][..tokens];
            let mut t = 0;
            while t + 2 <= tokens {
                // SAFETY: the caller's promises; the tokens of a step are those of the activations.
                unsafe { step::<2>(&part, &tile, x, t, block == 0) };
                t += 2;
            }
            if t < tokens {
                // SAFETY: as above.
                unsafe { step::<1>(&part, &tile, x, t, block == 0) };
            }
        }
    }
}

fn convert<F: Float>(job: &Job, block: usize, tile: &mut Tile) {
    let columns = COLUMNS.min(job.k - COLUMNS * block);
    for (i, to) in tile.0[..job.end - job.start].iter_mut().enumerate() {
        // SAFETY: a row of the caller's slice.
        let row = unsafe { std::slice::from_raw_parts(job.row(job.start + i), job.row_bytes) };
        let from = &row[COLUMNS * F::BYTES * block..][..columns * F::BYTES];
        let mut tail = [0; 4 * COLUMNS];
        let from = match columns {
            COLUMNS => from.as_ptr(),
            _ => {
                tail[..from.len()].copy_from_slice(from);
                tail.as_ptr()
            }
        };
        for (j, to) in to.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // SAFETY: 256 elements are readable from `from` on, and `to` is eight singles.
            unsafe {
                let w = F::load8(from.add(8 * F::BYTES * j));
                vst1q_f32(to.as_mut_ptr(), w[0]);
                vst1q_f32(to.as_mut_ptr().add(4), w[1]);
            }
        }
    }
}

/// All rows of the tile with the tokens `t..t + T`, four rows at a time.
///
/// # Safety
/// As `super::multiply`; `first` is true where the output holds nothing yet.
#[inline(never)] // Formats share it.
unsafe fn step<const T: usize>(job: &Job, tile: &Tile, x: &[Floats], t: usize, first: bool) {
    let x = &x[t..t + T];
    for (quad, rows) in tile.0[..(job.end - job.start).next_multiple_of(4)].as_chunks::<4>().0.iter().enumerate() {
        let mut sums = [[[vdupq_n_f32(0.0); 2]; 4]; T];
        for i in (0..COLUMNS).step_by(8) {
            // SAFETY: `i + 8` columns are there.
            let eight = |row: &[f32; COLUMNS]| unsafe {
                let p = row.as_ptr().add(i);
                [vld1q_f32(p), vld1q_f32(p.add(4))]
            };
            let xs: [_; T] = std::array::from_fn(|t| eight(&x[t].x));
            for (r, row) in rows.iter().enumerate() {
                let w = eight(row);
                for (sums, x) in sums.iter_mut().zip(xs) {
                    sums[r] = [vfmaq_f32(sums[r][0], w[0], x[0]), vfmaq_f32(sums[r][1], w[1], x[1])];
                }
            }
        }
        let r = job.start + 4 * quad;
        let count = (job.end - r).min(4);
        for (i, sums) in sums.into_iter().enumerate() {
            let mut four = [0f32; 4];
            // SAFETY: room for four.
            unsafe { vst1q_f32(four.as_mut_ptr(), sum_rows(sums)) };
            for (j, sum) in four[..count].iter().enumerate() {
                // SAFETY: the caller lets this thread write rows before `job.end`.
                unsafe {
                    let to = job.out.ptr.add((t + i) * job.out.stride + r + j);
                    *to = if first { 0.0 + sum } else { *to + sum };
                }
            }
        }
    }
}
