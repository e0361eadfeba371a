//! Choosing tokens, and the loop that turns a prompt into text.
//!
//! | file | |
//! |---|---|
//! | `run` | what the loop needs of a sequence and a tokeniser, and the plain loop |
//! | `generation` | the loop: limits, stop strings, drafts |
//! | `ngrams`, `draft_model`, `predictor` | where drafts come from |
//! | `pace` | how many of them a pass is worth |
//! | `logprobs` | how likely tokens were |
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
mod logprobs;
mod ngrams;
mod pace;
mod predictor;
mod run;
mod sampler;
mod stop;

pub use constraint::{Constraint, ConstraintKind, ConstraintState};
pub use draft_model::DraftModel;
pub use generation::{End, Generated, Generation, GenerationStats, MAX_DRAFTS};
pub use logprobs::{Distribution, Logprobs, MAX_TOP, TokenLogprob};
pub use predictor::DraftPredictor;
pub use run::{Sequence, Vocabulary, generate};
pub use sampler::{Sampler, Step};
