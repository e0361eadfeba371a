//! madvise(2): advice of Linux alone. None of it changes contents, and a range that is not mapped is an error without
//! effect: any address may be given.

use std::ptr::NonNull;

pub fn advise_huge(start: NonNull<u8>, len: usize, wanted: bool) {
    advise(start, len, if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
}

pub fn advise_cold(start: NonNull<u8>, len: usize) {
    advise(start, len, libc::MADV_COLD);
}

fn advise(start: NonNull<u8>, len: usize, advice: libc::c_int) {
    if len > 0 {
        // SAFETY: both callers give advice that changes no contents.
        unsafe { libc::madvise(start.as_ptr().cast(), len, advice) };
    }
}
