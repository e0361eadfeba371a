//! The standard library's locks in the form that parking_lot gives them: a panic does not poison, and a guard is lent to a
//! condition. parking_lot itself keeps who waits in one table of the process. A child of fork has that table, but not the
//! threads in it, and its own locks meet them there: it may wait for ever. These know nothing of each other.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self, PoisonError};
use std::time::{Duration, Instant};

use crate::sys::thread::THREADS;

#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Empty only while a [`Condvar`] has it.
pub struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("no condition has the guard")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("no condition has the guard")
    }
}

#[derive(Default)]
pub struct Condvar(sync::Condvar);

/// How waiting for a time ended.
pub struct TimedOut(bool);

impl TimedOut {
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub const fn new() -> Condvar {
        Condvar(sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// May return without having been notified.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("no condition has the guard");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> TimedOut {
        if !THREADS {
            // Nobody could come, and the standard library's condition refuses to wait.
            return TimedOut(true);
        }
        let held = guard.0.take().expect("no condition has the guard");
        let (held, end) = self.0.wait_timeout(held, time).unwrap_or_else(PoisonError::into_inner);
        guard.0 = Some(held);
        TimedOut(end.timed_out())
    }

    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, at: Instant) -> TimedOut {
        self.wait_for(guard, at.saturating_duration_since(Instant::now()))
    }
}
