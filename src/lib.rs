//! layerline runs GGUF language models inside a memory budget the host program sets, however large the model is.
//! Weights that do not fit are streamed from storage by a background worker while the arithmetic goes on.

#![deny(unsafe_op_in_unsafe_fn)]

#[doc(hidden)]
pub mod arch;
pub mod error;
#[doc(hidden)]
pub mod ffi;
#[doc(hidden)]
pub mod generate;
#[doc(hidden)]
pub mod gguf;
#[doc(hidden)]
pub mod kernel;
pub mod model;
#[doc(hidden)]
pub mod quant;
pub mod session;
#[doc(hidden)]
pub mod text;
#[doc(hidden)]
pub mod weights;

pub use error::{Error, Result, Status};
