//! Memory for choosing a token among those of a vocabulary.

use crate::error::Result;
use crate::weights::frames::Memory;

/// Memory in which a sampler compares tokens. It is made when it is first needed, and then kept: memory of its own, not
/// the heap's, which may keep what it is given back. What is in it means nothing between two choices, so that a clone
/// begins without any.
#[derive(Default)]
pub struct Candidates(Option<Memory>);

impl Candidates {
    /// What it takes for a vocabulary of `tokens` tokens.
    pub fn bytes(tokens: usize) -> u64 {
        (2 * size_of::<u64>() as u64).saturating_mul(tokens as u64)
    }

    /// Two numbers for each of `tokens` tokens, of any value: those of one purpose, then those of the other.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn numbers(&mut self, tokens: usize) -> Result<(&mut [u64], &mut [u64])> {
        let bytes = Candidates::bytes(tokens);
        let memory = match self.0.take().filter(|memory| memory.len() as u64 >= bytes) {
            Some(memory) => memory,
            None => Memory::of(bytes, format_args!("choosing among {tokens} tokens"))?,
        };
        let numbers = self.0.insert(memory).as_slice_mut::<u64>();
        Ok(numbers[..2 * tokens].split_at_mut(tokens))
    }

    /// How much memory there is now.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Memory::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Clone for Candidates {
    fn clone(&self) -> Candidates {
        Candidates::default()
    }
}

impl std::fmt::Debug for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidates({} bytes)", self.len())
    }
}
