//! A pass over the schedule, and the pages it holds.

use super::*;

/// A layer's visit by a sweep, as it is counted.
#[derive(Default)]
pub(super) struct Visit {
    layer: Option<u32>,
    streamed: bool,
    stalled: bool,
}

/// A pass over the schedule. One at a time per model; others wait their turn.
pub struct Sweep<'a> {
    pub(super) engine: &'a Engine,
    pub(super) patience: Patience<'a>,
    pub(super) started: Instant,
    pub(super) stalled: Duration,
    pub(super) read_before: u64,
    pub(super) visit: Visit,
}

impl<'a> Sweep<'a> {
    /// Fails when the sweep is to end early.
    pub fn check(&self) -> Result<()> {
        self.patience.check()
    }

    /// What was read from storage since the sweep began: for it, and ahead for what follows it.
    pub fn read_bytes(&self) -> u64 {
        self.engine.shared.state.lock().stats.read_bytes - self.read_before
    }

    /// Holds page `p`, waiting for it where it is not there yet. Pages are taken in schedule order, one at a time.
    pub fn page(&mut self, p: usize) -> Result<HeldPage<'a>> {
        self.check()?;
        let layer = self.engine.schedule().pages[p].layer;
        if self.visit.layer != Some(layer) {
            self.count_visit();
            self.visit.layer = Some(layer);
        }
        let (held, waited) = self.engine.acquire(self.patience, p)?;
        self.visit.streamed |= held.streamed;
        if let Some(waited) = waited {
            self.visit.stalled = true;
            self.stalled += waited;
        }
        Ok(held)
    }

    fn count_visit(&mut self) {
        let visit = std::mem::take(&mut self.visit);
        if visit.layer.is_none() {
            return;
        }
        let stats = &mut self.engine.shared.state.lock().stats;
        match visit {
            Visit { stalled: true, .. } => stats.layers_stalled += 1,
            Visit { streamed: true, .. } => stats.layers_prefetched += 1,
            _ => stats.layers_resident += 1,
        }
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        self.count_visit();
        let shared = &*self.engine.shared;
        let mut state = shared.state.lock();
        let stall = self.stalled.as_nanos() as u64;
        state.stats.stall_ns += stall;
        state.stats.compute_ns += (self.started.elapsed().as_nanos() as u64).saturating_sub(stall);
        state.end_sweep(&shared.fixed);
        shared.changed.notify_all();
        drop(state);
        shared.wake_loader();
    }
}

/// A page that is there and stays until this is dropped.
pub struct HeldPage<'a> {
    pub(super) engine: &'a Engine,
    pub(super) page: usize,
    pub(super) window: Window,
    pub(super) streamed: bool,
}

impl HeldPage<'_> {
    pub fn page(&self) -> &Page {
        &self.engine.schedule().pages[self.page]
    }

    /// Its rows, end to end.
    pub fn bytes(&self) -> &[u8] {
        self.window.view()
    }
}

impl Drop for HeldPage<'_> {
    fn drop(&mut self) {
        let shared = &*self.engine.shared;
        let mut state = shared.state.lock();
        let freed = state.let_go(&shared.fixed, self.page, true);
        // A page that stays makes no room; moving on past it only matters where reading ahead is limited.
        let more = (freed || shared.fixed.prefetch_distance > 0) && state.may_start_reads(&shared.fixed);
        if freed {
            shared.changed.notify_all();
        }
        drop(state);
        if more {
            shared.wake_loader();
        }
    }
}
