//! Which pages stay. The schedule is cyclic, so recency says nothing: with room for C of N pages the least reading is
//! reached by keeping C − ring of them for good and passing the rest through the ring. The kept ones are spread evenly,
//! so that every stretch of reading has arithmetic to hide behind. Of experts a pass needs a few, and which ones is learned:
//! what the cyclic part leaves holds a cache of them.

use crate::order;
use std::ops::Range;

use super::schedule::Schedule;

/// How the frames that the budget leaves are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Residency {
    /// For each page of the schedule: does it stay?
    pub pinned: Vec<bool>,
    /// Pages that stay, and the cache of experts.
    pub pinned_bytes: u64,
    /// How many experts of each of [`Schedule::expert_groups`] the cache holds.
    pub cached: Vec<u32>,
    /// How many frames there are beside these for experts that are read early, or for one use.
    pub passing: Vec<u32>,
    /// Frames that the other pages pass through; 0 where all stay.
    pub ring_bytes: u64,
    /// Bytes a full pass of one token reads; of experts that do not stay, the share that a token is routed to.
    pub streamed_bytes: u64,
}

/// The least ring: with one page in use anywhere in it, either side of that page has room for the largest one, so the
/// next page can always be read while this one is computed.
pub fn min_ring(schedule: &Schedule) -> u64 {
    let all = schedule.streamable_bytes();
    if schedule.routed_end < 3 { all } else { all.min(3 * schedule.largest_extent()) }
}

/// Frames of everything: with them nothing is streamed.
pub fn full(schedule: &Schedule) -> u64 {
    schedule.streamable_bytes() + schedule.table_bytes()
}

/// A ring this deep keeps all readers busy while a page is computed: what is in flight, beside the least.
pub fn good_ring(schedule: &Schedule, in_flight_bytes: u64) -> u64 {
    min_ring(schedule) + in_flight_bytes
}

/// Frame bytes used of `capacity` where no more than `most` may be held; 0: no such limit. A pass has to get on, so it is
/// never less than [`min_ring`] for that.
pub fn usable(schedule: &Schedule, capacity: u64, most: u64) -> u64 {
    if most == 0 { capacity } else { capacity.min(most.max(min_ring(schedule))) }
}

/// Plans `capacity` bytes of frames; `capacity` is at least [`min_ring`]. The ring is made [`good_ring`] deep for what
/// is in flight, or what the host prefetches, and takes at most half of the frames for it.
pub fn plan(schedule: &Schedule, capacity: u64, in_flight_bytes: u64, kept_experts: KeptExperts) -> Residency {
    let streamable = schedule.streamable_bytes();
    let mut kept = Kept { schedule, pinned: vec![false; schedule.pages.len()], bytes: 0 };
    if capacity >= streamable {
        // Tables come last: a row of them costs one small read, a page of a pass a whole one.
        let tables = capacity - streamable >= schedule.table_bytes();
        let end = if tables { schedule.pages.len() } else { schedule.routed_end };
        kept.keep_evenly(0..end, u64::MAX);
        let none = vec![0; schedule.expert_groups.len()];
        return Residency {
            pinned: kept.pinned,
            pinned_bytes: kept.bytes,
            cached: none.clone(),
            passing: none,
            ring_bytes: 0,
            streamed_bytes: 0,
        };
    }
    let least = min_ring(schedule);
    let good = good_ring(schedule, in_flight_bytes).max(least);
    // Where all that every pass reads stays and experts have frames to pass through, hardly anything uses the ring.
    let frames: u64 = schedule.expert_groups.iter().map(|g| g.frame_bytes).sum();
    let idle = kept_experts == KeptExperts::Cached
        && frames > 0
        && capacity >= schedule.sweep_bytes() + good + PASSING_SHARE * frames;
    let ring_bytes = if idle { least } else { (capacity / 2).clamp(least, good).min(capacity) };
    let room = capacity - ring_bytes;
    kept.keep_evenly(0..schedule.sweep_len, room);
    let swept = kept.bytes;
    let mut cache = ExpertFrames::default();
    match kept_experts {
        KeptExperts::Cached if swept == schedule.sweep_bytes() => cache.fill(schedule, room - swept),
        KeptExperts::Cached => cache.fill(schedule, 0),
        KeptExperts::FixedShare => {
            cache.fill(schedule, 0);
            kept.keep_evenly(schedule.sweep_len..schedule.routed_end, room - swept);
        }
    }
    let experts = (kept.bytes - swept + cache.extent_bytes).min(schedule.routed_bytes());
    let (used, of) = schedule.routed_share;
    let missed = schedule.routed_bytes() - experts;
    let missed = (u128::from(missed) * u128::from(used) / u128::from(of.max(1))) as u64;
    let streamed_bytes = schedule.sweep_bytes() - swept + missed;
    let pinned_bytes = kept.bytes + cache.frame_bytes;
    Residency {
        pinned: kept.pinned,
        pinned_bytes,
        cached: cache.counts,
        passing: cache.passing,
        ring_bytes,
        streamed_bytes,
    }
}

/// Which experts stay in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeptExperts {
    /// Those that are expected to be used next.
    #[default]
    Cached,
    /// The same ones for good, spread evenly: what a cache is measured against.
    FixedShare,
}

/// Of the frames of experts no more than one in so many is for those that pass through. They are as many as a token uses of
/// a layer: twice as many read no less early, and keep fewer.
const PASSING_SHARE: u64 = 8;

/// Frames of a cache of experts.
#[derive(Default)]
struct ExpertFrames {
    /// For each group how many experts stay, and how many pass through.
    counts: Vec<u32>,
    passing: Vec<u32>,
    frame_bytes: u64,
    /// What the experts that stay take on average.
    extent_bytes: u64,
}

impl ExpertFrames {
    /// As many frames as `room` holds, of each group in proportion to its size.
    fn fill(&mut self, schedule: &Schedule, room: u64) {
        let groups = &schedule.expert_groups;
        let all: u64 = groups.iter().map(|g| g.extent_bytes).sum();
        for g in groups {
            let share = (u128::from(room) * u128::from(g.extent_bytes) / u128::from(all.max(1))) as u64;
            let count = (share / g.frame_bytes.max(1)).min(g.count() as u64);
            self.counts.push(count as u32);
            self.frame_bytes += count * g.frame_bytes;
        }
        // What is left over holds more of any group.
        for (g, count) in groups.iter().zip(&mut self.counts) {
            let more = ((room - self.frame_bytes) / g.frame_bytes.max(1)).min(g.count() as u64 - u64::from(*count));
            *count += more as u32;
            self.frame_bytes += more * g.frame_bytes;
            let most = u64::from(*count) / PASSING_SHARE;
            let passing = if *count as usize == g.count() { 0 } else { most.min(schedule.routed_share.0) as u32 };
            *count -= passing;
            self.passing.push(passing);
            self.extent_bytes += u64::from(*count) * g.extent_bytes / g.count().max(1) as u64;
        }
    }
}

/// Pages that a plan keeps.
struct Kept<'a> {
    schedule: &'a Schedule,
    pinned: Vec<bool>,
    bytes: u64,
}

impl Kept<'_> {
    /// Keeps pages of a range in `room` bytes, spread evenly.
    fn keep_evenly(&mut self, range: Range<usize>, room: u64) {
        let pages = &self.schedule.pages;
        let all: u64 = pages[range.clone()].iter().map(|p| p.extent_bytes).sum();
        let room = room.min(all);
        let end = self.bytes + room;
        // Every page earns credit in proportion to its size, and is kept when the credit covers it.
        let mut credit = 0u128;
        for i in range.clone() {
            credit += u128::from(pages[i].extent_bytes) * u128::from(room);
            let price = u128::from(pages[i].extent_bytes) * u128::from(all);
            if credit >= price {
                credit -= price;
                self.keep(i);
            }
        }
        // What is left over keeps any page that fits, largest first.
        let mut rest: Vec<usize> = range.filter(|&i| !self.pinned[i]).collect();
        order::sort_indices(&mut rest, &mut |a, b| pages[b].extent_bytes.cmp(&pages[a].extent_bytes));
        for i in rest {
            if self.bytes + pages[i].extent_bytes <= end {
                self.keep(i);
            }
        }
    }

    fn keep(&mut self, page: usize) {
        self.pinned[page] = true;
        self.bytes += self.schedule.pages[page].extent_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::testing::schedule::{ROUTED, schedule_of};

    #[test]
    fn everything_stays_where_everything_fits() {
        let s = schedule_of(&[(0, 4096, 64), (1, 4096, 64), (1, 4096, 100)]);
        let all = plan(&s, s.sweep_bytes(), 0, KeptExperts::Cached);
        assert!(all.pinned.iter().all(|&p| p));
        assert_eq!((all.streamed_bytes, all.ring_bytes), (0, 0));
    }

    #[test]
    fn pinned_and_ring_never_exceed_the_capacity_and_pins_are_spread_evenly() {
        let matrices: Vec<(u32, u64, u64)> = (0..64).map(|i| (i / 4, 65536, 32 + 16 * (i as u64 % 3))).collect();
        let s = schedule_of(&matrices);
        let (least, total) = (min_ring(&s), s.sweep_bytes());
        for percent in 0..100 {
            let capacity = least + (total - least) * percent / 100;
            let r = plan(&s, capacity, s.largest_extent(), KeptExperts::Cached);
            assert!(r.pinned_bytes + r.ring_bytes <= capacity);
            assert!(r.ring_bytes >= least || capacity >= total);
            let kept: u64 = s.pages.iter().zip(&r.pinned).filter(|(_, p)| **p).map(|(p, _)| p.extent_bytes).sum();
            assert_eq!(kept, r.pinned_bytes);
            // Evenness: any half of the schedule holds about half of the pinned bytes.
            let half: u64 = s.pages[..s.sweep_len / 2]
                .iter()
                .zip(&r.pinned)
                .filter(|(_, p)| **p)
                .map(|(p, _)| p.extent_bytes)
                .sum();
            assert!(
                half.abs_diff(r.pinned_bytes / 2) <= 4 * s.largest_extent(),
                "{percent}%: {half} of {}",
                r.pinned_bytes
            );
        }
    }

    #[test]
    fn more_capacity_never_streams_more() {
        let matrices: Vec<(u32, u64, u64)> = (0..40).map(|i| (i / 4, 65536, 16 + 16 * (i as u64 % 5))).collect();
        let s = schedule_of(&matrices);
        let mut before = u64::MAX;
        for step in 0..=64 {
            let capacity = min_ring(&s) + (s.sweep_bytes() - min_ring(&s)) * step / 64;
            let r = plan(&s, capacity, 0, KeptExperts::Cached);
            assert!(r.streamed_bytes <= before.saturating_add(s.largest_extent()));
            before = r.streamed_bytes;
        }
    }

    #[test]
    fn a_cache_of_experts_takes_what_the_cyclic_part_leaves() {
        let mut matrices = Vec::new();
        for layer in 0..6 {
            matrices.push((layer, 8192, 64));
            let rows = if layer % 3 == 2 { 48 } else { 32 };
            matrices.extend((0..8).map(|_| (layer | ROUTED, 8192, rows)));
        }
        let s = schedule_of(&matrices);
        assert_eq!(s.experts.len(), 48);
        assert_eq!(s.expert_groups.iter().map(|g| (g.layers.len(), g.count())).collect::<Vec<_>>(), [(4, 32), (2, 16)]);
        let (least, full) = (min_ring(&s), full(&s));
        let mut before = 0;
        for step in 0..=64 {
            let capacity = least + (full - least) * step / 64;
            let r = plan(&s, capacity, 0, KeptExperts::Cached);
            let frames = |counts: &[u32]| -> u64 {
                s.expert_groups.iter().zip(counts).map(|(g, &n)| u64::from(n) * g.frame_bytes).sum()
            };
            let (cached, passing) = (frames(&r.cached), frames(&r.passing));
            let pinned: u64 = s.pages.iter().zip(&r.pinned).filter(|(_, p)| **p).map(|(p, _)| p.extent_bytes).sum();
            assert_eq!(cached + passing + pinned, r.pinned_bytes);
            assert!(8 * passing <= cached + passing);
            assert!(r.pinned_bytes + r.ring_bytes <= capacity);
            let whole = r.pinned[..s.sweep_len].iter().all(|&p| p);
            assert!(cached == 0 || whole, "pages of every pass come first");
            assert!(cached + passing >= before || step == 64);
            if step < 64 && whole {
                let largest = s.expert_groups.iter().map(|g| g.frame_bytes).max().unwrap();
                let all = s.expert_groups.iter().zip(&r.cached).all(|(g, &n)| n as usize == g.count());
                assert!(all || capacity - r.pinned_bytes - r.ring_bytes < largest, "{step}: room is left over");
            }
            before = cached + passing;
        }
        let fixed = plan(&s, (least + full) / 2, 0, KeptExperts::FixedShare);
        assert_eq!(fixed.cached, [0, 0]);
        assert!(fixed.pinned[s.sweep_len..].iter().any(|&p| p));
    }
}
