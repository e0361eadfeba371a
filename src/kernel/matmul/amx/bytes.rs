//! A tile's codes as signed bytes.

use crate::kernel::matmul::avx2::block256::{Kind256, ScaledCodes};
use crate::kernel::matmul::avx2::tile::{Codes, Tile256};
use std::arch::x86_64::*;

/// Products of scales and codes, in one or two bytes each.
#[repr(C, align(64))]
pub(super) struct Scaled {
    /// The only bytes, with a sign, or the low ones, which have none.
    pub low: Codes,
    /// The high bytes.
    pub high: Codes,
}

impl Scaled {
    pub const EMPTY: Scaled = Scaled { low: [[[0; 32]; 4]; 64], high: [[[0; 32]; 4]; 64] };

    /// Multiplies the codes of `tile`, with `offset` taken off, with their scales.
    #[target_feature(enable = "avx2,avx512f,avx512bw")]
    pub fn make<K: Kind256, S: ScaledCodes>(&mut self, tile: &Tile256, offset: i32) {
        let offset = _mm512_set1_epi16(offset as i16);
        let low_bytes = _mm512_set1_epi16(255);
        let (all_scales, all_codes) = (tile.scales.as_flattened(), tile.codes.as_flattened().as_chunks::<2>().0);
        let to = self.low.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut();
        let to = to.zip(self.high.as_flattened_mut().as_chunks_mut::<2>().0);
        for (i, (codes, (low, high))) in all_codes.iter().zip(to).enumerate() {
            let (quad, half) = (i / 2, i % 2);
            // SAFETY: both are 64 bytes.
            let (codes, scales) = unsafe {
                let scales = &all_scales[4 * (4 * quad / K::SUB) + 2 * half..][..2];
                (_mm512_loadu_si512(codes.as_ptr().cast()), _mm512_loadu_si512(scales.as_ptr().cast()))
            };
            let (even, odd) = match K::SIGNED {
                true => (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(codes)), _mm512_srai_epi16::<8>(codes)),
                false => (_mm512_and_si512(codes, low_bytes), _mm512_srli_epi16::<8>(codes)),
            };
            let product = |codes| {
                let code = if K::OFFSET { _mm512_sub_epi16(codes, offset) } else { codes };
                let product = _mm512_mullo_epi16(code, scales);
                match (S::NEGATED, S::HALVED) {
                    (true, _) => _mm512_sub_epi16(_mm512_setzero_si512(), product),
                    (_, true) => _mm512_srai_epi16::<1>(product),
                    _ => product,
                }
            };
            let (even, odd) = (product(even), product(odd));
            // SAFETY: 64 bytes each.
            unsafe {
                // Of each byte the even number's, or the odd number's where the mask has a bit.
                let lows = _mm512_mask_mov_epi8(even, 0xaaaa_aaaa_aaaa_aaaa, _mm512_slli_epi16::<8>(odd));
                _mm512_storeu_si512(low.as_mut_ptr().cast(), lows);
                if S::TWO {
                    let highs = _mm512_mask_mov_epi8(_mm512_srli_epi16::<8>(even), 0xaaaa_aaaa_aaaa_aaaa, odd);
                    _mm512_storeu_si512(high.as_mut_ptr().cast(), highs);
                }
            }
        }
    }
}
