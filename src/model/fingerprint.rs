//! What tells a model from others: whether a sequence that was begun with one can go on with another.

use crate::order;
use crate::sys::sync::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::gguf::{Directory, Tensor, write_value};
use crate::weights::Engine;
use crate::weights::frames::Memory;

/// Tensors of which some bytes are looked at, and how many.
const SAMPLES: usize = 64;
const SAMPLE_BYTES: u64 = 256;

/// A hash of what a model's files say it computes, and of a sample of its weights.
///
/// It covers the architecture and its hyper-parameters, the vocabulary, the name, format and shape of every tensor, and
/// 256 bytes from the middle of up to 64 tensors that are spread evenly over the sorted names. So it tells architectures,
/// sizes, quantisations, vocabularies, and trainings of one model from each other. It does not tell models that differ in
/// some tensors only, none of which is in the sample, or only where the sample does not look. How tensors lie in their
/// files, how many files there are, the chat template and descriptions do not count.
pub struct Fingerprint {
    /// Of all but the weights.
    directory: u128,
    samples: Vec<Sample>,
    whole: Mutex<Option<u128>>,
}

struct Sample {
    name: Box<str>,
    file: usize,
    /// Absolute.
    offset: u64,
    bytes: u64,
}

impl Fingerprint {
    /// `starts` says where the model begins in each of its files. Nothing of the weights is read here.
    ///
    /// # Errors
    /// `FORMAT`: the files do not name an architecture.
    pub fn new(directory: &Directory, starts: &[u64]) -> Result<Fingerprint> {
        let mut hash = Xxh3::new();
        let architecture = directory.metadata.require_str("general.architecture")?;
        let counts = |key: &str| {
            key == "general.architecture"
                || key.starts_with("tokenizer.ggml.")
                || key.strip_prefix(architecture).is_some_and(|rest| rest.starts_with('.'))
        };
        let entries: Vec<_> = directory.metadata.entries.iter().filter(|(key, _)| counts(key)).collect();
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        order::sort_indices(&mut by_key, &mut |a, b| entries[a].0.cmp(&entries[b].0));
        for (key, value) in by_key.into_iter().map(|i| entries[i]) {
            text(&mut hash, key);
            hash.update(&value.type_id().to_le_bytes());
            write_value(&mut hash, value).map_err(|e| Error::format(format!("metadata key {key:?}: {e}")))?;
        }
        let all = directory.tensors();
        let mut by_name: Vec<usize> = (0..all.len()).collect();
        order::sort_indices(&mut by_name, &mut |a, b| all[a].name.cmp(&all[b].name));
        let tensors: Vec<&Tensor> = by_name.into_iter().map(|i| &all[i]).collect();
        for tensor in &tensors {
            text(&mut hash, &tensor.name);
            hash.update(&tensor.format.id().to_le_bytes());
            tensor.dims.iter().for_each(|dim| hash.update(&dim.to_le_bytes()));
        }
        let count = tensors.len().min(SAMPLES);
        let samples = (0..count).map(|i| sample(tensors[i * tensors.len() / count], starts)).collect();
        Ok(Fingerprint { directory: hash.digest128(), samples, whole: Mutex::new(None) })
    }

    /// Memory of one, in bytes, and of reading the sample.
    pub fn memory_bytes(&self) -> u64 {
        let names: usize = self.samples.iter().map(|s| s.name.len()).sum();
        let table = self.samples.capacity() * size_of::<Sample>();
        (names + table + Engine::row_buffer_bytes(SAMPLE_BYTES as usize)) as u64
    }

    /// The fingerprint. The first call reads the sample from storage.
    ///
    /// # Errors
    /// `IO`, which names the tensor; `OUT_OF_MEMORY`.
    pub fn get(&self, engine: &Engine) -> Result<u128> {
        let mut whole = self.whole.lock();
        if let Some(known) = *whole {
            return Ok(known);
        }
        let mut hash = Xxh3::new();
        hash.update(&self.directory.to_le_bytes());
        let mut buffer = Memory::of(Engine::row_buffer_bytes(SAMPLE_BYTES as usize) as u64, "a sample of the weights")?;
        for s in &self.samples {
            let bytes = engine.read_stretch(s.file, s.offset, s.bytes, &mut buffer);
            hash.update(bytes.map_err(|e| e.context(&s.name))?);
        }
        let found = hash.digest128();
        *whole = Some(found);
        Ok(found)
    }
}

fn sample(tensor: &Tensor, starts: &[u64]) -> Sample {
    let bytes = tensor.bytes.min(SAMPLE_BYTES);
    let offset = starts[tensor.file as usize] + tensor.offset + (tensor.bytes - bytes) / 2;
    Sample { name: tensor.name.as_str().into(), file: tensor.file as usize, offset, bytes }
}

fn text(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}
