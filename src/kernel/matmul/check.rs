//! Kernels that cannot be run on every machine they are built on prove themselves where they are used.

use super::{Activations, Form, Output, activation_bytes, multiply};
use crate::kernel::Isa;
use crate::quant::Format;
use crate::sys::heap;

/// Elements of a row, rows and tokens: one token, as many as share what a block is taken apart into, and a prompt.
const SHAPES: [[usize; 3]; 3] = [[768, 37, 1], [768, 37, 5], [256, 17, 66]];

/// 64-byte-aligned room for activations.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Whether the kernels of `isa` give the bits of the scalar ones for every format, on
/// random blocks, for one token and for several. `false` where there is no memory to compare them. Takes a few milliseconds.
pub fn agrees(isa: Isa) -> bool {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let most = SHAPES.map(|[k, _, tokens]| k * tokens).into_iter().max().unwrap_or(0);
    // Without memory for the comparison nothing is known of them.
    let numbers = (0..most).map(|_| (random() >> 40) as f32 / (1u64 << 22) as f32 - 2.0);
    let Ok(x) = heap::collected(numbers, "numbers") else { return false };
    Format::ALL.iter().all(|&format| {
        SHAPES.iter().all(|&[k, count, tokens]| {
            let bytes = format.row_bytes(k).unwrap_or(0) * count;
            let Ok(rows) = heap::collected((0..bytes).map(|_| (random() >> 32) as u8), "rows") else { return false };
            let x = &x[..tokens * k];
            let products = [Isa::SCALAR, isa].map(|isa| product(isa, format, &rows, [k, count], x));
            let [Some(truth), Some(found)] = products else { return false };
            truth.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        })
    })
}

fn product(isa: Isa, format: Format, rows: &[u8], [k, count]: [usize; 2], x: &[f32]) -> Option<Vec<f32>> {
    let (form, tokens) = (Form::of(format), x.len() / k);
    let lines = activation_bytes(form, k, tokens).div_ceil(64);
    let mut room = heap::collected((0..lines).map(|_| Line([0; 64])), "activations").ok()?;
    let mut out = heap::collected((0..tokens * count).map(|_| 0f32), "products").ok()?;
    // SAFETY: a line is an array of bytes, and the slice is as long as all of them.
    let buf =
        unsafe { std::slice::from_raw_parts_mut((&raw mut (*room.as_mut_ptr()).0).cast::<u8>(), room.len() * 64) };
    let acts = Activations::quantize(isa, form, k, x, tokens, buf);
    // SAFETY: `out` holds all rows of all tokens, and no other thread knows it.
    unsafe { multiply(isa, format, rows, k, 0..count, &acts, Output { ptr: out.as_mut_ptr(), stride: count }) };
    Some(out)
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
