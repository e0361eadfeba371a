//! Formats without blocks: IEEE single, IEEE half, and the top half of a single.

use super::Format;
use crate::elementary::{bf16_to_f32, f16_to_f32};

/// Decodes `out.len()` elements of an unblocked format.
pub(super) fn decode(format: Format, row: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => {
            for (bytes, value) in row.as_chunks::<4>().0.iter().zip(out) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Format::F16 => {
            for (bytes, value) in row.as_chunks::<2>().0.iter().zip(out) {
                *value = f16_to_f32(u16::from_le_bytes(*bytes));
            }
        }
        Format::BF16 => {
            for (bytes, value) in row.as_chunks::<2>().0.iter().zip(out) {
                *value = bf16_to_f32(u16::from_le_bytes(*bytes));
            }
        }
        _ => unreachable!("{} has blocks", format.name()),
    }
}
