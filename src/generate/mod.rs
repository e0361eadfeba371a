//! Choosing tokens, and the loop that turns a prompt into text.

mod run;
mod sampler;

pub use run::{Sequence, Vocabulary, generate};
pub use sampler::Sampler;
