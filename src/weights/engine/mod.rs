//! The streaming engine's outside: sweeps take pages from it, hosts ask it for layers and poll what came of it.

mod gate;
mod host;
mod interrupt;
mod progress;
mod sweep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Status};
use crate::sys::event::Notifier;
use crate::sys::mapping::LAZY;
use crate::sys::sync::channel::{self, Sender, TrySendError};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::thread::HomeProcess;
use crate::weights::budget::BudgetShare;
use crate::weights::frames::{self, FrameMemory, Memory, Ring, SharedFrame};
use crate::weights::loader::{Loader, Message};
use crate::weights::residency::{self, KeptExperts, Residency};
use crate::weights::schedule::{MatrixId, Page, Schedule};
use crate::weights::source::{self, Source};
use crate::weights::state::{Accounting, Fixed, Request, RoutedExpert, State};
use crate::weights::{Event, LayerState, Stats};

pub use gate::{Gate, Look};
use interrupt::CancelToken;
pub use interrupt::{Interrupt, SweepCaller};
pub use progress::{Progress, ProgressReport};
pub use sweep::{PageGuard, Sweep};

/// How the engine is set up.
pub struct Config {
    pub schedule: Schedule,
    pub sources: Vec<Box<dyn Source>>,
    /// The accounting with the budget, what is always in use, and one session's share.
    pub accounting: Accounting,
    /// Whether the background loader runs.
    pub prefetch: bool,
    pub readers: usize,
    pub prefetch_distance: u32,
    pub cache_layers: u32,
    /// Which experts stay in memory.
    pub kept_experts: KeptExperts,
    /// The model's place in a shared budget, whose share the accounting has.
    pub budget_share: Option<BudgetShare>,
}

/// What sweeps, hosts, the loader and the readers share.
pub struct Shared {
    pub fixed: Fixed,
    pub state: Mutex<State>,
    /// A page is ready or failed, frames became free, a sweep ended.
    changed: Condvar,
    /// Events wait to be taken.
    events: Condvar,
    notifier: Notifier,
    queue: Option<Sender<Message>>,
    /// Where calls wait for each other.
    gate: Gate,
    home: HomeProcess,
    /// Where tests stop what takes long.
    #[cfg(test)]
    pub work_gate: WorkGate,
}

pub struct Engine {
    shared: Arc<Shared>,
    loader: Option<Loader>,
    /// Bytes of all pages of a sweep, those of experts that it may leave out too.
    sweep_bytes: u64,
    /// Dropped after the frames, so that no other model grows before they are gone.
    budget_share: Option<BudgetShare>,
}

impl Shared {
    /// Fails in a child of the process that opened the model: the threads stayed behind, and locks that they held stay
    /// locked.
    pub fn check_process(&self) -> Result<()> {
        if self.home.is_here() {
            return Ok(());
        }
        Err(Error::unsupported(
            "the model was opened by the process that this one was forked from, where its threads are: open it again here",
        ))
    }

    pub fn wake_loader(&self) {
        if let Some(queue) = &self.queue {
            match queue.try_send(Message::Look) {
                // One reason to look is as good as two.
                Ok(()) | Err(TrySendError::Full(_)) | Err(TrySendError::Disconnected(_)) => {}
            }
        }
    }

    /// Makes waiting events known; to be called after anything that may have posted one.
    pub fn signal_events(&self, state: &State) {
        if !state.tickets().events.is_empty() {
            self.events.notify_all();
            self.notifier.ring();
        }
    }

    /// Lives with another budget from now on; frames beyond it are gone when this returns.
    pub fn adopt_budget(&self, bytes: u64) {
        let mut state = self.state.lock();
        // A share always covers the least, so this fails only where the model is about to ask for more.
        if state.set_budget(bytes).is_ok() {
            let _ = self.await_within_budget(state, || Ok(()));
        } else {
            drop(state);
        }
        self.wake_loader();
    }

    /// Waits for frames that a running pass or a read still uses, which takes one page's time, as long as `go_on` agrees.
    fn await_within_budget(&self, state: MutexGuard<'_, State>, go_on: impl Fn() -> Result<()>) -> Result<()> {
        let mut state = self.do_work(state);
        while state.used() > state.budget() && !state.closing() {
            go_on()?;
            self.changed.wait_for(&mut state, Duration::from_millis(50));
            state = self.do_work(state);
        }
        Ok(())
    }

    /// Does what takes long, without the lock, and takes it again. Functions that must not block leave it to the loader.
    pub fn do_work<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut any = false;
        while let Some(work) = state.take_work() {
            any = true;
            drop(state);
            #[cfg(test)]
            self.work_gate.pass();
            let outcome = work.run(&self.fixed);
            state = self.state.lock();
            state.work_done(&self.fixed, outcome);
            self.changed.notify_all();
        }
        if any {
            // There may be room now.
            self.wake_loader();
        }
        state
    }

    /// The reads of the page that should be read next, if one should and can be now. Does what must be done for it first.
    pub fn next_page<'a>(&'a self, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, Option<Vec<Request>>) {
        let mut state = self.do_work(state);
        loop {
            let next = state.next_page(&self.fixed);
            if next.is_some() || !state.has_work() || state.closing() {
                return (state, next);
            }
            state = self.do_work(state);
        }
    }

    /// Makes waiting sweeps look again.
    pub fn notify_sweeps(&self) {
        self.changed.notify_all();
    }

    /// Does one read and records how it ended. `skip`: answers for it without reading.
    pub fn perform(&self, request: Request, skip: bool) {
        let Request { page, file, offset, len, piece } = request;
        let source = &self.fixed.sources[file];
        let started = Instant::now();
        let read = || {
            if skip {
                Err(Error::cancelled())
            } else if let Some(map) = source.mapping() {
                source.check_intact().map(|()| frames::touch(map, offset as usize, len))
            } else if let Some(mut piece) = piece {
                let bytes = piece.bytes_mut().map_err(|e| {
                    Error::out_of_memory(format!("{}: memory for {len} bytes at offset {offset}: {e}", source.name()))
                })?;
                source.read_full(offset, bytes)
            } else {
                Err(Error::new(Status::Internal, format!("{}: a read without a frame", source.name())))
            }
        };
        // The piece is back when this has run, before the state hears of it. Whatever happens, the request is answered for: a sweep may wait for it.
        let result = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(Error::new(Status::Internal, format!("{}: reading panicked", source.name()))));
        let elapsed = started.elapsed().as_nanos() as u64;
        let mut state = self.state.lock();
        let (needed, used) = (state.cursor().needed() == Some(page), state.used());
        if state.finish(&self.fixed, page, len as u64, elapsed, result) {
            // Nobody waits for a page that the sweep has not come to.
            if needed || state.is_absent(page) || state.used() < used {
                self.changed.notify_all();
            }
            self.signal_events(&state);
        }
        drop(self.do_work(state));
    }
}

/// Addresses for the largest ring, or for a smaller one, not below `least`, where the process may not have as many: memory
/// comes later, and only as far as the budget goes.
fn reserve_ring(largest: u64, least: u64) -> Result<FrameMemory> {
    let mut bytes = largest;
    loop {
        match FrameMemory::new(bytes as usize, 0) {
            Ok(memory) => return Ok(memory),
            Err(_) if bytes > least => bytes = (bytes / 2).next_multiple_of(source::DIRECT_ALIGNMENT).max(least),
            Err(e) => return Err(Error::out_of_memory(format!("reserving {bytes} bytes of frames: {e}"))),
        }
    }
}

impl Engine {
    /// Frames below which a pass cannot run.
    pub fn min_frames(schedule: &Schedule) -> u64 {
        residency::min_ring(schedule)
    }

    /// Frame bytes at which nothing is streamed.
    pub fn full_frames(schedule: &Schedule) -> u64 {
        residency::full(schedule)
    }

    /// What `frames` bytes of frames, under the limit of `cache_layers` layers, keep and stream.
    pub fn plan_frames(
        schedule: &Schedule,
        frames: u64,
        cache_layers: u32,
        readers: usize,
        kept_experts: KeptExperts,
    ) -> Residency {
        let most = Engine::frames_limit(schedule, cache_layers);
        let frames = residency::usable(schedule, frames, most);
        residency::plan(schedule, frames, Fixed::in_flight_bytes(readers), kept_experts)
    }

    /// Memory the engine takes beside frames: book-keeping and threads' stacks.
    pub fn overhead_bytes(schedule: &Schedule, prefetch: bool, readers: usize) -> u64 {
        let threads = if prefetch { readers + 1 } else { 0 };
        (schedule.memory_bytes()
            + schedule.pages.len() * State::bytes_per_page()
            + schedule.experts.len() * State::bytes_per_expert()
            + (schedule.routed_end - schedule.sweep_len) * SharedFrame::bytes_per_part()
            + threads * super::loader::STACK_BYTES) as u64
            + if LAZY { 0 } else { residency::min_ring(schedule) }
    }

    /// Frames that `capacity` bytes make under the limit of `cache_layers` layers.
    pub fn frames_limit(schedule: &Schedule, cache_layers: u32) -> u64 {
        schedule.largest_layer_with_experts().saturating_mul(cache_layers as u64)
    }

    /// Starts the engine; the loader begins to read at once. The accounting must leave [`Engine::min_frames`].
    pub fn start(config: Config) -> Result<Engine> {
        let depth = Fixed::in_flight_bytes(config.readers).max(Fixed::host_bytes(&config.schedule));
        let largest_ring = residency::good_ring(&config.schedule, depth).min(config.schedule.streamable_bytes());
        // Where it takes memory at once, it is no larger than it must be: it is part of the overhead.
        let largest_ring = if LAZY { largest_ring } else { residency::min_ring(&config.schedule) };
        let ring_memory = reserve_ring(largest_ring, residency::min_ring(&config.schedule))?;
        let fixed = Fixed {
            max_frames: Engine::frames_limit(&config.schedule, config.cache_layers),
            schedule: config.schedule,
            sources: config.sources,
            max_outstanding: config.readers + 2,
            readers: config.readers,
            prefetch_distance: config.prefetch_distance,
            kept_experts: config.kept_experts,
        };
        let state = State::new(&fixed, config.accounting, Ring::new(ring_memory))?;
        let prefetch = config.prefetch && cfg!(feature = "prefetch");
        let (sender, receiver) = channel::bounded(1);
        let shared = Arc::new(Shared {
            fixed,
            state: Mutex::new(state),
            changed: Condvar::new(),
            events: Condvar::new(),
            notifier: Notifier::new().map_err(|e| Error::io(format!("making the event descriptor: {e}")))?,
            queue: prefetch.then_some(sender),
            gate: Gate::default(),
            home: HomeProcess::default(),
            #[cfg(test)]
            work_gate: Default::default(),
        });
        drop(shared.do_work(shared.state.lock()));
        let loader = if prefetch { Some(Loader::start(&shared, receiver)?) } else { None };
        if let Some(budget_share) = &config.budget_share {
            budget_share.attach(&shared);
        }
        shared.wake_loader();
        let schedule = &shared.fixed.schedule;
        let sweep_bytes = schedule.pages[..schedule.sweep_len].iter().map(|p| p.bytes).sum();
        Ok(Engine { shared, loader, sweep_bytes, budget_share: config.budget_share })
    }

    pub fn schedule(&self) -> &Schedule {
        &self.shared.fixed.schedule
    }

    /// Bytes of the pages that a whole sweep goes over.
    pub fn sweep_bytes(&self) -> u64 {
        self.sweep_bytes
    }

    /// Fails in a child of the process that opened the model.
    pub fn check_process(&self) -> Result<()> {
        self.shared.check_process()
    }

    /// Where calls wait for each other. It rings when a session is interrupted.
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    // --- sweeps -----------------------------------------------------------------------------------------------------

    /// Waits until the page is there and acquires it; how long it waited, if it did.
    ///
    /// A page that is not there is the loader's next; one whose reading failed is tried once more on this thread, and
    /// without a loader every page is read on this thread.
    fn acquire(&self, cancel: CancelToken, p: usize) -> Result<(PageGuard<'_>, Option<Duration>)> {
        let shared = &*self.shared;
        let fixed = &shared.fixed;
        let mut state = shared.state.lock();
        state.move_to(fixed, p);
        let mut since = None;
        let mut retried = false;
        loop {
            if let Some(bytes) = state.acquire_page(fixed, p) {
                let held = PageGuard::new(self, p, bytes, !state.stays(p), true);
                return Ok((held, since.map(|s: Instant| s.elapsed())));
            }
            since.get_or_insert_with(Instant::now);
            cancel.check()?;
            if state.is_absent(p) {
                let failure = state.take_failure(fixed, p);
                let failed = failure.is_some();
                if let Some(e) = failure
                    && retried
                {
                    return Err(e);
                }
                if failed || shared.queue.is_none() {
                    retried |= failed;
                    let mut requests = state.start_for_sweep(fixed, p);
                    while requests.is_none() && state.has_work() {
                        state = shared.do_work(state);
                        if !state.is_absent(p) {
                            break;
                        }
                        requests = state.start_for_sweep(fixed, p);
                    }
                    if let Some(requests) = requests {
                        drop(state);
                        for request in requests {
                            shared.perform(request, false);
                        }
                        state = shared.state.lock();
                        continue;
                    }
                    if let Some(e) = state.take_failure(fixed, p) {
                        return Err(e);
                    }
                    if !state.is_absent(p) {
                        continue;
                    }
                }
            }
            if state.may_start_reads(fixed) {
                shared.wake_loader();
            }
            shared.changed.wait(&mut state);
        }
    }

    /// Runs `use_row` on one row of a matrix, wherever it is: in memory, or read for this alone into `buffer`, which
    /// has at least [`Engine::row_buffer_bytes`].
    pub fn with_row<R>(
        &self,
        matrix: MatrixId,
        row: usize,
        buffer: &mut Memory,
        use_row: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let fixed = &self.shared.fixed;
        let m = fixed.schedule.matrix(matrix);
        let pages = m.pages();
        let first = pages.start;
        let p = first + fixed.schedule.pages[pages].partition_point(|p| p.first_row as usize + p.rows as usize <= row);
        // A matrix without pages is never held.
        if m.pages().contains(&p) {
            let at = (row - fixed.schedule.pages[p].first_row as usize) * m.row_bytes;
            let bytes = self.shared.state.lock().acquire_page(fixed, p);
            if let Some(bytes) = bytes {
                // Releases the page even if `use_row` panics.
                let held = PageGuard::new(self, p, bytes, false, false);
                return Ok(use_row(&held.bytes()[at..at + m.row_bytes]));
            }
        }
        let (file, offset) = m.row_place(row);
        let bytes = self.read_stretch(file, offset, m.row_bytes as u64, buffer);
        bytes.map(use_row).map_err(|e| e.context(format!("{}: row {row}", m.name)))
    }

    /// Reads `length` bytes from an absolute offset of a file into `buffer`, which has at least
    /// [`Engine::row_buffer_bytes`] of them.
    pub fn read_stretch<'b>(&self, file: usize, offset: u64, length: u64, buffer: &'b mut Memory) -> Result<&'b [u8]> {
        let source = &self.shared.fixed.sources[file];
        let alignment = source.alignment();
        let from = offset & !(alignment - 1);
        let to = (offset + length).next_multiple_of(alignment);
        let started = Instant::now();
        let bytes = &mut buffer.bytes_mut()[..(to - from) as usize];
        // As for pages, once more where it failed: storage may have been disturbed for a moment.
        source.read_full(from, bytes).or_else(|_| source.read_full(from, bytes))?;
        let mut state = self.shared.state.lock();
        let stats = state.stats_mut();
        stats.read_ns += started.elapsed().as_nanos() as u64;
        stats.read_bytes += to - from;
        drop(state);
        Ok(&bytes[(offset - from) as usize..][..length as usize])
    }

    /// Room for a row of `row_bytes` with unaligned ends.
    pub fn row_buffer_bytes(row_bytes: usize) -> usize {
        row_bytes + 2 * source::DIRECT_ALIGNMENT as usize
    }

    // --- the budget -------------------------------------------------------------------------------------------------

    /// Takes memory for a session from the budget; frames that must go for it are gone when this returns, which may take
    /// one page's time of a running pass.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        self.claim(bytes)?;
        self.shared.await_within_budget(self.shared.state.lock(), || Ok(()))
    }

    /// Takes memory from the budget without waiting for the frames that must go for it: it may be used after
    /// [`Engine::await_room`]. On a shared budget, what other models must give for it is waited for.
    pub fn claim(&self, bytes: u64) -> Result<()> {
        let shared = &*self.shared;
        shared.check_process()?;
        let take = || shared.state.lock().reserve(bytes);
        match &self.budget_share {
            Some(budget_share) => budget_share.change(|| shared.state.lock().needs(bytes), take)?,
            None => take()?,
        }
        self.leave_work();
        Ok(())
    }

    /// Waits until frames have made room for all that was claimed. `interrupt`, raised since its count was `since`, ends
    /// the waiting.
    pub fn await_room(&self, interrupt: &Interrupt, since: u64) -> Result<()> {
        let cancel = CancelToken::One(SweepCaller { interrupt, since });
        self.shared.await_within_budget(self.shared.state.lock(), || cancel.check())
    }

    /// Gives back what [`Engine::reserve`] or [`Engine::claim`] took.
    pub fn release(&self, bytes: u64) {
        let shared = &*self.shared;
        if !shared.home.is_here() {
            return;
        }
        shared.state.lock().release(bytes);
        if let Some(budget_share) = &self.budget_share {
            // Needing less always fits.
            let _ = budget_share.change(|| shared.state.lock().needs(0), || Ok(()));
        }
        self.leave_work();
    }

    /// Leaves what takes long to the loader, where there is one.
    fn leave_work(&self) {
        if self.loader.is_some() {
            self.shared.wake_loader();
        } else {
            drop(self.shared.do_work(self.shared.state.lock()));
        }
    }

    /// Changes the budget, without waiting: frames in use by a running pass or a read are given back as soon as it is done
    /// with them.
    pub fn set_budget(&self, bytes: u64) -> Result<()> {
        if self.budget_share.is_some() {
            return Err(Error::invalid("the model lives on a shared budget: change that one"));
        }
        let shared = &*self.shared;
        shared.check_process()?;
        let mut state = shared.state.lock();
        state.set_budget(bytes)?;
        let mut state = shared.do_work(state);
        // Another thread may have taken up giving memory back: it is gone when this returns.
        while state.is_giving_back() && !state.closing() {
            shared.changed.wait_for(&mut state, Duration::from_millis(50));
            state = shared.do_work(state);
        }
        drop(state);
        shared.wake_loader();
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        self.shared.state.lock().snapshot()
    }

    /// Counts a finished pass.
    pub fn count_pass(&self, tokens: usize) {
        let mut state = self.shared.state.lock();
        let stats = state.stats_mut();
        stats.passes += 1;
        stats.tokens += tokens as u64;
    }

    /// Waits until the loader has nothing to do and nothing is being read.
    #[cfg(test)]
    pub fn settle(&self) {
        loop {
            let (mut state, next) = self.shared.next_page(self.shared.state.lock());
            match next {
                Some(requests) => {
                    drop(state);
                    for request in requests {
                        self.shared.perform(request, false);
                    }
                }
                None if state.outstanding() == 0 && !state.is_working() => return,
                None => {
                    self.shared.changed.wait_for(&mut state, Duration::from_millis(1));
                }
            }
        }
    }

    #[cfg(test)]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.shared.home.is_here() {
            // Nobody is left to wait for. A shared budget's lock may be held by a thread that is not here.
            std::mem::forget(self.budget_share.take());
            return;
        }
        self.shared.state.lock().close();
        self.shared.wake_loader();
        if let Some(loader) = self.loader.take() {
            loader.finish();
        }
    }
}

/// Stops what takes long before it begins, on command.
#[cfg(test)]
#[derive(Default)]
pub struct WorkGate {
    shut: std::sync::atomic::AtomicBool,
    waiting: std::sync::atomic::AtomicU64,
}

#[cfg(test)]
impl WorkGate {
    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }

    /// How many threads stand at it.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.shut.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
