//! Products of a tile with many tokens: sums in tile registers, scales and mins by vectors.
//!
//! A unit of work is 16 tokens by 16 rows. While the tile registers work on one, the vectors finish the one before.

use super::bytes::Scaled;
use super::{ROWS, TOKENS, Tiles};
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::Codes256;
use crate::kernel::matmul::avx2::block256::{Block256, Kind256, ScaledCodes};
use crate::kernel::matmul::avx2::prefetch;
use crate::kernel::matmul::avx2::tile::{Codes, GROUPS, Tile256};
use crate::kernel::matmul::avx512::micro::fill256;
pub(super) use crate::kernel::matmul::avx512::micro::rows32;
use crate::kernel::matmul::panels::{PANEL, ROWS as TILE_ROWS, Results, Tile as _};
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Bytes from four columns of all rows of a tile to the next four.
const STRIDE: usize = 4 * TILE_ROWS;

/// Sums of 16 tokens with 16 rows each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([[i32; ROWS]; TOKENS]);

/// Results of 16 tokens with all rows that are taken apart together.
type Tile = [[f32; TILE_ROWS]; TOKENS];

impl Sums {
    const ZERO: Sums = Sums([[0; ROWS]; TOKENS]);
}

/// Writes a tile of sums.
macro_rules! store_tile {
    ($tile:literal, $to:expr) => {{
        let to: &mut Sums = $to;
        asm!(concat!("tilestored [{to} + {stride}], ", $tile), to = in(reg) to.0.as_mut_ptr(),
            stride = in(reg) 4 * ROWS, options(nostack, preserves_flags))
    }};
}

/// Takes blocks of rows apart and multiplies them with tokens.
trait Product {
    /// Takes block `block` of the rows of `job` apart.
    ///
    /// # Safety
    /// The rows are readable and have that block; the processor has the instruction set.
    unsafe fn take_apart(&mut self, job: &Job, block: usize);

    /// Adds the products of all units.
    ///
    /// # Safety
    /// As [`Self::take_apart`], which has taken the same block apart; the tiles are configured; `results` holds those of all
    /// tokens of the units.
    unsafe fn add(&self, units: &Units, job: &Job, block: usize, results: *mut [f32; TILE_ROWS]);
}

/// The tokens of a panel in tiles, and the rows.
struct Units {
    /// The first token, and how many there are.
    from: usize,
    count: usize,
    /// Sixteens of rows.
    halves: usize,
}

impl Units {
    fn tiles(&self) -> usize {
        self.count.div_ceil(TOKENS)
    }

    fn len(&self) -> usize {
        self.tiles() * self.halves
    }

    /// The first token of tile `tile`. The last tile is a whole one too, with some tokens of the one before: these are
    /// multiplied twice, each time for results of their own.
    fn first(&self, tile: usize) -> usize {
        self.from + (TOKENS * tile).min(self.count - TOKENS)
    }
}

/// The loop over rows, panels of tokens, and columns.
///
/// # Safety
/// As `super::multiply`; there are no fewer tokens than a tile has, and the tiles are configured.
unsafe fn over_panels(product: &mut dyn Product, job: &Job) {
    let tokens = job.acts.tokens();
    // Written before it is read: as much as there are tokens.
    let mut results = MaybeUninit::<Results>::uninit();
    let results: *mut [f32; TILE_ROWS] = results.as_mut_ptr().cast();
    for start in (job.start..job.end).step_by(TILE_ROWS) {
        let part = Job { start, end: job.end.min(start + TILE_ROWS), ..*job };
        for panel in (0..tokens).step_by(PANEL) {
            // A panel of less than a tile takes some tokens of the one before.
            let from = panel.min(tokens - TOKENS);
            let count = PANEL.min(tokens - from);
            let units = Units { from, count, halves: (part.end - part.start).div_ceil(ROWS) };
            // SAFETY: there are no more tokens in the tiles than results; zeros are numbers.
            unsafe { results.write_bytes(0, TOKENS * units.tiles()) };
            for block in 0..job.k / 256 {
                // SAFETY: the caller's promises; the results of these tokens are written.
                unsafe {
                    product.take_apart(&part, block);
                    product.add(&units, &part, block, results);
                }
            }
            for tile in 0..units.tiles() {
                for t in 0..TOKENS {
                    // SAFETY: the caller lets this thread write its rows of every token; their results are written.
                    unsafe {
                        let y = results.add(TOKENS * tile + t).cast::<f32>();
                        let to = job.out.ptr.add((units.first(tile) + t) * job.out.stride + start);
                        to.copy_from_nonoverlapping(y, part.end - start);
                    }
                }
            }
        }
    }
}

type Fill = unsafe fn(&mut Tile256, &Job, usize);

/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows256<F: Block256>(job: &Job) {
    // SAFETY: the caller's promises.
    unsafe { all_rows256::<<F::Kind as Kind256>::Wide, F::Scaled>(job, fill256::<F>, F::OFFSET) }
}

/// # Safety
/// As `super::multiply`; `fill` is for the format of the rows.
unsafe fn all_rows256<K: Kind256, S: ScaledCodes>(job: &Job, fill: Fill, offset: i32) {
    let kind = PhantomData::<(K, S)>;
    let mut product = Product256 { fill, offset, tile: Tile256::EMPTY, codes: Scaled::EMPTY, kind };
    // SAFETY: the caller's promises.
    unsafe {
        let _tiles = Tiles::new();
        over_panels(&mut product, job);
    }
}

/// For formats with blocks of 256.
struct Product256<K, S> {
    fill: Fill,
    offset: i32,
    tile: Tile256,
    codes: Scaled,
    kind: PhantomData<(K, S)>,
}

impl<K: Kind256, S: ScaledCodes> Product for Product256<K, S> {
    unsafe fn take_apart(&mut self, job: &Job, block: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            (self.fill)(&mut self.tile, job, block);
            self.codes.make::<K, S>(&self.tile, self.offset);
        }
    }

    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vnni")]
    unsafe fn add(&self, units: &Units, job: &Job, block: usize, results: *mut [f32; TILE_ROWS]) {
        let x = &job.acts.codes256()[block * job.acts.tokens()..][..job.acts.tokens()];
        let mut sums = [[Sums::ZERO; 2]; 2];
        let place = |unit: usize| (unit / units.halves, unit % units.halves);
        for unit in 0..=units.len() {
            // SAFETY: the caller's promises; a tile's tokens are in `x`, and their results in `results`.
            unsafe {
                if unit < units.len() {
                    let (tile, half) = place(unit);
                    let q = x[units.first(tile)..][..TOKENS].as_ptr();
                    self.multiply(half, q);
                    // The next tile's, or the next block's: of a long prompt they come from beyond the second cache.
                    let part = TOKENS * size_of::<Codes256>() / units.halves;
                    prefetch(q.wrapping_add(TOKENS).cast::<u8>().wrapping_add(part * half), part);
                }
                if unit > 0 {
                    let (tile, half) = place(unit - 1);
                    let x: &[_; TOKENS] = x[units.first(tile)..][..TOKENS].try_into().expect("a tile's tokens");
                    self.finish(half, x, &sums[(unit - 1) % 2], &mut *results.add(TOKENS * tile).cast());
                }
                if unit < units.len() {
                    let [low, high] = &mut sums[unit % 2];
                    store_tile!("tmm0", low);
                    if S::TWO {
                        store_tile!("tmm1", high);
                    }
                }
            }
        }
    }
}

impl<K: Kind256, S: ScaledCodes> Product256<K, S> {
    /// Sums the products of 16 rows with the tokens from `x` on in tiles 0 and 1.
    ///
    /// # Safety
    /// The tiles are configured, and there are so many tokens.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn multiply(&self, half: usize, x: *const Codes256) {
        /// The columns from `64 * $step` on: `$x`, `$low` and `$high` are tiles of their own.
        macro_rules! step {
            ($step:literal, $x:literal, $low:literal $(, $high:literal)?) => {
                concat!(
                    "tileloadd ", $x, ", [{x} + {xs} + 64 * ", $step, "]\n",
                    "tileloadd ", $low, ", [{low} + {ws} + 2048 * ", $step, "]\n",
                    $("tileloadd ", $high, ", [{high} + {ws} + 2048 * ", $step, "]\n",
                    "tdpbsud tmm0, ", $x, ", ", $low, "\n",
                    "tdpbssd tmm1, ", $x, ", ", $high, "\n",)?
                )
            };
        }
        let at = |codes: &Codes| codes[0][2 * half..].as_ptr();
        // SAFETY: the caller's promises; 16 rows of all columns lie in the codes.
        unsafe {
            if S::TWO {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    step!(0, "tmm2", "tmm4", "tmm6"),
                    step!(1, "tmm3", "tmm5", "tmm7"),
                    step!(2, "tmm2", "tmm4", "tmm6"),
                    step!(3, "tmm3", "tmm5", "tmm7"),
                    x = in(reg) x, xs = in(reg) size_of::<Codes256>(),
                    low = in(reg) at(&self.codes.low), high = in(reg) at(&self.codes.high), ws = in(reg) STRIDE,
                    options(nostack, preserves_flags, readonly)
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    step!(0, "tmm2", "tmm4"),
                    "tdpbssd tmm0, tmm2, tmm4",
                    step!(1, "tmm3", "tmm5"),
                    "tdpbssd tmm0, tmm3, tmm5",
                    step!(2, "tmm2", "tmm6"),
                    "tdpbssd tmm0, tmm2, tmm6",
                    step!(3, "tmm3", "tmm7"),
                    "tdpbssd tmm0, tmm3, tmm7",
                    x = in(reg) x, xs = in(reg) size_of::<Codes256>(),
                    low = in(reg) at(&self.codes.low), ws = in(reg) STRIDE,
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
    }

    /// Adds the products that `sums` stand for to the results of the tokens `x`.
    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vnni")]
    fn finish(&self, half: usize, x: &[Codes256; TOKENS], sums: &[Sums; 2], results: &mut Tile) {
        let tile = &self.tile;
        let (d, dmin) = (floats(&tile.d, half), floats(&tile.dmin, half));
        let mut mins = [_mm512_setzero_si512(); 8];
        for (mins, pairs) in mins.iter_mut().zip(&tile.mins) {
            // SAFETY: a half is two groups.
            *mins = unsafe { _mm512_loadu_si512(pairs[2 * half..][..2].as_ptr().cast()) };
        }
        let [low, high] = sums;
        for (((x, low), high), y) in x.iter().zip(&low.0).zip(&high.0).zip(results) {
            let load = |sums: &[i32; ROWS]| {
                // SAFETY: 64 bytes.
                unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
            };
            // SAFETY: a half of the results of a token.
            let y = unsafe { y.as_mut_ptr().add(ROWS * half) };
            let mut sum = load(low);
            if S::TWO {
                sum = _mm512_add_epi32(sum, _mm512_slli_epi32::<8>(load(high)));
            }
            if S::NEGATED {
                sum = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
            }
            if S::HALVED {
                sum = _mm512_add_epi32(sum, sum);
                for i in 0..4 {
                    let all = _mm512_set1_epi16(1);
                    sum = _mm512_dpwssd_epi32(sum, all, _mm512_set1_epi32(x.pair_of_sums(32, i)));
                }
            }
            let dx = _mm512_set1_ps(x.d);
            // SAFETY: 16 results.
            unsafe {
                let mut all = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(d, dx), _mm512_loadu_ps(y));
                if K::MINS {
                    let mut sum = _mm512_setzero_si512();
                    for (i, mins) in mins[..128 / K::SUB].iter().enumerate() {
                        sum = _mm512_dpwssd_epi32(sum, *mins, _mm512_set1_epi32(x.pair_of_sums(K::SUB, i)));
                    }
                    all = _mm512_fnmadd_ps(_mm512_mul_ps(dmin, dx), _mm512_cvtepi32_ps(sum), all);
                }
                _mm512_storeu_ps(y, all);
            }
        }
    }
}

/// What 16 rows have of something that a tile has for every row.
#[inline]
#[target_feature(enable = "avx2,avx512f")]
fn floats(groups: &[[f32; 8]; GROUPS], half: usize) -> __m512 {
    // SAFETY: a half is two groups.
    unsafe { _mm512_loadu_ps(groups[2 * half..][..2].as_ptr().cast()) }
}
