//! Products of a tile with many tokens: those for AVX-VNNI with vectors twice as wide.

use crate::kernel::matmul::avx2::tile::{Narrow, Row, Unpack};
use std::arch::x86_64::{
    __m512 as Floats, __m512i as Whole, _mm512_add_epi32 as add, _mm512_castsi512_ps as as_floats,
    _mm512_cvtepi32_ps as to_floats, _mm512_dpbusd_epi32 as dpbusd, _mm512_fmadd_ps as fmadd,
    _mm512_fnmadd_ps as fnmadd, _mm512_load_ps as load_floats, _mm512_loadu_si512 as load_whole,
    _mm512_madd_epi16 as multiply_pairs, _mm512_mul_ps as multiply_floats, _mm512_mullo_epi32 as multiply,
    _mm512_set1_epi32 as splat, _mm512_set1_ps as splat_floats, _mm512_setzero_si512 as zero,
    _mm512_srai_epi32 as shift_right, _mm512_store_ps as store_floats, _mm512_storeu_si512,
    _mm512_sub_epi32 as subtract,
};

crate::kernel::matmul::avx_vnni::micro::tile_kernels!(
    "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni"
);

/// Takes blocks apart for a tile.
///
/// # Safety
/// As [`Tile256::fill`]; the processor has the instruction set.
pub(in crate::kernel::matmul) unsafe fn fill256<F: Block256>(tile: &mut Tile256, job: &Job, block: usize) {
    // SAFETY: the caller's promises.
    unsafe { if F::WIDE { tile.fill::<F, Wide>(job, block) } else { tile.fill::<F, Narrow>(job, block) } }
}

/// By vectors of 512 bits.
struct Wide;

impl Unpack for Wide {
    #[inline]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vbmi,gfni")]
    unsafe fn codes<F: Block256>(blocks: [*const u8; 2], to: &mut [Row; 2]) {
        // SAFETY: the caller's promise; each vector is 64 bytes of the 256 of a row.
        unsafe {
            let codes = match F::SIGNS {
                true => {
                    let [first, second] = F::wide_levels(blocks);
                    [first.codes(F::OFFSET), second.codes(F::OFFSET)]
                }
                false => [F::wide_codes(blocks[0]), F::wide_codes(blocks[1])],
            };
            for (codes, to) in codes.into_iter().zip(to) {
                for (i, codes) in codes.into_iter().enumerate() {
                    _mm512_storeu_si512(to.as_mut_ptr().cast::<u8>().add(64 * i).cast(), codes);
                }
            }
        }
    }
}
