//! The compute threads: one job at a time, split over ranges of rows.
//!
//! A job is published by one store to `state`. Threads that spin see it within a fraction of a microsecond, parked
//! ones are woken. Each thread has an equal part of the work, of which it takes half, then half of the rest, and so
//! on; who has finished his own takes from the others in the same way. A thread joins a job by raising the count in
//! `state` while the job is open; the caller closes the job when all work is taken and waits only for those who
//! joined. A thread that the system delays therefore holds up nothing that it has not begun.

use crate::error::{Error, Result, Status};
use crate::sys::sync::atomic::{AtomicU64, Ordering, fence};
use crate::sys::sync::thread::{self, JoinHandle};
use crate::sys::sync::{Condvar, Mutex, thread_local};
use crate::sys::thread::HomeProcess;
use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
#[cfg(not(all(test, shuttle)))]
use std::time::Duration;

#[cfg(all(test, shuttle, feature = "prefetch"))]
mod interleaved;
#[cfg(all(test, not(shuttle)))]
mod tests;

/// Stack of a worker: the kernels keep at most some tens of KiB there.
const STACK_BYTES: usize = 256 << 10;

/// More threads than this are refused: the count of those who joined has 16 bits.
const MAX_THREADS: usize = 1024;

/// How long a thread spins before it parks: about as long as a wake-up takes. On a busy two-core machine a spinning
/// thread joined a job after 0.3 µs, a parked one after 50 µs (medians). Between two jobs of a pass lie a few
/// microseconds of serial work, so this bridges a pass, and burns next to nothing while storage is waited for.
#[cfg(not(all(test, shuttle)))]
const SPIN: Duration = Duration::from_micros(40);

/// Turns of the spin loop between two looks at the clock.
#[cfg(not(all(test, shuttle)))]
const SPIN_TURNS: u32 = 32;

// The word `state`: how many threads work on the job besides the caller, flags, and the number of the job.
const JOINED: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
/// The caller has parked and wants to be woken by the last thread that leaves.
const CALLER_PARKED: u64 = 1 << 17;
const STOP: u64 = 1 << 18;
const EPOCH: u64 = 1 << 32;

fn epoch(state: u64) -> u64 {
    state / EPOCH
}

type Work<'a> = dyn Fn(Range<usize>) + Sync + 'a;

/// What the threads need to know of the job; written by the caller while no job is open and nobody joined.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work<'static>,
    total: usize,
    grain: usize,
}

/// The units of one thread's part that nobody has taken: first in the low half, end in the high half. On a cache
/// line (and its prefetched neighbour) of its own.
#[repr(align(128))]
struct Part(AtomicU64);

impl Part {
    /// Takes half of what is left, at least one unit.
    fn take(&self) -> Option<Range<u32>> {
        // Relaxed: the part's value was published with the job, and every unit is handed out once because the
        // exchange is atomic; what a unit's work reads was published with the job as well.
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let (first, end) = (now as u32, (now >> 32) as u32);
            if first == end {
                return None;
            }
            let middle = first + (end - first).div_ceil(2);
            let rest = u64::from(middle) | u64::from(end) << 32;
            match self.0.compare_exchange_weak(now, rest, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(first..middle),
                Err(seen) => now = seen,
            }
        }
    }
}

struct Shared {
    state: AtomicU64,
    /// How many workers are parked or about to be.
    parked: AtomicU64,
    /// How often a worker has parked since the start.
    parks: AtomicU64,
    job: UnsafeCell<Job>,
    parts: Box<[Part]>,
    /// Guards nothing but the condition variables: held between a check of `state` and the wait.
    sleep: Mutex<()>,
    work_arrived: Condvar,
    all_left: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the holder of `Pool::turn` while no job is open and nobody is joined, and read only
// by threads that joined an open job; joining reads the `state` that the caller stored after writing. The pointer in
// it is to a `Sync` closure that outlives the job, as `for_ranges` returns after all have left.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

thread_local! {
    /// The pool whose job this thread is working on, to recognise nested calls.
    static WORKING_FOR: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// Who may give the threads work, in order of arrival.
#[derive(Default)]
struct Turns {
    /// Turns that were asked for, and that have ended.
    counts: Mutex<(u64, u64)>,
    ended: Condvar,
}

/// Ends when it is dropped.
struct Turn<'a>(&'a Turns);

impl Turns {
    fn next(&self) -> Turn<'_> {
        let mut counts = self.counts.lock();
        let mine = counts.0;
        counts.0 += 1;
        while counts.1 != mine {
            self.ended.wait(&mut counts);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.counts.lock();
        counts.1 += 1;
        if counts.0 != counts.1 {
            self.0.ended.notify_all();
        }
    }
}

/// A fixed set of compute threads. May be shared by any number of threads: they take turns.
pub struct Pool {
    shared: Arc<Shared>,
    turns: Turns,
    workers: Vec<JoinHandle<()>>,
    home: HomeProcess,
}

impl Pool {
    /// A pool in which `threads` threads work, the caller of each job being one of them: `threads - 1` are started.
    /// Without the feature `prefetch` none is, whatever is asked.
    ///
    /// # Errors
    /// `InvalidArgument` for zero or more than 1024 threads, `OutOfMemory` when the system refuses a thread.
    pub fn new(threads: usize) -> Result<Pool> {
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::invalid(format!("{threads} compute threads asked for, 1 to {MAX_THREADS} possible")));
        }
        let threads = if cfg!(feature = "prefetch") { threads } else { 1 };
        fn nothing(_: Range<usize>) {}
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            parks: AtomicU64::new(0),
            job: UnsafeCell::new(Job { work: &nothing, total: 0, grain: 1 }),
            parts: (0..threads).map(|_| Part(AtomicU64::new(0))).collect(),
            sleep: Mutex::new(()),
            work_arrived: Condvar::new(),
            all_left: Condvar::new(),
            panic: Mutex::new(None),
        });
        let workers = Vec::with_capacity(threads - 1);
        let mut pool = Pool { shared, turns: Turns::default(), workers, home: HomeProcess::default() };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new()
                .name(format!("layerline-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || shared.serve(index))
                .map_err(|e| {
                    let message = format!("cannot start compute thread {index} of {}: {e}", threads - 1);
                    Error::new(Status::OutOfMemory, message)
                })?; // Dropping the pool stops those already started.
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// How many threads work on a job, its caller included.
    pub fn threads(&self) -> usize {
        self.shared.parts.len()
    }

    /// Memory that a pool of `threads` threads holds: their stacks and its own.
    pub fn memory_needed(threads: usize) -> usize {
        threads.saturating_sub(1) * (STACK_BYTES + size_of::<JoinHandle<()>>())
            + size_of::<Pool>()
            + size_of::<Shared>()
            + threads * size_of::<Part>()
    }

    /// How often a worker has gone to sleep for want of work since the pool was made.
    pub fn parks(&self) -> u64 {
        self.shared.parks.load(Ordering::Relaxed)
    }

    /// Calls `work` on ranges that cover `0..total` once, and returns when all are done. Ranges begin at multiples
    /// of `grain` and end there or at `total`; how they are cut differs from call to call, so what `work` does to an
    /// element must not depend on its range.
    ///
    /// The caller works as well. Calls from several threads take turns; one from within a job of the same pool does
    /// the work on its own thread. Jobs of two pools must not call each other crosswise. Allocates nothing.
    ///
    /// # Panics
    /// If `work` panics on any thread: with that panic, after all other ranges are done. The pool stays usable.
    pub fn for_ranges(&self, total: usize, grain: usize, work: &Work<'_>) {
        if total == 0 {
            return;
        }
        // Parts are counted in 32 bits: where that is too little, units grow.
        let grain = grain.max(1);
        let grain = grain.saturating_mul(total.div_ceil(grain).div_ceil(u32::MAX as usize));
        let units = total.div_ceil(grain);
        let shared = &*self.shared;
        if units == 1 || self.threads() == 1 || WORKING_FOR.with(Cell::get) == ptr::from_ref(shared) {
            return work(0..total);
        }
        let turn = self.turns.next();
        // SAFETY: only the lifetime is changed; `Shared::finish` below does not return before every thread that saw
        // the pointer has left the job, and nobody joins after it.
        let work = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
        // SAFETY: `turn` is held, the last job is closed and all have left it, so nobody reads.
        unsafe { *shared.job.get() = Job { work, total, grain } };
        let threads = self.threads() as u64;
        for (part, i) in shared.parts.iter().zip(0u64..) {
            let (first, end) = (units as u64 * i / threads, units as u64 * (i + 1) / threads);
            part.0.store(first | end << 32, Ordering::Relaxed);
        }
        shared.publish(OPEN);
        shared.take_part(0);
        shared.finish();
        let panic = shared.panic.lock().take();
        // In order of arrival: a session that waits is not starved by one that returns at once.
        drop(turn);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // The workers stayed in the parent.
            return;
        }
        self.shared.publish(STOP);
        for worker in self.workers.drain(..) {
            // A worker catches what it runs and does nothing else that panics.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Opens the next job (or the end, with `STOP`) to the workers. The caller is the only one to change `state` now:
    /// the last job is closed and everybody has left it.
    fn publish(&self, flag: u64) {
        let next = epoch(self.state.load(Ordering::Relaxed)).wrapping_add(1) & 0xffff_ffff;
        // Release: who joins sees the job and the parts.
        self.state.store((next * EPOCH) | flag, Ordering::Release);
        // A worker that parks counts itself, then looks at `state`; here `state` is written, then the count is read.
        // With a sequentially consistent fence between the two on both sides, at least one sees the other.
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) > 0 {
            // A thread that counted itself holds the lock until it waits, or has seen the job.
            drop(self.sleep.lock());
            self.work_arrived.notify_all();
        }
    }

    /// Closes the job and waits for those who joined it.
    fn finish(&self) {
        // Acquire, here and below: what the others wrote is seen by the caller. Each left with a release, and those
        // form one chain of read-modify-writes on `state`, so seeing the last one is seeing all.
        let closed = self.state.fetch_and(!OPEN, Ordering::Acquire) & !OPEN;
        if closed & JOINED == 0 || spin(|| self.state.load(Ordering::Acquire) & JOINED == 0) {
            return;
        }
        let mut sleep = self.sleep.lock();
        let mut state = self.state.fetch_or(CALLER_PARKED, Ordering::Acquire);
        while state & JOINED != 0 {
            // The last to leave sees the flag and takes the lock, so its notice cannot come before the wait.
            self.all_left.wait(&mut sleep);
            state = self.state.load(Ordering::Acquire);
        }
    }

    /// A worker's life.
    fn serve(&self, index: usize) {
        let mut last = 0;
        loop {
            let state = self.wait_for_news(last);
            if state & STOP != 0 {
                return;
            }
            last = epoch(state);
            if self.join(last) {
                self.take_part(index);
                self.leave();
            }
        }
    }

    /// Returns `state` once its job is another than `last`: spins first, then parks.
    fn wait_for_news(&self, last: u64) -> u64 {
        let mut state = 0;
        let mut is_new = || {
            state = self.state.load(Ordering::Relaxed);
            epoch(state) != last
        };
        if spin(&mut is_new) {
            return state;
        }
        let mut sleep = self.sleep.lock();
        self.parked.fetch_add(1, Ordering::Relaxed);
        // See `publish`.
        fence(Ordering::SeqCst);
        while !is_new() {
            self.parks.fetch_add(1, Ordering::Relaxed);
            self.work_arrived.wait(&mut sleep);
        }
        self.parked.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Enters the job numbered `job`, unless it is closed already.
    fn join(&self, job: u64) -> bool {
        // Acquire: the job and the parts, written before the store this reads from (or that others joined after).
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (epoch(state) == job && state & OPEN != 0).then_some(state + 1)
            })
            .is_ok()
    }

    fn leave(&self) {
        // Release: the caller sees what this thread wrote.
        let before = self.state.fetch_sub(1, Ordering::Release);
        if before & CALLER_PARKED != 0 && before & JOINED == 1 {
            drop(self.sleep.lock());
            self.all_left.notify_one();
        }
    }

    /// Works until all units are taken: those of part `own` first, then the other parts in turn.
    fn take_part(&self, own: usize) {
        // SAFETY: this thread published the job or joined it, so it is not written before this thread is done.
        let job = unsafe { *self.job.get() };
        // SAFETY: the closure outlives the job, see `for_ranges`.
        let work = unsafe { &*job.work };
        let outer = WORKING_FOR.with(|pool| pool.replace(self));
        let (before, from_own) = self.parts.split_at(own);
        for part in from_own.iter().chain(before) {
            while let Some(units) = part.take() {
                let first = units.start as usize * job.grain;
                let end = (units.end as usize).saturating_mul(job.grain).min(job.total);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(first..end))) {
                    self.panic.lock().get_or_insert(panic);
                }
            }
        }
        WORKING_FOR.with(|pool| pool.set(outer));
    }
}

/// Time does not pass under the scheduler of the tests, so it looks twice.
#[cfg(all(test, shuttle))]
fn spin(mut done: impl FnMut() -> bool) -> bool {
    done() || done()
}

/// Spins until `done`, for at most [`SPIN`]. Tells whether it is done.
#[cfg(not(all(test, shuttle)))]
fn spin(mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..SPIN_TURNS {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = std::time::Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..SPIN_TURNS {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    done()
}
