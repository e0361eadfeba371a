//! Hidden states between a model and the layer that predicts further tokens: the model's passes leave them, after the final
//! norm, chunk by chunk, and that layer's passes read them.

use super::Session;
use super::results::{Results, Wide};
use crate::error::{Error, Result};
use crate::model::{Embeddings, Logits, Outputs};

/// Tokens of a pass with the position of the first, and their hidden states.
pub type See<'a> = dyn FnMut(usize, &[i32], &[f32]) + 'a;

impl Session {
    // --- of a model ---------------------------------------------------------------------------------------------------

    /// Takes memory for the hidden states of a chunk from the budget, for passes of [`Session::forward_seen`] and of drafts.
    /// Whether there was room.
    pub fn begin_hidden(&mut self, since: u64) -> bool {
        let (rows, width) = (self.model.chunk_length(), self.model.description().shape.embedding);
        self.seen = Wide::claim(&self.model, rows, width, &self.interrupt, since).ok();
        self.seen.is_some()
    }

    /// Gives back what [`Session::begin_hidden`] took.
    pub fn end_hidden(&mut self) {
        self.seen = None;
    }

    /// As [`Session::forward_since`] with the last logits, after [`Session::begin_hidden`]; `see` gets each chunk of the pass
    /// when it has been taken in. Should the pass fail after that, the session is as it was before all the same.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn forward_seen(&mut self, tokens: &[i32], since: u64, see: &mut See) -> Result<()> {
        let outputs = Outputs { logits: Logits::Last, embeddings: Embeddings::Chunk };
        self.check(tokens, outputs)?;
        let mut results = Results::claim(&self.model, Outputs::from(Logits::Last), tokens.len())?;
        let Some(seen) = &mut self.seen else {
            return Err(Error::invalid("hidden states, and no memory for them"));
        };
        results.embeddings = seen.lend(tokens.len().min(seen.rows()));
        self.pass_seen(tokens, outputs, results, since, Some(see))?;
        // A pass without drafts leaves what it leaves where nobody reads hidden states.
        let rows = std::mem::take(&mut self.results.embeddings);
        if let Some(seen) = &mut self.seen {
            seen.take_back(rows);
        }
        Ok(())
    }

    /// The hidden states of the first `count` tokens of the last pass, which was one of drafts.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it left none.
    pub fn draft_hidden(&self, count: usize) -> Result<&[f32]> {
        let rows = &self.results.embeddings;
        if count > rows.count {
            return Err(Error::invalid(format!("{count} of {} hidden states", rows.count)));
        }
        Ok(&rows.all()[..count * self.model.description().shape.embedding])
    }

    // --- of a layer that predicts further tokens ----------------------------------------------------------------------

    /// Rows for the hidden states that passes read, two more than a chunk has tokens.
    pub fn hidden_inputs(&mut self) -> &mut [f32] {
        self.hidden.all_mut()
    }

    /// The first row of [`Session::hidden_inputs`] becomes the embedding that the last pass left.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it left none.
    pub(crate) fn chain_hidden(&mut self) -> Result<()> {
        let Session { hidden, results, .. } = self;
        let row = results.embeddings.row(0, "embeddings")?;
        hidden.all_mut()[..row.len()].copy_from_slice(row);
        Ok(())
    }

    /// As [`Session::forward`], of a layer that predicts further tokens. The first rows of [`Session::hidden_inputs`] are
    /// those that go with `tokens`: each that of the position before.
    ///
    /// # Errors
    /// As [`Session::forward`]; `UNSUPPORTED`: more tokens than there are such rows.
    pub fn predict(&mut self, tokens: &[i32], outputs: impl Into<Outputs>) -> Result<()> {
        self.given = tokens.len().min(self.hidden.count);
        let result = self.forward(tokens, outputs);
        self.given = 0;
        result
    }

    /// Refuses a pass of a layer that predicts further tokens without hidden states.
    pub(super) fn check_hidden(&self, tokens: usize) -> Result<()> {
        if self.model.description().predictor.is_none() || tokens <= self.given {
            return Ok(());
        }
        Err(Error::unsupported(
            "this is the layer of a model that predicts further tokens, which needs that model's hidden states: it drafts, and runs no passes of its own",
        ))
    }
}
