//! The heads that make a few numbers of a whole sequence.

use super::Maker;
use crate::arch::{Classifier, ClassifierActivation, Labels};
use crate::error::{Error, Result};
use crate::operations::Activation;

/// As keys name a mean of all hidden states, and the first of them.
const MEAN: usize = 1;
const FIRST: usize = 2;

impl Maker<'_> {
    pub(super) fn classifier(&mut self) -> Result<Option<Classifier>> {
        let embedding = self.shape.embedding;
        let [inner, outer] = ["cls.weight", "cls.output.weight"].map(|name| self.tensors.rows(name));
        let pooling = self.keys.number("classifier.pooling_type")?;
        if self.architecture.head || inner == 0 && outer == 0 {
            return Ok(None);
        }
        let of_its_own = self.architecture.own_classifier;
        let mean = match pooling {
            0 => of_its_own,
            MEAN => true,
            FIRST => false,
            other => return Err(Error::unsupported(format!("classifier.pooling_type {other} is not built in"))),
        };
        let activation =
            if of_its_own { ClassifierActivation::Of(Activation::Gelu) } else { ClassifierActivation::Tanh };
        let (mut width, mut norm) = (embedding, None);
        let dense = match inner {
            0 => None,
            rows => {
                width = rows;
                let linear = self.tensors.linear("cls", embedding, rows)?;
                if self.tensors.has("cls.norm.weight") {
                    norm = Some(self.norm("cls.norm", rows)?);
                }
                Some((linear, activation))
            }
        };
        let output = if outer > 0 { Some(self.tensors.linear("cls.output", width, outer)?) } else { None };
        let outputs = if outer > 0 { outer } else { width };
        if outputs > embedding {
            return Err(Error::unsupported(format!(
                "a classifier of {outputs} outputs; as many as an embedding has elements, {embedding}, are built in"
            )));
        }
        Ok(Some(Classifier { mean, inner: dense, norm, output, outputs }))
    }

    /// The rows of the head whose probabilities are the score of a decoder.
    pub(super) fn labels(&mut self) -> Result<Option<Labels>> {
        const NAME: &str = "cls.output.weight";
        let (embedding, count) = (self.shape.embedding, self.tensors.rows(NAME));
        if !self.architecture.labels || count == 0 {
            return Ok(None);
        }
        if count > embedding {
            return Err(Error::unsupported(format!(
                "{count} labels; as many as an embedding has elements, {embedding}, are built in"
            )));
        }
        let weights = self.tensors.vector_of(NAME, &[embedding as u64, count as u64])?;
        Ok(Some(Labels { weights, count }))
    }
}
