//! Choosing tokens, and the loop that turns a prompt into text.
//!
//! | file | |
//! |---|---|
//! | `run` | what the loop needs of a sequence and a tokeniser, and the plain loop |
//! | `generation` | the loop: limits, stop strings, drafts |
//! | `ngrams`, `draft_model` | where drafts come from |
//! | `pace` | how many of them a pass is worth |
//! | `stop` | stop strings |
//! | `constraint`, `gbnf` | schemas, grammars, regular expressions |
//! | `guided` | a generation that follows one |
//! | `sampler` | from logits to a token |

mod constraint;
mod draft_model;
#[cfg(feature = "constraints")]
mod gbnf;
mod generation;
mod guided;
mod ngrams;
mod pace;
mod run;
mod sampler;
mod stop;

pub use constraint::{Constraint, ConstraintKind, ConstraintState};
pub use draft_model::DraftModel;
pub use generation::{End, Generation, GenerationStats, MAX_DRAFTS};
pub use run::{Sequence, Vocabulary, generate};
pub use sampler::{Sampler, Step};
