//! The forward pass and what it works on.

pub mod memory;
