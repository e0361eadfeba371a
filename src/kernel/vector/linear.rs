//! Sums, products and scalings of rows, RMS and layer norms.

use super::map::{Binary, Unary, combine, update, update_with};
use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernel::Isa;

#[derive(Clone, Copy)]
struct Add;

impl Binary for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, a: S::V, b: S::V) -> S::V {
        s.add(a, b)
    }
}

#[derive(Clone, Copy)]
struct AddScaled(f32);

impl Binary for AddScaled {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, a: S::V, b: S::V) -> S::V {
        s.mul_add(b, s.splat(self.0), a)
    }
}

#[derive(Clone, Copy)]
struct Scale(f32);

impl Unary for Scale {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.mul(x, s.splat(self.0))
    }
}

#[derive(Clone, Copy)]
struct Shift(f32);

impl Unary for Shift {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.add(x, s.splat(self.0))
    }
}

/// max(x + shift, 0).
#[derive(Clone, Copy)]
struct ShiftAboveZero(f32);

impl Unary for ShiftAboveZero {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.max(s.add(x, s.splat(self.0)), s.splat(0.0))
    }
}

/// (x · factor) · weight.
#[derive(Clone, Copy)]
struct Weighted(f32);

impl Binary for Weighted {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V, weight: S::V) -> S::V {
        s.mul(s.mul(x, s.splat(self.0)), weight)
    }
}

/// x += y.
///
/// # Panics
/// If the lengths differ.
pub fn add_assign(isa: Isa, x: &mut [f32], y: &[f32]) {
    update_with(isa, Add, x, y);
}

/// x += factor · y.
///
/// # Panics
/// If the lengths differ.
pub fn add_scaled(isa: Isa, x: &mut [f32], y: &[f32], factor: f32) {
    update_with(isa, AddScaled(factor), x, y);
}

/// x *= factor.
pub fn scale(isa: Isa, x: &mut [f32], factor: f32) {
    update(isa, Scale(factor), x);
}

/// x = max(x − mean(x) − factor · deviation(x), 0), the deviation being √(Σ(x − mean(x))² / (n − 1)).
pub fn sparsify(isa: Isa, x: &mut [f32], factor: f32) {
    let mean = dispatch(isa, Sum { x }) / x.len().max(1) as f64;
    update(isa, Shift(-mean as f32), x);
    let squares = dispatch(isa, Dot { a: x, b: x });
    let deviation = (squares / (x.len().max(2) - 1) as f64).sqrt();
    update(isa, ShiftAboveZero(-factor * deviation as f32), x);
}

/// out = x / √(mean(x²) + eps) · weight. The squares are summed in f32 over runs of 512, the runs in f64.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    combine(isa, Weighted(rms_factor(isa, x, eps)), x, weight, out);
}

/// As [`rms_norm`], in place: the norms of single heads.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    let factor = rms_factor(isa, x, eps);
    update_with(isa, Weighted(factor), x, weight);
}

/// As [`rms_norm_in_place`] with weights of 1.
pub fn rms_normalise(isa: Isa, x: &mut [f32], eps: f32) {
    let factor = rms_factor(isa, x, eps);
    scale(isa, x, factor);
}

/// x = (x − mean(x)) / √(variance(x) + eps) · weight + bias, the variance that of all elements. Sums as in [`rms_norm`].
///
/// # Panics
/// If the lengths differ.
pub fn layer_norm_in_place(isa: Isa, x: &mut [f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) {
    let mean = dispatch(isa, Sum { x }) / x.len().max(1) as f64;
    update(isa, Shift(-mean as f32), x);
    rms_norm_in_place(isa, x, weight, eps);
    if let Some(bias) = bias {
        add_assign(isa, x, bias);
    }
}

fn rms_factor(isa: Isa, x: &[f32], eps: f32) -> f32 {
    let mean = dispatch(isa, Dot { a: x, b: x }) / x.len().max(1) as f64;
    (1.0 / (mean + f64::from(eps)).sqrt()) as f32
}

/// Σ a·b, summed in f32 over runs of 512 and in f64 over the runs, always in the same order.
///
/// # Panics
/// If the lengths differ.
pub fn dot_f32(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    dispatch(isa, Dot { a, b }) as f32
}

/// Elements summed in f32 before the sum goes to f64.
const RUN: usize = 512;

/// Σ x, in the order of [`Dot`] with one chain.
struct Sum<'a> {
    x: &'a [f32],
}

impl Kernel for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let mut total = 0.0;
        for run in self.x.chunks(RUN) {
            let sum = run.chunks(LANES).fold(s.splat(0.0), |sum, x| s.add(sum, s.load_part(x, 0.0)));
            total += f64::from(s.sum(sum));
        }
        total
    }
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        /// Sums in flight, to hide the latency of the addition.
        const CHAINS: usize = 4;
        let mut total = 0.0;
        for (a, b) in self.a.chunks(RUN).zip(self.b.chunks(RUN)) {
            let mut sums = [s.splat(0.0); CHAINS];
            let (a_wide, a_rest) = a.as_chunks::<{ LANES * CHAINS }>();
            let (b_wide, b_rest) = b.as_chunks::<{ LANES * CHAINS }>();
            for (a, b) in a_wide.iter().zip(b_wide) {
                let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
                for i in 0..CHAINS {
                    sums[i] = s.mul_add(s.load(&a[i]), s.load(&b[i]), sums[i]);
                }
            }
            for (a, b) in a_rest.chunks(LANES).zip(b_rest.chunks(LANES)) {
                sums[0] = s.mul_add(s.load_part(a, 0.0), s.load_part(b, 0.0), sums[0]);
            }
            let sum = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
            total += f64::from(s.sum(sum));
        }
        total
    }
}
