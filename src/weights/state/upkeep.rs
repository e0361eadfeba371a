//! What takes long and therefore happens without the engine's lock: giving memory back to the system, taking it, and
//! making a plan. The state says what there is to do; a thread that has the time does it and reports.

use std::collections::BTreeSet;

use super::*;
use crate::sys::pages::forget_file_range;
use crate::weights::frames::FrameMemory;

/// Something to do without the lock.
pub enum Work {
    /// Give back what evicted pages used. `bytes` count as used until it is done.
    Return { frames: Vec<Frame>, mapped: Vec<FileRange>, bytes: u64 },
    /// Tell the system how much of the ring is in use, and give the tail that no longer is back to it.
    Ring { memory: Arc<FrameMemory>, to: u64, tail: Option<Frame> },
    /// Take frames for pages that stay.
    Frames(FrameOrder),
    /// Take frames for experts.
    ExpertFrames { group: usize, sizes: Vec<usize> },
    /// Plan for other frames.
    Plan { key: PlanKey, before: Arc<Residency> },
}

/// A stretch of a mapped file.
pub struct FileRange {
    file: usize,
    span: Range<usize>,
}

/// What came of it.
pub enum Outcome {
    Returned(u64),
    Ring {
        to: u64,
        tail: Option<Frame>,
    },
    Frames(FrameOrder, io::Result<(usize, Vec<Frame>)>),
    /// Without memory where the file is mapped.
    ExpertFrames {
        group: usize,
        taken: io::Result<Vec<Option<Frame>>>,
    },
    Plan {
        key: PlanKey,
        before: Arc<Residency>,
        plan: Residency,
        changed: Vec<u32>,
    },
}

/// Bytes of frames and depth of the ring.
pub type PlanKey = (u64, u64);

/// Frames for a run of pages, for the sake of one of them.
pub struct FrameOrder {
    page: usize,
    first: usize,
    sizes: Vec<usize>,
}

/// More frames than this are not taken in one piece.
const MAX_RUN: usize = 1024;

/// What waits to be done, and what is being done.
#[derive(Default)]
pub(super) struct Upkeep {
    frames: Vec<Frame>,
    mapped: Vec<FileRange>,
    bytes: u64,
    order: Option<FrameOrder>,
    /// Frames are being taken.
    taking: bool,
    /// The page for which there was no memory the last time.
    refused: Option<usize>,
    /// Part of the ring's memory that the system knows to be in use.
    ring_known: u64,
    /// The most of it that was in use since the system got back what lay beyond: the ring may have grown and become smaller
    /// again before anybody told the system.
    ring_reached: u64,
    /// The part that will be in use when a change under way is done.
    ring_target: Option<u64>,
}

impl Upkeep {
    /// The part of the ring's memory that the system may have given.
    pub fn ring_given(&self) -> u64 {
        self.ring_known.max(self.ring_reached)
    }

    /// The ring is in use up to here.
    pub fn ring_reaches(&mut self, extent: u64) {
        self.ring_reached = self.ring_reached.max(extent);
    }

    /// Whether the system is to be told that the ring is in use up to `extent`, or to have back what lies beyond.
    fn ring_waits(&self, extent: u64) -> bool {
        self.ring_target.is_none() && (self.ring_known != extent || self.ring_reached > extent)
    }

    /// The ring must not grow over memory that is being given back, nor beyond what the system is just being told: frames
    /// that came and went there meanwhile would be forgotten, and their memory never be given back.
    pub fn ring_ceiling(&self) -> u64 {
        self.ring_target.unwrap_or(u64::MAX)
    }

    /// Whether there was no memory for this page, once.
    pub fn was_refused(&mut self, p: usize) -> bool {
        self.refused.take_if(|refused| *refused == p).is_some()
    }

    pub fn drop_frame(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// Gives back memory that counts as used until it is gone.
    pub fn give_back(&mut self, frame: Option<Frame>, bytes: u64) {
        self.frames.extend(frame);
        self.bytes += bytes;
    }

    pub fn forget(&mut self, file: usize, span: Range<usize>) {
        self.mapped.push(FileRange { file, span });
    }
}

impl Work {
    /// Does it; takes long.
    pub fn run(self, fixed: &Fixed) -> Outcome {
        match self {
            Work::Return { frames, mapped, bytes } => {
                drop(frames);
                for range in mapped {
                    if let Some(map) = fixed.sources[range.file].mapping() {
                        forget_file_range(map, range.span.start, range.span.len());
                    }
                }
                Outcome::Returned(bytes)
            }
            Work::Ring { memory, to, mut tail } => {
                memory.use_huge_pages(to as usize);
                if let Some(tail) = &mut tail {
                    tail.discard();
                }
                Outcome::Ring { to, tail }
            }
            Work::Frames(order) => {
                let own = order.sizes[order.page - order.first];
                // Where the system does not give that much at once, it may give the page's own.
                let frames = Frame::run(&order.sizes).map(|frames| (order.first, frames));
                let frames = frames.or_else(|_| Ok((order.page, Frame::run(&[own])?)));
                Outcome::Frames(order, frames)
            }
            Work::ExpertFrames { group, sizes } => {
                let mapped = fixed.sources.iter().any(|s| s.mapping().is_some());
                let taken = if mapped {
                    Ok(sizes.iter().map(|_| None).collect())
                } else {
                    Frame::run(&sizes).map(|frames| frames.into_iter().map(Some).collect())
                };
                Outcome::ExpertFrames { group, taken }
            }
            Work::Plan { key, before } => {
                let plan = residency::plan(&fixed.schedule, key.0, key.1, fixed.kept_experts);
                let changed = plan.pinned.iter().zip(&before.pinned).enumerate();
                let changed = changed.filter(|(_, (a, b))| a != b).map(|(p, _)| p as u32).collect();
                Outcome::Plan { key, before, plan, changed }
            }
        }
    }
}

impl State {
    /// Takes the next thing to do without the lock, if there is one.
    pub fn take_work(&mut self) -> Option<Work> {
        if let Some(key) = self.stale_plan() {
            return Some(Work::Plan { key, before: self.pages.residency.clone() });
        }
        let extent = self.ring.extent();
        let upkeep = &mut self.upkeep;
        if !upkeep.frames.is_empty() || !upkeep.mapped.is_empty() || upkeep.bytes > 0 {
            let (frames, mapped) = (std::mem::take(&mut upkeep.frames), std::mem::take(&mut upkeep.mapped));
            return Some(Work::Return { frames, mapped, bytes: std::mem::take(&mut upkeep.bytes) });
        }
        if upkeep.ring_waits(extent) {
            let from = upkeep.ring_given();
            upkeep.ring_target = Some(extent);
            upkeep.ring_known = from.max(extent);
            let tail = (from > extent).then(|| self.ring.take_tail(extent, from));
            return Some(Work::Ring { memory: self.ring.memory().clone(), to: extent, tail });
        }
        if !upkeep.taking
            && let Some(order) = upkeep.order.take()
        {
            upkeep.taking = true;
            return Some(Work::Frames(order));
        }
        self.experts.take_frames()
    }

    /// Whether [`State::take_work`] has something.
    pub fn has_work(&self) -> bool {
        let upkeep = &self.upkeep;
        self.stale_plan().is_some()
            || !upkeep.frames.is_empty()
            || !upkeep.mapped.is_empty()
            || upkeep.bytes > 0
            || upkeep.ring_waits(self.ring.extent())
            || (!upkeep.taking && upkeep.order.is_some())
            || self.experts.lacks_frames()
    }

    /// Whether something that [`State::take_work`] gave is not done yet.
    #[cfg(test)]
    pub fn is_working(&self) -> bool {
        self.upkeep.taking || self.experts.is_taking() || self.is_giving_back()
    }

    /// Whether memory is on its way back to the system.
    pub fn is_giving_back(&self) -> bool {
        self.upkeep.ring_target.is_some() || self.accounting.returning > 0
    }

    /// Records what has been done.
    pub fn work_done(&mut self, fixed: &Fixed, outcome: Outcome) {
        match outcome {
            Outcome::Returned(bytes) => self.accounting.returning -= bytes,
            Outcome::Ring { to, tail } => {
                tail.into_iter().for_each(|tail| self.ring.return_tail(tail));
                self.upkeep.ring_known = to;
                self.upkeep.ring_reached = to.max(self.ring.extent());
                self.upkeep.ring_target = None;
            }
            Outcome::Frames(order, frames) => self.supply(fixed, order, frames),
            Outcome::ExpertFrames { group, taken } => self.supply_experts(group, taken),
            Outcome::Plan { key, before, plan, changed } => {
                if self.stale_plan() == Some(key) && Arc::ptr_eq(&before, &self.pages.residency) {
                    self.adopt_plan(fixed, key, plan, &changed);
                }
            }
        }
        self.fit_ring();
    }

    /// Does all there is to do at once, for tests that have no lock.
    #[cfg(test)]
    pub fn do_work(&mut self, fixed: &Fixed) {
        while let Some(work) = self.take_work() {
            let outcome = work.run(fixed);
            self.work_done(fixed, outcome);
        }
    }

    /// What a plan must be made for, where the present one was made for something else.
    pub(super) fn stale_plan(&self) -> Option<PlanKey> {
        let key = (self.capacity()?, self.sizes.in_flight.max(self.requests.host_depth));
        (self.planned_for != Some(key)).then_some(key)
    }

    /// Uses a plan from now on and evicts what it no longer keeps. `changed`: pages that it keeps and the one before did
    /// not, or the other way round.
    fn adopt_plan(&mut self, fixed: &Fixed, key: PlanKey, plan: Residency, changed: &[u32]) {
        self.planned_for = Some(key);
        self.pages.residency = Arc::new(plan);
        for p in changed.iter().map(|&p| p as usize) {
            if !self.pages.residency.pinned[p] {
                if let Some(frame) = self.pages.slots[p].reserved.take() {
                    self.upkeep.drop_frame(frame);
                }
                if matches!(self.pages.slots[p].place, Some(Place::Own(_))) && self.is_idle(p) {
                    self.evict(fixed, p);
                }
            }
            self.reindex(fixed, p);
        }
        self.resize_cache(fixed);
        self.fit_ring();
        let limit = self.ring.limit();
        // Pages that the host prefetched too: they are kept as far as memory allows.
        let prefetched = self.requests.protected_pages().filter(|&p| self.is_idle(p));
        let beyond: BTreeSet<usize> = self.pages.evictable.iter().chain(prefetched).collect();
        for p in beyond {
            if self.ring_end(fixed, p) > limit {
                self.evict(fixed, p);
            }
        }
        self.note_peak();
    }

    /// Orders a frame for a page that stays: in one piece with those of its neighbours that stay too and have none yet.
    pub(super) fn order_frames(&mut self, fixed: &Fixed, p: usize) {
        if self.upkeep.taking || self.upkeep.order.is_some() {
            return;
        }
        let slots = &self.pages.slots;
        let waits =
            |&q: &usize| self.pages.residency.pinned[q] && slots[q].place.is_none() && slots[q].reserved.is_none();
        let first = (0..p).rev().take(MAX_RUN).take_while(waits).last().unwrap_or(p);
        let run = (first..slots.len()).take(2 * MAX_RUN).take_while(waits);
        let sizes = run.map(|q| fixed.page(q).extent_bytes as usize).collect();
        self.upkeep.order = Some(FrameOrder { page: p, first, sizes });
    }

    fn supply(&mut self, fixed: &Fixed, order: FrameOrder, frames: io::Result<(usize, Vec<Frame>)>) {
        self.upkeep.taking = false;
        match frames {
            Ok((first, frames)) => {
                for (p, frame) in (first..).zip(frames) {
                    let keeps = self.pages.residency.pinned[p];
                    let slot = &mut self.pages.slots[p];
                    if keeps && slot.place.is_none() && slot.reserved.is_none() {
                        slot.reserved = Some(frame);
                    } else {
                        self.upkeep.drop_frame(frame);
                    }
                }
            }
            Err(e) => {
                let p = order.page;
                self.upkeep.refused = Some(p);
                let text = format!("{} bytes for {}: {e}", fixed.page(p).extent_bytes, fixed.describe(p));
                self.pages.slots[p].failure = Some(Error::out_of_memory(text));
                self.reindex(fixed, p);
            }
        }
    }
}
