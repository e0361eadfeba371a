//! What the engine knows, behind one lock that is never held over a read: where each page is, what the sweep needs next,
//! what the host asked for, what the budget allows. Every decision about reading and eviction is made here, so that it
//! can be tested without threads.

mod accounting;
mod cursor;
mod eviction;
mod experts;
mod placement;
mod reading;
mod requests;
mod upkeep;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::weights::budget::Needs;
use crate::weights::events::{LayerRequest, Tickets};
use crate::weights::frames::{Frame, Piece, Ring, SharedFrame, View, granule};
use crate::weights::residency::{self, KeptExperts, Residency};
use crate::weights::schedule::{Page, Schedule};
use crate::weights::source::Source;
use crate::weights::{LayerState, Stats};

pub use accounting::Accounting;
use cursor::{Cursor, Segment};
use experts::ExpertCache;
pub use experts::RoutedExpert;
use placement::{Kinds, Place, Placement, Presence};
use requests::Requests;
use upkeep::{PlanKey, Upkeep};

/// Reads are about this large: where storage reaches its speed with four of them in flight.
const REQUEST_BYTES: u64 = 2 << 20;

/// What does not change while the model is open.
pub struct Fixed {
    pub schedule: Schedule,
    pub sources: Vec<Box<dyn Source>>,
    /// Read requests that may be under way or waiting for a reader.
    pub max_outstanding: usize,
    pub readers: usize,
    /// Layers ahead of the sweep that may be read; 0: any.
    pub prefetch_distance: u32,
    /// Bytes of frames at most, whatever the budget; 0: no limit.
    pub max_frames: u64,
    /// Which experts stay.
    pub kept_experts: KeptExperts,
}

impl Fixed {
    /// The largest ring that is ever useful here.
    pub fn in_flight_bytes(readers: usize) -> u64 {
        readers as u64 * REQUEST_BYTES
    }

    /// Ring bytes that hold any one layer, however its pages fall.
    pub fn host_bytes(schedule: &Schedule) -> u64 {
        schedule.largest_layer_bytes() + schedule.largest_extent()
    }

    fn page(&self, p: usize) -> &Page {
        &self.schedule.pages[p]
    }

    /// Names a page in messages: its tensor and rows.
    pub fn describe(&self, p: usize) -> String {
        let page = self.page(p);
        let m = self.schedule.matrix(page.matrix);
        let first = m.first_row + u64::from(page.first_row);
        format!("{}: rows {first} to {}", m.name, first + u64::from(page.rows))
    }
}

/// One read: part of a page's extent, into its frame.
pub struct Request {
    pub page: usize,
    pub file: usize,
    pub offset: u64,
    pub len: usize,
    /// Where the bytes go; `None` where the file is mapped.
    pub piece: Option<Piece>,
}

/// The rows of a page that is there.
pub enum PageBytes<'a> {
    Framed(View),
    Mapped(&'a [u8]),
}

impl PageBytes<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            PageBytes::Framed(view) => view.bytes(),
            PageBytes::Mapped(bytes) => bytes,
        }
    }
}

/// Sums over the schedule that decisions need.
struct Sizes {
    /// The part of the ring that belongs to passes alone.
    min_ring: u64,
    /// Frame bytes of everything.
    full: u64,
    /// Ring bytes for any one layer.
    host_bytes: u64,
    /// Bytes that readers have in flight.
    in_flight: u64,
    /// Bytes of the experts that one token uses.
    working_set: u64,
}

pub struct State {
    sizes: Sizes,
    cursor: Cursor,
    pages: Placement,
    experts: ExpertCache,
    ring: Ring,
    upkeep: Upkeep,
    requests: Requests,
    accounting: Accounting,
    stats: Stats,
    /// What the present plan was made for.
    planned_for: Option<PlanKey>,
    /// Bytes of frames at most, whatever the budget; 0: no limit.
    max_frames: u64,
    /// Bytes that are reserved for the ring.
    max_ring: u64,
    closing: bool,
}

impl State {
    /// The state at the start, with a ring whose memory is reserved at the largest size that it may take. Its first plan,
    /// and memory for it, are made by [`State::take_work`].
    pub fn new(fixed: &Fixed, accounting: Accounting, ring: Ring) -> Result<State> {
        let schedule = &fixed.schedule;
        let mut state = State {
            sizes: Sizes {
                min_ring: residency::min_ring(schedule),
                full: residency::full(schedule),
                host_bytes: Fixed::host_bytes(schedule),
                in_flight: Fixed::in_flight_bytes(fixed.readers),
                working_set: schedule.working_set_bytes(),
            },
            cursor: Cursor::new(schedule.sweep_len),
            pages: Placement::new(schedule)?,
            experts: ExpertCache::new(schedule)?,
            upkeep: Upkeep::default(),
            requests: Requests::new(),
            accounting,
            stats: Stats::default(),
            planned_for: None,
            closing: false,
            max_frames: fixed.max_frames,
            max_ring: ring.memory().size() as u64,
            ring,
        };
        for p in 0..schedule.pages.len() {
            state.reindex(fixed, p);
        }
        Ok(state)
    }

    /// Bytes of book-keeping per page, for the budget.
    pub const fn bytes_per_page() -> usize {
        Placement::bytes_per_page()
    }

    /// The same per expert.
    pub const fn bytes_per_expert() -> usize {
        ExpertCache::bytes_per_expert()
    }

    /// Brings the indexes up to date after a change of a page.
    fn reindex(&mut self, fixed: &Fixed, p: usize) {
        let above = self.ring_end(fixed, p) > self.sizes.min_ring;
        self.pages.reindex(&fixed.schedule, p, self.cursor.place_of(p), above);
    }

    // --- budget ---------------------------------------------------------------------------------------------------

    pub fn used(&self) -> u64 {
        self.accounting.beside_ring() + self.ring.extent().max(self.upkeep.ring_given())
    }

    /// Bytes of pages that the ring's memory holds beyond the ring.
    #[cfg(all(test, target_os = "linux"))]
    pub fn bytes_beyond_ring(&self) -> usize {
        self.ring.bytes_beyond()
    }

    /// Whether memory is being given back.
    #[cfg(all(test, shuttle))]
    pub fn gives_back(&self) -> bool {
        self.accounting.returning > 0 || self.upkeep.ring_given() > self.ring.extent() || self.stale_plan().is_some()
    }

    pub fn budget(&self) -> u64 {
        self.accounting.budget
    }

    /// Bytes of sessions.
    #[cfg(test)]
    pub fn session_bytes(&self) -> u64 {
        self.accounting.sessions
    }

    pub fn residency(&self) -> &Residency {
        &self.pages.residency
    }

    pub fn snapshot(&self) -> Stats {
        Stats {
            budget_bytes: self.accounting.budget,
            used_bytes: self.used(),
            peak_bytes: self.accounting.peak,
            pinned_bytes: self.pages.residency.pinned_bytes,
            expert_working_set_bytes: self.sizes.working_set,
            ..self.stats
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn note_peak(&mut self) {
        // Over the budget is what was claimed and waits for frames to go, or frames that a smaller budget waits for, which
        // were counted when they came.
        self.accounting.peak = self.accounting.peak.max(self.used().min(self.accounting.budget));
    }

    /// Frame bytes that may be used; `None`: too few for a pass.
    fn capacity(&self) -> Option<u64> {
        let capacity = self.accounting.budget.checked_sub(self.accounting.without_frames(0))?;
        let (least, most) = (self.sizes.min_ring, self.max_frames);
        (capacity >= least).then(|| if most == 0 { capacity } else { capacity.min(most.max(least)) })
    }

    /// What the model needs now, with `more` bytes for sessions.
    pub fn needs(&self, more: u64) -> Needs {
        let base = self.accounting.without_frames(more);
        Needs { least: base.saturating_add(self.sizes.min_ring), full: base.saturating_add(self.sizes.full) }
    }

    /// Changes the budget, or nothing where it is below what is needed now. The plan follows by [`State::take_work`].
    pub fn set_budget(&mut self, budget: u64) -> Result<()> {
        let before = std::mem::replace(&mut self.accounting.budget, budget);
        if self.capacity().is_none() {
            self.accounting.budget = before;
            return Err(self.below_floor(budget, 0));
        }
        self.budget_changed();
        Ok(())
    }

    /// Takes memory for a session out of what frames may use. The plan follows by [`State::take_work`].
    pub fn reserve(&mut self, bytes: u64) -> Result<()> {
        let before = self.accounting.sessions;
        self.accounting.sessions = before.saturating_add(bytes);
        if self.capacity().is_none() {
            self.accounting.sessions = before;
            return Err(self.below_floor(self.accounting.budget, bytes));
        }
        self.budget_changed();
        Ok(())
    }

    pub fn release(&mut self, bytes: u64) {
        self.accounting.sessions -= bytes;
        self.budget_changed();
    }

    fn budget_changed(&mut self) {
        self.fit_ring();
        self.note_peak();
    }

    fn below_floor(&self, budget: u64, more: u64) -> Error {
        let l = &self.accounting;
        let (floor, least) = (self.needs(more).least, self.sizes.min_ring);
        let sessions = l.sessions.saturating_add(more).max(l.session_reserve);
        Error::new(
            Status::MemoryBudget,
            format!(
                "a budget of {budget} bytes is below the {floor} needed (tables and scratch {}, sessions {sessions}, frames {least})",
                l.fixed
            ),
        )
    }

    /// Whether the present plan keeps the page where it is.
    fn is_planned(&self, fixed: &Fixed, p: usize) -> bool {
        match self.pages.slots[p].place {
            Some(Place::Own(_)) => self.pages.residency.pinned[p],
            Some(Place::Cached { .. }) => self.pages.slots[p].cached,
            Some(Place::Ring(_)) => self.ring_end(fixed, p) <= self.ring.limit(),
            None => true,
        }
    }

    fn planned_ring(&self) -> u64 {
        self.pages.residency.ring_bytes.min(self.max_ring)
    }

    /// Makes the ring as large as planned, or as what is left beside pages that the plan no longer keeps but a pass or a
    /// read still uses, and memory that is being given back: it grows when they go.
    fn fit_ring(&mut self) {
        let room = self.accounting.budget.saturating_sub(self.accounting.beside_ring());
        let before = self.ring.extent();
        let limit = self.planned_ring().min(room).min(self.upkeep.ring_ceiling());
        // It ends with a page of the system, or what lies beyond could not be given back.
        self.ring.set_limit(limit & !(granule() - 1));
        self.upkeep.ring_reaches(self.ring.extent());
        if self.ring.extent() > before {
            self.note_peak();
        }
    }

    // --- pages ----------------------------------------------------------------------------------------------------

    pub fn is_idle(&self, p: usize) -> bool {
        matches!(self.pages.slots[p].presence, Presence::Ready) && self.pages.slots[p].users == 0
    }

    pub fn is_ready(&self, p: usize) -> bool {
        matches!(self.pages.slots[p].presence, Presence::Ready)
    }

    pub fn is_absent(&self, p: usize) -> bool {
        matches!(self.pages.slots[p].presence, Presence::Absent)
    }

    #[cfg(test)]
    pub fn is_loading(&self, p: usize) -> bool {
        matches!(self.pages.slots[p].presence, Presence::Loading { .. })
    }

    /// Whether the page stays: by the plan, or with its expert.
    pub fn stays(&self, p: usize) -> bool {
        self.pages.stays(p)
    }

    /// Why the last reading of the page failed, once.
    pub fn take_failure(&mut self, fixed: &Fixed, p: usize) -> Option<Error> {
        let failure = self.pages.slots[p].failure.take();
        self.reindex(fixed, p);
        failure
    }

    /// The span of a page in the file it is mapped in.
    fn mapped_span(fixed: &Fixed, p: usize) -> Option<Range<usize>> {
        let page = fixed.page(p);
        let map = fixed.sources[page.file as usize].mapping()?;
        let end = (page.extent_offset + page.extent_bytes).min(map.len() as u64);
        Some(page.extent_offset as usize..end as usize)
    }

    /// Acquires a ready page. Its bytes are to be dropped before [`State::release_page`].
    pub fn acquire_page<'a>(&mut self, fixed: &'a Fixed, p: usize) -> Option<PageBytes<'a>> {
        if !self.is_ready(p) {
            return None;
        }
        let page = fixed.page(p);
        let bytes = match fixed.sources[page.file as usize].mapping() {
            Some(map) => PageBytes::Mapped(&map[page.extent_offset as usize + page.padding()..][..page.bytes as usize]),
            None => {
                let frame = self.pages.slots[p].place.as_mut()?.frame()?;
                PageBytes::Framed(frame.view(page.padding(), page.bytes as usize))
            }
        };
        self.pages.slots[p].users += 1;
        self.reindex(fixed, p);
        Some(bytes)
    }

    /// Releases an acquired page; `used`: a sweep is done with it. Whether frames became free.
    pub fn release_page(&mut self, fixed: &Fixed, p: usize, used: bool) -> bool {
        self.pages.slots[p].users -= 1;
        if used {
            self.clear_protectors(p);
            self.cursor.pass_by(p);
        }
        self.reindex(fixed, p);
        // A frame that the page no longer has was only waiting for its holder. Of the ring a page goes when a sweep has used
        // it, or when the ring has become smaller meanwhile.
        let in_ring = matches!(self.pages.slots[p].place, Some(Place::Ring(_)) | None);
        let unplanned = !self.is_planned(fixed, p);
        let goes = if in_ring { used || unplanned && self.cursor.needed() != Some(p) } else { unplanned };
        if !goes || self.pages.slots[p].users > 0 {
            return false;
        }
        self.evict(fixed, p);
        self.fit_ring();
        true
    }

    /// Makes a page absent. What it used counts until the system has it back.
    fn evict(&mut self, fixed: &Fixed, p: usize) {
        let page = fixed.page(p);
        if let Some(span) = State::mapped_span(fixed, p) {
            self.upkeep.forget(page.file as usize, span);
        }
        self.clear_protectors(p);
        let slot = &mut self.pages.slots[p];
        slot.presence = Presence::Absent;
        match slot.place.take() {
            Some(Place::Own(frame)) => {
                self.accounting.own -= page.extent_bytes;
                self.accounting.returning += page.extent_bytes;
                self.upkeep.give_back(frame, page.extent_bytes);
                self.stats.evictions += 1;
            }
            Some(Place::Cached { frame, part }) => {
                let kept = slot.cached;
                self.page_left(frame, part, kept);
                self.stats.evictions += 1;
            }
            Some(Place::Ring(frame)) => {
                self.ring.free(frame);
                self.stats.evictions += 1;
            }
            None => {}
        }
        self.reindex(fixed, p);
    }

    // --- the sweep ------------------------------------------------------------------------------------------------

    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    pub fn begin_sweep(&mut self, fixed: &Fixed, end: usize) {
        self.experts.begin_sweep();
        let changed = self.cursor.begin(end);
        self.reindex_all(fixed, changed);
    }

    pub fn end_sweep(&mut self, fixed: &Fixed) {
        // A page that the plan does not keep came for the sweep, which has ended before it took it.
        if let Some(next) = self.cursor.needed()
            && self.is_idle(next)
            && !self.is_planned(fixed, next)
        {
            self.evict(fixed, next);
            self.fit_ring();
        }
        self.forget_foreseen(fixed);
        let changed = self.cursor.finish(fixed.schedule.sweep_len);
        self.reindex_all(fixed, changed);
    }

    /// The sweep will take these experts at the next route point, in this order; they are of one layer. `first_ready`: puts
    /// those that are there before the others, so that these are read meanwhile.
    pub fn route(&mut self, fixed: &Fixed, experts: &mut [RoutedExpert], first_ready: bool) {
        self.choose_experts(fixed, experts, first_ready);
        let pages = experts.iter().flat_map(|e| fixed.schedule.experts[e.expert as usize].pages());
        let changed = self.cursor.route(&fixed.schedule, pages);
        self.reindex_all(fixed, changed);
    }

    /// The sweep takes page `p` now.
    pub fn move_to(&mut self, fixed: &Fixed, p: usize) {
        let changed = self.cursor.move_to(&fixed.schedule, p);
        self.reindex_all(fixed, changed);
    }

    fn reindex_all(&mut self, fixed: &Fixed, changed: Vec<usize>) {
        changed.into_iter().for_each(|p| self.reindex(fixed, p));
    }

    /// Whether the page the sweep waits for has failed.
    pub fn has_stuck_sweep(&self) -> bool {
        self.cursor.needed().is_some_and(|p| self.pages.slots[p].failure.is_some())
    }

    // --- the host ---------------------------------------------------------------------------------------------------

    pub fn layer_state(&self, layer: u32) -> LayerState {
        self.pages.layer_state(layer)
    }

    /// From now on nothing more is read.
    pub fn close(&mut self) {
        self.closing = true;
    }

    pub fn closing(&self) -> bool {
        self.closing
    }

    /// Whether a page is absent although there is a frame for it and a place among the outstanding reads.
    #[cfg(test)]
    pub fn could_read(&self, fixed: &Fixed) -> bool {
        if self.requests.outstanding >= fixed.max_outstanding {
            return false;
        }
        let pinned = (0..self.pages.slots.len()).any(|p| self.wanted(p) && self.stays(p));
        let mut parts = self.cursor.order(fixed.schedule.sweep_len).into_iter();
        let passing = parts.find_map(|part| self.pages.first_wanted(&part, i64::MIN, Kinds::Passing));
        let Some((_, p)) = passing else { return pinned };
        pinned || self.ring.has_room(fixed.page(p).extent_bytes)
    }

    /// Whether somebody should look for pages to read. While as many reads are under way as may be, the thread that finishes one
    /// looks.
    pub fn may_start_reads(&self, fixed: &Fixed) -> bool {
        (self.pages.absent > 0
            || self.cursor.has_routed()
            || self.experts.has_foreseen()
            || self.experts.has_room_for_likely())
            && self.requests.outstanding < fixed.max_outstanding
    }
}
