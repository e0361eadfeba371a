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
    /// Chooses a token by the logits of the last pass.
    pub(super) fn sample_last<S: Sequence>(&mut self, sampler: &mut Sampler, sequence: &S) -> Result<i32> {
        if let Some(guided) = &mut self.guided {
            guided.end_pass()?;
        }
        self.sample(sampler, sequence, sequence.last_logits()?, 0)
    }

    /// Chooses a token by a row of logits, after the first `drafts` drafts of the pass, among those that the constraint
    /// allows. Without it in mind is how likely it was by the model.
    pub(super) fn sample<S: Sequence>(
        &mut self,
        sampler: &mut Sampler,
        sequence: &S,
        logits: &[f32],
        drafts: usize,
    ) -> Result<i32> {
        let allowed = match &mut self.guided {
            Some(guided) => guided.allowed(logits, drafts)?,
            None => logits,
        };
        sequence.with_candidates(|memory| {
            let Some(Logprobs { raw, sampled }) = &mut self.logprobs else { return sampler.sample_in(memory, allowed) };
            let token = sampler.sample_from(memory, allowed, Some(sampled))?;
            raw.of_logits(logits, token);
            Ok(token)
        })
    }
}
