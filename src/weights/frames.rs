//! The memory of the engine: pages' frames under the budget. The only place in `weights` that touches raw memory.
//!
//! Who may touch a frame follows from its page's state, which the engine guards with one lock: while a page is loading,
//! each byte of its extent belongs to exactly one read request; once it is ready nobody writes to it, and it is not
//! evicted while it is in use. The functions of [`Window`] that reach
//! the bytes are unsafe: their callers promise that this is so.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sys::mapping::{AnonymousMapping, FileMapping, map_anonymous};
use crate::sys::pages::{self, HUGE};

/// Addresses and sizes of frames are multiples of this.
pub const GRANULE: u64 = 4096;

/// Page-aligned anonymous memory, zeroed, given back to the system when dropped. It takes no room before it is touched.
pub struct Memory {
    map: AnonymousMapping,
    /// Where in the mapping it begins.
    start: usize,
    len: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> io::Result<Memory> {
        let len = bytes.max(1);
        Ok(Memory { map: map_anonymous(len)?, start: 0, len })
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
}

/// Memory that frames lie in. Threads share it, so it lends no references: its bytes are reached by windows alone.
pub struct FrameMemory(Memory);

impl FrameMemory {
    /// `bytes` bytes, of which the first `used` are in use. It begins where a huge page can.
    pub fn new(bytes: usize, used: usize) -> io::Result<FrameMemory> {
        if bytes < HUGE {
            return Ok(FrameMemory(Memory::new(bytes)?));
        }
        // Addresses that are not used cost nothing.
        let map = map_anonymous(bytes + HUGE)?;
        let start = map.as_ptr().addr().wrapping_neg() & (HUGE - 1);
        let memory = FrameMemory(Memory { map, start, len: bytes });
        memory.use_huge_pages(used);
        Ok(memory)
    }

    /// Lets the system take huge pages for the first `used` bytes, as far as they lie wholly in there: what is beyond must
    /// not be touched with it.
    pub fn use_huge_pages(&self, used: usize) {
        let huge = used.min(self.0.len) & !(HUGE - 1);
        pages::advise_huge(self.0.base(), huge, true);
        let rest = self.0.map.len() - self.0.start - huge;
        // SAFETY: inside the mapping.
        pages::advise_huge(unsafe { self.0.base().add(huge) }, rest, false);
    }

    /// Bytes of it, in use or not.
    pub fn size(&self) -> usize {
        self.0.len
    }

    pub fn window(&self, offset: usize, len: usize) -> Window {
        Window { ptr: self.0.base(), len: self.0.len }.part(offset, len)
    }

    /// Gives a range in the middle back to the system, and keeps it from filling huge pages there again.
    fn give_back(&self, offset: usize, len: usize) {
        let (from, to) = (offset & !(HUGE - 1), (offset + len).next_multiple_of(HUGE).min(self.0.len));
        pages::advise_huge(self.window(from, to - from).ptr, to - from, false);
        self.discard(offset, len);
        // Of a huge page of which a part is used the rest stays the process's until the system is short of memory.
        // To call it cold splits it.
        for (from, to) in [(from, offset), (offset + len, to)] {
            if from < to {
                pages::advise_cold(self.window(from, to - from).ptr, to - from);
            }
        }
    }

    /// Gives the range back to the system; it reads as zeroes afterwards. Whole system pages inside it only.
    pub fn discard(&self, offset: usize, len: usize) {
        let range = self.window(offset, len);
        // SAFETY: the range lies in an anonymous mapping of our own. References to its bytes come from `Window::view` and
        // `Window::fill` alone, whose callers promise that the range is not evicted meanwhile.
        unsafe { pages::discard(range.ptr, len) };
    }
}

/// A page's frame among others in one piece of memory, so that huge pages reach over its ends.
pub struct Frame {
    memory: Arc<FrameMemory>,
    offset: usize,
    len: usize,
}

impl Frame {
    /// Frames of the given sizes, end to end.
    pub fn run(sizes: &[usize]) -> io::Result<Vec<Frame>> {
        let total = sizes.iter().sum();
        let memory = Arc::new(FrameMemory::new(total, total)?);
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
impl Plain for u64 {}

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
    pub fn of_mapping(map: &FileMapping, offset: usize, len: usize) -> Window {
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

    #[cfg(test)]
    pub fn address(&self) -> usize {
        self.ptr.addr().get()
    }

    /// Runs `read` on the bytes.
    ///
    /// # Safety
    /// The page of the window is loading, this read request alone covers these bytes, and their frame stays until it is
    /// done. The window is not one of a mapped file.
    pub(super) unsafe fn fill<R>(self, read: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: the bytes are mapped, and nobody else reaches them, as the caller promises.
        read(unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) })
    }

    /// The bytes of a page.
    ///
    /// # Safety
    /// The page is ready and held for all of `'a`, so that nobody fills its frame or gives it up.
    pub(super) unsafe fn view<'a>(self) -> &'a [u8] {
        // SAFETY: the bytes are mapped, and nobody writes to them, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

/// Brings a stretch of a mapped file into memory by reading one byte of every system page of it. The file's length is to be
/// checked just before.
pub(super) fn touch(map: &FileMapping, offset: usize, len: usize) {
    let bytes = &map[offset..][..len];
    for i in (0..len).step_by(GRANULE as usize) {
        std::hint::black_box(bytes[i]);
    }
}

/// Places pages in the ring: first fit from where the last one went, so that it fills and empties in one direction.
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
            // SAFETY: nobody else uses the frames.
            unsafe { window.fill(|bytes| bytes.fill(1 + i as u8)) };
        }
        assert!(windows.is_sorted_by(|a, b| a.ptr.as_ptr().wrapping_add(a.len) == b.ptr.as_ptr()));
        frames[1] = None;
        frames[2] = None;
        for (i, window) in windows.iter().enumerate() {
            let evicted = cfg!(target_os = "linux") && matches!(i, 1 | 2);
            let expected = if evicted { 0 } else { 1 + i as u8 };
            // SAFETY: as above; the other frames keep the mapping.
            assert!(unsafe { window.view() }.iter().all(|&byte| byte == expected), "frame {i}");
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
        for window in [before, frames[1].window(), after] {
            // SAFETY: nobody else uses the frames.
            unsafe { window.fill(|bytes| bytes.fill(1)) };
        }
        // SAFETY: these two stay to the end, and nobody writes to them any more.
        let [before, after] = unsafe { [before.view(), after.view()] };
        // The halves of the pages that the one in the middle shares.
        let shared = [before[HUGE..].as_ptr(), after.as_ptr()];
        if shared.map(is_part_of_larger_page) != [Some(true); 2] {
            return println!("skipped: there are no huge pages here, or only root may look at them");
        }
        frames.pop();
        assert_eq!(shared.map(is_part_of_larger_page), [Some(false); 2]);
        assert!(before.iter().chain(after).all(|&byte| byte == 1));
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
        let resident = |memory: &FrameMemory| {
            let granules = memory.0.len() / GRANULE as usize;
            let mut there = vec![0u8; granules];
            let start = memory.0.base().as_ptr().cast();
            // SAFETY: the range is the memory's own, and `there` has a byte for each page of it.
            assert_eq!(unsafe { libc::mincore(start, memory.0.len(), there.as_mut_ptr().cast()) }, 0);
            there.iter().map(|b| usize::from(b & 1)).collect::<Vec<_>>()
        };
        let used = 2 * HUGE + 5 * GRANULE as usize;
        let mut memory = FrameMemory::new(4 * HUGE, used).unwrap();
        assert_eq!(memory.0.bytes().as_ptr().addr() % HUGE, 0);
        memory.0.bytes_mut()[..used].fill(1);
        assert_eq!(resident(&memory).iter().sum::<usize>(), used / GRANULE as usize);
        // A smaller part is used from now on, and what it loses goes.
        memory.use_huge_pages(HUGE + 1);
        memory.discard(HUGE + GRANULE as usize, used - HUGE - GRANULE as usize);
        memory.0.bytes_mut()[HUGE] = 2;
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
