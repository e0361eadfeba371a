//! WebAssembly: one linear memory, which only grows, and one thread.

pub mod mapping;
pub mod memory;

#[cfg(target_os = "wasi")]
pub mod file;
