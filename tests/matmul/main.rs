//! Products of quantised rows: the scalar kernels against exact arithmetic, and every vector kernel this processor can
//! run against the scalar ones, bit for bit.

mod paths;
#[cfg(not(miri))] // Too much for an interpreter.
mod properties;
mod support;

use layerline::kernel::Isa;
use layerline::kernel::matmul::{Activations, Form, Output, Quantizer, activation_bytes, multiply};
use layerline::quant::{Format, decode_row};
use support::{ALL, Aligned, Blocks, Guarded, Random, activations, row_lengths, weights};

/// All rows with all tokens, as one call; the output starts as something that no kernel leaves there.
fn product(isa: Isa, format: Format, rows: &[u8], k: usize, x: &[f32]) -> Vec<f32> {
    let count = rows.len() / format.row_bytes(k).unwrap();
    let tokens = x.len() / k;
    let form = Form::of(format);
    let mut buf = Aligned::new(activation_bytes(form, k, tokens));
    let mut y = vec![f32::from_bits(0x7fc1_2345); count * tokens];
    let acts = Activations::quantize(isa, form, k, x, tokens, buf.bytes());
    // SAFETY: `y` holds all results and nobody else has it.
    unsafe { multiply(isa, format, rows, k, 0..count, &acts, Output { ptr: y.as_mut_ptr(), stride: count }) };
    y
}

#[track_caller]
fn assert_same_bits(expected: &[f32], found: &[f32], what: &str) {
    assert_eq!(expected.len(), found.len(), "{what}");
    for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
        let same = expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan());
        assert!(same, "{what}: result {i} is {found:e}, not {expected:e}");
    }
}

/// What the activations become, as the values they stand for.
fn rounded(form: Form, x: &[f32]) -> Vec<f64> {
    let block = match form {
        Form::F32 => return x.iter().map(|x| *x as f64).collect(),
        Form::Q8x32 => 32,
        Form::Q8x256 => 256,
    };
    let mut values = Vec::new();
    for x in x.chunks(block) {
        let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let d = largest / 127.0;
        values.extend(x.iter().map(|x| {
            let q = if d == 0.0 { 0.0 } else { (x * (127.0 / largest)).round_ties_even() };
            d as f64 * q as f64
        }));
    }
    values
}

#[test]
fn scalar_products_are_those_of_the_decoded_values() {
    let mut random = Random::new(1);
    for format in ALL {
        for k in row_lengths(format) {
            let rows = weights(&mut random, format, k, 3, Blocks::Ordinary);
            let x = activations(&mut random, 2 * k);
            let y = product(Isa::SCALAR, format, &rows, k, &x);
            for (r, row) in rows.chunks_exact(format.row_bytes(k).unwrap()).enumerate() {
                let mut w = vec![0.0; k];
                decode_row(format, row, &mut w);
                for (t, x) in x.chunks_exact(k).enumerate() {
                    let terms = w.iter().zip(rounded(Form::of(format), x)).map(|(w, x)| *w as f64 * x);
                    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                    let found = y[t * 3 + r] as f64;
                    // A few roundings a block, the largest partial sum being `size` with offsets and mins put apart.
                    let bound = 4e-6 * size.max(1e-30) * 8.0;
                    assert!((found - sum).abs() <= bound, "{} k {k} ({t}, {r}): {found} {sum}", format.name());
                }
            }
        }
    }
}

#[test]
fn rounding_activations_costs_less_than_one_part_in_a_hundred() {
    let mut random = Random::new(2);
    for format in ALL {
        let k = 1024;
        let rows = weights(&mut random, format, k, 16, Blocks::Ordinary);
        let x = activations(&mut random, k);
        let y = product(Isa::SCALAR, format, &rows, k, &x);
        let (mut error, mut size) = (0.0, 0.0);
        for (row, y) in rows.chunks_exact(format.row_bytes(k).unwrap()).zip(y) {
            let mut w = vec![0.0; k];
            decode_row(format, row, &mut w);
            let norm: f64 = w.iter().map(|w| (*w as f64).powi(2)).sum::<f64>() * k as f64 / 3.0;
            let exact: f64 = w.iter().zip(&x).map(|(w, x)| *w as f64 * *x as f64).sum();
            error += (exact - y as f64).powi(2);
            size += norm;
        }
        assert!(error < size * 1e-4, "{}: {}", format.name(), (error / size).sqrt());
    }
}

#[test]
fn vector_kernels_give_the_bits_of_the_scalar_ones() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(format.id() as u64 + 3);
            for blocks in Blocks::ALL {
                for k in row_lengths(format) {
                    for (count, tokens) in
                        [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (9, 7), (17, 1), (33, 5), (8, 20), (7, 2), (9, 2)]
                    {
                        let rows = weights(&mut random, format, k, count, blocks);
                        let mut x = activations(&mut random, tokens * k);
                        // The largest sums there are: every code of a token at one end.
                        x[..k].fill(if count % 2 == 0 { 1.0 } else { -1.0 });
                        let expected = product(Isa::SCALAR, format, &rows, k, &x);
                        let what = format!("{} {} {blocks:?} k {k}, {count}x{tokens}", isa.name(), format.name());
                        assert_same_bits(&expected, &product(isa, format, &rows, k, &x), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn every_token_count_gives_each_token_the_bits_it_has_alone() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(11);
            let (k, count) = (512, 11);
            let rows = weights(&mut random, format, k, count, Blocks::Ordinary);
            let x = activations(&mut random, 20 * k);
            let alone: Vec<f32> = x.chunks_exact(k).flat_map(|x| product(isa, format, &rows, k, x)).collect();
            for tokens in 1..=20 {
                let together = product(isa, format, &rows, k, &x[..tokens * k]);
                let what = format!("{} {} {tokens} tokens", isa.name(), format.name());
                assert_same_bits(&alone[..tokens * count], &together, &what);
            }
        }
    }
}

/// From 64 tokens on some kernels take 16 tokens and 64 rows at a time: more than whole ones of both.
#[test]
fn prompts_have_the_bits_of_the_scalar_kernels() {
    for format in ALL {
        let mut random = Random::new(format.id() as u64 + 31);
        for blocks in Blocks::ALL {
            for (k, count, tokens) in [(768, 67, 70), (256, 17, 64), (256, 33, 65)] {
                let rows = weights(&mut random, format, k, count, blocks);
                let mut x = activations(&mut random, tokens * k);
                // The largest sums there are, both ways.
                x[..k].fill(1.0);
                x[k..2 * k].fill(-1.0);
                let expected = product(Isa::SCALAR, format, &rows, k, &x);
                for isa in Isa::available() {
                    let what = format!("{} {} {blocks:?} k {k}, {count}x{tokens}", isa.name(), format.name());
                    assert_same_bits(&expected, &product(isa, format, &rows, k, &x), &what);
                }
            }
        }
    }
}

/// Kernels keep the results of 256 or 512 tokens at hand.
#[test]
fn tokens_beyond_a_panel_have_the_bits_they_have_alone() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(17);
            let (k, count, tokens) = (512, 3, 515);
            let rows = weights(&mut random, format, k, count, Blocks::Ordinary);
            let x = activations(&mut random, tokens * k);
            let together = product(isa, format, &rows, k, &x);
            for t in [0, 255, 256, 511, 512, 514] {
                let alone = product(isa, format, &rows, k, &x[t * k..][..k]);
                let what = format!("{} {} token {t}", isa.name(), format.name());
                assert_same_bits(&alone, &together[t * count..][..count], &what);
            }
        }
    }
}

#[test]
fn cutting_the_rows_changes_no_bits_and_writes_no_other_rows() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(12);
            let (k, count) = (256, 41);
            let row_bytes = format.row_bytes(k).unwrap();
            let rows = weights(&mut random, format, k, count, Blocks::Ordinary);
            for tokens in [1, 6] {
                let x = activations(&mut random, tokens * k);
                let whole = product(isa, format, &rows, k, &x);
                for cut in [1, 2, 3, 5, 8, 19, 40] {
                    let form = Form::of(format);
                    let mut buf = Aligned::new(activation_bytes(form, k, tokens));
                    let mut y = vec![f32::INFINITY; count * tokens];
                    let what = format!("{} {} {tokens} tokens cut at {cut}", isa.name(), format.name());
                    let acts = Activations::quantize(isa, form, k, &x, tokens, buf.bytes());
                    // SAFETY: the two calls write different rows of `y`, which nobody else has.
                    unsafe {
                        let out = Output { ptr: y.as_mut_ptr(), stride: count };
                        multiply(isa, format, &rows, k, cut..count, &acts, out);
                        for t in 0..tokens {
                            let before = &y[t * count..][..cut];
                            assert!(before.iter().all(|y| *y == f32::INFINITY), "{what}: wrote before the range");
                        }
                        // The first part by a slice that ends with it.
                        multiply(isa, format, &rows[..cut * row_bytes], k, 0..cut, &acts, out);
                    }
                    assert_same_bits(&whole, &y, &what);
                }
            }
        }
    }
}

#[test]
fn nothing_outside_of_the_rows_is_read_at_any_alignment() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(13);
            for k in row_lengths(format) {
                for (count, tokens) in [(1, 1), (3, 1), (6, 2), (7, 5), (33, 4)] {
                    let rows = weights(&mut random, format, k, count, Blocks::Ordinary);
                    let x = activations(&mut random, tokens * k);
                    let expected = product(isa, format, &rows, k, &x);
                    let what = format!("{} {} k {k}, {count}x{tokens}", isa.name(), format.name());
                    // The rows lie between pages that fault, against one of them and then the other.
                    let mut guarded = Guarded::new(rows.len());
                    for at_end in [true, false] {
                        let place = guarded.place(rows.len(), at_end);
                        place.copy_from_slice(&rows);
                        assert_same_bits(&expected, &product(isa, format, place, k, &x), &what);
                    }
                    let mut shifted = vec![0; rows.len() + 32];
                    for by in [1, 2, 3, 7, 17, 31] {
                        let place = &mut shifted[by..by + rows.len()];
                        place.copy_from_slice(&rows);
                        assert_same_bits(&expected, &product(isa, format, place, k, &x), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn activations_are_rounded_alike_by_all_instruction_sets_and_cuts() {
    let mut random = Random::new(14);
    for form in [Form::F32, Form::Q8x32, Form::Q8x256] {
        let (k, tokens) = (if form == Form::Q8x256 { 768 } else { 800 }, 5);
        let mut x = activations(&mut random, tokens * k);
        x[..4].copy_from_slice(&[0.5, -0.5, 1.5, 1e-40]);
        x[k..2 * k].fill(0.0);
        x[2 * k..3 * k].fill(1e-39);
        x[3 * k..4 * k].iter_mut().for_each(|x| *x *= 1e36);
        let mut expected = Aligned::new(activation_bytes(form, k, tokens));
        Activations::quantize(Isa::SCALAR, form, k, &x, tokens, expected.bytes());
        for isa in Isa::available() {
            let mut found = Aligned::new(activation_bytes(form, k, tokens));
            let quantizer = Quantizer::new(form, k, tokens, found.bytes());
            std::thread::scope(|scope| {
                for range in [0..2, 2..3, 3..5] {
                    let (quantizer, x) = (&quantizer, &x);
                    // SAFETY: the ranges are apart.
                    scope.spawn(move || unsafe { quantizer.quantize(isa, x, range) });
                }
            });
            quantizer.finish();
            assert!(expected.bytes() == found.bytes(), "{form:?} {}", isa.name());
        }
    }
}

#[test]
fn infinite_and_undefined_activations_spoil_their_token_only() {
    for isa in Isa::available() {
        for format in ALL {
            let mut random = Random::new(15);
            let (k, count, tokens) = (256, 5, 5);
            let rows = weights(&mut random, format, k, count, Blocks::Ordinary);
            let clean = activations(&mut random, tokens * k);
            let expected = product(isa, format, &rows, k, &clean);
            for (t, bad) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
                let mut x = clean.clone();
                x[t * k + 100] = bad;
                let y = product(isa, format, &rows, k, &x);
                for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    let spoilt = i / count == t;
                    let what = format!("{} {} {bad} result {i}", isa.name(), format.name());
                    assert_eq!(y.is_finite(), !spoilt, "{what}");
                    assert!(spoilt || y == expected, "{what}");
                }
            }
        }
    }
}

#[test]
fn all_zero_activations_give_zero() {
    for isa in Isa::available() {
        for format in ALL {
            let rows = weights(&mut Random::new(16), format, 512, 5, Blocks::Ordinary);
            let y = product(isa, format, &rows, 512, &[0.0; 2 * 512]);
            assert!(y.iter().all(|y| *y == 0.0), "{} {}", isa.name(), format.name());
        }
    }
}

#[test]
#[should_panic(expected = "rows outside of the slice")]
fn a_range_beyond_the_rows_is_refused() {
    let mut buf = Aligned::new(activation_bytes(Form::Q8x32, 32, 1));
    let mut y = [0.0; 2];
    let acts = Activations::quantize(Isa::SCALAR, Form::Q8x32, 32, &[1.0; 32], 1, buf.bytes());
    let out = Output { ptr: y.as_mut_ptr(), stride: 2 };
    // SAFETY: `y` holds the results.
    unsafe { multiply(Isa::SCALAR, Format::Q4_0, &[0; 18], 32, 0..2, &acts, out) };
}
