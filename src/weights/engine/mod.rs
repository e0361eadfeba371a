//! The streaming engine's outside: sweeps take pages from it, hosts ask it for layers and poll what came of it.

mod sweep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, Status};
use crate::sys::event::Notifier;
use crate::weights::budget::BudgetShare;
use crate::weights::frames::{self, FrameMemory, Memory, Window};
use crate::weights::loader::{Loader, Message};
use crate::weights::residency::{self, Residency};
use crate::weights::schedule::{MatrixId, Page, Schedule};
use crate::weights::source::Source;
use crate::weights::state::{Accounting, Fixed, Request, State};
use crate::weights::sync::channel::{self, Sender, TrySendError};
use crate::weights::sync::{Condvar, Mutex, MutexGuard};
use crate::weights::{Event, LayerState, Stats};

use sweep::LayerAccess;
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
}

pub struct Engine {
    shared: Arc<Shared>,
    loader: Option<Loader>,
    /// Dropped after the frames, so that no other model grows before they are gone.
    budget_share: Option<BudgetShare>,
}

/// Ends passes of one session, from any thread. It counts how often it was raised, so that an interrupt is not lost
/// between two passes or before the first one: it ends the call that runs, or the next one where none runs.
pub struct Interrupt {
    raised: AtomicU64,
    /// The count when the last call ended: what was raised before belonged to that call.
    settled: AtomicU64,
    engine: Weak<Shared>,
}

impl Interrupt {
    pub fn new(engine: &Engine) -> Arc<Interrupt> {
        Arc::new(Interrupt {
            raised: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            engine: Arc::downgrade(&engine.shared),
        })
    }

    /// The running pass ends with CANCELLED within one page's time.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::SeqCst);
        if let Some(shared) = self.engine.upgrade() {
            // With the lock held nobody is between checking the count and going to sleep.
            let _state = shared.state.lock();
            shared.changed.notify_all();
        }
    }

    /// How often it was raised.
    pub fn count(&self) -> u64 {
        self.raised.load(Ordering::SeqCst)
    }

    /// The count from which a call that begins now is interrupted: what was raised since the last call ended ends it.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::SeqCst)
    }

    /// A call has ended, or the host withdraws: what was raised until now ends no other call.
    pub fn settle(&self) {
        self.settled.store(self.count(), Ordering::SeqCst);
    }
}

/// What ends a sweep early: its session's interrupt, raised since the count was `since`.
#[derive(Clone, Copy)]
struct CancelToken<'a> {
    interrupt: &'a Interrupt,
    since: u64,
}

impl CancelToken<'_> {
    fn check(self) -> Result<()> {
        if self.interrupt.count() == self.since { Ok(()) } else { Err(Error::cancelled()) }
    }
}

impl Shared {
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
        if !state.tickets.events.is_empty() {
            self.events.notify_all();
            self.notifier.ring();
        }
    }

    /// Lives with another budget from now on; frames beyond it are gone when this returns.
    pub fn adopt_budget(&self, bytes: u64) {
        let mut state = self.state.lock();
        // A share always covers the least, so this fails only where the model is about to ask for more.
        if state.set_budget(&self.fixed, bytes).is_ok() {
            let _ = self.await_within_budget(&mut state, || Ok(()));
        }
        drop(state);
        self.wake_loader();
    }

    /// Waits for frames that a running pass or a read still uses, which takes one page's time, as long as `go_on` agrees.
    fn await_within_budget(&self, state: &mut MutexGuard<'_, State>, go_on: impl Fn() -> Result<()>) -> Result<()> {
        while state.used() > state.accounting.budget && !state.closing {
            go_on()?;
            self.changed.wait_for(state, Duration::from_millis(50));
        }
        Ok(())
    }

    /// Makes waiting sweeps look again.
    pub fn notify_sweeps(&self) {
        self.changed.notify_all();
    }

    /// Does one read and records how it ended. `skip`: answers for it without reading.
    pub fn perform(&self, request: Request, skip: bool) {
        let source = &self.fixed.sources[request.file];
        let started = Instant::now();
        let read = || {
            if skip {
                Err(Error::cancelled())
            } else if let Some(map) = source.mapping() {
                source.check_intact().map(|()| frames::touch(map, request.offset as usize, request.window.size()))
            } else {
                // SAFETY: the state makes requests of loading pages only, each for bytes of its own, and keeps the frame
                // until `finish`.
                unsafe { request.window.fill(|bytes| source.read_full(request.offset, bytes)) }
            }
        };
        // Whatever happens, the request is answered for: a sweep may wait for it.
        let result = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(Error::new(Status::Internal, format!("{}: reading panicked", source.name()))));
        let elapsed = started.elapsed().as_nanos() as u64;
        let mut state = self.state.lock();
        let bytes = request.window.size() as u64;
        if state.finish(&self.fixed, request.page, bytes, elapsed, result) {
            self.changed.notify_all();
            self.signal_events(&state);
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
    pub fn plan_frames(schedule: &Schedule, frames: u64, cache_layers: u32, readers: usize) -> Residency {
        let most = Engine::frames_limit(schedule, cache_layers);
        residency::plan(schedule, residency::usable(schedule, frames, most), Fixed::in_flight_bytes(readers))
    }

    /// Memory the engine takes beside frames: book-keeping and threads' stacks.
    pub fn overhead_bytes(schedule: &Schedule, prefetch: bool, readers: usize) -> u64 {
        let threads = if prefetch { readers + 1 } else { 0 };
        (schedule.memory_bytes()
            + schedule.pages.len() * State::bytes_per_page()
            + threads * super::loader::STACK_BYTES) as u64
    }

    /// Frames that `capacity` bytes make under the limit of `cache_layers` layers.
    pub fn frames_limit(schedule: &Schedule, cache_layers: u32) -> u64 {
        schedule.largest_layer_with_experts().saturating_mul(cache_layers as u64)
    }

    /// Starts the engine; the loader begins to read at once. The accounting must leave [`Engine::min_frames`].
    pub fn start(config: Config) -> Result<Engine> {
        let depth = Fixed::in_flight_bytes(config.readers).max(Fixed::host_bytes(&config.schedule));
        let largest_ring = residency::good_ring(&config.schedule, depth).min(config.schedule.streamable_bytes());
        let ring_memory = FrameMemory::new(largest_ring as usize, 0)
            .map_err(|e| Error::out_of_memory(format!("reserving {largest_ring} bytes of frames: {e}")))?;
        let fixed = Fixed {
            max_frames: Engine::frames_limit(&config.schedule, config.cache_layers),
            schedule: config.schedule,
            sources: config.sources,
            ring_memory,
            max_outstanding: config.readers + 2,
            readers: config.readers,
            prefetch_distance: config.prefetch_distance,
        };
        let state = State::new(&fixed, config.accounting);
        let prefetch = config.prefetch && cfg!(feature = "prefetch");
        let (sender, receiver) = channel::bounded(1);
        let shared = Arc::new(Shared {
            fixed,
            state: Mutex::new(state),
            changed: Condvar::new(),
            events: Condvar::new(),
            notifier: Notifier::new().map_err(|e| Error::io(format!("making the event descriptor: {e}")))?,
            queue: prefetch.then_some(sender),
        });
        let loader = if prefetch { Some(Loader::start(&shared, receiver)?) } else { None };
        if let Some(budget_share) = &config.budget_share {
            budget_share.attach(&shared);
        }
        shared.wake_loader();
        Ok(Engine { shared, loader, budget_share: config.budget_share })
    }

    pub fn schedule(&self) -> &Schedule {
        &self.shared.fixed.schedule
    }

    // --- sweeps -----------------------------------------------------------------------------------------------------

    /// Begins a sweep over pages 0 to `end`, when those that asked before have ended. `interrupt`, raised since its count
    /// was `since`, ends it and the waiting for it.
    pub fn sweep<'a>(&'a self, interrupt: &'a Interrupt, since: u64, end: usize) -> Result<Sweep<'a>> {
        let cancel = CancelToken { interrupt, since };
        let mut state = self.shared.state.lock();
        state.last_turn += 1;
        let turn = state.last_turn;
        state.turns.push_back(turn);
        loop {
            if let Err(e) = cancel.check() {
                state.turns.retain(|&t| t != turn);
                self.shared.changed.notify_all();
                return Err(e);
            }
            if !state.sweeping() && state.turns.front() == Some(&turn) {
                break;
            }
            self.shared.changed.wait(&mut state);
        }
        state.turns.pop_front();
        state.begin_sweep(end);
        let read_before = state.stats.read_bytes;
        drop(state);
        self.shared.wake_loader();
        Ok(Sweep {
            engine: self,
            cancel,
            started: Instant::now(),
            stalled: Duration::ZERO,
            read_before,
            access: LayerAccess::default(),
        })
    }

    /// Waits until the page is there and users it; how long it waited, if it did.
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
            if let Some(window) = state.acquire_page(fixed, p) {
                let held = PageGuard { engine: self, page: p, window, streamed: !state.is_pinned(p), by_sweep: true };
                return Ok((held, since.map(|s: Instant| s.elapsed())));
            }
            since.get_or_insert_with(Instant::now);
            cancel.check()?;
            if state.is_absent(p) {
                let failure = state.take_failure(p);
                let failed = failure.is_some();
                if let Some(e) = failure
                    && retried
                {
                    return Err(e);
                }
                if failed || shared.queue.is_none() {
                    if let Some(requests) = state.start_for_sweep(fixed, p) {
                        retried = failed;
                        drop(state);
                        for request in requests {
                            shared.perform(request, false);
                        }
                        state = shared.state.lock();
                        continue;
                    }
                    if let Some(e) = state.take_failure(p) {
                        return Err(e);
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
    /// users at least [`Engine::row_buffer_bytes`].
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
            let window = self.shared.state.lock().acquire_page(fixed, p);
            if let Some(window) = window {
                // Releases the page even if `use_row` panics.
                let held = PageGuard { engine: self, page: p, window, streamed: false, by_sweep: false };
                return Ok(use_row(&held.bytes()[at..at + m.row_bytes]));
            }
        }
        let (file, offset) = m.row_place(row);
        let bytes = self.read_stretch(file, offset, m.row_bytes as u64, buffer);
        bytes.map(use_row).map_err(|e| e.context(format!("{}: row {row}", m.name)))
    }

    /// Reads `length` bytes from an absolute offset of a file into `buffer`, which users at least
    /// [`Engine::row_buffer_bytes`] of them.
    pub fn read_stretch<'b>(&self, file: usize, offset: u64, length: u64, buffer: &'b mut Memory) -> Result<&'b [u8]> {
        let source = &self.shared.fixed.sources[file];
        let alignment = source.alignment();
        let from = offset & !(alignment - 1);
        let to = (offset + length).next_multiple_of(alignment);
        let started = Instant::now();
        let bytes = &mut buffer.bytes_mut()[..(to - from) as usize];
        source.read_full(from, bytes)?;
        let mut state = self.shared.state.lock();
        state.stats.read_ns += started.elapsed().as_nanos() as u64;
        state.stats.read_bytes += to - from;
        drop(state);
        Ok(&bytes[(offset - from) as usize..][..length as usize])
    }

    /// Room for a row of `row_bytes` with unaligned ends.
    pub fn row_buffer_bytes(row_bytes: usize) -> usize {
        row_bytes + 2 * super::source::DIRECT_ALIGNMENT as usize
    }

    // --- the budget -------------------------------------------------------------------------------------------------

    /// Takes memory for a session from the budget; frames that must go for it are gone when this returns, which may take
    /// one page's time of a running pass.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        self.claim(bytes)?;
        self.shared.await_within_budget(&mut self.shared.state.lock(), || Ok(()))
    }

    /// Takes memory from the budget without waiting for the frames that must go for it: it may be used after
    /// [`Engine::await_room`]. On a shared budget, what other models must give for it is waited for.
    pub fn claim(&self, bytes: u64) -> Result<()> {
        let shared = &*self.shared;
        let take = || shared.state.lock().reserve(&shared.fixed, bytes);
        match &self.budget_share {
            Some(budget_share) => budget_share.change(|| shared.state.lock().needs(&shared.fixed, bytes), take),
            None => take(),
        }
    }

    /// Waits until frames have made room for all that was claimed. `interrupt`, raised since its count was `since`, ends
    /// the waiting.
    pub fn await_room(&self, interrupt: &Interrupt, since: u64) -> Result<()> {
        let cancel = CancelToken { interrupt, since };
        self.shared.await_within_budget(&mut self.shared.state.lock(), || cancel.check())
    }

    /// Gives back what [`Engine::reserve`] or [`Engine::claim`] took.
    pub fn release(&self, bytes: u64) {
        let shared = &*self.shared;
        shared.state.lock().release(&shared.fixed, bytes);
        if let Some(budget_share) = &self.budget_share {
            // Needing less always fits.
            let _ = budget_share.change(|| shared.state.lock().needs(&shared.fixed, 0), || Ok(()));
        }
        shared.wake_loader();
    }

    /// Changes the budget, without waiting: frames in use by a running pass or a read are given back as soon as it is done
    /// with them.
    pub fn set_budget(&self, bytes: u64) -> Result<()> {
        if self.budget_share.is_some() {
            return Err(Error::invalid("the model lives on a shared budget: change that one"));
        }
        self.shared.state.lock().set_budget(&self.shared.fixed, bytes)?;
        self.shared.wake_loader();
        Ok(())
    }

    pub fn stats(&self) -> Stats {
        self.shared.state.lock().snapshot()
    }

    /// Counts a finished pass.
    pub fn count_pass(&self, tokens: usize) {
        let mut state = self.shared.state.lock();
        state.stats.passes += 1;
        state.stats.tokens += tokens as u64;
    }

    // --- the host ---------------------------------------------------------------------------------------------------

    /// Asks for layers `first` to `first + count`; returns at once.
    pub fn prefetch(&self, first: u32, count: u32) -> Result<u64> {
        let shared = &*self.shared;
        let layers = shared.fixed.schedule.layer_count;
        if count == 0 || first.checked_add(count).is_none_or(|end| end > layers) {
            return Err(Error::invalid(format!("layers {first} to {first} + {count} of a model with {layers} layers")));
        }
        if shared.queue.is_none() {
            return Err(Error::unsupported("this model was opened without prefetching: every load is on demand"));
        }
        let ticket = shared.state.lock().prefetch(&shared.fixed, first, count)?;
        shared.wake_loader();
        Ok(ticket)
    }

    /// A ticket for a submitted pass, which `interrupt` ends.
    pub fn open_pass(&self, interrupt: &Arc<Interrupt>) -> Result<u64> {
        self.shared.state.lock().tickets.open_pass(interrupt.clone())
    }

    /// A submitted pass has ended: cancelling its ticket does nothing from now on.
    pub fn pass_ended(&self, ticket: u64) {
        self.shared.state.lock().tickets.pass_ended(ticket);
    }

    /// Posts the DONE of a submitted pass that has ended.
    pub fn pass_done(&self, ticket: u64, failure: Option<Error>, bytes: u64) {
        let mut state = self.shared.state.lock();
        state.tickets.pass_done(ticket, failure, bytes);
        self.shared.signal_events(&state);
    }

    /// Ends a prefetch: what is not read yet is not read for it, what is ready is no longer kept for it. Of a submitted
    /// pass it raises the interrupt.
    pub fn cancel(&self, ticket: u64) -> Result<()> {
        let mut state = self.shared.state.lock();
        if !state.tickets.was_issued(ticket) {
            return Err(Error::not_found(format!("there is no ticket {ticket}")));
        }
        if let Some(interrupt) = state.tickets.interrupt_of(ticket) {
            // Under the lock, under which passes end too: the pass that this ends is the ticket's own.
            interrupt.raised.fetch_add(1, Ordering::SeqCst);
            self.shared.changed.notify_all();
        }
        state.tickets.cancel(ticket);
        state.unprotect(ticket);
        self.shared.signal_events(&state);
        drop(state);
        self.shared.wake_loader();
        Ok(())
    }

    /// How the request of this ticket failed; `Ok` where it has not.
    ///
    /// # Errors
    /// The request's own; `NOT_FOUND`: there is no such ticket, or it is too old to tell.
    pub fn ticket_error(&self, ticket: u64) -> Result<()> {
        self.shared.state.lock().tickets.outcome(ticket)
    }

    /// Takes up to `cap` waiting events.
    pub fn poll(&self, events: &mut Vec<Event>, cap: usize) {
        self.take_events(&mut self.shared.state.lock(), events, cap);
    }

    /// Waits for an event, then takes up to `cap`. `None`: without limit.
    pub fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>, cap: usize) {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.shared.state.lock();
        while state.tickets.events.is_empty() {
            match deadline {
                None => self.shared.events.wait(&mut state),
                Some(at) if self.shared.events.wait_until(&mut state, at).timed_out() => break,
                Some(_) => {}
            }
        }
        self.take_events(&mut state, events, cap);
    }

    fn take_events(&self, state: &mut MutexGuard<'_, State>, events: &mut Vec<Event>, cap: usize) {
        let count = cap.min(state.tickets.events.len());
        events.extend(state.tickets.events.drain(..count));
        if state.tickets.events.is_empty() {
            self.shared.notifier.silence();
        }
    }

    /// Readable while events wait.
    pub fn event_fd(&self) -> Option<i32> {
        self.shared.notifier.descriptor()
    }

    pub fn layer_state(&self, layer: u32) -> Result<LayerState> {
        let layers = self.schedule().layer_count;
        if layer >= layers {
            return Err(Error::invalid(format!("layer {layer} of a model with {layers} layers")));
        }
        Ok(self.shared.state.lock().layer_state(&self.shared.fixed, layer))
    }

    /// Waits until the loader has nothing to do and nothing is being read.
    #[cfg(test)]
    pub fn settle(&self) {
        loop {
            let mut state = self.shared.state.lock();
            if state.outstanding() == 0 {
                match state.next_page(&self.shared.fixed) {
                    None => return,
                    Some(requests) => {
                        drop(state);
                        for request in requests {
                            self.shared.perform(request, false);
                        }
                    }
                }
            } else {
                self.shared.changed.wait_for(&mut state, Duration::from_millis(1));
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
        self.shared.state.lock().closing = true;
        self.shared.wake_loader();
        if let Some(loader) = self.loader.take() {
            loader.finish();
        }
    }
}
