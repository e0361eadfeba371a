//! The arithmetic: scalar truth plus one folder per instruction set, dispatched once; the thread pool.

pub mod attention;
pub mod isa;
pub mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod page;
pub mod pool;
pub mod recurrent;
pub mod rope;
pub mod rows;
#[cfg(test)]
pub mod testing;
pub mod vector;

use isa::Instructions;
pub use isa::Isa;
