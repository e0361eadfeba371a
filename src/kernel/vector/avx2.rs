//! The lanes in AVX2 registers, with FMA and F16C.

use super::simd::{Chunk, Kernel, LANES, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX2, FMA and F16C: made in [`run`] only.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Compiles `kernel` for AVX2 and runs it.
///
/// # Safety
/// The processor must have AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// An operation on registers only.
macro_rules! register_op {
    ($name:ident($($arg:ident),*) = $body:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: __m256),*) -> __m256 {
            // SAFETY: `self` exists only where the processor has the instructions (see `run`); no memory is touched.
            unsafe { $body }
        }
    };
}

impl Simd for Avx2 {
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` is the proof of AVX2.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &Chunk) -> __m256 {
        // SAFETY: `self` is the proof of AVX2; the reference covers the 32 bytes read, and no alignment is needed.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: __m256, to: &mut Chunk) {
        // SAFETY: `self` is the proof of AVX2; the reference covers the 32 bytes written, and no alignment is needed.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> __m256 {
        // SAFETY: `self` is the proof of F16C; the reference covers the 16 bytes read, and no alignment is needed.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_f16(self, v: __m256, to: &mut [u16; LANES]) {
        // SAFETY: `self` is the proof of F16C; the reference covers the 16 bytes written, and no alignment is needed.
        unsafe {
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v));
        }
    }

    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> __m256 {
        // SAFETY: `self` is the proof of AVX2; the reference covers the 8 bytes read, and no alignment is needed.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn prefetch<T>(self, numbers: &[T]) {
        const LINE: usize = 64;
        for at in (0..size_of_val(numbers)).step_by(LINE) {
            let line = numbers.as_ptr().cast::<i8>().wrapping_add(at);
            // SAFETY: `self` is the proof of AVX2, and with it of SSE; a hint is valid for any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
        }
    }

    register_op!(add(a, b) = _mm256_add_ps(a, b));
    register_op!(sub(a, b) = _mm256_sub_ps(a, b));
    register_op!(mul(a, b) = _mm256_mul_ps(a, b));
    register_op!(div(a, b) = _mm256_div_ps(a, b));
    register_op!(mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c));
    register_op!(min(a, b) = _mm256_min_ps(a, b));
    register_op!(max(a, b) = _mm256_max_ps(a, b));
    register_op!(select_less(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)));
    register_op!(shift_to_exponent(v) = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(v))));

    #[inline(always)]
    fn deinterleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        // SAFETY: `self` is the proof of AVX2; no memory is touched.
        unsafe {
            // Low halves together, high halves together; a shuffle within halves then keeps the order.
            let low = _mm256_permute2f128_ps::<0x20>(a, b);
            let high = _mm256_permute2f128_ps::<0x31>(a, b);
            // low = a0..a3 b0..b3, high = a4..a7 b4..b7: each half of the shuffle is in order.
            (_mm256_shuffle_ps::<0x88>(low, high), _mm256_shuffle_ps::<0xdd>(low, high))
        }
    }

    #[inline(always)]
    fn interleave(self, even: __m256, odd: __m256) -> (__m256, __m256) {
        // SAFETY: `self` is the proof of AVX2; no memory is touched.
        unsafe {
            let low = _mm256_unpacklo_ps(even, odd);
            let high = _mm256_unpackhi_ps(even, odd);
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }

    #[inline(always)]
    fn sums(self, v: [__m256; LANES]) -> __m256 {
        // SAFETY: `self` is the proof of AVX2; no memory is touched.
        unsafe {
            // Two rounds of neighbour sums leave, in each half, the half-sums of four vectors: (x0+x1)+(x2+x3).
            let a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
            let b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
        }
    }
}
