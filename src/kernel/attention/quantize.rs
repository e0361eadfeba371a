//! Keys and values into quantised blocks.

use super::{Q8_0_BLOCK, Q8_0_BYTES};
use crate::kernel::Isa;
use crate::kernel::vector::f32_to_f16;

/// What [`rotate`] multiplies the length of a row's part with, squared.
const ROTATED: f32 = Q8_0_BLOCK as f32;

/// Multiplies each part of [`Q8_0_BLOCK`] elements of a row with the Hadamard matrix, in place. An element that is larger
/// than the others is then shared by all of them, so that the block's scale is smaller and rounding costs less.
///
/// The matrix is its own inverse but for a factor: rotated twice, the second time by [`rotate_back`], a row is what it
/// was. Products of rotated rows with rows that were rotated back are those of the rows as they were.
///
/// # Panics
/// If the row is not whole parts.
pub fn rotate(row: &mut [f32]) {
    let (parts, rest) = row.as_chunks_mut::<Q8_0_BLOCK>();
    assert!(rest.is_empty(), "not whole blocks");
    for part in parts {
        let mut width = 1;
        while width < Q8_0_BLOCK {
            for pair in part.chunks_exact_mut(2 * width) {
                let (low, high) = pair.split_at_mut(width);
                for (a, b) in low.iter_mut().zip(high) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            width *= 2;
        }
    }
}

/// The same divided by the square of the factor, which is a power of two.
pub fn rotate_back(row: &mut [f32]) {
    rotate(row);
    row.iter_mut().for_each(|x| *x *= 1.0 / ROTATED);
}

/// Adding and subtracting it rounds a number of small magnitude to a whole one, ties to even.
const TO_WHOLE: f32 = 12_582_912.0;

/// Rounds `from` to blocks of Q8_0 in `to`: the scale is the greatest magnitude divided by 127, as a half float, and each
/// element the nearest multiple of the unrounded scale. The same bits with every instruction set.
///
/// # Panics
/// If `from` is not whole blocks, or `to` is not as long as they are.
pub fn f32_to_q8_0(isa: Isa, from: &[f32], to: &mut [u8]) {
    let (from, rest) = from.as_chunks::<Q8_0_BLOCK>();
    let (to, no_room) = to.as_chunks_mut::<Q8_0_BYTES>();
    assert!(rest.is_empty() && no_room.is_empty() && from.len() == to.len(), "not whole blocks");
    for (from, to) in from.iter().zip(to) {
        // Not a number where an element is not: the block then is not one either.
        let greatest = from.iter().fold(0.0f32, |most, x| if x.abs() <= most { most } else { x.abs() + 0.0 * most });
        let scale = greatest / 127.0;
        // A scale that is denormal or zero has no inverse worth multiplying with; a half float rounds it to zero anyway.
        let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
        let mut half = [0];
        f32_to_f16(isa, &[scale], &mut half);
        to[..2].copy_from_slice(&half[0].to_le_bytes());
        for (x, code) in from.iter().zip(&mut to[2..]) {
            let whole = (x * inverse + TO_WHOLE) - TO_WHOLE;
            *code = whole as i8 as u8;
        }
    }
}
