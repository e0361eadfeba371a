//! The background worker: one loader thread that decides what is read next, and reader threads that do the blocking
//! reads. The loader sleeps on its queue; whoever frees a frame, asks for pages or finishes a read wakes it.

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

/// The running threads. Dropping it ends them.
pub struct Loader {
    threads: Vec<JoinHandle<()>>,
    exited: Receiver<()>,
}

impl Loader {
    /// Starts the loader and `shared.fixed.readers` readers.
    pub fn start(shared: &Arc<Shared>, queue: Receiver<Message>) -> Result<Loader> {
        let (exit_tx, exited) = channel::bounded(1 + shared.fixed.readers);
        let (request_tx, request_rx) = channel::unbounded::<Request>();
        let mut loader = Loader { threads: Vec::new(), exited };
        for i in 0..shared.fixed.readers {
            let (shared, requests, exit) = (shared.clone(), request_rx.clone(), exit_tx.clone());
            loader.spawn(format!("layerline-read{i}"), move || {
                read_requests(&shared, &requests);
                let _ = exit.send(());
            })?;
        }
        let shared = shared.clone();
        loader.spawn("layerline-load".into(), move || {
            load(&shared, &queue, request_tx);
            let _ = exit_tx.send(());
        })?;
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

fn load(shared: &Shared, queue: &Receiver<Message>, readers: Sender<Request>) {
    take_short_turns();
    while queue.recv().is_ok() {
        loop {
            let mut state = shared.state.lock();
            if state.closing {
                return;
            }
            let next = state.next_page(&shared.fixed);
            shared.signal_events(&state);
            if next.is_none() && state.has_stuck_sweep() {
                shared.notify_sweeps();
            }
            drop(state);
            let Some(requests) = next else { break };
            for request in requests {
                // The receivers live as long as the readers, which end after this thread.
                let _ = readers.send(request);
            }
        }
    }
}

fn read_requests(shared: &Shared, requests: &Receiver<Request>) {
    take_short_turns();
    while let Ok(request) = requests.recv() {
        // Of a model that is being closed nothing more is read, but every request is answered for.
        let closing = shared.state.lock().closing;
        shared.perform(request, closing);
        shared.wake_loader();
    }
}
