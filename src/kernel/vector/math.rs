//! exp, tanh and what is built of them, on eight lanes.

use super::simd::Simd;

/// Added to a float below 2^22 in magnitude, this leaves the nearest integer in the low bits; subtracted again, it
/// gives that integer as a float.
const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23

/// e^x, within 2·10⁻⁷ of the true value relative to it wherever the result is a normal number; correct to one unit
/// below; 0 and infinity beyond the range; NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; e^r = 1 + r + r²·P(r) with P of degree 4 fitted at Chebyshev nodes
/// (error 1.1·10⁻⁸). 2^n is applied in two halves, so that results below the normal range are reached.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // The second operand is what min and max return for NaN.
    let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
    let n = s.sub(s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    // ln 2 in two parts: the first has so few bits that n times it is exact.
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let p = s.splat(1.392_618_2e-3);
    let p = s.mul_add(p, r, s.splat(8.363_178e-3));
    let p = s.mul_add(p, r, s.splat(4.166_655_6e-2));
    let p = s.mul_add(p, r, s.splat(1.666_657_6e-1));
    let p = s.mul_add(p, r, s.splat(0.5));
    let y = s.add(s.mul_add(s.mul(r, r), p, r), s.splat(1.0));
    let first = s.sub(s.mul_add(n, s.splat(0.5), s.splat(ROUND)), s.splat(ROUND));
    let second = s.sub(n, first);
    s.mul(s.mul(y, power_of_two(s, first)), power_of_two(s, second))
}

/// 2^n for whole n from -126 to 127: n + 127 stands in the low bits of the sum, and is moved to the exponent.
#[inline(always)]
fn power_of_two<S: Simd>(s: S, n: S::V) -> S::V {
    s.shift_to_exponent(s.add(n, s.splat(ROUND + 127.0)))
}

/// tanh x, within 5·10⁻⁷ of the true value relative to it; ±1 for large x; NaN stays NaN.
///
/// Below 0.62: x + x³·Q(x²), Q of degree 4 fitted at Chebyshev nodes (error 2·10⁻⁸), as 1 − 2/(e^2x + 1), used above,
/// would lose the small ones.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let square = s.mul(x, x);
    let q = s.splat(-6.045_164_5e-3);
    let q = s.mul_add(q, square, s.splat(2.096_133e-2));
    let q = s.mul_add(q, square, s.splat(-5.384_326_4e-2));
    let q = s.mul_add(q, square, s.splat(1.333_271_9e-1));
    let q = s.mul_add(q, square, s.splat(-3.333_332_8e-1));
    let small = s.mul_add(s.mul(x, square), q, x);
    let one = s.splat(1.0);
    let large = s.sub(one, s.div(s.splat(2.0), s.add(s.exp(s.add(x, x)), one)));
    s.select_less(square, s.splat(0.385), small, large)
}

/// x·σ(slope·x), for a slope of about 1; −0 at minus infinity.
#[inline(always)]
pub(crate) fn swish<S: Simd>(s: S, x: S::V, slope: f32) -> S::V {
    // At −104 the result is already −0; further down, infinity over infinity would make NaN of it.
    let x = s.max(s.splat(-104.0), x);
    s.div(x, s.add(s.splat(1.0), s.exp(s.mul(x, s.splat(-slope)))))
}

/// x·Φ(x), Φ the normal distribution's: max(x, 0) − |x|·Φ(−|x|), which keeps the precision of the small results at negative
/// x. Φ(−a) = t·P(t)·e^(−a²/2) with t = 1/(1 + 0.35a) and P of degree 8 fitted at Chebyshev nodes (error 4·10⁻⁸).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    // Beyond 14 what is taken away is nothing.
    let a = s.min(s.splat(14.0), s.max(s.sub(zero, x), x));
    let one = s.splat(1.0);
    let t = s.div(one, s.mul_add(a, s.splat(0.35), one));
    let p = s.splat(-2.955_257e-2);
    let p = s.mul_add(p, t, s.splat(1.458_925e-1));
    let p = s.mul_add(p, t, s.splat(-2.595_476_5e-1));
    let p = s.mul_add(p, t, s.splat(1.633_791_9e-1));
    let p = s.mul_add(p, t, s.splat(-2.587_084e-2));
    let p = s.mul_add(p, t, s.splat(1.066_14e-1));
    let p = s.mul_add(p, t, s.splat(1.195_701_5e-1));
    let p = s.mul_add(p, t, s.splat(1.398_955_6e-1));
    let p = s.mul_add(p, t, s.splat(1.396_196_2e-1));
    let beyond = s.mul(s.mul(p, t), s.exp(s.mul(s.mul(a, a), s.splat(-0.5))));
    s.sub(s.max(zero, x), s.mul(a, beyond))
}

/// x·½(1 + tanh(√(2/π)(x + 0.044715·x³))), as x·σ of twice the tanh's argument, which keeps the relative precision
/// of the small results at negative x.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // At −16 the result is already −0.
    let x = s.max(s.splat(-16.0), x);
    // −2·√(2/π) and that times 0.044715.
    let slope = s.mul_add(s.mul(x, x), s.splat(-7.135_481_6e-2), s.splat(-1.595_769));
    s.div(x, s.add(s.splat(1.0), s.exp(s.mul(x, slope))))
}
