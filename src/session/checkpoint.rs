//! Points of a sequence that it can go back to, where truncation cannot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use super::Session;
use crate::error::{Error, Result};
use crate::exec::memory::{Held, Snapshot};
use crate::model::Model;

/// A position of a session, with what layers with a sliding window and recurrent layers had there. Its memory is taken from
/// the model's budget and given back when it is dropped: of a layer with a window at most `window - 1` positions, of a
/// recurrent one its state, and nothing where there are no such layers. It keeps the model alive, not the session.
pub struct Checkpoint {
    model: Arc<Model>,
    mark: Arc<Mark>,
    /// None once it is being dropped.
    snapshot: Option<Snapshot>,
    reserved: u64,
}

struct Mark {
    position: usize,
    /// The session has forgotten tokens before the position.
    lost: AtomicBool,
}

/// The marks of a session's checkpoints.
#[derive(Default)]
pub struct Marks(Vec<Weak<Mark>>);

impl Marks {
    /// Checkpoints after the first `tokens` tokens cannot be restored any more.
    pub fn lose_beyond(&mut self, tokens: usize) {
        self.0.retain(|mark| match mark.upgrade() {
            Some(mark) if mark.position > tokens => {
                mark.lost.store(true, Ordering::Relaxed);
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    /// No checkpoint can be restored any more.
    pub fn lose_all(&mut self) {
        for mark in std::mem::take(&mut self.0).iter().filter_map(Weak::upgrade) {
            mark.lost.store(true, Ordering::Relaxed);
        }
    }

    fn add(&mut self, mark: &Arc<Mark>) -> Result<()> {
        self.0.retain(|mark| mark.strong_count() > 0);
        self.0.try_reserve(1).map_err(|_| Error::out_of_memory("a checkpoint"))?;
        self.0.push(Arc::downgrade(mark));
        Ok(())
    }

    fn has(&self, mark: &Arc<Mark>) -> bool {
        self.0.iter().any(|own| std::ptr::eq(own.as_ptr(), Arc::as_ptr(mark)))
    }
}

impl Checkpoint {
    /// Tokens the session had taken in.
    pub fn position(&self) -> usize {
        self.mark.position
    }

    /// What it takes from the budget.
    pub fn bytes(&self) -> u64 {
        self.reserved
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.snapshot = None;
        self.model.engine().release(self.reserved);
    }
}

impl Session {
    /// Keeps what [`Session::truncate`] may not be able to go back to, so that [`Session::restore`] can.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`; `OUT_OF_MEMORY`; `UNSUPPORTED`: the model remembers nothing.
    pub fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.remembers()?;
        let reserved = self.memory.snapshot_bytes(Held::Droppable, self.position) + size_of::<Mark>() as u64;
        self.model.engine().reserve(reserved).map_err(|e| e.context("a checkpoint"))?;
        let mark = Arc::new(Mark { position: self.position, lost: AtomicBool::new(false) });
        // From here on dropping it gives back what was reserved.
        let mut checkpoint = Checkpoint { model: self.model.clone(), mark, snapshot: None, reserved };
        checkpoint.snapshot = Some(self.memory.snapshot(Held::Droppable, self.position)?);
        self.marks.add(&checkpoint.mark)?;
        Ok(checkpoint)
    }

    /// Goes back to a checkpoint of this session. What the last pass left is forgotten, as in truncation; checkpoints of
    /// later positions cannot be restored any more, this one can.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the checkpoint is another session's, or the session was truncated to fewer tokens, or loaded,
    /// since it was made. Nothing has changed then.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let tokens = checkpoint.mark.position;
        if checkpoint.mark.lost.load(Ordering::Relaxed) {
            return Err(Error::invalid(format!(
                "the checkpoint of {tokens} tokens is lost: the session has gone back to fewer since, or was loaded"
            )));
        }
        let Some(snapshot) = checkpoint.snapshot.as_ref().filter(|_| self.marks.has(&checkpoint.mark)) else {
            return Err(Error::invalid("the checkpoint was made of another session"));
        };
        if tokens < self.position {
            self.forget_results();
            self.marks.lose_beyond(tokens);
            self.memory.put_back(snapshot);
        }
        self.tokens.truncate(tokens);
        self.position = tokens;
        Ok(())
    }
}
