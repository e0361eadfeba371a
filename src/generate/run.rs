//! The generation loop.

use std::ops::ControlFlow;
use std::time::Instant;

use super::{Generation, Sampler};
use crate::error::{Error, Result, Status};
use crate::exec::Candidates;
use crate::model::{Logits, Model};
use crate::session::{See, Session};
use crate::text::Tokenizer;

/// What generation needs of a session.
pub trait Sequence {
    /// One pass over `tokens`. Ends with `Cancelled` when [`Sequence::interrupts`] is, or becomes, other than `since`.
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()>;
    /// Logits of the last position of the last pass.
    fn last_logits(&self) -> Result<&[f32]>;
    /// Lends memory to choose by them in.
    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R;
    /// How often the sequence had been interrupted when its last call ended: what came since is meant for this one.
    fn interrupts(&self) -> u64;
    /// The run has ended: interrupts that came until now are used up.
    fn settle(&self);
    /// Tokens it has taken in.
    fn position(&self) -> usize;
    /// Tokens it can take in yet.
    fn room(&self) -> usize;
    /// Bytes that the last pass read from storage.
    fn pass_bytes(&self) -> u64;
    /// Whether a pass over more tokens may need more of the weights.
    fn has_experts(&self) -> bool {
        false
    }

    /// Makes room for `more` tokens by dropping the oldest after the first `keep`. Returns the tokens to take in again, and how
    /// many were dropped.
    fn drop_oldest(&mut self, keep: usize, more: usize) -> Result<(Vec<i32>, usize)> {
        let _ = (keep, more);
        Err(Error::new(Status::ContextFull, "this sequence cannot drop tokens"))
    }
    /// The time, by which passes are measured.
    fn now(&self) -> Instant {
        Instant::now()
    }
    /// Prepares for passes of drafts, of up to `rows` tokens; returns of how many there can be: 0 where there are none.
    fn begin_drafts(&mut self, rows: usize, since: u64) -> usize {
        let _ = (rows, since);
        0
    }
    /// No more passes of drafts come.
    fn end_drafts(&mut self) {}
    /// As [`Sequence::forward`], with the logits of every position. [`Sequence::keep_drafts`] follows.
    fn forward_drafts(&mut self, tokens: &[i32], since: u64) -> Result<()> {
        let _ = (tokens, since);
        Err(no_drafts())
    }
    /// Logits of a position of the last pass, which was one of drafts.
    fn draft_logits(&self, row: usize) -> Result<&[f32]> {
        let _ = row;
        Err(no_drafts())
    }
    /// Keeps the first `count` tokens of the last pass, which was one of drafts, and the logits of the last of them.
    /// Returns how many of the pass the sequence has now: `count`, or none where it cannot go back to one in the middle.
    fn keep_drafts(&mut self, count: usize) -> Result<usize> {
        let _ = count;
        Err(no_drafts())
    }
    /// Prepares for passes whose hidden states `predictor` reads. Returns how many of its tokens can be chosen; 0: there is no
    /// room for hidden states.
    fn begin_hidden(&mut self, predictor: &Model, since: u64) -> Result<usize> {
        let _ = (predictor, since);
        Err(no_drafts())
    }
    /// No more passes of that kind come.
    fn end_hidden(&mut self) {}
    /// As [`Sequence::forward`] with the last logits; `see` gets each chunk of the pass when it has been taken in.
    fn forward_seen(&mut self, tokens: &[i32], since: u64, see: &mut See) -> Result<()> {
        let _ = (tokens, since, see);
        Err(no_drafts())
    }
    /// Hidden states of the first `count` tokens of the last pass, which was one of drafts.
    fn draft_hidden(&self, count: usize) -> Result<&[f32]> {
        let _ = count;
        Err(no_drafts())
    }
}

fn no_drafts() -> Error {
    Error::unsupported("this sequence, or its vocabulary, takes no drafts")
}

impl Sequence for Session {
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
        if !self.model().description().causal {
            return Err(Error::unsupported("tokens of this model see those after them: it generates no text"));
        }
        self.forward_since(tokens, logits, since)
    }

    fn last_logits(&self) -> Result<&[f32]> {
        let rows = self.logit_rows();
        let last = rows.checked_sub(1).ok_or_else(|| Error::invalid("the session has no logits: run a pass first"))?;
        Ok(self.of_tokens(self.logits(last)?))
    }

    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
        choose(&mut self.candidates().lock())
    }

    fn interrupts(&self) -> u64 {
        self.interrupt_handle().settled()
    }

    fn settle(&self) {
        self.interrupt_handle().settle();
        self.pause();
    }

    fn position(&self) -> usize {
        Session::position(self)
    }

    fn room(&self) -> usize {
        self.context_length() - Session::position(self)
    }

    fn pass_bytes(&self) -> u64 {
        Session::pass_bytes(self)
    }

    fn has_experts(&self) -> bool {
        self.model().description().experts().is_some()
    }

    fn drop_oldest(&mut self, keep: usize, more: usize) -> Result<(Vec<i32>, usize)> {
        Session::drop_oldest(self, keep, more)
    }

    fn begin_drafts(&mut self, rows: usize, since: u64) -> usize {
        Session::begin_drafts(self, rows, since)
    }

    fn end_drafts(&mut self) {
        Session::end_drafts(self);
    }

    fn forward_drafts(&mut self, tokens: &[i32], since: u64) -> Result<()> {
        Session::forward_drafts(self, tokens, since)
    }

    fn draft_logits(&self, row: usize) -> Result<&[f32]> {
        Ok(self.of_tokens(self.logits(row)?))
    }

    fn keep_drafts(&mut self, count: usize) -> Result<usize> {
        Session::keep_drafts(self, count)
    }

    fn begin_hidden(&mut self, predictor: &Model, since: u64) -> Result<usize> {
        let sizes = |model: &Model| (model.description().shape.embedding, model.description().shape.vocab);
        let (own, other) = (sizes(self.model()), sizes(predictor));
        if own != other {
            return Err(Error::invalid(format!(
                "the layer that drafts reads hidden states of {} elements and has {} tokens; this model has {} and {}",
                other.0, other.1, own.0, own.1
            )));
        }
        let tokens = self.model().tokenizer().map_or(own.1, Tokenizer::vocab_size).min(own.1);
        Ok(if Session::begin_hidden(self, since) { tokens } else { 0 })
    }

    fn end_hidden(&mut self) {
        Session::end_hidden(self);
    }

    fn forward_seen(&mut self, tokens: &[i32], since: u64, see: &mut See) -> Result<()> {
        Session::forward_seen(self, tokens, since, see)
    }

    fn draft_hidden(&self, count: usize) -> Result<&[f32]> {
        Session::draft_hidden(self, count)
    }
}

/// What generation needs of a tokeniser.
pub trait Vocabulary {
    /// Fails where the tokens of `other` are not these.
    fn check_same(&self, other: &Tokenizer) -> Result<()> {
        let _ = other;
        Err(no_drafts())
    }
    fn is_end(&self, token: i32) -> Result<bool>;
    /// Appends the bytes of `token` in a text that goes on, which may be part of a character. Control tokens have bytes
    /// only with `control`.
    fn append_bytes(&self, token: i32, control: bool, out: &mut Vec<u8>) -> Result<()>;
}

impl Session {
    /// Rows of the embedding beyond the vocabulary are padding: they are no tokens, and never chosen.
    fn of_tokens<'a>(&self, row: &'a [f32]) -> &'a [f32] {
        let tokens = self.model().tokenizer().map_or(row.len(), Tokenizer::vocab_size);
        &row[..tokens.min(row.len())]
    }
}

impl Vocabulary for Tokenizer {
    fn check_same(&self, other: &Tokenizer) -> Result<()> {
        if self.has_tokens_of(other) {
            return Ok(());
        }
        let message = format!(
            "the model that drafts has another vocabulary: {} tokens where this model has {}, or other texts of them",
            other.vocab_size(),
            self.vocab_size()
        );
        Err(Error::invalid(message))
    }

    fn is_end(&self, token: i32) -> Result<bool> {
        Tokenizer::is_end(self, token)
    }

    fn append_bytes(&self, token: i32, control: bool, out: &mut Vec<u8>) -> Result<()> {
        self.piece(token, control, out)
    }
}

/// Runs `prompt`, then samples up to `max_tokens` tokens, feeding each back. An empty prompt goes on from the logits of
/// the last pass, which must have left some.
///
/// `on_token` gets each sampled token and the text that became whole with it: whole UTF-8 characters, empty where the
/// token ends inside one. It ends, with success, after an end token, after `max_tokens`, or when `on_token` breaks. An
/// end token is not passed on, except with the replacement character where it cuts a character short.
///
/// The last token sampled has not been fed to the sequence; all before it have. To go on where it stopped, make that
/// token the first of the next prompt.
///
/// The prompt and the sampled tokens are added to what the sampler's repeat penalty looks at.
///
/// # Errors
/// Those of the passes: `ContextFull` leaves the sequence as far as it got, `Cancelled` as it was before the pass it
/// ended. `Cancelled` also when the interrupt came between two passes, or before the call and after the one before it.
pub fn generate<S: Sequence, V: Vocabulary>(
    sequence: &mut S,
    vocabulary: &V,
    sampler: &mut Sampler,
    prompt: &[i32],
    max_tokens: usize,
    on_token: impl FnMut(i32, &str) -> ControlFlow<()>,
) -> Result<()> {
    let mut generation = Generation::new();
    generation.set_max_tokens(max_tokens);
    generation.run(sequence, vocabulary, sampler, prompt, on_token)
}

#[cfg(test)]
mod tests;
