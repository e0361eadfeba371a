//! Bytes as blocks of any format: they decode, and every kernel of this processor gives the same bits for them.
//!
//! Input: a byte for the format, one for the number of rows and tokens, then the rows.

#![no_main]

use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::{Format, decode_row};
use libfuzzer_sys::fuzz_target;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

fuzz_target!(|data: &[u8]| {
    let [format, shape, bytes @ ..] = data else { return };
    let format = Format::ALL[usize::from(*format) % Format::ALL.len()];
    let (rows, tokens) = (usize::from(shape % 7) + 1, usize::from(shape / 7 % 6) + 1);
    let blocks = bytes.len() / rows / format.block_bytes();
    if blocks == 0 {
        return;
    }
    let (k, row) = (blocks * format.block_len(), blocks * format.block_bytes());
    let bytes = &bytes[..rows * row];
    let mut values = vec![0.0; k];
    bytes.chunks_exact(row).for_each(|row| decode_row(format, row, &mut values));

    let x: Vec<f32> = (0..tokens * k).map(|i| (i * 7919 % 2003) as f32 / 1000.0 - 1.0).collect();
    let products: Vec<Vec<f32>> = [Isa::SCALAR]
        .into_iter()
        .chain(Isa::available())
        .map(|isa| {
            let form = Form::of(format);
            let mut room = vec![Line([0; 64]); activation_bytes(form, k, tokens).div_ceil(64)];
            let mut y = vec![0.0; tokens * rows];
            // SAFETY: a line is an array of bytes; `y` holds all results.
            unsafe {
                let buf = std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len() * 64);
                let acts = Activations::quantize(isa, form, k, &x, tokens, buf);
                multiply(isa, format, bytes, k, 0..rows, &acts, Output { ptr: y.as_mut_ptr(), stride: rows });
            }
            y
        })
        .collect();
    for other in &products[1..] {
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(products[0].iter().zip(other).all(same), "{}", format.name());
    }
});
