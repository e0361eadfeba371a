//! A token is chosen, and how likely it was is told where that is asked for.

use super::{Generation, Run};
use crate::error::Result;
use crate::generate::logprobs::Logprobs;
use crate::generate::{Sampler, Sequence};

impl Generation {
    /// Lets callbacks of [`Generation::run_detailed`] have the log-probabilities of each token, and of the likeliest `top` of
    /// both distributions; None, the default: no log-probabilities, and no time for them. They are the same with and without
    /// drafts.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: more than [`MAX_TOP`](crate::generate::MAX_TOP) tokens.
    pub fn set_logprobs(&mut self, top: Option<usize>) -> Result<()> {
        if let Some(top) = top {
            Logprobs::new(top)?;
        }
        self.logprobs = top;
        Ok(())
    }
}

impl<V, F> Run<'_, V, F> {
    /// Chooses a token by a row of logits.
    pub(super) fn sample<S: Sequence>(&mut self, sampler: &mut Sampler, sequence: &S, logits: &[f32]) -> Result<i32> {
        sequence.with_candidates(|memory| {
            let Some(Logprobs { raw, sampled }) = &mut self.logprobs else { return sampler.sample_in(memory, logits) };
            let token = sampler.sample_from(memory, logits, Some(sampled))?;
            raw.of_logits(logits, token);
            Ok(token)
        })
    }
}
