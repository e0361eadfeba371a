//! Passes that run on a thread of the library while the host does something else: submitted, queued, ended early, and
//! announced by an event.
//!
//! A submitted pass takes its session along. Until it is done nobody else can have the session, and when the host has
//! freed it meanwhile, it ends with the pass. The session is given back before the event is posted, so that a host
//! which sees the event can go on at once.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Interrupt, Results, Session};
use crate::error::{Error, Result, Status};
use crate::model::{Model, Outputs};

/// A pass needs what a worker of the compute pool needs, and a little for the way there.
const STACK_BYTES: usize = 320 << 10;

/// A session that may run passes in the background. Calls never wait for a pass: what needs the session while it is
/// away is told `BUSY`. Dropping it ends its pass, without waiting for that.
pub struct SharedSession {
    model: Arc<Model>,
    interrupt: Arc<Interrupt>,
    slot: Arc<Slot>,
}

/// Where the session is when it is at home. The lock is held for moments by the pass thread, and never over a pass that
/// it runs.
struct Slot(RwLock<Place>);

// There is one for each session, where it lies anyway: a box would be a way more to it.
#[allow(clippy::large_enum_variant)]
enum Place {
    Home(Session),
    /// With the pass of this ticket.
    Away(u64),
    /// A pass ended in a panic, so that its state cannot be trusted: it is gone.
    Lost,
}

fn busy() -> Error {
    Error::new(Status::Busy, "another call on this session is running")
}

impl Place {
    /// Why the session is not there.
    fn refusal(&self) -> Error {
        match self {
            Place::Away(ticket) => {
                Error::new(Status::Busy, format!("the session is with its submitted pass, ticket {ticket}"))
            }
            Place::Home(_) | Place::Lost => Error::new(
                Status::Internal,
                "an earlier pass of this session failed inside the library: it can only be freed",
            ),
        }
    }

    fn session(&self) -> Option<&Session> {
        if let Place::Home(session) = self { Some(session) } else { None }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        if let Place::Home(session) = self { Some(session) } else { None }
    }
}

impl SharedSession {
    pub fn new(session: Session) -> SharedSession {
        let (model, interrupt) = (session.model.clone(), session.interrupt.clone());
        SharedSession { model, interrupt, slot: Arc::new(Slot(RwLock::new(Place::Home(session)))) }
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The session, to look at.
    ///
    /// # Errors
    /// `BUSY`: a call that changes it is running, or a submitted pass; `INTERNAL`: one of its passes panicked.
    pub fn read(&self) -> Result<impl Deref<Target = Session> + use<'_>> {
        let place = self.slot.0.try_read().ok_or_else(busy)?;
        RwLockReadGuard::try_map(place, Place::session).map_err(|place| place.refusal())
    }

    /// The session, to change it.
    ///
    /// # Errors
    /// As [`SharedSession::read`]; also `BUSY` while another thread looks at it.
    pub fn write(&self) -> Result<impl DerefMut<Target = Session> + use<'_>> {
        let place = self.slot.0.try_write().ok_or_else(busy)?;
        RwLockWriteGuard::try_map(place, Place::session_mut).map_err(|place| place.refusal())
    }

    /// Begins a pass as [`Session::forward`] runs it, on a thread of the library, and returns its ticket at once: nothing
    /// is read, computed or waited for here. An event says when it is done and how it ended; the session is at home again
    /// before that. Submitted passes of one model run in the order in which they were submitted, on one thread.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `CONTEXT_FULL`, `MEMORY_BUDGET`: as [`Session::forward`]; `BUSY`: the session is in use, or too
    /// many events wait to be taken; `OUT_OF_MEMORY`: no thread; `UNSUPPORTED`: built without the feature `prefetch`.
    pub fn submit(&self, tokens: &[i32], outputs: impl Into<Outputs>) -> Result<u64> {
        let outputs = outputs.into();
        if !cfg!(feature = "prefetch") {
            return Err(Error::unsupported(
                "this library was built without threads of its own: passes cannot be submitted",
            ));
        }
        let mut place = self.slot.0.try_write().ok_or_else(busy)?;
        let Some(session) = place.session() else { return Err(place.refusal()) };
        session.check(tokens, outputs)?;
        let results = Results::claim(&self.model, outputs, tokens.len())?;
        let mut copy = Vec::new();
        if copy.try_reserve_exact(tokens.len()).is_err() {
            return Err(Error::out_of_memory(format!("{} tokens", tokens.len())));
        }
        copy.extend_from_slice(tokens);
        self.model.passes().start()?;
        let since = self.interrupt.settled();
        let ticket = self.model.engine().open_pass(&self.interrupt)?;
        let Place::Home(session) = std::mem::replace(&mut *place, Place::Away(ticket)) else {
            unreachable!("the lock was held since the session was found at home")
        };
        drop(place);
        let job = Job { ticket, session, home: Arc::downgrade(&self.slot), tokens: copy, outputs, results, since };
        self.model.passes().push(job);
        if self.interrupt.count() != since {
            // An interrupt that came before the pass was in the queue has not found it there: it ends the pass now.
            self.model.passes().withdraw(ticket);
        }
        Ok(ticket)
    }

    /// Ends the pass of this session, from any thread: one that runs within one page's time, a submitted one that waits
    /// for its turn at once. Where there is none, the next pass or generation ends as soon as it begins.
    pub fn interrupt(&self) {
        self.interrupt.raise();
        self.model.passes().withdraw_of(&self.slot);
    }

    /// Takes back an interrupt that no pass has seen. A pass that is running or waiting is ended all the same.
    pub fn clear_interrupt(&self) {
        self.interrupt.settle();
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        self.interrupt();
    }
}

/// A submitted pass and all it needs.
struct Job {
    ticket: u64,
    session: Session,
    home: Weak<Slot>,
    tokens: Vec<i32>,
    outputs: Outputs,
    results: Results,
    since: u64,
}

impl Job {
    fn run(self) {
        let Job { ticket, mut session, home, tokens, outputs, results, since } = self;
        let model = session.model.clone();
        let run = || {
            let result = session.pass(&tokens, outputs, results, since);
            (session, result)
        };
        // What a panicking pass was changing is not looked at again: it is dropped, or lost by its owner.
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok((session, result)) => finish(&model, ticket, home, Some(session), result.err()),
            Err(payload) => {
                // The destructor of a payload could panic in its turn.
                std::mem::forget(payload);
                let fault = Error::new(Status::Internal, "a fault inside the library ended the pass");
                finish(&model, ticket, home, None, Some(fault));
            }
        }
    }

    /// Ends a pass that has not begun.
    fn evict(self) {
        let Job { ticket, mut session, home, results, .. } = self;
        drop(results);
        session.pass_bytes = 0;
        let model = session.model.clone();
        finish(&model, ticket, home, Some(session), Some(Error::cancelled()));
    }
}

/// Brings the session home, or ends it where nobody waits for it, and then tells that its pass is done.
fn finish(model: &Model, ticket: u64, home: Weak<Slot>, session: Option<Session>, failure: Option<Error>) {
    model.engine().pass_ended(ticket);
    // From here on nobody ends this pass: what was raised until now was meant for it.
    if let Some(session) = &session {
        session.interrupt.settle();
    }
    let bytes = session.as_ref().map_or(0, |s| s.pass_bytes);
    match home.upgrade() {
        Some(slot) => {
            *slot.0.write() = session.map_or(Place::Lost, Place::Home);
            // The owner may have freed it meanwhile: then the session ends here, and its memory is free before the event.
            drop(slot);
        }
        None => drop(session),
    }
    model.engine().pass_done(ticket, failure, bytes);
}

/// The submitted passes of a model, and the thread that runs them.
#[derive(Default)]
pub struct Passes {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closing: bool,
}

impl Passes {
    /// Memory for the thread, which the first submitted pass starts.
    pub fn memory_needed() -> usize {
        if cfg!(feature = "prefetch") { STACK_BYTES } else { 0 }
    }

    fn start(&self) -> Result<()> {
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

    fn push(&self, job: Job) {
        self.queue.waiting.lock().jobs.push_back(job);
        self.queue.arrived.notify_one();
    }

    /// Ends the pass of this ticket with CANCELLED, if it waits for its turn.
    pub(crate) fn withdraw(&self, ticket: u64) {
        self.withdraw_where(|job| job.ticket == ticket);
    }

    fn withdraw_of(&self, slot: &Arc<Slot>) {
        self.withdraw_where(|job| std::ptr::eq(job.home.as_ptr(), Arc::as_ptr(slot)));
    }

    fn withdraw_where(&self, is_meant: impl Fn(&Job) -> bool) {
        let mut waiting = self.queue.waiting.lock();
        let found = waiting.jobs.iter().position(is_meant);
        let job = found.and_then(|at| waiting.jobs.remove(at));
        drop(waiting);
        if let Some(job) = job {
            job.evict();
        }
    }

    #[cfg(all(test, feature = "prefetch"))]
    pub(super) fn watch_thread(&self) -> Weak<impl Sized + use<>> {
        Arc::downgrade(&self.queue)
    }
}

impl Queue {
    /// The life of the pass thread.
    fn serve(&self) {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                drop(waiting);
                job.run();
                waiting = self.waiting.lock();
            } else if waiting.closing {
                return;
            } else {
                self.arrived.wait(&mut waiting);
            }
        }
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
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
