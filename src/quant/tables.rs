//! Code books of the formats whose codes are not equally spaced.

/// Values of the 4-bit codes of IQ4_NL and IQ4_XS.
pub const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Values of the 4-bit codes of MXFP4 and NVFP4, doubled so that they are whole numbers.
pub const MXFP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The scale of an MXFP4 block with exponent byte `e`, for the doubled values: 2^(e-128).
/// The two smallest are subnormal singles.
#[inline]
pub const fn mxfp4_scale(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        _ => (e as u32 - 1) << 23,
    })
}

/// The scale of 16 elements of an NVFP4 block, for the doubled values: half of the number whose bits `bits` are, four of
/// the exponent with a bias of 7 and three of the mantissa. The highest bit means nothing; 0x7f, the one that is no
/// number, counts as zero.
#[inline]
pub const fn nvfp4_scale(bits: u8) -> f32 {
    let (exponent, mantissa) = ((bits >> 3 & 15) as u32, (bits & 7) as u32);
    if bits == 0x7f {
        return 0.0;
    }
    if exponent == 0 {
        return mantissa as f32 / 1024.0;
    }
    f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20)
}

/// Levels that the points of the grids of IQ2 are made of.
pub const IQ2: [u8; 3] = [8, 25, 43];

/// Levels that the points of the grid of IQ3_XXS are made of.
pub const IQ3_XXS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];

/// Levels that the points of the grid of IQ3_S are made of.
pub const IQ3_S: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// The signs of eight elements from the lowest seven bits of `bits`; the eighth makes the number of minuses even.
#[inline]
pub const fn even_signs(bits: u8) -> u8 {
    bits & 127 | ((bits & 127).count_ones() as u8 & 1) << 7
}
