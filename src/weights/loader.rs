//! The background worker: one loader thread that decides what is read next, and reader threads that do the blocking
//! reads. The loader sleeps on its queue; whoever frees a frame, asks for pages or finishes a read wakes it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::engine::Shared;
use super::state::Request;
use crate::error::{Error, Result};

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

/// The running threads. Dropping it ends them.
pub struct Loader {
    threads: Vec<JoinHandle<()>>,
    exited: Receiver<()>,
}

impl Loader {
    /// Starts the loader and `shared.fixed.readers` readers.
    pub fn start(shared: &Arc<Shared>, queue: Receiver<Message>) -> Result<Loader> {
        let (exit_tx, exited) = crossbeam_channel::bounded(1 + shared.fixed.readers);
        let (request_tx, request_rx) = crossbeam_channel::unbounded::<Request>();
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
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(body);
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

fn load(shared: &Shared, queue: &Receiver<Message>, readers: Sender<Request>) {
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
    while let Ok(request) = requests.recv() {
        // Of a model that is being closed nothing more is read, but every request is answered for.
        let closing = shared.state.lock().closing;
        shared.perform(request, closing);
        shared.wake_loader();
    }
}
