//! Who drafts the tokens of a pass, and how many.

use std::time::Instant;

use super::{Drafter, Generation, Run};
use crate::error::{Error, Result};
use crate::generate::pace::Certainty;
use crate::generate::{Sequence, ngrams};
use crate::model::Logits;

impl Generation {
    /// A pass without drafts that leaves the last logits, of which a drafter sees the hidden states where it reads them.
    pub(super) fn forward<S: Sequence>(
        &mut self,
        sequence: &mut S,
        tokens: &[i32],
        since: u64,
        prompt: bool,
    ) -> Result<()> {
        let Some(predictor) = self.drafter.active_predictor() else {
            return sequence.forward(tokens, Logits::Last, since);
        };
        let mut seen = Ok(());
        sequence.forward_seen(tokens, since, &mut |start, tokens, hidden| {
            if seen.is_ok() {
                seen = predictor.see(start, tokens, hidden, prompt);
            }
        })?;
        self.pace.prepared(predictor.take_spent());
        seen
    }

    /// Of a pass of drafts that began at the position `start` these tokens were right.
    pub(super) fn see_drafts<S: Sequence>(&mut self, sequence: &S, start: usize, right: &[i32]) -> Result<()> {
        let Some(predictor) = self.drafter.active_predictor() else { return Ok(()) };
        predictor.see(start, right, sequence.draft_hidden(right.len())?, false)
    }

    pub(super) fn remember(&mut self, tokens: &[i32]) -> Result<()> {
        if matches!(self.drafter, Drafter::None | Drafter::Predictor(_)) {
            return Ok(());
        }
        let refused = |_| Error::out_of_memory(format!("{} more tokens to draft from", tokens.len()));
        self.text.try_reserve(tokens.len()).map_err(refused)?;
        self.text.extend_from_slice(tokens);
        Ok(())
    }

    /// Drafts for the next pass, which takes in `unfed` anyway: none, or up to `most`. How sure they are, where the
    /// constraint leaves a choice, and since when the drafter was at work on them, if it was.
    pub(super) fn draft<S: Sequence, V, F>(
        &mut self,
        sequence: &S,
        run: &mut Run<V, F>,
        most: usize,
        unfed: &[i32],
        out: &mut Vec<i32>,
    ) -> Result<(Option<Certainty>, Option<Instant>)> {
        let Some(guided) = &mut run.guided else {
            let (certainty, asked) = self.guess(sequence, most, unfed, out)?;
            return Ok((Some(certainty), asked));
        };
        guided.forced(most, out)?;
        if !out.is_empty() {
            return Ok((None, None));
        }
        let (certainty, asked) = self.guess(sequence, most.min(self.max_drafts), unfed, out)?;
        guided.keep_allowed(out)?;
        Ok((Some(certainty), asked))
    }

    /// What the drafter says.
    fn guess<S: Sequence>(
        &mut self,
        sequence: &S,
        most: usize,
        unfed: &[i32],
        out: &mut Vec<i32>,
    ) -> Result<(Certainty, Option<Instant>)> {
        out.clear();
        let fed = unfed.len();
        if most == 0 {
            return Ok((Certainty::Low, None));
        }
        match &mut self.drafter {
            Drafter::None => Ok((Certainty::Low, None)),
            Drafter::Text => {
                let certainty = ngrams::draft(&self.text, most, out).unwrap_or(Certainty::Low);
                out.truncate(self.pace.drafts(out.len(), fed, certainty));
                // Microseconds.
                Ok((certainty, None))
            }
            Drafter::Model(model) => {
                // How sure the model is, is not known before it drafts.
                let most = self.pace.drafts(most, fed, Certainty::Fair);
                if most == 0 {
                    return Ok((Certainty::Fair, None));
                }
                let mut asked = sequence.now();
                if model.prepare(&self.text)? {
                    let began = std::mem::replace(&mut asked, sequence.now());
                    self.pace.prepared(asked - began);
                }
                model.draft(&self.text, most, self.pace.least_chance(Certainty::Fair), out)?;
                Ok((Certainty::Fair, Some(asked)))
            }
            Drafter::Predictor(predictor) => {
                let most = if predictor.is_active() { self.pace.drafts(most, fed, Certainty::Fair) } else { 0 };
                if most == 0 {
                    return Ok((Certainty::Fair, None));
                }
                let asked = sequence.now();
                let least_chance = self.pace.least_chance(Certainty::Fair);
                predictor.draft(sequence.position(), unfed, most, least_chance, out)?;
                Ok((Certainty::Fair, Some(asked)))
            }
        }
    }
}
