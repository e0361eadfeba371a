//! NEON's operations on registers as safe functions, and instructions beyond them that the standard library has not made
//! stable yet.
//!
//! Every 64-bit ARM processor that the library is built for has NEON; the standard library's functions still want to be
//! called from functions marked for it, which cannot be inlined into others at will.

use std::arch::aarch64 as arch;
use std::arch::aarch64::{float32x2_t, float64x2_t, int8x8_t, int16x4_t, int64x2_t, uint64x1_t, uint64x2_t};
pub(super) use std::arch::aarch64::{
    float32x4_t, int8x16_t, int16x8_t, int16x8x4_t, int32x4_t, uint8x8_t, uint8x16_t, uint16x4_t, uint16x8_t,
    uint32x4_t, vld1_s8, vld1_s16, vld1_u8, vld1_u16, vld1q_f32, vld1q_s8, vld1q_s16, vld1q_u8, vld1q_u16, vld1q_u32,
    vst1q_f32, vst1q_s8, vst1q_u16, vst4q_s16,
};
use std::arch::asm;

/// What a function makes of each element of an array, as `map` does. That one is a call where the function is not short.
pub(super) trait Each<T, const N: usize> {
    fn each<U>(self, f: impl FnMut(T) -> U) -> [U; N];
}

impl<T> Each<T, 2> for [T; 2] {
    #[inline(always)]
    fn each<U>(self, mut f: impl FnMut(T) -> U) -> [U; 2] {
        let [a, b] = self;
        [f(a), f(b)]
    }
}

impl<T> Each<T, 4> for [T; 4] {
    #[inline(always)]
    fn each<U>(self, mut f: impl FnMut(T) -> U) -> [U; 4] {
        let [a, b, c, d] = self;
        [f(a), f(b), f(c), f(d)]
    }
}

/// Functions of the standard library under their names.
macro_rules! operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline(always)]
            pub(super) fn $name($($arg: $type),*) -> $result {
                // SAFETY: registers only, and every processor has NEON.
                unsafe { arch::$name($($arg),*) }
            }
        )*
    };
}

/// As `operations`, for those with a constant.
macro_rules! constant_operations {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline(always)]
            pub(super) fn $name<const N: i32>($($arg: $type),*) -> $result {
                // SAFETY: registers only, and every processor has NEON.
                unsafe { arch::$name::<N>($($arg),*) }
            }
        )*
    };
}

operations! {
    vcombine_f32(a: float32x2_t, b: float32x2_t) -> float32x4_t;
    vdup_n_f32(a: f32) -> float32x2_t;
    vreinterpretq_u16_u32(a: uint32x4_t) -> uint16x8_t;
    vreinterpretq_u8_s32(a: int32x4_t) -> uint8x16_t;
    vuzp1q_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vuzp2q_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vaddq_s8(a: int8x16_t, b: int8x16_t) -> int8x16_t;
    vaddvq_s32(a: int32x4_t) -> i32;
    vand_u8(a: uint8x8_t, b: uint8x8_t) -> uint8x8_t;
    vandq_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vandq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vandq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vbicq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vbicq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vbslq_f32(a: uint32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t;
    vceqq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vcgeq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vcgtq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vcltq_f32(a: float32x4_t, b: float32x4_t) -> uint32x4_t;
    vcombine_s8(a: int8x8_t, b: int8x8_t) -> int8x16_t;
    vcombine_u16(a: uint16x4_t, b: uint16x4_t) -> uint16x8_t;
    vcombine_u64(a: uint64x1_t, b: uint64x1_t) -> uint64x2_t;
    vcombine_u8(a: uint8x8_t, b: uint8x8_t) -> uint8x16_t;
    vcreate_s8(a: u64) -> int8x8_t;
    vcreate_u64(a: u64) -> uint64x1_t;
    vcreate_u8(a: u64) -> uint8x8_t;
    vcvtnq_s32_f32(a: float32x4_t) -> int32x4_t;
    vcvtq_f32_s32(a: int32x4_t) -> float32x4_t;
    vdivq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vdup_n_u16(a: u16) -> uint16x4_t;
    vdup_n_u8(a: u8) -> uint8x8_t;
    vdupq_n_f32(a: f32) -> float32x4_t;
    vdupq_n_s16(a: i16) -> int16x8_t;
    vdupq_n_s32(a: i32) -> int32x4_t;
    vdupq_n_s8(a: i8) -> int8x16_t;
    vdupq_n_u16(a: u16) -> uint16x8_t;
    vdupq_n_u32(a: u32) -> uint32x4_t;
    vdupq_n_u64(a: u64) -> uint64x2_t;
    vdupq_n_u8(a: u8) -> uint8x16_t;
    vfmaq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t;
    vfmsq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t;
    vget_low_s16(a: int16x8_t) -> int16x4_t;
    vget_low_s8(a: int8x16_t) -> int8x8_t;
    vget_low_u16(a: uint16x8_t) -> uint16x4_t;
    vget_low_u8(a: uint8x16_t) -> uint8x8_t;
    vmlal_high_s16(a: int32x4_t, b: int16x8_t, c: int16x8_t) -> int32x4_t;
    vmlal_high_s8(a: int16x8_t, b: int8x16_t, c: int8x16_t) -> int16x8_t;
    vmlal_s16(a: int32x4_t, b: int16x4_t, c: int16x4_t) -> int32x4_t;
    vmlal_s8(a: int16x8_t, b: int8x8_t, c: int8x8_t) -> int16x8_t;
    vmlaq_s32(a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t;
    vmovl_high_s16(a: int16x8_t) -> int32x4_t;
    vmovl_high_s8(a: int8x16_t) -> int16x8_t;
    vmovl_high_u8(a: uint8x16_t) -> uint16x8_t;
    vmovl_s16(a: int16x4_t) -> int32x4_t;
    vmovl_s8(a: int8x8_t) -> int16x8_t;
    vmovl_u8(a: uint8x8_t) -> uint16x8_t;
    vmovn_u32(a: uint32x4_t) -> uint16x4_t;
    vmull_high_s8(a: int8x16_t, b: int8x16_t) -> int16x8_t;
    vmull_s8(a: int8x8_t, b: int8x8_t) -> int16x8_t;
    vmulq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vmulq_n_f32(a: float32x4_t, b: f32) -> float32x4_t;
    vmulq_s8(a: int8x16_t, b: int8x16_t) -> int8x16_t;
    vmulq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vmvnq_u8(a: uint8x16_t) -> uint8x16_t;
    vorrq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t;
    vorrq_u16(a: uint16x8_t, b: uint16x8_t) -> uint16x8_t;
    vorrq_u32(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t;
    vorrq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vpadalq_s16(a: int32x4_t, b: int16x8_t) -> int32x4_t;
    vpaddlq_s16(a: int16x8_t) -> int32x4_t;
    vpaddlq_s8(a: int8x16_t) -> int16x8_t;
    vpaddq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vpaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vqmovn_high_s16(a: int8x8_t, b: int16x8_t) -> int8x16_t;
    vqmovn_high_s32(a: int16x4_t, b: int32x4_t) -> int16x8_t;
    vqmovn_s16(a: int16x8_t) -> int8x8_t;
    vqmovn_s32(a: int32x4_t) -> int16x4_t;
    vqtbl1q_s8(a: int8x16_t, b: uint8x16_t) -> int8x16_t;
    vqtbl1q_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vreinterpretq_f32_f64(a: float64x2_t) -> float32x4_t;
    vreinterpretq_f32_s32(a: int32x4_t) -> float32x4_t;
    vreinterpretq_f32_s8(a: int8x16_t) -> float32x4_t;
    vreinterpretq_f32_u32(a: uint32x4_t) -> float32x4_t;
    vreinterpretq_f64_f32(a: float32x4_t) -> float64x2_t;
    vreinterpretq_s16_u16(a: uint16x8_t) -> int16x8_t;
    vreinterpretq_s32_f32(a: float32x4_t) -> int32x4_t;
    vreinterpretq_s32_s8(a: int8x16_t) -> int32x4_t;
    vreinterpretq_s32_u32(a: uint32x4_t) -> int32x4_t;
    vreinterpretq_s64_s32(a: int32x4_t) -> int64x2_t;
    vreinterpretq_s64_s8(a: int8x16_t) -> int64x2_t;
    vreinterpretq_s8_s32(a: int32x4_t) -> int8x16_t;
    vreinterpretq_s8_s64(a: int64x2_t) -> int8x16_t;
    vreinterpretq_s8_u32(a: uint32x4_t) -> int8x16_t;
    vreinterpretq_s8_u8(a: uint8x16_t) -> int8x16_t;
    vreinterpretq_u16_s8(a: int8x16_t) -> uint16x8_t;
    vreinterpretq_u32_f32(a: float32x4_t) -> uint32x4_t;
    vreinterpretq_u32_u8(a: uint8x16_t) -> uint32x4_t;
    vreinterpretq_u64_u8(a: uint8x16_t) -> uint64x2_t;
    vreinterpretq_u8_u32(a: uint32x4_t) -> uint8x16_t;
    vreinterpretq_u8_u64(a: uint64x2_t) -> uint8x16_t;
    vshlq_u16(a: uint16x8_t, b: int16x8_t) -> uint16x8_t;
    vshlq_u32(a: uint32x4_t, b: int32x4_t) -> uint32x4_t;
    vshlq_u8(a: uint8x16_t, b: int8x16_t) -> uint8x16_t;
    vsubq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vsubq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t;
    vsubq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vsubq_s8(a: int8x16_t, b: int8x16_t) -> int8x16_t;
    vtrn1q_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vtrn1q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vtrn1q_s64(a: int64x2_t, b: int64x2_t) -> int64x2_t;
    vtrn1q_u64(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t;
    vtrn2q_f64(a: float64x2_t, b: float64x2_t) -> float64x2_t;
    vtrn2q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vtrn2q_s64(a: int64x2_t, b: int64x2_t) -> int64x2_t;
    vtrn2q_u64(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t;
    vtstq_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vuzp1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vuzp1q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vuzp2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vuzp2q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t;
    vzip1_u8(a: uint8x8_t, b: uint8x8_t) -> uint8x8_t;
    vzip1q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vzip1q_u8(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t;
    vzip2q_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
}

constant_operations! {
    vset_lane_f32(a: f32, b: float32x2_t) -> float32x2_t;
    vdupq_laneq_s32(a: int32x4_t) -> int32x4_t;
    vextq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t;
    vfmaq_laneq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t;
    vmlal_laneq_s16(a: int32x4_t, b: int16x4_t, c: int16x8_t) -> int32x4_t;
    vmlaq_laneq_s32(a: int32x4_t, b: int32x4_t, c: int32x4_t) -> int32x4_t;
    vmulq_laneq_f32(a: float32x4_t, b: float32x4_t) -> float32x4_t;
    vset_lane_u16(a: u16, b: uint16x4_t) -> uint16x4_t;
    vshll_high_n_u16(a: uint16x8_t) -> uint32x4_t;
    vshll_n_u16(a: uint16x4_t) -> uint32x4_t;
    vshlq_n_s16(a: int16x8_t) -> int16x8_t;
    vshlq_n_u16(a: uint16x8_t) -> uint16x8_t;
    vshlq_n_u32(a: uint32x4_t) -> uint32x4_t;
    vshlq_n_u8(a: uint8x16_t) -> uint8x16_t;
    vshr_n_u8(a: uint8x8_t) -> uint8x8_t;
    vshrn_n_u32(a: uint32x4_t) -> uint16x4_t;
    vshrq_n_u16(a: uint16x8_t) -> uint16x8_t;
    vshrq_n_u32(a: uint32x4_t) -> uint32x4_t;
    vshrq_n_u8(a: uint8x16_t) -> uint8x16_t;
}

/// Eight half floats, as bits, as singles. Exact.
#[inline(always)]
pub(super) fn from_halves(bits: uint16x8_t) -> [float32x4_t; 2] {
    let high: float32x4_t;
    // SAFETY: registers only; every processor with NEON has the instruction.
    unsafe {
        asm!("fcvtl2 {0:v}.4s, {1:v}.8h", lateout(vreg) high, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    [from_four_halves(vget_low_u16(bits)), high]
}

/// Four half floats, as bits, as singles. Exact.
#[inline(always)]
pub(super) fn from_four_halves(bits: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: registers only; every processor with NEON has the instruction.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) wide, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Eight singles as the bits of half floats: to nearest, ties to even.
#[inline(always)]
pub(super) fn to_halves(v: [float32x4_t; 2]) -> uint16x8_t {
    let bits: uint16x8_t;
    // SAFETY: registers only; every processor with NEON has the instructions.
    unsafe {
        asm!(
            "fcvtn {0:v}.4h, {1:v}.4s",
            "fcvtn2 {0:v}.8h, {2:v}.4s",
            out(vreg) bits, in(vreg) v[0], in(vreg) v[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    bits
}

/// `v`, of which the compiler does not know that it is what it is: of look-ups at constant places it makes up to four
/// shuffles, and of numbers that are widened together and used one by one a widening each.
#[inline(always)]
pub(super) fn opaque(mut v: int32x4_t) -> int32x4_t {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0:v} */", inout(vreg) v, options(pure, nomem, nostack, preserves_flags)) };
    v
}

/// `address`, which the compiler does not know before it has `first`. What is wanted last it would otherwise load at once, and
/// run out of registers.
#[inline(always)]
pub(super) fn behind<T>(mut address: *const T, first: int32x4_t) -> *const T {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} {1:v} */", inout(reg) address, in(vreg) first, options(pure, nomem, nostack, preserves_flags))
    };
    address
}

/// The halves at four addresses, as singles, and the addresses `BYTES` further on. The compiler would work each address out
/// anew.
///
/// # Safety
/// Each address is valid for reading two bytes.
#[inline(always)]
pub(super) unsafe fn halves_in_steps<const BYTES: usize>(at: &mut [*const u8; 4]) -> float32x4_t {
    let bits: uint16x4_t;
    let [a, b, c, d] = at;
    // SAFETY: reads the halves, which is the caller's promise; no alignment is needed.
    unsafe {
        asm!(
            "ldr {0:h}, [{1}], #{5}",
            "ld1 {{{0:v}.h}}[1], [{2}], {6}",
            "ld1 {{{0:v}.h}}[2], [{3}], {6}",
            "ld1 {{{0:v}.h}}[3], [{4}], {6}",
            out(vreg) bits, inout(reg) *a, inout(reg) *b, inout(reg) *c, inout(reg) *d,
            const BYTES, in(reg) BYTES,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    from_four_halves(bits)
}

/// The 32 bytes at four addresses; the addresses become those behind them.
///
/// # Safety
/// Each address is valid for reading 32 bytes.
#[inline(always)]
pub(super) unsafe fn load_32_in_steps(at: &mut [*const u8; 4]) -> [[int8x16_t; 2]; 4] {
    let (a0, a1, b0, b1): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
    let (c0, c1, d0, d1): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
    let [a, b, c, d] = at;
    // SAFETY: reads what is the caller's promise; no alignment is needed.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b}}, [{0}], #32",
            "ld1 {{v18.16b, v19.16b}}, [{1}], #32",
            "ld1 {{v20.16b, v21.16b}}, [{2}], #32",
            "ld1 {{v22.16b, v23.16b}}, [{3}], #32",
            inout(reg) *a, inout(reg) *b, inout(reg) *c, inout(reg) *d,
            out("v16") a0, out("v17") a1, out("v18") b0, out("v19") b1,
            out("v20") c0, out("v21") c1, out("v22") d0, out("v23") d1,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [[a0, a1], [b0, b1], [c0, c1], [d0, d1]]
}

/// Twice 64 bytes; the address becomes the one behind them.
///
/// # Safety
/// The address is valid for reading 128 bytes.
#[inline(always)]
pub(super) unsafe fn load_128_in_steps(at: &mut *const i8) -> [[int8x16_t; 4]; 2] {
    let (a, b, c, d): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
    let (e, f, g, h): (int8x16_t, int8x16_t, int8x16_t, int8x16_t);
    // SAFETY: reads what is the caller's promise; no alignment is needed.
    unsafe {
        asm!(
            "ld1 {{v16.16b, v17.16b, v18.16b, v19.16b}}, [{0}], #64",
            "ld1 {{v20.16b, v21.16b, v22.16b, v23.16b}}, [{0}], #64",
            inout(reg) *at,
            out("v16") a, out("v17") b, out("v18") c, out("v19") d,
            out("v20") e, out("v21") f, out("v22") g, out("v23") h,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [[a, b, c, d], [e, f, g, h]]
}

/// To each lane the sum of four products of signed bytes.
///
/// # Safety
/// The processor has the dot product instructions.
#[inline(always)]
pub(super) unsafe fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is the caller's promise.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// As [`sdot`] with the four bytes `LANE` of `b` for each lane of `a`.
///
/// # Safety
/// As [`sdot`].
#[inline(always)]
pub(super) unsafe fn sdot_lane<const LANE: usize>(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is the caller's promise.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) sums, in(vreg) a, in(vreg) b, const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The products of two rows of eight signed bytes with two others: to lane `2 * i + j` that of row i of `a` with row j of
/// `b`.
///
/// # Safety
/// The processor has the instructions for matrices of bytes.
#[inline(always)]
pub(super) unsafe fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: registers only; the instruction is the caller's promise.
    unsafe {
        asm!(
            ".arch_extension i8mm",
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
