//! Finds threads that have got stuck, says what each was doing, and ends the process.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

/// No step takes this many turns of the watchdog, of a second or more. Turns are counted and not the clock is read, so
/// that a process which is stopped for a while comes to no harm.
const PATIENCE: u32 = 180;

#[derive(Clone, Default)]
struct Step {
    number: u64,
    what: &'static str,
    of: &'static str,
}

/// Watches until it is dropped.
pub struct Watchdog {
    steps: Arc<[Mutex<Step>]>,
    _end: Sender<()>,
}

/// Where a thread says what it does.
pub struct Post {
    steps: Arc<[Mutex<Step>]>,
    index: usize,
}

impl Watchdog {
    pub fn start(posts: usize) -> Watchdog {
        let steps: Arc<[Mutex<Step>]> = (0..posts).map(|_| Mutex::default()).collect();
        let (end, ended) = channel();
        let watched = steps.clone();
        std::thread::spawn(move || {
            let mut seen = vec![(0, 0); watched.len()];
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                for (step, (number, turns)) in watched.iter().zip(&mut seen) {
                    let now = step.lock().clone();
                    *turns = if now.number == *number && !now.what.is_empty() { *turns + 1 } else { 0 };
                    *number = now.number;
                }
                if seen.iter().any(|&(_, turns)| turns > PATIENCE) {
                    for (i, (step, (_, turns))) in watched.iter().zip(&seen).enumerate() {
                        let step = step.lock();
                        eprintln!("thread {i}: step {}, {} ({}), {turns} s", step.number, step.what, step.of);
                    }
                    eprintln!("a thread is stuck");
                    std::process::abort();
                }
            }
        });
        Watchdog { steps, _end: end }
    }

    pub fn post(&self, index: usize) -> Post {
        Post { steps: self.steps.clone(), index }
    }
}

impl Post {
    pub fn begins(&self, what: &'static str, of: &'static str) {
        let mut step = self.steps[self.index].lock();
        *step = Step { number: step.number + 1, what, of };
    }

    /// Goes on with the same step.
    pub fn lives(&self) {
        self.steps[self.index].lock().number += 1;
    }

    /// Has nothing more to do.
    pub fn ends(&self) {
        self.begins("", "");
    }
}
