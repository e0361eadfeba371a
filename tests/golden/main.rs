//! Whole models against numbers that were computed elsewhere, and against themselves under every way of running.

mod arch;
mod bits;
mod drafts;
#[allow(dead_code)]
#[path = "../data/drawn.rs"]
mod drawn;
mod embeddings;
mod equality;
mod files;
mod forms;
mod hostile;
mod long;
mod quant;
mod real;
mod recurrent;
mod scales;
mod state;
mod support;
mod window;
