//! Members of sweeps in many orders: who joins, leaves, is cancelled and fails. Run by scripts/shuttle.sh.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{Seat, Turns};
use crate::error::{Result, Status};
use crate::exec::Member;
use crate::exec::results::{Embeddings, Logits, Outputs};
use crate::sys::sync::orders::{chance, check};
use crate::weights::testing::interleaved as storage;
use crate::weights::{Engine, Interrupt, SweepCaller};

/// Tokens of a sweep.
const CHUNK: usize = 8;

/// What all members share.
struct Model {
    turns: Turns,
    engine: Engine,
    /// A sweep runs.
    sweeping: AtomicBool,
    sweeps: AtomicU64,
    /// The last sweep of each member, by its address.
    last: std::sync::Mutex<HashMap<usize, u64>>,
    /// Some sweeps end by a fault inside the library.
    faults: bool,
}

/// A session as far as sweeps know it. Its tokens are the numbers from `position` on.
struct Session {
    member: Arc<Member>,
    interrupt: Arc<Interrupt>,
    position: usize,
    /// How many sweeps had begun when its last pass was in the queue.
    entered: u64,
}

impl Model {
    fn new(shares: bool, fails: bool, faults: bool) -> Model {
        let frames = Engine::min_frames(&storage::small());
        let engine = storage::engine((storage::Gate::new(true), fails), true, frames, None);
        let turns = Turns::new(shares, CHUNK);
        let (sweeping, sweeps) = (AtomicBool::new(false), AtomicU64::new(0));
        Model { turns, engine, sweeping, sweeps, last: Default::default(), faults }
    }

    fn session(&self) -> Session {
        let interrupt = Interrupt::new(&self.engine);
        Session { member: Member::new(&interrupt).unwrap(), interrupt, position: 0, entered: 0 }
    }

    /// A sweep over a few pages, at each of which something is done for every member that is still there.
    fn run(&self, seats: &[Seat]) -> (Result<()>, u64) {
        assert!(!self.sweeping.swap(true, Ordering::SeqCst), "two sweeps at once");
        let number = self.sweeps.fetch_add(1, Ordering::SeqCst) + 1;
        self.last.lock().unwrap().extend(seats.iter().map(|seat| (Arc::as_ptr(&seat.member) as usize, number)));
        let tokens: usize = seats.iter().map(|seat| seat.tokens).sum();
        assert!(tokens <= CHUNK, "{tokens} tokens in a sweep");
        let fault = self.faults && chance(12);
        let result = self.steps(seats);
        self.sweeping.store(false, Ordering::SeqCst);
        if fault {
            resume_unwind(Box::new("a fault"));
        }
        (result, 0)
    }

    fn steps(&self, seats: &[Seat]) -> Result<()> {
        let caller = |seat: &'_ Seat| (seat.member.since(), seat.member.clone());
        let members: Vec<(u64, Arc<Member>)> = seats.iter().map(caller).collect();
        let callers: Vec<SweepCaller> = members
            .iter()
            .map(|(since, member)| SweepCaller { interrupt: member.interrupt(), since: *since })
            .collect();
        let mut sweep = self.engine.sweep_for(&callers, 2)?;
        for page in 0..2 {
            let _held = sweep.page(page)?;
            for seat in seats {
                let count = seat.tokens;
                seat.with(|loan| {
                    let tokens = &loan.tokens[loan.taken..loan.taken + count];
                    let first = (loan.position) as i32;
                    let right = tokens.iter().zip(first..).all(|(&token, want)| token == want);
                    assert!(right, "{tokens:?} at {first}: not what was lent to this sweep");
                    thread::yield_now();
                });
            }
        }
        Ok(())
    }

    /// A pass over `count` tokens, as sessions of a model run it. How it ended; the session is then where it was
    /// before, or `count` tokens further.
    fn pass(&self, session: &mut Session, count: usize) -> std::result::Result<(), Status> {
        let since = session.interrupt.settled();
        let before = session.position;
        session.member.prepare(|loan| {
            loan.tokens.clear();
            loan.tokens.extend((before..before + count).map(|token| token as i32));
        });
        let mut taken = 0;
        let result = loop {
            let position = session.position;
            session.member.lend(since, |loan| {
                (loan.position, loan.context, loan.taken) = (position, 1 << 20, taken);
                loan.divisible = count > CHUNK;
                loan.outputs = Outputs { logits: Logits::None, embeddings: Embeddings::None };
            });
            let own = [session.member.clone()];
            self.turns.enter(self.engine.gate(), &own, Some(thread::current().id()));
            session.entered = self.sweeps.load(Ordering::SeqCst);
            let advance = || self.turns.advance(self.engine.gate(), &own, || false, |seats| self.run(seats));
            let advanced = catch_unwind(AssertUnwindSafe(advance));
            session.member.give_back(|_| {});
            let outcome = session.member.take_outcome();
            if advanced.is_err() {
                break Err(Status::Internal);
            }
            let outcome = outcome.expect("a pass comes back with an outcome");
            match outcome.tokens {
                Ok(tokens) => {
                    assert!(tokens > 0 && taken + tokens <= count);
                    taken += tokens;
                    session.position += tokens;
                    if taken == count {
                        break Ok(());
                    }
                }
                Err(e) => break Err(e.status()),
            }
        };
        session.interrupt.settle();
        if result.is_err() {
            session.position = before;
            // Nothing of what was lent may be read any more.
            session.member.prepare(|loan| loan.tokens.fill(-1));
        }
        result
    }
}

fn length() -> usize {
    [1, 1, 2, CHUNK, CHUNK + 3, 2 * CHUNK + 1][thread_rng().gen_range(0..6)]
}

#[test]
fn members_that_join_leave_fail_and_are_cancelled_concern_nobody_else() {
    check(|| {
        let (shares, fails, faults) = (!chance(4), chance(3), chance(3));
        let model = Model::new(shares, fails, faults);
        let mut sessions: Vec<Session> = (0..3).map(|_| model.session()).collect();
        let interrupts: Vec<_> = sessions.iter().map(|session| session.interrupt.clone()).collect();
        let interrupted = thread_rng().gen_range(0..4);
        thread::scope(|scope| {
            let model = &model;
            for (i, session) in sessions.iter_mut().enumerate() {
                scope.spawn(move || {
                    for _ in 0..3 {
                        match model.pass(session, length()) {
                            Ok(()) => {}
                            Err(Status::Cancelled) => assert_eq!(i, interrupted, "another one's interrupt"),
                            Err(Status::Io) => assert!(fails),
                            Err(Status::Internal) => assert!(faults),
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    // It goes away, and nobody waits for it.
                    if model.turns.forget(&session.member) {
                        model.engine.gate().ring();
                    }
                });
            }
            if let Some(interrupt) = interrupts.get(interrupted) {
                scope.spawn(|| interrupt.raise());
            }
        });
        assert_eq!(model.turns.waiting(), 0);
        // Whatever happened, passes go on.
        if !fails && !faults {
            let session = &mut sessions[0];
            session.interrupt.settle();
            assert_eq!(model.pass(session, CHUNK + 1), Ok(()));
        }
    });
}

/// Prompts go on in chunks, of which one at most lies between a short pass and its sweep.
#[test]
fn a_short_pass_waits_for_one_sweep_of_prompts_at_most() {
    check(|| {
        let model = Model::new(true, false, false);
        let mut sessions: Vec<Session> = (0..3).map(|_| model.session()).collect();
        thread::scope(|scope| {
            let model = &model;
            let [short, long @ ..] = &mut sessions[..] else { unreachable!() };
            for session in long {
                scope.spawn(move || {
                    assert_eq!(model.pass(session, 3 * CHUNK), Ok(()));
                    model.turns.forget(&session.member);
                    model.engine.gate().ring();
                });
            }
            scope.spawn(move || {
                for _ in 0..2 {
                    assert_eq!(model.pass(short, 1), Ok(()));
                    let own = model.last.lock().unwrap()[&(Arc::as_ptr(&short.member) as usize)];
                    // One may have been chosen that had not begun.
                    assert!(own <= short.entered + 2, "sweep {own}, after {} were seen", short.entered);
                }
            });
        });
    });
}

/// Members of one call share sweeps even where others do not, and all come back.
#[test]
fn members_of_one_call_share_a_sweep_in_any_order() {
    check(|| {
        let model = Model::new(false, false, false);
        thread::scope(|scope| {
            let model = &model;
            for _ in 0..2 {
                scope.spawn(move || {
                    let sessions: Vec<Session> = (0..2).map(|_| model.session()).collect();
                    let mut own: Vec<Arc<Member>> = sessions.iter().map(|s| s.member.clone()).collect();
                    for member in &own {
                        member.prepare(|loan| loan.tokens.push(0));
                        member.lend(0, |loan| (loan.context, loan.taken) = (CHUNK, 0));
                    }
                    model.turns.enter(model.engine.gate(), &own, Some(thread::current().id()));
                    while !own.is_empty() {
                        model.turns.advance(
                            model.engine.gate(),
                            &own,
                            || false,
                            |seats| {
                                assert_eq!(seats.len(), 2, "a group goes on together, and alone");
                                model.run(seats)
                            },
                        );
                        own.retain(|member| !member.has_ended());
                    }
                    for session in &sessions {
                        session.member.give_back(|_| {});
                        assert_eq!(session.member.take_outcome().unwrap().tokens.unwrap(), 1);
                        model.turns.forget(&session.member);
                    }
                    model.engine.gate().ring();
                });
            }
        });
        assert_eq!(model.turns.waiting(), 0);
    });
}
