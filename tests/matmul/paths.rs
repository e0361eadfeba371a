//! Every path through the kernels of a format, in shapes so small that an interpreter can take them: this is how
//! scripts/vnni-interpreted runs the kernels of processors that are not at hand.

use crate::assert_same_bits;
use crate::support::{Aligned, Blocks, Random, activations, weights};
use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, activation_bytes, multiply};
use layerline::quant::Format;

/// Blocks in a row, rows before those asked for, rows, tokens.
type Shape = (usize, usize, usize, usize);

/// Below four tokens kernels take rows in fours, straight from the file's blocks. From four on they take tiles of 32 rows
/// by 256 columns; those with VNNI have 8 or 16 rows in a vector and take six tokens at a time, then the one to five left.
const SHAPES_OF_32: [Shape; 10] = [
    (1, 0, 1, 1),
    (9, 1, 5, 1),
    (3, 0, 3, 2),
    (16, 2, 4, 3),
    (1, 1, 33, 4),
    (9, 0, 17, 5),
    (8, 0, 16, 6),
    (10, 0, 2, 7),
    (2, 0, 7, 8),
    (3, 3, 1, 9),
];

/// As [`SHAPES_OF_32`]; here one block is all the columns of a tile.
const SHAPES_OF_256: [Shape; 10] = [
    (1, 0, 1, 1),
    (3, 1, 5, 1),
    (2, 0, 3, 2),
    (1, 2, 4, 3),
    (1, 1, 33, 4),
    (2, 0, 17, 5),
    (1, 0, 16, 6),
    (2, 0, 2, 7),
    (1, 0, 7, 8),
    (3, 3, 1, 9),
];

/// For blocks of special bits.
const FEW: [Shape; 2] = [(1, 0, 4, 1), (1, 0, 3, 4)];

fn check(format: Format) {
    let mut isas = Isa::available();
    if cfg!(miri) {
        // Processors run the others themselves.
        isas.retain(|isa| !["scalar", "avx2"].contains(&isa.name()));
        assert!(!isas.is_empty(), "interpreted by scripts/vnni-interpreted only");
    }
    let shapes = if format.block_len() == 256 { &SHAPES_OF_256 } else { &SHAPES_OF_32 };
    let mut random = Random::new(format.id() as u64 + 17);
    for kind in Blocks::ALL {
        for &(blocks, before, count, tokens) in if kind == Blocks::Ordinary { &shapes[..] } else { &FEW } {
            let k = blocks * format.block_len();
            let rows = weights(&mut random, format, k, before + count, kind);
            // Two kinds of tokens, since the scalar kernels are slow to interpret, in an order that never repeats itself.
            // The first makes the largest sums there are: all of its codes are at one end.
            let mut two = activations(&mut random, 2 * k);
            two[..k].fill(if count % 2 == 0 { 1.0 } else { -1.0 });
            let which = |t: usize| t.count_ones() as usize % 2;
            let x: Vec<f32> = (0..tokens).flat_map(|t| &two[which(t) * k..][..k]).copied().collect();

            let alone = [0, 1].map(|i| product(Isa::SCALAR, format, &rows, k, before, &two[i * k..][..k]));
            let expected: Vec<f32> = (0..tokens).flat_map(|t| &alone[which(t)]).copied().collect();
            for &isa in &isas {
                let what = format!("{} {kind:?} {blocks} blocks, rows {before}+{count}, {tokens} tokens", isa.name());
                assert_same_bits(&expected, &product(isa, format, &rows, k, before, &x), &what);
            }
        }
    }
}

/// The rows from `start` on with all tokens, `k` activations each, in an output that has room for the rows before them
/// and for one behind them, which no kernel may write.
fn product(isa: Isa, format: Format, rows: &[u8], k: usize, start: usize, x: &[f32]) -> Vec<f32> {
    let end = rows.len() / format.row_bytes(k).unwrap();
    let (tokens, stride, form) = (x.len() / k, end + 1, Form::of(format));
    // An allocation that ends with the rows, so that an interpreter sees what is read beyond them.
    let rows: Box<[u8]> = rows.into();
    let mut buf = Aligned::new(activation_bytes(form, k, tokens));
    let mut y = vec![f32::INFINITY; tokens * stride];
    let acts = Activations::quantize(isa, form, k, x, tokens, buf.bytes());
    // SAFETY: `y` holds all results and nobody else has it.
    unsafe { multiply(isa, format, &rows, k, start..end, &acts, Output { ptr: y.as_mut_ptr(), stride }) };
    y
}

macro_rules! formats {
    ($($name:ident: $format:ident),*) => {
        $(#[test]
        fn $name() {
            check(Format::$format);
        })*
    };
}

// The kernels of floating-point weights are those for AVX2 everywhere.
formats! {
    q4_0: Q4_0, q4_1: Q4_1, q5_0: Q5_0, q5_1: Q5_1, q8_0: Q8_0, iq4_nl: IQ4_NL, mxfp4: MXFP4,
    q2_k: Q2_K, q3_k: Q3_K, q4_k: Q4_K, q5_k: Q5_K, q6_k: Q6_K, iq4_xs: IQ4_XS,
    iq1_s: IQ1_S, iq1_m: IQ1_M, iq2_xxs: IQ2_XXS, iq2_xs: IQ2_XS, iq2_s: IQ2_S, iq3_xxs: IQ3_XXS, iq3_s: IQ3_S,
    tq1_0: TQ1_0, tq2_0: TQ2_0, nvfp4: NVFP4, q1_0: Q1_0, q2_0: Q2_0
}
