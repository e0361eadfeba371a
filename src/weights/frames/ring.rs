//! Places pages in the ring.

use std::sync::Arc;

use super::{Frame, FrameMemory};

/// Places pages in the ring: first fit from where the last one went, so that it fills and empties in one direction.
pub struct Ring {
    memory: Arc<FrameMemory>,
    /// Allocations end at or below this.
    limit: u64,
    /// Live stretches by offset: (offset, length).
    live: Vec<(u64, u64)>,
    next: u64,
    /// Where the part begins that is being given back to the system.
    tail: Option<u64>,
}

impl Ring {
    /// A ring in the whole of `memory`, none of which is used before its limit is set.
    pub fn new(memory: FrameMemory) -> Ring {
        Ring { memory: Arc::new(memory), limit: 0, live: Vec::new(), next: 0, tail: None }
    }

    pub fn memory(&self) -> &Arc<FrameMemory> {
        &self.memory
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

    /// A frame of `bytes` bytes at or above `from`. It goes back by [`Ring::free`].
    pub fn allocate(&mut self, bytes: u64, from: u64) -> Option<Frame> {
        let start = self.next.max(from);
        let limit = self.limit.min(self.tail.unwrap_or(u64::MAX));
        let all = |_: u64| true;
        let offset = self.fit(bytes, start, limit, all).or_else(|| self.fit(bytes, from, limit, all))?;
        let at = self.live.partition_point(|&(o, _)| o < offset);
        self.live.insert(at, (offset, bytes));
        self.next = offset + bytes;
        // SAFETY: the ring alone makes frames in its memory. Those that live are in `live`, until `free` has them back with
        // nothing lent, or are the tail, and `fit` has found a place beside them.
        Some(unsafe { self.memory.frame(offset as usize, bytes as usize, false) })
    }

    /// Whether [`Ring::allocate`] would find room if of the frames only those at the offsets that `stays` names were left,
    /// and the ring were as large as `limit`, where that is given.
    pub fn would_fit(&self, bytes: u64, from: u64, limit: Option<u64>, stays: impl Fn(u64) -> bool) -> bool {
        let now = self.limit.min(self.tail.unwrap_or(u64::MAX));
        self.fit(bytes, from, limit.unwrap_or(now), stays).is_some()
    }

    fn fit(&self, bytes: u64, from: u64, to: u64, stays: impl Fn(u64) -> bool) -> Option<u64> {
        let mut at = from;
        for &(o, n) in &self.live {
            if o + n <= at || !stays(o) {
                continue;
            }
            if o >= at + bytes {
                break;
            }
            at = o + n;
        }
        (at + bytes <= to).then_some(at)
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// If anything of the frame is lent, or it is of another memory.
    pub fn free(&mut self, mut frame: Frame) {
        assert!(self.is_own(&frame) && !frame.is_lent());
        let found = self.live.binary_search_by_key(&frame.offset(), |&(o, _)| o);
        self.live.remove(found.expect("a frame of the ring that lives"));
    }

    /// Lends the memory from `from` to `to`, so that the system gets it back without the ring's owner standing still.
    /// Nothing is placed there before it comes back by [`Ring::return_tail`].
    ///
    /// # Panics
    /// If there are frames above `from`, or a tail is lent already.
    pub fn take_tail(&mut self, from: u64, to: u64) -> Frame {
        assert!(self.tail.is_none() && self.live.last().is_none_or(|&(o, n)| o + n <= from));
        self.tail = Some(from);
        // SAFETY: no frame of the ring reaches above `from`, and none is made there while `tail` is set.
        unsafe { self.memory.frame(from as usize, (to - from) as usize, false) }
    }

    /// # Panics
    /// If anything of the frame is lent, or it is not the tail.
    pub fn return_tail(&mut self, mut frame: Frame) {
        assert!(self.is_own(&frame) && !frame.is_lent() && self.tail == Some(frame.offset()));
        self.tail = None;
    }

    fn is_own(&self, frame: &Frame) -> bool {
        Arc::ptr_eq(&frame.stretch.memory, &self.memory)
    }

    #[cfg(test)]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.would_fit(bytes, 0, Some(self.limit), |_| true)
    }

    #[cfg(test)]
    pub fn live_bytes(&self) -> u64 {
        self.live.iter().map(|&(_, n)| n).sum()
    }

    /// Bytes beyond the extent that are not zero: that frames have filled, and the system does not have back.
    #[cfg(all(test, target_os = "linux"))]
    pub fn bytes_beyond(&self) -> usize {
        self.memory.0.bytes()[self.extent() as usize..].iter().filter(|&&byte| byte != 0).count()
    }

    #[cfg(test)]
    pub fn into_memory(self) -> FrameMemory {
        Arc::into_inner(self.memory).expect("frames of the ring live")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::frames::granule;

    fn ring(granules: u64) -> Ring {
        let mut ring = Ring::new(FrameMemory::new((granules * granule()) as usize, 0).unwrap());
        ring.set_limit(granules * granule());
        ring
    }

    #[test]
    fn ring_stretches_never_overlap_and_stay_inside() {
        let mut ring = ring(100);
        let mut live: Vec<(Frame, u64)> = Vec::new();
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize
        };
        for _ in 0..10_000 {
            let bytes = (1 + next() as u64 % 30) * granule();
            if let Some(frame) = ring.allocate(bytes, 0) {
                let o = frame.offset();
                assert!(o + bytes <= 100 * granule());
                assert!(live.iter().all(|(p, n)| o + bytes <= p.offset() || p.offset() + n <= o));
                live.push((frame, bytes));
            } else {
                assert!(!live.is_empty());
            }
            if live.len() > 4 || next() % 2 == 0 {
                let (frame, _) = live.swap_remove(next() % live.len());
                ring.free(frame);
            }
            assert_eq!(ring.live_bytes(), live.iter().map(|l| l.1).sum::<u64>());
        }
    }

    #[test]
    fn with_one_page_in_use_anywhere_a_ring_of_three_has_room_for_the_largest() {
        for used in 1..=10u64 {
            for at in 0..=(30 - used) {
                let mut ring = ring(30);
                ring.next = at * granule();
                ring.allocate(used * granule(), 0).unwrap();
                assert!(ring.allocate(10 * granule(), 0).is_some(), "{used} at {at}");
            }
        }
    }

    #[test]
    fn a_shrunk_ring_counts_what_still_lives_above_its_limit() {
        let mut ring = ring(10);
        let a = ring.allocate(4 * granule(), 0).unwrap();
        let b = ring.allocate(4 * granule(), 0).unwrap();
        ring.set_limit(4 * granule());
        assert_eq!(ring.extent(), 8 * granule());
        ring.free(b);
        assert_eq!(ring.extent(), 4 * granule());
        assert!(ring.allocate(granule(), 0).is_none());
        ring.free(a);
        assert!(ring.allocate(4 * granule(), 0).is_some());
    }
}
