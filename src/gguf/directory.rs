//! What a model's files say together: metadata, and every tensor by name.

use super::{Metadata, Tensor};
use crate::error::{Error, Result};
use crate::order;

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    /// Length of the file in bytes.
    pub bytes: u64,
}

/// The metadata and tensors of a model, whether in one file or split.
#[derive(Clone, Debug)]
pub struct Directory {
    pub metadata: Metadata,
    /// The files, in the order that [`Tensor::file`] counts them.
    pub parts: Vec<Part>,
    tensors: Vec<Tensor>,
    /// Indices of `tensors`, sorted by name: a lookup without a second copy of the names.
    by_name: Vec<u32>,
}

impl Directory {
    /// Fails with `FORMAT` where two tensors have one name.
    pub(super) fn new(metadata: Metadata, parts: Vec<Part>, tensors: Vec<Tensor>) -> Result<Self> {
        let count = u32::try_from(tensors.len()).map_err(|_| Error::format("more than 2^32 tensors"))?;
        let mut by_name: Vec<u32> = (0..count).collect();
        order::sort(&mut by_name, &mut |a, b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
        for pair in by_name.windows(2) {
            let [a, b] = [&tensors[pair[0] as usize], &tensors[pair[1] as usize]];
            if a.name == b.name {
                let [first, second] = [&parts[a.file as usize].name, &parts[b.file as usize].name];
                return Err(Error::format(format!("tensor {:?} is in {first} and again in {second}", a.name)));
            }
        }
        Ok(Directory { metadata, parts, tensors, by_name })
    }

    /// All tensors, in file order, the files of a split one after the other.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// How many files the model has.
    pub fn file_count(&self) -> usize {
        self.parts.len()
    }

    /// Length of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Bytes of all tensors together.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }

    /// Bytes of memory held at present: metadata, tensors, their index.
    pub fn memory_bytes(&self) -> u64 {
        let tables = self.tensors.capacity() * size_of::<Tensor>()
            + self.by_name.capacity() * size_of::<u32>()
            + self.parts.capacity() * size_of::<Part>();
        let names = self.tensors.iter().map(|tensor| tensor.name.capacity()).sum::<usize>()
            + self.parts.iter().map(|part| part.name.capacity()).sum::<usize>();
        self.metadata.memory_bytes() + (tables + names) as u64
    }

    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let at = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[at] as usize])
    }

    /// The tensor of this name, which must have these dimensions (absent ones are 1).
    ///
    /// # Errors
    /// `FORMAT`: it is missing, or has another shape; the message gives both.
    pub fn require_tensor(&self, name: &str, dims: &[u64]) -> Result<&Tensor> {
        let tensor = self.tensor(name).ok_or_else(|| Error::format(format!("tensor {name:?} is missing")))?;
        let expected = (0..4.max(dims.len())).map(|i| dims.get(i).copied().unwrap_or(1));
        let found = (0..4.max(dims.len())).map(|i| tensor.dims.get(i).copied().unwrap_or(1));
        if expected.eq(found) {
            return Ok(tensor);
        }
        Err(Error::format(format!("tensor {name:?}: expected shape {dims:?}, found {:?}", tensor.shape())))
    }
}
