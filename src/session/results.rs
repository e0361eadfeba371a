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
}

/// The memory of single rows that have been replaced, for the next pass.
#[derive(Default)]
pub struct Spare {
    logits: Option<Memory>,
    embeddings: Option<Memory>,
}

impl Results {
    pub fn none(model: &Arc<Model>) -> Results {
        Results { model: model.clone(), logits: Rows::new(0, 0), embeddings: Rows::new(0, 0) }
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
        let width = match (outputs.embeddings, model.description().classifier) {
            (Embeddings::Score, Some(classifier)) => classifier.outputs,
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
        Ok(Results { model: model.clone(), logits, embeddings })
    }

    /// Makes the rows, when what was claimed is free. `interrupt`, raised since its count was `since`, ends the waiting.
    pub fn allocate(&mut self, spare: &mut Spare, interrupt: &Interrupt, since: u64) -> Result<()> {
        if extra_bytes(&self.logits, &self.embeddings) > 0 {
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
        let extra = extra_bytes(&self.logits, &self.embeddings);
        drop((self.logits.take(), self.embeddings.take()));
        if extra > 0 {
            self.model.engine().release(extra);
        }
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
