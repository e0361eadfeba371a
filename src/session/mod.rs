//! One sequence: its key-value cache, its position, and its passes over the schedule.

mod pass;
mod replace;
mod results;
mod scratch;
mod state;
mod submit;
#[cfg(all(test, feature = "prefetch"))]
mod tests;

use std::sync::Arc;

use crate::arch::Description;
use crate::error::{Error, Result, Status};
use crate::model::{Logits, Model, Outputs};
use crate::weights::frames::Memory;
use results::{Results, Spare};

pub use crate::weights::Interrupt;
pub use scratch::{Layout, Scratch};
pub use submit::{Passes, SharedSession};

/// A sequence of tokens and what the model remembers of it. Of a model whose tokens see each other both ways, each pass is
/// a sequence of its own, taken in from position 0, and nothing is remembered. Takes its cache from the model's budget and gives it back
/// when dropped; keeps the model alive.
pub struct Session {
    model: Arc<Model>,
    context: usize,
    position: usize,
    /// Half floats. Layer by layer, or one for all where nothing is remembered: keys [kv_heads][context][key_dim], then values [kv_heads][context][value_dim].
    cache: Memory,
    /// What the last pass left.
    results: Results,
    spare: Spare,
    interrupt: Arc<Interrupt>,
    /// What was taken from the budget, beside results of more than one row.
    reserved: u64,
    /// Read from storage while the sweeps of the last pass ran.
    pass_bytes: u64,
}

impl Session {
    /// A session with room for `context_length` tokens; 0: the default of the model's options.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: more tokens than the model has learned positions for, or takes in at once; `MEMORY_BUDGET`: its
    /// cache does not fit; `OUT_OF_MEMORY`: the system has none.
    pub fn new(model: &Arc<Model>, context_length: u32) -> Result<Session> {
        let context = if context_length == 0 { model.default_context() } else { context_length as usize };
        if let Some(table) = model.description().positions {
            let learned = model.engine().schedule().matrix(table).rows;
            if context > learned {
                return Err(Error::invalid(format!(
                    "a session of {context} tokens: the model has learned {learned} positions"
                )));
            }
        }
        if !model.description().causal && context > model.chunk_length() {
            return Err(Error::invalid(format!(
                "a session of {context} tokens: this model takes a sequence at once, for which its options' context length leaves room for {}",
                model.chunk_length()
            )));
        }
        let reserved = session_bytes(model.description(), context);
        model.engine().reserve(reserved).map_err(|e| e.context(format!("a session of {context} tokens")))?;
        let cache = match usize::try_from(cache_bytes(model.description(), context)).map(Memory::new) {
            Ok(Ok(cache)) => cache,
            _ => {
                model.engine().release(reserved);
                return Err(Error::out_of_memory(format!("{reserved} bytes for a session of {context} tokens")));
            }
        };
        let interrupt = Interrupt::new(model.engine());
        Ok(Session {
            model: model.clone(),
            context,
            position: 0,
            cache,
            results: Results::none(model),
            spare: Spare::default(),
            interrupt,
            reserved,
            pass_bytes: 0,
        })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens the session has taken in.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Tokens it has room for.
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Bytes that the session has taken from the model's budget, beside rows of results after the first.
    pub fn memory_bytes(&self) -> u64 {
        self.reserved
    }

    /// Ends passes of this session from any thread: the one that runs, or the next one where none runs. One that was submitted and waits for its turn ends when that comes;
    /// [`SharedSession::interrupt`] ends it at once.
    pub fn interrupt_handle(&self) -> Arc<Interrupt> {
        self.interrupt.clone()
    }

    /// Takes `tokens` in, in one or more sweeps, and leaves the logits and embeddings asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: no tokens, or one outside the vocabulary; `UNSUPPORTED`: logits of a model without an output
    /// head; `CONTEXT_FULL`; `IO`; `CANCELLED`; `MEMORY_BUDGET`: no room for the rows of all positions. The session is
    /// then as it was before. An interrupt that was raised since the last call ended is `CANCELLED` too.
    pub fn forward(&mut self, tokens: &[i32], outputs: impl Into<Outputs>) -> Result<()> {
        let result = self.forward_since(tokens, outputs, self.interrupt.settled());
        self.interrupt.settle();
        result
    }

    /// As [`Session::forward`]; an interrupt raised since the count was `since` ends it too.
    pub fn forward_since(&mut self, tokens: &[i32], outputs: impl Into<Outputs>, since: u64) -> Result<()> {
        let outputs = outputs.into();
        self.check(tokens, outputs)?;
        let results = Results::claim(&self.model, outputs, tokens.len())?;
        self.pass(tokens, outputs, results, since)
    }

    /// Where the next pass begins.
    fn start(&self) -> usize {
        if self.model.description().causal { self.position } else { 0 }
    }

    /// Whether a pass over `tokens` could begin now.
    fn check(&self, tokens: &[i32], outputs: Outputs) -> Result<()> {
        if self.model.description().head.is_none() && outputs.logits != Logits::None {
            return Err(Error::unsupported("the model has no output head: its passes leave embeddings, but no logits"));
        }
        let start = self.start();
        let vocab = self.model.description().shape.vocab;
        if tokens.is_empty() {
            return Err(Error::invalid("a pass needs at least one token"));
        }
        if let Some((i, &token)) = tokens.iter().enumerate().find(|(_, t)| !(0..vocab as i64).contains(&i64::from(**t)))
        {
            return Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {vocab}")));
        }
        if tokens.len() > self.context - start {
            return Err(Error::new(
                Status::ContextFull,
                format!("{} tokens after {start} exceed the context of {}", tokens.len(), self.context),
            ));
        }
        Ok(())
    }

    /// The pass itself, after [`Session::check`] and [`Results::claim`].
    fn pass(&mut self, tokens: &[i32], outputs: Outputs, mut fresh: Results, since: u64) -> Result<()> {
        self.pass_bytes = 0;
        fresh.allocate(&mut self.spare, &self.interrupt, since)?;
        let start = self.start();
        let before = std::mem::replace(&mut self.position, start);
        let chunk = self.model.chunk_length();
        for (i, part) in tokens.chunks(chunk).enumerate() {
            let wanted = fresh.of_chunk(outputs, i * chunk, part.len(), tokens.len());
            if let Err(e) = self.sweep(part, wanted, since) {
                self.position = before;
                self.spare.keep(&mut fresh);
                return Err(e);
            }
            self.position += part.len();
        }
        fresh.finish(outputs, tokens.len());
        self.spare.keep(&mut self.results);
        self.results = fresh;
        self.model.engine().count_pass(tokens.len());
        Ok(())
    }

    /// Rows of logits that the last pass left.
    pub fn logit_rows(&self) -> usize {
        self.results.logits.count
    }

    /// Rows of embeddings that the last pass left.
    pub fn embedding_rows(&self) -> usize {
        self.results.embeddings.count
    }

    /// Logits of a position of the last pass: row 0 is the first that was asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the last pass left no such row.
    pub fn logits(&self, row: usize) -> Result<&[f32]> {
        self.results.logits.row(row, "logits")
    }

    /// An embedding that the last pass left, not normalised: row 0 is the first that was asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the last pass left no such row.
    pub fn embeddings(&self, row: usize) -> Result<&[f32]> {
        self.results.embeddings.row(row, "embeddings")
    }

    /// Forgets all tokens after the first `tokens`. What the last pass left is forgotten with them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: there are not as many.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.position {
            return Err(Error::invalid(format!("{tokens} tokens are to stay of {}", self.position)));
        }
        if tokens < self.position {
            self.spare.keep(&mut self.results);
            self.results = Results::none(&self.model);
        }
        self.position = tokens;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.results = Results::none(&self.model);
        self.cache = match Memory::new(0) {
            Ok(nothing) => nothing,
            // The cache is then given back a moment after it was accounted for.
            Err(_) => return self.model.engine().release(self.reserved),
        };
        self.model.engine().release(self.reserved);
    }
}

/// Bytes a session with room for `context` tokens takes from the budget: its cache, a row of logits and an embedding,
/// twice because those of the last pass stay until the next one has succeeded, and the tokens of a submitted pass.
pub fn session_bytes(d: &Description, context: usize) -> u64 {
    let tokens = (context as u64).saturating_mul(size_of::<i32>() as u64);
    cache_bytes(d, context).saturating_add(2 * results::row_bytes(d)).saturating_add(tokens)
}

fn cache_bytes(d: &Description, context: usize) -> u64 {
    let per_token = d.shape.kv_heads as u64 * (d.shape.key_dim + d.shape.value_dim) as u64 * 2;
    (d.cached_layers() as u64).saturating_mul(per_token).saturating_mul(context as u64)
}
