//! What a pass leaves: rows of logits and of embeddings, and how they are accounted for.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::{Embeddings, Logits, Outputs, Rows};
use crate::kernel::vector;
use crate::model::Model;
use crate::weights::Interrupt;
use crate::weights::frames::Memory;

/// What a pass leaves. That of the last pass stays until the next one has succeeded. One row of each kind is part of the
/// session's memory; more are taken from the budget, and given back when this is dropped.
pub struct Results {
    model: Arc<Model>,
    pub logits: Rows,
    pub embeddings: Rows,
    /// What was taken from the budget.
    claimed: u64,
}

/// The memory of single rows that have been replaced, for the next pass.
#[derive(Default)]
pub struct Spare {
    logits: Option<Memory>,
    embeddings: Option<Memory>,
}

impl Results {
    pub fn none(model: &Arc<Model>) -> Results {
        Results { model: model.clone(), logits: Rows::new(0, 0), embeddings: Rows::new(0, 0), claimed: 0 }
    }

    /// Takes memory for the results of a pass over `tokens` tokens from the budget, and waits for nothing.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`: there is no room; `UNSUPPORTED`: a score of a model without a classifier.
    pub fn claim(model: &Arc<Model>, outputs: Outputs, tokens: usize) -> Result<Results> {
        let s = model.description().shape;
        let logits = match outputs.logits {
            Logits::Last => 1,
            Logits::All => tokens,
            Logits::None => 0,
        };
        let embeddings = match outputs.embeddings {
            Embeddings::None => 0,
            Embeddings::All => tokens,
            Embeddings::Last | Embeddings::Mean | Embeddings::First | Embeddings::Score => 1,
        };
        let width = match (outputs.embeddings, model.description().score_len()) {
            (Embeddings::Score, Some(len)) => len,
            (Embeddings::Score, None) => {
                return Err(Error::unsupported("the model has no classifier, so that its passes leave no score"));
            }
            _ => s.embedding,
        };
        let (logits, embeddings) = (Rows::new(logits, s.vocab), Rows::new(embeddings, width));
        let extra = extra_bytes(&logits, &embeddings);
        if extra > 0 {
            let rows = || format!("{} rows of logits and {} of embeddings", logits.count, embeddings.count);
            model.engine().claim(extra).map_err(|e| e.context(rows()))?;
        }
        Ok(Results { model: model.clone(), logits, embeddings, claimed: extra })
    }

    /// Makes the rows, when what was claimed is free. `interrupt`, raised since its count was `since`, ends the waiting.
    pub fn allocate(&mut self, spare: &mut Spare, interrupt: &Interrupt, since: u64) -> Result<()> {
        if self.claimed > 0 {
            self.model.engine().await_room(interrupt, since)?;
        }
        self.logits.allocate(&mut spare.logits, "logits")?;
        self.embeddings.allocate(&mut spare.embeddings, "embeddings")?;
        // A sum may begin here, in a row that was used before.
        self.embeddings.all_mut().fill(0.0);
        Ok(())
    }

    /// After all chunks, `tokens` tokens in all: a sum becomes the mean.
    pub fn finish(&mut self, outputs: Outputs, tokens: usize) {
        if outputs.embeddings == Embeddings::Mean {
            vector::scale(self.model.isa(), self.embeddings.all_mut(), 1.0 / tokens as f32);
        }
    }
}

impl Drop for Results {
    fn drop(&mut self) {
        drop((self.logits.take(), self.embeddings.take()));
        if self.claimed > 0 {
            self.model.engine().release(self.claimed);
        }
    }
}

/// Memory for rows of logits that several passes use one after the other.
pub struct Wide {
    model: Arc<Model>,
    /// Lent to results, or None.
    memory: Option<Memory>,
    rows: usize,
    claimed: u64,
}

impl Wide {
    /// Takes memory for `rows` rows from the budget, and waits until it is free.
    ///
    /// # Errors
    /// `MEMORY_BUDGET`; `OUT_OF_MEMORY`; `CANCELLED`.
    pub fn claim(model: &Arc<Model>, rows: usize, interrupt: &Interrupt, since: u64) -> Result<Wide> {
        let bytes = model.description().shape.vocab.saturating_mul(4).saturating_mul(rows);
        model.engine().claim(bytes as u64)?;
        // From here on dropping it gives back what was claimed.
        let mut wide = Wide { model: model.clone(), memory: None, rows, claimed: bytes as u64 };
        model.engine().await_room(interrupt, since)?;
        wide.memory = Some(Memory::of(bytes as u64, format_args!("{rows} rows of logits"))?);
        Ok(wide)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Results of a pass over `tokens` tokens, at most as many as there are rows, in this memory.
    pub fn results(&mut self, tokens: usize) -> Results {
        let mut results = Results::none(&self.model);
        let width = self.model.description().shape.vocab;
        results.logits = Rows::in_memory(self.memory.take(), tokens, width);
        results
    }

    pub fn take_back(&mut self, mut results: Results) {
        self.memory = results.logits.take();
    }
}

impl Drop for Wide {
    fn drop(&mut self) {
        self.memory = None;
        self.model.engine().release(self.claimed);
    }
}

impl Spare {
    /// Takes the memory of single rows out of results that are dropped next.
    pub fn keep(&mut self, results: &mut Results) {
        for (spare, rows) in [(&mut self.logits, &mut results.logits), (&mut self.embeddings, &mut results.embeddings)]
        {
            if rows.count == 1 {
                *spare = rows.take();
            }
        }
    }
}

/// What is taken from the budget beside a row of each kind.
fn extra_bytes(logits: &Rows, embeddings: &Rows) -> u64 {
    logits.extra_bytes().saturating_add(embeddings.extra_bytes())
}
