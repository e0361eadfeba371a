//! Formats without blocks: IEEE single, IEEE half, and the top half of a single.

use super::Format;
use half::{bf16, f16};

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
                *value = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        Format::BF16 => {
            for (bytes, value) in row.as_chunks::<2>().0.iter().zip(out) {
                *value = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => unreachable!("{} has blocks", format.name()),
    }
}
