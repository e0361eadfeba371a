//! Kernels for x86-64 with AMX for 8-bit numbers beside AVX-512: prompts in tiles of 16 tokens by 16 rows.
//!
//! One instruction multiplies 64 columns of 16 rows with those of 16 tokens: sixteen times as many products as one of
//! AVX-512. Weights are taken apart by the code for AVX-512, then multiplied with their scales and made signed bytes
//! ([`bytes`]); what is left to the vectors are mins and the scale of a block ([`micro`]).
//!
//! That is for blocks of 256, whose sums are whole numbers. Sums of 32 columns, which are scaled as floats, use half a tile
//! and leave as much to the vectors as AVX-512 does: they were no faster. These, fewer tokens, and floating-point weights
//! are left to AVX-512 and AVX2.
//!
//! Tile registers are named in assembler only: the compiler has no use for them of its own, so what one piece leaves there
//! the next one finds. Those of a thread hold nothing outside of a product, which spares the system keeping them.

mod bytes;
mod micro;

/// For fewer tokens.
mod decode {
    pub(super) use crate::kernel::matmul::avx512::{multiply32 as rows32, multiply256 as rows256};
}

use super::avx2::multiply_by_format;
use std::arch::asm;

multiply_by_format!();

/// From so many tokens on tiles are faster than the vectors of AVX-512.
const TILED: usize = 64;

/// Tokens of a tile.
const TOKENS: usize = 16;
/// Rows of weights of a tile: half of those that are taken apart together.
const ROWS: usize = 16;

/// Which tile has how many rows of how many bytes, as LDTILECFG reads it.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers, configured.
struct Tiles;

impl Tiles {
    /// Eight tiles of 16 rows of 64 bytes.
    ///
    /// # Safety
    /// The processor has AMX, and the system lets this process use it; no other value of this type is in use on this
    /// thread.
    unsafe fn new() -> Tiles {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        configuration.row_bytes[..8].fill(64);
        configuration.rows[..8].fill(16);
        // SAFETY: the caller's promise; the sizes are within those of a tile.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, preserves_flags)) };
        Tiles
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made this had the instructions.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}
