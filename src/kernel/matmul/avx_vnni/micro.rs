//! Products of a tile with many tokens: two vectors of rows with up to six tokens at a time, in registers.

use std::arch::x86_64::{
    __m256 as Floats, __m256i as Whole, _mm256_add_epi32 as add, _mm256_castsi256_ps as as_floats,
    _mm256_cvtepi32_ps as to_floats, _mm256_dpbusd_avx_epi32 as dpbusd, _mm256_fmadd_ps as fmadd,
    _mm256_fnmadd_ps as fnmadd, _mm256_load_ps as load_floats, _mm256_loadu_si256 as load_whole,
    _mm256_madd_epi16 as multiply_pairs, _mm256_mul_ps as multiply_floats, _mm256_mullo_epi32 as multiply,
    _mm256_set1_epi32 as splat, _mm256_set1_ps as splat_floats, _mm256_setzero_si256 as zero,
    _mm256_srai_epi32 as shift_right, _mm256_store_ps as store_floats, _mm256_sub_epi32 as subtract,
};

/// The kernels for an instruction set that has the given features. The module knows vectors and their instructions by the names above and has
/// `fill256`, which takes blocks apart; the one around it has `unsigned`.
macro_rules! tile_kernels {
    ($features:literal) => {
        use super::unsigned;
        use $crate::kernel::matmul::Job;
        use $crate::kernel::matmul::activations::{Codes32, Codes256};
        use $crate::kernel::matmul::avx_vnni::SHIFT;
        use $crate::kernel::matmul::avx2::block32::{Block32, Kind32};
        use $crate::kernel::matmul::avx2::block256::{Block256, Kind256};
        use $crate::kernel::matmul::avx2::micro::over_tiles;
        use $crate::kernel::matmul::avx2::tile::{GROUPS, Tile32, Tile256, fill32};
        use $crate::kernel::matmul::panels::{ROWS, Step, panels};

        /// Tokens that share a pass over the tile.
        const TOKENS: usize = 6;
        /// Vectors of rows that share a pass over the activations.
        const PAIR: usize = 2;
        /// Groups of eight rows in a vector.
        const WIDE: usize = size_of::<Whole>() / 32;

        /// Sums of `T` tokens with a pair of vectors of rows.
        type Sums<V, const T: usize> = [[V; PAIR]; T];

        over_tiles!(rows32 of Block32, step32 of <F::Kind as Kind32>::Wide, [1 2 4], fill32);
        over_tiles!(rows256 of Block256, step256 of <F::Kind as Kind256>::Wide, [1 2 4], fill256);

        /// Two vectors of something that a tile has for every row, from `group` on.
        #[inline]
        #[target_feature(enable = $features)]
        fn pair<T: Copy>(groups: &[T; GROUPS], group: usize) -> [Whole; PAIR] {
            const { assert!(size_of::<T>() == 32) };
            let p = groups[group..][..PAIR * WIDE].as_ptr();
            // SAFETY: the slice is two vectors long.
            unsafe { [load_whole(p.cast()), load_whole(p.add(WIDE).cast())] }
        }

        /// The products of the columns of `codes` with `T` tokens, from `start`.
        ///
        /// # Safety
        /// Each address of `q` is valid for reading four activations for each of `codes`.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn dot<const T: usize>(
            signed: bool,
            codes: &[[[u8; 32]; GROUPS]],
            group: usize,
            q: [*const i8; T],
            start: [Whole; T],
        ) -> Sums<Whole, T> {
            let mut sums = [[zero(); PAIR]; T];
            for (sums, start) in sums.iter_mut().zip(start) {
                *sums = [start; PAIR];
            }
            for (quad, codes) in codes.iter().enumerate() {
                let [w0, w1] = pair(codes, group);
                let w = [unsigned(signed, w0), unsigned(signed, w1)];
                for (sums, q) in sums.iter_mut().zip(q) {
                    // SAFETY: the caller's promise; no alignment is needed.
                    let x = splat(unsafe { q.add(4 * quad).cast::<i32>().read_unaligned() });
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = dpbusd(*sum, w, x);
                    }
                }
            }
            sums
        }

        /// Results so far of the rows from `group` on.
        ///
        /// # Safety
        /// `y` holds the results of `T` tokens.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn results<const T: usize>(y: *const [f32; ROWS], group: usize) -> Sums<Floats, T> {
            std::array::from_fn(|t| {
                // SAFETY: the caller's promise; all groups of a token lie side by side.
                std::array::from_fn(|half| unsafe {
                    load_floats(y.add(t).cast::<f32>().add(8 * (group + WIDE * half)))
                })
            })
        }

        /// # Safety
        /// As [`results`].
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn keep<const T: usize>(y: *mut [f32; ROWS], group: usize, sums: Sums<Floats, T>) {
            for (t, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    // SAFETY: as in `results`.
                    unsafe { store_floats(y.add(t).cast::<f32>().add(8 * (group + WIDE * half)), sum) };
                }
            }
        }

        /// All rows of the tile with the tokens `t..t + T`, added to the results at `to`.
        ///
        /// # Safety
        /// `to` holds the results of `T` tokens; the processor has the instruction set.
        #[inline(never)] // Formats of a kind share it.
        #[target_feature(enable = $features)]
        unsafe fn step32<F: Kind32, const T: usize>(step: &Step<Tile32>, t: usize, to: *mut [f32; ROWS]) {
            let x: &[Codes32; T] = step.x[t..t + T].try_into().expect("T tokens");
            let offset = match (F::SIGNED, F::OFFSET) {
                (true, _) => SHIFT,
                (_, true) => step.tile.offset,
                _ => 0,
            };
            for group in step.groups(8, PAIR * WIDE) {
                // SAFETY: the caller's promises; every address is that of a field.
                unsafe {
                    let mut y = results::<T>(to, group);
                    for sub in 0..step.columns / 32 {
                        if F::HALVES {
                            for half in 0..2 {
                                let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(32 * sub + 16 * half));
                                let mut start = [zero(); T];
                                for (start, x) in start.iter_mut().zip(x) {
                                    *start = splat(-offset * i32::from(x.sum16[2 * sub + half]));
                                }
                                let sums = dot(F::SIGNED, &step.tile.codes[8 * sub + 4 * half..][..4], group, q, start);
                                let d = pair(if half == 0 { &step.tile.d[sub] } else { &step.tile.min[sub] }, group);
                                for ((y, sums), x) in y.iter_mut().zip(sums).zip(x) {
                                    for ((y, sum), d) in y.iter_mut().zip(sums).zip(d) {
                                        let scale = multiply_floats(as_floats(d), splat_floats(x.d[sub]));
                                        *y = fmadd(to_floats(sum), scale, *y);
                                    }
                                }
                            }
                            continue;
                        }
                        let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(32 * sub));
                        let mut start = [zero(); T];
                        for (start, x) in start.iter_mut().zip(x) {
                            *start = splat(-offset * x.sum[sub]);
                        }
                        let sums = dot(F::SIGNED, &step.tile.codes[8 * sub..][..8], group, q, start);
                        let (d, min) = (pair(&step.tile.d[sub], group), pair(&step.tile.min[sub], group));
                        for ((y, sums), x) in y.iter_mut().zip(sums).zip(x) {
                            for half in 0..PAIR {
                                let scale = multiply_floats(as_floats(d[half]), splat_floats(x.d[sub]));
                                y[half] = fmadd(to_floats(sums[half]), scale, y[half]);
                                if F::MIN {
                                    y[half] = fmadd(as_floats(min[half]), splat_floats(x.s[sub]), y[half]);
                                }
                            }
                        }
                    }
                    keep(to, group, y);
                }
            }
        }

        /// As [`step32`].
        ///
        /// # Safety
        /// As [`step32`].
        #[inline(never)] // Formats of a kind share it.
        #[target_feature(enable = $features)]
        unsafe fn step256<F: Kind256, const T: usize>(step: &Step<Tile256>, t: usize, to: *mut [f32; ROWS]) {
            let x: &[Codes256; T] = step.x[t..t + T].try_into().expect("T tokens");
            for group in step.groups(8, PAIR * WIDE) {
                // SAFETY: the caller's promises; every address is that of a field.
                unsafe {
                    let mut totals = [[zero(); PAIR]; T];
                    for (sub, codes) in step.tile.codes.chunks_exact(F::SUB / 4).enumerate() {
                        let q = std::array::from_fn(|i| x[i].q.as_ptr().wrapping_add(F::SUB * sub));
                        let mut start = [zero(); T];
                        if F::SIGNED {
                            const { assert!(!F::SIGNED || F::SUB == 32) };
                            for (start, x) in start.iter_mut().zip(x) {
                                *start = splat(-SHIFT * x.sum32[sub] as i32);
                            }
                        }
                        let sums = dot(F::SIGNED, codes, group, q, start);
                        let scales = pair(&step.tile.scales[sub], group);
                        for (totals, sums) in totals.iter_mut().zip(sums) {
                            for half in 0..PAIR {
                                // The tile has each 16-bit scale twice in a lane.
                                let part = multiply(sums[half], shift_right::<16>(scales[half]));
                                totals[half] = add(totals[half], part);
                            }
                        }
                    }
                    let mut mins = [[zero(); PAIR]; T];
                    if F::MINS || F::OFFSET {
                        for i in 0..128 / F::SUB {
                            let pairs = pair(&step.tile.mins[i], group);
                            for (mins, x) in mins.iter_mut().zip(x) {
                                let sums = splat(x.pair_of_sums(F::SUB, i));
                                for half in 0..PAIR {
                                    mins[half] = add(mins[half], multiply_pairs(pairs[half], sums));
                                }
                            }
                        }
                    }
                    let (d, dmin) = (pair(&step.tile.d, group), pair(&step.tile.dmin, group));
                    let mut y = results::<T>(to, group);
                    for (((y, totals), mins), x) in y.iter_mut().zip(totals).zip(mins).zip(x) {
                        let dx = splat_floats(x.d);
                        for half in 0..PAIR {
                            let sum = if F::OFFSET { subtract(totals[half], mins[half]) } else { totals[half] };
                            let scale = multiply_floats(as_floats(d[half]), dx);
                            y[half] = fmadd(to_floats(sum), scale, y[half]);
                            if F::MINS {
                                let scale = multiply_floats(as_floats(dmin[half]), dx);
                                y[half] = fnmadd(scale, to_floats(mins[half]), y[half]);
                            }
                        }
                    }
                    keep(to, group, y);
                }
            }
        }
    };
}
pub(in crate::kernel::matmul) use tile_kernels;

use crate::kernel::matmul::avx2::tile::fill256;

tile_kernels!("avx2,fma,f16c,avxvnni");
