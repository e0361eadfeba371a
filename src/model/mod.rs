//! A model: its description, its tokeniser, its weights and the budget they share.

mod types;

pub use types::{Event, EventKind, Info, Io, LayerState, Logits, Options, Plan, Stats};
