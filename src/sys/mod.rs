//! The operating system. Every call to it that the standard library does not wrap stands here, one file per concern;
//! what differs from system to system stands in a folder per system. The rest of the library knows no system.

pub mod event;
pub mod file;
pub mod heap;
pub mod mapping;
pub mod memory;
pub mod pages;
pub mod replace;
pub mod sync;
pub mod thread;
pub mod tiles;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
