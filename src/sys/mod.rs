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
#[cfg(target_arch = "x86_64")]
pub mod tiles;

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(unix)]
mod unix;
#[cfg(target_family = "wasm")]
mod wasm;
#[cfg(windows)]
mod windows;
