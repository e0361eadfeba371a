//! Products straight from the file's blocks, four rows at a time: for one token or a few.

use super::block32::Block32;
use super::block256::Block256;
use super::{
    AHEAD, EACH_FOUR_TIMES, fold, halves_together, load, load128, prefetch, products, products_of_negatable, sum_halves,
};
use crate::kernel::matmul::activations::{Codes32, Codes256};
use std::arch::asm;
use std::arch::x86_64::*;

/// The loops over rows, tokens and blocks for an instruction set that has the given features. The module around them
/// has `sums32`, the sums of code * activation of four blocks of 32, `pair32`, those of four blocks and the ones after them,
/// `sixteens`, those of each sixteen elements of four blocks of 64 as floats, each with its scale, and `sums256`, those of four blocks of 256 with their scales, as this module does.
macro_rules! decode_kernels {
    ($features:literal) => {
        use std::arch::x86_64::*;
        use $crate::kernel::matmul::Job;
        use $crate::kernel::matmul::activations::{Codes32, Codes256};
        use $crate::kernel::matmul::avx2::block32::Block32;
        use $crate::kernel::matmul::avx2::block256::Block256;
        use $crate::kernel::matmul::avx2::{AHEAD, EACH_FOUR_TIMES, load, prefetch, store4};

        /// # Safety
        /// As `super::multiply`.
        #[target_feature(enable = $features)]
        pub(in crate::kernel::matmul) unsafe fn rows32<F: Block32>(job: &Job) {
            let x = job.acts.codes32();
            for r in job.start..job.start + job.quarter() {
                for t in 0..job.acts.tokens() {
                    // SAFETY: the caller's promises.
                    unsafe { store4(job, r, t, dot32::<F>(job, r, &x[t..])) };
                }
            }
        }

        /// # Safety
        /// As `super::multiply`.
        #[target_feature(enable = $features)]
        pub(in crate::kernel::matmul) unsafe fn rows256<F: Block256>(job: &Job) {
            let x = job.acts.codes256();
            for r in job.start..job.start + job.quarter() {
                for t in 0..job.acts.tokens() {
                    // SAFETY: the caller's promises.
                    unsafe { store4(job, r, t, dot256::<F>(job, r, &x[t..])) };
                }
            }
        }

        /// The rows of `Job::four` with the token whose blocks are `x[0]`, `x[tokens]`, ...
        ///
        /// # Safety
        /// As `super::multiply`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn dot32<F: Block32>(job: &Job, r: usize, x: &[Codes32]) -> __m128 {
            let rows = job.four(r);
            let mut y = _mm_setzero_ps();
            for group in 0..job.k.div_ceil(256) {
                // SAFETY: there is a block of each token for 256 columns or what is left of them.
                let x = unsafe { x.get_unchecked(group * job.acts.tokens()) };
                let at = F::EIGHT * group;
                for row in rows {
                    prefetch(row.wrapping_add(at + AHEAD), F::EIGHT);
                }
                let count = (job.k / 32 - 8 * group).min(8);
                // SAFETY: `count` is that of the blocks that the rows have; `x` has eight times 32 codes.
                unsafe {
                    if F::HALVES {
                        for sub in (0..count).step_by(F::PARTS) {
                            let blocks = rows.map(|row| row.wrapping_add(at + F::BYTES * (sub / F::PARTS)));
                            for [sum, d] in super::sixteens::<F>(blocks, x, sub) {
                                y = _mm_fmadd_ps(sum, d, y);
                            }
                        }
                        continue;
                    }
                    let dx = _mm256_load_ps(x.d.as_ptr());
                    for pair in 0..count / 2 {
                        let (sub, both) = (2 * pair, &EACH_FOUR_TIMES[pair]);
                        let part = sub % F::PARTS;
                        let first = rows.map(|row| row.wrapping_add(at + F::BYTES * (sub / F::PARTS)));
                        let second = match F::PARTS {
                            1 => first.map(|block| block.wrapping_add(F::BYTES)),
                            _ => first,
                        };
                        let sums = _mm256_cvtepi32_ps(super::pair32::<F>(first, second, x, sub));
                        let ([d0, min0], [d1, min1]) =
                            (F::scales(first, part), F::scales(second, (part + 1) % F::PARTS));
                        let dx = _mm256_permutevar8x32_ps(dx, load(both.as_ptr().cast()));
                        let d = _mm256_mul_ps(_mm256_set_m128(d1, d0), dx);
                        y = _mm_fmadd_ps(_mm256_castps256_ps128(sums), _mm256_castps256_ps128(d), y);
                        if F::MIN {
                            y = _mm_fmadd_ps(min0, _mm_set1_ps(x.s[sub]), y);
                        }
                        y = _mm_fmadd_ps(_mm256_extractf128_ps::<1>(sums), _mm256_extractf128_ps::<1>(d), y);
                        if F::MIN {
                            y = _mm_fmadd_ps(min1, _mm_set1_ps(x.s[sub + 1]), y);
                        }
                    }
                    if count % 2 == 1 {
                        let sub = count - 1;
                        let blocks = rows.map(|row| row.wrapping_add(at + F::BYTES * (sub / F::PARTS)));
                        let sum = super::sums32::<F>(blocks, x, sub);
                        let [d, min] = F::scales(blocks, sub % F::PARTS);
                        y = _mm_fmadd_ps(_mm_cvtepi32_ps(sum), _mm_mul_ps(d, _mm_set1_ps(x.d[sub])), y);
                        if F::MIN {
                            y = _mm_fmadd_ps(min, _mm_set1_ps(x.s[sub]), y);
                        }
                    }
                }
            }
            y
        }

        /// As [`dot32`].
        ///
        /// # Safety
        /// As `super::multiply`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn dot256<F: Block256>(job: &Job, r: usize, x: &[Codes256]) -> __m128 {
            let rows = job.four(r);
            let mut y = _mm_setzero_ps();
            for block in 0..job.k / 256 {
                let at = F::BYTES * block;
                // SAFETY: each row holds `k / 256` blocks, and `x` as many of each token.
                unsafe {
                    let x = x.get_unchecked(block * job.acts.tokens());
                    let blocks = rows.map(|row| row.wrapping_add(at));
                    let sums = super::sums256::<F>(blocks, x);
                    let dx = _mm_set1_ps(x.d);
                    y = _mm_fmadd_ps(_mm_cvtepi32_ps(sums.codes), _mm_mul_ps(sums.d, dx), y);
                    if F::MINS {
                        y = _mm_fnmadd_ps(_mm_mul_ps(sums.dmin, dx), _mm_cvtepi32_ps(sums.mins), y);
                    }
                }
            }
            y
        }
    };
}
pub(in crate::kernel::matmul) use decode_kernels;

/// The kernels for AVX2.
mod kernels {
    decode_kernels!("avx2,fma,f16c");
}
pub(in crate::kernel::matmul) use kernels::{rows32, rows256};

/// `sixteens` for an instruction set that has the given features, from its `halves32`.
macro_rules! sixteens_of_halves {
    ($features:literal) => {
        /// The sums of each sixteen elements of four blocks of 64 and what they are to be multiplied with.
        ///
        /// # Safety
        /// Each of `blocks` is a whole block, and `sub` even; the processor has the instruction set.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn sixteens<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> [[__m128; 2]; 4] {
            // SAFETY: the caller's promise.
            let (first, last, [d0, d1]) = unsafe {
                (halves32::<F>(blocks, x, sub), halves32::<F>(blocks, x, sub + 1), F::scales_of_sixteens(blocks))
            };
            let (first, last) = (_mm256_cvtepi32_ps(first), _mm256_cvtepi32_ps(last));
            let d0 = _mm256_mul_ps(d0, _mm256_set1_ps(x.d[sub]));
            let d1 = _mm256_mul_ps(d1, _mm256_set1_ps(x.d[sub + 1]));
            [
                [_mm256_castps256_ps128(first), _mm256_castps256_ps128(d0)],
                [_mm256_extractf128_ps::<1>(first), _mm256_extractf128_ps::<1>(d0)],
                [_mm256_castps256_ps128(last), _mm256_castps256_ps128(d1)],
                [_mm256_extractf128_ps::<1>(last), _mm256_extractf128_ps::<1>(d1)],
            ]
        }
    };
}
pub(in crate::kernel::matmul) use sixteens_of_halves;

sixteens_of_halves!("avx2,fma,f16c");

/// The sums of code * activation of four blocks, of the part that meets the sub-block `sub` of the activations.
///
/// # Safety
/// Each block is whole; the processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums32<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> __m128i {
    let mut parts = [_mm256_setzero_si256(); 4];
    for (part, block) in parts.iter_mut().zip(blocks) {
        // SAFETY: the caller's promise; the activations are a field of `x`.
        let (codes, q) = unsafe { (F::codes(block, sub % F::PARTS), load(x.q.as_ptr().add(32 * sub).cast())) };
        *part = products(F::SIGNED, codes, q);
    }
    let sums = match F::SIGNED {
        true => sum_wide(parts),
        false => sum_narrow(parts),
    };
    _mm_sub_epi32(sums, _mm_set1_epi32(F::OFFSET * x.sum[sub]))
}

/// As [`sums32`]: the sums of the first sixteen elements, and those of the last in the high half.
///
/// # Safety
/// As [`sums32`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn halves32<F: Block32>(blocks: [*const u8; 4], x: &Codes32, sub: usize) -> __m256i {
    const { assert!(!F::HALVES || !F::SIGNED && F::FLUSH >= 4) };
    let mut parts = [_mm256_setzero_si256(); 4];
    for (part, block) in parts.iter_mut().zip(blocks) {
        // SAFETY: the caller's promise; the activations are a field of `x`.
        let (codes, q) = unsafe { (F::codes(block, sub % F::PARTS), load(x.q.as_ptr().add(32 * sub).cast())) };
        *part = products(false, codes, q);
    }
    let [a, b, c, d] = parts;
    let sums = wide(_mm256_hadd_epi16(_mm256_hadd_epi16(a, b), _mm256_hadd_epi16(c, d)));
    _mm256_sub_epi32(sums, x.sums_of_halves(sub, F::OFFSET))
}

/// As [`sums32`] for four blocks and, in the high half, the ones after them, with the activations of the sub-blocks
/// `sub` and `sub + 1`.
///
/// # Safety
/// As [`sums32`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pair32<F: Block32>(first: [*const u8; 4], second: [*const u8; 4], x: &Codes32, sub: usize) -> __m256i {
    // SAFETY: the caller's promise; the activations are fields of `x`.
    unsafe {
        let q = x.q.as_ptr().add(32 * sub);
        // The first sixteen columns of both blocks, then the others.
        let [low, high] = halves_together(load(q.cast()), load(q.add(32).cast()));
        let mut parts = [_mm256_setzero_si256(); 4];
        for (part, (first, second)) in parts.iter_mut().zip(first.into_iter().zip(second)) {
            let [codes0, codes1] = F::halves_of_codes(first, second, sub % F::PARTS);
            let (p0, p1) = match F::NEGATABLE {
                true => (
                    products_of_negatable(codes0, low, _mm256_abs_epi8(low)),
                    products_of_negatable(codes1, high, _mm256_abs_epi8(high)),
                ),
                false => (products(F::SIGNED, codes0, low), products(F::SIGNED, codes1, high)),
            };
            *part = match F::SIGNED {
                true => _mm256_add_epi32(wide(p0), wide(p1)),
                false => _mm256_add_epi16(p0, p1),
            };
        }
        let [a, b, c, d] = parts;
        // Four numbers of two products each, or two of them, are added in 16 bits.
        let sums = match (F::SIGNED, F::FLUSH) {
            (true, _) => _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d)),
            (false, 8) => wide(_mm256_hadd_epi16(_mm256_hadd_epi16(a, b), _mm256_hadd_epi16(c, d))),
            (false, _) => _mm256_hadd_epi32(wide(_mm256_hadd_epi16(a, b)), wide(_mm256_hadd_epi16(c, d))),
        };
        without_offset(sums, F::OFFSET, x, sub)
    }
}

/// Sums as `pair32` has them of codes that are `offset` too large, put right.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernel::matmul) fn without_offset(sums: __m256i, offset: i32, x: &Codes32, sub: usize) -> __m256i {
    if offset == 0 {
        return sums;
    }
    // SAFETY: eight numbers of 32 bits each.
    let (all, both) = unsafe { (load(x.sum.as_ptr().cast()), load(EACH_FOUR_TIMES[sub / 2].as_ptr().cast())) };
    let sums_of_x = _mm256_permutevar8x32_epi32(all, both);
    _mm256_sub_epi32(sums, _mm256_mullo_epi32(sums_of_x, _mm256_set1_epi32(offset)))
}

/// Neighbours among 16-bit numbers added.
#[inline]
#[target_feature(enable = "avx2")]
fn wide(v: __m256i) -> __m256i {
    _mm256_madd_epi16(v, _mm256_set1_epi16(1))
}

/// The sum of each of four vectors of 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_wide(parts: [__m256i; 4]) -> __m128i {
    fold(sum_halves([wide(parts[0]), wide(parts[1]), wide(parts[2]), wide(parts[3])]))
}

/// As [`sum_wide`] where any four of a vector's numbers can be added in 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_narrow(parts: [__m256i; 4]) -> __m128i {
    let (first, second) = (_mm256_hadd_epi16(parts[0], parts[1]), _mm256_hadd_epi16(parts[2], parts[3]));
    fold(wide(_mm256_hadd_epi16(first, second)))
}

/// What four blocks of 256 make with the same activations, each in its lane.
pub(in crate::kernel::matmul) struct Sums256 {
    /// Sums of scale * code * activation.
    pub codes: __m128i,
    pub d: __m128,
    /// Sums of min * activation, in formats with mins.
    pub mins: __m128i,
    pub dmin: __m128,
}

/// The sums from the parts that `parts256` makes of each block.
///
/// # Safety
/// As [`sums256`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel::matmul) unsafe fn separate<F: Block256>(blocks: [*const u8; 4], parts: [__m256i; 4]) -> Sums256 {
    let sums = sum_halves(parts);
    // SAFETY: the caller's promise.
    unsafe {
        let d = F::d(blocks);
        match F::MINS {
            true => Sums256 {
                codes: _mm256_castsi256_si128(sums),
                d,
                mins: _mm256_extracti128_si256::<1>(sums),
                dmin: F::dmin(blocks),
            },
            false => Sums256 { codes: fold(sums), d, mins: _mm_setzero_si128(), dmin: _mm_setzero_ps() },
        }
    }
}

/// Eight scales, then eight mins, of six bits each, from the last twelve of the 16 bytes in each half of `heads`.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernel::matmul) fn six_bits(heads: __m256i) -> __m256i {
    let lanes = |a, b, c, d| _mm256_setr_epi32(a, b, c, d, a, b, c, d);
    // The low bits of scales and mins 0..4, and of 4..8; then the high ones of those, two from each of the others'
    // bytes.
    let low = _mm256_srlv_epi32(_mm256_shuffle_epi32::<0b11_10_11_01>(heads), lanes(0, 0, 0, 4));
    let low = _mm256_and_si256(low, lanes(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f));
    let high = _mm256_srli_epi32::<2>(_mm256_shuffle_epi32::<0b10_10_01_01>(heads));
    _mm256_or_si256(low, _mm256_and_si256(high, lanes(0, 0x3030_3030, 0, 0x3030_3030)))
}

/// Where a shuffle finds each of eight 16-bit numbers. Of constants that it can see the compiler makes two shuffles.
pub(in crate::kernel::matmul) static EACH_OF_EIGHT: [[u16; 16]; 8] = {
    let mut each = [[0; 16]; 8];
    let mut i = 0;
    while i < 8 {
        each[i] = [0x0100 + 0x0202 * i as u16; 16];
        i += 1;
    }
    each
};

/// `p`, of which the compiler knows neither what is there nor that it has read from there before: activations are
/// operands in memory, once for each row. In registers they push out everything else.
#[inline]
#[allow(clippy::pointers_in_nomem_asm_block)] // Nothing is read, that is the point.
pub(in crate::kernel::matmul) fn opaque<T>(mut p: *const T) -> *const T {
    if cfg!(miri) {
        return p; // The interpreter knows no assembler.
    }
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(reg) p, options(pure, nomem, nostack, preserves_flags)) };
    p
}

/// `sums256` for an instruction set that has the given features, from what this module imports and has. Products of 16-bit
/// numbers and their sums are written apart: with VNNI the compiler makes one instruction of both where that is faster.
macro_rules! sums_of_256 {
    ($features:literal) => {
        /// # Safety
        /// Each of `blocks` is a whole block; the processor has AVX2, FMA and F16C.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn sums256<F: Block256>(blocks: [*const u8; 4], x: &Codes256) -> Sums256 {
            // SAFETY: the caller's promise.
            unsafe {
                match (F::SUB, F::MINS, F::SIGNED) {
                    (32, true, _) => sums_of_six_bits::<F>(blocks, x),
                    (32, _, true) => sums_of_signed::<F>(blocks, x),
                    _ => {
                        let parts = [
                            parts256::<F>(blocks[0], x),
                            parts256::<F>(blocks[1], x),
                            parts256::<F>(blocks[2], x),
                            parts256::<F>(blocks[3], x),
                        ];
                        separate::<F>(blocks, parts)
                    }
                }
            }
        }

        /// Four blocks that begin with `d`, `dmin` and twelve bytes of scales and mins, as Q4_K and Q5_K have them:
        /// those 16 bytes of two blocks are taken apart at a time.
        ///
        /// # Safety
        /// As [`sums256`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn sums_of_six_bits<F: Block256>(blocks: [*const u8; 4], x: &Codes256) -> Sums256 {
            // SAFETY: the caller's promise; the loads of `x` are of its own fields.
            unsafe {
                let heads = [
                    _mm256_set_m128i(load128(blocks[1]), load128(blocks[0])),
                    _mm256_set_m128i(load128(blocks[3]), load128(blocks[2])),
                ];
                let zero = _mm256_setzero_si256();
                let bytes = heads.map(|heads| six_bits(heads));
                // Sixteen bits each: the scales of one block in the low half, those of the other in the high one.
                let scales = bytes.map(|bytes| _mm256_unpacklo_epi8(bytes, zero));
                let parts = [
                    scaled::<F>(blocks[0], _mm256_permute4x64_epi64::<0x44>(scales[0]), x),
                    scaled::<F>(blocks[1], _mm256_permute4x64_epi64::<0xee>(scales[0]), x),
                    scaled::<F>(blocks[2], _mm256_permute4x64_epi64::<0x44>(scales[1]), x),
                    scaled::<F>(blocks[3], _mm256_permute4x64_epi64::<0xee>(scales[1]), x),
                ];
                let sums32 = _mm256_broadcastsi128_si256(load128(x.sum32.as_ptr().cast()));
                let mins = bytes.map(|bytes| _mm256_madd_epi16(_mm256_unpackhi_epi8(bytes, zero), sums32));
                let mins = _mm256_hadd_epi32(mins[0], mins[1]);
                let mins = _mm256_hadd_epi32(mins, mins);
                // From here on blocks 0 and 2 are in the low half, 1 and 3 in the high one.
                let in_order = |v| _mm_unpacklo_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
                let d = in_order(_mm256_unpacklo_epi32(heads[0], heads[1]));
                let d = _mm_shuffle_epi8(d, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
                let d = _mm256_cvtph_ps(d);
                Sums256 {
                    codes: fold(sum_halves(parts)),
                    d: _mm256_castps256_ps128(d),
                    mins: in_order(mins),
                    dmin: _mm256_extractf128_ps::<1>(d),
                }
            }
        }

        /// Four blocks with signed codes, two sub-blocks of all of them at a time: what is made of the activations
        /// serves all four.
        ///
        /// # Safety
        /// As [`sums256`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn sums_of_signed<F: Block256>(blocks: [*const u8; 4], x: &Codes256) -> Sums256 {
            // SAFETY: the caller's promise; the loads of `x` are of its own fields.
            unsafe {
                let mut scales = [_mm256_setzero_si256(); 4];
                for (scales, block) in scales.iter_mut().zip(blocks) {
                    prefetch(block.wrapping_add(AHEAD), F::BYTES);
                    *scales = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(F::scales(block)[0]));
                }
                let mut parts = [_mm256_setzero_si256(); 4];
                for pair in 0..4 {
                    let q = x.q.as_ptr().add(64 * pair);
                    let [low, high] = halves_together(load(q.cast()), load(q.add(32).cast()));
                    let magnitudes = [_mm256_abs_epi8(low), _mm256_abs_epi8(high)];
                    let scale = 0x0100 + 0x0404 * pair as i16;
                    let chosen = _mm256_set_m128i(_mm_set1_epi16(scale + 0x0202), _mm_set1_epi16(scale));
                    for ((part, scales), block) in parts.iter_mut().zip(scales).zip(blocks) {
                        let codes = F::halves_of_codes(block, pair);
                        let scale = _mm256_shuffle_epi8(scales, chosen);
                        let first = products_of_negatable(codes[0], low, magnitudes[0]);
                        let last = products_of_negatable(codes[1], high, magnitudes[1]);
                        *part = _mm256_add_epi32(*part, _mm256_madd_epi16(first, scale));
                        *part = _mm256_add_epi32(*part, _mm256_madd_epi16(last, scale));
                    }
                }
                separate::<F>(blocks, parts)
            }
        }

        /// Parts of a block's sum of scale * code * activation; `scales` has the eight scales, 16 bits each, in both
        /// halves.
        ///
        /// # Safety
        /// `block` is a whole block; the processor has AVX2.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn scaled<F: Block256>(block: *const u8, scales: __m256i, x: &Codes256) -> __m256i {
            prefetch(block.wrapping_add(AHEAD), F::BYTES);
            // SAFETY: the caller's promise.
            let codes = unsafe { F::codes(block) };
            let (q, chosen) = (opaque(x.q.as_ptr()), opaque(EACH_OF_EIGHT.as_ptr()));
            let mut sum = _mm256_setzero_si256();
            for (sub, codes) in codes.into_iter().enumerate() {
                // SAFETY: a part of `x.q` and one of the eight.
                let (q, chosen) = unsafe { (load(q.add(32 * sub).cast()), load(chosen.add(sub).cast())) };
                let scale = _mm256_shuffle_epi8(scales, chosen);
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products(F::SIGNED, codes, q), scale));
            }
            sum
        }

        /// Parts of a block's sum of scale * code * activation; in formats with mins these are the low half, and the
        /// high half parts of the sum of min * activation.
        ///
        /// # Safety
        /// `block` is a whole block; the processor has AVX2.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn parts256<F: Block256>(block: *const u8, x: &Codes256) -> __m256i {
            prefetch(block.wrapping_add(AHEAD), F::BYTES);
            // SAFETY: the caller's promise; the loads of `x` are of its own fields.
            unsafe {
                let (codes, q, chosen) = (F::codes(block), opaque(x.q.as_ptr()), opaque(EACH_OF_EIGHT.as_ptr()));
                let [scales, mins] = F::scales(block);
                let spread = match F::SUB {
                    // The scale of a vector's low half comes from the even ones, that of its high half from the odd ones.
                    16 => _mm256_cvtepi8_epi16(_mm_shuffle_epi8(
                        scales,
                        _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15),
                    )),
                    _ => _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(scales)),
                };
                let mut sum = _mm256_setzero_si256();
                for (sub, codes) in codes.into_iter().enumerate() {
                    let q = load(q.add(32 * sub).cast());
                    let scale = _mm256_shuffle_epi8(spread, load(chosen.add(sub).cast()));
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(products(F::SIGNED, codes, q), scale));
                }
                if F::OFFSET != 0 {
                    let off = match F::SUB {
                        16 => _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), load(x.sum16.as_ptr().cast())),
                        _ => {
                            let sums = load128(x.sum32.as_ptr().cast());
                            _mm256_zextsi128_si256(_mm_madd_epi16(_mm_cvtepi8_epi16(scales), sums))
                        }
                    };
                    sum = _mm256_sub_epi32(sum, _mm256_mullo_epi32(off, _mm256_set1_epi32(F::OFFSET)));
                }
                if F::MINS {
                    let mins = match F::SUB {
                        16 => fold(_mm256_madd_epi16(_mm256_cvtepi8_epi16(mins), load(x.sum16.as_ptr().cast()))),
                        _ => _mm_madd_epi16(_mm_cvtepi8_epi16(mins), load128(x.sum32.as_ptr().cast())),
                    };
                    sum = _mm256_set_m128i(mins, fold(sum));
                }
                sum
            }
        }
    };
}
pub(in crate::kernel::matmul) use sums_of_256;

sums_of_256!("avx2,fma,f16c");
