//! Drafts by another model, which is smaller or wholly in memory. Its choices are greedy: they are guesses about what the
//! sampler will choose by the large model's logits.

use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::model::{Logits, Model};
use crate::session::Session;
use crate::text::Tokenizer;

/// A draft that is less likely than this, by the model that makes it, is none: unless told otherwise.
const LEAST_CHANCE: f32 = 0.4;

/// A model that drafts, with a session of its own.
pub struct DraftModel {
    session: Session,
    /// What the session has taken in.
    taken: Vec<i32>,
    least_chance: f32,
}

impl DraftModel {
    /// Drafts in a session of `model` with room for `context_length` tokens, which takes its memory from that model's
    /// budget; 0: the default of the model's options. Where the context is full, nothing is drafted.
    ///
    /// # Errors
    /// As [`Session::new`]; `UNSUPPORTED`: the model has no tokeniser, or generates no text.
    pub fn new(model: &Arc<Model>, context_length: u32) -> Result<DraftModel> {
        model.tokenizer()?;
        let description = model.description();
        if description.head.is_none() || !description.causal {
            return Err(Error::unsupported("the model generates no text, so that it cannot draft"));
        }
        Ok(DraftModel { session: Session::new(model, context_length)?, taken: Vec::new(), least_chance: LEAST_CHANCE })
    }

    /// What is less likely than this is not drafted; 0: the likeliest token always is.
    pub fn set_least_chance(&mut self, chance: f32) {
        self.least_chance = chance;
    }

    /// The tokeniser of its model.
    ///
    /// # Errors
    /// `UNSUPPORTED`: it has none.
    pub fn vocabulary(&self) -> Result<&Tokenizer> {
        self.session.model().tokenizer()
    }

    /// Puts up to `most` tokens that may follow `text` into `out`, which has room for them.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn draft(&mut self, text: &[i32], most: usize, out: &mut Vec<i32>) -> Result<()> {
        if most == 0 || text.is_empty() {
            return Ok(());
        }
        let session = &mut self.session;
        let same = self.taken.iter().zip(text).take_while(|(a, b)| a == b).count();
        // The last token is taken in again where all are there already: its logits are needed.
        let same = same.min(text.len() - 1);
        if same < self.taken.len() {
            let kept = if session.truncate(same).is_ok() { same } else { 0 };
            session.truncate(kept)?;
            self.taken.truncate(kept);
        }
        let refused = |_| Error::out_of_memory("tokens of a model that drafts");
        self.taken.try_reserve(text.len() + most - self.taken.len()).map_err(refused)?;
        let tokens = session.model().tokenizer()?.vocab_size();
        let mut next = text[self.taken.len()..].to_vec();
        while out.len() < most {
            match session.forward(&next, Logits::Last) {
                Ok(()) => self.taken.extend_from_slice(&next),
                Err(e) if e.status() == Status::ContextFull => return Ok(()),
                Err(e) => return Err(e.context("the model that drafts")),
            }
            let logits = session.logits(0)?;
            let Some(token) = likely(&logits[..tokens.min(logits.len())], self.least_chance) else { return Ok(()) };
            out.push(token);
            next.clear();
            next.push(token);
        }
        Ok(())
    }
}

/// The token of the greatest logit, where it is as likely as `least_chance`.
fn likely(logits: &[f32], least_chance: f32) -> Option<i32> {
    let (token, max) = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    // Stops as soon as the others outweigh it.
    let mut others = 0.0;
    for logit in logits {
        if logit > &(max - 16.0) {
            others += (logit - max).exp();
            if others > 1.0 / least_chance {
                return None;
            }
        }
    }
    i32::try_from(token).ok().filter(|_| max.is_finite())
}

#[cfg(test)]
mod tests {
    use super::likely;

    #[test]
    fn a_token_is_drafted_where_it_is_likely() {
        assert_eq!(likely(&[0.0, 5.0, 1.0], 0.4), Some(1));
        assert_eq!(likely(&[1.0, 1.0, 1.0], 0.4), None);
        assert_eq!(likely(&[1.0, 1.0], 0.4), Some(1));
        assert_eq!(likely(&[f32::NAN, 1.0], 0.4), None);
        assert_eq!(likely(&[], 0.4), None);
        assert_eq!(likely(&[1.0; 9], 0.0), Some(8));
    }
}
