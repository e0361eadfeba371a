//! Giving memory back. `MADV_DONTNEED` keeps the contents here, and `MADV_FREE` lets the process be charged for them until
//! memory is short: the range is mapped anew.

use std::ptr::NonNull;

/// Maps new, empty pages in place of the whole ones inside a range.
///
/// # Safety
/// The range lies in an anonymous mapping of the caller's own, and no reference to it lives.
pub unsafe fn renew(start: NonNull<u8>, len: usize) {
    let Some((start, len)) = crate::sys::pages::whole_pages(start, len) else { return };
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON;
    // SAFETY: the caller's promise; where the system refuses, the pages stay what they were.
    unsafe { libc::mmap(start.cast(), len, access, kind, -1, 0) };
}
