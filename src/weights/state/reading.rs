//! What to read next, and which frame it gets: for the sweep, ahead of it, and for the host.

use std::io;

use super::*;

impl State {
    /// The reads of the page that should be read next, if one should and can be now.
    pub fn next_page(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        if self.closing || self.outstanding >= fixed.max_outstanding {
            return None;
        }
        if let Some(p) = self.needed()
            && self.wanted(p)
            && let Some(requests) = self.start_for_sweep(fixed, p)
        {
            return Some(requests);
        }
        self.host_next = !self.host_next;
        if self.host_next {
            self.next_for_host(fixed).or_else(|| self.next_ahead(fixed))
        } else {
            self.next_ahead(fixed).or_else(|| self.next_for_host(fixed))
        }
    }

    /// Absent, and not known to fail: a page that failed is tried again when it is needed.
    pub(super) fn wanted(&self, p: usize) -> bool {
        self.is_absent(p) && self.slots[p].failure.is_none()
    }

    fn next_ahead(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        let layer_of = |p: usize| fixed.page(p).layer;
        let here = if self.cursor < self.end { layer_of(self.cursor) } else { 0 };
        let mut ring_is_full = false;
        let mut ahead = 0;
        while let Some(p) = self.page_ahead(fixed, ahead) {
            ahead += 1;
            if !self.wanted(p) {
                continue;
            }
            if fixed.prefetch_distance > 0 && p < fixed.schedule.sweep_len {
                let ahead = (layer_of(p) + fixed.schedule.layer_count - here) % fixed.schedule.layer_count;
                if ahead > fixed.prefetch_distance {
                    continue;
                }
            }
            if !self.is_pinned(p) {
                // Ring frames are filled in order: a farther page must not take the room of a nearer one.
                if ring_is_full {
                    continue;
                }
                match self.start_for_sweep(fixed, p) {
                    Some(requests) => return Some(requests),
                    None => ring_is_full = true,
                }
            } else if let Some(requests) = self.start_for_sweep(fixed, p) {
                return Some(requests);
            }
        }
        if self.absent == 0 {
            return None;
        }
        let others = fixed.schedule.sweep_len..fixed.schedule.pages.len();
        let other = others.into_iter().find(|&p| self.is_pinned(p) && self.wanted(p))?;
        self.start_for_sweep(fixed, other)
    }

    fn next_for_host(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        let mut open = std::mem::take(&mut self.tickets.open);
        let mut found = None;
        'search: for ticket in &mut open {
            for layer in &mut ticket.layers {
                while let Some(&page) = layer.queued.front() {
                    let p = page as usize;
                    if self.is_absent(p) {
                        self.slots[p].failure = None;
                        match self.start_for_host(fixed, p) {
                            HostFrame::Found(requests) => found = Some(requests),
                            HostFrame::Later => break 'search,
                            HostFrame::Never => {
                                let refusal = || no_frame(fixed, p, layer.layer);
                                layer.failure = layer.failure.take().or_else(|| Some(refusal()));
                            }
                        }
                    }
                    layer.queued.pop_front();
                    self.protect(fixed, p, ticket.id);
                    if matches!(self.slots[p].presence, Presence::Loading { .. }) {
                        layer.loading.push(page);
                    }
                    if found.is_some() {
                        break 'search;
                    }
                }
            }
        }
        self.tickets.open = open;
        self.stats.prefetch_failures += self.tickets.settle();
        found
    }

    /// Keeps a page for a ticket, unless that would take room that passes need to get on.
    fn protect(&mut self, fixed: &Fixed, p: usize, ticket: u64) {
        let slot = &mut self.slots[p];
        if let Some(Place::Ring(offset)) = slot.place
            && offset >= residency::min_ring(&fixed.schedule)
            && !slot.protectors.contains(&ticket)
        {
            slot.protectors.push(ticket);
        }
    }

    pub fn unprotect(&mut self, ticket: u64) {
        for slot in &mut self.slots {
            slot.protectors.retain(|&t| t != ticket);
        }
    }

    /// Starts to read a page where the plan puts it; room in the ring is made of pages needed later than it.
    ///
    /// What lies beyond a route_point is read ahead only above the least ring, which is for the experts that the route_point will ask for.
    /// These, until the sweep stands still for them, take no room from pages that are there: giving one up would be to read
    /// it twice.
    pub fn start_for_sweep(&mut self, fixed: &Fixed, p: usize) -> Option<Vec<Request>> {
        if self.is_pinned(p) {
            return self.start_own(fixed, p);
        }
        let page = fixed.page(p);
        let needed = self.needed() == Some(p);
        let from = if !needed && p < fixed.schedule.sweep_len && self.is_beyond_route_point(fixed, p) {
            residency::min_ring(&fixed.schedule)
        } else {
            0
        };
        let near = if needed || p < fixed.schedule.sweep_len { self.distance(fixed, p) } else { usize::MAX - 1 };
        loop {
            if let Some(offset) = self.ring.allocate(page.extent_bytes, from) {
                return Some(self.start(fixed, p, Place::Ring(offset)));
            }
            let victim =
                self.evictable(fixed, |state, q| state.distance(fixed, q) > near && state.ring_end(fixed, q) > from)?;
            self.evict(fixed, victim);
        }
    }

    fn start_for_host(&mut self, fixed: &Fixed, p: usize) -> HostFrame {
        if self.is_pinned(p) {
            return self.start_own(fixed, p).map_or(HostFrame::Never, HostFrame::Found);
        }
        let bytes = fixed.page(p).extent_bytes;
        // Below this the ring belongs to passes alone.
        let from = residency::min_ring(&fixed.schedule);
        loop {
            if let Some(offset) = self.ring.allocate(bytes, from) {
                return HostFrame::Found(self.start(fixed, p, Place::Ring(offset)));
            }
            if let Some(victim) = self.evictable(fixed, |state, q| state.ring_end(fixed, q) > from) {
                self.evict(fixed, victim);
                continue;
            }
            let growing = self.ring.limit() < self.planned_ring(fixed);
            let busy = growing
                || (0..self.slots.len())
                    .any(|q| self.ring_end(fixed, q) > from && self.slots[q].protectors.is_empty() && !self.is_idle(q));
            return if busy { HostFrame::Later } else { HostFrame::Never };
        }
    }

    /// Where a page's stretch of the ring ends; 0 where it is not in the ring.
    pub(super) fn ring_end(&self, fixed: &Fixed, p: usize) -> u64 {
        match self.slots[p].place {
            Some(Place::Ring(offset)) => offset + fixed.page(p).extent_bytes,
            _ => 0,
        }
    }

    /// The ring page needed last among those that may go: ready, in nobody's hands, kept for nobody.
    fn evictable(&self, fixed: &Fixed, admit: impl Fn(&State, usize) -> bool) -> Option<usize> {
        (0..self.slots.len())
            .filter(|&q| {
                matches!(self.slots[q].place, Some(Place::Ring(_)))
                    && self.is_idle(q)
                    && self.slots[q].protectors.is_empty()
                    && admit(self, q)
            })
            .max_by_key(|&q| self.distance(fixed, q))
    }

    fn start_own(&mut self, fixed: &Fixed, p: usize) -> Option<Vec<Request>> {
        let page = fixed.page(p);
        // While a smaller plan is still being reached, memory in use by a pass comes first.
        if self.used() + page.extent_bytes > self.accounting.budget {
            return None;
        }
        let mapped = fixed.sources[page.file as usize].mapping().is_some();
        let frame = match (!mapped).then(|| self.take_frame(fixed, p)).transpose() {
            Ok(frame) => frame,
            Err(e) => {
                let text = format!("{} bytes for {}: {e}", page.extent_bytes, fixed.describe(p));
                self.slots[p].failure = Some(Error::out_of_memory(text));
                return None;
            }
        };
        self.accounting.own += page.extent_bytes;
        Some(self.start(fixed, p, Place::Own(frame)))
    }

    /// A frame for a page that stays: in one piece with those of its neighbours that stay too and have none yet.
    fn take_frame(&mut self, fixed: &Fixed, p: usize) -> io::Result<Frame> {
        if let Some(frame) = self.slots[p].reserved.take() {
            return Ok(frame);
        }
        let waits = |&q: &usize| self.is_pinned(q) && self.slots[q].place.is_none() && self.slots[q].reserved.is_none();
        let first = (0..p).rev().take_while(waits).last().unwrap_or(p);
        let sizes: Vec<usize> =
            (first..self.slots.len()).take_while(waits).map(|q| fixed.page(q).extent_bytes as usize).collect();
        // Where the system does not give that much at once, it may give the page's own.
        let (first, frames) = match Frame::run(&sizes) {
            Ok(frames) => (first, frames),
            Err(_) => (p, Frame::run(&[fixed.page(p).extent_bytes as usize])?),
        };
        for (slot, frame) in self.slots[first..].iter_mut().zip(frames) {
            slot.reserved = Some(frame);
        }
        self.slots[p].reserved.take().ok_or_else(|| io::Error::other("no frame was made"))
    }

    fn start(&mut self, fixed: &Fixed, p: usize, place: Place) -> Vec<Request> {
        self.slots[p].place = Some(place);
        self.note_peak();
        let page = fixed.page(p);
        let pieces = page.extent_bytes.div_ceil(REQUEST_BYTES).max(1);
        let piece = page.extent_bytes.div_ceil(pieces).next_multiple_of(crate::weights::frames::GRANULE);
        let window = self.window(fixed, p).expect("the page has just been given its frame");
        let len = window.size() as u64;
        let requests: Vec<Request> = (0..pieces)
            .map(|i| i * piece)
            .take_while(|&at| at < len)
            .map(|at| Request {
                page: p,
                file: page.file as usize,
                offset: page.extent_offset + at,
                window: window.part(at as usize, piece.min(len - at) as usize),
            })
            .collect();
        self.absent -= usize::from(self.is_expected(fixed, p));
        self.slots[p].presence = Presence::Loading { left: requests.len(), failure: None };
        self.outstanding += requests.len();
        requests
    }

    /// One read of a page has ended. Whether the page is finished by it.
    pub fn finish(&mut self, fixed: &Fixed, p: usize, bytes: u64, elapsed_ns: u64, result: Result<()>) -> bool {
        self.outstanding -= 1;
        self.stats.read_ns += elapsed_ns;
        self.stats.read_bytes += if result.is_ok() { bytes } else { 0 };
        let Presence::Loading { left, failure } = &mut self.slots[p].presence else { return false };
        *left -= 1;
        if let Err(e) = result {
            *failure = Some(e);
        }
        if *left > 0 {
            return false;
        }
        let failure = failure.take();
        let failure = failure.map(|e| e.context(fixed.describe(p)));
        self.slots[p].presence = Presence::Ready;
        let needed_now = self.needed() == Some(p);
        if let Some(e) = &failure {
            self.evict(fixed, p);
            self.stats.evictions -= 1;
            self.slots[p].failure = Some(e.clone());
        } else if !self.is_planned(fixed, p) && !needed_now {
            // The plan has become smaller while the page was on its way.
            self.evict(fixed, p);
        }
        self.fit_ring(fixed);
        self.tickets.page_loaded(p as u32, fixed.page(p).extent_bytes, failure.as_ref());
        self.stats.prefetch_failures += self.tickets.settle();
        true
    }
}

/// Why a layer cannot be prefetched.
fn no_frame(fixed: &Fixed, p: usize, layer: u32) -> Error {
    Error::new(
        Status::MemoryBudget,
        format!(
            "layer {layer} cannot be prefetched: the memory budget has no frame of {} bytes beside those that passes need \
             and that earlier prefetches keep",
            fixed.page(p).extent_bytes
        ),
    )
}

enum HostFrame {
    Found(Vec<Request>),
    /// Frames will become free by themselves.
    Later,
    /// All that is not a pass's own is kept for other requests.
    Never,
}
