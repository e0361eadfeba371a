//! Block formats of GGUF tensors: their layout and the scalar decoders that define their values.

pub mod block256;
pub mod block32;
mod code_book;
pub mod grids;
pub mod layout;
pub mod plain;
pub mod tables;

/// A tensor's element format. The numbers are the type ids of the file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(non_camel_case_types)]
pub enum Format {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
}

/// Writes the values of one row. `row` holds exactly `out.len()` elements in `format`; `out.len()` is a whole number
/// of the format's blocks.
///
/// # Panics
/// If the two lengths do not belong together.
pub fn decode_row(format: Format, row: &[u8], out: &mut [f32]) {
    assert_eq!(Some(row.len()), format.row_bytes(out.len()), "{} elements of {}", out.len(), format.name());
    match format.block_len() {
        1 => plain::decode(format, row, out),
        256 => {
            let mut block = block256::Block256::default();
            for (bytes, values) in row.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(256)) {
                block.unpack(format, bytes);
                block.values(values);
            }
        }
        len => {
            let mut block = block32::Block32::default();
            for (bytes, values) in row.chunks_exact(format.block_bytes()).zip(out.chunks_exact_mut(len)) {
                for (part, values) in values.chunks_exact_mut(32).enumerate() {
                    block.unpack(format, bytes, part);
                    block.values(values);
                }
            }
        }
    }
}

/// The IEEE half at `bytes[at..]`.
#[inline]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    crate::elementary::f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}
