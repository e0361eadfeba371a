//! What all Unix systems share.

pub mod event;
pub mod file;
pub mod pages;
