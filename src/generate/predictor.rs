//! Drafts by the layer of a model's own file that predicts further tokens. It sees the same tokens as the model, each with
//! the hidden state that the model made of the position before, and its keys and values are its own.
//!
//! A pair is the token of a position and the hidden state before it. Pairs wait until drafts are wanted; then one pass takes
//! them in. Those of a long prompt are taken in as they come. Beyond the last token that is known the layer reads hidden states
//! of its own, and what it remembers of these is taken back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::draft_model::likely;
use crate::error::{Error, Result, Status};
use crate::exec::{Embeddings, Logits, Outputs};
use crate::model::Model;
use crate::session::Session;

/// A layer that drafts, with a session of its own.
pub struct DraftPredictor {
    session: Session,
    /// The position, in the model's sequence, of the session's first token.
    base: usize,
    /// The hidden states of the model's positions before this one are known.
    known: usize,
    /// Tokens of pairs that no pass has taken in. Row i of the session's hidden states goes with token i; there is one more
    /// where the next token is not known.
    waiting: Vec<i32>,
    /// Tokens that can be drafted, the first ones of the vocabulary. 0: the model has no room for its hidden states now.
    tokens: usize,
    /// What taking pairs in has taken since this was last asked for.
    spent: Duration,
    /// Told by the host.
    least_chance: Option<f32>,
}

impl DraftPredictor {
    /// Drafts in a session of `predictor`, a model that was opened as
    /// [`Options::predictor`](crate::model::Options::predictor) says, with room for `context_length` tokens, which takes its
    /// memory from that model's budget; 0: the default of the model's options. Where the context is full, it begins anew
    /// with the latest tokens.
    ///
    /// # Errors
    /// As [`Session::new`]; `UNSUPPORTED`: the model is no such layer.
    pub fn new(predictor: &Arc<Model>, context_length: u32) -> Result<DraftPredictor> {
        if !predictor.is_predictor() {
            return Err(Error::unsupported("the model is not a layer that predicts further tokens"));
        }
        let mut waiting = Vec::new();
        let refused = |_| Error::out_of_memory("tokens of a layer that drafts");
        waiting.try_reserve_exact(predictor.chunk_length() + 1).map_err(refused)?;
        let mut session = Session::new(predictor, context_length)?;
        session.hidden_inputs().fill(0.0);
        let (base, known) = (0, 0);
        Ok(DraftPredictor { session, base, known, waiting, tokens: 0, spent: Duration::ZERO, least_chance: None })
    }

    /// What is less likely than this, by the layer that drafts, is not drafted; 0: the likeliest token always is. Unless told,
    /// it follows from what drafts cost and from how many were right.
    pub fn set_least_chance(&mut self, chance: f32) {
        self.least_chance = Some(chance);
    }

    pub(super) fn model(&self) -> &Arc<Model> {
        self.session.model()
    }

    pub(super) fn is_active(&self) -> bool {
        self.tokens > 0
    }

    /// This generation has no room for drafts.
    pub(super) fn stop(&mut self) {
        self.tokens = 0;
    }

    /// A generation begins where the model has taken in `position` tokens. `tokens`: see the field.
    pub(super) fn begin(&mut self, position: usize, tokens: usize) -> Result<()> {
        self.tokens = tokens;
        if !self.is_active() {
            return Ok(());
        }
        if position != self.known {
            // Another sequence, or one that went elsewhere meanwhile.
            return self.restart(position, false);
        }
        // The last token chosen, which the sequence need not go on with.
        let kept = self.known - self.base;
        if self.session.position() > kept {
            if self.session.truncate(kept).is_err() {
                // A layer with a window has dropped what the token before has seen.
                return self.restart(position, false);
            }
            self.row_from(self.last_row());
        }
        let waiting = self.known - self.next();
        self.waiting.truncate(waiting);
        Ok(())
    }

    /// What taking pairs in has taken since the last call.
    pub(super) fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }

    // --- pairs --------------------------------------------------------------------------------------------------------

    /// The position of the next pair that a pass takes in.
    fn next(&self) -> usize {
        self.base + self.session.position()
    }

    /// Hidden states that wait. The first is that of the position before the next pair's.
    fn rows(&self) -> usize {
        self.known + 1 - self.next()
    }

    fn width(&self) -> usize {
        self.model().description().shape.embedding
    }

    /// Rows for hidden states that wait; the one after them is [`DraftPredictor::last_row`].
    fn capacity(&self) -> usize {
        self.model().chunk_length() + 1
    }

    /// Where the hidden state is kept that the last pass of pairs ended with.
    fn last_row(&self) -> usize {
        self.capacity()
    }

    /// The first row of hidden states becomes a copy of another.
    fn row_from(&mut self, row: usize) {
        let width = self.width();
        self.session.hidden_inputs().copy_within(row * width..(row + 1) * width, 0);
    }

    /// The model has taken tokens back as far as `position`, and goes on with others.
    pub(super) fn start_over(&mut self, position: usize) -> Result<()> {
        self.restart(position, false)
    }

    /// Begins anew at a position of the model, whose hidden state before is the row that waits last, or is not known.
    fn restart(&mut self, position: usize, with_last: bool) -> Result<()> {
        let (last, width) = (self.rows().saturating_sub(1), self.width());
        self.session.truncate(0)?;
        self.waiting.clear();
        (self.base, self.known) = (position, position);
        match with_last {
            true => self.row_from(last),
            false => self.session.hidden_inputs()[..width].fill(0.0),
        }
        Ok(())
    }

    /// The model has taken in `tokens` from the position `start` on, with these hidden states. Where there is no room for more
    /// pairs, those that wait are taken in with `keep`; without, as no drafts were wanted for long, it begins anew.
    ///
    /// # Errors
    /// Those of the passes.
    pub(super) fn see(&mut self, start: usize, tokens: &[i32], hidden: &[f32], keep: bool) -> Result<()> {
        if start > self.known || start < self.base {
            self.restart(start, false)?;
        }
        let width = self.width();
        for (i, row) in hidden.chunks_exact(width).enumerate() {
            let at = start + i;
            if at < self.known {
                // Taken back, and taken in again.
                continue;
            }
            if self.rows() == self.capacity() && !keep {
                self.restart(self.known, true)?;
            } else if self.rows() == self.capacity() {
                let began = Instant::now();
                self.take_in(Outputs::from(Logits::None))?;
                self.spent += began.elapsed();
            }
            if at >= self.next() + self.waiting.len() {
                self.waiting.push(tokens[i]);
            }
            let to = self.rows();
            self.session.hidden_inputs()[to * width..][..width].copy_from_slice(row);
            self.known += 1;
        }
        Ok(())
    }

    /// A pass over all pairs that wait, whether there was one.
    fn take_in(&mut self, outputs: Outputs) -> Result<bool> {
        let (count, rows, width) = (self.waiting.len(), self.rows(), self.width());
        if count == 0 || count > rows {
            return Ok(false);
        }
        match self.session.predict(&self.waiting, outputs) {
            Ok(()) => {}
            Err(e) if e.status() == Status::ContextFull => {
                let known = self.known;
                self.restart(known, rows > 0)?;
                return Ok(false);
            }
            Err(e) => return Err(e.context("the layer that drafts")),
        }
        self.waiting.clear();
        let last = self.last_row() * width;
        let inputs = self.session.hidden_inputs();
        inputs.copy_within((count - 1) * width..count * width, last);
        inputs.copy_within(count * width..rows * width, 0);
        Ok(true)
    }

    // --- drafts -------------------------------------------------------------------------------------------------------

    /// Puts up to `most` tokens into `out`, which has room for them, that may follow `unfed`: tokens that are known and
    /// follow the first `position` tokens of the model, which it has taken in. As long as all of them together are as likely
    /// as `least_chance`, where the host has told none.
    ///
    /// # Errors
    /// Those of the passes.
    pub(super) fn draft(
        &mut self,
        position: usize,
        unfed: &[i32],
        most: usize,
        least_chance: f32,
        out: &mut Vec<i32>,
    ) -> Result<()> {
        let end = position + unfed.len();
        let there = self.next() + self.waiting.len();
        // Of every pair the hidden state must be known.
        if most == 0 || there < position || there > end || self.known + 1 < end || end - self.next() > self.capacity() {
            return Ok(());
        }
        self.waiting.extend_from_slice(&unfed[there - position..]);
        let outputs = Outputs { logits: Logits::Last, embeddings: Embeddings::Last };
        if !self.take_in(outputs)? {
            return Ok(());
        }
        let kept = self.session.position();
        let result = self.chain(most, least_chance, out);
        if self.session.position() > kept && self.session.truncate(kept).is_err() {
            self.restart(self.known, false)?;
        }
        result
    }

    /// Drafts after a pass that has left logits and a hidden state.
    fn chain(&mut self, most: usize, least_chance: f32, out: &mut Vec<i32>) -> Result<()> {
        let tokens = self.tokens;
        let least_chance = self.least_chance.unwrap_or(least_chance);
        let outputs = Outputs { logits: Logits::Last, embeddings: Embeddings::Last };
        let mut chance = 1.0;
        loop {
            let logits = self.session.logits(0)?;
            let Some((token, own)) = likely(&logits[..tokens.min(logits.len())], least_chance / chance) else { break };
            chance *= own;
            out.push(token);
            if out.len() == most {
                break;
            }
            // No pair waits: the hidden state of the last token that is known is not.
            self.session.chain_hidden()?;
            match self.session.predict(&[token], outputs) {
                Ok(()) => {}
                Err(e) if e.status() == Status::ContextFull => break,
                Err(e) => return Err(e.context("the layer that drafts")),
            }
        }
        Ok(())
    }
}
