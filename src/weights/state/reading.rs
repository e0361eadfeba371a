//! What to read next, and which frame it gets: for the sweep, ahead of it, and for the host.

use super::*;

impl State {
    /// The reads of the page that should be read next, if one should and can be now.
    pub fn next_page(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        if self.closing || self.requests.outstanding >= fixed.max_outstanding {
            return None;
        }
        if let Some(p) = self.cursor.needed()
            && self.wanted(p)
            && let Some(requests) = self.start_for_sweep(fixed, p)
        {
            return Some(requests);
        }
        self.requests.host_next = !self.requests.host_next;
        if self.requests.host_next {
            self.next_for_host(fixed).or_else(|| self.next_ahead(fixed))
        } else {
            self.next_ahead(fixed).or_else(|| self.next_for_host(fixed))
        }
    }

    /// Absent, and not known to fail: a page that failed is tried again when it is needed.
    pub(super) fn wanted(&self, p: usize) -> bool {
        self.is_absent(p) && self.pages.slots[p].failure.is_none()
    }

    fn next_ahead(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        let (schedule, distance) = (&fixed.schedule, fixed.prefetch_distance);
        let here = self.cursor.present().map_or(0, |p| fixed.page(p).layer);
        let mut kinds = Kinds::Both;
        for part in self.cursor.order(schedule.sweep_len) {
            let mut from = i64::MIN;
            while let Some((at, p)) = self.pages.first_wanted(&part, from, kinds) {
                from = at + 1;
                if distance > 0 && p < schedule.sweep_len {
                    let layer = fixed.page(p).layer;
                    if (layer + schedule.layer_count - here) % schedule.layer_count > distance {
                        if layer > here {
                            break;
                        }
                        // What lies between is as far ahead.
                        from = schedule.layer_pages(here).start as i64;
                        continue;
                    }
                }
                if let Some(requests) = self.start_for_sweep(fixed, p) {
                    return Some(requests);
                }
                // Frames are filled in order: a farther page must not take the room of a nearer one.
                let full = if self.stays(p) { Kinds::Passing } else { Kinds::Pinned };
                if kinds != Kinds::Both && kinds != full {
                    return None;
                }
                kinds = full;
            }
        }
        if kinds == Kinds::Passing {
            return None;
        }
        if let Some(p) = self.next_foreseen(fixed) {
            return self.start_for_sweep(fixed, p);
        }
        let other = self.pages.wanted_pinned.first_of(schedule.sweep_len, schedule.pages.len());
        // What a profile expects takes half of the readers from a sweep, whose experts are not known yet.
        let may_expect = !self.cursor.sweeping() || self.requests.outstanding < fixed.readers / 2;
        match other {
            Some(p) if self.pages.residency.pinned[p] || may_expect => self.start_for_sweep(fixed, p),
            None if may_expect => self.admit_likely(fixed).and_then(|p| self.start_for_sweep(fixed, p)),
            _ => None,
        }
    }

    fn next_for_host(&mut self, fixed: &Fixed) -> Option<Vec<Request>> {
        if self.stale_plan().is_some() {
            // What there is room for is not known yet.
            return None;
        }
        let mut open = std::mem::take(&mut self.requests.tickets.open);
        let mut found = None;
        'search: for ticket in &mut open {
            for layer in &mut ticket.layers {
                while let Some(&page) = layer.queued.front() {
                    let p = page as usize;
                    if self.is_absent(p) {
                        self.pages.slots[p].failure = None;
                        self.reindex(fixed, p);
                        match self.start_for_host(fixed, p) {
                            Start::Found(requests) => found = Some(requests),
                            Start::Later => break 'search,
                            Start::Never => {
                                let refusal = || no_frame(fixed, p, layer.layer);
                                layer.failure = layer.failure.take().or_else(|| Some(refusal()));
                            }
                        }
                    }
                    layer.queued.pop_front();
                    self.protect(fixed, p, ticket.id);
                    if matches!(self.pages.slots[p].presence, Presence::Loading { .. }) {
                        layer.loading.push(page);
                    }
                    if found.is_some() {
                        break 'search;
                    }
                }
            }
        }
        self.requests.tickets.open = open;
        self.stats.prefetch_failures += self.requests.tickets.settle();
        found
    }

    /// Starts to read a page where the plan puts it; room in the ring is made of pages needed later than it.
    ///
    /// What lies beyond a route point is read ahead only above the least ring, which is for the experts that the route point will ask for.
    /// These, until the sweep stands still for them, take no room from pages that are there: evicting one would be to read
    /// it twice.
    pub fn start_for_sweep(&mut self, fixed: &Fixed, p: usize) -> Option<Vec<Request>> {
        if self.pages.residency.pinned[p] {
            return self.start_own(fixed, p).found();
        }
        if self.pages.slots[p].cached {
            let place = self.cache_place(fixed, p)?;
            return Some(self.start(fixed, p, place));
        }
        let (page, sweep_len) = (fixed.page(p), fixed.schedule.sweep_len);
        let needed = self.cursor.needed() == Some(p);
        let above = !needed && p < sweep_len && self.cursor.is_beyond_route_point(&fixed.schedule, p);
        let from = if above { self.sizes.min_ring } else { 0 };
        let near = if needed || p < sweep_len { self.cursor.distance(sweep_len, p) } else { usize::MAX - 1 };
        loop {
            if let Some(frame) = self.ring.allocate(page.extent_bytes, from) {
                return Some(self.start(fixed, p, Place::Ring(frame)));
            }
            let victim = self.pages.evictable.victim(&self.cursor, sweep_len, Some(near), above)?;
            self.evict(fixed, victim);
        }
    }

    fn start_for_host(&mut self, fixed: &Fixed, p: usize) -> Start {
        if self.stays(p) {
            return self.start_own(fixed, p);
        }
        // Below this the ring belongs to passes alone.
        let (bytes, from) = (fixed.page(p).extent_bytes, self.sizes.min_ring);
        // Pages are evicted only where that makes the room: what was read ahead in vain would be read again, and be evicted
        // again, for ever.
        let goes: Vec<u64> = self.pages.evictable.above().filter_map(|q| self.ring_offset(q)).collect();
        if !self.ring.would_fit(bytes, from, None, |offset| !goes.contains(&offset)) {
            let kept: Vec<u64> = self.requests.protected_pages().filter_map(|q| self.ring_offset(q)).collect();
            let could = self.ring.would_fit(bytes, from, Some(self.planned_ring()), |offset| kept.contains(&offset));
            let changes = self.ring.limit() < self.planned_ring() || self.pages.busy > 0;
            return if could && changes { Start::Later } else { Start::Never };
        }
        loop {
            if let Some(frame) = self.ring.allocate(bytes, from) {
                return Start::Found(self.start(fixed, p, Place::Ring(frame)));
            }
            match self.pages.evictable.victim(&self.cursor, fixed.schedule.sweep_len, None, true) {
                Some(victim) => self.evict(fixed, victim),
                None => return Start::Later,
            }
        }
    }

    /// Where a page lies in the ring, if it does.
    fn ring_offset(&self, p: usize) -> Option<u64> {
        match &self.pages.slots[p].place {
            Some(Place::Ring(frame)) => Some(frame.offset()),
            _ => None,
        }
    }

    /// Where a page's stretch of the ring ends; 0 where it is not in the ring.
    pub(super) fn ring_end(&self, fixed: &Fixed, p: usize) -> u64 {
        match &self.pages.slots[p].place {
            Some(Place::Ring(frame)) => frame.offset() + fixed.page(p).extent_bytes,
            _ => 0,
        }
    }

    fn start_own(&mut self, fixed: &Fixed, p: usize) -> Start {
        let page = fixed.page(p);
        // While a smaller plan is still being reached, memory in use by a pass comes first.
        if self.used() + page.extent_bytes > self.accounting.budget {
            let returns = self.accounting.returning > 0 || self.upkeep.ring_given() > self.ring.extent();
            return if returns { Start::Later } else { Start::Never };
        }
        let mapped = fixed.sources[page.file as usize].mapping().is_some();
        let frame = if mapped {
            None
        } else if let Some(frame) = self.pages.slots[p].reserved.take() {
            Some(frame)
        } else if self.upkeep.was_refused(p) {
            return Start::Never;
        } else {
            self.order_frames(fixed, p);
            return Start::Later;
        };
        self.accounting.own += page.extent_bytes;
        Start::Found(self.start(fixed, p, Place::Own(frame)))
    }

    fn start(&mut self, fixed: &Fixed, p: usize, mut place: Place) -> Vec<Request> {
        let page = fixed.page(p);
        let pieces = page.extent_bytes.div_ceil(REQUEST_BYTES).max(1);
        let piece = page.extent_bytes.div_ceil(pieces).next_multiple_of(crate::weights::frames::granule());
        let span = State::mapped_span(fixed, p);
        let len = span.as_ref().map_or(page.extent_bytes as usize, |span| span.len());
        let parts =
            place.frame().filter(|_| span.is_none()).map_or(Vec::new(), |frame| frame.pieces(len, piece as usize));
        let mut parts = parts.into_iter();
        let requests: Vec<Request> = (0..len)
            .step_by(piece as usize)
            .map(|at| Request {
                page: p,
                file: page.file as usize,
                offset: page.extent_offset + at as u64,
                len: (piece as usize).min(len - at),
                piece: parts.next(),
            })
            .collect();
        self.pages.slots[p].place = Some(place);
        self.note_peak();
        self.pages.slots[p].presence = Presence::Loading { left: requests.len(), failure: None };
        self.reindex(fixed, p);
        self.requests.outstanding += requests.len();
        requests
    }

    /// One read of a page has ended. Whether the page is finished by it.
    pub fn finish(&mut self, fixed: &Fixed, p: usize, bytes: u64, elapsed_ns: u64, result: Result<()>) -> bool {
        self.requests.outstanding -= 1;
        self.stats.read_ns += elapsed_ns;
        self.stats.read_bytes += if result.is_ok() { bytes } else { 0 };
        let Presence::Loading { left, failure } = &mut self.pages.slots[p].presence else { return false };
        *left -= 1;
        if let Err(e) = result {
            *failure = Some(e);
        }
        if *left > 0 {
            return false;
        }
        let failure = failure.take();
        let failure = failure.map(|e| e.context(fixed.describe(p)));
        self.pages.slots[p].presence = Presence::Ready;
        self.reindex(fixed, p);
        let needed_now = self.cursor.needed() == Some(p);
        if let Some(e) = &failure {
            self.evict(fixed, p);
            self.stats.evictions -= 1;
            self.pages.slots[p].failure = Some(e.clone());
            self.reindex(fixed, p);
        } else if !self.is_planned(fixed, p) && !needed_now {
            // The plan has become smaller while the page was on its way.
            self.evict(fixed, p);
        }
        self.fit_ring();
        self.requests.tickets.page_loaded(p as u32, fixed.page(p).extent_bytes, failure.as_ref());
        self.stats.prefetch_failures += self.requests.tickets.settle();
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

/// What became of a wish for a frame.
enum Start {
    Found(Vec<Request>),
    /// Frames will become free by themselves, or are being made.
    Later,
    /// All that is not a pass's own is kept for other requests.
    Never,
}

impl Start {
    fn found(self) -> Option<Vec<Request>> {
        match self {
            Start::Found(requests) => Some(requests),
            Start::Later | Start::Never => None,
        }
    }
}
