//! Products of floating-point weights: 256 columns at a time, eight partial sums each.

use super::{AHEAD, prefetch, store4};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{COLUMNS, Floats};
use std::arch::x86_64::*;

/// An unblocked format.
pub(in super::super) trait Float {
    const BYTES: usize;

    /// Eight elements as singles.
    ///
    /// # Safety
    /// `p` is valid for reading `8 * BYTES`; the processor has AVX2 and F16C.
    unsafe fn load8(p: *const u8) -> __m256;
}

pub(in super::super) struct F32;
pub(in super::super) struct F16;
pub(in super::super) struct BF16;

impl Float for F32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise; no alignment is needed.
        unsafe { _mm256_loadu_ps(p.cast()) }
    }
}

impl Float for F16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        _mm256_cvtph_ps(unsafe { super::load128(p) })
    }
}

impl Float for BF16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(p: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        let bits = unsafe { super::load128(p) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

/// Rows that are converted together where there are many tokens: 16 KB of singles.
const ROWS: usize = 16;

/// 256 columns of some rows as singles.
#[repr(C, align(64))]
struct Tile([[f32; COLUMNS]; ROWS]);

/// # Safety
/// As `super::multiply`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn multiply<F: Float>(job: &Job) {
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<F: Float>(job: &Job) {
    let (x, tokens) = (job.acts.floats(), job.acts.tokens());
    for r in job.start..job.start + job.quarter() {
        let rows = job.four(r);
        for t in 0..tokens {
            let mut y = _mm_setzero_ps();
            for block in 0..job.k / COLUMNS {
                let at = COLUMNS * F::BYTES * block;
                for row in rows {
                    prefetch(row.wrapping_add(at + AHEAD), COLUMNS * F::BYTES);
                }
                let here = rows.map(|row| row.wrapping_add(at));
                // SAFETY: the rows hold this block whole.
                y = _mm_add_ps(y, unsafe { dot_block::<F>(here, &x[block * tokens + t]) });
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
                y = _mm_add_ps(y, unsafe { dot_block::<F>(here, &x[job.k / COLUMNS * tokens + t]) });
            }
            // SAFETY: the caller's promises.
            unsafe { store4(job, r, t, y) };
        }
    }
}

/// The last columns of four rows with zeros behind them.
struct Tail([[u8; 4 * COLUMNS]; 4]);

/// Each of four rows' 256 elements with the activations.
///
/// # Safety
/// Each address is valid for reading 256 elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_block<F: Float>(rows: [*const u8; 4], x: &Floats) -> __m128 {
    let mut sums = [_mm256_setzero_ps(); 4];
    for (i, x) in x.x.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: `x` is eight singles, and `i` less than 32.
        unsafe {
            let x = _mm256_loadu_ps(x.as_ptr());
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = _mm256_fmadd_ps(F::load8(row.add(8 * F::BYTES * i)), x, *sum);
            }
        }
    }
    sum_rows(sums)
}

/// ((l0+l2) + (l1+l3)) + ((l4+l6) + (l5+l7)) of each of four vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_rows(v: [__m256; 4]) -> __m128 {
    let first = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    let second = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    let (first, second) = (_mm256_castps_pd(first), _mm256_castps_pd(second));
    let sum = _mm256_add_ps(
        _mm256_castpd_ps(_mm256_unpacklo_pd(first, second)),
        _mm256_castpd_ps(_mm256_unpackhi_pd(first, second)),
    );
    _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum))
}

/// 256 columns of 16 rows at a time, converted once for all tokens. The results so far stand in the output.
///
/// # Safety
/// As `super::multiply`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tiles<F: Float>(job: &Job) {
    let (x, tokens) = (job.acts.floats(), job.acts.tokens());
    let mut tile = Tile([[0.0; COLUMNS]; ROWS]);
    for start in (job.start..job.end).step_by(ROWS) {
        let part = Job { start, end: job.end.min(start + ROWS), ..*job };
        for block in 0..job.k.div_ceil(COLUMNS) {
            // SAFETY: the caller's promises; the tokens of a step are those of the activations.
            unsafe {
                convert::<F>(&part, block, &mut tile);
                let x = &x[block * tokens..][..tokens];
                let mut t = 0;
                while t + 3 <= tokens {
                    step::<3>(&part, &tile, x, t, block == 0);
                    t += 3;
                }
                match tokens - t {
                    2 => step::<2>(&part, &tile, x, t, block == 0),
                    1 => step::<1>(&part, &tile, x, t, block == 0),
                    _ => {}
                }
            }
        }
    }
}

/// # Safety
/// The rows of `job` are readable; the processor has AVX2 and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn convert<F: Float>(job: &Job, block: usize, tile: &mut Tile) {
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
            unsafe { _mm256_storeu_ps(to.as_mut_ptr(), F::load8(from.add(8 * F::BYTES * j))) };
        }
    }
}

/// All rows of the tile with the tokens `t..t + T`, four rows at a time.
///
/// # Safety
/// As `super::multiply`; `first` is true where the output holds nothing yet.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step<const T: usize>(job: &Job, tile: &Tile, x: &[Floats], t: usize, first: bool) {
    let x = &x[t..t + T];
    for (quad, rows) in tile.0[..(job.end - job.start).next_multiple_of(4)].as_chunks::<4>().0.iter().enumerate() {
        let mut sums = [[_mm256_setzero_ps(); 4]; T];
        for i in (0..COLUMNS).step_by(8) {
            // SAFETY: `i + 8` columns are there.
            unsafe {
                let mut xs = [_mm256_setzero_ps(); T];
                for (xs, x) in xs.iter_mut().zip(x) {
                    *xs = _mm256_load_ps(x.x.as_ptr().add(i));
                }
                for (r, row) in rows.iter().enumerate() {
                    let w = _mm256_load_ps(row.as_ptr().add(i));
                    for (sums, x) in sums.iter_mut().zip(xs) {
                        sums[r] = _mm256_fmadd_ps(w, x, sums[r]);
                    }
                }
            }
        }
        let r = job.start + 4 * quad;
        for (i, sums) in sums.into_iter().enumerate() {
            // SAFETY: the caller lets this thread write rows before `job.end`; masked lanes are not touched.
            unsafe {
                let kept = _mm_cmpgt_epi32(_mm_set1_epi32((job.end - r).min(4) as i32), _mm_setr_epi32(0, 1, 2, 3));
                let at = job.out.ptr.add((t + i) * job.out.stride + r);
                let before = if first { _mm_setzero_ps() } else { _mm_maskload_ps(at, kept) };
                _mm_maskstore_ps(at, kept, _mm_add_ps(before, sum_rows(sums)));
            }
        }
    }
}
