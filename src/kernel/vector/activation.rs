//! The functions between the matrices of a feed-forward block, and the soft limits on scores and logits.

use super::map::{Binary, Unary, update, update_with};
use super::math;
use super::simd::Simd;
use crate::kernel::Isa;
use crate::operations::Activation;

/// up = f(gate) · up.
///
/// # Panics
/// If the lengths differ.
pub fn gate_assign(isa: Isa, f: Activation, gate: &[f32], up: &mut [f32]) {
    if let Activation::ClampedSwiglu { slope, limit } = f {
        return update_with(isa, ClampedSwiglu { slope, limit }, up, gate);
    }
    assert_eq!(gate.len(), up.len());
    /// A piece that stays in the first cache between the function and the product.
    const PIECE: usize = 512;
    let mut values = [0.0; PIECE];
    for (gate, up) in gate.chunks(PIECE).zip(up.chunks_mut(PIECE)) {
        let values = &mut values[..gate.len()];
        values.copy_from_slice(gate);
        activate(isa, f, values);
        multiply_assign(isa, up, values);
    }
}

/// x = f(x), for blocks without a gate.
pub fn activate(isa: Isa, f: Activation, x: &mut [f32]) {
    match f {
        Activation::Silu => update(isa, Silu, x),
        Activation::Gelu => update(isa, Gelu, x),
        Activation::Relu => update(isa, Relu, x),
        Activation::GeluTanh => update(isa, GeluTanh, x),
        Activation::ClampedSwiglu { slope, limit } => update(isa, ClampedSwiglu { slope, limit }, x),
        Activation::SquaredRelu => update(isa, SquaredRelu, x),
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Unary for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::swish(s, x, 1.0)
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Unary for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::gelu(s, x)
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        s.max(x, s.splat(0.0))
    }
}

#[derive(Clone, Copy)]
struct GeluTanh;

impl Unary for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::gelu_tanh(s, x)
    }
}

#[derive(Clone, Copy)]
struct ClampedSwiglu {
    slope: f32,
    limit: f32,
}

impl Unary for ClampedSwiglu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        math::swish(s, s.min(s.splat(self.limit), x), self.slope)
    }
}

impl Binary for ClampedSwiglu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, up: S::V, gate: S::V) -> S::V {
        let (low, high) = (s.splat(-self.limit), s.splat(self.limit));
        let up = s.max(low, s.min(high, up));
        s.mul(math::swish(s, s.min(high, gate), self.slope), s.add(up, s.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct SquaredRelu;

impl Unary for SquaredRelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        let x = s.max(s.splat(0.0), x);
        s.mul(x, x)
    }
}

/// x *= σ(y): how results are held back by a gate.
///
/// # Panics
/// If the lengths differ.
pub fn sigmoid_assign(isa: Isa, x: &mut [f32], y: &[f32]) {
    update_with(isa, Sigmoid, x, y);
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Binary for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        let one = s.splat(1.0);
        s.div(x, s.add(one, math::exp(s, s.sub(s.splat(0.0), y))))
    }
}

/// x *= y.
///
/// # Panics
/// If the lengths differ.
pub fn multiply_assign(isa: Isa, x: &mut [f32], y: &[f32]) {
    update_with(isa, Product, x, y);
}

#[derive(Clone, Copy)]
struct Product;

impl Binary for Product {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V {
        s.mul(x, y)
    }
}

#[derive(Clone, Copy)]
struct Softcap {
    cap: f32,
}

impl Unary for Softcap {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        let cap = s.splat(self.cap);
        s.mul(cap, math::tanh(s, s.div(x, cap)))
    }
}

/// x = cap · tanh(x / cap).
pub fn softcap(isa: Isa, x: &mut [f32], cap: f32) {
    update(isa, Softcap { cap }, x);
}
