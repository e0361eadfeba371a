//! The functions between the matrices of a feed-forward block, and the soft limits on scores and logits.

use super::map::{Binary, Unary, combine, update, update_with};
use super::math;
use super::simd::Simd;
use crate::kernel::Isa;

/// The function f of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// x·σ(x).
    Silu,
    /// ½x(1 + erf(x/√2)).
    Gelu,
    /// ½x(1 + tanh(√(2/π)(x + 0.044715·x³))).
    GeluTanh,
    /// x·σ(slope·x) of x held below `limit`; as a gate it multiplies up + 1, with up held within ±`limit`: gpt-oss.
    ClampedSwiglu { slope: f32, limit: f32 },
}

/// up = f(gate) · up: [`silu_mul`], [`gelu_mul`], [`gelu_tanh_mul`] or [`clamped_swiglu_mul`] in place, bit for bit.
///
/// # Panics
/// If the lengths differ.
pub fn gate_assign(isa: Isa, f: Activation, gate: &[f32], up: &mut [f32]) {
    match f {
        Activation::Silu => update_with(isa, Flipped(Silu), up, gate),
        Activation::Gelu => update_with(isa, Flipped(Gelu), up, gate),
        Activation::GeluTanh => update_with(isa, Flipped(GeluTanh), up, gate),
        Activation::ClampedSwiglu { slope, limit } => {
            update_with(isa, Flipped(ClampedSwiglu { slope, limit }), up, gate);
        }
    }
}

/// x = f(x), for blocks without a gate.
pub fn activate(isa: Isa, f: Activation, x: &mut [f32]) {
    match f {
        Activation::Silu => update(isa, Silu, x),
        Activation::Gelu => update(isa, Gelu, x),
        Activation::GeluTanh => update(isa, GeluTanh, x),
        Activation::ClampedSwiglu { slope, limit } => update(isa, ClampedSwiglu { slope, limit }, x),
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

impl Binary for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: S::V, up: S::V) -> S::V {
        s.mul(math::swish(s, gate, 1.0), up)
    }
}

/// The same function, its arguments the other way round.
#[derive(Clone, Copy)]
struct Flipped<F>(F);

impl<F: Binary> Binary for Flipped<F> {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, a: S::V, b: S::V) -> S::V {
        self.0.apply(s, b, a)
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

impl Binary for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: S::V, up: S::V) -> S::V {
        s.mul(math::gelu(s, gate), up)
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

impl Binary for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: S::V, up: S::V) -> S::V {
        s.mul(math::gelu_tanh(s, gate), up)
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
    fn apply<S: Simd>(self, s: S, gate: S::V, up: S::V) -> S::V {
        let (low, high) = (s.splat(-self.limit), s.splat(self.limit));
        let up = s.max(low, s.min(high, up));
        s.mul(math::swish(s, s.min(high, gate), self.slope), s.add(up, s.splat(1.0)))
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

/// out = silu(gate) · up, silu(x) = x / (1 + e^−x), within 10⁻⁶ relative (below −87 the result may round to −0).
///
/// # Panics
/// If the lengths differ.
pub fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    combine(isa, Silu, gate, up, out);
}

/// out = gelu(gate) · up, gelu(x) = ½x(1 + erf(x/√2)), whose error is within 10⁻⁶ relative plus 10⁻⁸.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    combine(isa, Gelu, gate, up, out);
}

/// out = gelu(gate) · up, with the tanh form gelu(x) = ½x(1 + tanh(√(2/π)(x + 0.044715·x³))); the error of gelu is
/// within 10⁻⁶ relative plus 10⁻⁸.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_tanh_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    combine(isa, GeluTanh, gate, up, out);
}

/// out = g·σ(slope·g) · (u + 1) with g = min(gate, limit) and u = up held within ±limit: the activation of gpt-oss,
/// whose slope is 1.702 and limit 7.
///
/// # Panics
/// If the lengths differ.
pub fn clamped_swiglu_mul(isa: Isa, gate: &[f32], up: &[f32], slope: f32, limit: f32, out: &mut [f32]) {
    combine(isa, ClampedSwiglu { slope, limit }, gate, up, out);
}

/// x = cap · tanh(x / cap).
pub fn softcap(isa: Isa, x: &mut [f32], cap: f32) {
    update(isa, Softcap { cap }, x);
}
