//! The course of a pass: chunk after chunk, each in a sweep that other sessions' passes may share. Whatever fails, the
//! session is as it was before.

use std::mem::{replace, swap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Session;
use super::results::Results;
use crate::error::{Error, Result};
use crate::exec::memory::{Held, Snapshot};
use crate::exec::{Embeddings, Outcome};
use crate::model::Outputs;
use crate::sys::sync::thread;

/// A pass that has begun.
pub(super) struct Pass {
    outputs: Outputs,
    fresh: Results,
    /// The interrupt's count from which it is ended.
    since: u64,
    /// The session's position before it.
    before: usize,
    /// What its first chunks may drop of windows.
    undo: Option<Snapshot>,
    tokens: usize,
    taken: usize,
    /// Whether its chunks may be cut as it suits a sweep.
    divisible: bool,
}

impl Session {
    /// Runs a pass, after [`Session::check`] and [`Results::claim`].
    pub(super) fn pass(&mut self, tokens: &[i32], outputs: Outputs, fresh: Results, since: u64) -> Result<()> {
        self.bring(tokens)?;
        let mut pass = self.begin_pass(outputs, fresh, since)?;
        let (model, own) = (self.model.clone(), [self.member.clone()]);
        loop {
            self.lend(&mut pass);
            let advance = || {
                model.loaded().enter(&own, Some(thread::current().id()));
                model.loaded().advance(&own, || false)
            };
            let advanced = catch_unwind(AssertUnwindSafe(advance));
            self.take_back(&mut pass);
            let outcome = own[0].take_outcome();
            match (advanced, outcome) {
                (Ok(Ok(())), Some(outcome)) => {
                    assert!(!outcome.fault, "a fault inside the library ended the sweep that this pass shared");
                    if self.absorb(&mut pass, outcome)? {
                        return Ok(());
                    }
                }
                (Ok(result), _) => {
                    self.undo(&mut pass);
                    return result;
                }
                (Err(payload), _) => {
                    self.undo(&mut pass);
                    resume_unwind(payload);
                }
            }
        }
    }

    /// Keeps the tokens of the next pass, in memory that is a part of what the session takes from the budget.
    pub(super) fn bring(&self, tokens: &[i32]) -> Result<()> {
        self.member.prepare(|loan| {
            loan.tokens.clear();
            if loan.tokens.try_reserve_exact(tokens.len()).is_err() {
                return Err(Error::out_of_memory(format!("{} tokens", tokens.len())));
            }
            loan.tokens.extend_from_slice(tokens);
            Ok(())
        })
    }

    /// Begins a pass over the tokens that were brought, after [`Session::check`] and [`Results::claim`]: nothing has changed
    /// where this fails.
    pub(super) fn begin_pass(&mut self, outputs: Outputs, mut fresh: Results, since: u64) -> Result<Pass> {
        self.model.engine().check_process()?;
        self.pass_bytes = 0;
        fresh.allocate(&mut self.spare, &self.interrupt, since)?;
        let tokens = self.member.prepare(|loan| loan.tokens.len());
        let start = self.start();
        let chunk = self.model.chunk_length();
        // A first chunk leaves what the position before it needs; later ones may drop it from a layer with a window.
        let drops = self.memory.may_drop(start, tokens);
        let long = tokens > chunk;
        let undo = if long && drops { Some(self.memory.snapshot(Held::Windows, start)?) } else { None };
        let whole = !self.model.description().causal || outputs.embeddings == Embeddings::Score;
        let chunks = tokens.div_ceil(chunk) as u64;
        let bytes = self.model.engine().sweep_bytes().saturating_mul(chunks);
        self.interrupt.progress().begin(tokens as u64, bytes);
        let before = replace(&mut self.position, start);
        let divisible = !whole && (long || !drops);
        Ok(Pass { outputs, fresh, since, before, undo, tokens, taken: 0, divisible })
    }

    /// Lends the session's memory and the pass's rows to the next sweep.
    pub(super) fn lend(&mut self, pass: &mut Pass) {
        let Session { member, memory, position, context, .. } = self;
        member.lend(pass.since, |loan| {
            swap(&mut loan.memory, memory);
            swap(&mut loan.logits, &mut pass.fresh.logits);
            swap(&mut loan.embeddings, &mut pass.fresh.embeddings);
            (loan.position, loan.context) = (*position, *context);
            (loan.taken, loan.divisible, loan.outputs) = (pass.taken, pass.divisible, pass.outputs);
        });
    }

    /// Has them back.
    pub(super) fn take_back(&mut self, pass: &mut Pass) {
        let Session { member, memory, .. } = self;
        member.give_back(|loan| {
            swap(&mut loan.memory, memory);
            swap(&mut loan.logits, &mut pass.fresh.logits);
            swap(&mut loan.embeddings, &mut pass.fresh.embeddings);
        });
    }

    /// Goes on after a sweep, with everything back; whether the pass is complete.
    ///
    /// # Errors
    /// That of the sweep: the session is as it was before the pass.
    pub(super) fn absorb(&mut self, pass: &mut Pass, outcome: Outcome) -> Result<bool> {
        self.pass_bytes += outcome.read_bytes;
        let count = outcome.tokens.inspect_err(|_| self.undo(pass))?;
        let sweep_bytes = self.model.engine().sweep_bytes();
        self.position += count;
        pass.taken += count;
        let left = (pass.tokens - pass.taken).div_ceil(self.model.chunk_length()) as u64;
        self.interrupt.progress().swept(count as u64, sweep_bytes, sweep_bytes.saturating_mul(left));
        self.memory.end_chunk();
        if left > 0 {
            return Ok(false);
        }
        self.memory.end_pass(true);
        pass.fresh.finish(pass.outputs, pass.tokens);
        self.spare.keep(&mut self.results);
        self.results = replace(&mut pass.fresh, Results::none(&self.model));
        self.model.engine().count_pass(pass.tokens);
        Ok(true)
    }

    /// Leaves the session as it was before the pass.
    pub(super) fn undo(&mut self, pass: &mut Pass) {
        self.position = pass.before;
        self.memory.end_pass(false);
        match &pass.undo {
            Some(undo) => self.memory.put_back(undo),
            None if pass.before == 0 => self.memory.clear(),
            None => {}
        }
        self.spare.keep(&mut pass.fresh);
    }
}
