//! The cache of experts in the engine: which of them have frames, and whose these become. What is worth a frame is decided
//! by [`crate::weights::experts`].
//!
//! A frame holds all pages of any one expert of its group. It passes from expert to expert, and goes back to the system
//! only when the budget falls. While pages of its last expert are in use or on their way, it waits for them.

mod foresight;

use std::collections::VecDeque;

use super::upkeep::Work;
use super::*;
use crate::order;
use crate::sys::heap;
use crate::weights::experts::{Cache, Decision, Rarity};
use foresight::{Foresight, Passing};

/// An expert that a pass is routed to: its number in the schedule, and what the caller knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedExpert {
    pub expert: u32,
    pub tag: u32,
}

/// So many bytes of frames are taken from the system at once.
const RUN_BYTES: u64 = 256 << 20;

/// Experts that can take each other's frames.
struct Group {
    policy: Cache,
    frame_bytes: u64,
    /// The first expert of each layer, by number in the schedule.
    first: Vec<u32>,
    /// Frames that the plan grants to experts that stay, and to those that pass through: are read early, or for one use.
    planned: u32,
    passing_planned: u32,
    /// Frames there are, without those that go when they are empty.
    live: u32,
    /// Those that no expert has.
    free: Vec<u32>,
    /// Experts that have frames although the policy does not count them as resident, the oldest first: no more than
    /// `passing_planned`.
    passing: VecDeque<Passing>,
    /// The system had no memory for more.
    refused: bool,
    /// Experts that a profile knows uses of, by number in the schedule, the likeliest first.
    likely: Vec<u32>,
    /// Those of them before this one were looked at since there were free frames.
    next_likely: usize,
}

impl Group {
    fn all_planned(&self) -> u32 {
        self.planned + self.passing_planned
    }

    /// How many experts may stay in the frames there are.
    fn capacity(&self) -> usize {
        self.live.min(self.planned) as usize
    }
}

struct CacheFrame {
    /// None where the file is mapped and only the accounting is needed.
    memory: Option<SharedFrame>,
    group: u32,
    /// Whether it has been used, and counts as memory.
    counted: bool,
    /// Pages of an expert that has lost it which are in use or on their way.
    leaving: u32,
    /// It goes as soon as it is empty.
    retired: bool,
}

/// Where an expert stands.
#[derive(Clone, Copy)]
struct Tenant {
    group: u32,
    layer: u32,
    /// Its number in its layer.
    number: u32,
    frame: Option<u32>,
}

pub(super) struct ExpertCache {
    groups: Vec<Group>,
    frames: Vec<CacheFrame>,
    /// Numbers of frames that are gone.
    vacant: Vec<u32>,
    /// By number in the schedule.
    experts: Vec<Tenant>,
    /// Frames are being taken from the system.
    taking: bool,
    /// Numbers in their layer of the experts that are routed to.
    chosen: Vec<u32>,
    foresight: Foresight,
}

impl ExpertCache {
    pub fn new(schedule: &Schedule) -> Result<ExpertCache> {
        let none = Tenant { group: 0, layer: 0, number: 0, frame: None };
        let mut experts = heap::filled(none, schedule.experts.len(), "the state of experts")?;
        let mut groups = Vec::with_capacity(schedule.expert_groups.len());
        for (group, g) in (0..).zip(&schedule.expert_groups) {
            for (layer, range) in (0..).zip(&g.layers) {
                for (number, expert) in (0..).zip(range.clone()) {
                    experts[expert as usize] = Tenant { group, layer, number, frame: None };
                }
            }
            let most = g.layers.iter().map(|l| l.len() as u32).max().unwrap_or(0);
            groups.push(Group {
                policy: Cache::new(g.layers.len() as u32, most, 0),
                frame_bytes: g.frame_bytes,
                first: g.layers.iter().map(|l| l.start).collect(),
                planned: 0,
                passing_planned: 0,
                live: 0,
                free: Vec::new(),
                passing: VecDeque::new(),
                refused: false,
                likely: Vec::new(),
                next_likely: 0,
            });
        }
        Ok(ExpertCache {
            groups,
            frames: Vec::new(),
            vacant: Vec::new(),
            experts,
            taking: false,
            chosen: Vec::new(),
            foresight: Foresight::default(),
        })
    }

    /// Bytes of book-keeping for each expert.
    pub const fn bytes_per_expert() -> usize {
        let frame = size_of::<CacheFrame>() + Frame::overhead_bytes();
        size_of::<Tenant>() + Cache::bytes_per_expert() + frame + 4 * size_of::<u32>()
    }

    /// A new sweep begins.
    pub fn begin_sweep(&mut self) {
        self.groups.iter_mut().for_each(|g| g.policy.begin_token());
    }

    /// The group that lacks frames, and how many are to be taken next.
    fn lacking(&self) -> Option<(usize, u32)> {
        let lacks = |g: &Group| !g.refused && g.live < g.all_planned();
        let (i, g) = self.groups.iter().enumerate().find(|(_, g)| lacks(g)).filter(|_| !self.taking)?;
        Some((i, (g.all_planned() - g.live).min((RUN_BYTES / g.frame_bytes.max(1)).max(1) as u32)))
    }

    /// Whether frames are to be taken from the system.
    pub fn lacks_frames(&self) -> bool {
        self.lacking().is_some()
    }

    /// Begins to take frames from the system.
    pub fn take_frames(&mut self) -> Option<Work> {
        let (group, count) = self.lacking()?;
        self.taking = true;
        Some(Work::ExpertFrames { group, sizes: vec![self.groups[group].frame_bytes as usize; count as usize] })
    }

    /// Whether there are frames that experts of a profile can be read into before they are used.
    pub fn has_room_for_likely(&self) -> bool {
        self.groups.iter().any(|g| !g.free.is_empty() && g.next_likely < g.likely.len())
    }

    #[cfg(test)]
    pub fn is_taking(&self) -> bool {
        self.taking
    }
}

impl State {
    /// Experts that have frames, by number in the schedule.
    #[cfg(test)]
    pub fn cached_experts(&self) -> Vec<usize> {
        let experts = &self.experts.experts;
        (0..experts.len()).filter(|&e| experts[e].frame.is_some()).collect()
    }

    /// Where the frames of the cache lie.
    #[cfg(test)]
    pub fn expert_frames(&self) -> Vec<usize> {
        self.experts.frames.iter().filter_map(|f| f.memory.as_ref()).map(SharedFrame::address).collect()
    }

    /// What a profile says of each expert, by number in the schedule. To be called before the first sweep.
    pub fn expect_experts(&mut self, profile: &[Rarity]) -> Result<()> {
        let ExpertCache { groups, experts, .. } = &mut self.experts;
        for (e, (&Tenant { group, layer, number, .. }, &rarity)) in (0..).zip(experts.iter().zip(profile)) {
            let g = &mut groups[group as usize];
            g.policy.expect((layer, number), rarity);
            if rarity < Rarity::NEVER {
                heap::push(&mut g.likely, e, "the order of experts")?;
            }
        }
        groups.iter_mut().for_each(|g| {
            order::sort(&mut g.likely, &mut |a, b| profile[a as usize].cmp(&profile[b as usize]).then(a.cmp(&b)))
        });
        Ok(())
    }

    /// What the next profile says of each expert, by number in the schedule.
    pub fn expert_profile(&self) -> Result<Vec<Rarity>> {
        let ExpertCache { groups, experts, .. } = &self.experts;
        let rarity = |e: &Tenant| groups[e.group as usize].policy.rarity((e.layer, e.number));
        heap::collected(experts.iter().map(rarity), "a profile of use")
    }

    /// Gives a free frame to the likeliest expert that has none. Its first page.
    pub(super) fn admit_likely(&mut self, fixed: &Fixed) -> Option<usize> {
        for i in 0..self.experts.groups.len() {
            while let g = &mut self.experts.groups[i]
                && !g.free.is_empty()
                && let Some(&expert) = g.likely.get(g.next_likely)
            {
                g.next_likely += 1;
                let expert = expert as usize;
                let Tenant { layer, number, .. } = self.experts.experts[expert];
                let has_frame = self.experts.experts[expert].frame.is_some();
                if !has_frame
                    && !self.is_leaving(fixed, expert)
                    && self.experts.groups[i].policy.admit_unused((layer, number))
                {
                    self.take_frame(fixed, expert);
                    return Some(fixed.schedule.experts[expert].pages().start);
                }
            }
        }
        None
    }

    /// Chooses which of the experts that the sweep is routed to are kept from now on. `first_ready`: puts those that are
    /// there before the others, else leaves their order.
    pub(super) fn choose_experts(&mut self, fixed: &Fixed, experts: &mut [RoutedExpert], first_ready: bool) {
        let Some(&RoutedExpert { expert: first, .. }) = experts.first() else { return };
        let Tenant { group, layer, .. } = self.experts.experts[first as usize];
        let mut chosen = std::mem::take(&mut self.experts.chosen);
        chosen.clear();
        chosen.extend(experts.iter().map(|e| self.experts.experts[e.expert as usize].number));
        self.experts.groups[group as usize].policy.choose(layer, &chosen);
        self.experts.chosen = chosen;
        for e in experts.iter() {
            let e = e.expert as usize;
            self.count_expert(fixed, e);
            self.decide(fixed, e);
        }
        self.end_foresight(fixed, group as usize, layer);
        if first_ready {
            experts.sort_by_key(|e| !self.is_expert_ready(fixed, e.expert as usize));
        }
    }

    fn is_expert_ready(&self, fixed: &Fixed, expert: usize) -> bool {
        fixed.schedule.experts[expert].pages().all(|p| self.is_ready(p))
    }

    fn count_expert(&mut self, fixed: &Fixed, expert: usize) {
        let pages = fixed.schedule.experts[expert].pages();
        // What was read early for this use was missing.
        let early = self.was_foreseen(expert);
        let missing: u64 = pages.filter(|&p| early || self.is_absent(p)).map(|p| fixed.page(p).extent_bytes).sum();
        self.stats.expert_hits += u64::from(missing == 0);
        self.stats.expert_misses += u64::from(missing > 0);
        self.stats.expert_missed_bytes += missing;
        self.stats.expert_misses_foreseen += u64::from(early);
    }

    fn decide(&mut self, fixed: &Fixed, expert: usize) {
        let Tenant { group, layer, number, .. } = self.experts.experts[expert];
        if self.experts.groups[group as usize].live == 0 || self.is_leaving(fixed, expert) {
            return;
        }
        let g = &mut self.experts.groups[group as usize];
        match g.policy.decide((layer, number)) {
            Decision::Hit => return,
            Decision::Bypass => return self.pass_through(fixed, expert),
            Decision::Admit => {}
            Decision::Replace((layer, number)) => {
                let victim = g.first[layer as usize] + number;
                self.evict_expert(fixed, victim as usize);
                self.stats.expert_evictions += 1;
            }
        }
        // One that passed through stays where it is.
        if self.experts.experts[expert].frame.is_some() {
            self.experts.groups[group as usize].passing.retain(|p| p.expert as usize != expert);
        } else {
            self.take_frame(fixed, expert);
        }
    }

    /// Gives a free frame to an expert. Where there is none, one that passes through loses its own.
    pub(super) fn take_frame(&mut self, fixed: &Fixed, expert: usize) {
        let Tenant { group, layer, .. } = self.experts.experts[expert];
        if self.experts.groups[group as usize].free.is_empty() {
            self.free_passing_frame(fixed, group as usize, layer);
        }
        let g = &mut self.experts.groups[group as usize];
        let frame = g.free.pop().expect("the policy admits no more experts than there are frames");
        self.experts.experts[expert].frame = Some(frame);
        for p in fixed.schedule.experts[expert].pages() {
            self.pages.slots[p].cached = true;
            self.reindex(fixed, p);
        }
    }

    /// Whether pages of it are still in frames that it does not have, and leave them when they are used.
    pub(super) fn is_leaving(&self, fixed: &Fixed, expert: usize) -> bool {
        let leaves = |p: usize| match self.pages.slots[p].place {
            Some(Place::Own(_)) => true,
            Some(Place::Cached { .. }) => !self.pages.slots[p].cached,
            Some(Place::Ring(_)) | None => false,
        };
        self.experts.experts[expert].frame.is_none() && fixed.schedule.experts[expert].pages().any(leaves)
    }

    /// Takes an expert's frame away, which is free then.
    pub(super) fn evict_expert(&mut self, fixed: &Fixed, expert: usize) {
        let Some(frame) = self.experts.experts[expert].frame.take() else { return };
        for p in fixed.schedule.experts[expert].pages() {
            if matches!(self.pages.slots[p].place, Some(Place::Cached { .. })) && self.is_idle(p) {
                self.evict(fixed, p);
            }
            self.pages.slots[p].cached = false;
            if matches!(self.pages.slots[p].place, Some(Place::Cached { .. })) {
                self.experts.frames[frame as usize].leaving += 1;
            }
            self.reindex(fixed, p);
        }
        let group = self.experts.frames[frame as usize].group as usize;
        self.experts.groups[group].free.push(frame);
    }

    /// A page that was in a cache frame is gone from it and leaves its part. `kept`: its expert still has the frame.
    pub(super) fn page_left(&mut self, frame: u32, part: Option<Frame>, kept: bool) {
        let f = &mut self.experts.frames[frame as usize];
        if let (Some(memory), Some(part)) = (&mut f.memory, part) {
            memory.return_part(part);
        }
        if kept {
            return;
        }
        f.leaving -= 1;
        if f.retired && f.leaving == 0 {
            self.drop_frame(frame);
        }
    }

    /// The frame of a page of a cached expert, and its place in there; counts it from its first use on.
    pub(super) fn cache_place(&mut self, fixed: &Fixed, p: usize) -> Option<Place> {
        let expert = fixed.page(p).expert()?;
        let frame = self.experts.experts[expert].frame?;
        let f = &self.experts.frames[frame as usize];
        let bytes = self.experts.groups[f.group as usize].frame_bytes;
        if f.leaving > 0 || (!f.counted && self.used() + bytes > self.accounting.budget) {
            return None;
        }
        let f = &mut self.experts.frames[frame as usize];
        if !std::mem::replace(&mut f.counted, true) {
            self.accounting.own += bytes;
        }
        let before = fixed.schedule.experts[expert].pages().start..p;
        let offset = before.map(|p| fixed.page(p).extent_bytes as usize).sum();
        let part = f.memory.as_mut().map(|memory| memory.part(offset, fixed.page(p).extent_bytes as usize));
        Some(Place::Cached { frame, part })
    }

    /// Gives each group as many frames as the plan grants: evicts what it no longer holds. More frames follow by
    /// [`State::take_work`].
    pub(super) fn resize_cache(&mut self, fixed: &Fixed) {
        for i in 0..self.experts.groups.len() {
            let g = &mut self.experts.groups[i];
            let residency = &self.pages.residency;
            (g.planned, g.passing_planned, g.refused) = (residency.cached[i], residency.passing[i], false);
            while let Some(p) = self.experts.groups[i].passing.pop_front() {
                self.evict_expert(fixed, p.expert as usize);
            }
            let g = &mut self.experts.groups[i];
            let evicted = g.policy.set_capacity(g.capacity());
            let evicted = evicted.into_iter().map(|(layer, number)| g.first[layer as usize] + number);
            for expert in evicted.collect::<Vec<_>>() {
                self.evict_expert(fixed, expert as usize);
                self.stats.expert_evictions += 1;
            }
            while self.experts.groups[i].live > self.experts.groups[i].all_planned() {
                let g = &mut self.experts.groups[i];
                let frame = g.free.pop().expect("what no expert has is free");
                g.live -= 1;
                let f = &mut self.experts.frames[frame as usize];
                f.retired = true;
                if f.leaving == 0 {
                    self.drop_frame(frame);
                }
            }
        }
    }

    fn drop_frame(&mut self, frame: u32) {
        let f = &mut self.experts.frames[frame as usize];
        let bytes = self.experts.groups[f.group as usize].frame_bytes;
        f.retired = false;
        let memory = f.memory.take().map(SharedFrame::into_frame);
        if std::mem::take(&mut f.counted) {
            self.accounting.own -= bytes;
            self.accounting.returning += bytes;
            self.upkeep.give_back(memory, bytes);
        } else if let Some(memory) = memory {
            self.upkeep.drop_frame(memory);
        }
        self.experts.vacant.push(frame);
    }

    /// Frames have been taken from the system, or could not be. `None` in them: none are needed.
    pub(super) fn supply_experts(&mut self, group: usize, taken: io::Result<Vec<Option<Frame>>>) {
        self.experts.taking = false;
        let ExpertCache { groups, frames, vacant, .. } = &mut self.experts;
        let g = &mut groups[group];
        // Without memory for more the cache stays as it is, until there is another plan.
        g.refused = taken.is_err();
        for memory in taken.unwrap_or_default() {
            if g.live >= g.all_planned() {
                memory.into_iter().for_each(|memory| self.upkeep.drop_frame(memory));
                continue;
            }
            let memory = memory.map(SharedFrame::new);
            let new = CacheFrame { memory, group: group as u32, counted: false, leaving: 0, retired: false };
            let number = match vacant.pop() {
                Some(number) => {
                    frames[number as usize] = new;
                    number
                }
                None => {
                    frames.push(new);
                    frames.len() as u32 - 1
                }
            };
            g.free.push(number);
            g.live += 1;
        }
        // Where it grows, nothing is evicted.
        g.policy.set_capacity(g.capacity());
        g.next_likely = 0;
    }
}
