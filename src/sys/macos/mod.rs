//! macOS.

pub mod file;
