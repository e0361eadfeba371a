//! What the descriptions of all families are made with: tensors by name and shape, in the order of their use.

use std::collections::HashSet;

use super::{Described, Description, Linear, VectorId};
use crate::error::{Error, Result};
use crate::gguf::{Directory, Tensor};
use crate::quant::Format;
use crate::weights::{Builder, MatrixId, Page};

/// Where a small tensor lies.
#[derive(Clone, Debug)]
pub struct VectorSource {
    pub name: String,
    pub format: Format,
    pub elements: usize,
    pub file: u32,
    /// Absolute offset in its file.
    pub offset: u64,
    pub bytes: u64,
}

/// Collects a model's tensors while it is described.
pub struct Tensors<'a> {
    directory: &'a Directory,
    starts: Vec<u64>,
    schedule: Builder,
    vectors: Vec<VectorSource>,
    used: HashSet<&'a str>,
}

impl<'a> Tensors<'a> {
    pub fn new(directory: &'a Directory, starts: Vec<u64>) -> Self {
        let schedule = Builder::new(starts.clone());
        Tensors { directory, starts, schedule, vectors: Vec::new(), used: HashSet::new() }
    }

    fn take(&mut self, name: &str, dims: &[u64]) -> Result<&'a Tensor> {
        let tensor = self.directory.require_tensor(name, dims)?;
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    pub fn has(&self, name: &str) -> bool {
        self.directory.tensor(name).is_some()
    }

    /// A matrix with `rows` outputs and `columns` inputs, the next of its layer.
    pub fn matrix(&mut self, layer: u32, name: &str, columns: usize, rows: usize) -> Result<MatrixId> {
        let tensor = self.take(name, &[columns as u64, rows as u64])?;
        self.schedule.add(layer, tensor)
    }

    /// A matrix that rows are taken from singly.
    pub fn table(&mut self, name: &str, columns: usize, rows: usize) -> Result<MatrixId> {
        self.matrix(Page::TABLE, name, columns, rows)
    }

    /// `NAME.weight`, and `NAME.bias` where there is one.
    pub fn linear(&mut self, layer: u32, name: &str, columns: usize, rows: usize) -> Result<Linear> {
        let weight = self.matrix(layer, &format!("{name}.weight"), columns, rows)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { weight, bias })
    }

    pub fn vector(&mut self, name: &str, elements: usize) -> Result<VectorId> {
        let tensor = self.take(name, &[elements as u64])?;
        let id = VectorId(self.vectors.len() as u32);
        self.vectors.push(VectorSource {
            name: tensor.name.clone(),
            format: tensor.format,
            elements,
            file: tensor.file,
            offset: self.starts[tensor.file as usize] + tensor.offset,
            bytes: tensor.bytes,
        });
        Ok(id)
    }

    pub fn optional_vector(&mut self, name: &str, elements: usize) -> Result<Option<VectorId>> {
        if self.has(name) { self.vector(name, elements).map(Some) } else { Ok(None) }
    }

    /// Ends the description. A tensor that was not used means that the file computes something else than described:
    /// leaving it out would give wrong results without a word.
    pub fn finish(self, description: Description, alignment: u64) -> Result<Described> {
        if let Some(stray) = self.directory.tensors().iter().find(|t| !self.used.contains(t.name.as_str())) {
            let architecture = self.directory.metadata.require_str("general.architecture")?;
            return Err(Error::unsupported(format!(
                "tensor {:?} has no place in architecture {architecture:?} as it is built in",
                stray.name
            )));
        }
        let layers = description.layers.len() as u32;
        let schedule = self.schedule.finish(layers, description.head, alignment)?;
        Ok(Described { description, schedule, vectors: self.vectors })
    }
}
