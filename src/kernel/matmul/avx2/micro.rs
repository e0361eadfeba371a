//! Products of a tile with many tokens: 16 rows with up to three tokens at a time, in registers.

use super::block32::{Block32, Kind32};
use super::block256::{Block256, Kind256};
use super::tile::{GROUPS, Tile32, Tile256, fill32, fill256};
use super::{load, products};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::panels::{ROWS, Step, panels};
use std::arch::asm;
use std::arch::x86_64::*;

/// Tokens that share a pass over the tile.
const TOKENS: usize = 3;
/// Groups of eight rows that share a pass over the activations.
const PAIR: usize = 2;

/// Sums of `T` tokens with two groups of rows.
type Sums<V, const T: usize> = [[V; PAIR]; T];

/// The kernel for a kind of tile: `TOKENS` at a time, in the end those of the counts `$few` that make up the rest.
macro_rules! over_tiles {
    ($name:ident of $block:ident, $step:ident of $kind:ty, [$($few:literal)*], $fill:ident) => {
        /// # Safety
        /// As `super::multiply`.
        pub(in crate::kernel::matmul) unsafe fn $name<F: $block>(job: &Job) {
            // SAFETY: the caller's promises.
            unsafe { panels(job, $fill::<F>, &[$(($few, $step::<$kind, $few>),)* (TOKENS, $step::<$kind, TOKENS>)]) }
        }
    };
}

pub(in crate::kernel::matmul) use over_tiles;

over_tiles!(rows32 of Block32, step32 of F::Kind, [1 2], fill32);
over_tiles!(rows256 of Block256, step256 of F::Kind, [1 2], fill256);

/// `v`, which the compiler has to have at this very place. It would otherwise turn a chain of sums into a tree, whose
/// branches do not fit in the registers: half as many instructions again.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(mut v: __m256i) -> __m256i {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(ymm_reg) v, options(nomem, nostack, preserves_flags)) };
    v
}

/// The columns `4 * quads` of two groups of rows with `T` tokens: sums of two columns each in 16 bits, of as many quads
/// as there are in `codes`.
///
/// # Safety
/// Each address of `q` is valid for reading four activations for each of `codes`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot<const T: usize, const ORDERED: bool>(
    signed: bool,
    codes: &[[[u8; 32]; GROUPS]],
    group: usize,
    q: [*const i8; T],
) -> Sums<__m256i, T> {
    let mut narrow = [[_mm256_setzero_si256(); PAIR]; T];
    for (quad, codes) in codes.iter().enumerate() {
        // SAFETY: a tile's vectors are 32 bytes; the activations are the caller's promise.
        unsafe {
            let w = [load(codes[group].as_ptr()), load(codes[group + 1].as_ptr())];
            for (narrow, q) in narrow.iter_mut().zip(q) {
                let x = _mm256_set1_epi32(q.add(4 * quad).cast::<i32>().read_unaligned());
                for (narrow, w) in narrow.iter_mut().zip(w) {
                    *narrow = _mm256_add_epi16(*narrow, products(signed, w, x));
                    if ORDERED {
                        *narrow = in_order(*narrow);
                    }
                }
            }
        }
    }
    narrow
}

/// All rows of the tile with the tokens `t..t + T`, added to the results at `to`.
///
/// # Safety
/// `to` holds the results of `T` tokens; the processor has the instruction set.
#[inline(never)] // Formats of a kind share it.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step32<F: Kind32, const T: usize>(step: &Step<Tile32>, t: usize, to: *mut [f32; ROWS]) {
    let x: &[Codes32; T] = step.x[t..t + T].try_into().expect("T tokens");
    let ones = _mm256_set1_epi16(1);
    for group in step.groups(8, PAIR) {
        for sub in 0..step.columns / 32 {
            // SAFETY: the caller's promises; every address is that of a field.
            unsafe {
                if F::HALVES {
                    halves32::<F, T>(step, x, sub, group, to);
                    continue;
                }
                let mut wide = [[_mm256_setzero_si256(); PAIR]; T];
                for (part, codes) in step.tile.codes[8 * sub..][..8].chunks_exact(F::FLUSH).enumerate() {
                    let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(32 * sub + 4 * F::FLUSH * part));
                    let narrow = dot::<T, true>(F::SIGNED, codes, group, q);
                    for (wide, narrow) in wide.iter_mut().zip(narrow) {
                        for (wide, narrow) in wide.iter_mut().zip(narrow) {
                            *wide = _mm256_add_epi32(*wide, _mm256_madd_epi16(narrow, ones));
                        }
                    }
                }
                let d = pair(&step.tile.d[sub], group);
                let min = pair(&step.tile.min[sub], group);
                for (i, (wide, x)) in wide.into_iter().zip(x).enumerate() {
                    let off = _mm256_set1_epi32(step.tile.offset * x.sum[sub]);
                    for (g, wide) in wide.into_iter().enumerate() {
                        let sum = if F::OFFSET { _mm256_sub_epi32(wide, off) } else { wide };
                        let sum = _mm256_cvtepi32_ps(sum);
                        let scale = _mm256_mul_ps(d[g], _mm256_set1_ps(x.d[sub]));
                        let to = to.add(i).cast::<f32>().add(8 * (group + g));
                        let mut y = _mm256_fmadd_ps(sum, scale, _mm256_load_ps(to));
                        if F::MIN {
                            y = _mm256_fmadd_ps(min[g], _mm256_set1_ps(x.s[sub]), y);
                        }
                        _mm256_store_ps(to, y);
                    }
                }
            }
        }
    }
}

/// What [`step32`] does with the columns `32 * sub..` of two groups of rows where each sixteen have a scale.
///
/// # Safety
/// As [`step32`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves32<F: Kind32, const T: usize>(
    step: &Step<Tile32>,
    x: &[Codes32; T],
    sub: usize,
    group: usize,
    to: *mut [f32; ROWS],
) {
    const { assert!(!F::HALVES || F::FLUSH == 4) };
    for (half, scales) in [&step.tile.d[sub], &step.tile.min[sub]].into_iter().enumerate() {
        let codes = &step.tile.codes[8 * sub + 4 * half..][..4];
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(32 * sub + 16 * half));
            let narrow = dot::<T, true>(F::SIGNED, codes, group, q);
            let d = pair(scales, group);
            for (i, (narrow, x)) in narrow.into_iter().zip(x).enumerate() {
                let off = _mm256_set1_epi32(step.tile.offset * x.sum16[2 * sub + half] as i32);
                for (g, narrow) in narrow.into_iter().enumerate() {
                    let wide = _mm256_madd_epi16(narrow, _mm256_set1_epi16(1));
                    let sum = _mm256_cvtepi32_ps(_mm256_sub_epi32(wide, off));
                    let to = to.add(i).cast::<f32>().add(8 * (group + g));
                    let scale = _mm256_mul_ps(d[g], _mm256_set1_ps(x.d[sub]));
                    _mm256_store_ps(to, _mm256_fmadd_ps(sum, scale, _mm256_load_ps(to)));
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
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn step256<F: Kind256, const T: usize>(step: &Step<Tile256>, t: usize, to: *mut [f32; ROWS]) {
    let x: &[Codes256; T] = step.x[t..t + T].try_into().expect("T tokens");
    for group in step.groups(8, PAIR) {
        // SAFETY: the caller's promises; every address is that of a field.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); PAIR]; T];
            for (sub, codes) in step.tile.codes.chunks_exact(F::SUB / 4).enumerate() {
                let scales = whole_pair(&step.tile.scales[sub], group);
                for (part, codes) in codes.chunks_exact(F::FLUSH).enumerate() {
                    let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(F::SUB * sub + 4 * F::FLUSH * part));
                    let narrow = dot::<T, false>(F::SIGNED, codes, group, q);
                    for (sums, narrow) in sums.iter_mut().zip(narrow) {
                        for ((sum, narrow), scale) in sums.iter_mut().zip(narrow).zip(scales) {
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(narrow, scale));
                        }
                    }
                }
            }
            let mut mins = [[_mm256_setzero_si256(); PAIR]; T];
            if F::MINS || F::OFFSET {
                for i in 0..128 / F::SUB {
                    let pairs = whole_pair(&step.tile.mins[i], group);
                    add_mins(&mut mins, pairs, std::array::from_fn(|t| x[t].pair_of_sums(F::SUB, i)));
                }
            }
            let (d, dmin) = (pair(&step.tile.d, group), pair(&step.tile.dmin, group));
            for (i, ((sums, mins), x)) in sums.into_iter().zip(mins).zip(x).enumerate() {
                let dx = _mm256_set1_ps(x.d);
                for g in 0..PAIR {
                    let to = to.add(i).cast::<f32>().add(8 * (group + g));
                    let sum = if F::OFFSET { _mm256_sub_epi32(sums[g], mins[g]) } else { sums[g] };
                    let mut y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(d[g], dx), _mm256_load_ps(to));
                    if F::MINS {
                        y = _mm256_fnmadd_ps(_mm256_mul_ps(dmin[g], dx), _mm256_cvtepi32_ps(mins[g]), y);
                    }
                    _mm256_store_ps(to, y);
                }
            }
        }
    }
}

/// Adds the products of two mins with the sums of their activations, a pair of 16-bit numbers for each token.
#[inline]
#[target_feature(enable = "avx2")]
fn add_mins<const T: usize>(to: &mut Sums<__m256i, T>, mins: [__m256i; PAIR], sums: [i32; T]) {
    for (to, sums) in to.iter_mut().zip(sums) {
        for (to, mins) in to.iter_mut().zip(mins) {
            *to = _mm256_add_epi32(*to, _mm256_madd_epi16(mins, _mm256_set1_epi32(sums)));
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn pair(groups: &[[f32; 8]; GROUPS], group: usize) -> [__m256; PAIR] {
    // SAFETY: eight numbers each.
    unsafe { [_mm256_loadu_ps(groups[group].as_ptr()), _mm256_loadu_ps(groups[group + 1].as_ptr())] }
}

#[inline]
#[target_feature(enable = "avx2")]
fn whole_pair(groups: &[[i32; 8]; GROUPS], group: usize) -> [__m256i; PAIR] {
    // SAFETY: eight numbers each.
    unsafe { [load(groups[group].as_ptr().cast()), load(groups[group + 1].as_ptr().cast())] }
}
