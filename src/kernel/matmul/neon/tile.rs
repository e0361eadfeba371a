//! 256 columns of up to 32 rows taken apart once for all tokens, four rows side by side as the instruction set wants them.

use super::block32::Block32;
use super::block256::{Block256, Visit};
use super::decode::differences;
use super::level::Level;
use super::load;
use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::panels::{ROWS, Tile};
use crate::kernel::neon::*;

/// Groups of four rows in a tile.
pub(super) const GROUPS: usize = ROWS / 4;

/// Groups of four rows that share a pass over the activations.
pub(super) const PAIR: usize = 2;

/// Codes as `[pair of groups][columns / 16][group of the pair]`, four vectors each, so that those of a pair are read in one go.
pub(super) type Codes = [[[[i8; 64]; PAIR]; 16]; GROUPS / PAIR];

/// A number of each row as [`Level::spread`] reads it.
pub(super) type Spread = [[f32; 8]; GROUPS];

/// Columns of a format with blocks of 256.
#[repr(C, align(64))]
pub(super) struct Tile256 {
    pub codes: Codes,
    /// For each sub-block the bits of its scale less the next one's; see [`super::decode`].
    pub scales: [Spread; 16],
    pub mins: [[[i16; 4]; GROUPS]; 16],
    pub d: [[f32; 4]; GROUPS],
    pub dmin: [[f32; 4]; GROUPS],
}

/// Columns of a format with blocks of 32, 64 or 128.
#[repr(C, align(64))]
pub(super) struct Tile32 {
    pub codes: Codes,
    pub d: [Spread; 8],
    /// In formats with a scale for every 16 elements, which have no min, the scale of the last ones of 32.
    pub min: [Spread; 8],
}

/// Codes of four rows in the order of the columns.
#[repr(C, align(64))]
struct Four([[i8; 256]; 4]);

impl Four {
    #[inline(always)]
    fn put(&mut self, row: usize, sub: usize, codes: [int8x16_t; 2]) {
        let to = self.0[row][32 * sub..][..32].as_mut_ptr();
        // SAFETY: the slice has 32 bytes.
        unsafe {
            vst1q_s8(to, codes[0]);
            vst1q_s8(to.add(16), codes[1]);
        }
    }

    /// Puts the first `count` times 16 columns in their place in a tile.
    #[inline(always)]
    fn arrange<L: Level>(&self, to: &mut Codes, group: usize, count: usize) {
        for (i, to) in to[group / PAIR][..count].iter_mut().enumerate() {
            // SAFETY: 16 columns of a row.
            let rows = std::array::from_fn(|r| unsafe { load(self.0[r][16 * i..][..16].as_ptr().cast()) });
            let arranged = L::arrange(rows);
            for (to, v) in to[group % PAIR].as_chunks_mut::<16>().0.iter_mut().zip(arranged) {
                // SAFETY: 16 bytes.
                unsafe { vst1q_s8(to.as_mut_ptr(), v) };
            }
        }
    }
}

/// Where the codes of a row go.
struct Put<'a> {
    four: &'a mut Four,
    row: usize,
}

impl Visit for Put<'_> {
    #[inline(always)]
    fn visit(&mut self, sub: usize, codes: [int8x16_t; 2]) {
        self.four.put(self.row, sub, codes);
    }
}

/// A number of each sub-block of four rows as those of each sub-block.
#[inline(always)]
fn by_sub(rows: [int16x8_t; 4]) -> [[i16; 4]; 8] {
    let mut subs = [[0; 4]; 8];
    // SAFETY: room for four times eight numbers.
    unsafe { vst4q_s16(subs.as_mut_ptr().cast(), int16x8x4_t(rows[0], rows[1], rows[2], rows[3])) };
    subs
}

impl Tile for Tile256 {
    const EMPTY: Tile256 = Tile256 {
        codes: [[[[0; 64]; PAIR]; 16]; GROUPS / PAIR],
        scales: [[[0.0; 8]; GROUPS]; 16],
        mins: [[[0; 4]; GROUPS]; 16],
        d: [[0.0; 4]; GROUPS],
        dmin: [[0.0; 4]; GROUPS],
    };
    type X = Codes256;
}

impl Tile256 {
    /// Takes block `block` of the rows of `job`, no more than [`ROWS`], apart.
    ///
    /// # Safety
    /// The rows are readable and have that block.
    #[inline(never)]
    pub(super) unsafe fn fill<F: Block256, L: Level>(&mut self, job: &Job, block: usize) {
        let mut four = Four([[0; 256]; 4]);
        for group in 0..(job.end - job.start).div_ceil(4) {
            let blocks: [*const u8; 4] =
                std::array::from_fn(|i| job.row(job.start + 4 * group + i).wrapping_add(F::BYTES * block));
            let (mut scales, mut mins) = ([[vdupq_n_s16(0); 4]; 2], [[vdupq_n_s16(0); 4]; 2]);
            for (i, block) in blocks.into_iter().enumerate() {
                // SAFETY: the caller's promises.
                unsafe {
                    F::codes(block, Put { four: &mut four, row: i });
                    let [s, m] = F::scales(block);
                    let s = differences(s, F::SUB);
                    for half in 0..2 {
                        (scales[half][i], mins[half][i]) = (s[half], m[half]);
                    }
                }
            }
            four.arrange::<L>(&mut self.codes, group, 16);
            for half in 0..F::SUB_VECTORS {
                for (i, scales) in by_sub(scales[half]).iter().enumerate() {
                    // SAFETY: four numbers.
                    let wide = vmovl_s16(unsafe { vld1_s16(scales.as_ptr()) });
                    L::store_spread(vreinterpretq_f32_s32(wide), &mut self.scales[8 * half + i][group]);
                }
                if F::MINS {
                    for (i, mins) in by_sub(mins[half]).into_iter().enumerate() {
                        self.mins[8 * half + i][group] = mins;
                    }
                }
            }
            // SAFETY: the caller's promises; room for four numbers.
            unsafe {
                let [d, dmin] = F::d(blocks);
                vst1q_f32(self.d[group].as_mut_ptr(), d);
                if F::MINS {
                    vst1q_f32(self.dmin[group].as_mut_ptr(), dmin);
                }
            }
        }
    }
}

impl Tile for Tile32 {
    const EMPTY: Tile32 = Tile32 {
        codes: [[[[0; 64]; PAIR]; 16]; GROUPS / PAIR],
        d: [[[0.0; 8]; GROUPS]; 8],
        min: [[[0.0; 8]; GROUPS]; 8],
    };
    type X = Codes32;
}

impl Tile32 {
    /// Takes blocks for the columns `256 * eight..` of the rows of `job` apart, for 256 or as many as there are.
    ///
    /// # Safety
    /// As [`Tile256::fill`].
    #[inline(never)]
    pub(super) unsafe fn fill<F: Block32, L: Level>(&mut self, job: &Job, eight: usize) {
        let mut four = Four([[0; 256]; 4]);
        let count = (job.k / 32 - 8 * eight).min(8);
        for group in 0..(job.end - job.start).div_ceil(4) {
            let rows: [*const u8; 4] =
                std::array::from_fn(|i| job.row(job.start + 4 * group + i).wrapping_add(F::EIGHT * eight));
            for sub in 0..count {
                let blocks = rows.each(|row| row.wrapping_add(F::BYTES * (sub / F::PARTS)));
                // SAFETY: the caller's promises.
                unsafe {
                    for (i, block) in blocks.into_iter().enumerate() {
                        four.put(i, sub, F::codes(block, sub % F::PARTS));
                    }
                    let [d, min] = F::scales(blocks, sub % F::PARTS);
                    L::store_spread(d, &mut self.d[sub][group]);
                    if F::MIN || F::HALVES {
                        L::store_spread(min, &mut self.min[sub][group]);
                    }
                }
            }
            four.arrange::<L>(&mut self.codes, group, 2 * count);
        }
    }
}
