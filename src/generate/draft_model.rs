//! Drafts by another model, which is smaller or wholly in memory. Its choices are greedy: they are guesses about what the
//! sampler will choose by the large model's logits.

use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::model::{Logits, Model};
use crate::session::Session;
use crate::text::Tokenizer;

/// Where more tokens than this are missing, they are taken in before drafting, as [`DraftModel::prepare`] does.
const MOST_MISSING: usize = 16;

/// A model that drafts, with a session of its own.
pub struct DraftModel {
    session: Session,
    /// Told by the host.
    least_chance: Option<f32>,
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
        Ok(DraftModel { session: Session::new(model, context_length)?, least_chance: None })
    }

    /// What is less likely than this, by the model that drafts, is not drafted; 0: the likeliest token always is. Unless told,
    /// it follows from what drafts cost and from how many were right.
    pub fn set_least_chance(&mut self, chance: f32) {
        self.least_chance = Some(chance);
    }

    /// The tokeniser of its model.
    ///
    /// # Errors
    /// `UNSUPPORTED`: it has none.
    pub fn vocabulary(&self) -> Result<&Tokenizer> {
        self.session.model().tokenizer()
    }

    /// Takes in all of `text` but its last token where much of it is missing: a prompt. Whether it did.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn prepare(&mut self, text: &[i32]) -> Result<bool> {
        let Some((_, before)) = text.split_last() else { return Ok(false) };
        self.keep_what_is_in(text)?;
        let missing = &before[self.session.position()..];
        if missing.len() <= MOST_MISSING {
            return Ok(false);
        }
        match self.session.forward(missing, Logits::None) {
            Ok(()) => Ok(true),
            // There are no drafts then.
            Err(e) if e.status() == Status::ContextFull => Ok(false),
            Err(e) => Err(e.context("the model that drafts")),
        }
    }

    /// Forgets what is not in `text`, and its last token, whose logits are needed.
    fn keep_what_is_in(&mut self, text: &[i32]) -> Result<()> {
        let same = self.session.common_prefix(text).min(text.len() - 1);
        if same < self.session.position() && self.session.truncate(same).is_err() {
            self.session.truncate(0)?;
        }
        Ok(())
    }

    /// Puts up to `most` tokens that may follow `text` into `out`, which has room for them, as long as all of them together
    /// are as likely as `least_chance`, where the host has told none.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn draft(&mut self, text: &[i32], most: usize, least_chance: f32, out: &mut Vec<i32>) -> Result<()> {
        if most == 0 || text.is_empty() {
            return Ok(());
        }
        self.keep_what_is_in(text)?;
        let session = &mut self.session;
        let tokens = session.model().tokenizer()?.vocab_size();
        let least_chance = self.least_chance.unwrap_or(least_chance);
        let mut chance = 1.0;
        let mut next = text[session.position()..].to_vec();
        while out.len() < most {
            match session.forward(&next, Logits::Last) {
                Ok(()) => {}
                Err(e) if e.status() == Status::ContextFull => return Ok(()),
                Err(e) => return Err(e.context("the model that drafts")),
            }
            let logits = session.logits(0)?;
            let likely = likely(&logits[..tokens.min(logits.len())], least_chance / chance);
            let Some((token, own_chance)) = likely else { return Ok(()) };
            chance *= own_chance;
            out.push(token);
            next.clear();
            next.push(token);
        }
        Ok(())
    }
}

/// The token of the greatest logit and how likely it is, where that is as likely as `least_chance`.
pub(super) fn likely(logits: &[f32], least_chance: f32) -> Option<(i32, f32)> {
    let (token, max) = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    // Stops as soon as the others outweigh it.
    let mut others = 0.0;
    let limit = 1.0 / least_chance;
    for logit in logits {
        if logit > &(max - 16.0) {
            others += (logit - max).exp();
            if others > limit {
                return None;
            }
        }
    }
    let token = i32::try_from(token).ok().filter(|_| max.is_finite())?;
    Some((token, 1.0 / others))
}

#[cfg(test)]
mod tests {
    use super::likely;

    #[test]
    fn a_token_is_drafted_where_it_is_likely() {
        let token = |logits: &[f32], least| likely(logits, least).map(|(token, _)| token);
        assert_eq!(token(&[0.0, 5.0, 1.0], 0.4), Some(1));
        assert_eq!(token(&[1.0, 1.0, 1.0], 0.4), None);
        assert_eq!(token(&[f32::NAN, 1.0], 0.4), None);
        assert_eq!(token(&[], 0.4), None);
        assert_eq!(likely(&[1.0, 1.0], 0.4), Some((1, 0.5)));
        assert_eq!(likely(&[1.0; 8], 0.0), Some((7, 0.125)));
    }
}
