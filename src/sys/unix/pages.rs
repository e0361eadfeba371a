//! madvise(2), as every Unix has it.

use std::ptr::NonNull;

use crate::sys::pages::page_bytes;

/// Gives back the whole system pages inside a range: madvise refuses a start inside of a page, and takes the page of an
/// end along, with bytes of whoever is next.
///
/// # Safety
/// Losing the contents of the range, or getting those of its file, surprises nobody.
pub unsafe fn dont_need(start: NonNull<u8>, len: usize) {
    let page = page_bytes();
    let before = start.as_ptr().addr().wrapping_neg() & (page - 1);
    let len = len.saturating_sub(before) & !(page - 1);
    if len > 0 {
        let from = start.as_ptr().wrapping_add(before);
        // SAFETY: the caller's promise; an address that is not mapped is an error that changes nothing.
        unsafe { libc::madvise(from.cast(), len, libc::MADV_DONTNEED) };
    }
}

pub fn system_page() -> usize {
    // SAFETY: sysconf takes a number and gives one.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::map_anonymous;

    /// What madvise does with such ranges: nothing at all, or more than it was asked for.
    #[test]
    fn whole_pages_inside_a_range_are_given_back_and_no_byte_around_them() {
        let page = page_bytes();
        let mut map = map_anonymous(4 * page).unwrap();
        // Start and length in bytes, first and last page given back.
        for (start, len, from, to) in [
            (0, 4 * page, 0, 4),
            (1, 4 * page - 1, 1, 4),
            (page, 2 * page + 1, 1, 3),
            (page - 1, 2 * page + 2, 1, 3),
            (page + 1, page - 1, 2, 2),
            (page + 1, 5, 2, 2),
            (2 * page, page - 1, 2, 2),
            (7, 0, 0, 0),
        ] {
            map.fill(1);
            // SAFETY: the range lies in the mapping, and nothing borrows it.
            unsafe { dont_need(NonNull::from(&mut map[start..]).cast(), len) };
            let kept = |at: usize| !(from * page..to * page).contains(&at);
            let wrong =
                map.iter().enumerate().find(|&(at, &byte)| cfg!(target_os = "linux") && byte != u8::from(kept(at)));
            assert_eq!(wrong, None, "{len} bytes from {start}");
        }
    }
}
