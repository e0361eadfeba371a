//! The tokens that a session has taken in: what tells how much of another list of tokens it has already, and what is to be
//! taken in again when the oldest are dropped.

use super::Session;
use crate::error::{Error, Result, Status};
use crate::sys::heap;

/// The tokens of a sequence, in memory that is a part of what the session takes from the budget.
pub struct Tokens {
    all: Vec<i32>,
    /// False after a state without tokens was loaded, until the session is empty again.
    known: bool,
}

impl Tokens {
    /// With room for `context` of them.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn new(context: usize) -> Result<Tokens> {
        let mut all = Vec::new();
        heap::reserve(&mut all, context, "the tokens of a session")?;
        Ok(Tokens { all, known: true })
    }

    /// None: they are not known.
    pub fn get(&self) -> Option<&[i32]> {
        self.known.then_some(&self.all)
    }

    /// A pass has taken them in.
    pub fn append(&mut self, tokens: &[i32]) {
        if self.known {
            self.all.extend_from_slice(tokens);
        }
    }

    /// The first `tokens` are left.
    pub fn truncate(&mut self, tokens: usize) {
        self.all.truncate(tokens);
        self.known |= tokens == 0;
    }

    /// Those of another sequence, for which there is room. None: they are not known.
    pub fn replace(&mut self, tokens: Option<&[i32]>) {
        self.all.clear();
        self.known = tokens.is_some();
        self.append(tokens.unwrap_or_default());
    }

    /// Places for `count` tokens, for which there is room, in place of those that are there.
    pub fn places(&mut self, count: usize) -> &mut [i32] {
        self.all.clear();
        self.all.resize(count, 0);
        self.known = true;
        &mut self.all
    }
}

impl Session {
    /// The tokens that the session has taken in; None where it does not know them: after loading a state of an older form,
    /// which has none.
    pub fn tokens(&self) -> Option<&[i32]> {
        self.tokens.get()
    }

    /// How many tokens at the beginning of `tokens` the session has taken in, whether or not it could go back to them; 0 where
    /// it does not know its tokens.
    pub fn common_prefix(&self, tokens: &[i32]) -> usize {
        let own = self.tokens().unwrap_or_default();
        own.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// Keeps what the session has in common with the beginning of `tokens`, and forgets the rest. Returns how many tokens
    /// stay: the next pass is to take in those after them. That is fewer than all, so that a pass can leave the logits of the
    /// last one, unless the session has taken in just these tokens and still has its logits.
    ///
    /// Where the session cannot go back to as many tokens ([`Session::truncate`]), none stay. So a recurrent model keeps all
    /// it has taken in, or nothing; a [`Session::checkpoint`] no farther than [`Session::common_prefix`] is the way back there.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the model remembers nothing.
    pub fn reuse_prefix(&mut self, tokens: &[i32]) -> Result<usize> {
        self.remembers()?;
        let common = self.common_prefix(tokens);
        if common == self.position && common == tokens.len() && self.logit_rows() > 0 {
            return Ok(common);
        }
        let wanted = common.min(tokens.len().saturating_sub(1));
        let kept = if wanted >= self.fewest_tokens() { wanted } else { 0 };
        self.truncate(kept)?;
        Ok(kept)
    }

    /// Makes room for `more` tokens: of those after the first `keep`, the older half is dropped, or as many as are needed where
    /// those are more. Returns the tokens that are to be taken in again, as they stand at other positions from now on, and how
    /// many were dropped.
    ///
    /// # Errors
    /// `CONTEXT_FULL`: too many are to be kept, or the session does not know its tokens; `OUT_OF_MEMORY`. Nothing has changed
    /// then.
    pub(crate) fn drop_oldest(&mut self, keep: usize, more: usize) -> Result<(Vec<i32>, usize)> {
        let (position, context) = (self.position, self.context);
        let full =
            |why| Err(Error::new(Status::ContextFull, format!("the context of {context} tokens is full: {why}")));
        let needed = (position + more).saturating_sub(context);
        let droppable = position.saturating_sub(keep);
        if needed > droppable {
            return full(format!(
                "{more} more need {needed} to be dropped, and of {position} the first {keep} are kept"
            ));
        }
        let Some(own) = self.tokens() else {
            return full("none can be dropped, as a state of an older form did not tell which tokens it has".into());
        };
        let dropped = needed.max(droppable / 2);
        // Where layers cannot go back as far, all are taken in again.
        let start = if keep >= self.fewest_tokens() { keep } else { 0 };
        let mut again = Vec::new();
        heap::reserve(&mut again, position - dropped - start + more, "tokens to be taken in again")?;
        again.extend_from_slice(&own[start..keep]);
        again.extend_from_slice(&own[keep + dropped..]);
        self.truncate(start)?;
        Ok((again, dropped))
    }
}
