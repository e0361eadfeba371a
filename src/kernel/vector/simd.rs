//! Eight lanes of f32, whatever carries them: the vocabulary in which the kernels around the matrices are written.
//!
//! A kernel is one generic routine over [`Simd`]; [`dispatch`] runs it with plain arrays ([`Portable`], the truth) or
//! with AVX2. Eight lanes always, reductions always in the same tree, and fused operations fused everywhere, so that the
//! bits do not change with the instruction set.

use super::math;
use crate::kernel::{Instructions, Isa};

/// How many lanes a vector has.
pub(crate) const LANES: usize = 8;

/// One vector's worth of f32 in memory.
pub(crate) type Chunk = [f32; LANES];

/// An implementation of eight f32 lanes. A value of the implementing type is the proof that the processor has the
/// instructions, so the operations are safe.
pub(crate) trait Simd: Copy {
    type V: Copy;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, from: &Chunk) -> Self::V;
    fn store(self, v: Self::V, to: &mut Chunk);
    /// Eight half floats, as bits; exact.
    fn load_f16(self, from: &[u16; LANES]) -> Self::V;
    /// To half floats, to nearest, ties to even; too large becomes infinity.
    fn store_f16(self, v: Self::V, to: &mut [u16; LANES]);
    /// Eight signed bytes; exact.
    fn load_i8(self, from: &[u8; LANES]) -> Self::V;
    /// Asks for numbers that will be needed soon; changes nothing.
    #[inline(always)]
    fn prefetch<T>(self, _numbers: &[T]) {}
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c, rounded once.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a` where a < b, else `b`: `b` is returned where either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` where a > b, else `b`: `b` is returned where either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `yes` where a < b, else `no` (which includes NaN).
    fn select_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The bits of each lane shifted left by 23: moves an integer in the low bits to the exponent.
    fn shift_to_exponent(self, v: Self::V) -> Self::V;
    /// Sixteen values in order, split into those at even and those at odd places.
    fn deinterleave(self, a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The inverse of `deinterleave`.
    fn interleave(self, even: Self::V, odd: Self::V) -> (Self::V, Self::V);
    /// The sums of the lanes of each of eight vectors, each in the order of [`sum_lanes`].
    fn sums(self, v: [Self::V; LANES]) -> Self::V;

    /// [`math::exp`], which an implementation may compile once for all that call it.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        math::exp(self, x)
    }

    #[inline(always)]
    fn array(self, v: Self::V) -> Chunk {
        let mut out = [0.0; LANES];
        self.store(v, &mut out);
        out
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        sum_lanes(&self.array(v))
    }

    /// The greatest lane; lanes that are not numbers are passed over.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        self.array(v).iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }

    /// Up to eight values, the missing lanes `fill`.
    #[inline(always)]
    fn load_part(self, from: &[f32], fill: f32) -> Self::V {
        let mut chunk = [fill; LANES];
        chunk[..from.len()].copy_from_slice(from);
        self.load(&chunk)
    }

    /// The first lanes, as many as `to` has room for (at most eight).
    #[inline(always)]
    fn store_part(self, v: Self::V, to: &mut [f32]) {
        to.copy_from_slice(&self.array(v)[..to.len()]);
    }
}

/// The one order in which lanes are added up.
#[inline(always)]
pub(crate) fn sum_lanes(x: &Chunk) -> f32 {
    ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]))
}

/// A routine that can be run on any implementation of the lanes. `run` must be `#[inline(always)]`, so that it is
/// compiled for the instruction set it is dispatched to.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Once for each kernel, however many places dispatch it.
#[inline(never)]
fn portable<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(super::portable::Portable)
}

/// Runs `kernel` with the given instruction set. Those with no lanes of their own use the next one below.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa.instructions() {
        Instructions::Scalar => portable(kernel),
        // SAFETY: an `Isa` is the proof that the processor has its instructions, and each of these has AVX2, FMA and F16C.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 | Instructions::AvxVnni | Instructions::Avx512 | Instructions::Amx => unsafe {
            super::avx2::run(kernel)
        },
    }
}
