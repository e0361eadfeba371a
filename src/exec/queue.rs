//! Submitted passes, and the thread that takes them through their sweeps.

use std::collections::VecDeque;
use std::sync::Arc;
#[cfg(all(test, feature = "prefetch"))]
use std::sync::Weak;
use std::thread::JoinHandle;

use super::Member;
use crate::error::{Error, Result};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::thread::HomeProcess;

/// A pass needs what a worker of the compute pool needs, and a little for the way there.
const STACK_BYTES: usize = 320 << 10;

/// What a submitted pass does when its turn comes, or when it is withdrawn before. Nothing of it panics.
pub trait SubmittedPass: Send {
    /// Begins the pass and puts it into the queue of sweeps; false: it has ended.
    fn begin(&mut self) -> bool;
    fn member(&self) -> &Arc<Member>;
    /// [`super::Loaded::advance`] of its model.
    fn advance(&self, own: &[Arc<Member>], wake: &dyn Fn() -> bool);
    /// Goes on where a sweep has ended for it; false: it has ended.
    fn go_on(&mut self) -> bool;
    /// Announces how it ended.
    fn finish(self: Box<Self>);
    /// Announces that the pass was cancelled before it began.
    fn cancel(self: Box<Self>);
}

/// The submitted passes of a model, and the thread that runs them.
pub struct PassQueue {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
    home: HomeProcess,
}

#[derive(Default)]
struct Queue {
    /// Whether passes share sweeps; else one begins when the one before it has ended.
    shares: bool,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    passes: VecDeque<Entry>,
    closing: bool,
}

struct Entry {
    ticket: u64,
    owner: usize,
    pass: Box<dyn SubmittedPass>,
}

impl PassQueue {
    pub fn new(shares: bool) -> PassQueue {
        let queue = Arc::new(Queue { shares, ..Queue::default() });
        PassQueue { queue, thread: Mutex::default(), home: HomeProcess::default() }
    }

    /// Memory for the thread, which the first submitted pass starts.
    pub fn memory_needed() -> usize {
        if cfg!(feature = "prefetch") { STACK_BYTES } else { 0 }
    }

    /// Starts the thread, if it does not run yet.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`: the system gives no thread.
    pub fn start(&self) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let queue = self.queue.clone();
            // The thread owns nothing of the model between passes, so that it keeps no model alive.
            let builder = std::thread::Builder::new().name("layerline-pass".into()).stack_size(STACK_BYTES);
            let spawned = builder.spawn(move || queue.serve());
            *thread = Some(spawned.map_err(|e| Error::out_of_memory(format!("starting the thread of passes: {e}")))?);
        }
        Ok(())
    }

    /// Adds a pass at the end. `owner`: a number of its session, that no other session with a waiting pass has.
    pub fn push(&self, ticket: u64, owner: usize, pass: Box<dyn SubmittedPass>) {
        self.queue.waiting.lock().passes.push_back(Entry { ticket, owner, pass });
        self.queue.arrived.notify_one();
    }

    /// Cancels the pass of this ticket, if it waits for its turn.
    pub fn withdraw(&self, ticket: u64) {
        self.withdraw_where(|entry| entry.ticket == ticket);
    }

    /// Cancels the pass of this session, if one waits for its turn.
    pub fn withdraw_of(&self, owner: usize) {
        self.withdraw_where(|entry| entry.owner == owner);
    }

    fn withdraw_where(&self, is_meant: impl Fn(&Entry) -> bool) {
        if !self.home.is_here() {
            return;
        }
        let mut waiting = self.queue.waiting.lock();
        let found = waiting.passes.iter().position(is_meant);
        let entry = found.and_then(|at| waiting.passes.remove(at));
        drop(waiting);
        if let Some(entry) = entry {
            entry.pass.cancel();
        }
    }

    #[cfg(all(test, feature = "prefetch"))]
    pub fn watch_thread(&self) -> Weak<impl Sized + use<>> {
        Arc::downgrade(&self.queue)
    }
}

impl Queue {
    /// The life of the pass thread.
    fn serve(&self) {
        let mut running: Vec<Box<dyn SubmittedPass>> = Vec::new();
        loop {
            while let Some(mut pass) = self.next(running.is_empty()) {
                if pass.begin() {
                    running.push(pass);
                } else {
                    pass.finish();
                }
            }
            let Some(first) = running.first() else { return };
            let members: Vec<Arc<Member>> = running.iter().map(|pass| pass.member().clone()).collect();
            first.advance(&members, &|| self.shares && !self.waiting.lock().passes.is_empty());
            let mut i = 0;
            while i < running.len() {
                if running[i].go_on() {
                    i += 1;
                } else {
                    running.remove(i).finish();
                }
            }
        }
    }

    /// The next pass that begins now. Without any that runs it is waited for; `None` then: the queue is closed.
    fn next(&self, none_runs: bool) -> Option<Box<dyn SubmittedPass>> {
        let mut waiting = self.waiting.lock();
        while none_runs && waiting.passes.is_empty() && !waiting.closing {
            self.arrived.wait(&mut waiting);
        }
        if !none_runs && !self.shares {
            return None;
        }
        waiting.passes.pop_front().map(|entry| entry.pass)
    }
}

impl Drop for PassQueue {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // The thread stayed in the parent, perhaps with the lock.
            return;
        }
        // Every pass keeps its model alive, so none is left: the thread has nothing to do but to end.
        self.queue.waiting.lock().closing = true;
        self.queue.arrived.notify_one();
        if let Some(thread) = self.thread.get_mut().take()
            // The last pass may have been the model's last user: then this is its thread, and ends by itself.
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
