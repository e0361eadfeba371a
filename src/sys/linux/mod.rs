//! Linux.

pub mod file;
pub mod memory;
pub mod pages;
pub mod replace;
pub mod thread;
