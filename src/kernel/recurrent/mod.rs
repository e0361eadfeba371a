//! Layers that keep a state of one size in place of keys and values: short causal convolutions, and states that are a
//! matrix for each head.
//!
//! | file | |
//! |---|---|
//! | `convolution` | each channel with its own few weights, over the last few tokens |
//! | `matrix` | the matrix of each head: gated delta rule, and plain decay |
//!
//! Tokens are taken one after the other, in order, so that the bits do not depend on how many share a call. Products
//! and sums are rounded apart, so that a matrix has the same bits with every instruction set; the SiLU of a convolution
//! has its own last bit with each, as everywhere.

mod convolution;
mod matrix;
#[cfg(test)]
mod tests;

pub use convolution::{Convolution, convolve};
pub use matrix::{Decay, Recurrence, Rule, recur};

/// Where the state before the first token of a call lies.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// There is none: all zeros.
    Empty,
    Elsewhere(&'a [f32]),
    /// Where the state after the call is to lie.
    InPlace,
}

impl Before<'_> {
    /// A part of it.
    pub fn part(&self, range: std::ops::Range<usize>) -> Before<'_> {
        match self {
            Before::Elsewhere(state) => Before::Elsewhere(&state[range]),
            other => *other,
        }
    }

    /// Puts it where it is to be changed.
    fn put(&self, to: &mut [f32]) {
        match self {
            Before::Empty => to.fill(0.0),
            Before::Elsewhere(state) => to.copy_from_slice(state),
            Before::InPlace => {}
        }
    }
}

/// Memory that several threads write, each other elements.
struct Shared(*mut f32);

// SAFETY: threads only get at the memory through `slice`, whose contract keeps the elements apart.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The elements exist, and nobody else has a reference to them; the slice is not used after the call that made
    /// `self` has returned.
    #[allow(clippy::mut_from_ref)]
    unsafe fn slice<'a>(&self, first: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(first), len) }
    }
}
