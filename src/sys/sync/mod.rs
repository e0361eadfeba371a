//! The locks, queues, atomics and threads that the engine and the compute pool are made of. Under `--cfg shuttle` tests have
//! them from a scheduler that tries orders of events one after another.

/// Atomics on which the order of threads depends.
#[cfg(not(all(test, shuttle)))]
pub mod atomic {
    pub use std::sync::atomic::{AtomicU64, Ordering, fence};
}
#[cfg(not(all(test, shuttle)))]
pub use crossbeam_channel as channel;
#[cfg(not(all(test, shuttle)))]
mod plain;
#[cfg(not(all(test, shuttle)))]
pub use plain::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub use std::{thread, thread_local};

#[cfg(all(test, shuttle))]
mod buffered;
#[cfg(all(test, shuttle))]
pub mod orders;
#[cfg(all(test, shuttle))]
mod shuttled;
#[cfg(all(test, shuttle))]
pub mod atomic {
    pub use super::buffered::{AtomicU64, Ordering, fence};
}
#[cfg(all(test, shuttle))]
pub use shuttle::{thread, thread_local};
#[cfg(all(test, shuttle))]
pub use shuttled::{Condvar, Mutex, MutexGuard, channel};
