//! The arithmetic: scalar truth plus one folder per instruction set, dispatched once; the thread pool.

pub mod attention;
pub mod isa;
pub mod pool;
pub mod rope;
pub mod vector;

pub use isa::Isa;
