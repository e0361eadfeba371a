//! layerline runs GGUF language models inside a memory budget the host program sets, however large the model is.
//! Weights that do not fit are streamed from storage by a background worker while the arithmetic goes on.
//!
//! A [`Model`] is opened with [`Options`]; a [`Session`] is one sequence of tokens on it; a [`Sampler`] chooses the next
//! one. Whatever fails returns an [`Error`] with a [`Status`] and a message that names the file, the tensor, the figures.
//!
//! ```
//! use layerline::{Model, Options, Sampler, Session, generate};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> layerline::Result<()> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/arch/llama.gguf");
//! let options = Options { memory_budget: 64 << 20, context_length: 128, ..Options::default() };
//! let plan = Model::plan(path.as_ref(), &options)?;
//! assert!(plan.floor_bytes <= options.memory_budget, "this model needs at least {} bytes", plan.floor_bytes);
//!
//! let model = Model::open(path.as_ref(), &options)?;
//! let mut session = Session::new(&model, 0)?;
//! let mut sampler = Sampler::new();
//! sampler.set_temperature(0.8)?;
//! let prompt = model.tokenizer()?.encode("The sea is", false, true);
//! generate(&mut session, model.tokenizer()?, &mut sampler, &prompt, 16, |_token, piece| {
//!     print!("{piece}");
//!     ControlFlow::Continue(())
//! })?;
//! assert!(model.stats().peak_bytes <= options.memory_budget);
//! # Ok(())
//! # }
//! ```
//!
//! A program that must not wait runs its passes in the background and takes [`Event`]s, by [`Model::poll`],
//! [`Model::wait`], or a loop that watches [`Model::event_handle`]:
//!
//! ```
//! use layerline::{Logits, Model, Options, Session, SharedSession};
//!
//! # #[cfg(feature = "prefetch")]
//! # fn main() -> layerline::Result<()> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/arch/llama.gguf");
//! let model = Model::open(path.as_ref(), &Options::default())?;
//! let session = SharedSession::new(Session::new(&model, 128)?);
//! let ticket = session.submit(&[1, 40, 50], Logits::Last)?;
//! let mut events = Vec::new();
//! model.wait(None, &mut events, 8);
//! assert!(events[0].ticket == ticket && events[0].failure.is_none());
//! assert_eq!(session.read()?.logits(0)?.len(), model.info().vocab_size as usize);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "prefetch"))]
//! # fn main() {}
//! ```
//!
//! The public interface is what stands on this page. Modules that are not listed are the library's own and the C
//! interface's: they change with any version.

#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[doc(hidden)]
pub mod arch;
mod elementary;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod exec;
#[doc(hidden)]
pub mod ffi;
#[doc(hidden)]
pub mod generate;
#[doc(hidden)]
pub mod gguf;
#[doc(hidden)]
pub mod kernel;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod operations;
mod order;
#[doc(hidden)]
pub mod quant;
#[doc(hidden)]
pub mod session;
mod sys;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod weights;

#[doc(inline)]
pub use error::{Error, Result, Status};
#[doc(inline)]
pub use generate::{
    Constraint, ConstraintKind, ConstraintState, Distribution, DraftModel, DraftPredictor, End, Generated, Generation,
    GenerationStats, Logprobs, Sampler, TokenLogprob, generate,
};
#[doc(inline)]
pub use model::{
    Adapter, Embeddings, Event, EventKind, HostSource, Info, Io, KvType, LayerState, Logits, Model, Options, Outputs,
    Plan, Stats,
};
#[doc(inline)]
pub use session::{Checkpoint, Session, SharedSession};
#[doc(inline)]
pub use text::{
    Chat, Conversation, DetokenizeOptions, Detokenizer, MessageParser, MessagePart, PartKind, TokenizeOptions,
    Tokenizer,
};
#[doc(inline)]
pub use weights::{Interrupt, ProgressReport, SharedBudget};
