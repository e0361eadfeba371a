//! What the engine knows, behind one lock that is never held over a read: where each page is, what the sweep needs next,
//! what the host asked for, what the budget allows. Every decision about reading and giving up is made here, so that it
//! can be tested without threads.

mod accounting;
mod reading;

use std::collections::VecDeque;

use crate::error::{Error, Result, Status};
use crate::sys::pages::forget_file_range;
use crate::weights::budget::Needs;
use crate::weights::events::{LayerRequest, Tickets};
use crate::weights::frames::{Frame, FrameMemory, Ring, Window};
use crate::weights::residency::{self, Residency};
use crate::weights::schedule::{Page, Schedule};
use crate::weights::source::Source;
use crate::weights::{LayerState, Stats};

pub use accounting::Accounting;

/// Reads are about this large: where storage reaches its speed with four of them in flight.
const REQUEST_BYTES: u64 = 2 << 20;

/// What does not change while the model is open.
pub struct Fixed {
    pub schedule: Schedule,
    pub sources: Vec<Box<dyn Source>>,
    /// Frames that pages pass through, reserved at the largest size the ring may take.
    pub ring_memory: FrameMemory,
    /// Read requests that may be under way or waiting for a reader.
    pub max_outstanding: usize,
    pub readers: usize,
    /// Layers ahead of the sweep that may be read; 0: any.
    pub prefetch_distance: u32,
    /// Bytes of frames at most, whatever the budget; 0: no limit.
    pub max_frames: u64,
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

/// One read: part of a page's span, into its frame.
pub struct Request {
    pub page: usize,
    pub file: usize,
    pub offset: u64,
    pub window: Window,
}

enum Place {
    /// A frame of its own; without memory where the file is mapped and only the accounting is needed.
    Own(Option<Frame>),
    /// A stretch of the ring, by offset.
    Ring(u64),
}

enum Presence {
    Absent,
    Loading { left: usize, failure: Option<Error> },
    Ready,
}

struct Slot {
    presence: Presence,
    place: Option<Place>,
    /// A frame of its own that waits for the page to be read.
    reserved: Option<Frame>,
    /// Sweeps and row readers that use the page now.
    users: u32,
    /// Tickets that keep the page until it is used or they are cancelled.
    protectors: Vec<u64>,
    /// Why the last reading failed; cleared when it is tried again.
    failure: Option<Error>,
}

pub struct State {
    slots: Vec<Slot>,
    residency: Residency,
    ring: Ring,
    pub accounting: Accounting,
    pub tickets: Tickets,
    pub stats: Stats,
    /// The page of the circle that the sweep uses or needs next.
    cursor: usize,
    /// Pages of experts that the sweep was routed to and has not let go of, in the order in which it takes them.
    routed: VecDeque<usize>,
    /// The place of the circle before which it takes them.
    route_point: usize,
    /// Where the running sweep ends.
    end: usize,
    sweeping: bool,
    /// Sweeps waiting for their turn, first come first served.
    pub turns: VecDeque<u64>,
    pub last_turn: u64,
    outstanding: usize,
    /// Pages of the circle, or to be kept, that are neither there nor on their way.
    absent: usize,
    /// Ring bytes for layers that the host prefetches. 0 until it asks for one: a deeper ring keeps fewer pages, and every
    /// pass of a host that never prefetches would pay for it.
    host_depth: u64,
    /// Capacity and ring depth of the present plan.
    planned_for: Option<(u64, u64)>,
    /// Takes turns between the host's requests and reading ahead, so that neither starves.
    host_next: bool,
    pub closing: bool,
}

impl State {
    pub fn new(fixed: &Fixed, accounting: Accounting) -> State {
        let slot = || Slot {
            presence: Presence::Absent,
            place: None,
            reserved: None,
            users: 0,
            protectors: Vec::new(),
            failure: None,
        };
        let mut state = State {
            slots: std::iter::repeat_with(slot).take(fixed.schedule.pages.len()).collect(),
            residency: Residency {
                pinned: vec![false; fixed.schedule.pages.len()],
                pinned_bytes: 0,
                ring_bytes: 0,
                streamed_bytes: 0,
            },
            ring: Ring::new(0),
            accounting,
            tickets: Tickets::default(),
            stats: Stats::default(),
            cursor: 0,
            routed: VecDeque::new(),
            route_point: 0,
            end: fixed.schedule.sweep_len,
            sweeping: false,
            turns: VecDeque::new(),
            last_turn: 0,
            outstanding: 0,
            absent: fixed.schedule.sweep_len,
            host_depth: 0,
            planned_for: None,
            host_next: false,
            closing: false,
        };
        state.replan(fixed);
        state
    }

    /// Bytes of book-keeping per page, for the budget.
    pub const fn bytes_per_page() -> usize {
        size_of::<Slot>() + 2
    }

    // --- budget ---------------------------------------------------------------------------------------------------

    pub fn used(&self) -> u64 {
        self.accounting.fixed + self.accounting.sessions + self.accounting.own + self.ring.extent()
    }

    pub fn residency(&self) -> &Residency {
        &self.residency
    }

    pub fn snapshot(&self) -> Stats {
        Stats {
            budget_bytes: self.accounting.budget,
            used_bytes: self.used(),
            peak_bytes: self.accounting.peak,
            pinned_bytes: self.residency.pinned_bytes,
            ..self.stats
        }
    }

    fn note_peak(&mut self) {
        // Over the budget is what was claimed and waits for frames to go, or frames that a smaller budget waits for, which
        // were counted when they came.
        self.accounting.peak = self.accounting.peak.max(self.used().min(self.accounting.budget));
    }

    fn capacity(&self, fixed: &Fixed) -> Option<u64> {
        let accounting = &self.accounting;
        let capacity = accounting
            .budget
            .checked_sub(accounting.fixed)?
            .checked_sub(accounting.sessions.max(accounting.session_reserve))?;
        let least = residency::min_ring(&fixed.schedule);
        (capacity >= least).then(|| residency::usable(&fixed.schedule, capacity, fixed.max_frames))
    }

    /// What the model needs now, with `more` bytes for sessions.
    pub fn needs(&self, fixed: &Fixed, more: u64) -> Needs {
        let l = &self.accounting;
        let base = l.fixed.saturating_add(l.sessions.saturating_add(more).max(l.session_reserve));
        Needs {
            least: base.saturating_add(residency::min_ring(&fixed.schedule)),
            full: base.saturating_add(residency::full(&fixed.schedule)),
        }
    }

    /// Changes the budget and the plan with it, or nothing where it is below what is needed now.
    pub fn set_budget(&mut self, fixed: &Fixed, budget: u64) -> Result<()> {
        let before = std::mem::replace(&mut self.accounting.budget, budget);
        if self.capacity(fixed).is_none() {
            self.accounting.budget = before;
            return Err(self.below_floor(fixed, budget, 0));
        }
        self.replan(fixed);
        Ok(())
    }

    /// Takes memory for a session out of what frames may use.
    pub fn reserve(&mut self, fixed: &Fixed, bytes: u64) -> Result<()> {
        let before = self.accounting.sessions;
        self.accounting.sessions = before.saturating_add(bytes);
        if self.capacity(fixed).is_none() {
            self.accounting.sessions = before;
            return Err(self.below_floor(fixed, self.accounting.budget, bytes));
        }
        self.replan(fixed);
        Ok(())
    }

    pub fn release(&mut self, fixed: &Fixed, bytes: u64) {
        self.accounting.sessions -= bytes;
        self.replan(fixed);
    }

    fn below_floor(&self, fixed: &Fixed, budget: u64, more: u64) -> Error {
        let l = &self.accounting;
        let floor = self.needs(fixed, more).least;
        let sessions = l.sessions.saturating_add(more).max(l.session_reserve);
        let least = residency::min_ring(&fixed.schedule);
        Error::new(
            Status::MemoryBudget,
            format!(
                "a budget of {budget} bytes is below the {floor} needed (tables and scratch {}, sessions {sessions}, frames {least})",
                l.fixed
            ),
        )
    }

    /// Makes the plan for the present budget and gives up at once what it no longer keeps.
    fn replan(&mut self, fixed: &Fixed) {
        let Some(capacity) = self.capacity(fixed) else { return };
        let depth = Fixed::in_flight_bytes(fixed.readers).max(self.host_depth);
        if self.planned_for.replace((capacity, depth)) == Some((capacity, depth)) {
            return self.note_peak();
        }
        self.residency = residency::plan(&fixed.schedule, capacity, depth);
        for p in 0..self.slots.len() {
            if self.is_pinned(p) {
                continue;
            }
            self.slots[p].reserved = None;
            if matches!(self.slots[p].place, Some(Place::Own(_))) && self.is_idle(p) {
                self.evict(fixed, p);
            }
        }
        self.fit_ring(fixed);
        for p in 0..self.slots.len() {
            if !self.is_planned(fixed, p) && self.is_idle(p) {
                self.evict(fixed, p);
            }
        }
        self.absent = (0..self.slots.len()).filter(|&p| self.is_absent(p) && self.is_expected(fixed, p)).count();
        self.note_peak();
    }

    /// Whether the page is read sooner or later, whatever passes are routed to.
    fn is_expected(&self, fixed: &Fixed, p: usize) -> bool {
        p < fixed.schedule.sweep_len || self.is_pinned(p)
    }

    /// Whether the present plan keeps the page where it is.
    fn is_planned(&self, fixed: &Fixed, p: usize) -> bool {
        match self.slots[p].place {
            Some(Place::Own(_)) => self.is_pinned(p),
            Some(Place::Ring(_)) => self.ring_end(fixed, p) <= self.ring.limit(),
            None => true,
        }
    }

    fn planned_ring(&self, fixed: &Fixed) -> u64 {
        self.residency.ring_bytes.min(fixed.ring_memory.size() as u64)
    }

    /// Makes the ring as large as planned, or as what is left beside pages that the plan no longer keeps but a pass or a
    /// read still uses: it grows when they go.
    fn fit_ring(&mut self, fixed: &Fixed) {
        let l = &self.accounting;
        let room = l.budget.saturating_sub(l.fixed + l.sessions + l.own);
        let before = self.ring.extent();
        self.ring.set_limit(self.planned_ring(fixed).min(room));
        if self.ring.extent() > before {
            fixed.ring_memory.use_huge_pages(self.ring.extent() as usize);
            self.note_peak();
        }
        self.discard_beyond_ring(fixed, before);
    }

    /// Gives memory that a smaller ring no longer uses back to the system.
    fn discard_beyond_ring(&self, fixed: &Fixed, before: u64) {
        let extent = self.ring.extent();
        if before > extent {
            fixed.ring_memory.use_huge_pages(extent as usize);
            fixed.ring_memory.discard(extent as usize, (before - extent) as usize);
        }
    }

    // --- pages ----------------------------------------------------------------------------------------------------

    pub fn is_idle(&self, p: usize) -> bool {
        matches!(self.slots[p].presence, Presence::Ready) && self.slots[p].users == 0
    }

    pub fn is_ready(&self, p: usize) -> bool {
        matches!(self.slots[p].presence, Presence::Ready)
    }

    pub fn is_absent(&self, p: usize) -> bool {
        matches!(self.slots[p].presence, Presence::Absent)
    }

    #[cfg(test)]
    pub fn is_loading(&self, p: usize) -> bool {
        matches!(self.slots[p].presence, Presence::Loading { .. })
    }

    pub fn is_pinned(&self, p: usize) -> bool {
        self.residency.pinned[p]
    }

    /// Why the last reading of the page failed, once.
    pub fn take_failure(&mut self, p: usize) -> Option<Error> {
        self.slots[p].failure.take()
    }

    /// The frame of a page that has one: its whole span.
    fn window(&self, fixed: &Fixed, p: usize) -> Option<Window> {
        let page = fixed.page(p);
        let len = page.extent_bytes as usize;
        if let Some(map) = fixed.sources[page.file as usize].mapping() {
            let end = (page.extent_offset + page.extent_bytes).min(map.len() as u64);
            return Some(Window::of_mapping(map, page.extent_offset as usize, (end - page.extent_offset) as usize));
        }
        match self.slots[p].place.as_ref()? {
            Place::Own(frame) => frame.as_ref().map(Frame::window),
            Place::Ring(offset) => Some(fixed.ring_memory.window(*offset as usize, len)),
        }
    }

    /// Holds a ready page and says where its bytes are.
    pub fn acquire_page(&mut self, fixed: &Fixed, p: usize) -> Option<Window> {
        if !self.is_ready(p) {
            return None;
        }
        let page = fixed.page(p);
        let window = self.window(fixed, p)?.part(page.padding(), page.bytes as usize);
        self.slots[p].users += 1;
        Some(window)
    }

    /// Lets a held page go; `used`: a sweep is done with it. Whether frames became free.
    pub fn release_page(&mut self, fixed: &Fixed, p: usize, used: bool) -> bool {
        self.slots[p].users -= 1;
        if used {
            self.slots[p].protectors.clear();
            if self.routed.front() == Some(&p) {
                self.routed.pop_front();
            } else if self.cursor == p {
                self.cursor = p + 1;
            }
        }
        // A frame of its own that the plan no longer keeps was only waiting for its holder.
        let own = matches!(self.slots[p].place, Some(Place::Own(_)));
        let goes = if own { !self.is_pinned(p) } else { used };
        if !goes || self.slots[p].users > 0 {
            return false;
        }
        self.evict(fixed, p);
        self.fit_ring(fixed);
        true
    }

    fn evict(&mut self, fixed: &Fixed, p: usize) {
        let page = fixed.page(p);
        if let (Some(map), Some(window)) = (fixed.sources[page.file as usize].mapping(), self.window(fixed, p)) {
            forget_file_range(map, page.extent_offset as usize, window.size());
        }
        self.absent += usize::from(self.is_expected(fixed, p));
        let slot = &mut self.slots[p];
        slot.presence = Presence::Absent;
        slot.protectors.clear();
        match slot.place.take() {
            Some(Place::Own(_)) => self.accounting.own -= page.extent_bytes,
            Some(Place::Ring(offset)) => {
                let before = self.ring.extent();
                self.ring.free(offset);
                self.discard_beyond_ring(fixed, before);
            }
            None => return,
        }
        self.stats.evictions += 1;
    }

    // --- the sweep ------------------------------------------------------------------------------------------------

    pub fn begin_sweep(&mut self, end: usize) {
        self.start_over(end);
        self.sweeping = true;
    }

    pub fn end_sweep(&mut self, fixed: &Fixed) {
        // A page that the plan does not keep came for the sweep, which has ended before it took it.
        if let Some(next) = self.needed()
            && self.is_idle(next)
            && !self.is_planned(fixed, next)
        {
            self.evict(fixed, next);
            self.fit_ring(fixed);
        }
        self.sweeping = false;
        self.start_over(fixed.schedule.sweep_len);
    }

    fn start_over(&mut self, end: usize) {
        self.cursor = 0;
        self.end = end;
        self.routed.clear();
        self.route_point = 0;
    }

    pub fn sweeping(&self) -> bool {
        self.sweeping
    }

    /// The sweep will take these pages at the next route_point, in this order.
    pub fn route(&mut self, fixed: &Fixed, pages: impl Iterator<Item = usize>) {
        let route_points = &fixed.schedule.route_points;
        let next = route_points.partition_point(|&route_point| (route_point as usize) < self.cursor);
        self.route_point = route_points.get(next).map_or(self.cursor, |&route_point| route_point as usize);
        self.routed.clear();
        self.routed.extend(pages);
    }

    /// The sweep takes page `p` now.
    pub fn move_to(&mut self, fixed: &Fixed, p: usize) {
        if p < fixed.schedule.sweep_len {
            self.cursor = p;
            if p >= self.route_point {
                self.routed.clear();
            }
            return;
        }
        self.route_point = self.cursor;
        if self.routed.contains(&p) {
            while self.routed.front() != Some(&p) {
                self.routed.pop_front();
            }
        } else {
            self.routed.push_front(p);
        }
    }

    /// The page that the running sweep uses or needs next.
    fn needed(&self) -> Option<usize> {
        let here = if self.cursor < self.route_point { None } else { self.routed.front().copied() };
        here.or((self.cursor < self.end).then_some(self.cursor)).filter(|_| self.sweeping)
    }

    /// How many pages the sweep uses before this one; the next sweep starts at the top. Experts that nobody is routed to
    /// come last.
    fn distance(&self, fixed: &Fixed, p: usize) -> usize {
        let before_route_point = self.route_point.saturating_sub(self.cursor);
        if p >= fixed.schedule.sweep_len {
            let place = self.routed.iter().position(|&q| q == p);
            return place.map_or(usize::MAX, |at| before_route_point + at);
        }
        let ahead = if (self.cursor..self.end).contains(&p) {
            p - self.cursor
        } else {
            self.end.max(self.cursor) - self.cursor + p
        };
        if ahead < before_route_point { ahead } else { ahead + self.routed.len() }
    }

    /// The page that is needed after `i` others from here; pages beyond the end of the sweep come last.
    fn page_ahead(&self, fixed: &Fixed, i: usize) -> Option<usize> {
        let before_route_point = self.route_point.saturating_sub(self.cursor);
        let i = match i.checked_sub(before_route_point) {
            None => i,
            Some(at) if at < self.routed.len() => return Some(self.routed[at]),
            Some(_) => i - self.routed.len(),
        };
        let left = self.end.saturating_sub(self.cursor);
        let p = match i {
            i if i < left => self.cursor + i,
            i if i < left + self.cursor => i - left,
            i => i,
        };
        (p < fixed.schedule.sweep_len).then_some(p)
    }

    /// Whether the sweep takes pages before `p` of which it is not known yet which they are.
    fn is_beyond_route_point(&self, fixed: &Fixed, p: usize) -> bool {
        let route_points = fixed.schedule.route_points.iter().map(|&route_point| route_point as usize);
        let here = self.cursor.max(self.route_point);
        match route_points.clone().find(|&route_point| route_point > here) {
            Some(next) => p >= next || p < self.cursor,
            // The next sweep comes to the first route_point again.
            None => p < self.cursor && route_points.min().is_some_and(|first| p >= first),
        }
    }

    // --- the host ---------------------------------------------------------------------------------------------------

    pub fn layer_state(&self, fixed: &Fixed, layer: u32) -> LayerState {
        let mut state = LayerState::Pinned;
        for p in fixed.schedule.layer_pages(layer) {
            match self.slots[p].presence {
                Presence::Loading { .. } => return LayerState::Loading,
                Presence::Absent => state = LayerState::Absent,
                Presence::Ready if state == LayerState::Pinned && !self.is_pinned(p) => state = LayerState::Ready,
                Presence::Ready => {}
            }
        }
        state
    }

    pub fn prefetch(&mut self, fixed: &Fixed, first: u32, count: u32) -> Result<u64> {
        let layers = (first..first + count)
            .map(|layer| LayerRequest {
                layer,
                queued: fixed.schedule.layer_pages(layer).map(|p| p as u32).collect(),
                loading: Vec::new(),
                bytes: 0,
                failure: None,
            })
            .collect();
        let id = self.tickets.open(layers)?;
        let depth = Fixed::host_bytes(&fixed.schedule);
        if self.host_depth < depth {
            self.host_depth = depth;
            self.replan(fixed);
        }
        self.stats.prefetch_requests += 1;
        Ok(id)
    }

    /// Whether a page is absent although there is a frame for it and a place among the outstanding reads.
    #[cfg(test)]
    pub fn could_read(&self, fixed: &Fixed) -> bool {
        if self.outstanding >= fixed.max_outstanding {
            return false;
        }
        let pinned = (0..self.slots.len()).any(|p| self.wanted(p) && self.is_pinned(p));
        let mut ahead = (0..).map_while(|i| self.page_ahead(fixed, i));
        let Some(p) = ahead.find(|&p| self.wanted(p) && !self.is_pinned(p)) else { return pinned };
        pinned || self.ring.has_room(fixed.page(p).extent_bytes)
    }

    /// Whether somebody should look for pages to read. While as many reads are under way as may be, whoever finishes one
    /// looks.
    pub fn may_start_reads(&self, fixed: &Fixed) -> bool {
        (self.absent > 0 || !self.routed.is_empty()) && self.outstanding < fixed.max_outstanding
    }

    /// Whether the page the sweep waits for has failed.
    pub fn has_stuck_sweep(&self) -> bool {
        self.needed().is_some_and(|p| self.slots[p].failure.is_some())
    }

    /// Reads under way or waiting for a reader.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }
}
