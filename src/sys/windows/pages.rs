//! Memory: addresses are reserved, and hold something where memory has been committed. What is committed counts against the
//! limits of the system and of a job object, whether it was touched or not.

use std::io;
use std::ptr::{NonNull, null};
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::System::Memory::{
    GetLargePageMinimum, MEM_COMMIT, MEM_DECOMMIT, MEM_LARGE_PAGES, MEM_RELEASE, MEM_RESERVE, PAGE_READWRITE,
    VirtualAlloc, VirtualFree, VirtualUnlock,
};

/// What a page of the system holds, on every processor of Windows that Rust knows.
const PAGE: usize = 4096;

/// Readable and writable addresses of our own.
pub struct Pages {
    start: NonNull<u8>,
    len: usize,
    /// What was reserved by itself and is not released.
    regions: Mutex<Vec<Region>>,
    /// Some of the regions are large pages. Then all of them are committed from the start, and what is given back stays so.
    has_large: bool,
}

#[derive(Clone, Copy)]
struct Region {
    at: usize,
    len: usize,
    is_large: bool,
}

// SAFETY: addresses, of which this is the one owner; what lies there is reached by pointers of its users alone.
unsafe impl Send for Pages {}
// SAFETY: as above; the list of regions is behind a lock.
unsafe impl Sync for Pages {}

impl Pages {
    /// Zeroed memory, committed: a system that could not back all of it refuses now.
    pub fn new(len: usize) -> io::Result<Pages> {
        Pages::one(len, MEM_RESERVE | MEM_COMMIT)
    }

    /// Addresses alone, for [`Pages::commit`].
    pub fn reserve(len: usize) -> io::Result<Pages> {
        Pages::one(len, MEM_RESERVE)
    }

    fn one(len: usize, kind: u32) -> io::Result<Pages> {
        let start = allocate(null(), len, kind)?;
        let regions = Mutex::new(vec![Region { at: 0, len, is_large: false }]);
        Ok(Pages { start, len, regions, has_large: false })
    }

    /// Committed memory for parts of the given sizes, end to end, in large pages where one lies wholly in a part: a large
    /// page can only be released as a whole. `None`: the host has not enabled the privilege to lock memory
    /// (`SeLockMemoryPrivilege`) for its process, or large pages are not worth it, or cannot be had.
    pub fn with_large(sizes: &[usize]) -> Option<Pages> {
        // SAFETY: it takes nothing.
        let large = unsafe { GetLargePageMinimum() };
        (large > 0).then(|| Pages::of_parts(sizes, large, MEM_LARGE_PAGES)).flatten()
    }

    fn of_parts(sizes: &[usize], large: usize, kind: u32) -> Option<Pages> {
        let total = sizes.iter().sum::<usize>();
        let list = regions(sizes, large)?;
        // Addresses that were free a moment ago: who takes some of them meanwhile makes this fail.
        let free = Pages::reserve(total + large).ok()?;
        let offset = free.start.as_ptr().addr().wrapping_neg() % large;
        let start = NonNull::new(free.start.as_ptr().wrapping_add(offset))?;
        drop(free);
        let mut there = Pages { start, len: total, regions: Mutex::new(Vec::new()), has_large: true };
        let done = there.regions.get_mut().unwrap_or_else(PoisonError::into_inner);
        done.try_reserve_exact(list.len()).ok()?;
        for region in list {
            let at = start.as_ptr().wrapping_add(region.at).cast();
            let plain = MEM_RESERVE | MEM_COMMIT;
            let first = allocate(at, region.len, if region.is_large { plain | kind } else { plain });
            let (kept, is_large) = match first {
                Ok(start) => (start, region.is_large),
                // Without the privilege none is granted. With it, memory may have no more that is whole.
                Err(_) if region.is_large && done.iter().any(|r| r.is_large) => {
                    (allocate(at, region.len, plain).ok()?, false)
                }
                Err(_) => return None,
            };
            debug_assert_eq!(kept.as_ptr().addr(), at.addr());
            done.push(Region { is_large, ..region });
        }
        Some(there)
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Sees to it that there is memory at a range of addresses. What is there already does not change.
    pub fn commit(&self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        if self.has_large || len == 0 {
            return Ok(());
        }
        allocate(self.start.as_ptr().wrapping_add(offset).cast(), len, MEM_COMMIT).map(drop)
    }

    /// Gives memory back: whole pages inside the range only. There is nothing at these addresses before they are committed
    /// again.
    ///
    /// # Safety
    /// No reference to the range lives, and it is in use by nobody else.
    pub unsafe fn decommit(&self, offset: usize, len: usize) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len));
        let (from, to) = (offset.next_multiple_of(PAGE), (offset + len) & !(PAGE - 1));
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        regions.retain(|region| {
            let (first, last) = (region.at.max(from), (region.at + region.len).min(to));
            if first >= last {
                return true;
            }
            let is_whole = last - first == region.len;
            if region.is_large && !is_whole {
                return true;
            }
            // SAFETY: addresses of our own that nothing refers to, by the caller's promise; a region is released by its start.
            unsafe {
                let at = self.start.as_ptr().wrapping_add(first).cast();
                match region.is_large {
                    true => VirtualFree(at, 0, MEM_RELEASE),
                    false => VirtualFree(at, last - first, MEM_DECOMMIT),
                };
            }
            !region.is_large
        });
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for region in self.regions.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // SAFETY: reserved by itself, not released before, and nothing refers to it any more.
            unsafe { VirtualFree(self.start.as_ptr().wrapping_add(region.at).cast(), 0, MEM_RELEASE) };
        }
    }
}

fn allocate(at: *const std::ffi::c_void, len: usize, kind: u32) -> io::Result<NonNull<u8>> {
    // SAFETY: new addresses, or those of a reservation of the caller's own.
    let start = unsafe { VirtualAlloc(at, len, kind, PAGE_READWRITE) };
    NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)
}

/// Where large pages go, and what lies between. `None`: no part holds one.
fn regions(sizes: &[usize], large: usize) -> Option<Vec<Region>> {
    let mut list: Vec<Region> = Vec::new();
    // What is not in a region yet begins here.
    let (mut rest, mut end) = (0, 0usize);
    for size in sizes {
        let (first, last) = (end.next_multiple_of(large), (end + size) / large * large);
        list.try_reserve(last.saturating_sub(first) / large + 2).ok()?;
        if first < last {
            if rest < first {
                list.push(Region { at: rest, len: first - rest, is_large: false });
            }
            list.extend((first..last).step_by(large).map(|at| Region { at, len: large, is_large: true }));
            rest = last;
        }
        end += size;
    }
    if rest < end {
        list.push(Region { at: rest, len: end - rest, is_large: false });
    }
    list.iter().any(|region| region.is_large).then_some(list)
}

/// Takes a range of a mapped file out of the process's memory: that is what unlocking does with what was never locked.
pub fn forget(range: &[u8]) {
    // SAFETY: the range is mapped; contents do not change.
    unsafe { VirtualUnlock(range.as_ptr().cast(), range.len()) };
}

#[cfg(test)]
mod tests {
    use windows_sys::Win32::System::Memory::{MEMORY_BASIC_INFORMATION, VirtualQuery};

    use super::*;

    /// A 64 KiB unit is the least that can be reserved at an address, and stands for a large page.
    const UNIT: usize = 1 << 16;

    /// Whether there is memory at an offset.
    fn is_committed(pages: &Pages, offset: usize) -> bool {
        let mut info = MEMORY_BASIC_INFORMATION::default();
        let at = pages.as_ptr().wrapping_add(offset).cast();
        // SAFETY: any address may be asked about, and the structure is as large as is said.
        assert_ne!(unsafe { VirtualQuery(at, &mut info, size_of::<MEMORY_BASIC_INFORMATION>()) }, 0);
        info.State == MEM_COMMIT
    }

    fn map_of(pages: &Pages) -> Vec<bool> {
        (0..pages.len()).step_by(PAGE).map(|offset| is_committed(pages, offset)).collect()
    }

    #[test]
    fn memory_is_there_where_it_is_committed_and_gone_where_it_was_given_back() {
        let pages = Pages::reserve(8 * PAGE).unwrap();
        assert_eq!(map_of(&pages), [false; 8]);
        pages.commit(PAGE, 3 * PAGE).unwrap();
        assert_eq!(map_of(&pages), [false, true, true, true, false, false, false, false]);
        let at = |offset| pages.as_mut_ptr().wrapping_add(offset);
        // SAFETY: committed above.
        unsafe { at(2 * PAGE).write_bytes(7, 2 * PAGE) };
        // Committed once more, it keeps what is there.
        pages.commit(2 * PAGE, 3 * PAGE).unwrap();
        // SAFETY: committed; nothing refers to what is given back.
        unsafe {
            assert_eq!(at(2 * PAGE).read(), 7);
            pages.decommit(2 * PAGE + 1, 2 * PAGE);
        }
        assert_eq!(map_of(&pages), [false, true, true, false, true, false, false, false]);
        pages.commit(3 * PAGE, PAGE).unwrap();
        // SAFETY: committed again.
        assert_eq!(unsafe { (at(3 * PAGE - 1).read(), at(3 * PAGE).read()) }, (7, 0));
    }

    #[test]
    fn what_the_system_cannot_back_is_refused_when_committed_not_when_reserved() {
        let pages = Pages::reserve(1 << 44).unwrap();
        // Not under wine, where the host's system backs memory when it is touched.
        if pages.commit(0, 1 << 44).is_ok() {
            println!("skipped: memory that nothing backs is committed here");
        }
        assert!(Pages::new(1 << 50).is_err());
    }

    #[test]
    fn large_pages_lie_wholly_in_one_part_and_the_rest_in_small_ones() {
        let places = |sizes: &[usize]| {
            let list = regions(sizes, 100)?;
            assert!(list.windows(2).all(|pair| pair[0].at + pair[0].len == pair[1].at));
            Some(list.iter().map(|region| (region.at, region.len, region.is_large)).collect::<Vec<_>>())
        };
        assert_eq!(places(&[99, 99]), None);
        assert_eq!(places(&[50, 49, 90]), None);
        assert_eq!(places(&[100]).unwrap(), [(0, 100, true)]);
        let expected = [(0, 100, true), (100, 100, false), (200, 100, true), (300, 100, true), (400, 30, false)];
        assert_eq!(places(&[150, 260, 20]).unwrap(), expected);
    }

    #[test]
    fn a_part_in_large_pages_is_given_back_alone_and_a_large_page_only_as_a_whole() {
        let sizes = [UNIT + PAGE, 3 * UNIT, 2 * UNIT];
        let pages = Pages::of_parts(&sizes, UNIT, 0).unwrap();
        assert_eq!(pages.as_ptr().addr() % UNIT, 0);
        // SAFETY: all of it is committed, and nothing refers to it.
        unsafe { pages.as_mut_ptr().write_bytes(1, pages.len()) };
        assert_eq!(pages.regions.lock().unwrap().iter().filter(|region| region.is_large).count(), 1 + 2 + 1);
        let before = map_of(&pages);
        assert!(before.iter().all(|&there| there));
        // SAFETY: nothing refers to the memory.
        unsafe { pages.decommit(sizes[0], sizes[1]) };
        let (from, to) = (sizes[0] / PAGE, (sizes[0] + sizes[1]) / PAGE);
        let expected: Vec<bool> = (0..before.len()).map(|page| !(from..to).contains(&page)).collect();
        assert_eq!(map_of(&pages), expected);
        // SAFETY: as above; the first part's own large page, of which half stays.
        unsafe { pages.decommit(0, UNIT / 2) };
        assert_eq!(map_of(&pages), expected);
        // SAFETY: what is committed may be read.
        assert_eq!(unsafe { pages.as_ptr().wrapping_add(sizes[0] + sizes[1]).read() }, 1);
    }
}
