//! Passes over tokens of which some may turn out to be wrong: all are taken in, and then the first ones kept.

use super::Session;
use super::results::{Results, Wide};
use crate::error::{Error, Result};
use crate::model::{Embeddings, Logits, Outputs};

impl Session {
    /// Takes memory for the logits of up to `rows` positions from the budget, for passes of [`Session::forward_drafts`],
    /// so that these change nothing about what weights have. Where there is less room, for fewer; 0: for none, and nothing
    /// is taken. A pass of drafts is one chunk, so that no more rows are given than that has tokens.
    pub fn begin_drafts(&mut self, rows: usize, since: u64) -> usize {
        let mut rows = rows.min(self.model.chunk_length());
        let vocab = self.model.description().shape.vocab;
        // With one row a pass has no room for a draft.
        while rows > 1 {
            match Wide::claim(&self.model, rows, vocab, &self.interrupt, since) {
                Ok(wide) => {
                    self.wide = Some(wide);
                    return rows;
                }
                Err(_) => rows /= 2,
            }
        }
        0
    }

    /// Gives back what [`Session::begin_drafts`] took.
    pub fn end_drafts(&mut self) {
        self.wide = None;
    }

    /// Takes `tokens` in and leaves the logits of every position, and the hidden states where these are kept.
    /// [`Session::keep_drafts`] is to follow.
    ///
    /// # Errors
    /// As [`Session::forward`]; `INVALID_ARGUMENT` too for more tokens than there is memory for.
    pub fn forward_drafts(&mut self, tokens: &[i32], since: u64) -> Result<()> {
        let mut outputs = Outputs::from(Logits::All);
        self.check(tokens, outputs)?;
        let wide = self.wide.as_mut().filter(|wide| tokens.len() <= wide.rows());
        let Some(wide) = wide else {
            return Err(Error::invalid(format!("{} drafted tokens, and no memory for their logits", tokens.len())));
        };
        let mut results = Results::none(&self.model);
        results.logits = wide.lend(tokens.len());
        if let Some(seen) = &mut self.seen {
            outputs.embeddings = Embeddings::All;
            results.embeddings = seen.lend(tokens.len());
        }
        self.drafted = tokens.len();
        self.pass(tokens, outputs, results, since)
    }

    /// Of the last pass, which was one of drafts, keeps the first `count` tokens, and the logits of the last of them as a
    /// pass would that ended there. Returns how many of the tokens the session has now: `count`, or none of them where it
    /// cannot go back to one in the middle, because layers are recurrent: then all of them are to be taken in again.
    ///
    /// # Panics
    /// If `count` is 0, or more than the pass had.
    pub fn keep_drafts(&mut self, count: usize) -> Result<usize> {
        let drafted = std::mem::take(&mut self.drafted);
        assert!((1..=drafted).contains(&count), "{count} of {drafted} drafts");
        let start = self.position - drafted;
        let mut single = Results::claim(&self.model, Outputs::from(Logits::Last), 1)?;
        single.allocate(&mut self.spare, &self.interrupt, self.interrupt.settled())?;
        single.logits.all_mut().copy_from_slice(self.results.logits.row(count - 1, "logits")?);
        let mut all = std::mem::replace(&mut self.results, single);
        if let Some(wide) = &mut self.wide {
            wide.take_back(std::mem::take(&mut all.logits));
        }
        if let Some(seen) = &mut self.seen {
            seen.take_back(std::mem::take(&mut all.embeddings));
        }
        if count == drafted {
            return Ok(count);
        }
        let kept = match self.memory.state_layers() {
            [] => count,
            _ => 0,
        };
        match start + kept {
            // No token is left, or the pass was the first: states begin empty at position 0.
            0 => self.memory.clear(),
            _ if kept == 0 => self.memory.undo_pass(start)?,
            tokens => self.memory.truncate(tokens)?,
        }
        self.position = start + kept;
        self.tokens.truncate(self.position);
        Ok(kept)
    }
}
