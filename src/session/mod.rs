//! One sequence: its key-value cache, its position, and its passes over the schedule.

mod pass;
mod replace;
mod scratch;
mod state;
mod submit;
#[cfg(all(test, feature = "prefetch"))]
mod tests;

use std::sync::Arc;

use crate::arch::Description;
use crate::error::{Error, Result, Status};
use crate::model::{Logits, Model};
use crate::weights::frames::Memory;

pub use crate::weights::Interrupt;
pub use scratch::{Layout, Scratch};
pub use submit::{Passes, SharedSession};

/// A sequence of tokens and what the model remembers of it. Takes its cache from the model's budget and gives it back
/// when dropped; keeps the model alive.
pub struct Session {
    model: Arc<Model>,
    context: usize,
    position: usize,
    /// Half floats. Layer by layer: keys [kv_heads][context][key_dim], then values [kv_heads][context][value_dim].
    cache: Memory,
    /// Rows of the last pass that left logits.
    logits: LogitRows,
    /// The memory of logits that have been replaced, for the next pass.
    spare: Vec<f32>,
    interrupt: Arc<Interrupt>,
    /// What was taken from the budget, beside logits of more than one row.
    reserved: u64,
    /// Read from storage while the sweeps of the last pass ran.
    pass_bytes: u64,
}

/// Logits of a pass. Those of the last pass stay until the next one has succeeded. One row is part of the session's
/// memory; more are taken from the budget, and given back when this is dropped.
struct LogitRows {
    model: Arc<Model>,
    values: Vec<f32>,
    rows: usize,
}

impl LogitRows {
    fn none(model: &Arc<Model>) -> LogitRows {
        LogitRows { model: model.clone(), values: Vec::new(), rows: 0 }
    }

    /// Takes memory for `rows` rows from the budget, and waits for nothing.
    fn claim(model: &Arc<Model>, rows: usize) -> Result<LogitRows> {
        let extra = extra_logit_bytes(model.description(), rows);
        if extra > 0 {
            model.engine().claim(extra).map_err(|e| e.context(format!("logits of {rows} positions")))?;
        }
        Ok(LogitRows { model: model.clone(), values: Vec::new(), rows })
    }

    /// Makes the rows, when what was claimed is free. `interrupt`, raised since its count was `since`, ends the waiting.
    fn allocate(&mut self, interrupt: &Interrupt, since: u64) -> Result<()> {
        let d = self.model.description();
        if extra_logit_bytes(d, self.rows) > 0 {
            self.model.engine().await_room(interrupt, since)?;
        }
        let values = self.rows.saturating_mul(d.shape.vocab);
        if self.values.try_reserve_exact(values.saturating_sub(self.values.len())).is_err() {
            return Err(Error::out_of_memory(format!("logits of {} positions", self.rows)));
        }
        self.values.resize(values, 0.0);
        Ok(())
    }
}

impl Drop for LogitRows {
    fn drop(&mut self) {
        self.values = Vec::new();
        let extra = extra_logit_bytes(self.model.description(), self.rows);
        if extra > 0 {
            self.model.engine().release(extra);
        }
    }
}

impl Session {
    /// A session with room for `context_length` tokens; 0: the default of the model's options.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: its cache does not fit; `OUT_OF_MEMORY`: the system has none.
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
        let logits = LogitRows::none(model);
        Ok(Session {
            model: model.clone(),
            context,
            position: 0,
            cache,
            logits,
            spare: Vec::new(),
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

    /// Ends passes of this session from any thread. One that was submitted and waits for its turn ends when that comes;
    /// [`SharedSession::interrupt`] ends it at once.
    pub fn interrupt_handle(&self) -> Arc<Interrupt> {
        self.interrupt.clone()
    }

    /// Takes `tokens` in, in one or more sweeps, and leaves logits of the positions asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: no tokens, or one outside the vocabulary; `CONTEXT_FULL`; `IO`; `CANCELLED`;
    /// `MEMORY_BUDGET`: no room for the logits of all positions. The session is then as it was before.
    pub fn forward(&mut self, tokens: &[i32], logits: Logits) -> Result<()> {
        self.forward_since(tokens, logits, self.interrupt.count())
    }

    /// As [`Session::forward`]; an interrupt raised since the count was `since` ends it too.
    pub fn forward_since(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
        self.check(tokens)?;
        let rows = self.claim_logits(tokens, logits)?;
        self.pass(tokens, logits, rows, since)
    }

    /// Whether a pass over `tokens` could begin now.
    fn check(&self, tokens: &[i32]) -> Result<()> {
        let vocab = self.model.description().shape.vocab;
        if tokens.is_empty() {
            return Err(Error::invalid("a pass needs at least one token"));
        }
        if let Some((i, &token)) = tokens.iter().enumerate().find(|(_, t)| !(0..vocab as i64).contains(&i64::from(**t)))
        {
            return Err(Error::invalid(format!("token {i} is {token}; the vocabulary has {vocab}")));
        }
        if tokens.len() > self.context - self.position {
            return Err(Error::new(
                Status::ContextFull,
                format!("{} tokens after {} exceed the context of {}", tokens.len(), self.position, self.context),
            ));
        }
        Ok(())
    }

    /// The memory that a pass over `tokens` needs for its logits.
    fn claim_logits(&self, tokens: &[i32], logits: Logits) -> Result<LogitRows> {
        let rows = match logits {
            Logits::Last => 1,
            Logits::All => tokens.len(),
            Logits::None => 0,
        };
        LogitRows::claim(&self.model, rows)
    }

    /// The pass itself, after [`Session::check`] and [`Session::claim_logits`].
    fn pass(&mut self, tokens: &[i32], logits: Logits, mut fresh: LogitRows, since: u64) -> Result<()> {
        let vocab = self.model.description().shape.vocab;
        self.pass_bytes = 0;
        fresh.values = std::mem::take(&mut self.spare);
        fresh.allocate(&self.interrupt, since)?;
        let start = self.position;
        let chunk = self.model.chunk_length();
        let last = tokens.len().div_ceil(chunk) - 1;
        for (i, part) in tokens.chunks(chunk).enumerate() {
            let wanted = match logits {
                Logits::All => part.len(),
                Logits::Last if i == last => 1,
                _ => 0,
            };
            let filled = if logits == Logits::All { i * chunk } else { 0 };
            let out = &mut fresh.values[filled * vocab..(filled + wanted) * vocab];
            if let Err(e) = self.sweep(part, out, since) {
                self.position = start;
                self.retire(fresh);
                return Err(e);
            }
            self.position += part.len();
        }
        let before = std::mem::replace(&mut self.logits, fresh);
        self.retire(before);
        self.model.engine().count_pass(tokens.len());
        Ok(())
    }

    /// Keeps the memory of one row for the next pass.
    fn retire(&mut self, mut rows: LogitRows) {
        if rows.rows == 1 {
            self.spare = std::mem::take(&mut rows.values);
        }
    }

    /// Rows of logits that the last pass left.
    pub fn logit_rows(&self) -> usize {
        self.logits.rows
    }

    /// Logits of a position of the last pass: row 0 is the first that was asked for.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the last pass left no such row.
    pub fn logits(&self, row: usize) -> Result<&[f32]> {
        let vocab = self.model.description().shape.vocab;
        if row >= self.logits.rows {
            return Err(Error::invalid(format!("row {row} of {} rows of logits", self.logits.rows)));
        }
        Ok(&self.logits.values[row * vocab..(row + 1) * vocab])
    }

    /// Forgets all tokens after the first `tokens`. The logits of the last pass are forgotten with them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: there are not as many.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.position {
            return Err(Error::invalid(format!("{tokens} tokens are to stay of {}", self.position)));
        }
        if tokens < self.position {
            let before = std::mem::replace(&mut self.logits, LogitRows::none(&self.model));
            self.retire(before);
        }
        self.position = tokens;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.logits = LogitRows::none(&self.model);
        self.cache = match Memory::new(0) {
            Ok(nothing) => nothing,
            // The cache is then given back a moment after it was accounted for.
            Err(_) => return self.model.engine().release(self.reserved),
        };
        self.model.engine().release(self.reserved);
    }
}

/// Bytes a session with room for `context` tokens takes from the budget: its cache, logits of one position, twice because
/// those of the last pass stay until the next one has succeeded, and the tokens of a submitted pass.
pub fn session_bytes(d: &Description, context: usize) -> u64 {
    let tokens = (context as u64).saturating_mul(size_of::<i32>() as u64);
    cache_bytes(d, context).saturating_add(2 * row_bytes(d)).saturating_add(tokens)
}

fn cache_bytes(d: &Description, context: usize) -> u64 {
    let per_token = d.shape.kv_heads as u64 * (d.shape.key_dim + d.shape.value_dim) as u64 * 2;
    (d.layers.len() as u64).saturating_mul(per_token).saturating_mul(context as u64)
}

fn row_bytes(d: &Description) -> u64 {
    d.shape.vocab as u64 * 4
}

fn extra_logit_bytes(d: &Description, rows: usize) -> u64 {
    row_bytes(d).saturating_mul((rows as u64).saturating_sub(1))
}
