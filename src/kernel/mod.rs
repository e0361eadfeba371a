//! The arithmetic: scalar truth plus one folder per instruction set, dispatched once; the thread pool.

pub mod isa;
pub mod matmul;

pub use isa::Isa;
