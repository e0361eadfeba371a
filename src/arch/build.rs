//! What the descriptions of all families are made with: tensors by name and shape. The order in which a pass uses them is
//! the program's.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Described, Description, Linear, VectorId};
use crate::error::{Error, Result};
use crate::gguf::{Directory, Tensor};
use crate::quant::Format;
use crate::weights::{Builder, MatrixId};

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

/// A layer has no more small tensors than these.
const RECENT: usize = 32;

/// Collects a model's tensors while it is described.
pub struct Tensors<'a> {
    directory: &'a Directory,
    starts: Vec<u64>,
    matrices: Builder,
    vectors: Vec<VectorSource>,
    used: HashSet<&'a str>,
    unused: HashSet<&'a str>,
}

impl<'a> Tensors<'a> {
    pub fn new(directory: &'a Directory, starts: Vec<u64>) -> Self {
        let matrices = Builder::new(starts.clone());
        Tensors { directory, starts, matrices, vectors: Vec::new(), used: HashSet::new(), unused: HashSet::new() }
    }

    fn take(&mut self, name: &str, dims: &[u64]) -> Result<&'a Tensor> {
        let tensor = self.directory.require_tensor(name, dims)?;
        self.used.insert(&tensor.name);
        Ok(tensor)
    }

    pub fn has(&self, name: &str) -> bool {
        self.directory.tensor(name).is_some()
    }

    /// The outputs of a matrix, where no key tells; 0: there is no such matrix.
    pub fn rows(&self, name: &str) -> usize {
        self.directory.tensor(name).map_or(0, |tensor| tensor.dims[1] as usize)
    }

    /// Tensors that some files have and no pass reads.
    pub fn leave(&mut self, names: &[String]) {
        self.unused.extend(names.iter().filter_map(|name| Some(self.directory.tensor(name)?.name.as_str())));
    }

    /// A matrix with `rows` outputs and `columns` inputs.
    pub fn matrix(&mut self, name: &str, columns: usize, rows: usize) -> Result<MatrixId> {
        let tensor = self.take(name, &[columns as u64, rows as u64])?;
        self.matrices.add(&name.into(), tensor, 0, rows as u64)
    }

    /// One matrix for each of `heads`, end to end.
    pub fn heads(&mut self, name: &str, columns: usize, rows: usize, heads: usize) -> Result<MatrixId> {
        let tensor = self.take(name, &[columns as u64, rows as u64, heads as u64])?;
        self.matrices.add(&name.into(), tensor, 0, (rows * heads) as u64)
    }

    /// A matrix that rows are taken from singly.
    pub fn table(&mut self, name: &str, columns: usize, rows: usize) -> Result<MatrixId> {
        let tensor = self.take(name, &[columns as u64, rows as u64])?;
        self.matrices.add(&name.into(), tensor, 0, rows as u64)
    }

    /// The matrices of `count` experts, given by name, columns and rows, each expert's after the other's: gate, up projection
    /// and down projection, or the last two; that of the first, with the three vectors of scales and of biases where there are
    /// some.
    #[allow(clippy::type_complexity)] // What is made of the three matrices, named where it goes.
    pub fn experts(
        &mut self,
        layer: u32,
        count: usize,
        parts: &[(&str, usize, usize)],
    ) -> Result<(MatrixId, [Option<VectorId>; 3], [Option<VectorId>; 3])> {
        let mut tensors = Vec::with_capacity(3);
        let (mut scales, mut biases) = ([None; 3], [None; 3]);
        for (i, &(name, columns, rows)) in (3 - parts.len()..).zip(parts) {
            let weight = format!("{name}.weight");
            let tensor = self.take(&weight, &[columns as u64, rows as u64, count as u64])?;
            tensors.push((Arc::from(weight), tensor, rows as u64));
            scales[i] = self.optional_vector(&format!("{name}.scale"), count)?;
            let name = format!("{name}.bias");
            if self.has(&name) {
                biases[i] = Some(self.vector_of(&name, &[rows as u64, count as u64])?);
            }
        }
        let parts = tensors.iter().map(|(name, tensor, rows)| (name, *tensor, 0, *rows, *rows));
        let first = self.expert_matrices(layer, count, parts)?;
        Ok((first, scales, biases))
    }

    /// The same where each expert's gate and up projection are one matrix, in this order, of `length` rows each.
    #[allow(clippy::type_complexity)] // As above.
    pub fn fused_experts(
        &mut self,
        layer: u32,
        count: usize,
        [width, length]: [usize; 2],
        [gate_up, down]: [String; 2],
    ) -> Result<(MatrixId, [Option<VectorId>; 3], [Option<VectorId>; 3])> {
        let dims = [(&gate_up, width, length.saturating_mul(2)), (&down, length, width)];
        let [gate_up_tensor, down_tensor] =
            dims.map(|(name, columns, rows)| (format!("{name}.weight"), [columns as u64, rows as u64, count as u64]));
        let names = [&gate_up_tensor.0, &down_tensor.0].map(|name| Arc::from(name.as_str()));
        let [gate_up_tensor, down_tensor] =
            [self.take(&gate_up_tensor.0, &gate_up_tensor.1)?, self.take(&down_tensor.0, &down_tensor.1)?];
        let both = self.optional_vector(&format!("{gate_up}.scale"), count)?;
        let scales = [both, both, self.optional_vector(&format!("{down}.scale"), count)?];
        let (length, width) = (length as u64, width as u64);
        let parts = [
            (&names[0], gate_up_tensor, 0, length, 2 * length),
            (&names[0], gate_up_tensor, length, length, 2 * length),
            (&names[1], down_tensor, 0, width, width),
        ];
        Ok((self.expert_matrices(layer, count, parts.into_iter())?, scales, [None; 3]))
    }

    /// The matrices of each expert after the other's; that of the first. Of a tensor, the first row that is the first
    /// expert's, how many are, and how many further those of the next are.
    fn expert_matrices<'t>(
        &mut self,
        layer: u32,
        count: usize,
        parts: impl Iterator<Item = (&'t Arc<str>, &'t Tensor, u64, u64, u64)> + Clone,
    ) -> Result<MatrixId> {
        let mut first = None;
        for expert in 0..count as u64 {
            for (name, tensor, row, rows, stride) in parts.clone() {
                let id = self.matrices.add(name, tensor, expert * stride + row, rows)?;
                first.get_or_insert(id);
            }
        }
        first.ok_or_else(|| Error::format(format!("layer {layer} has no experts")))
    }

    /// `NAME.weight`, and `NAME.scale` and `NAME.bias` where there are any.
    pub fn linear(&mut self, name: &str, columns: usize, rows: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), columns, rows)?;
        let scale = self.optional_vector(&format!("{name}.scale"), 1)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows)?;
        Ok(Linear { weight, scale, bias })
    }

    /// The parts of `NAME.weight`, with `NAME.scale`, and of `NAME.bias` where there are any, that `rows` rows each make up.
    pub fn fused<const N: usize>(&mut self, name: &str, columns: usize, rows: [usize; N]) -> Result<[Linear; N]> {
        let total = rows.iter().sum::<usize>() as u64;
        let weight = self.take(&format!("{name}.weight"), &[columns as u64, total])?;
        let scale = self.optional_vector(&format!("{name}.scale"), 1)?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.take(&bias, &[total])?) } else { None };
        let (mut first, label) = (0, Arc::from(weight.name.as_str()));
        let mut parts = Vec::with_capacity(N);
        for count in rows {
            let weight = self.matrices.add(&label, weight, first as u64, count as u64)?;
            let bias = bias.map(|tensor| self.stretch(tensor, first, count)).transpose()?;
            parts.push(Linear { weight, scale, bias });
            first += count;
        }
        Ok(parts.try_into().expect("a part was made for each number of rows"))
    }

    pub fn vector(&mut self, name: &str, elements: usize) -> Result<VectorId> {
        self.vector_of(name, &[elements as u64])
    }

    /// A small tensor of these dimensions, its elements one after the other.
    pub fn vector_of(&mut self, name: &str, dims: &[u64]) -> Result<VectorId> {
        let tensor = self.take(name, dims)?;
        // A tensor is no larger than its file.
        self.stretch(tensor, 0, dims.iter().product::<u64>() as usize)
    }

    /// A small tensor in the first of these forms that it has.
    pub fn vector_in(&mut self, name: &str, forms: &[&[u64]]) -> Result<VectorId> {
        let found = forms.iter().find(|dims| self.directory.require_tensor(name, dims).is_ok());
        self.vector_of(name, found.unwrap_or(&forms[0]))
    }

    /// The first row of a small matrix, where there is one.
    pub fn optional_first_row(&mut self, name: &str, columns: usize) -> Result<Option<VectorId>> {
        let Some(tensor) = self.directory.tensor(name) else { return Ok(None) };
        let tensor = self.take(name, &[columns as u64, tensor.dims[1]])?;
        self.stretch(tensor, 0, columns).map(Some)
    }

    pub fn optional_vector(&mut self, name: &str, elements: usize) -> Result<Option<VectorId>> {
        if self.has(name) { self.vector(name, elements).map(Some) } else { Ok(None) }
    }

    /// Elements `first` to `first + elements` of a small tensor; what a layer names twice is read once.
    fn stretch(&mut self, tensor: &Tensor, first: usize, elements: usize) -> Result<VectorId> {
        let bytes = |n: usize| {
            let cut = || Error::unsupported(format!("tensor {:?} is cut within a block", tensor.name));
            tensor.format.row_bytes(n).map(|n| n as u64).ok_or_else(cut)
        };
        let source = VectorSource {
            name: tensor.name.clone(),
            format: tensor.format,
            elements,
            file: tensor.file,
            offset: self.starts[tensor.file as usize] + tensor.offset + bytes(first)?,
            bytes: bytes(elements)?,
        };
        let same = |v: &VectorSource| (v.file, v.offset, v.elements) == (source.file, source.offset, elements);
        let recent = self.vectors.len().saturating_sub(RECENT);
        if let Some(at) = self.vectors[recent..].iter().position(same) {
            return Ok(VectorId((recent + at) as u32));
        }
        self.vectors.push(source);
        Ok(VectorId(self.vectors.len() as u32 - 1))
    }

    /// Whether a tensor says by what the inputs of a matrix in use are divided before they are rounded to four bits. Products
    /// here take inputs of eight bits with scales of their own, as llama.cpp's do, which leaves these unread too.
    fn is_input_scale(&self, name: &str) -> bool {
        let matrix = name.strip_suffix(".input_scale");
        matrix.is_some_and(|matrix| self.used.contains(format!("{matrix}.weight").as_str()))
    }

    /// Ends the description. A tensor that was not used means that the file computes something else than described:
    /// leaving it out would give wrong results without a word.
    /// `is_other` tells by its name whether a tensor belongs to a part of the file that this description is not of.
    pub fn finish(self, description: Description, is_other: impl Fn(&str) -> bool) -> Result<Described> {
        let (mut unread_tensors, mut unread_bytes) = (0, 0);
        for stray in self.directory.tensors().iter().filter(|t| !self.used.contains(t.name.as_str())) {
            let unread = self.unused.contains(stray.name.as_str()) || self.is_input_scale(&stray.name);
            if unread || is_other(&stray.name) {
                unread_tensors += 1;
                unread_bytes += stray.bytes;
                continue;
            }
            let architecture = self.directory.metadata.require_str("general.architecture")?;
            return Err(Error::unsupported(format!(
                "tensor {:?} has no place in architecture {architecture:?} as it is built in",
                stray.name
            )));
        }
        let Tensors { matrices, vectors, .. } = self;
        Ok(Described { description, matrices, vectors, unread_tensors, unread_bytes })
    }
}

/// Whether a tensor belongs to a part of the file that a pass over text does not run: towers for pictures and sound, and
/// blocks that predict further tokens.
pub fn is_of_another_part(name: &str, predicting: &Range<usize>) -> bool {
    let block = |rest: &str| rest.split_once('.').and_then(|(block, _)| block.parse::<usize>().ok());
    ["v.", "a.", "mm.", "nextn."].iter().any(|prefix| name.starts_with(prefix))
        || name.strip_prefix("blk.").and_then(block).is_some_and(|block| predicting.contains(&block))
}

#[cfg(test)]
mod tests {
    use super::is_of_another_part;

    #[test]
    fn tensors_of_other_parts_are_told_by_their_names() {
        for other in ["v.blk.0.attn_q.weight", "mm.0.bias", "a.conv1d.weight", "blk.3.nextn.eh_proj.weight"] {
            assert!(is_of_another_part(other, &(3..4)), "{other}");
        }
        for own in ["blk.2.attn_q.weight", "output.weight", "vocab.weight", "blk.x.y", "blk.3", "blk.4.attn_q.weight"] {
            assert!(!is_of_another_part(own, &(3..4)), "{own}");
        }
    }
}
