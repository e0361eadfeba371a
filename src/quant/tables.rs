//! Code books of the formats whose codes are not equally spaced.

/// Values of the 4-bit codes of IQ4_NL and IQ4_XS.
pub const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Values of the 4-bit codes of MXFP4, doubled so that they are whole numbers.
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
