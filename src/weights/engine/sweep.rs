//! A pass over the schedule, and the pages it uses.

use std::ops::Range;

use super::*;
use crate::weights::state::PageBytes;

/// A layer's access by a sweep, as it is counted.
#[derive(Default)]
pub(super) struct LayerAccess {
    layer: Option<u32>,
    streamed: bool,
    stalled: bool,
}

/// A pass over the schedule. One at a time per model; others wait their turn.
pub struct Sweep<'a> {
    pub(super) engine: &'a Engine,
    pub(super) cancel: CancelToken<'a>,
    pub(super) started: Instant,
    pub(super) stalled: Duration,
    pub(super) read_before: u64,
    pub(super) access: LayerAccess,
    /// Pages before this one were gone past, as the session's progress counts them.
    pub(super) passed: usize,
}

impl Engine {
    /// Begins a sweep over pages 0 to `end`, when those that asked before have ended. `interrupt`, raised since its count
    /// was `since`, ends it and the waiting for it.
    pub fn sweep<'a>(&'a self, interrupt: &'a Interrupt, since: u64, end: usize) -> Result<Sweep<'a>> {
        self.begin_sweep(CancelToken::One(SweepCaller { interrupt, since }), end)
    }

    /// The same for several calls. An interrupt ends it when it has ended them all.
    pub fn sweep_for<'a>(&'a self, callers: &'a [SweepCaller<'a>], end: usize) -> Result<Sweep<'a>> {
        self.begin_sweep(CancelToken::All(callers), end)
    }

    fn begin_sweep<'a>(&'a self, cancel: CancelToken<'a>, end: usize) -> Result<Sweep<'a>> {
        self.check_process()?;
        // Pages of a mapping that are ready are not loaded again, so a file that has become shorter is noticed here.
        self.shared.fixed.sources.iter().filter(|s| s.mapping().is_some()).try_for_each(|s| s.check_intact())?;
        let mut state = self.shared.state.lock();
        let turn = state.cursor_mut().queue_turn();
        loop {
            if let Err(e) = cancel.check() {
                state.cursor_mut().leave_queue(turn);
                self.shared.changed.notify_all();
                return Err(e);
            }
            if state.cursor().is_first(turn) {
                break;
            }
            self.shared.changed.wait(&mut state);
        }
        state.cursor_mut().leave_queue(turn);
        state.begin_sweep(&self.shared.fixed, end);
        let read_before = state.stats().read_bytes;
        drop(state);
        self.shared.wake_loader();
        Ok(Sweep {
            engine: self,
            cancel,
            started: Instant::now(),
            stalled: Duration::ZERO,
            read_before,
            access: LayerAccess::default(),
            passed: 0,
        })
    }
}

impl<'a> Sweep<'a> {
    /// Fails when the sweep is to end early.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()
    }

    /// What was read from storage since the sweep began: for it, and ahead for what follows it.
    pub fn read_bytes(&self) -> u64 {
        self.engine.shared.state.lock().stats().read_bytes - self.read_before
    }

    /// Says which experts of a layer will be taken after what it always uses, so that they are read meanwhile. With
    /// `first_ready` those that are there come first; else their order stays. Their pages are taken in the order in which
    /// `experts` then stands.
    pub fn route(&mut self, experts: &mut [RoutedExpert], first_ready: bool) {
        let shared = &*self.engine.shared;
        shared.state.lock().route(&shared.fixed, experts, first_ready);
        shared.wake_loader();
    }

    /// The pages of a router that the sweep has not come to, where it is worth to know early what it will choose: experts of
    /// its layer, of which `expert` is one, may be missing, and can be read ahead. The sweep stays where it is.
    pub fn foresees(&self, expert: usize, pages: Range<usize>) -> Option<Vec<PageGuard<'a>>> {
        let engine = self.engine;
        let fixed = &engine.shared.fixed;
        let mut state = engine.shared.state.lock();
        if engine.shared.queue.is_none() || !state.may_foresee(expert) || !pages.clone().all(|p| state.is_ready(p)) {
            return None;
        }
        let mut acquire_page = |page| {
            let bytes = state.acquire_page(fixed, page).expect("a page that is ready has a frame");
            PageGuard::new(engine, page, bytes, false, false)
        };
        Some(pages.map(&mut acquire_page).collect())
    }

    /// Says which experts of the next layer the sweep will probably be routed to, by number in the schedule, the likeliest
    /// first. They are read while nothing else is to be read.
    pub fn foresee(&mut self, experts: &[u32]) {
        let shared = &*self.engine.shared;
        let any = shared.state.lock().foresee(&shared.fixed, experts);
        if any {
            shared.wake_loader();
        }
    }

    /// Holds page `p`, waiting for it where it is not there yet. Pages are taken in schedule order, those of experts in the
    /// order of [`Sweep::route`], one at a time.
    pub fn page(&mut self, p: usize) -> Result<PageGuard<'a>> {
        self.check()?;
        self.access(self.engine.schedule().pages[p].layer);
        let (held, waited) = self.engine.acquire(self.cancel, p)?;
        self.go_past(p);
        self.access.streamed |= held.streamed;
        if let Some(waited) = waited {
            self.access.stalled = true;
            self.stalled += waited;
        }
        Ok(held)
    }

    /// Acquires pages of the cyclic part together, in schedule order, if all of them stay and are there. `None`: they must be taken
    /// one at a time. Nobody waits for the frame of a page that stays, so a sweep that uses several of them, and waits for
    /// none, is in nobody's way.
    pub fn acquire_pinned(&mut self, pages: impl Iterator<Item = usize> + Clone) -> Result<Option<Vec<PageGuard<'a>>>> {
        self.check()?;
        let engine = self.engine;
        let fixed = &engine.shared.fixed;
        let mut state = engine.shared.state.lock();
        let stays = |p: usize| p < fixed.schedule.sweep_len && state.stays(p) && state.is_ready(p);
        let Some(first) = pages.clone().next().filter(|_| pages.clone().all(stays)) else { return Ok(None) };
        state.move_to(fixed, first);
        let mut acquire_page = |page| {
            let bytes = state.acquire_page(fixed, page).expect("a page that is ready has a frame");
            PageGuard::new(engine, page, bytes, false, true)
        };
        let held: Vec<PageGuard<'a>> = pages.map(&mut acquire_page).collect();
        drop(state);
        self.access(engine.schedule().pages[first].layer);
        held.iter().for_each(|page| self.go_past(page.page));
        Ok(Some(held))
    }

    /// Counts pages up to `p`. Those of experts are taken in another order than they lie in, or left out.
    fn go_past(&mut self, p: usize) {
        let pages = &self.engine.schedule().pages;
        if p >= self.passed && p < self.engine.schedule().sweep_len {
            let bytes = pages[self.passed..=p].iter().map(|page| page.bytes).sum();
            for caller in self.cancel.callers() {
                caller.interrupt.progress().passed(bytes);
            }
            self.passed = p + 1;
        }
    }

    fn access(&mut self, layer: u32) {
        if self.access.layer != Some(layer) {
            self.count_layer_access();
            self.access.layer = Some(layer);
        }
    }

    fn count_layer_access(&mut self) {
        let access = std::mem::take(&mut self.access);
        if access.layer.is_none() {
            return;
        }
        let mut state = self.engine.shared.state.lock();
        let stats = state.stats_mut();
        match access {
            LayerAccess { stalled: true, .. } => stats.layers_stalled += 1,
            LayerAccess { streamed: true, .. } => stats.layers_prefetched += 1,
            _ => stats.layers_resident += 1,
        }
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.count_layer_access();
        let shared = &*self.engine.shared;
        let mut state = shared.state.lock();
        let stall = self.stalled.as_nanos() as u64;
        state.stats_mut().stall_ns += stall;
        state.stats_mut().compute_ns += (self.started.elapsed().as_nanos() as u64).saturating_sub(stall);
        state.end_sweep(&shared.fixed);
        shared.changed.notify_all();
        drop(shared.do_work(state));
        shared.wake_loader();
    }
}

/// A page that is there and stays until this is dropped.
pub struct PageGuard<'a> {
    engine: &'a Engine,
    page: usize,
    /// Empty only while the page is released.
    bytes: Option<PageBytes<'a>>,
    pub(super) streamed: bool,
    /// Whether the page is used up by this, as by the sweep that moves on; a row is taken beside any sweep.
    by_sweep: bool,
}

impl<'a> PageGuard<'a> {
    pub(super) fn new(engine: &'a Engine, page: usize, bytes: PageBytes<'a>, streamed: bool, by_sweep: bool) -> Self {
        PageGuard { engine, page, bytes: Some(bytes), streamed, by_sweep }
    }

    pub fn page(&self) -> &Page {
        &self.engine.schedule().pages[self.page]
    }

    /// Its rows, end to end.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&[], PageBytes::bytes)
    }
}

impl Drop for PageGuard<'_> {
    fn drop(&mut self) {
        let shared = &*self.engine.shared;
        self.bytes = None;
        let mut state = shared.state.lock();
        let freed = state.release_page(&shared.fixed, self.page, self.by_sweep);
        // A page that stays makes no room; moving on past it only matters where reading ahead is limited.
        let more = (freed || shared.fixed.prefetch_distance > 0) && state.may_start_reads(&shared.fixed);
        if freed {
            shared.changed.notify_all();
        }
        drop(shared.do_work(state));
        if more {
            shared.wake_loader();
        }
    }
}

#[cfg(all(test, feature = "prefetch"))]
mod tests {
    use crate::weights::engine::Engine;
    use crate::weights::testing::schedule::schedule_of;
    use crate::weights::testing::scripted::byte_at;
    use crate::weights::tests::open;

    #[test]
    fn pinned_pages_are_used_together_and_evicted_after_it_when_the_budget_falls() {
        let schedule = || schedule_of(&[(0, 4096, 16), (0, 4096, 400), (0, 4096, 16), (1, 4096, 700), (1, 4096, 300)]);
        let (floor, full) = (Engine::min_frames(&schedule()), Engine::full_frames(&schedule()));
        let b = open(schedule(), full, true, |_| {});
        b.engine.settle();
        let end = b.engine.schedule().sweep_len;
        let mut sweep = b.engine.sweep(&b.interrupt, 0, end).unwrap();
        let held = sweep.acquire_pinned(0..end).unwrap().expect("all of them stay");
        assert_eq!(held.len(), end);
        b.engine.set_budget(floor).unwrap();
        for held in &held {
            let mut bytes = held.bytes().iter().zip(held.page().offset..);
            assert!(bytes.all(|(&byte, at)| byte == byte_at(at)));
        }
        drop(held);
        drop(sweep);
        b.engine.settle();
        assert!(b.engine.stats().used_bytes <= floor);
        assert_eq!(b.engine.stats().layers_resident, 1);

        let mut sweep = b.engine.sweep(&b.interrupt, 0, end).unwrap();
        assert!(sweep.acquire_pinned(0..end).unwrap().is_none());
        b.interrupt.raise();
        assert!(sweep.acquire_pinned(0..1).is_err());
    }
}
