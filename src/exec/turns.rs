//! How passes take turns, and share sweeps.
//!
//! Members wait in the order in which they came. When no sweep runs, the thread that the first of them belongs to begins
//! one, takes in all that fit into a chunk, and runs it for all of them; the others wait. Short passes are taken in whole,
//! and what is left of the chunk is shared out evenly among long ones: a prompt leaves room for those who generate, and
//! holds them up for no longer than a chunk.
//!
//! Sessions that generate come back a moment after their sweep has ended, one after the other. So that they go on together,
//! the next sweep waits for those who took part in the last one, for a part of the time that one took. Storage does not
//! stand still meanwhile: the ring fills for the next sweep. Who comes later than that is not waited for the next time.

use crate::order;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Loaded;
use super::member::{Loan, Member};
use super::program::Step;
use super::results::{Embeddings, Wanted};
use crate::error::{Error, Result, Status};
use crate::sys::sync::Mutex;
use crate::sys::sync::thread::{self, ThreadId};
use crate::weights::{Gate, Look, SweepCaller};

#[cfg(all(test, shuttle, feature = "prefetch"))]
mod interleaved;

/// The next sweep waits for members of the last one for at most its time divided by this.
const PATIENCE_SHARE: u32 = 4;
/// And no longer than this.
const PATIENCE: Duration = Duration::from_millis(100);

/// A member of a sweep, and how many of its tokens that takes in.
pub struct Seat {
    pub member: Arc<Member>,
    /// The number of what its session has lent to the sweep.
    pub loan: u64,
    pub tokens: usize,
    pub wanted: Wanted,
}

impl Seat {
    /// What the session has lent to the sweep, for one step. Nothing is done where the session has left the sweep.
    pub fn with<R>(&self, work: impl FnOnce(&mut Loan) -> R) -> Option<R> {
        self.member.with(self.loan, work)
    }
}

/// The members that wait, and what the last sweep was.
pub struct Turns {
    /// Whether passes that wait share a sweep by themselves.
    shares: bool,
    /// Tokens of a sweep.
    chunk: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    sweeping: bool,
    /// Who took part in the last sweep and may come back soon.
    expected: Vec<Arc<Member>>,
    /// When the last sweep ended, and how long the next one waits.
    ended: Option<Instant>,
    patience: Duration,
    last_group: u64,
    /// Tests wait for all that are expected, however long that takes.
    #[cfg(all(test, feature = "prefetch"))]
    waits_for_all: bool,
}

struct Waiting {
    member: Arc<Member>,
    /// Members that one call brought: they share a sweep in any case.
    group: u64,
    /// Tokens of its pass that are left.
    tokens: usize,
    divisible: bool,
}

/// What the owner of waiting members does next.
enum Next {
    Return,
    Sweep(Vec<Seat>),
}

impl Turns {
    pub fn new(shares: bool, chunk: usize) -> Turns {
        Turns { shares, chunk, queue: Mutex::default() }
    }

    /// Whether passes that wait share a sweep by themselves.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// As [`Loaded::enter`]. `gate`: where all who wait for sweeps wait.
    fn enter(&self, gate: &Gate, members: &[Arc<Member>], thread: Option<ThreadId>) {
        self.put(members, thread);
        // Somebody may wait for them.
        gate.ring();
    }

    /// As [`Loaded::advance`]. `run` runs the steps of a sweep; what it returns is how that ended, and what was read.
    fn advance(
        &self,
        gate: &Gate,
        own: &[Arc<Member>],
        wake: impl Fn() -> bool,
        run: impl Fn(&[Seat]) -> (Result<()>, u64),
    ) {
        loop {
            let look = || if wake() { Look::Done(Next::Return) } else { self.look(own) };
            match gate.wait(look) {
                Next::Return => {
                    // Who has left the queue may have been the first in it.
                    gate.ring();
                    return;
                }
                Next::Sweep(seats) => self.sweep(gate, &seats, &run),
            }
        }
    }

    /// Runs a sweep for its members, and tells each how it ended.
    fn sweep(&self, gate: &Gate, seats: &[Seat], run: impl Fn(&[Seat]) -> (Result<()>, u64)) {
        let started = Instant::now();
        let swept = catch_unwind(AssertUnwindSafe(|| run(seats)));
        let (result, read_bytes, payload) = match swept {
            Ok((result, read_bytes)) => (result, read_bytes, None),
            Err(payload) => {
                let fault = Error::new(Status::Internal, "a fault inside the library ended the pass");
                (Err(fault), 0, Some(payload))
            }
        };
        for seat in seats {
            // Alone, a pass that was interrupted too late has succeeded. Here it may have been interrupted long before.
            let late = seats.len() > 1 && seat.member.is_interrupted();
            let result = if late { Err(Error::cancelled()) } else { result.clone() };
            seat.member.end(result.map(|()| seat.tokens), read_bytes, payload.is_some());
        }
        self.sweep_ended(seats, started);
        gate.ring();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    fn put(&self, members: &[Arc<Member>], thread: Option<ThreadId>) {
        let mut queue = self.queue.lock();
        queue.last_group += 1;
        let (group, patience) = (queue.last_group, queue.patience);
        for member in members {
            let loan = member.look(|loan| (loan.tokens.len() - loan.taken, loan.divisible));
            let (_, (tokens, divisible)) = loan.expect("a member enters with a loan");
            member.wait(thread, patience);
            queue.expected.retain(|other| !Arc::ptr_eq(other, member));
            queue.waiting.push_back(Waiting { member: member.clone(), group, tokens, divisible });
        }
    }

    /// Nobody waits for this member any more: it does not come back soon.
    fn forget(&self, member: &Arc<Member>) -> bool {
        let mut queue = self.queue.lock();
        let before = queue.expected.len();
        queue.expected.retain(|other| !Arc::ptr_eq(other, member));
        queue.expected.len() < before
    }

    /// What the thread of `own` does now.
    fn look(&self, own: &[Arc<Member>]) -> Look<Next> {
        let mut queue = self.queue.lock();
        for member in own {
            if member.leave_if_interrupted() {
                queue.waiting.retain(|w| !Arc::ptr_eq(&w.member, member));
            }
        }
        if own.iter().any(|member| member.has_ended()) {
            return Look::Done(Next::Return);
        }
        let leads = queue.waiting.front().is_some_and(|first| own.iter().any(|m| Arc::ptr_eq(m, &first.member)));
        if queue.sweeping || !leads {
            return Look::Until(None);
        }
        if let Some(time) = self.waits_until(&queue) {
            return Look::Until(time);
        }
        queue.sweeping = true;
        Look::Done(Next::Sweep(self.choose(&mut queue)))
    }

    /// Whether the next sweep waits for members of the last one, and until when.
    fn waits_until(&self, queue: &Queue) -> Option<Option<Instant>> {
        if !self.shares {
            return None;
        }
        #[cfg(all(test, feature = "prefetch"))]
        if queue.waits_for_all {
            return (!queue.expected.is_empty()).then_some(None);
        }
        let end = queue.ended? + queue.patience;
        let this = thread::current().id();
        (Instant::now() < end && queue.expected.iter().any(|m| m.comes_soon(this))).then_some(Some(end))
    }

    /// Takes the members of the next sweep out of the queue.
    fn choose(&self, queue: &mut Queue) -> Vec<Seat> {
        let group = queue.waiting[0].group;
        let mut room = self.chunk;
        let mut chosen: Vec<(Waiting, usize)> = Vec::new();
        let mut others = VecDeque::new();
        while let Some(waiting) = queue.waiting.pop_front() {
            let least = if waiting.divisible { 1 } else { waiting.tokens.min(self.chunk) };
            if least <= room && (self.shares || waiting.group == group) {
                room -= least;
                chosen.push((waiting, least));
            } else {
                others.push_back(waiting);
            }
        }
        queue.waiting = others;
        let mut long: Vec<usize> = (0..chosen.len()).filter(|&i| chosen[i].0.divisible).collect();
        order::sort_indices(&mut long, &mut |a, b| chosen[a].0.tokens.cmp(&chosen[b].0.tokens));
        for (i, &at) in long.iter().enumerate() {
            let (waiting, tokens) = &mut chosen[at];
            let more = (room / (long.len() - i)).min(waiting.tokens - *tokens);
            *tokens += more;
            room -= more;
        }
        let seat = |(waiting, tokens): (Waiting, usize)| {
            let Waiting { member, .. } = waiting;
            member.run();
            let of_chunk = |loan: &Loan| Wanted::of_chunk(loan.outputs, loan.taken, tokens, loan.tokens.len());
            let (loan, wanted) = member.look(of_chunk).expect("a member that waits has a loan");
            Seat { member, loan, tokens, wanted }
        };
        chosen.into_iter().map(seat).collect()
    }

    /// A sweep over `seats`, begun at `started`, has ended.
    fn sweep_ended(&self, seats: &[Seat], started: Instant) {
        let mut queue = self.queue.lock();
        queue.sweeping = false;
        queue.ended = Some(Instant::now());
        queue.patience = (started.elapsed() / PATIENCE_SHARE).min(PATIENCE);
        queue.expected.clear();
        queue.expected.extend(seats.iter().map(|seat| seat.member.clone()));
    }

    #[cfg(all(test, feature = "prefetch"))]
    pub fn wait_for_all(&self) {
        self.queue.lock().waits_for_all = true;
    }

    #[cfg(all(test, feature = "prefetch"))]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }
}

impl Loaded {
    /// Puts members in the queue of sweeps, each with a loan, as one group: they share a sweep in any case, as far as they
    /// fit into one. `thread`: that of the host which calls; none for passes that were submitted.
    pub fn enter(&self, members: &[Arc<Member>], thread: Option<ThreadId>) {
        self.turns.enter(self.engine.gate(), members, thread);
    }

    /// Waits until a sweep has ended for one of `own`, which are in the queue and belong to this thread alone, and runs
    /// sweeps for them and for others meanwhile; or until `wake` says so after the gate was rung.
    ///
    /// # Errors
    /// `UNSUPPORTED`: in a child of the process that opened the model.
    pub fn advance(&self, own: &[Arc<Member>], wake: impl Fn() -> bool) -> Result<()> {
        self.engine.check_process()?;
        self.turns.advance(self.engine.gate(), own, wake, |seats| self.try_sweep(seats));
        Ok(())
    }

    /// The session of this member does not come back soon, so that no sweep waits for it.
    pub fn forget_member(&self, member: &Arc<Member>) {
        if self.engine.check_process().is_ok() && self.turns.forget(member) {
            self.engine.gate().ring();
        }
    }

    /// Whether what comes after all layers is needed: the output head, or a classifier's matrices.
    fn needs_head(&self, wanted: &Wanted) -> bool {
        let classifies = || self.program.steps.iter().any(|step| matches!(step, Step::Classify { .. }));
        !wanted.logits.is_empty() || (wanted.which == Embeddings::Score && classifies())
    }

    /// How a sweep ended, and what was read meanwhile.
    fn try_sweep(&self, seats: &[Seat]) -> (Result<()>, u64) {
        let callers: Vec<SweepCaller> = seats
            .iter()
            .map(|seat| SweepCaller { interrupt: seat.member.interrupt(), since: seat.member.since() })
            .collect();
        let schedule = self.engine.schedule();
        let headless = !seats.iter().any(|seat| self.needs_head(&seat.wanted));
        let end = if headless { schedule.head_start } else { schedule.sweep_len };
        let mut sweep = match self.engine.sweep_for(&callers, end) {
            Ok(sweep) => sweep,
            Err(e) => return (Err(e), 0),
        };
        let result = self.run(seats, &mut sweep);
        (result, sweep.read_bytes())
    }
}
