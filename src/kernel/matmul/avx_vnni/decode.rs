//! Products straight from the file's blocks, four rows at a time: for one token or a few.

use crate::kernel::matmul::Job;
use crate::kernel::matmul::activations::{Codes32, Codes256};
use crate::kernel::matmul::avx2::block32::Block32;
use crate::kernel::matmul::avx2::block256::Block256;
use crate::kernel::matmul::avx2::decode::{
    self as narrow, EACH_OF_EIGHT, Sums256, decode_kernels, opaque, separate, six_bits, sixteens_of_halves,
    sums_of_256, without_offset,
};
use crate::kernel::matmul::avx2::{
    AHEAD, fold, halves_together, load, load128, prefetch, products, products_of_negatable, sum_halves,
};
use std::arch::x86_64::{_mm256_dpbusd_avx_epi32 as dpbusd, *};

mod kernels {
    super::decode_kernels!("avx2,fma,f16c,avxvnni");
}
pub(super) use kernels::rows32;

/// Blocks of 256 are as fast with AVX2 alone, except those that [`Block256::FUSES`] names.
///
/// # Safety
/// As `super::multiply`.
pub(super) unsafe fn rows256<F: Block256>(job: &Job) {
    // SAFETY: the caller's promises; the processor has AVX2.
    unsafe { if F::FUSES { kernels::rows256::<F>(job) } else { narrow::rows256::<F>(job) } }
}

/// `sums32` and `pair32` for an instruction set that has the given features, among them `dpbusd`, as which the module
/// knows the instruction for 256 bits.
macro_rules! sums_of_32 {
    ($features:literal) => {
        /// The sums of code * activation of four blocks, of the part that meets the sub-block `sub` of the activations.
        ///
        /// # Safety
        /// Each block is whole; the processor has the instruction set.
        #[inline]
        #[target_feature(enable = $features)]
        pub(in crate::kernel::matmul) unsafe fn sums32<F: Block32>(
            blocks: [*const u8; 4],
            x: &Codes32,
            sub: usize,
        ) -> __m128i {
            // SAFETY: the caller's promise.
            let parts = unsafe { parts32::<F>(blocks, x, sub) };
            let offset = if F::SIGNED { $crate::kernel::matmul::avx_vnni::SHIFT } else { F::OFFSET };
            _mm_sub_epi32(fold(parts), _mm_set1_epi32(offset * x.sum[sub]))
        }

        /// The sums of the first sixteen elements of four blocks, and those of the last in the high half, with the offset of
        /// the codes.
        ///
        /// # Safety
        /// As [`sums32`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn parts32<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> __m256i {
            use $crate::kernel::matmul::avx_vnni::unsigned;
            let mut parts = [_mm256_setzero_si256(); 4];
            for (part, block) in parts.iter_mut().zip(blocks) {
                // SAFETY: the caller's promise; the activations are a field of `x`.
                let (codes, q) = unsafe { (F::codes(block, sub % F::PARTS), load(x.q.as_ptr().add(32 * sub).cast())) };
                *part = dpbusd(*part, unsigned(F::SIGNED, codes), q);
            }
            sum_halves(parts)
        }

        /// As [`sums32`] for four blocks and, in the high half, the ones after them, with the activations of the
        /// sub-blocks `sub` and `sub + 1`.
        ///
        /// # Safety
        /// As [`sums32`].
        #[inline]
        #[target_feature(enable = $features)]
        pub(super) unsafe fn pair32<F: Block32>(
            first: [*const u8; 4],
            second: [*const u8; 4],
            x: &Codes32,
            sub: usize,
        ) -> __m256i {
            use $crate::kernel::matmul::avx_vnni::{SHIFT, unsigned};
            // SAFETY: the caller's promise; the activations are fields of `x`.
            unsafe {
                let q = x.q.as_ptr().add(32 * sub);
                // The first sixteen columns of both blocks, then the others.
                let [low, high] = halves_together(load(q.cast()), load(q.add(32).cast()));
                let mut parts = [_mm256_setzero_si256(); 4];
                for (part, (first, second)) in parts.iter_mut().zip(first.into_iter().zip(second)) {
                    let codes =
                        F::halves_of_codes(first, second, sub % F::PARTS).map(|codes| unsigned(F::SIGNED, codes));
                    *part = dpbusd(dpbusd(*part, codes[0], low), codes[1], high);
                }
                let offset = if F::SIGNED { SHIFT } else { F::OFFSET };
                without_offset(sum_halves(parts), offset, x, sub)
            }
        }
    };
}
pub(in crate::kernel::matmul) use sums_of_32;

sums_of_32!("avx2,fma,f16c,avxvnni");

/// As [`sums32`]: the sums of the first sixteen elements, and those of the last in the high half.
///
/// # Safety
/// As [`sums32`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn halves32<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> __m256i {
    // SAFETY: the caller's promise.
    let parts = unsafe { parts32::<F>(blocks, x, sub) };
    let offset = if F::SIGNED { super::SHIFT } else { F::OFFSET };
    _mm256_sub_epi32(parts, x.sums_of_halves(sub, offset))
}

sixteens_of_halves!("avx2,fma,f16c,avxvnni");
sums_of_256!("avx2,fma,f16c,avxvnni");
