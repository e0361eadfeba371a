//! Kernels that cannot be run on every machine they are built on prove themselves where they are used.

use super::{Activations, Form, Output, activation_bytes, multiply};
use crate::kernel::Isa;
use crate::quant::Format;

const K: usize = 768;
const ROWS: usize = 37;
const TOKENS: usize = 5;

/// 64-byte-aligned room for activations.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Whether the kernels of `isa` give the bits of the scalar ones for every format, on
/// random blocks, for one token and for several. Takes about a millisecond.
pub fn agrees(isa: Isa) -> bool {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let x: Vec<f32> = (0..TOKENS * K).map(|_| (random() >> 40) as f32 / (1u64 << 22) as f32 - 2.0).collect();
    Format::ALL.iter().all(|&format| {
        let bytes = format.row_bytes(K).unwrap_or(0) * ROWS;
        let rows: Vec<u8> = (0..bytes).map(|_| (random() >> 32) as u8).collect();
        [1, TOKENS].iter().all(|&tokens| {
            let [truth, found] = [Isa::SCALAR, isa].map(|isa| product(isa, format, &rows, &x[..tokens * K], tokens));
            truth.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        })
    })
}

fn product(isa: Isa, format: Format, rows: &[u8], x: &[f32], tokens: usize) -> Vec<f32> {
    let form = Form::of(format);
    let mut room = vec![Line([0; 64]); activation_bytes(form, K, tokens).div_ceil(64)];
    let mut out = vec![0f32; tokens * ROWS];
    // SAFETY: a line is an array of bytes, and the slice is as long as all of them.
    let buf =
        unsafe { std::slice::from_raw_parts_mut((&raw mut (*room.as_mut_ptr()).0).cast::<u8>(), room.len() * 64) };
    let acts = Activations::quantize(isa, form, K, x, tokens, buf);
    // SAFETY: `out` holds all rows of all tokens, and no other thread knows it.
    unsafe { multiply(isa, format, rows, K, 0..ROWS, &acts, Output { ptr: out.as_mut_ptr(), stride: ROWS }) };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_of_this_processor_agrees_with_the_scalar_kernels() {
        for isa in Isa::available() {
            assert!(agrees(isa), "{}", isa.name());
        }
    }
}
