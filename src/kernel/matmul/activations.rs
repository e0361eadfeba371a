//! Activations in the form the weights want them: rounded to 8 bits with a scale, or as they are.
//!
//! A form is an array of blocks of 256 columns, all tokens of a block side by side: `[column block][token]`.
//! Columns beyond `k` are zeros.

use super::{Instructions, Isa};
use crate::quant::Format;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns of an activation block.
pub(super) const COLUMNS: usize = 256;

/// How activations are stored for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// As they are: for weights that are floating point themselves.
    F32,
    /// 8-bit codes with a scale for every 32: for weights in blocks of 32, 64 or 128.
    Q8x32,
    /// 8-bit codes with a scale for every 256: for weights in blocks of 256.
    Q8x256,
}

impl Form {
    /// The form that weights in `format` are multiplied with.
    pub fn of(format: Format) -> Form {
        match format.block_len() {
            1 => Form::F32,
            256 => Form::Q8x256,
            _ => Form::Q8x32,
        }
    }

    /// Elements in a row must be a whole number of these.
    pub(super) fn granule(self) -> usize {
        match self {
            Form::F32 => 1,
            Form::Q8x32 => 32,
            Form::Q8x256 => 256,
        }
    }

    fn block_bytes(self) -> usize {
        match self {
            Form::F32 => size_of::<Floats>(),
            Form::Q8x32 => size_of::<Codes32>(),
            Form::Q8x256 => size_of::<Codes256>(),
        }
    }
}

/// 256 activations as they are.
#[repr(C, align(64))]
pub(super) struct Floats {
    pub x: [f32; COLUMNS],
}

/// 256 activations as codes in -127..=127, scaled by 32: activation j is `d[j/32] * q[j]`.
#[repr(C, align(64))]
pub(super) struct Codes32 {
    pub q: [i8; COLUMNS],
    pub d: [f32; 8],
    /// `d * sum`: what a min is multiplied with.
    pub s: [f32; 8],
    /// Sums of the 32 codes.
    pub sum: [i32; 8],
    /// Sums of 16 codes each.
    pub sum16: [i16; 16],
}

#[cfg(target_arch = "x86_64")]
impl Codes32 {
    /// The sums of both halves of the 32 codes `sub`, `times` as large: four times that of the first, then of the last.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn sums_of_halves(&self, sub: usize, times: i32) -> std::arch::x86_64::__m256i {
        use std::arch::x86_64::{_mm_set1_epi32, _mm256_set_m128i};
        let half = |i| _mm_set1_epi32(times * self.sum16[2 * sub + i] as i32);
        _mm256_set_m128i(half(1), half(0))
    }
}

/// 256 activations as codes in -127..=127 with one scale: activation j is `d * q[j]`.
#[repr(C, align(64))]
pub(super) struct Codes256 {
    pub q: [i8; COLUMNS],
    /// Sums of 16 codes each.
    pub sum16: [i16; 16],
    /// Sums of 32 codes each.
    pub sum32: [i16; 8],
    pub d: f32,
}

#[cfg(target_arch = "x86_64")]
impl Codes256 {
    /// The sums `2 * i` and `2 * i + 1` of `sub` codes each, 16 bits each.
    #[inline]
    pub fn pair_of_sums(&self, sub: usize, i: usize) -> i32 {
        let sums: &[i16] = if sub == 16 { &self.sum16 } else { &self.sum32 };
        sums[2 * i] as u16 as i32 | (sums[2 * i + 1] as i32) << 16
    }
}

/// Below this largest magnitude a block counts as zero: the reciprocal of its scale would overflow.
pub(super) const NEGLIGIBLE: f32 = 1e-35;

/// What a block's largest magnitude, as the bits of a single without its sign, makes of it: the scale, and the factor
/// that turns activations into codes. A factor of zero means that all codes are zero; the scale is NaN when an
/// activation is infinite or no number, so that every result it takes part in is no number either.
pub(super) fn scale_of(magnitude_bits: u32) -> (f32, f32) {
    let largest = f32::from_bits(magnitude_bits);
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < NEGLIGIBLE {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    }
}

/// Bytes that [`Quantizer::new`] needs for `tokens` rows of `k` activations.
pub fn activation_bytes(form: Form, k: usize, tokens: usize) -> usize {
    k.div_ceil(COLUMNS) * tokens * form.block_bytes()
}

/// Puts activations into their form, a range of tokens at a time, by as many threads as there are ranges.
pub struct Quantizer<'a> {
    form: Form,
    k: usize,
    tokens: usize,
    ptr: *mut u8,
    buf: PhantomData<&'a mut [u8]>,
}

// SAFETY: it is an exclusive borrow of bytes; that threads stay apart is the contract of `quantize`.
unsafe impl Send for Quantizer<'_> {}
// SAFETY: as above.
unsafe impl Sync for Quantizer<'_> {}

impl<'a> Quantizer<'a> {
    /// A form of `tokens` rows of `k` activations in `buf`, whose contents are what `buf` held until they are written.
    ///
    /// # Panics
    /// If `buf` is not aligned to 64 bytes or shorter than [`activation_bytes`], or `k` is not a whole number of
    /// blocks.
    pub fn new(form: Form, k: usize, tokens: usize, buf: &'a mut [u8]) -> Quantizer<'a> {
        assert!(buf.as_ptr().addr().is_multiple_of(64), "activations lie at multiples of 64 bytes");
        assert!(buf.len() >= activation_bytes(form, k, tokens), "buffer too short for the activations");
        assert!(k.is_multiple_of(form.granule()), "{k} activations are no whole number of blocks");
        Quantizer { form, k, tokens, ptr: buf.as_mut_ptr(), buf: PhantomData }
    }

    /// Converts the tokens of `range`; `x` holds all tokens, `k` activations each.
    ///
    /// # Panics
    /// If `x` is not `tokens * k` long or `range` reaches beyond the tokens.
    ///
    /// # Safety
    /// No other thread converts a token of `range` meanwhile.
    pub unsafe fn quantize(&self, isa: Isa, x: &[f32], range: Range<usize>) {
        assert_eq!(x.len(), self.tokens * self.k, "activations of another shape");
        assert!(range.end <= self.tokens, "tokens {range:?} of {}", self.tokens);
        for token in range {
            let row = &x[token * self.k..][..self.k];
            for (block, columns) in row.chunks(COLUMNS).enumerate() {
                let at = (block * self.tokens + token) * self.form.block_bytes();
                // SAFETY: `at` lies in the buffer by its length, aligned as block sizes are multiples of 64; the caller
                // keeps other threads off this token; every bit pattern is a valid block.
                unsafe {
                    let to = self.ptr.add(at);
                    match self.form {
                        Form::F32 => floats(columns, &mut *to.cast()),
                        Form::Q8x32 => codes32(isa, columns, &mut *to.cast()),
                        Form::Q8x256 => codes256(isa, columns, &mut *to.cast()),
                    }
                }
            }
        }
    }

    /// The finished form.
    pub fn finish(self) -> Activations<'a> {
        Activations { form: self.form, k: self.k, tokens: self.tokens, ptr: self.ptr, buf: PhantomData }
    }
}

/// Activations in the form a product needs.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    form: Form,
    k: usize,
    tokens: usize,
    ptr: *const u8,
    buf: PhantomData<&'a [u8]>,
}

// SAFETY: a shared borrow of bytes that nobody writes.
unsafe impl Send for Activations<'_> {}
// SAFETY: as above.
unsafe impl Sync for Activations<'_> {}

impl<'a> Activations<'a> {
    /// Converts `tokens` rows of `k` activations on this thread; see [`Quantizer::new`] for `buf`.
    pub fn quantize(isa: Isa, form: Form, k: usize, x: &[f32], tokens: usize, buf: &'a mut [u8]) -> Activations<'a> {
        let quantizer = Quantizer::new(form, k, tokens, buf);
        // SAFETY: no other thread has the quantizer.
        unsafe { quantizer.quantize(isa, x, 0..tokens) };
        quantizer.finish()
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn k(&self) -> usize {
        self.k
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The activations of a token as products see them.
    ///
    /// # Panics
    /// If there is no such token, or `row` has not `k` elements.
    pub fn decode(&self, token: usize, row: &mut [f32]) {
        assert!(token < self.tokens && row.len() == self.k, "activations of another shape");
        for (block, row) in row.chunks_mut(COLUMNS).enumerate() {
            let at = block * self.tokens + token;
            match self.form {
                Form::F32 => row.copy_from_slice(&self.floats()[at].x[..row.len()]),
                Form::Q8x32 => {
                    let codes = &self.codes32()[at];
                    row.iter_mut().zip(codes.q).enumerate().for_each(|(j, (x, q))| *x = codes.d[j / 32] * q as f32);
                }
                Form::Q8x256 => {
                    let codes = &self.codes256()[at];
                    row.iter_mut().zip(codes.q).for_each(|(x, q)| *x = codes.d * q as f32);
                }
            }
        }
    }

    /// Blocks of the F32 form, `[column block][token]`.
    pub(super) fn floats(&self) -> &'a [Floats] {
        self.blocks(Form::F32)
    }

    /// Blocks of the Q8x32 form, `[column block][token]`.
    pub(super) fn codes32(&self) -> &'a [Codes32] {
        self.blocks(Form::Q8x32)
    }

    /// Blocks of the Q8x256 form, `[column block][token]`.
    pub(super) fn codes256(&self) -> &'a [Codes256] {
        self.blocks(Form::Q8x256)
    }

    fn blocks<T>(&self, form: Form) -> &'a [T] {
        assert_eq!(self.form, form);
        debug_assert_eq!(size_of::<T>(), form.block_bytes());
        // SAFETY: the buffer holds that many blocks of this form, aligned; their fields are whole numbers and floats,
        // so that every bit pattern is valid; it is borrowed for 'a and no longer written.
        unsafe { std::slice::from_raw_parts(self.ptr.cast(), self.k.div_ceil(COLUMNS) * self.tokens) }
    }
}

fn floats(x: &[f32], to: &mut Floats) {
    to.x[..x.len()].copy_from_slice(x);
    to.x[x.len()..].fill(0.0);
}

fn codes32(isa: Isa, x: &[f32], to: &mut Codes32) {
    let mut sub = 0;
    for (x, q) in x.as_chunks::<32>().0.iter().zip(to.q.as_chunks_mut::<32>().0) {
        let (d, factor) = scale_of(largest(x));
        to.sum[sub] = codes(isa, x, factor, q);
        (to.d[sub], to.s[sub]) = (d, d * to.sum[sub] as f32);
        to.sum16[2 * sub] = q[..16].iter().map(|q| *q as i16).sum();
        to.sum16[2 * sub + 1] = to.sum[sub] as i16 - to.sum16[2 * sub];
        sub += 1;
    }
    to.q[32 * sub..].fill(0);
    to.d[sub..].fill(0.0);
    to.s[sub..].fill(0.0);
    to.sum[sub..].fill(0);
    to.sum16[2 * sub..].fill(0);
}

fn codes256(isa: Isa, x: &[f32], to: &mut Codes256) {
    let (d, factor) = scale_of(largest(x));
    to.d = d;
    for (sub, (x, q)) in x.as_chunks::<32>().0.iter().zip(to.q.as_chunks_mut::<32>().0).enumerate() {
        to.sum32[sub] = codes(isa, x, factor, q) as i16;
        to.sum16[2 * sub] = q[..16].iter().map(|q| *q as i16).sum();
        to.sum16[2 * sub + 1] = to.sum32[sub] - to.sum16[2 * sub];
    }
}

/// Bits of the largest magnitude. As whole numbers these order finite values, then infinity, then NaN.
fn largest(x: &[f32]) -> u32 {
    x.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0)
}

/// Codes of 32 activations and their sum: `x * factor` to the nearest whole number, halves to even.
fn codes(isa: Isa, x: &[f32; 32], factor: f32, q: &mut [i8; 32]) -> i32 {
    if factor == 0.0 {
        q.fill(0);
        return 0;
    }
    match isa.instructions() {
        // SAFETY: an `Isa` is the proof that the processor has its instructions, and each of these has AVX2.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 | Instructions::AvxVnni | Instructions::Avx512 | Instructions::Amx => unsafe {
            super::avx2::quantize::codes(x, factor, q)
        },
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon | Instructions::NeonDot | Instructions::NeonI8mm => {
            super::neon::quantize::codes(x, factor, q)
        }
        Instructions::Scalar => {
            for (q, x) in q.iter_mut().zip(x) {
                *q = (x * factor).round_ties_even() as i8;
            }
            q.iter().map(|q| *q as i32).sum()
        }
    }
}
