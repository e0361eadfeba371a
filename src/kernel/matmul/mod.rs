//! Products of weight rows, in the file's own blocks, with activations: y[t][r] = sum over j of W[r][j] * x[t][j].
//!
//! One sequence of roundings holds for every instruction set, token count and cut of the rows, so all of them give the
//! same bits. With activations as 8-bit codes, whatever is a whole number is summed exactly, in any order; what is left
//! are a few fused multiply-adds per block, in the order of the columns:
//! - formats of 32, 64 and 128, for each 32 columns: `y = fma(sum of code*q, d_w * d_x, y)`, then with a min
//!   `y = fma(min, d_x * sum of q, y)`; NVFP4, which has a scale for every 16, likewise for each 16;
//! - formats of 256: `y = fma(sum of scale*code*q, d_w * d_x, y)`, then with mins
//!   `y = fma(-(dmin * d_x), sum of min*q, y)`;
//! - F32, F16, BF16: for each 256 columns eight partial sums by fma, lane l taking the columns j with j mod 8 = l;
//!   `y += ((l0+l2) + (l1+l3)) + ((l4+l6) + (l5+l7))`.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod check;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod look_up;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod panels;
mod scalar;

pub use activations::{Activations, Form, Quantizer, activation_bytes};
pub use check::agrees;

use super::{Instructions, Isa};
use crate::quant::Format;
use std::ops::Range;

/// Where results go: element (token t, row r) lies at `ptr + t * stride + r`.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub ptr: *mut f32,
    pub stride: usize,
}

// SAFETY: it is an address; who may write where is the contract of `multiply`.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// What a kernel is given, checked: `range` lies in the rows, and the forms agree.
#[derive(Clone, Copy)]
struct Job<'a> {
    rows: *const u8,
    row_bytes: usize,
    k: usize,
    start: usize,
    end: usize,
    acts: &'a Activations<'a>,
    out: Output,
}

impl Job<'_> {
    /// First byte of row `r`, or of the last row of the job where `r` lies beyond it: kernels work on several rows at a
    /// time and drop the results of the repeated ones.
    #[inline]
    fn row(&self, r: usize) -> *const u8 {
        self.rows.wrapping_add(r.min(self.end - 1) * self.row_bytes)
    }

    /// How many groups of four rows there are.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline]
    fn quarter(&self) -> usize {
        (self.end - self.start).div_ceil(4)
    }

    /// First bytes of four rows to be worked on at once: row `r` of the first quarter, and those as far into the others.
    /// Four places that lie far apart are read at once, each in its own order: the hardware then fetches ahead in each
    /// of them, which makes a core's share of the memory's rate a fifth greater than one place does.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    #[inline]
    fn four(&self, r: usize) -> [*const u8; 4] {
        std::array::from_fn(|i| self.row(r + i * self.quarter()))
    }
}

/// Multiplies the rows `range` of `rows` with every token of `acts`.
///
/// `rows` are whole rows of `k` elements in `format`, end to end, at any alignment; nothing outside of them is read
/// (prefetch hints aside, which never fault). Nothing is allocated.
///
/// # Panics
/// If `acts` was not made for this `k` and the form of `format`, or `range` reaches beyond `rows`.
///
/// # Safety
/// For each token t of `acts` and each r in `range`, `out.ptr + t * out.stride + r` is valid for writing and nobody
/// else reads or writes it meanwhile.
pub unsafe fn multiply(
    isa: Isa,
    format: Format,
    rows: &[u8],
    k: usize,
    range: Range<usize>,
    acts: &Activations,
    out: Output,
) {
    assert_eq!((acts.form(), acts.k()), (Form::of(format), k), "activations made for other weights");
    let row_bytes = format.row_bytes(k).expect("k is a whole number of blocks");
    assert!(range.end.checked_mul(row_bytes).is_some_and(|bytes| bytes <= rows.len()), "rows outside of the slice");
    if range.is_empty() || acts.tokens() == 0 {
        return;
    }
    let job = Job { rows: rows.as_ptr(), row_bytes, k, start: range.start, end: range.end, acts, out };
    match isa.instructions() {
        // SAFETY: the caller's promise about `out`; an `Isa` is the proof that the processor has its instructions; the rest of a
        // job was checked above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::multiply(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::AvxVnni => unsafe { avx_vnni::multiply(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => unsafe { avx512::multiply(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Amx => unsafe { amx::multiply(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => unsafe { neon::multiply::<neon::Neon>(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonDot => unsafe { neon::multiply::<neon::NeonDot>(format, &job) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Instructions::NeonI8mm => unsafe { neon::multiply::<neon::NeonI8mm>(format, &job) },
        // SAFETY: the caller's promise about `out`; the rest of a job was checked above.
        Instructions::Scalar => unsafe { scalar::multiply(format, &job) },
    }
}
