//! Loops over rows for functions of one element: `x = f(x)`, `x = f(x, y)`, `out = f(a, b)`.

use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::kernel::Isa;

/// A function of one element. `apply` must be `#[inline(always)]`.
pub(super) trait Unary: Copy {
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// A function of two elements. `apply` must be `#[inline(always)]`.
pub(super) trait Binary: Copy {
    fn apply<S: Simd>(self, s: S, a: S::V, b: S::V) -> S::V;
}

/// x = f(x).
pub(super) fn update<F: Unary>(isa: Isa, f: F, x: &mut [f32]) {
    dispatch(isa, Update { f, x });
}

/// x = f(x, y), of equal lengths.
pub(super) fn update_with<F: Binary>(isa: Isa, f: F, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    dispatch(isa, UpdateWith { f, x, y });
}

/// out = f(a, b), of equal lengths.
pub(super) fn combine<F: Binary>(isa: Isa, f: F, a: &[f32], b: &[f32], out: &mut [f32]) {
    assert_eq!(a.len(), b.len());
    assert_eq!(a.len(), out.len());
    dispatch(isa, Combine { f, a, b, out });
}

struct Update<'a, F> {
    f: F,
    x: &'a mut [f32],
}

impl<F: Unary> Kernel for Update<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, tail) = self.x.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(self.f.apply(s, s.load(x)), x);
        }
        if !tail.is_empty() {
            s.store_part(self.f.apply(s, s.load_part(tail, 0.0)), tail);
        }
    }
}

struct UpdateWith<'a, F> {
    f: F,
    x: &'a mut [f32],
    y: &'a [f32],
}

impl<F: Binary> Kernel for UpdateWith<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, x_tail) = self.x.as_chunks_mut::<LANES>();
        let (y, y_tail) = self.y.as_chunks::<LANES>();
        for (x, y) in x.iter_mut().zip(y) {
            s.store(self.f.apply(s, s.load(x), s.load(y)), x);
        }
        if !x_tail.is_empty() {
            s.store_part(self.f.apply(s, s.load_part(x_tail, 0.0), s.load_part(y_tail, 0.0)), x_tail);
        }
    }
}

struct Combine<'a, F> {
    f: F,
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Binary> Kernel for Combine<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, a_tail) = self.a.as_chunks::<LANES>();
        let (b, b_tail) = self.b.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            s.store(self.f.apply(s, s.load(a), s.load(b)), out);
        }
        if !out_tail.is_empty() {
            s.store_part(self.f.apply(s, s.load_part(a_tail, 0.0), s.load_part(b_tail, 0.0)), out_tail);
        }
    }
}
