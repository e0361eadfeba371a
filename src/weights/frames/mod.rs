//! The memory of the engine: pages' frames under the budget. The only place in `weights` that touches raw memory.
//!
//! A [`Frame`] is the one handle of a stretch of memory. Its owner lends the stretch either in [`Piece`]s, each for one
//! borrower to fill, or in [`View`]s, to be read by any number. The borrowers are counted: to lend in one way what is
//! still lent in the other, or to take back what is lent, panics. So no caller has a rule to keep.

mod ring;
mod shared;

use std::fmt::Display;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::file::DIRECT_ALIGNMENT;
use crate::sys::mapping::{FileMapping, LAZY, RawMapping, commit, map_anonymous, map_in_large_pages, reserve};
use crate::sys::pages::{self, HUGE};

pub use ring::Ring;
pub use shared::SharedFrame;

/// Addresses and sizes of frames are multiples of this: what direct reads ask for, and whole pages of the system, or a frame
/// that is given back would keep parts of its first and last ones.
pub fn granule() -> u64 {
    (pages::page_bytes() as u64).max(DIRECT_ALIGNMENT)
}

/// Page-aligned anonymous memory, zeroed, given back to the system when dropped. It takes no room before it is touched.
pub struct Memory {
    map: RawMapping,
    /// Where in the mapping it begins.
    start: usize,
    len: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> io::Result<Memory> {
        let len = bytes.max(1);
        Ok(Memory { map: map_anonymous(len)?.into(), start: 0, len })
    }

    /// The same for a library's error: `what` it is for comes into the message.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`, with the figure and what the system said.
    pub fn of(bytes: u64, what: impl Display) -> Result<Memory> {
        let memory =
            usize::try_from(bytes).map_err(|_| io::Error::other("more than there are addresses")).and_then(Memory::new);
        memory.map_err(|e| Error::out_of_memory(format!("{bytes} bytes for {what}: {e}")))
    }

    /// What memory of so many bytes takes at most: it is whole pages of the system.
    pub fn taken_by(bytes: u64) -> u64 {
        bytes.saturating_add(pages::page_bytes() as u64)
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_slice_mut()
    }

    pub fn bytes(&self) -> &[u8] {
        self.as_slice()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The memory as numbers.
    pub fn as_slice_mut<T: Plain>(&mut self) -> &mut [T] {
        let n = self.len / size_of::<T>();
        // SAFETY: the mapping is readable and writable, begins at a system page, which is aligned for any number, and is
        // borrowed as long as the result; `T` accepts every bit pattern.
        unsafe { std::slice::from_raw_parts_mut(self.at(0).as_ptr().cast(), n) }
    }

    /// The memory as numbers.
    pub fn as_slice<T: Plain>(&self) -> &[T] {
        let n = self.len / size_of::<T>();
        // SAFETY: as for `as_slice_mut`; while this borrow lives nobody writes, as writing takes an exclusive one.
        unsafe { std::slice::from_raw_parts(self.at(0).as_ptr().cast(), n) }
    }

    /// The address of a byte, or of the end.
    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.len);
        // SAFETY: the mapping holds `start + len` bytes.
        let address = unsafe { self.map.as_mut_ptr().add(self.start + offset) };
        NonNull::new(address).expect("a mapping is not at address zero")
    }
}

/// Numbers that any bytes make.
///
/// # Safety
/// The type has no padding, accepts every bit pattern, and needs no more alignment than a system page has.
pub unsafe trait Plain: Copy {}
// SAFETY: a single: every bit pattern is a number, an infinity or a NaN.
unsafe impl Plain for f32 {}
// SAFETY: a whole number.
unsafe impl Plain for u16 {}
// SAFETY: a whole number.
unsafe impl Plain for u64 {}
// SAFETY: a byte.
unsafe impl Plain for u8 {}

/// Memory that frames lie in.
pub struct FrameMemory(Memory);

impl FrameMemory {
    /// `bytes` bytes, of which the first `used` are in use. It begins where a huge page can.
    pub fn new(bytes: usize, used: usize) -> io::Result<FrameMemory> {
        if bytes < HUGE || !LAZY {
            return Ok(FrameMemory(Memory::new(bytes)?));
        }
        // Addresses that are not used cost nothing.
        let map = reserve(bytes + HUGE)?;
        let start = map.as_ptr().addr().wrapping_neg() & (HUGE - 1);
        commit(&map, start, used.min(bytes))?;
        let memory = FrameMemory(Memory { map, start, len: bytes });
        memory.use_huge_pages(used);
        Ok(memory)
    }

    /// Lets the system take huge pages for the first `used` bytes, as far as they lie wholly in there: what is beyond must
    /// not be touched with it.
    pub fn use_huge_pages(&self, used: usize) {
        let huge = used.min(self.0.len) & !(HUGE - 1);
        pages::advise_huge(self.0.at(0), huge, true);
        // To the end of the mapping, which may lie beyond that of the memory.
        let rest = self.0.map.len() - self.0.start - huge;
        pages::advise_huge(self.0.at(huge), rest, false);
    }

    /// Bytes of it, in use or not.
    pub fn size(&self) -> usize {
        self.0.len
    }

    /// The frame of a stretch; `returned`: the system gets the memory back when the frame and all that was lent of it are
    /// gone.
    ///
    /// # Safety
    /// As long as this frame, or what is lent of it, lives, no other frame has a byte of the stretch.
    unsafe fn frame(self: &Arc<Self>, offset: usize, len: usize, returned: bool) -> Frame {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.0.len));
        let stretch = Stretch { memory: self.clone(), offset, len, returned, whole: None };
        Frame { stretch: Arc::new(stretch), filling: false }
    }
}

/// The bytes of a frame.
struct Stretch {
    memory: Arc<FrameMemory>,
    offset: usize,
    len: usize,
    returned: bool,
    /// What it is a part of, which stays as long as it does.
    whole: Option<Arc<Stretch>>,
}

impl Stretch {
    /// The address of a byte, or of the end.
    fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.len);
        self.memory.0.at(self.offset + offset)
    }

    /// Gives the memory back to the system; it reads as zeroes afterwards, or must be committed again. Whole system pages
    /// inside it only.
    ///
    /// That nothing of the stretch is lent follows from the exclusive borrow: borrowers have the stretch in an `Arc`.
    fn discard(&mut self) {
        let memory = &self.memory.0;
        // SAFETY: references to the range's bytes come from pieces and views of this stretch alone, of which there is none.
        unsafe { pages::discard(&memory.map, memory.start + self.offset, self.len) };
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        // The last one takes the mapping along.
        if !self.returned || Arc::strong_count(&self.memory) == 1 {
            return;
        }
        let (offset, end) = (self.offset, self.offset + self.len);
        let memory = &self.memory.0;
        // The system is kept from filling huge pages there again.
        let (from, to) = (offset & !(HUGE - 1), end.next_multiple_of(HUGE).min(memory.len));
        pages::advise_huge(memory.at(from), to - from, false);
        self.discard();
        // Of a huge page of which a part is used the rest stays the process's until the system is short of memory.
        // To call it cold splits it.
        for (from, to) in [(from, offset), (end, to)] {
            if from < to {
                pages::advise_cold(self.memory.0.at(from), to - from);
            }
        }
    }
}

/// A page's frame: the one handle of its stretch of memory. Frames that lie end to end share huge pages.
pub struct Frame {
    stretch: Arc<Stretch>,
    /// It was lent in pieces, and they are not known to have come back.
    filling: bool,
}

impl Frame {
    /// Frames of the given sizes, end to end in memory of their own.
    pub fn run(sizes: &[usize]) -> io::Result<Vec<Frame>> {
        let total = sizes.iter().sum();
        let memory = Arc::new(match map_in_large_pages(sizes) {
            Some(map) => FrameMemory(Memory { map, start: 0, len: total }),
            None => FrameMemory::new(total, total)?,
        });
        let mut offset = 0;
        let frame = |&len: &usize| {
            offset += len;
            // SAFETY: the memory is new, and each frame begins where the one before it ends.
            unsafe { memory.frame(offset - len, len, true) }
        };
        Ok(sizes.iter().map(frame).collect())
    }

    /// What a frame takes besides its memory and its handle: its reference counts and what they count.
    pub const fn overhead_bytes() -> usize {
        size_of::<Stretch>() + 2 * size_of::<usize>()
    }

    /// Where in its memory it begins.
    pub fn offset(&self) -> u64 {
        self.stretch.offset as u64
    }

    /// Lends the first `len` bytes to be filled, in pieces of `piece` bytes, the last one of what is left.
    ///
    /// # Panics
    /// If anything of the frame is lent, or `len` is more than it has.
    pub fn pieces(&mut self, len: usize, piece: usize) -> Vec<Piece> {
        assert!(!self.is_lent() && len <= self.stretch.len);
        self.filling = true;
        (0..len)
            .step_by(piece)
            .map(|offset| Piece { stretch: self.stretch.clone(), offset, len: piece.min(len - offset) })
            .collect()
    }

    /// Lends bytes to be read: of a ring's frame only what was filled since it was made or given back.
    ///
    /// # Panics
    /// If a piece of the frame is lent, or the bytes lie outside of it.
    pub fn view(&mut self, offset: usize, len: usize) -> View {
        assert!(!self.filling || !self.is_lent());
        self.filling = false;
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.stretch.len));
        View { stretch: self.stretch.clone(), offset, len }
    }

    /// Whether a piece or a view of it lives.
    fn is_lent(&mut self) -> bool {
        Arc::get_mut(&mut self.stretch).is_none()
    }

    /// Gives its memory back to the system, so that it must be filled again before it is read.
    ///
    /// # Panics
    /// If anything of the frame is lent.
    pub fn discard(&mut self) {
        Arc::get_mut(&mut self.stretch).expect("nothing of the frame is lent").discard();
    }
}

/// A part of a frame that one borrower fills.
pub struct Piece {
    stretch: Arc<Stretch>,
    offset: usize,
    len: usize,
}

impl Piece {
    /// # Errors
    /// The system has no memory for them, where it says so before they are touched.
    pub fn bytes_mut(&mut self) -> io::Result<&mut [u8]> {
        let memory = &self.stretch.memory.0;
        commit(&memory.map, memory.start + self.stretch.offset + self.offset, self.len)?;
        // SAFETY: the bytes are mapped as long as the stretch lives. `Frame::pieces` made this piece when nothing of the frame
        // was lent, gave no other piece these bytes, and until this one is dropped the frame lends nothing else.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.stretch.at(self.offset).as_ptr(), self.len) })
    }
}

/// A part of a frame that is read.
pub struct View {
    stretch: Arc<Stretch>,
    offset: usize,
    len: usize,
}

impl View {
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are mapped as long as the stretch lives. `Frame::view` made this view when no piece of the frame
        // was lent, and until it is dropped the frame lends none and gives no memory back: nobody writes.
        unsafe { std::slice::from_raw_parts(self.stretch.at(self.offset).as_ptr(), self.len) }
    }
}

/// Brings a stretch of a mapped file into memory by reading one byte of every system page of it. The file's length is to be
/// checked just before.
pub(super) fn touch(map: &FileMapping, offset: usize, len: usize) {
    let bytes = &map[offset..][..len];
    for i in (0..len).step_by(pages::page_bytes()) {
        std::hint::black_box(bytes[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    pub fn fill(frame: &mut Frame, byte: u8) {
        frame.pieces(frame.stretch.len, HUGE).iter_mut().for_each(|piece| piece.bytes_mut().unwrap().fill(byte));
    }

    pub fn refused(f: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(f)).is_err()
    }

    #[test]
    fn a_frame_is_lent_in_one_way_at_a_time_and_taken_back_only_when_nothing_is_lent() {
        let mut ring = Ring::new(FrameMemory::new(1 << 16, 0).unwrap());
        ring.set_limit(1 << 15);
        let mut frame = ring.allocate(8192, 0).unwrap();
        let mut pieces = frame.pieces(5000, 4096);
        assert_eq!(pieces.iter_mut().map(|piece| piece.bytes_mut().unwrap().len()).collect::<Vec<_>>(), [4096, 904]);
        pieces.pop();
        assert!(refused(|| drop(frame.view(0, 1))) && refused(|| drop(frame.pieces(1, 1))));
        pieces.clear();
        let views = [frame.view(0, 8192), frame.view(100, 1)];
        assert!(refused(|| drop(frame.pieces(1, 1))) && refused(|| frame.discard()));
        drop(views);
        frame.discard();
        assert!(refused(|| drop(frame.view(1, 8192))) && refused(|| drop(frame.pieces(8193, 1))));
        let view = frame.view(0, 1);
        assert!(refused(|| ring.free(frame)));
        drop(view);
    }

    #[test]
    fn frames_of_a_run_lie_end_to_end_and_one_given_up_leaves_the_others() {
        let block = granule() as usize;
        let sizes = [3 << 20, 2 * block, 5 << 20, block];
        let mut frames: Vec<Option<Frame>> = Frame::run(&sizes).unwrap().into_iter().map(Some).collect();
        let memory = frames[0].as_ref().unwrap().stretch.memory.clone();
        for (i, frame) in frames.iter_mut().flatten().enumerate() {
            fill(frame, 1 + i as u8);
        }
        let views: Vec<View> = frames.iter_mut().flatten().zip(sizes).map(|(f, len)| f.view(0, len)).collect();
        assert!(views.is_sorted_by(|a, b| a.bytes().as_ptr_range().end == b.bytes().as_ptr()));
        // Memory of which something is still lent goes with the last borrower.
        frames[2] = None;
        assert!(views[2].bytes().iter().all(|&byte| byte == 3));
        drop(views);
        frames[1] = None;
        let mut at = 0;
        for (i, len) in sizes.into_iter().enumerate() {
            let evicted = matches!(i, 1 | 2);
            let expected = if cfg!(target_os = "linux") && evicted { 0 } else { 1 + i as u8 };
            // What Windows has back cannot be read at all.
            let readable = if cfg!(windows) && evicted { 0 } else { len };
            assert!(memory.0.bytes()[at..][..readable].iter().all(|&byte| byte == expected), "frame {i}");
            at += len;
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
        let frame = number("/proc/self/pagemap", address.addr() as u64 / granule())? & ((1 << 55) - 1);
        Some(number("/proc/kpageflags", (frame != 0).then_some(frame)?)? & (3 << 15) != 0)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_huge_page_of_which_a_frame_gave_up_its_part_is_split() {
        let mut frames = Frame::run(&[HUGE + HUGE / 2, 2 * HUGE, HUGE + HUGE / 2]).unwrap();
        let mut last = frames.pop().unwrap();
        frames.iter_mut().chain([&mut last]).for_each(|frame| fill(frame, 1));
        let (before, after) = (frames[0].view(0, HUGE + HUGE / 2), last.view(0, HUGE + HUGE / 2));
        let (before, after) = (before.bytes(), after.bytes());
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
    #[cfg(target_os = "linux")]
    fn huge_pages_never_reach_beyond_what_is_used() {
        let resident = |memory: &FrameMemory| {
            let mut there = vec![0u8; memory.0.len() / pages::page_bytes()];
            let start = memory.0.at(0).as_ptr().cast();
            // SAFETY: the range is the memory's own, and `there` has a byte for each page of it.
            assert_eq!(unsafe { libc::mincore(start, memory.0.len(), there.as_mut_ptr().cast()) }, 0);
            there.iter().map(|b| usize::from(b & 1) * pages::page_bytes()).sum::<usize>()
        };
        let used = 2 * HUGE + 5 * granule() as usize;
        let mut memory = FrameMemory::new(4 * HUGE, used).unwrap();
        assert_eq!(memory.0.bytes().as_ptr().addr() % HUGE, 0);
        memory.0.bytes_mut()[..used].fill(1);
        assert_eq!(resident(&memory), used);
        // A smaller part is used from now on, and what it loses goes.
        memory.use_huge_pages(HUGE + 1);
        let mut memory = {
            let mut ring = Ring::new(memory);
            let from = HUGE as u64 + granule();
            let mut tail = ring.take_tail(from, used as u64);
            tail.discard();
            ring.return_tail(tail);
            ring.into_memory()
        };
        memory.0.bytes_mut()[HUGE] = 2;
        assert_eq!(resident(&memory), HUGE + granule() as usize);
    }
}
