//! Passes that run on a thread of the library while the host does something else: submitted, queued, ended early, and
//! announced by an event.
//!
//! A submitted pass takes its session along. Until it is done nobody else can have the session, and when the host has
//! freed it meanwhile, it ends with the pass. The session is given back before the event is posted, so that a host
//! which sees the event can go on at once.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::pass::Pass;
use super::{Interrupt, Results, Session};
use crate::error::{Error, Result, Status};
use crate::exec::{Member, SubmittedPass};
use crate::model::{Model, Outputs};
use crate::weights::ProgressReport;

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
    /// before that. Submitted passes of one model take turns in the order in which they were submitted, on one thread, and
    /// share sweeps as far as the model's options say so.
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
        session.bring(tokens)?;
        self.model.passes().start()?;
        let since = self.interrupt.settled();
        let ticket = self.model.engine().open_pass(&self.interrupt)?;
        let Place::Home(session) = std::mem::replace(&mut *place, Place::Away(ticket)) else {
            unreachable!("the lock was held since the session was found at home")
        };
        drop(place);
        let stage = Stage::Waiting { outputs, results };
        let job = Job { ticket, session, home: Arc::downgrade(&self.slot), stage, since };
        self.model.passes().push(ticket, self.number(), Box::new(job));
        // The thread of passes may wait for a sweep that the new one can share.
        self.model.engine().gate().ring();
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
        self.model.passes().withdraw_of(self.number());
    }

    /// A number that no other session has as long as this one, or a pass of it, is there: where its slot lies.
    fn number(&self) -> usize {
        Arc::as_ptr(&self.slot).addr()
    }

    /// How far the running call has come, or the last one where none runs; from any thread, without waiting.
    pub fn progress(&self) -> ProgressReport {
        self.interrupt.progress().report()
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
    stage: Stage,
    since: u64,
}

enum Stage {
    Waiting {
        outputs: Outputs,
        results: Results,
    },
    Running(Pass),
    Ended(Result<()>),
    /// What a panicking pass was changing is not looked at again.
    Faulted,
}

impl Job {
    fn begin(&mut self) {
        let Stage::Waiting { outputs, results } = std::mem::replace(&mut self.stage, Stage::Faulted) else {
            return;
        };
        self.stage = match self.session.begin_pass(outputs, results, self.since) {
            Ok(pass) => self.enter(pass),
            Err(e) => Stage::Ended(Err(e)),
        };
    }

    fn enter(&mut self, mut pass: Pass) -> Stage {
        self.session.lend(&mut pass);
        self.session.model.loaded().enter(std::slice::from_ref(&self.session.member), None);
        Stage::Running(pass)
    }

    fn go_on(&mut self) {
        if !self.session.member.has_ended() {
            return;
        }
        let Stage::Running(mut pass) = std::mem::replace(&mut self.stage, Stage::Faulted) else { return };
        self.session.take_back(&mut pass);
        let outcome = self.session.member.take_outcome().filter(|outcome| !outcome.fault);
        let Some(outcome) = outcome else { return };
        self.stage = match self.session.absorb(&mut pass, outcome) {
            Ok(false) => self.enter(pass),
            Ok(true) => Stage::Ended(Ok(())),
            Err(e) => Stage::Ended(Err(e)),
        };
    }

    /// Calls `work`, which leaves the stage of a faulted pass behind where it panics.
    fn contain(&mut self, work: impl FnOnce(&mut Job)) -> bool {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            // The destructor of a payload could panic in its turn.
            std::mem::forget(payload);
            self.stage = Stage::Faulted;
        }
        matches!(self.stage, Stage::Running(_))
    }
}

impl SubmittedPass for Job {
    fn begin(&mut self) -> bool {
        self.contain(Job::begin)
    }

    fn member(&self) -> &Arc<Member> {
        &self.session.member
    }

    fn advance(&self, own: &[Arc<Member>], wake: &dyn Fn() -> bool) {
        // A sweep that panics tells its members so.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.session.model.loaded().advance(own, wake))) {
            std::mem::forget(payload);
        }
    }

    fn go_on(&mut self) -> bool {
        self.contain(Job::go_on)
    }

    fn finish(self: Box<Self>) {
        let Job { ticket, session, home, stage, .. } = *self;
        let model = session.model.clone();
        match stage {
            Stage::Ended(result) => finish(&model, ticket, home, Some(session), result.err()),
            Stage::Waiting { .. } | Stage::Running(_) | Stage::Faulted => {
                let fault = Error::new(Status::Internal, "a fault inside the library ended the pass");
                drop(session);
                finish(&model, ticket, home, None, Some(fault));
            }
        }
    }

    fn cancel(self: Box<Self>) {
        let Job { ticket, mut session, home, stage, .. } = *self;
        drop(stage);
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
