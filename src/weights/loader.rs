//! The background worker: one loader thread that decides what is read next, and reader threads that do the blocking
//! reads. The loader sleeps on its queue; whoever frees a frame or asks for pages wakes it. A reader that has finished
//! decides on the spot what follows: while storage is busy nobody else need be woken for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Shared;
use super::state::Request;
use super::sync::channel::{self, Receiver, Sender};
use super::sync::thread::{self, JoinHandle};
use crate::error::{Error, Result};

/// Stacks of the loader and of each reader: they call little.
pub const STACK_BYTES: usize = 128 << 10;
/// How long closing waits for reads under way. One that hangs in the device is left behind with the memory it writes to.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The turn that the background threads ask the scheduler for. A tenth of it was no better.
#[cfg(target_os = "linux")]
const TURN_NS: u64 = 500_000;

/// What the loader's queue carries: reasons to look at the state again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Frames became free, pages were asked for, or a read is done.
    Look,
}

/// What the readers' queue carries.
enum Job {
    Read(Request),
    /// The reader that takes it ends.
    Leave,
}

/// The running threads. Dropping it ends them.
pub struct Loader {
    threads: Vec<JoinHandle<()>>,
    exited: Receiver<()>,
}

impl Loader {
    /// Starts the loader and `shared.fixed.readers` readers.
    pub fn start(shared: &Arc<Shared>, queue: Receiver<Message>) -> Result<Loader> {
        let readers = shared.fixed.readers;
        let (exit_tx, exited) = channel::bounded(1 + readers);
        let (jobs_tx, jobs) = channel::unbounded::<Job>();
        let mut loader = Loader { threads: Vec::new(), exited };
        let started = (0..=readers).try_for_each(|i| {
            let (shared, exit) = (shared.clone(), exit_tx.clone());
            let (jobs_tx, jobs, queue) = (jobs_tx.clone(), jobs.clone(), queue.clone());
            let name = if i < readers { format!("layerline-read{i}") } else { "layerline-load".into() };
            loader.spawn(name, move || {
                take_short_turns();
                if i < readers {
                    read(&shared, &jobs, &jobs_tx)
                } else {
                    load(&shared, &queue, &jobs_tx)
                }
                let _ = exit.send(());
            })
        });
        if let Err(e) = started {
            dismiss(&jobs_tx, readers);
            return Err(e);
        }
        Ok(loader)
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(body);
        self.threads.push(thread.map_err(|e| Error::out_of_memory(format!("starting a reader thread: {e}")))?);
        Ok(())
    }

    /// Waits for the threads to end, which they do once the state says that it is closing and the queue is gone.
    pub fn finish(self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        for _ in 0..self.threads.len() {
            if self.exited.recv_deadline(deadline).is_err() {
                return;
            }
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Asks the scheduler to let this thread run soon after it wakes, however busy the processors are: the loader and the
/// readers run for microseconds at a time, and storage idles while they wait for a core that a compute thread uses up its
/// turn on. Measured on two busy cores, with what a pass streams about equal to what it computes: a twelfth less time.
///
/// Linux 6.12 or later takes the length of a turn from `sched_runtime` of ordinary threads; earlier ones ignore it. It is a
/// wish: where it is refused, nothing else changes.
fn take_short_turns() {
    #[cfg(target_os = "linux")]
    {
        /// `struct sched_attr` of sched_setattr(2), in its first published size.
        #[repr(C)]
        #[derive(Default)]
        struct Attributes {
            size: u32,
            policy: u32,
            flags: u64,
            nice: i32,
            priority: u32,
            runtime_ns: u64,
            deadline_ns: u64,
            period_ns: u64,
        }
        const SIZE: u32 = size_of::<Attributes>() as u32;
        const ORDINARY: u32 = libc::SCHED_OTHER as u32;
        let mut now = Attributes::default();
        // SAFETY: the system writes at most `SIZE` bytes to what it is given; thread 0 is the calling one.
        let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0) } == 0;
        // A host that has chosen another policy for its threads keeps it.
        if known && now.policy == ORDINARY {
            let wish = Attributes { size: SIZE, runtime_ns: TURN_NS, ..now };
            // SAFETY: the structure is only read.
            unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
        }
    }
}

fn load(shared: &Shared, queue: &Receiver<Message>, readers: &Sender<Job>) {
    while queue.recv().is_ok() && start_reads(shared, readers) {}
    dismiss(readers, shared.fixed.readers);
}

fn dismiss(readers: &Sender<Job>, count: usize) {
    for _ in 0..count {
        let _ = readers.send(Job::Leave);
    }
}

/// Hands to the readers what should be read now. False: the model is being closed.
fn start_reads(shared: &Shared, readers: &Sender<Job>) -> bool {
    loop {
        let state = shared.state.lock();
        if state.closing() {
            return false;
        }
        let (state, next) = shared.next_page(state);
        shared.signal_events(&state);
        if next.is_none() && state.has_stuck_sweep() {
            shared.notify_sweeps();
        }
        drop(state);
        let Some(requests) = next else { return true };
        for request in requests {
            let _ = readers.send(Job::Read(request));
        }
    }
}

fn read(shared: &Shared, jobs: &Receiver<Job>, readers: &Sender<Job>) {
    while let Ok(Job::Read(request)) = jobs.recv() {
        // Of a model that is being closed nothing more is read, but every request is answered for.
        let closing = shared.state.lock().closing();
        shared.perform(request, closing);
        start_reads(shared, readers);
    }
}
