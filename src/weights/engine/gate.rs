//! Where threads wait for what other threads of the host do: for their turn, for the end of a sweep that another thread runs,
//! for an interrupt.

use std::time::Instant;

use crate::sys::sync::{Condvar, Mutex};

/// What a thread does after it has looked at what it waits for.
pub enum Look<R> {
    /// It has come.
    Done(R),
    /// It looks again when the gate rings, or at that time.
    Until(Option<Instant>),
}

/// It guards nothing: what is waited for lies elsewhere, and changes before the gate rings. No ring is lost between a look
/// and the wait after it.
#[derive(Default)]
pub struct Gate {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Gate {
    /// Makes those who wait look again.
    pub fn ring(&self) {
        // With the lock held nobody is between a look and the wait.
        let _lock = self.lock.lock();
        self.rung.notify_all();
    }

    /// Looks until what is waited for has come. `look` does not ring the gate.
    pub fn wait<R>(&self, mut look: impl FnMut() -> Look<R>) -> R {
        let mut lock = self.lock.lock();
        loop {
            match look() {
                Look::Done(result) => return result,
                Look::Until(None) => self.rung.wait(&mut lock),
                Look::Until(Some(time)) => {
                    let left = time.saturating_duration_since(Instant::now());
                    self.rung.wait_for(&mut lock, left);
                }
            }
        }
    }
}
