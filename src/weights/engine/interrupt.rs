//! How other threads end a session's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::{Engine, Progress, Shared};
use crate::error::{Error, Result};

/// What other threads share with a session's calls: it ends them, and tells how far they have come. It counts how often it
/// was raised, so that an interrupt is not lost between two passes or before the first one: it ends the call that runs, or
/// the next one where none runs.
pub struct Interrupt {
    pub(super) raised: AtomicU64,
    /// The count when the last call ended: what was raised before belonged to that call.
    settled: AtomicU64,
    progress: Progress,
    engine: Weak<Shared>,
}

impl Interrupt {
    pub fn new(engine: &Engine) -> Arc<Interrupt> {
        Arc::new(Interrupt {
            raised: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            progress: Progress::default(),
            engine: Arc::downgrade(&engine.shared),
        })
    }

    /// The running pass ends with CANCELLED within one page's time.
    pub fn raise(&self) {
        self.raised.fetch_add(1, Ordering::SeqCst);
        if let Some(shared) = self.engine.upgrade().filter(|shared| shared.home.is_here()) {
            // With the lock held nobody is between checking the count and going to sleep.
            let state = shared.state.lock();
            shared.changed.notify_all();
            drop(state);
            shared.gate.ring();
        }
    }

    /// How far the session's running call has come.
    pub fn progress(&self) -> &Progress {
        &self.progress
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

/// A call that a sweep runs for. It is ended by its session's interrupt, raised since the count was `since`.
#[derive(Clone, Copy)]
pub struct SweepCaller<'a> {
    pub interrupt: &'a Interrupt,
    pub since: u64,
}

impl SweepCaller<'_> {
    pub fn is_ended(&self) -> bool {
        self.interrupt.count() != self.since
    }
}

/// What ends a sweep early: that all calls it runs for are ended.
#[derive(Clone, Copy)]
pub(super) enum CancelToken<'a> {
    One(SweepCaller<'a>),
    All(&'a [SweepCaller<'a>]),
}

impl CancelToken<'_> {
    pub(super) fn check(self) -> Result<()> {
        if self.callers().iter().all(SweepCaller::is_ended) { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// The calls that the sweep runs for.
    pub(super) fn callers(&self) -> &[SweepCaller<'_>] {
        match self {
            CancelToken::One(caller) => std::slice::from_ref(caller),
            CancelToken::All(callers) => callers,
        }
    }
}
