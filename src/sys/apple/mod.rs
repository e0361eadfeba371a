//! macOS, iOS and their relatives.

pub mod file;
pub mod memory;
pub mod pages;
pub mod thread;
