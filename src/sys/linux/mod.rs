//! Linux.

pub mod file;
pub mod memory;
pub mod pages;
pub mod replace;
pub mod thread;
#[cfg(target_arch = "x86_64")]
pub mod tiles;
