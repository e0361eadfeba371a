//! Sharing out the rows of a buffer among the threads of the pool.

use super::pool::Pool;
use super::{Isa, matmul};

/// Calls `work` with each row of `data` (rows of `row_len` elements) and its number, on the threads of the pool.
///
/// # Panics
/// If `data` is not whole rows.
pub fn for_rows<T: Send>(pool: &Pool, data: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    struct Base<T>(*mut T);
    // SAFETY: only an address; the rows it leads to are handed out once each.
    unsafe impl<T: Send> Sync for Base<T> {}
    assert!(row_len > 0 && data.len().is_multiple_of(row_len));
    let count = data.len() / row_len;
    let base = Base(data.as_mut_ptr());
    let base = &base;
    pool.for_ranges(count, 1, &|range| {
        for i in range {
            // SAFETY: row i lies in `data`, and the pool hands out each i once.
            let row = unsafe { std::slice::from_raw_parts_mut(base.0.add(i * row_len), row_len) };
            work(i, row);
        }
    });
}

/// Converts `tokens` rows of `k` activations to `form` in `buf` (see [`matmul::Quantizer::new`]), shared out by tokens.
pub fn quantize<'a>(
    pool: &Pool,
    isa: Isa,
    form: matmul::Form,
    k: usize,
    x: &[f32],
    tokens: usize,
    buf: &'a mut [u8],
) -> matmul::Activations<'a> {
    let quantizer = matmul::Quantizer::new(form, k, tokens, buf);
    let shared = &quantizer;
    // SAFETY: the pool hands out each token once.
    pool.for_ranges(tokens, 1, &|range| unsafe { shared.quantize(isa, x, range) });
    quantizer.finish()
}

/// The numbers in bytes, as many as there are whole ones.
///
/// # Panics
/// If the bytes do not begin where a number may.
pub fn numbers_mut(bytes: &mut [u8]) -> &mut [f32] {
    // SAFETY: every bit pattern is valid as a float and as bytes.
    let (before, numbers, _) = unsafe { bytes.align_to_mut::<f32>() };
    assert!(before.is_empty(), "numbers begin at multiples of four bytes");
    numbers
}

/// The bytes of numbers, for activations in other forms.
pub fn bytes_mut(numbers: &mut [f32]) -> &mut [u8] {
    // SAFETY: the same memory, borrowed as exclusively; every bit pattern is valid as a float and as bytes.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}
