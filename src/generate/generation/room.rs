//! What a generation does when the context is full.

use super::Generation;
use crate::error::Result;
use crate::generate::Sequence;

impl Generation {
    /// What happens when the context is full. None, the default: the generation ends with `CONTEXT_FULL`. Else the first
    /// tokens of the sequence, as many as told, are kept; of those after them the older half is dropped, or as many as are
    /// needed, and the rest is taken in again at its new positions, with the bits that a new session has that was given what
    /// is kept. That works for every model, and costs a pass over those tokens each time.
    pub fn set_kept_first(&mut self, tokens: Option<usize>) {
        self.kept_first = tokens;
    }

    /// Where there is no room for `tokens`, and a sequence may drop some: those to take in, `tokens` at their end.
    pub(super) fn make_room<S: Sequence>(&mut self, sequence: &mut S, tokens: &[i32]) -> Result<Option<Vec<i32>>> {
        let Some(keep) = self.kept_first.filter(|_| tokens.len() > sequence.room()) else { return Ok(None) };
        let (mut all, dropped) = sequence.drop_oldest(keep, tokens.len())?;
        // There is room for them.
        all.extend_from_slice(tokens);
        self.stats.dropped += dropped as u64;
        // Drafts follow from what is there.
        if let Some(predictor) = self.drafter.active_predictor() {
            predictor.start_over(sequence.position())?;
        }
        if self.text.len() >= keep + dropped {
            self.text.drain(keep..keep + dropped);
        }
        Ok(Some(all))
    }
}
