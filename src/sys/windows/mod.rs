//! Windows.

pub mod event;
pub mod file;
pub mod memory;
pub mod pages;
pub mod thread;
