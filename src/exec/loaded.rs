//! What passes need of an open model.

use super::{Program, Rotation, Scratch, Turns};
use crate::arch::VectorId;
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::sys::sync::Mutex;
use crate::weights::Engine;

/// A program with all that it runs on.
pub struct Loaded {
    pub program: Program,
    /// The small tensors, by [`VectorId`].
    pub vectors: Vec<Box<[f32]>>,
    /// By the description's `ropes`.
    pub rotations: Vec<Rotation>,
    pub isa: Isa,
    pub pool: Pool,
    /// The sweep whose turn it is has it.
    pub scratch: Mutex<Scratch>,
    pub turns: Turns,
    pub engine: Engine,
}

impl Loaded {
    pub fn vector(&self, id: VectorId) -> &[f32] {
        &self.vectors[id.0 as usize]
    }
}
