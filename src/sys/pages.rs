//! Advice on pages of memory: huge pages, and giving memory back.

use std::ptr::NonNull;
use std::sync::OnceLock;

use super::mapping::{FileMapping, RawMapping};

/// What a page of the system holds, a power of two: 4 KiB, on ARM 16 or 64 too. Memory is mapped, and goes back to the
/// system, in whole ones.
pub fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        #[cfg(unix)]
        return super::unix::pages::system_page();
        #[cfg(not(unix))]
        return 4096;
    })
}

/// What a huge page of the system holds, on processors with small pages of 4 KiB. Direct reads into huge pages are twice as
/// fast here as into small ones, and cost a fifth of the processor's time: the device is given one address in place of 512.
pub const HUGE: usize = 2 << 20;

/// The whole pages of the system inside a range: calls for parts of one are refused, or take bytes of whoever is next along.
#[cfg(unix)]
pub(super) fn whole_pages(start: NonNull<u8>, len: usize) -> Option<(*mut u8, usize)> {
    let page = page_bytes();
    let before = start.as_ptr().addr().wrapping_neg() & (page - 1);
    let len = len.saturating_sub(before) & !(page - 1);
    (len > 0).then(|| (start.as_ptr().wrapping_add(before), len))
}

/// Lets the system back a range with huge pages, or forbids it. Contents do not change. A system that does not take the
/// advice goes on with small pages.
pub fn advise_huge(start: NonNull<u8>, len: usize, wanted: bool) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    super::linux::pages::advise_huge(start, len, wanted);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (start, len, wanted);
}

/// Says that a range will not be needed soon, which also splits a huge page of which it is a part (Linux 5.4). Contents do
/// not change.
pub fn advise_cold(start: NonNull<u8>, len: usize) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    super::linux::pages::advise_cold(start, len);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (start, len);
}

/// Gives a range of anonymous memory back to the system, where the system takes it at once: then it reads as zeroes
/// afterwards; on Windows not before it is committed again. Whole system pages inside the range only.
///
/// # Safety
/// No reference to the range lives, and nothing else is in it.
pub unsafe fn discard(map: &RawMapping, offset: usize, len: usize) {
    assert!(offset.checked_add(len).is_some_and(|end| end <= map.len()));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // SAFETY: the caller's promise; the range lies in the mapping, which is not at address zero.
    unsafe {
        super::unix::pages::dont_need(NonNull::new_unchecked(map.as_mut_ptr().add(offset)), len)
    };
    #[cfg(target_vendor = "apple")]
    // SAFETY: the caller's promise; the range lies in the mapping, which is not at address zero.
    unsafe {
        super::apple::pages::renew(NonNull::new_unchecked(map.as_mut_ptr().add(offset)), len)
    };
    #[cfg(windows)]
    // SAFETY: the caller's promise.
    unsafe {
        map.decommit(offset, len)
    };
}

/// Says that a range of a mapped file is not needed for now: it leaves this process's memory, and comes back from the
/// file when it is touched again.
pub fn forget_file_range(map: &FileMapping, offset: usize, len: usize) {
    let range = &map[offset..][..len];
    #[cfg(unix)]
    // SAFETY: the mapping is of a file and for reading only, so its pages are clean.
    unsafe {
        super::unix::pages::dont_need(NonNull::from(range).cast(), len)
    };
    #[cfg(windows)]
    super::windows::pages::forget(range);
    #[cfg(not(any(unix, windows)))]
    let _ = range;
}
