//! Rotary position embedding: pairs of a head's elements are turned by angles that grow with the position.

use super::Isa;
use super::vector::simd::{Chunk, Kernel, LANES, Simd, dispatch};
use crate::elementary::wide;
use crate::error::{Error, Result};
use crate::operations::{Pairing, Scaling};
use std::f64::consts::PI;

#[cfg(test)]
mod tests;

/// The angle of each pair per position, and the factor of cosines and sines.
#[derive(Clone, Debug)]
pub struct RopeTable {
    inv_freq: Vec<f64>,
    magnitude: f64,
}

impl RopeTable {
    /// Angles of the n/2 pairs of `dims` = n rotated elements: base^(−2i/n) / divisor_i, scaled.
    ///
    /// # Errors
    /// `Format`, as the figures come from files: n odd or 0, a base, factor or divisor that is not a positive number,
    /// not as many divisors as pairs.
    pub fn new(dims: usize, base: f64, scaling: Scaling, divisors: Option<&[f32]>) -> Result<RopeTable> {
        if dims == 0 || !dims.is_multiple_of(2) {
            return Err(Error::format(format!("RoPE over {dims} elements: an even number is needed")));
        }
        positive("base", base)?;
        if let Some(divisors) = divisors {
            if divisors.len() != dims / 2 {
                let message = format!("{} RoPE divisors for {} pairs of elements", divisors.len(), dims / 2);
                return Err(Error::format(message));
            }
            divisors.iter().try_for_each(|&d| positive("divisor", f64::from(d)))?;
        }
        let n = dims as f64;
        let plain = (0..dims / 2).map(|i| {
            let divisor = divisors.map_or(1.0, |d| f64::from(d[i]));
            wide::power(base, -2.0 * i as f64 / n) / divisor
        });
        let (inv_freq, magnitude) = match scaling {
            Scaling::None => (plain.collect(), 1.0),
            Scaling::Linear { factor, magnitude } => {
                positive("scaling factor", factor)?;
                positive("magnitude", magnitude)?;
                (plain.map(|angle| angle / factor).collect(), magnitude)
            }
            Scaling::Yarn {
                factor,
                original_context,
                beta_fast,
                beta_slow,
                ext_factor,
                attn_factor,
                log_multiplier,
            } => {
                positive("scaling factor", factor)?;
                positive("original context", f64::from(original_context))?;
                positive("YaRN beta_fast", beta_fast)?;
                positive("YaRN beta_slow", beta_slow)?;
                let others = [ext_factor, attn_factor, log_multiplier];
                if base == 1.0 || others.iter().any(|x| !x.is_finite()) {
                    return Err(Error::format(format!("YaRN scaling of RoPE base {base} with factors {others:?}")));
                }
                // The pair that makes `turns` turns over the original context, as a real number.
                let pair = |turns: f64| {
                    n * wide::ln(f64::from(original_context) / (turns * 2.0 * PI)) / (2.0 * wide::ln(base))
                };
                let low = pair(beta_fast).floor().max(0.0);
                let high = pair(beta_slow).ceil().min(n - 1.0);
                let blend = |(i, angle): (usize, f64)| {
                    let kept = ext_factor * (1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0));
                    angle / factor * (1.0 - kept) + angle * kept
                };
                let stretch = if ext_factor == 0.0 { 1.0 } else { 1.0 + 0.1 * log_multiplier * wide::ln(factor) };
                (plain.enumerate().map(blend).collect(), attn_factor * stretch)
            }
        };
        Ok(RopeTable { inv_freq, magnitude })
    }

    /// Leaves the angles of other pairs at 0.
    pub fn keep(&mut self, rotates: impl Fn(usize) -> bool) {
        let others = self.inv_freq.iter_mut().enumerate().filter(|(pair, _)| !rotates(*pair));
        others.for_each(|(_, angle)| *angle = 0.0);
    }

    /// How many pairs are rotated: n/2.
    pub fn pairs(&self) -> usize {
        self.inv_freq.len()
    }

    pub fn memory_bytes(&self) -> usize {
        size_of_val(self.inv_freq.as_slice())
    }

    /// Cosines and sines of all pairs for each position, times the magnitude: `cos` and `sin` are [tokens][n/2].
    /// Angles are taken in f64, so that far positions lose nothing.
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn fill(&self, positions: &[u32], cos: &mut [f32], sin: &mut [f32]) {
        let pairs = self.pairs();
        assert_eq!(cos.len(), positions.len() * pairs);
        assert_eq!(sin.len(), positions.len() * pairs);
        let rows = cos.chunks_exact_mut(pairs).zip(sin.chunks_exact_mut(pairs));
        for (&position, (cos, sin)) in positions.iter().zip(rows) {
            for ((&angle, cos), sin) in self.inv_freq.iter().zip(cos).zip(sin) {
                let (s, c) = wide::sin_cos(f64::from(position) * angle);
                *cos = (c * self.magnitude) as f32;
                *sin = (s * self.magnitude) as f32;
            }
        }
    }
}

fn positive(what: &str, x: f64) -> Result<()> {
    if x.is_finite() && x > 0.0 {
        return Ok(());
    }
    Err(Error::format(format!("RoPE {what} is {x}: a positive number is needed")))
}

/// Turns the first n = 2·`cos.len()` elements of one head by the angles of its token; the rest stays.
///
/// # Panics
/// If `sin` is not as long as `cos`, or the head is shorter than n.
pub fn apply(isa: Isa, pairing: Pairing, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!(cos.len(), sin.len());
    let rotated = &mut head[..2 * cos.len()];
    match pairing {
        Pairing::Norm => dispatch(isa, Interleaved { x: rotated, cos, sin }),
        Pairing::Neox => {
            let (a, b) = rotated.split_at_mut(cos.len());
            dispatch(isa, Halves { a, b, cos, sin });
        }
    }
}

/// (a·cos − b·sin, a·sin + b·cos)
#[inline(always)]
fn turn<S: Simd>(s: S, a: S::V, b: S::V, cos: S::V, sin: S::V) -> (S::V, S::V) {
    (s.sub(s.mul(a, cos), s.mul(b, sin)), s.mul_add(a, sin, s.mul(b, cos)))
}

struct Halves<'a> {
    a: &'a mut [f32],
    b: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, a_tail) = self.a.as_chunks_mut::<LANES>();
        let (b, b_tail) = self.b.as_chunks_mut::<LANES>();
        let (cos, cos_tail) = self.cos.as_chunks::<LANES>();
        let (sin, sin_tail) = self.sin.as_chunks::<LANES>();
        for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
            let (x, y) = turn(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
            s.store(x, a);
            s.store(y, b);
        }
        if !a_tail.is_empty() {
            let (a, b) = (s.load_part(a_tail, 0.0), s.load_part(b_tail, 0.0));
            let (x, y) = turn(s, a, b, s.load_part(cos_tail, 0.0), s.load_part(sin_tail, 0.0));
            s.store_part(x, a_tail);
            s.store_part(y, b_tail);
        }
    }
}

struct Interleaved<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Interleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, x_tail) = self.x.as_chunks_mut::<{ 2 * LANES }>();
        let (cos, cos_tail) = self.cos.as_chunks::<LANES>();
        let (sin, sin_tail) = self.sin.as_chunks::<LANES>();
        for ((x, cos), sin) in x.iter_mut().zip(cos).zip(sin) {
            turn_pairs(s, x, cos, sin);
        }
        if !x_tail.is_empty() {
            let mut x = [0.0; 2 * LANES];
            x[..x_tail.len()].copy_from_slice(x_tail);
            let (mut cos, mut sin) = ([0.0; LANES], [0.0; LANES]);
            cos[..cos_tail.len()].copy_from_slice(cos_tail);
            sin[..sin_tail.len()].copy_from_slice(sin_tail);
            turn_pairs(s, &mut x, &cos, &sin);
            x_tail.copy_from_slice(&x[..x_tail.len()]);
        }
    }
}

/// Eight pairs of neighbours.
#[inline(always)]
fn turn_pairs<S: Simd>(s: S, x: &mut [f32; 2 * LANES], cos: &Chunk, sin: &Chunk) {
    let [first, second] = x.as_chunks_mut::<LANES>().0 else { unreachable!("sixteen are two times eight") };
    let (a, b) = s.deinterleave(s.load(first), s.load(second));
    let (a, b) = turn(s, a, b, s.load(cos), s.load(sin));
    let (a, b) = s.interleave(a, b);
    s.store(a, first);
    s.store(b, second);
}
