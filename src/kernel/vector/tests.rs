use super::math;
use super::simd::{Kernel, LANES, Simd, dispatch};
use super::*;
use crate::kernel::Isa;
use crate::kernel::testing::noise;
use crate::operations::Activation;

const LENGTHS: [usize; 12] = [0, 1, 2, 7, 8, 9, 31, 32, 63, 64, 513, 1111];

const CLAMPED: Activation = Activation::ClampedSwiglu { slope: 1.702, limit: 7.0 };

/// Floats spread over all exponents and both signs, with the special ones.
fn all_magnitudes() -> Vec<f32> {
    let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45];
    let spread = (0..=u32::MAX / 9973).map(|i| f32::from_bits(i * 9973));
    special.into_iter().chain(spread).collect()
}

fn relative(got: f32, exact: f64) -> f64 {
    if f64::from(got) == exact { 0.0 } else { ((f64::from(got) - exact) / exact).abs() }
}

struct Each<'a, F> {
    f: F,
    x: &'a mut [f32],
}

trait Function {
    fn apply<S: Simd>(&self, s: S, x: S::V) -> S::V;
}

impl<F: Function> Kernel for Each<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.x.chunks_mut(LANES) {
            s.store_part(self.f.apply(s, s.load_part(x, 0.0)), x);
        }
    }
}

struct Exp;
struct Tanh;

impl Function for Exp {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, x: S::V) -> S::V {
        math::exp(s, x)
    }
}

impl Function for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(&self, s: S, x: S::V) -> S::V {
        math::tanh(s, x)
    }
}

fn ramp(from: f32, to: f32, count: usize) -> impl Iterator<Item = f32> {
    (0..=count).map(move |i| from + (to - from) * (i as f32 / count as f32))
}

#[test]
fn exp_is_within_a_millionth_over_the_whole_range() {
    let mut inputs = all_magnitudes();
    inputs.extend(ramp(-105.0, 90.0, 400_000));
    for isa in Isa::available() {
        let mut got = inputs.clone();
        dispatch(isa, Each { f: Exp, x: &mut got });
        for (&x, &y) in inputs.iter().zip(&got) {
            let exact = f64::from(x).exp();
            if x.is_nan() {
                assert!(y.is_nan());
            } else if exact > f64::from(f32::MAX) {
                assert_eq!(y, if exact > 3.402_823_6e38 { f32::INFINITY } else { f32::MAX }, "exp({x})");
            } else if exact >= f64::from(f32::MIN_POSITIVE) {
                assert!(relative(y, exact) < 3e-7, "{isa:?} exp({x}) = {y}, not {exact}");
            } else {
                assert!((f64::from(y) - exact).abs() <= 1.5e-45, "{isa:?} exp({x}) = {y}, not {exact}");
            }
        }
    }
}

#[test]
fn tanh_is_within_a_millionth_over_the_whole_range() {
    let mut inputs = all_magnitudes();
    inputs.extend(ramp(-20.0, 20.0, 400_000));
    for isa in Isa::available() {
        let mut got = inputs.clone();
        dispatch(isa, Each { f: Tanh, x: &mut got });
        for (&x, &y) in inputs.iter().zip(&got) {
            if x.is_nan() {
                assert!(y.is_nan());
                continue;
            }
            assert!(relative(y, f64::from(x).tanh()) < 6e-7, "{isa:?} tanh({x}) = {y}");
        }
    }
}

#[test]
fn silu_is_within_a_millionth_and_keeps_its_limits() {
    let mut gate = all_magnitudes();
    gate.extend(ramp(-110.0, 110.0, 300_000));
    for isa in Isa::available() {
        let mut got = vec![1.0; gate.len()];
        gate_assign(isa, Activation::Silu, &gate, &mut got);
        for (&x, &y) in gate.iter().zip(&got) {
            if x.is_nan() {
                assert!(y.is_nan());
                continue;
            }
            let exact = if x == f32::NEG_INFINITY { 0.0 } else { f64::from(x) / (1.0 + (-f64::from(x)).exp()) };
            let small = (f64::from(y) - exact).abs() < 2e-36;
            assert!(relative(y, exact) < 1e-6 || (x < -87.0 || x.abs() < 1e-36) && small, "{isa:?} silu({x}) = {y}");
        }
    }
}

#[test]
fn gelu_keeps_its_stated_error_and_its_limits() {
    let mut gate = all_magnitudes();
    gate.extend(ramp(-20.0, 20.0, 300_000));
    for isa in Isa::available() {
        let mut got = vec![1.0; gate.len()];
        gate_assign(isa, Activation::GeluTanh, &gate, &mut got);
        for (&x, &y) in gate.iter().zip(&got) {
            if x.is_nan() {
                assert!(y.is_nan());
                continue;
            }
            let wide = f64::from(x);
            // The sigmoid form: the tanh form cancels, even in f64, at negative x.
            let twice = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide * wide * wide);
            let exact = if x == f32::NEG_INFINITY { 0.0 } else { wide / (1.0 + (-twice).exp()) };
            let close = (f64::from(y) - exact).abs() <= 1e-6 * exact.abs() + 1e-8;
            assert!(f64::from(y) == exact || close, "{isa:?} gelu({x}) = {y}, not {exact}");
        }
    }
}

/// The normal distribution's Φ(−a), a ≥ 0: by its series where that converges soon, else by its continued fraction.
fn beyond(a: f64) -> f64 {
    let density = (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if a > 3.0 {
        return density / (1..200).rev().fold(a, |rest, n| a + f64::from(n) / rest);
    }
    let (mut term, mut sum) = (a, a);
    for n in 1..100 {
        term *= a * a / f64::from(2 * n + 1);
        sum += term;
    }
    0.5 - density * sum
}

#[test]
fn exact_gelu_keeps_its_stated_error_and_its_limits() {
    assert!(
        (beyond(1.0) - 0.158_655_253_931_457).abs() < 1e-15
            && (beyond(5.0) / 2.866_515_718_791_94e-7 - 1.0).abs() < 1e-13
    );
    let mut gate = all_magnitudes();
    gate.extend(ramp(-20.0, 20.0, 300_000));
    for isa in Isa::available() {
        let mut got = vec![1.0; gate.len()];
        gate_assign(isa, Activation::Gelu, &gate, &mut got);
        for (&x, &y) in gate.iter().zip(&got) {
            if x.is_nan() {
                assert!(y.is_nan());
                continue;
            }
            // The magnitude alone: infinity times nothing is no number.
            let (wide, a) = (f64::from(x), f64::from(x.abs()).min(40.0));
            let exact = wide.max(0.0) - a * beyond(a);
            let close = (f64::from(y) - exact).abs() <= 1e-6 * exact.abs() + 1e-8;
            assert!(f64::from(y) == exact || close, "{isa:?} gelu({x}) = {y}, not {exact}");
        }
    }
}

#[test]
fn activations_multiply_by_the_second_row_at_every_length() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let gate: Vec<f32> = noise(1, n).iter().map(|x| x * 12.0).collect();
            let up: Vec<f32> = noise(2, n).iter().map(|x| x * 12.0).collect();
            let [silu, gelu, clamped] = [Activation::Silu, Activation::GeluTanh, CLAMPED].map(|f| {
                let mut got = up.clone();
                gate_assign(isa, f, &gate, &mut got);
                got
            });
            let mut capped = gate.clone();
            softcap(isa, &mut capped, 5.0);
            for i in 0..n {
                let (g, u) = (f64::from(gate[i]), f64::from(up[i]));
                let near = |got: f32, exact: f64| (f64::from(got) - exact).abs() <= 2e-6 * exact.abs() + 1e-6;
                assert!(near(silu[i], g / (1.0 + (-g).exp()) * u));
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
                assert!(near(gelu[i], 0.5 * g * (1.0 + inner.tanh()) * u));
                let low = g.min(7.0);
                let exact = low / (1.0 + (-1.702 * low).exp()) * (u.clamp(-7.0, 7.0) + 1.0);
                assert!(near(clamped[i], exact), "{} is not {exact}", clamped[i]);
                assert!(near(capped[i], 5.0 * (g / 5.0).tanh()));
            }
        }
    }
}

#[test]
fn rms_norm_agrees_with_f64_and_in_place_gives_the_same_bits() {
    for isa in Isa::available() {
        for n in LENGTHS {
            for magnitude in [1e-3, 1.0, 1e4] {
                let x: Vec<f32> = noise(3, n).iter().map(|x| x * magnitude).collect();
                let weight = noise(4, n);
                let mut out = vec![f32::NAN; n];
                rms_norm(isa, &x, &weight, 1e-6, &mut out);
                let mean = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
                for i in 0..n {
                    let exact = f64::from(x[i]) / (mean + 1e-6).sqrt() * f64::from(weight[i]);
                    assert!(relative(out[i], exact) < 5e-7, "{isa:?} n {n}: {} is not {exact}", out[i]);
                }
                let mut same = x.clone();
                rms_norm_in_place(isa, &mut same, &weight, 1e-6);
                assert_eq!(same, out);
            }
        }
    }
}

#[test]
fn layer_norm_agrees_with_f64() {
    for isa in Isa::available() {
        for n in LENGTHS.into_iter().skip(1) {
            let x: Vec<f32> = noise(3, n).iter().map(|x| x * 3.0 + 1.5).collect();
            let (weight, bias) = (noise(4, n), noise(5, n));
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
            for bias in [None, Some(&*bias)] {
                let mut got = x.clone();
                layer_norm_in_place(isa, &mut got, &weight, bias, 1e-5);
                for i in 0..n {
                    let exact = (f64::from(x[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]);
                    let exact = exact + bias.map_or(0.0, |b| f64::from(b[i]));
                    assert!((f64::from(got[i]) - exact).abs() < 4e-6, "{isa:?} n {n}: {} is not {exact}", got[i]);
                }
            }
        }
    }
}

#[test]
fn plain_activations_are_gates_of_a_neutral_row_bit_for_bit() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let x: Vec<f32> = noise(1, n).iter().map(|x| x * 12.0).collect();
            for f in [
                Activation::Silu,
                Activation::Gelu,
                Activation::GeluTanh,
                Activation::Relu,
                Activation::SquaredRelu,
                CLAMPED,
            ] {
                let mut plain = x.clone();
                activate(isa, f, &mut plain);
                // What multiplies the clamped one is 1 more than the up projection.
                let mut gated = vec![if f == CLAMPED { 0.0 } else { 1.0 }; n];
                gate_assign(isa, f, &x, &mut gated);
                assert_eq!(plain, gated, "{isa:?} {f:?}");
            }
        }
    }
}

#[test]
fn squared_relu_is_the_square_of_what_is_positive() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let x = noise(5, n);
            let mut got = x.clone();
            activate(isa, Activation::SquaredRelu, &mut got);
            let want: Vec<f32> = x.iter().map(|x| x.max(0.0) * x.max(0.0)).collect();
            assert_eq!(got, want, "{isa:?}");
        }
    }
}

#[test]
fn norms_without_weights_are_those_with_weights_of_1_bit_for_bit() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let (mut x, mut weighted) = (noise(3, n), noise(3, n));
            rms_normalise(isa, &mut x, 1e-5);
            rms_norm_in_place(isa, &mut weighted, &vec![1.0; n], 1e-5);
            assert_eq!(x, weighted, "{isa:?} n {n}");
        }
    }
}

#[test]
fn of_sparse_rows_what_exceeds_the_mean_by_enough_deviations_is_left() {
    for isa in Isa::available() {
        for n in LENGTHS.into_iter().filter(|&n| n > 1) {
            let x = noise(4, n);
            let wide: Vec<f64> = x.iter().map(|&x| f64::from(x) + 0.5).collect();
            let mean = wide.iter().sum::<f64>() / n as f64;
            let deviation = (wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt();
            let mut got: Vec<f32> = x.iter().map(|x| x + 0.5).collect();
            sparsify(isa, &mut got, 0.7);
            for (x, got) in wide.iter().zip(got) {
                let exact = (x - mean - 0.7 * deviation).max(0.0);
                assert!((f64::from(got) - exact).abs() < 1e-6, "{isa:?} n {n}: {got} is not {exact}");
            }
        }
    }
}

#[test]
fn a_rectified_gate_is_0_below_0() {
    for isa in Isa::available() {
        let mut up = [3.0, 3.0, 3.0, -2.0];
        gate_assign(isa, Activation::Relu, &[-1.0, 0.0, 0.5, 2.0], &mut up);
        assert_eq!(up, [0.0, 0.0, 1.5, -4.0], "{isa:?}");
        let mut product = [2.0, -3.0, 0.5];
        multiply_assign(isa, &mut product, &[0.5, 2.0, 0.0]);
        assert_eq!(product, [1.0, -6.0, 0.0], "{isa:?}");
    }
}

#[test]
fn sums_and_scalings_reach_every_element() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let (x, y) = (noise(5, n), noise(6, n));
            let [mut added, mut weighted, mut scaled] = std::array::from_fn(|_| x.clone());
            add_assign(isa, &mut added, &y);
            add_scaled(isa, &mut weighted, &y, 0.3);
            scale(isa, &mut scaled, 0.3);
            for i in 0..n {
                assert_eq!(added[i], x[i] + y[i]);
                assert_eq!(scaled[i], x[i] * 0.3);
                assert!(
                    (f64::from(weighted[i]) - (f64::from(x[i]) + f64::from(y[i]) * f64::from(0.3f32))).abs() < 1.5e-7
                );
            }
            let exact: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            let size: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x * y).abs()).sum();
            assert!((f64::from(dot_f32(isa, &x, &y)) - exact).abs() <= 3e-7 * size);
        }
    }
}

#[test]
fn softmax_agrees_with_f64_and_takes_minus_infinity() {
    for isa in Isa::available() {
        for n in LENGTHS.into_iter().skip(1) {
            let mut x: Vec<f32> = noise(7, n).iter().map(|x| x * 30.0 + 500.0).collect();
            if n > 2 {
                x[1] = f32::NEG_INFINITY;
            }
            let max = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
            let sum: f64 = x.iter().map(|&x| f64::from(x - max).exp()).sum();
            let mut got = x.clone();
            softmax_in_place(isa, &mut got);
            for i in 0..n {
                let exact = f64::from(x[i] - max).exp() / sum;
                assert!((f64::from(got[i]) - exact).abs() <= 1e-6 * exact, "{isa:?} n {n}: {} is not {exact}", got[i]);
            }
        }
        softmax_in_place(isa, &mut []);
    }
}

#[test]
fn argmax_is_the_first_of_the_greatest_and_passes_nan_over() {
    for isa in Isa::available() {
        for n in LENGTHS {
            let mut x = noise(8, n);
            let expected = (0..n).reduce(|best, i| if x[i] > x[best] { i } else { best });
            assert_eq!(argmax(isa, &x), expected);
            for at in 0..n.min(70) {
                x.fill(0.5);
                x[at..].fill(2.0);
                x[..at.min(3)].fill(f32::NAN);
                assert_eq!(argmax(isa, &x), Some(at));
            }
        }
        assert_eq!(argmax(isa, &[f32::NAN; 9]), None);
        assert_eq!(argmax(isa, &[f32::NEG_INFINITY; 9]), Some(0));
    }
}

#[test]
fn half_floats_widen_exactly_and_come_back() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    for isa in Isa::available() {
        let mut wide = vec![0.0; all.len()];
        f16_to_f32(isa, &all, &mut wide);
        let mut back = vec![0; all.len()];
        f32_to_f16(isa, &wide, &mut back);
        for i in 0..all.len() {
            let truth = ::half::f16::from_bits(all[i]);
            if truth.is_nan() {
                assert_eq!(
                    wide[i].to_bits(),
                    (u32::from(all[i] & 0x8000) << 16) | 0x7fc0_0000 | (u32::from(all[i] & 0x3ff) << 13)
                );
                assert_eq!(back[i], all[i] | 0x200);
            } else {
                assert_eq!(wide[i].to_bits(), truth.to_f32_const().to_bits());
                assert_eq!(back[i], all[i]);
            }
        }
    }
}

#[test]
fn rounding_to_half_floats_gives_the_same_bits_everywhere() {
    let mut inputs = all_magnitudes();
    // Each half float, the middle between it and the next, and the neighbours of both.
    for bits in 0..0x7c00u16 {
        let low = ::half::f16::from_bits(bits).to_f32_const();
        let high = if bits == 0x7bff { 65536.0 } else { ::half::f16::from_bits(bits + 1).to_f32_const() };
        let middle = low + (high - low) / 2.0;
        for x in [low, middle] {
            inputs.extend([x, x.next_up(), x.next_down(), -x, -x.next_up()]);
        }
    }
    for isa in Isa::available() {
        for skip in [0, 3] {
            let inputs = &inputs[skip..];
            let mut got = vec![0; inputs.len()];
            f32_to_f16(isa, inputs, &mut got);
            for (&x, &got) in inputs.iter().zip(&got) {
                let truth = ::half::f16::from_f32_const(x).to_bits();
                assert_eq!(got, truth, "{isa:?}: {x} ({:08x})", x.to_bits());
            }
        }
    }
}

struct Shuffles<'a> {
    values: &'a [f32; 16],
}

impl Kernel for Shuffles<'_> {
    type Output = [[f32; LANES]; 5];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [[f32; LANES]; 5] {
        let chunks = self.values.as_chunks::<LANES>().0;
        let (a, b) = (s.load(&chunks[0]), s.load(&chunks[1]));
        let (even, odd) = s.deinterleave(a, b);
        let (first, second) = s.interleave(even, odd);
        let mut rows = [a; LANES];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = s.mul(b, s.splat(i as f32));
        }
        [s.array(even), s.array(odd), s.array(first), s.array(second), s.array(s.sums(rows))]
    }
}

#[test]
fn lanes_are_moved_and_summed_alike_by_every_instruction_set() {
    let values: [f32; 16] = std::array::from_fn(|i| i as f32);
    for isa in Isa::available() {
        let [even, odd, first, second, sums] = dispatch(isa, Shuffles { values: &values });
        assert_eq!(even, std::array::from_fn(|i| 2.0 * i as f32));
        assert_eq!(odd, std::array::from_fn(|i| 2.0 * i as f32 + 1.0));
        assert_eq!([first, second].as_flattened(), values);
        assert_eq!(sums, std::array::from_fn(|i| 92.0 * i as f32));
        let uneven: [f32; 16] = noise(9, 16).try_into().unwrap();
        let scalar = dispatch(Isa::SCALAR, Shuffles { values: &uneven });
        assert_eq!(dispatch(isa, Shuffles { values: &uneven }), scalar);
    }
}
