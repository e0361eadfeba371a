//! What all Unix systems share.

pub mod event;
pub mod file;
pub mod pages;
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub mod thread;
