//! Products of a tile with many tokens: 32 rows with up to six tokens at a time, in registers.

use super::{SHIFT, add_pairs, unsigned};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::avx2::block32::Block32;
use crate::kernel::matmul::avx2::block256::Block256;
use crate::kernel::matmul::avx2::micro::{PANEL, Results, Step, over_tiles};
use crate::kernel::matmul::avx2::tile::{GROUPS, ROWS, Tile32, Tile256};
use std::arch::x86_64::*;

/// Tokens that share a pass over the tile.
const TOKENS: usize = 6;
/// Vectors of 16 rows in a tile.
const PAIR: usize = ROWS / 16;

/// Sums of `T` tokens with all rows.
type Sums<V, const T: usize> = [[V; PAIR]; T];

over_tiles!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi",
    rows32, Block32, Tile32, codes32, step32, [1 2 3 4 5]
);
over_tiles!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi",
    rows256, Block256, Tile256, codes256, step256, [1 2 3 4 5]
);

/// 16 rows of something that a tile has for every row.
#[inline]
#[target_feature(enable = "avx512f")]
fn pair<T: Copy>(groups: &[T; GROUPS]) -> [__m512i; PAIR] {
    const { assert!(size_of::<T>() == 32 && 2 * PAIR == GROUPS) };
    let p = groups.as_ptr();
    // SAFETY: two groups are 64 bytes each.
    unsafe { [_mm512_loadu_si512(p.cast()), _mm512_loadu_si512(p.add(2).cast())] }
}

/// The products of the columns of `codes` with `T` tokens, from `start`.
///
/// # Safety
/// Each address of `q` is valid for reading four activations for each of `codes`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot<const T: usize>(
    signed: bool,
    codes: &[[[u8; 32]; GROUPS]],
    q: [*const i8; T],
    start: [__m512i; T],
) -> Sums<__m512i, T> {
    let mut sums = [[_mm512_setzero_si512(); PAIR]; T];
    for (sums, start) in sums.iter_mut().zip(start) {
        *sums = [start; PAIR];
    }
    for (quad, codes) in codes.iter().enumerate() {
        let [w0, w1] = pair(codes);
        let w = [unsigned(signed, w0), unsigned(signed, w1)];
        for (sums, q) in sums.iter_mut().zip(q) {
            // SAFETY: the caller's promise; no alignment is needed.
            let x = _mm512_set1_epi32(unsafe { q.add(4 * quad).cast::<i32>().read_unaligned() });
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = _mm512_dpbusd_epi32(*sum, w, x);
            }
        }
    }
    sums
}

/// Results so far.
///
/// # Safety
/// `y` holds the results of `T` tokens.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn results<const T: usize>(y: *const [f32; ROWS]) -> Sums<__m512, T> {
    // SAFETY: the caller's promise; there are two vectors for each token.
    std::array::from_fn(|t| {
        std::array::from_fn(|half| unsafe { _mm512_load_ps(y.add(t).cast::<f32>().add(16 * half)) })
    })
}

/// # Safety
/// As [`results`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn keep<const T: usize>(y: *mut [f32; ROWS], sums: Sums<__m512, T>) {
    for (t, sums) in sums.into_iter().enumerate() {
        for (half, sum) in sums.into_iter().enumerate() {
            // SAFETY: as in `results`.
            unsafe { _mm512_store_ps(y.add(t).cast::<f32>().add(16 * half), sum) };
        }
    }
}

/// All rows of the tile with the tokens `t..t + T`, added to the results at `to`.
///
/// # Safety
/// `to` holds the results of `T` tokens; the processor has the instruction set.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn step32<F: Block32, const T: usize>(step: &Step<Tile32, Codes32>, t: usize, to: *mut [f32; ROWS]) {
    let x: &[Codes32; T] = step.x[t..t + T].try_into().expect("T tokens");
    let offset = if F::SIGNED { SHIFT } else { F::OFFSET };
    // SAFETY: the caller's promises; every address is that of a field.
    unsafe {
        let mut y = results::<T>(to);
        for sub in 0..step.columns / 32 {
            let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(32 * sub));
            let mut start = [_mm512_setzero_si512(); T];
            for (start, x) in start.iter_mut().zip(x) {
                *start = _mm512_set1_epi32(-offset * x.sum[sub]);
            }
            let sums = dot(F::SIGNED, &step.tile.codes[8 * sub..][..8], q, start);
            let (d, min) = (pair(&step.tile.d[sub]), pair(&step.tile.min[sub]));
            for ((y, sums), x) in y.iter_mut().zip(sums).zip(x) {
                for half in 0..PAIR {
                    let scale = _mm512_mul_ps(_mm512_castsi512_ps(d[half]), _mm512_set1_ps(x.d[sub]));
                    y[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[half]), scale, y[half]);
                    if F::MIN {
                        let min = _mm512_castsi512_ps(min[half]);
                        y[half] = _mm512_fmadd_ps(min, _mm512_set1_ps(x.s[sub]), y[half]);
                    }
                }
            }
        }
        keep(to, y);
    }
}

/// As [`step32`].
///
/// # Safety
/// As [`step32`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn step256<F: Block256, const T: usize>(step: &Step<Tile256, Codes256>, t: usize, to: *mut [f32; ROWS]) {
    let x: &[Codes256; T] = step.x[t..t + T].try_into().expect("T tokens");
    // SAFETY: the caller's promises; every address is that of a field.
    unsafe {
        let mut totals = [[_mm512_setzero_si512(); PAIR]; T];
        for (sub, codes) in step.tile.codes.chunks_exact(F::SUB / 4).enumerate() {
            let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(F::SUB * sub));
            let mut start = [_mm512_setzero_si512(); T];
            if F::SIGNED {
                const { assert!(!F::SIGNED || F::SUB == 32) };
                for (start, x) in start.iter_mut().zip(x) {
                    *start = _mm512_set1_epi32(-SHIFT * x.sum32[sub] as i32);
                }
            }
            let sums = dot(F::SIGNED, codes, q, start);
            let scales = pair(&step.tile.scales[sub]);
            for (totals, sums) in totals.iter_mut().zip(sums) {
                for half in 0..PAIR {
                    // The tile has each 16-bit scale twice in a lane.
                    let part = _mm512_mullo_epi32(sums[half], _mm512_srai_epi32::<16>(scales[half]));
                    totals[half] = _mm512_add_epi32(totals[half], part);
                }
            }
        }
        let mut mins = [[_mm512_setzero_si512(); PAIR]; T];
        if F::MINS || F::OFFSET != 0 {
            for i in 0..128 / F::SUB {
                let pairs = pair(&step.tile.mins[i]);
                for (mins, x) in mins.iter_mut().zip(x) {
                    let sums = _mm512_set1_epi32(x.pair_of_sums(F::SUB, i));
                    for half in 0..PAIR {
                        mins[half] = add_pairs(mins[half], pairs[half], sums);
                    }
                }
            }
        }
        let (d, dmin) = (pair(&step.tile.d), pair(&step.tile.dmin));
        let mut y = results::<T>(to);
        for (((y, totals), mins), x) in y.iter_mut().zip(totals).zip(mins).zip(x) {
            let dx = _mm512_set1_ps(x.d);
            for half in 0..PAIR {
                let sum = if F::OFFSET != 0 { _mm512_sub_epi32(totals[half], mins[half]) } else { totals[half] };
                let scale = _mm512_mul_ps(_mm512_castsi512_ps(d[half]), dx);
                y[half] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, y[half]);
                if F::MINS {
                    let scale = _mm512_mul_ps(_mm512_castsi512_ps(dmin[half]), dx);
                    y[half] = _mm512_fnmadd_ps(scale, _mm512_cvtepi32_ps(mins[half]), y[half]);
                }
            }
        }
        keep(to, y);
    }
}
