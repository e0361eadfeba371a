//! Experts that have frames of the cache although the policy does not keep them: those that the next layer will probably
//! choose, which are read while nothing else is, and those that pass through.

use super::*;

/// An expert that has a frame although the policy does not count it as resident.
#[derive(Clone, Copy)]
pub(super) struct Passing {
    pub expert: u32,
    /// It was foreseen, and its layer has not chosen since.
    pub foreseen: bool,
}

/// What will probably be chosen next.
#[derive(Default)]
pub(super) struct Foresight {
    /// Missing experts, the likeliest first, by number in the schedule.
    expected: VecDeque<u32>,
}

impl ExpertCache {
    pub fn has_foreseen(&self) -> bool {
        !self.foresight.expected.is_empty()
    }
}

impl State {
    /// Whether experts of this one's layer may be missing, and there are frames for those that are read early.
    pub fn may_foresee(&self, expert: usize) -> bool {
        let g = &self.experts.groups[self.experts.experts[expert].group as usize];
        g.live > g.planned
    }

    /// The sweep will probably be routed to these experts next, the likeliest first. Whether some are to be read.
    pub fn foresee(&mut self, fixed: &Fixed, experts: &[u32]) -> bool {
        let mut expected = std::mem::take(&mut self.experts.foresight.expected);
        expected.clear();
        let missing =
            |&&e: &&u32| self.experts.experts[e as usize].frame.is_none() && !self.is_leaving(fixed, e as usize);
        expected.extend(experts.iter().filter(missing));
        self.experts.foresight.expected = expected;
        self.experts.has_foreseen()
    }

    /// The next page of an expert that is foreseen.
    pub(in crate::weights::state) fn next_foreseen(&mut self, fixed: &Fixed) -> Option<usize> {
        if self.requests.outstanding >= fixed.readers {
            return None;
        }
        while let Some(&e) = self.experts.foresight.expected.front() {
            let e = e as usize;
            if self.experts.experts[e].frame.is_none() && !self.give_passing_frame(fixed, e, true) {
                self.experts.foresight.expected.clear();
                return None;
            }
            if let Some(p) = fixed.schedule.experts[e].pages().find(|&p| self.wanted(p)) {
                return Some(p);
            }
            self.experts.foresight.expected.pop_front();
        }
        None
    }

    /// An expert that the policy does not admit gets a frame to pass through, where one is to be had.
    pub(super) fn pass_through(&mut self, fixed: &Fixed, expert: usize) {
        // Where it is in the ring already, it stays there.
        let mut pages = fixed.schedule.experts[expert].pages();
        if self.experts.experts[expert].frame.is_none() && pages.all(|p| self.is_absent(p)) {
            self.give_passing_frame(fixed, expert, false);
        }
    }

    /// Gives a frame to an expert that the policy does not count; false: none is to be had.
    fn give_passing_frame(&mut self, fixed: &Fixed, expert: usize, foreseen: bool) -> bool {
        let Tenant { group, layer, .. } = self.experts.experts[expert];
        let g = &self.experts.groups[group as usize];
        if g.passing.len() >= g.passing_planned as usize || g.free.is_empty() {
            // Those of this layer, and of the one before what is foreseen, may be in use, or about to be.
            let near = |p: &Passing| {
                let of = self.experts.experts[p.expert as usize].layer;
                of == layer || foreseen && of + 1 == layer
            };
            let Some(i) = g.passing.iter().position(|p| !near(p)) else { return false };
            let p = self.experts.groups[group as usize].passing.remove(i);
            p.into_iter().for_each(|p| self.evict_expert(fixed, p.expert as usize));
        }
        self.take_frame(fixed, expert);
        self.experts.groups[group as usize].passing.push_back(Passing { expert: expert as u32, foreseen });
        true
    }

    /// Takes its frame from the oldest that passes through, if possible of another layer than this one, which is being used.
    pub(super) fn free_passing_frame(&mut self, fixed: &Fixed, group: usize, layer: u32) {
        let passing = &self.experts.groups[group].passing;
        let other = |p: &Passing| self.experts.experts[p.expert as usize].layer != layer;
        let oldest = passing.iter().position(other).unwrap_or(0);
        if let Some(p) = self.experts.groups[group].passing.remove(oldest) {
            self.evict_expert(fixed, p.expert as usize);
        }
    }

    /// A layer of a group has chosen. Of those that were foreseen and not chosen, what is not there yet is not read any more.
    pub(super) fn end_foresight(&mut self, fixed: &Fixed, group: usize, layer: u32) {
        self.experts.foresight.expected.clear();
        let mut i = 0;
        while let Some(&Passing { expert, foreseen }) = self.experts.groups[group].passing.get(i) {
            let Tenant { layer: of, number, .. } = self.experts.experts[expert as usize];
            if foreseen && of == layer {
                self.experts.groups[group].passing[i].foreseen = false;
                let chosen = self.experts.groups[group].policy.is_in_use((of, number));
                if !chosen && fixed.schedule.experts[expert as usize].pages().any(|p| self.is_absent(p)) {
                    self.experts.groups[group].passing.remove(i);
                    self.evict_expert(fixed, expert as usize);
                    continue;
                }
            }
            i += 1;
        }
    }

    /// The sweep has ended: nothing that it foresaw is read any more.
    pub(in crate::weights::state) fn forget_foreseen(&mut self, fixed: &Fixed) {
        for group in 0..self.experts.groups.len() {
            let foreseen = |p: &&Passing| p.foreseen;
            while let Some(p) = self.experts.groups[group].passing.iter().find(foreseen) {
                self.end_foresight(fixed, group, self.experts.experts[p.expert as usize].layer);
            }
        }
    }

    pub(super) fn was_foreseen(&self, expert: usize) -> bool {
        let Tenant { group, frame, .. } = self.experts.experts[expert];
        let mut passing = self.experts.groups[group as usize].passing.iter();
        frame.is_some() && passing.any(|p| p.expert as usize == expert && p.foreseen)
    }
}
