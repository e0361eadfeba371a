//! The streaming engine: pages, the schedule, what stays in memory, and the worker that reads the rest ahead of the sweep.

pub mod budget;
#[cfg(all(test, feature = "prefetch"))]
mod budget_tests;
pub mod engine;
mod events;
#[cfg(all(test, feature = "prefetch"))]
mod expert_tests;
pub mod experts;
pub mod frames;
mod loader;
#[cfg(all(test, feature = "prefetch"))]
mod profile_tests;
mod residency;
#[cfg(all(test, feature = "prefetch"))]
mod routed_tests;
pub mod schedule;
pub mod source;
mod state;
#[cfg(test)]
pub mod testing;
#[cfg(all(test, feature = "prefetch"))]
mod trace_tests;
mod types;
// Most of what is promised needs the loader; what holds without it is tested on whole models.
#[cfg(all(test, feature = "prefetch"))]
mod tests;

pub use budget::SharedBudget;
pub use engine::{Config, Engine, Gate, Interrupt, Look, PageGuard, Progress, ProgressReport, Sweep, SweepCaller};
pub use experts::Rarity;
pub use residency::KeptExperts;
pub use schedule::{Builder, Matrix, MatrixId, Page, Schedule, Use};
pub use state::{Accounting, RoutedExpert};
pub use types::{Event, EventKind, Io, LayerState, Stats};
