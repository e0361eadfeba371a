//! Kernels for 64-bit ARM: with NEON alone, with dot products of bytes, and with products of matrices of bytes.
//!
//! A format is what takes its blocks apart into signed bytes ([`block32`], [`block256`], [`code_book`], [`float`]); an
//! instruction set is how bytes are multiplied ([`level`]). Everything else is written once for all of them: [`decode`] runs
//! over the file's own blocks, four rows at a time; [`tile`] takes a stretch of rows apart once, and [`micro`] multiplies it
//! with all tokens.
//!
//! No function here needs its own target features: NEON is part of every 64-bit ARM processor, and the instructions beyond
//! it are written in assembler.

/// The same for each of the eight sub-blocks of a block, with a constant number.
macro_rules! eight {
    ($sub:ident => $body:block) => {
        $crate::kernel::matmul::neon::eight!($sub => $body, 0 1 2 3 4 5 6 7)
    };
    ($sub:ident => $body:block, $($number:literal)*) => {
        $({
            let $sub: usize = $number;
            $body
        })*
    };
}
use eight;

mod block256;
mod block32;
mod code_book;
mod decode;
mod float;
mod level;
mod micro;
pub(super) mod quantize;
mod tile;

pub(super) use level::{Neon, NeonDot, NeonI8mm};

use super::Job;
use crate::kernel::neon::*;
use crate::quant::Format;
use level::Level;

/// From so many tokens on, taking blocks apart once for all tokens is faster than once for each.
const TILED: usize = 4;

/// # Safety
/// As `super::multiply`; the processor has the instruction set.
pub(super) unsafe fn multiply<L: Level>(format: Format, job: &Job) {
    // SAFETY: the caller's promises are those of each function called.
    unsafe {
        match format {
            Format::F32 => float::multiply::<float::F32>(job),
            Format::F16 => float::multiply::<float::F16>(job),
            Format::BF16 => float::multiply::<float::BF16>(job),
            Format::Q4_0 => multiply32::<block32::Q4_0, L>(job),
            Format::Q4_1 => multiply32::<block32::Q4_1, L>(job),
            Format::Q5_0 => multiply32::<block32::Q5_0, L>(job),
            Format::Q5_1 => multiply32::<block32::Q5_1, L>(job),
            Format::Q8_0 => multiply32::<block32::Q8_0, L>(job),
            Format::IQ4_NL => multiply32::<block32::Iq4Nl, L>(job),
            Format::MXFP4 => multiply32::<block32::Mxfp4, L>(job),
            Format::NVFP4 => multiply32::<block32::Nvfp4, L>(job),
            Format::Q1_0 => multiply32::<block32::Q1_0, L>(job),
            Format::Q2_0 => multiply32::<block32::Q2_0, L>(job),
            Format::Q2_K => multiply256::<block256::Q2K, L>(job),
            Format::Q3_K => multiply256::<block256::Q3K, L>(job),
            Format::Q4_K => multiply256::<block256::Q4K, L>(job),
            Format::Q5_K => multiply256::<block256::Q5K, L>(job),
            Format::Q6_K => multiply256::<block256::Q6K, L>(job),
            Format::IQ4_XS => multiply256::<block256::Iq4Xs, L>(job),
            Format::IQ1_S => multiply256::<code_book::Iq1S, L>(job),
            Format::IQ1_M => multiply256::<code_book::Iq1M, L>(job),
            Format::IQ2_XXS => multiply256::<code_book::Iq2Xxs, L>(job),
            Format::IQ2_XS => multiply256::<code_book::Iq2Xs, L>(job),
            Format::IQ2_S => multiply256::<code_book::Iq2S, L>(job),
            Format::IQ3_XXS => multiply256::<code_book::Iq3Xxs, L>(job),
            Format::IQ3_S => multiply256::<code_book::Iq3S, L>(job),
            Format::TQ1_0 => multiply256::<block256::Tq1_0, L>(job),
            Format::TQ2_0 => multiply256::<block256::Tq2_0, L>(job),
        }
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn multiply32<F: block32::Block32, L: Level>(job: &Job) {
    // SAFETY: as in `multiply`.
    unsafe {
        match job.acts.tokens() < TILED {
            true => decode::rows32::<F, L>(job),
            false => micro::rows32::<F, L>(job),
        }
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn multiply256<F: block256::Block256, L: Level>(job: &Job) {
    // SAFETY: as in `multiply`.
    unsafe {
        match job.acts.tokens() < TILED {
            true => decode::rows256::<F, L>(job),
            false => micro::rows256::<F, L>(job),
        }
    }
}

/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline(always)]
unsafe fn load(p: *const u8) -> int8x16_t {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { vld1q_s8(p.cast()) }
}

/// # Safety
/// `p` is valid for reading 16 bytes.
#[inline(always)]
unsafe fn load_unsigned(p: *const u8) -> uint8x16_t {
    // SAFETY: the caller's promise; no alignment is needed.
    unsafe { vld1q_u8(p) }
}

/// Writes the results of the rows of [`Job::four`] for token `t`, as many of them as the job has.
///
/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn store4(job: &Job, r: usize, t: usize, y: float32x4_t) {
    let mut four = [0f32; 4];
    // SAFETY: there is room for four; the caller lets this thread write the rows before `job.end`.
    unsafe {
        vst1q_f32(four.as_mut_ptr(), y);
        for (row, y) in (r..job.end).step_by(job.quarter()).zip(four) {
            *job.out.ptr.add(t * job.out.stride + row) = y;
        }
    }
}
