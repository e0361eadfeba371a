//! Test doubles of the engine: a source that obeys a script, schedules of any shape, storage in virtual time, and a
//! scheduler of threads that tries orders one after another.

#[cfg(all(shuttle, feature = "prefetch"))]
pub mod interleaved;
pub mod schedule;
#[cfg(feature = "prefetch")]
pub mod scripted;
#[cfg(feature = "prefetch")]
mod virtual_time;
