//! The memory of the engine: pages' frames under the budget. The only place in `weights` that touches raw memory.
//!
//! Who may touch a frame follows from its page's state, which the engine guards with one lock: while a page is loading,
//! each byte of its span belongs to exactly one read request; once it is ready nobody writes to it, and it is not given
//! up while somebody holds it. [`Window`] and [`PageView`] are made only by the engine, under those rules.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

/// Addresses and sizes of frames are multiples of this.
pub const GRANULE: u64 = 4096;

/// What a huge page of the system holds, on processors with small pages of 4 KiB. Direct reads into huge pages are twice as
/// fast here as into small ones, and cost a fifth of the processor's time: the device is given one address in place of 512.
const HUGE: usize = 2 << 20;

/// Page-aligned anonymous memory, zeroed, given back to the system when dropped. It takes no room before it is touched.
pub struct Memory {
    map: MmapMut,
    /// Where in the mapping it begins.
    start: usize,
    len: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> io::Result<Memory> {
        let len = bytes.max(1);
        Ok(Memory { map: MmapMut::map_anon(len)?, start: 0, len })
    }

    /// Memory for frames, of which the first `used` bytes are in use: it begins where a huge page can.
    pub fn for_frames(bytes: usize, used: usize) -> io::Result<Memory> {
        if bytes < HUGE {
            return Memory::new(bytes);
        }
        // Addresses that are not used cost nothing.
        let map = MmapMut::map_anon(bytes + HUGE)?;
        let start = map.as_ptr().addr().wrapping_neg() & (HUGE - 1);
        let memory = Memory { map, start, len: bytes };
        memory.use_huge_pages(used);
        Ok(memory)
    }

    /// Lets the system take huge pages for the first `used` bytes, as far as they lie wholly in there: what is beyond must
    /// not be touched with it.
    pub fn use_huge_pages(&self, used: usize) {
        #[cfg(target_os = "linux")]
        {
            let huge = used.min(self.len) & !(HUGE - 1);
            let base = self.base().as_ptr();
            let rest = self.map.len() - self.start - huge;
            // SAFETY: both ranges lie in a mapping of our own, and the advice changes no contents. A system that does not
            // take it goes on with small pages.
            unsafe {
                if huge > 0 {
                    libc::madvise(base.cast(), huge, libc::MADV_HUGEPAGE);
                }
                libc::madvise(base.add(huge).cast(), rest, libc::MADV_NOHUGEPAGE);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = used;
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..][..self.len]
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map[self.start..][..self.len]
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The memory as numbers; anonymous pages are aligned for any of them.
    pub fn as_slice_mut<T: Plain>(&mut self) -> &mut [T] {
        let n = self.len / size_of::<T>();
        // SAFETY: the memory is page-aligned, lives as long as the borrow, and `Plain` types accept every bit pattern.
        unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr().cast(), n) }
    }

    pub fn as_slice<T: Plain>(&self) -> &[T] {
        let n = self.len / size_of::<T>();
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr().cast(), n) }
    }

    fn base(&self) -> NonNull<u8> {
        let start = self.map.as_ptr().cast_mut();
        // SAFETY: inside the mapping.
        NonNull::new(unsafe { start.add(self.start) }).expect("a mapping is not at address zero")
    }

    pub fn window(&self, offset: usize, len: usize) -> Window {
        assert!(offset + len <= self.len);
        // SAFETY: inside the mapping, as just checked.
        Window { ptr: unsafe { self.base().add(offset) }, len }
    }

    /// Gives a range in the middle back to the system, and keeps it from filling huge pages there again.
    fn give_back(&self, offset: usize, len: usize) {
        #[cfg(target_os = "linux")]
        {
            let (from, to) = (offset & !(HUGE - 1), (offset + len).next_multiple_of(HUGE).min(self.len));
            // SAFETY: the range lies in a mapping of our own, and the advice changes no contents.
            unsafe { libc::madvise(self.base().as_ptr().add(from).cast(), to - from, libc::MADV_NOHUGEPAGE) };
            self.discard(offset, len);
            // Of a huge page of which a part is used the rest stays the process's until the system is short of memory.
            // To call it cold splits it (Linux 5.4).
            for (from, to) in [(from, offset), (offset + len, to)] {
                if from < to {
                    // SAFETY: as above.
                    unsafe { libc::madvise(self.base().as_ptr().add(from).cast(), to - from, libc::MADV_COLD) };
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        self.discard(offset, len);
    }

    /// Gives the range back to the system; it reads as zeroes afterwards. Whole system pages inside it only.
    pub fn discard(&self, offset: usize, len: usize) {
        #[cfg(target_os = "linux")]
        {
            let range = self.window(offset, len);
            // SAFETY: the range lies in an anonymous mapping of our own that nobody reads: its pages are absent.
            unsafe { libc::madvise(range.ptr.as_ptr().cast(), len, libc::MADV_DONTNEED) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }
}

/// A page's frame among others in one piece of memory, so that huge pages reach over its ends.
pub struct Frame {
    memory: Arc<Memory>,
    offset: usize,
    len: usize,
}

impl Frame {
    /// Frames of the given sizes, end to end.
    pub fn run(sizes: &[usize]) -> io::Result<Vec<Frame>> {
        let total = sizes.iter().sum();
        let memory = Arc::new(Memory::for_frames(total, total)?);
        let mut offset = 0;
        let frame = |&len: &usize| {
            offset += len;
            Frame { memory: memory.clone(), offset: offset - len, len }
        };
        Ok(sizes.iter().map(frame).collect())
    }

    pub fn window(&self) -> Window {
        self.memory.window(self.offset, self.len)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // The last one takes the mapping along.
        if Arc::strong_count(&self.memory) > 1 {
            self.memory.give_back(self.offset, self.len);
        }
    }
}

/// Numbers that any bytes make.
pub trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u16 {}
impl Plain for u8 {}

/// A stretch of a frame or of a mapping. See the module's rules.
#[derive(Clone, Copy)]
pub struct Window {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a window is only an address; the rules of the module say who may use it.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// A stretch of a mapped file.
    pub fn of_mapping(map: &Mmap, offset: usize, len: usize) -> Window {
        let bytes = &map[offset..offset + len];
        Window { ptr: NonNull::from(bytes).cast(), len }
    }

    pub fn part(self, offset: usize, len: usize) -> Window {
        assert!(offset + len <= self.len);
        // SAFETY: inside the window, as just checked.
        Window { ptr: unsafe { self.ptr.add(offset) }, len }
    }

    pub fn size(&self) -> usize {
        self.len
    }

    /// Runs `read` on the bytes. To be called only by the owner of a read request of a loading page.
    pub(super) fn fill<R>(self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: the page is loading and this request alone covers these bytes; the frame stays until it is done.
        read(unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) })
    }

    /// Brings a mapped stretch into memory by reading one byte of every system page of it.
    pub(super) fn touch(self) {
        // SAFETY: the mapping lives as long as the engine and is only read; the file's length was checked just before.
        let bytes = unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) };
        for i in (0..self.len).step_by(GRANULE as usize) {
            std::hint::black_box(bytes[i]);
        }
    }

    /// Tells the system that a mapped stretch is not needed for now: it leaves this process's memory.
    pub(super) fn forget(self) {
        // SAFETY: a clean file mapping: the bytes come back from the file when they are touched again.
        #[cfg(unix)]
        unsafe {
            libc::madvise(self.ptr.as_ptr().cast(), self.len, libc::MADV_DONTNEED)
        };
    }

    /// The bytes of a page that is ready and held.
    pub(super) fn view<'a>(self) -> &'a [u8] {
        // SAFETY: the page is ready and held for 'a, which its holder (`PageGuard`) bounds: nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

/// Maps a whole file for reading.
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file may change under the mapping; the bytes are only ever read as numbers, any of which is valid, and
    // a shrinking file is checked for before use. Hosts choose this mode knowing that.
    unsafe { Mmap::map(file) }
}

/// A second descriptor of the file that leaves the page cache alone.
#[cfg(target_os = "macos")]
pub fn without_cache(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    let file = file.try_clone()?;
    // SAFETY: a plain flag on a descriptor of our own.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, 1) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Places pages in the ring: first fit from where the last one went, so that it fills and empties like a circle.
pub struct Ring {
    /// Allocations end at or below this.
    limit: u64,
    /// Live stretches by offset: (offset, length).
    live: Vec<(u64, u64)>,
    next: u64,
}

impl Ring {
    pub fn new(limit: u64) -> Ring {
        Ring { limit, live: Vec::new(), next: 0 }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Changes the size. Live stretches above a smaller limit stay until they are freed.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
        if self.next >= limit {
            self.next = 0;
        }
    }

    /// How far memory is in use: the limit, or the end of a stretch that outlives a shrinking.
    pub fn extent(&self) -> u64 {
        self.limit.max(self.live.last().map_or(0, |&(o, n)| o + n))
    }

    /// Finds room for `bytes` at or above `from`.
    pub fn allocate(&mut self, bytes: u64, from: u64) -> Option<u64> {
        let start = self.next.max(from);
        let offset = self.fit(bytes, start, self.limit).or_else(|| self.fit(bytes, from, self.limit))?;
        let at = self.live.partition_point(|&(o, _)| o < offset);
        self.live.insert(at, (offset, bytes));
        self.next = offset + bytes;
        Some(offset)
    }

    fn fit(&self, bytes: u64, from: u64, to: u64) -> Option<u64> {
        let mut at = from;
        for &(o, n) in &self.live {
            if o + n <= at {
                continue;
            }
            if o >= at + bytes {
                break;
            }
            at = o + n;
        }
        (at + bytes <= to).then_some(at)
    }

    pub fn free(&mut self, offset: u64) {
        if let Ok(i) = self.live.binary_search_by_key(&offset, |&(o, _)| o) {
            self.live.remove(i);
        }
    }

    #[cfg(test)]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.fit(bytes, 0, self.limit).is_some()
    }

    #[cfg(test)]
    pub fn live_bytes(&self) -> u64 {
        self.live.iter().map(|&(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_run_lie_end_to_end_and_one_given_up_leaves_the_others() {
        let sizes = [3 << 20, 8192, 5 << 20, 4096];
        let mut frames: Vec<Option<Frame>> = Frame::run(&sizes).unwrap().into_iter().map(Some).collect();
        let windows: Vec<Window> = frames.iter().flatten().map(Frame::window).collect();
        for (i, window) in windows.iter().enumerate() {
            assert_eq!(window.size(), sizes[i]);
            window.fill(|bytes| bytes.fill(1 + i as u8));
        }
        assert!(windows.is_sorted_by(|a, b| a.ptr.as_ptr().wrapping_add(a.len) == b.ptr.as_ptr()));
        frames[1] = None;
        frames[2] = None;
        for (i, window) in windows.iter().enumerate() {
            let evicted = cfg!(target_os = "linux") && matches!(i, 1 | 2);
            let expected = if evicted { 0 } else { 1 + i as u8 };
            assert!(window.view().iter().all(|&byte| byte == expected), "frame {i}");
        }
    }

    /// Whether the system page at `address` is part of a larger one, where the system tells: it tells root.
    #[cfg(target_os = "linux")]
    fn is_part_of_larger_page(address: *const u8) -> Option<bool> {
        use std::os::unix::fs::FileExt;
        let number = |file, index: u64| {
            let mut bytes = [0; 8];
            std::fs::File::open(file).ok()?.read_exact_at(&mut bytes, 8 * index).ok()?;
            Some(u64::from_ne_bytes(bytes))
        };
        // The frame's number is zero for who may not know it; 15 and 16 are the flags of compound pages.
        let frame = number("/proc/self/pagemap", address.addr() as u64 / 4096)? & ((1 << 55) - 1);
        Some(number("/proc/kpageflags", (frame != 0).then_some(frame)?)? & (3 << 15) != 0)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_huge_page_of_which_a_frame_gave_up_its_part_is_split() {
        let mut frames = Frame::run(&[HUGE + HUGE / 2, 2 * HUGE, HUGE + HUGE / 2]).unwrap();
        let last = frames.pop().unwrap();
        let (before, after) = (frames[0].window(), last.window());
        [before, frames[1].window(), after].into_iter().for_each(|window| window.fill(|bytes| bytes.fill(1)));
        // The halves of the pages that the one in the middle shares.
        let shared = [before.view()[HUGE..].as_ptr(), after.view().as_ptr()];
        if shared.map(is_part_of_larger_page) != [Some(true); 2] {
            return println!("skipped: there are no huge pages here, or only root may look at them");
        }
        frames.pop();
        assert_eq!(shared.map(is_part_of_larger_page), [Some(false); 2]);
        assert!(before.view().iter().chain(after.view()).all(|&byte| byte == 1));
    }

    #[test]
    fn ring_stretches_never_overlap_and_stay_inside() {
        let mut ring = Ring::new(100 * GRANULE);
        let mut live: Vec<(u64, u64)> = Vec::new();
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for _ in 0..10_000 {
            let bytes = (1 + next() as u64 % 30) * GRANULE;
            if let Some(o) = ring.allocate(bytes, 0) {
                assert!(o + bytes <= 100 * GRANULE);
                assert!(live.iter().all(|&(p, n)| o + bytes <= p || p + n <= o));
                live.push((o, bytes));
            } else {
                assert!(!live.is_empty());
            }
            if live.len() > 4 || next() % 2 == 0 {
                let (o, _) = live.swap_remove(next() % live.len());
                ring.free(o);
            }
            assert_eq!(ring.live_bytes(), live.iter().map(|l| l.1).sum::<u64>());
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn huge_pages_never_reach_beyond_what_is_used() {
        let resident = |memory: &Memory| {
            let granules = memory.len() / GRANULE as usize;
            let mut there = vec![0u8; granules];
            // SAFETY: the range is the memory's own, and `there` has a byte for each page of it.
            assert_eq!(
                unsafe { libc::mincore(memory.base().as_ptr().cast(), memory.len(), there.as_mut_ptr().cast()) },
                0
            );
            there.iter().map(|b| usize::from(b & 1)).collect::<Vec<_>>()
        };
        let used = 2 * HUGE + 5 * GRANULE as usize;
        let mut memory = Memory::for_frames(4 * HUGE, used).unwrap();
        assert_eq!(memory.bytes().as_ptr().addr() % HUGE, 0);
        memory.bytes_mut()[..used].fill(1);
        assert_eq!(resident(&memory).iter().sum::<usize>(), used / GRANULE as usize);
        // A smaller part is used from now on, and what it loses goes.
        memory.use_huge_pages(HUGE + 1);
        memory.discard(HUGE + GRANULE as usize, used - HUGE - GRANULE as usize);
        memory.bytes_mut()[HUGE] = 2;
        assert_eq!(resident(&memory).iter().sum::<usize>(), HUGE / GRANULE as usize + 1);
    }

    #[test]
    fn with_one_page_in_use_anywhere_a_ring_of_three_has_room_for_the_largest() {
        for used in 1..=10u64 {
            for at in 0..=(30 - used) {
                let mut ring = Ring::new(30 * GRANULE);
                ring.next = at * GRANULE;
                ring.allocate(used * GRANULE, 0).unwrap();
                assert!(ring.allocate(10 * GRANULE, 0).is_some(), "{used} at {at}");
            }
        }
    }

    #[test]
    fn a_shrunk_ring_counts_what_still_lives_above_its_limit() {
        let mut ring = Ring::new(10 * GRANULE);
        let a = ring.allocate(4 * GRANULE, 0).unwrap();
        let b = ring.allocate(4 * GRANULE, 0).unwrap();
        ring.set_limit(4 * GRANULE);
        assert_eq!(ring.extent(), 8 * GRANULE);
        ring.free(b);
        assert_eq!(ring.extent(), 4 * GRANULE);
        assert!(ring.allocate(GRANULE, 0).is_none());
        ring.free(a);
        assert!(ring.allocate(4 * GRANULE, 0).is_some());
    }
}
