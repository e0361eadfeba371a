//! The forward pass. A description is compiled once, at open, into a program: a list of steps over named buffers. The
//! order of the weights' pages, the layout of the scratch memory and the execution all follow from that list.
//!
//! | file | |
//! |---|---|
//! | `program` | the steps, what compiles a description into them, and what follows from them |
//! | `scratch` | the memory that the buffers lie in |
//! | `run` | executes the steps of a sweep, for all sequences that share it |
//! | `results` | what a chunk leaves |
//! | `adapter` | what sessions add to the products of matrices |
//! | `memory` | what a sequence remembers: keys and values, of all kinds, and recurrent states |
//! | `candidates` | what a sampler compares tokens in |
//! | `member` | a sequence as sweeps see it |
//! | `turns` | who takes part in the next sweep, and who runs it |
//! | `loaded` | all that passes need of an open model |
//! | `queue` | passes that wait for their turn, and the thread that runs them |
//!
//! A new kind of block needs a step in `program::step`, the lines in `program::compile` that emit it, and an arm in `run`
//! that calls its kernel. A block with a state of its own names its layer in its step, as [`program::Step::Attend`] does among
//! those with keys and values and [`program::Step::Recur`] among the recurrent ones, and finds its state in the sequence's
//! memory.

pub mod adapter;
pub mod candidates;
pub mod loaded;
mod member;
pub mod memory;
pub mod program;
pub mod queue;
pub mod results;
pub mod rotation;
mod run;
pub mod scratch;
mod turns;

pub use candidates::Candidates;
pub use loaded::Loaded;
pub use member::{Loan, Member, Outcome};
pub use program::Program;
pub use queue::{PassQueue, SubmittedPass};
pub use results::{Embeddings, Logits, Outputs, Rows, Wanted, hidden_rows, session_bytes};
pub use rotation::Rotation;
pub use scratch::{Layout, Scratch};
pub use turns::Turns;
