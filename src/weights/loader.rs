//! The background worker: one loader thread that decides what is read next, and reader threads that do the blocking
//! reads. The loader sleeps on its queue; what frees a frame or asks for pages wakes it. A reader that has finished
//! decides on the spot what follows: while storage is busy nobody else need be woken for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::engine::Shared;
use super::state::Request;
use crate::error::{Error, Result};
use crate::sys::sync::channel::{self, Receiver, Sender};
use crate::sys::sync::thread::{self, JoinHandle};
use crate::sys::thread::take_short_turns;

/// Stacks of the loader and of each reader: they call little.
pub const STACK_BYTES: usize = 128 << 10;
/// How long closing waits for reads under way. One that hangs in the device is left behind with the memory it writes to.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

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
    let hand_over = |request| {
        let _ = readers.send(Job::Read(request));
    };
    start_reads_with(shared, hand_over)
}

fn start_reads_with(shared: &Shared, mut start: impl FnMut(Request)) -> bool {
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
        requests.into_iter().for_each(&mut start);
    }
}

fn read(shared: &Shared, jobs: &Receiver<Job>, readers: &Sender<Job>) {
    while let Ok(Job::Read(request)) = jobs.recv() {
        let mut next = Some(request);
        while let Some(request) = next.take() {
            // Of a model that is being closed nothing more is read, but every request is answered for.
            let closing = shared.state.lock().closing();
            shared.perform(request, closing);
            // One request this reader takes itself, unless earlier ones wait: nobody need be woken for it.
            start_reads_with(shared, |request| {
                if next.is_none() && jobs.is_empty() {
                    next = Some(request);
                } else {
                    let _ = readers.send(Job::Read(request));
                }
            });
        }
    }
}
