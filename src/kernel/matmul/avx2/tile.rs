//! 256 columns of up to 32 rows taken apart once for all tokens.
//!
//! A vector holds four columns of eight rows, so that one row is one 32-bit lane and four activations meet all rows by
//! a broadcast. What is whole stays whole: scales and mins are left for the kernels to multiply with.

use super::block32::{Block32, Kind32};
use super::block256::{Block256, Kind256};
use super::{halves_together, load};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::panels::{ROWS, Tile};
use std::arch::x86_64::*;

/// Groups of eight rows in a tile.
pub(in super::super) const GROUPS: usize = ROWS / 8;

/// Codes as `[columns / 4][group][row][4]`.
pub(in super::super) type Codes = [[[u8; 32]; GROUPS]; 64];

/// Columns of a format with blocks of 256.
#[repr(C, align(64))]
pub(in super::super) struct Tile256 {
    pub codes: Codes,
    /// The 16-bit scale of each sub-block, twice.
    pub scales: [[[i32; 8]; GROUPS]; 16],
    /// Mins of two neighbouring sub-blocks, 16 bits each; in formats with an offset it takes their place, as scale *
    /// offset.
    pub mins: [[[i32; 8]; GROUPS]; 8],
    pub d: [[f32; 8]; GROUPS],
    pub dmin: [[f32; 8]; GROUPS],
}

/// Columns of a format with blocks of 32, 64 or 128.
#[repr(C, align(64))]
pub(in super::super) struct Tile32 {
    pub codes: Codes,
    pub d: [[[f32; 8]; GROUPS]; 8],
    /// In formats with a scale for every 16 elements, which have no min, the scale of the last ones of 32.
    pub min: [[[f32; 8]; GROUPS]; 8],
    /// What is to be taken off the codes.
    pub offset: i32,
}

/// How blocks of 256 are taken apart for a tile.
pub(in super::super) trait Unpack {
    /// Writes the codes of two blocks, in the order of the columns.
    ///
    /// # Safety
    /// The blocks are whole; the processor has the instruction set.
    unsafe fn codes<F: Block256>(blocks: [*const u8; 2], to: &mut [Row; 2]);
}

/// By vectors of 256 bits.
pub(in super::super) struct Narrow;

impl Unpack for Narrow {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes<F: Block256>(blocks: [*const u8; 2], to: &mut [Row; 2]) {
        for (block, to) in blocks.into_iter().zip(to) {
            // SAFETY: the caller's promise; each vector is 32 bytes.
            unsafe {
                for (to, codes) in to.iter_mut().zip(F::codes(block)) {
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), codes);
                }
            }
        }
    }
}

impl Tile for Tile256 {
    const EMPTY: Tile256 = Tile256 {
        codes: [[[0; 32]; GROUPS]; 64],
        scales: [[[0; 8]; GROUPS]; 16],
        mins: [[[0; 8]; GROUPS]; 8],
        d: [[0.0; 8]; GROUPS],
        dmin: [[0.0; 8]; GROUPS],
    };
    type X = Codes256;
}

impl Tile256 {
    /// Takes block `block` of the rows of `job`, no more than [`ROWS`], apart.
    ///
    /// # Safety
    /// The rows are readable and have that block; the processor has AVX2 and F16C.
    #[inline(never)] // Kernels for several instruction sets share it.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) unsafe fn fill<F: Block256, U: Unpack>(&mut self, job: &Job, block: usize) {
        const { assert!((F::OFFSET != 0) == F::Kind::OFFSET) };
        for group in 0..(job.end - job.start).div_ceil(8) {
            let mut bytes = Bytes::ZERO;
            let mut scales = [[_mm256_setzero_si256(); 8]; 2];
            let mut mins = [_mm256_setzero_si256(); 8];
            let mut blocks = [std::ptr::null(); 8];
            for i in 0..8 {
                let at = job.row(job.start + 8 * group + i).wrapping_add(F::BYTES * block);
                prefetch_next(at, F::BYTES);
                blocks[i] = at;
                // SAFETY: the caller's promises.
                unsafe {
                    let [s, m] = F::scales(at);
                    let s = _mm256_cvtepi8_epi16(s);
                    let m = match F::MINS {
                        true => _mm256_cvtepi8_epi16(m),
                        false => _mm256_mullo_epi16(s, _mm256_set1_epi16(F::OFFSET as i16)),
                    };
                    (scales[0][i], scales[1][i]) = (_mm256_unpacklo_epi16(s, s), _mm256_unpackhi_epi16(s, s));
                    mins[i] = m;
                }
            }
            for (blocks, to) in blocks.as_chunks::<2>().0.iter().zip(bytes.0.as_chunks_mut::<2>().0) {
                // SAFETY: the caller's promises.
                unsafe { U::codes::<F>(*blocks, to) };
            }
            bytes.transpose(&mut self.codes, group, 8);
            self.put(&scales, (F::MINS || F::OFFSET != 0).then_some(&mins), group);
            for (half, blocks) in blocks.as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: the caller's promises.
                unsafe {
                    _mm_storeu_ps(self.d[group].as_mut_ptr().add(4 * half), F::d(*blocks));
                    if F::MINS {
                        _mm_storeu_ps(self.dmin[group].as_mut_ptr().add(4 * half), F::dmin(*blocks));
                    }
                }
            }
        }
    }
}

impl Tile256 {
    /// Puts the scales of eight rows, and their mins, in their place.
    #[inline(never)] // Formats share it.
    #[target_feature(enable = "avx2")]
    fn put(&mut self, scales: &[[__m256i; 8]; 2], mins: Option<&[__m256i; 8]>, group: usize) {
        // Of 16 scales the low halves hold 0..4 and 8..12, the high ones 4..8 and 12..16.
        for (half, scales) in scales.iter().enumerate() {
            for (i, scale) in transpose(*scales).into_iter().enumerate() {
                store(&mut self.scales[i % 4 + 4 * half + 8 * (i / 4)][group], scale);
            }
        }
        if let Some(mins) = mins {
            for (i, mins) in transpose(*mins).into_iter().enumerate() {
                store(&mut self.mins[i][group], mins);
            }
        }
    }
}

impl Tile for Tile32 {
    const EMPTY: Tile32 =
        Tile32 { codes: [[[0; 32]; GROUPS]; 64], d: [[[0.0; 8]; GROUPS]; 8], min: [[[0.0; 8]; GROUPS]; 8], offset: 0 };
    type X = Codes32;
}

impl Tile32 {
    /// Takes blocks `8 * eight..` of the rows of `job` apart, eight of them or as many as there are.
    ///
    /// # Safety
    /// As [`Tile256::fill`].
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) unsafe fn fill<F: Block32>(&mut self, job: &Job, eight: usize) {
        const { assert!((F::OFFSET != 0) == F::Kind::OFFSET) };
        let count = (job.k / 32 - 8 * eight).min(8);
        self.offset = F::OFFSET;
        for group in 0..(job.end - job.start).div_ceil(8) {
            let mut bytes = Bytes::ZERO;
            for half in 0..2 {
                let r = job.start + 8 * group + 4 * half;
                let rows = [job.row(r), job.row(r + 1), job.row(r + 2), job.row(r + 3)];
                let rows = rows.map(|row| row.wrapping_add(F::EIGHT * eight));
                for row in rows {
                    prefetch_next(row, F::EIGHT);
                }
                for sub in 0..count {
                    let blocks = rows.map(|row| row.wrapping_add(F::BYTES * (sub / F::PARTS)));
                    let part = sub % F::PARTS;
                    // SAFETY: the caller's promises.
                    unsafe {
                        for (i, block) in blocks.into_iter().enumerate() {
                            let to = bytes.0[4 * half + i][sub].as_mut_ptr();
                            _mm256_storeu_si256(to.cast(), F::codes(block, part));
                        }
                        let [scales, mins] = F::scales(blocks, part);
                        _mm_storeu_ps(self.d[sub][group].as_mut_ptr().add(4 * half), scales);
                        if F::MIN || F::HALVES {
                            _mm_storeu_ps(self.min[sub][group].as_mut_ptr().add(4 * half), mins);
                        }
                    }
                }
            }
            bytes.transpose(&mut self.codes, group, count);
        }
    }
}

/// [`Tile32::fill`] as a function.
///
/// # Safety
/// As there.
pub(in super::super) unsafe fn fill32<F: Block32>(tile: &mut Tile32, job: &Job, eight: usize) {
    // SAFETY: the caller's promises.
    unsafe { tile.fill::<F>(job, eight) }
}

/// [`Tile256::fill`] by vectors of 256 bits, as a function.
///
/// # Safety
/// As there.
pub(in super::super) unsafe fn fill256<F: Block256>(tile: &mut Tile256, job: &Job, block: usize) {
    // SAFETY: the caller's promises.
    unsafe { tile.fill::<F, Narrow>(job, block) }
}

/// 256 codes in the order of the columns, 32 at a time.
pub(in super::super) type Row = [[u8; 32]; 8];

/// The codes of eight rows.
#[repr(C, align(64))]
struct Bytes([Row; 8]);

impl Bytes {
    const ZERO: Bytes = Bytes([[[0; 32]; 8]; 8]);

    /// Puts the first `count` times 32 columns in their place in a tile.
    #[inline(never)] // Formats share it.
    #[target_feature(enable = "avx2")]
    fn transpose(&self, to: &mut Codes, group: usize, count: usize) {
        for sub in 0..count {
            let mut rows = [_mm256_setzero_si256(); 8];
            for (to, row) in rows.iter_mut().zip(&self.0) {
                // SAFETY: 32 bytes.
                *to = unsafe { load(row[sub].as_ptr()) };
            }
            for (i, columns) in transpose(rows).into_iter().enumerate() {
                // SAFETY: 32 bytes.
                unsafe { _mm256_storeu_si256(to[8 * sub + i][group].as_mut_ptr().cast(), columns) };
            }
        }
    }
}

/// Asks for the block after the one of `bytes` at `p`.
#[inline]
fn prefetch_next(p: *const u8, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        // SAFETY: a hint, valid for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(bytes + line).cast()) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [i32; 8], v: __m256i) {
    // SAFETY: eight numbers of 32 bits.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
}

/// Lane i of vector j becomes lane j of vector i.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    let pairs = |a, b| (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let ((a0, a1), (a2, a3)) = (pairs(v[0], v[1]), pairs(v[2], v[3]));
    let ((a4, a5), (a6, a7)) = (pairs(v[4], v[5]), pairs(v[6], v[7]));
    let quads = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let ((b0, b1), (b2, b3)) = (quads(a0, a2), quads(a1, a3));
    let ((b4, b5), (b6, b7)) = (quads(a4, a6), quads(a5, a7));
    let ([c0, c4], [c1, c5]) = (halves_together(b0, b4), halves_together(b1, b5));
    let ([c2, c6], [c3, c7]) = (halves_together(b2, b6), halves_together(b3, b7));
    [c0, c1, c2, c3, c4, c5, c6, c7]
}
