//! One sequence: its key-value cache, its position, and its passes over the schedule.

mod batch;
mod checkpoint;
mod drafted;
mod pass;
mod results;
mod state;
mod submit;
#[cfg(all(test, feature = "prefetch"))]
mod tests;

use std::sync::Arc;

use crate::error::{Error, Result, Status};
use crate::exec::memory::{KvType, MemoryLayout, SequenceMemory};
use crate::exec::{Candidates, Member, session_bytes};
use crate::model::{Logits, Model, Outputs};
use crate::sys::sync::Mutex;
use checkpoint::Marks;
use results::{Results, Spare, Wide};

pub use crate::weights::Interrupt;
pub use batch::{BatchInput, forward_batch};
pub use checkpoint::Checkpoint;
pub use submit::SharedSession;

/// A sequence of tokens and what the model remembers of it. Of a model whose tokens see each other both ways, each pass is
/// a sequence of its own, taken in from position 0, and nothing is remembered. Takes its cache from the model's budget and gives it back
/// when dropped; keeps the model alive.
pub struct Session {
    model: Arc<Model>,
    context: usize,
    position: usize,
    memory: SequenceMemory,
    /// Of the checkpoints that can be restored.
    marks: Marks,
    /// What the last pass left.
    results: Results,
    spare: Spare,
    /// For passes over drafted tokens.
    wide: Option<Wide>,
    /// Tokens of the last pass, where it was one of drafts that are not kept yet.
    drafted: usize,
    /// Lent to the sampler that chooses by the last pass's logits.
    candidates: Mutex<Candidates>,
    interrupt: Arc<Interrupt>,
    /// Its place in sweeps.
    member: Arc<Member>,
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
        let layout = MemoryLayout::new(model.description(), context, model.chunk_length(), model.kv_type())?;
        let reserved = session_bytes(model.description(), &layout);
        model.engine().reserve(reserved).map_err(|e| e.context(format!("a session of {context} tokens")))?;
        let memory = SequenceMemory::new(layout).map_err(|e| {
            model.engine().release(reserved);
            e.context(format!("a session of {context} tokens"))
        })?;
        let interrupt = Interrupt::new(model.engine());
        let member = Member::new(&interrupt).inspect_err(|_| model.engine().release(reserved))?;
        Ok(Session {
            model: model.clone(),
            context,
            position: 0,
            memory,
            marks: Marks::default(),
            results: Results::none(model),
            spare: Spare::default(),
            wide: None,
            drafted: 0,
            candidates: Mutex::default(),
            interrupt,
            member,
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

    /// The part of it that its keys and values take.
    pub fn cache_bytes(&self) -> u64 {
        self.memory.cell_bytes()
    }

    /// How its keys and values are kept: as the model's options say, where the model remembers any.
    pub fn kv_type(&self) -> KvType {
        if self.model.description().causal { self.model.kv_type() } else { KvType::F16 }
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

    /// The session's next pass does not follow soon: sweeps that others share do not wait for it. [`Session::forward`] is
    /// followed by another one soon, as far as sweeps know.
    pub fn pause(&self) {
        self.model.loaded().forget_member(&self.member);
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

    /// Bytes that the last pass read from storage.
    pub fn pass_bytes(&self) -> u64 {
        self.pass_bytes
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

    /// Memory to choose a token in by [`Session::logits`], a part of what the session takes from the budget. It is lent to
    /// one sampler at a time.
    pub(crate) fn candidates(&self) -> &Mutex<Candidates> {
        &self.candidates
    }

    /// Forgets all tokens after the first `tokens`. What the last pass left is forgotten with them.
    ///
    /// A layer with a sliding window keeps little more than the window. The tokens of the last chunk can always be
    /// forgotten, and all tokens; what lies between may need a [`Session::checkpoint`]. A recurrent layer keeps the state
    /// after the last token alone: without a checkpoint all tokens can be forgotten, but not some.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: there are not as many, or a layer has dropped what the next token would see; the error says
    /// what can stay. Nothing has changed then.
    pub fn truncate(&mut self, tokens: usize) -> Result<()> {
        if tokens > self.position {
            return Err(Error::invalid(format!("{tokens} tokens are to stay of {}", self.position)));
        }
        if tokens < self.position {
            self.memory.truncate(tokens)?;
            self.forget_results();
            self.marks.lose_beyond(tokens);
        }
        self.position = tokens;
        Ok(())
    }

    /// The fewest tokens, beside none, that [`Session::truncate`] can leave now.
    pub fn fewest_tokens(&self) -> usize {
        self.memory.fewest_tokens(self.position)
    }

    fn forget_results(&mut self) {
        self.spare.keep(&mut self.results);
        self.results = Results::none(&self.model);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.model.loaded().forget_member(&self.member);
        self.results = Results::none(&self.model);
        self.wide = None;
        *self.candidates.get_mut() = Candidates::default();
        // Where this fails, the memory is given back a moment after it was accounted for.
        let _ = self.memory.free();
        self.model.engine().release(self.reserved);
    }
}
