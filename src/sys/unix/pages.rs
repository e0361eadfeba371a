//! madvise(2), as every Unix has it.

use std::ptr::NonNull;

/// # Safety
/// Losing the contents of the range, or getting those of its file, surprises nobody.
pub unsafe fn dont_need(start: NonNull<u8>, len: usize) {
    // SAFETY: the caller's promise; an address that is not mapped is an error that changes nothing.
    unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_DONTNEED) };
}
