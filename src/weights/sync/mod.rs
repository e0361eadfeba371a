//! The locks, queues and threads that the engine is made of. Under `--cfg shuttle` the tests of [`super::testing::interleaved`]
//! have them from a scheduler that tries orders of events one after another.

#[cfg(not(all(test, shuttle)))]
pub use crossbeam_channel as channel;
#[cfg(not(all(test, shuttle)))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(test, shuttle)))]
pub use std::thread;

#[cfg(all(test, shuttle))]
mod shuttled;
#[cfg(all(test, shuttle))]
pub use shuttle::thread;
#[cfg(all(test, shuttle))]
pub use shuttled::{Condvar, Mutex, MutexGuard, channel};
