//! A sequence as sweeps see it: what it brings to one, and how it comes out.
//!
//! The session lends its memory and its pass's rows to its member for the time of a sweep. The thread that runs the sweep,
//! which may be another session's, works on them one step at a time. In between the session can take them back: its pass is
//! then cancelled, and the sweep goes on without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::memory::{MemoryLayout, SequenceMemory};
use super::results::{Outputs, Rows};
use crate::error::{Error, Result};
use crate::sys::sync::Mutex;
use crate::sys::sync::thread::ThreadId;
use crate::weights::Interrupt;

/// A session's place in sweeps, one at a time.
pub struct Member {
    interrupt: Arc<Interrupt>,
    /// The interrupt's count when the running call began.
    since: AtomicU64,
    /// Whether the session came back soon after its last sweep, so that a sweep is worth waiting for it.
    punctual: AtomicBool,
    standing: Mutex<Standing>,
    loan: Mutex<Loan>,
}

/// What a session lends to a sweep.
pub struct Loan {
    pub memory: SequenceMemory,
    /// Tokens that the session has room for.
    pub context: usize,
    /// Of the first token of the sweep.
    pub position: usize,
    /// All tokens of the pass.
    pub tokens: Vec<i32>,
    /// How many of them earlier sweeps have taken in.
    pub taken: usize,
    /// Whether the pass may be cut into chunks as it suits the sweep.
    pub divisible: bool,
    pub outputs: Outputs,
    pub logits: Rows,
    pub embeddings: Rows,
    /// False once the session has taken its things back.
    present: bool,
    /// Which loan of the member it is.
    number: u64,
}

#[derive(Default)]
struct Standing {
    stage: Stage,
    /// When the last sweep of this member ended.
    ended: Option<Instant>,
    /// The thread that ran its last pass. None: the library's own.
    thread: Option<ThreadId>,
}

#[derive(Default)]
enum Stage {
    /// In no sweep, and waiting for none.
    #[default]
    Away,
    Waiting,
    Running,
    Ended(Outcome),
}

/// How a sweep ended for one of its members.
pub struct Outcome {
    /// The thread that ran it panicked.
    pub fault: bool,
    /// How many tokens it has taken in.
    pub tokens: Result<usize>,
    /// Read from storage while it ran.
    pub read_bytes: u64,
}

impl Member {
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn new(interrupt: &Arc<Interrupt>) -> Result<Arc<Member>> {
        let loan = Loan {
            memory: SequenceMemory::new(MemoryLayout::none())?,
            context: 0,
            position: 0,
            tokens: Vec::new(),
            taken: 0,
            divisible: false,
            outputs: Outputs { logits: super::Logits::None, embeddings: super::Embeddings::None },
            logits: Rows::default(),
            embeddings: Rows::default(),
            present: false,
            number: 0,
        };
        Ok(Arc::new(Member {
            interrupt: interrupt.clone(),
            since: AtomicU64::new(0),
            punctual: AtomicBool::new(false),
            standing: Mutex::default(),
            loan: Mutex::new(loan),
        }))
    }

    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The interrupt's count from which the running call is ended.
    pub fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    pub fn is_interrupted(&self) -> bool {
        self.interrupt.count() != self.since()
    }

    /// Fills in what is to be lent, while nothing is.
    pub fn prepare<R>(&self, fill: impl FnOnce(&mut Loan) -> R) -> R {
        fill(&mut self.loan.lock())
    }

    /// Lends to the next sweep, until the owner has it back.
    pub fn lend(&self, since: u64, fill: impl FnOnce(&mut Loan)) {
        // Relaxed: it is read after the member was put into the queue, under a lock.
        self.since.store(since, Ordering::Relaxed);
        let mut loan = self.loan.lock();
        fill(&mut loan);
        loan.present = true;
        loan.number += 1;
    }

    /// The owner has its things back, when a sweep has ended or the owner leaves it.
    pub fn give_back(&self, empty: impl FnOnce(&mut Loan)) {
        let mut loan = self.loan.lock();
        loan.present = false;
        empty(&mut loan);
    }

    /// What is lent now, and its number. `None`: the owner has it.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Loan) -> R) -> Option<(u64, R)> {
        let loan = self.loan.lock();
        loan.present.then(|| (loan.number, look(&loan)))
    }

    /// What is lent, for a step of the sweep that the loan of this number is for. Nothing is done where the owner has it back:
    /// it may have lent it anew meanwhile, for the next sweep.
    pub(super) fn with<R>(&self, number: u64, work: impl FnOnce(&mut Loan) -> R) -> Option<R> {
        let mut loan = self.loan.lock();
        if loan.present && loan.number == number { Some(work(&mut loan)) } else { None }
    }

    // --- standing ---------------------------------------------------------------------------------------------------

    /// It waits for a sweep from now on, for a call on this thread. Had it come later than `patience` after its last sweep, it
    /// would not have been worth waiting for.
    pub(super) fn wait(&self, thread: Option<ThreadId>, patience: Duration) {
        let mut standing = self.standing.lock();
        let soon = standing.ended.is_some_and(|ended| ended.elapsed() <= patience);
        // Relaxed: a guess of what comes.
        self.punctual.store(soon, Ordering::Relaxed);
        (standing.stage, standing.thread) = (Stage::Waiting, thread);
    }

    /// Whether it may come soon while this thread waits for it.
    pub(super) fn comes_soon(&self, waiting: ThreadId) -> bool {
        self.punctual.load(Ordering::Relaxed) && self.standing.lock().thread != Some(waiting)
    }

    pub(super) fn run(&self) {
        self.standing.lock().stage = Stage::Running;
    }

    /// A sweep has ended with `tokens` of its tokens taken in. Nothing changes where the member has left it.
    pub(super) fn end(&self, tokens: Result<usize>, read_bytes: u64, fault: bool) {
        let mut standing = self.standing.lock();
        if matches!(standing.stage, Stage::Running) {
            standing.stage = Stage::Ended(Outcome { fault, tokens, read_bytes });
            standing.ended = Some(Instant::now());
        }
    }

    /// Ends its waiting, or its part in a running sweep, where its call was interrupted; whether it did.
    pub(super) fn leave_if_interrupted(&self) -> bool {
        if !self.is_interrupted() {
            return false;
        }
        let mut standing = self.standing.lock();
        let leaves = matches!(standing.stage, Stage::Waiting | Stage::Running);
        if leaves {
            standing.stage = Stage::Ended(Outcome { fault: false, tokens: Err(Error::cancelled()), read_bytes: 0 });
        }
        leaves
    }

    /// Whether [`Member::take_outcome`] has something to tell.
    pub fn has_ended(&self) -> bool {
        matches!(self.standing.lock().stage, Stage::Ended(_))
    }

    /// How the sweep ended, once.
    pub fn take_outcome(&self) -> Option<Outcome> {
        let mut standing = self.standing.lock();
        match std::mem::take(&mut standing.stage) {
            Stage::Ended(outcome) => Some(outcome),
            other => {
                standing.stage = other;
                None
            }
        }
    }
}
