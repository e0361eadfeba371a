//! Tables in which kernels for several instruction sets look values up.

use crate::quant::{grids, tables};

/// The levels of each point, a byte each.
const fn eights<const N: usize>(grid: &[u16; N], levels: [u8; 3]) -> [u64; N] {
    let mut table = [0; N];
    let mut point = 0;
    while point < N {
        let mut i = 0;
        while i < 8 {
            table[point] |= (levels[(grid[point] >> (2 * i) & 3) as usize] as u64) << (8 * i);
            i += 1;
        }
        point += 1;
    }
    table
}

/// As [`eights`].
const fn fours<const N: usize>(grid: &[u16; N], levels: [u8; 8]) -> [u32; N] {
    let mut table = [0; N];
    let mut point = 0;
    while point < N {
        let mut i = 0;
        while i < 4 {
            table[point] |= (levels[(grid[point] >> (3 * i) & 7) as usize] as u32) << (8 * i);
            i += 1;
        }
        point += 1;
    }
    table
}

pub(super) static IQ2_XXS: [u64; 256] = eights(&grids::IQ2_XXS, tables::IQ2);
pub(super) static IQ2_XS: [u64; 512] = eights(&grids::IQ2_XS, tables::IQ2);
pub(super) static IQ2_S: [u64; 1024] = eights(&grids::IQ2_S, tables::IQ2);
/// -1, 0 and 1 times eight, plus eight.
pub(super) static IQ1: [u64; 2048] = eights(&grids::IQ1, [0, 8, 16]);
pub(super) static IQ3_XXS: [u32; 256] = fours(&grids::IQ3_XXS, tables::IQ3_XXS);
pub(super) static IQ3_S: [u32; 512] = fours(&grids::IQ3_S, tables::IQ3_S);

/// Looked up: working out four of them takes as long as a block's products.
pub(super) static MXFP4_SCALES: [f32; 256] = {
    let mut scales = [0.0; 256];
    let mut e = 0;
    while e < 256 {
        scales[e] = tables::mxfp4_scale(e as u8);
        e += 1;
    }
    scales
};

/// For each eight bits bytes of one, minus one where there is a bit.
#[cfg(target_arch = "aarch64")]
pub(super) static SIGNS: [u64; 256] = {
    let mut table = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let mut i = 0;
        while i < 8 {
            let sign: u8 = if bits >> i & 1 == 1 { 0xff } else { 1 };
            table[bits] |= (sign as u64) << (8 * i);
            i += 1;
        }
        bits += 1;
    }
    table
};

/// The same for seven bits and an eighth that makes their number even.
#[cfg(target_arch = "aarch64")]
pub(super) static EVEN_SIGNS: [u64; 128] = {
    let mut table = [0; 128];
    let mut bits = 0;
    while bits < 128 {
        table[bits] = SIGNS[tables::even_signs(bits as u8) as usize];
        bits += 1;
    }
    table
};
