//! The engine under a scheduler that chooses which thread runs next at every lock, wait and wake-up, and that finds it out
//! when all of them sleep. Run by scripts/shuttle.sh; each test runs as many times as it says, in other orders each time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::schedule::schedule_of;
use super::scripted::{Pattern, byte_at};
use crate::error::{Error, Result, Status};
use crate::sys::sync::orders::{chance, check};
use crate::sys::sync::{Condvar, Mutex};
use crate::weights::EventKind;
use crate::weights::budget::{Needs, SharedBudget};
use crate::weights::engine::{Config, Engine, Interrupt};
use crate::weights::schedule::Schedule;
use crate::weights::source::Source;
use crate::weights::state::Accounting;

const READERS: usize = 2;
/// Bytes that a session takes.
const SESSION: u64 = 4096;

// In every test threads of the scope do all the waiting: shuttle wakes the one that opened a scope when the last of them
// ends, whatever it waits for, and does not allow for that in a condition variable.

/// Three layers of pages of 8 to 16 KiB, a head, and a table beside them.
pub fn small() -> Schedule {
    let sizes = [(0, 1), (0, 3), (1, 2), (1, 1), (2, 3), (2, 1), (crate::weights::Page::TABLE, 2), (2, 2)];
    schedule_of(&sizes.map(|(layer, rows)| (layer, 4096, rows)))
}

/// Where reads wait while it is shut.
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    pub fn new(open: bool) -> Arc<Gate> {
        Arc::new(Gate { open: Mutex::new(open), opened: Condvar::new() })
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
    }
}

/// Gives one block at a time, and others may run before each; some reads fail.
struct Storage {
    content: Pattern,
    gate: Arc<Gate>,
    fails: bool,
}

impl Source for Storage {
    fn name(&self) -> &str {
        self.content.name()
    }
    fn start(&self) -> u64 {
        self.content.start()
    }
    fn end(&self) -> u64 {
        self.content.end()
    }
    fn alignment(&self) -> u64 {
        self.content.alignment()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.gate.pass();
        if self.fails && chance(10) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let len = buf.len().min(self.alignment() as usize);
        self.content.read_at(offset, &mut buf[..len])
    }
}

pub fn engine(
    storage: (Arc<Gate>, bool),
    prefetch: bool,
    frames: u64,
    budget_share: Option<crate::weights::budget::BudgetShare>,
) -> Engine {
    let schedule = small();
    let end = schedule.pages.iter().map(|p| p.offset + p.bytes).max().unwrap();
    let config = Config {
        schedule,
        sources: vec![Box::new(Storage { content: Pattern { end }, gate: storage.0, fails: storage.1 })],
        accounting: Accounting::new(frames, 0, 0),
        prefetch,
        readers: READERS,
        prefetch_distance: 0,
        cache_layers: 0,
        kept_experts: Default::default(),
        budget_share,
    };
    Engine::start(config).unwrap()
}

/// One pass; the bytes of every page are looked at before and after others may have run.
fn pass(engine: &Engine, interrupt: &Interrupt) -> Result<()> {
    let end = engine.schedule().sweep_len;
    let mut sweep = engine.sweep(interrupt, interrupt.count(), end)?;
    for p in 0..end {
        let held = sweep.page(p)?;
        for _ in 0..2 {
            let mut sample = held.bytes().iter().zip(held.page().offset..).step_by(61);
            assert!(sample.all(|(&b, at)| b == byte_at(at)), "page {p}");
            thread::yield_now();
        }
    }
    Ok(())
}

/// What is used beyond the budget is only what a pass or a read has in hand at this moment.
fn assert_within_budget(engine: &Engine) {
    let state = engine.shared().state.lock();
    let (used, budget) = (state.used(), state.budget());
    let in_hand = (0..engine.schedule().pages.len()).any(|p| !state.is_absent(p) && !state.is_idle(p));
    assert!(used <= budget || in_hand || state.gives_back(), "{used} of {budget} bytes, with nothing in use");
}

fn await_within_budget(engine: &Engine) {
    while engine.stats().used_bytes > engine.stats().budget_bytes {
        thread::yield_now();
    }
}

fn assert_ended(result: Result<()>, allowed: &[Status]) {
    if let Err(e) = result {
        assert!(allowed.contains(&e.status()), "{e}");
    }
}

/// Takes events until every ticket has its DONE, and fails where one has two, or one that was never issued has any.
fn await_done(engine: &Engine, tickets: &[u64]) {
    let mut done: HashMap<u64, usize> = HashMap::new();
    let mut events = Vec::new();
    while done.len() < tickets.len() {
        engine.wait(None, &mut events, 2);
        for event in events.drain(..).filter(|e| e.kind == EventKind::Done) {
            *done.entry(event.ticket).or_default() += 1;
        }
    }
    engine.poll(&mut events, 100);
    assert!(events.is_empty() && tickets.iter().all(|t| done.get(t) == Some(&1)), "{done:?}, then {events:?}");
}

#[test]
fn passes_prefetches_and_changing_budgets_all_end_in_any_order() {
    check(|| {
        let s = small();
        let (floor, full) = (Engine::min_frames(&s), Engine::full_frames(&s));
        let budget = move || floor + (full - floor) * thread_rng().gen_range(0..=4) / 4;
        let (first, fails, prefetch) = (budget(), chance(2), !chance(4));
        let engine = engine((Gate::new(true), fails), prefetch, first, None);
        let interrupts = [0, 1].map(|_| Interrupt::new(&engine));
        let most = AtomicU64::new(first);
        thread::scope(|scope| {
            let engine = &engine;
            for interrupt in &interrupts {
                scope.spawn(move || {
                    for _ in 0..2 {
                        assert_ended(pass(engine, interrupt), &[Status::Cancelled, Status::Io]);
                        assert_within_budget(engine);
                    }
                });
            }
            scope.spawn(|| {
                let mut tickets = Vec::new();
                for layer in [1, 0] {
                    match engine.prefetch(layer, 1 + u32::from(layer == 1)) {
                        Ok(ticket) => tickets.push(ticket),
                        Err(e) => assert!(!prefetch && e.status() == Status::Unsupported, "{e}"),
                    }
                    if chance(2)
                        && let Some(&ticket) = tickets.last()
                    {
                        engine.cancel(ticket).unwrap();
                    }
                }
                await_done(engine, &tickets);
            });
            scope.spawn(|| {
                for _ in 0..3 {
                    let bytes = budget();
                    most.fetch_max(bytes, Ordering::Relaxed);
                    engine.set_budget(bytes).unwrap();
                    assert_within_budget(engine);
                }
                if engine.reserve(SESSION).is_ok() {
                    assert_within_budget(engine);
                    engine.release(SESSION);
                }
            });
            if chance(2) {
                interrupts[0].raise();
            }
        });
        await_within_budget(&engine);
        assert!(engine.stats().peak_bytes <= most.load(Ordering::Relaxed), "{:?}", engine.stats());
        // With storage that answers, a pass after all that ends well.
        if !fails {
            pass(&engine, &interrupts[1]).unwrap();
        }
    });
}

#[test]
fn an_interrupt_ends_a_pass_that_waits_for_storage_or_for_its_turn_at_any_point() {
    check(|| {
        let gate = Gate::new(false);
        let floor = Engine::min_frames(&small());
        let engine = engine((gate.clone(), false), true, floor, None);
        let interrupts = [0, 1].map(|_| Interrupt::new(&engine));
        // Read before the threads begin, so that an interrupt counts whenever it comes.
        let since = interrupts.each_ref().map(|i| i.count());
        thread::scope(|scope| {
            let engine = &engine;
            let passes = [0, 1].map(|i| {
                let (interrupt, since) = (&interrupts[i], since[i]);
                scope.spawn(move || {
                    let result = engine.sweep(interrupt, since, engine.schedule().sweep_len);
                    result.and_then(|mut sweep| sweep.page(0).map(|_| ())).map_err(|e: Error| e.status())
                })
            });
            // Nothing is ever read: only the interrupts end what waits.
            interrupts.iter().for_each(|i| i.raise());
            for pass in passes {
                assert_eq!(pass.join().unwrap(), Err(Status::Cancelled));
            }
        });
        gate.open();
        pass(&engine, &interrupts[0]).unwrap();
    });
}

#[test]
fn every_prefetch_is_answered_once_however_it_is_cancelled_and_read() {
    check(|| {
        let s = small();
        let frames = Engine::full_frames(&s) - 4096;
        let engine = engine((Gate::new(true), true), true, frames, None);
        thread::scope(|scope| {
            let asked = scope.spawn(|| [0, 1, 2].map(|layer| engine.prefetch(layer, 1).unwrap()));
            scope.spawn(|| {
                for ticket in [1, 3, 2] {
                    assert_ended(engine.cancel(ticket), &[Status::NotFound]);
                }
            });
            scope.spawn(|| await_done(&engine, &asked.join().unwrap()));
        });
    });
}

#[test]
fn models_on_one_budget_make_room_for_each_other_in_any_order() {
    check(|| {
        let s = small();
        let needs = Needs { least: Engine::min_frames(&s), full: Engine::full_frames(&s) };
        let totals = [2 * needs.least + 2 * SESSION, needs.least + needs.full, 2 * needs.full];
        let budget = SharedBudget::new(totals[1]);
        let engines = [0, 1].map(|_| {
            let (budget_share, share) = budget.admit(needs).unwrap();
            engine((Gate::new(true), false), true, share, Some(budget_share))
        });
        thread::scope(|scope| {
            for engine in &engines {
                scope.spawn(move || {
                    let interrupt = Interrupt::new(engine);
                    pass(engine, &interrupt).unwrap();
                });
                scope.spawn(move || {
                    if engine.reserve(SESSION).is_ok() {
                        engine.release(SESSION);
                    }
                });
            }
            scope.spawn(|| {
                for total in [totals[2], totals[0]] {
                    budget.set_total(total).unwrap();
                }
            });
        });
        // Those that gave have given when the change returned, and nobody has taken more since.
        let used: u64 = engines.iter().map(|e| e.stats().used_bytes).sum();
        assert!(used <= totals[0], "{used} of {}", totals[0]);
        let [a, b] = engines;
        drop(a);
        pass(&b, &Interrupt::new(&b)).unwrap();
        assert!(b.stats().used_bytes <= totals[0]);
    });
}
