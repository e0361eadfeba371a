//! The C interface: one file per noun, each function checks, calls the core and maps the result.
//!
//! The doc comments of public items are the header's: `include/layerline.h` is made of them.

// C's names; and what a pointer must be is said in the header, for C's readers.
#![allow(non_camel_case_types, clippy::missing_safety_doc)]

pub mod adapter;
pub mod batch;
mod boundary;
pub mod budget;
pub mod chain;
pub mod chat;
pub mod checkpoint;
pub mod constraint;
pub mod detokenizer;
pub mod error;
pub mod generation;
mod layout;
pub mod message;
pub mod model;
pub mod options;
pub mod plan;
pub mod prefetch;
pub mod sampler;
pub mod session;
pub mod source;
pub mod state;
pub mod text;
pub mod version;

#[cfg(test)]
mod tests;
