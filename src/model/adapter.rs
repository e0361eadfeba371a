//! Adapters: low-rank changes of a model's matrices, from files of their own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Model;
use crate::error::{Error, Result};
use crate::exec::adapter::{self, Adaptable, AdapterWeights, Factor, Pair};
use crate::gguf::{self, Directory, Tensor};
use crate::sys::heap;
use crate::weights::frames::Memory;
use crate::weights::source::{self, FileSource, Source};

/// What metadata and directory of an adapter may take.
const METADATA_LIMIT: u64 = 64 << 20;
/// What memory is for, in errors.
const WHAT: &str = "the matrices of an adapter";
/// Where tensors begin in memory.
const ALIGNMENT: u64 = 64;

/// A low-rank adapter (LoRA) of a model, in memory: what its matrices A and B make of an input is added to the products of
/// the model's own, as `Session::set_adapters` says. Takes its memory from the model's budget, gives it back when dropped,
/// and keeps the model alive.
pub struct Adapter {
    model: Arc<Model>,
    weights: Arc<AdapterWeights>,
    reserved: u64,
}

impl Adapter {
    /// Reads an adapter of the model from a GGUF file, as `convert_lora_to_gguf.py` of llama.cpp makes it. The matrices stay
    /// in the formats of the file.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it is no adapter, or one of another model; `FORMAT`; `UNSUPPORTED`: it changes what adapters
    /// cannot change here: experts, norms; `MEMORY_BUDGET`: it does not fit; `IO`, `OUT_OF_MEMORY`. The message
    /// names the tensor.
    pub fn open(model: &Arc<Model>, path: &Path) -> Result<Arc<Adapter>> {
        let name = path.display().to_string();
        let first = source::open_path(path)?;
        let one = |part: &str| Err(Error::unsupported(format!("{part}: an adapter is one file")));
        let (directory, files) = gguf::open_split(&name, first, METADATA_LIMIT, one)?;
        Self::read(model, &directory, &files[0]).map_err(|e| e.context(name))
    }

    fn read(model: &Arc<Model>, directory: &Directory, file: &FileSource) -> Result<Arc<Adapter>> {
        let alpha = check_metadata(model, directory)?;
        let mut plan = Plan::default();
        for (tensor, [a, b]) in pairs(directory)? {
            plan.add(model, &tensor, a, b, alpha)?;
        }
        if plan.pairs.is_empty() {
            return Err(Error::invalid("the adapter has no matrices"));
        }
        let reserved = Memory::taken_by(plan.bytes) + adapter::table_bytes(plan.pairs.len());
        model.engine().reserve(reserved).map_err(|e| e.context("the adapter"))?;
        let weights = plan.load(file).inspect_err(|_| model.engine().release(reserved))?;
        Ok(Arc::new(Adapter { model: model.clone(), weights: Arc::new(weights), reserved }))
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Bytes that it takes from the model's budget.
    pub fn memory_bytes(&self) -> u64 {
        self.reserved
    }

    pub(crate) fn weights(&self) -> &Arc<AdapterWeights> {
        &self.weights
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        // The matrices first: the memory is free when others may have it.
        if let Some(weights) = Arc::get_mut(&mut self.weights) {
            weights.clear();
        }
        self.model.engine().release(self.reserved);
    }
}

/// Checks that the file is an adapter of the model; its alpha, 0 where products are not scaled by the rank.
fn check_metadata(model: &Model, directory: &Directory) -> Result<f32> {
    let metadata = &directory.metadata;
    for (key, wanted) in [("general.type", "adapter"), ("adapter.type", "lora")] {
        let found = metadata.get_str(key)?.unwrap_or("nothing");
        if found != wanted {
            return Err(Error::invalid(format!(
                "not a LoRA adapter: metadata key {key:?} is {found:?}, not {wanted:?}"
            )));
        }
    }
    let own = model.metadata("general.architecture").unwrap_or_default();
    let other = metadata.require_str("general.architecture")?;
    if other != own {
        return Err(Error::invalid(format!("an adapter of the architecture {other:?}; the model's is {own:?}")));
    }
    if metadata.get("adapter.alora.invocation_tokens").is_some() {
        return Err(Error::unsupported("an adapter that is active after its invocation tokens (aLoRA) alone"));
    }
    let alpha = metadata.get_f32("adapter.lora.alpha")?.unwrap_or(0.0);
    if !alpha.is_finite() {
        return Err(Error::format(format!("metadata key \"adapter.lora.alpha\" is {alpha}")));
    }
    Ok(alpha)
}

/// The tensors A and B of each tensor of the model.
fn pairs<'d>(directory: &'d Directory) -> Result<BTreeMap<String, [&'d Tensor; 2]>> {
    let mut halves: BTreeMap<&str, [Option<&'d Tensor>; 2]> = BTreeMap::new();
    for tensor in directory.tensors() {
        let half = [".lora_a", ".lora_b"].iter().position(|suffix| tensor.name.ends_with(suffix));
        let Some(half) = half else {
            return Err(Error::unsupported(format!(
                "tensor {:?} of the adapter is no matrix \".lora_a\" or \".lora_b\"",
                tensor.name
            )));
        };
        halves.entry(&tensor.name[..tensor.name.len() - ".lora_a".len()]).or_default()[half] = Some(tensor);
    }
    let whole = |(name, pair): (&str, [Option<&'d Tensor>; 2])| match pair {
        [Some(a), Some(b)] => Ok((name.to_string(), [a, b])),
        [None, _] => Err(Error::format(format!("tensor \"{name}.lora_a\" is missing beside \"{name}.lora_b\""))),
        [_, None] => Err(Error::format(format!("tensor \"{name}.lora_b\" is missing beside \"{name}.lora_a\""))),
    };
    halves.into_iter().map(whole).collect()
}

/// What is read of a file, and where it goes.
#[derive(Default)]
struct Plan<'a> {
    pairs: Vec<Pair>,
    tensors: Vec<(&'a Tensor, u64)>,
    bytes: u64,
}

impl<'a> Plan<'a> {
    fn add(&mut self, model: &Model, name: &str, a: &'a Tensor, b: &'a Tensor, alpha: f32) -> Result<()> {
        let loaded = model.loaded();
        let schedule = loaded.engine.schedule();
        for tensor in [a, b] {
            if tensor.shape().len() > 2 {
                return Err(Error::unsupported(format!(
                    "tensor {:?} has {} dimensions: adapters of experts are not supported",
                    tensor.name,
                    tensor.shape().len()
                )));
            }
        }
        let (matrices, table) = match adapter::adaptable(&loaded.program, schedule, name)? {
            Adaptable::Products(matrices) => (matrices, false),
            Adaptable::Table(matrix) => (vec![matrix], true),
        };
        let rows: u64 = matrices.iter().map(|&id| schedule.matrix(id).rows as u64).sum();
        let columns = matrices.first().map_or(0, |&id| schedule.matrix(id).columns as u64);
        // Of a table the parts are the other way round.
        let rank = if table { a.dims[0] } else { a.dims[1] };
        let wanted = if table { [[rank, rows], [rank, columns]] } else { [[columns, rank], [rank, rows]] };
        for (tensor, wanted) in [a, b].into_iter().zip(wanted) {
            if tensor.dims[..2] != wanted {
                return Err(Error::invalid(format!(
                    "tensor {:?} has the dimensions {:?}, not {wanted:?}: {name:?} has {columns} columns and {rows} rows, \
                     and {:?} the rank {rank}",
                    tensor.name,
                    &tensor.dims[..2],
                    a.name
                )));
            }
        }
        let factor = if alpha == 0.0 { 1.0 } else { alpha / rank as f32 };
        let (a, b) = (self.place(a)?, self.place(b)?);
        for matrix in matrices {
            let part = schedule.matrix(matrix);
            let offset = b.offset + part.first_row as usize * b.row_bytes;
            let b = if table { b } else { Factor { rows: part.rows, offset, ..b } };
            heap::push(&mut self.pairs, Pair { matrix, a, b, factor, table }, WHAT)?;
        }
        Ok(())
    }

    /// A place for a tensor.
    fn place(&mut self, tensor: &'a Tensor) -> Result<Factor> {
        let (rows, columns) = (tensor.dims[1] as usize, tensor.dims[0] as usize);
        let row_bytes = tensor.format.row_bytes(columns);
        let row_bytes = row_bytes.ok_or_else(|| Error::format(format!("tensor {:?} has broken rows", tensor.name)))?;
        let offset = self.bytes;
        self.bytes = (offset + tensor.bytes).next_multiple_of(ALIGNMENT);
        heap::push(&mut self.tensors, (tensor, offset), WHAT)?;
        Ok(Factor { format: tensor.format, rows, columns, row_bytes, offset: offset as usize })
    }

    fn load(self, file: &FileSource) -> Result<AdapterWeights> {
        let mut memory = Memory::of(self.bytes, "an adapter")?;
        for (tensor, offset) in self.tensors {
            let to = &mut memory.bytes_mut()[offset as usize..][..tensor.bytes as usize];
            file.read_full(file.start() + tensor.offset, to).map_err(|e| e.context(&tensor.name))?;
        }
        Ok(AdapterWeights::new(self.pairs, memory))
    }
}
