//! Opening: from a path or descriptor to a checked description, a plan of memory, and a running engine.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::profile::Profile;
use super::types::{Options, Plan};
use super::{Model, memory};
use crate::arch::{self, Described, Description, Part, VectorSource};
use crate::error::{Error, Result, Status};
use crate::exec::memory::MemoryLayout;
use crate::exec::{Layout, Loaded, PassQueue, Program, Rotation, Scratch, Turns, session_bytes};
use crate::gguf::{self, Directory, Metadata};
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::quant;
use crate::sys::file::with_suffix;
use crate::sys::heap::{self, Trimmed};
use crate::sys::sync::Mutex;
use crate::text::Tokenizer;
use crate::weights::budget::Needs as Share;
use crate::weights::engine::{Config, Engine};
use crate::weights::frames::granule;
use crate::weights::source::{self, FileSource, Source};
use crate::weights::{Accounting, Schedule};

/// Reads that are in flight at once: four of 1–2 MiB reach the speed of direct storage.
const READERS: usize = 4;
/// What may be read of metadata and directory whatever the budget, so that a budget below the floor is refused with the
/// floor's figures: several times what the largest vocabularies take.
const MIN_METADATA_LIMIT: u64 = 64 << 20;
const DEFAULT_CHUNK: usize = 256;
const DEFAULT_CONTEXT: u32 = 4096;

/// All that the files say, before anything is decided about memory.
struct Read {
    name: String,
    files: Vec<FileSource>,
    metadata: Metadata,
    tokenizer: std::result::Result<Arc<Tokenizer>, Error>,
    compiled: Compiled,
    fingerprint: Fingerprint,
    file_bytes: u64,
    weight_bytes: u64,
    parameter_count: u64,
    heap: Trimmed,
}

/// What memory goes where.
struct Needs {
    tables: u64,
    scratch: u64,
    session: u64,
    threads: usize,
    chunk: usize,
    context: usize,
    layout: Layout,
}

impl Needs {
    fn fixed(&self) -> u64 {
        self.tables.saturating_add(self.scratch)
    }

    fn base(&self) -> u64 {
        self.fixed().saturating_add(self.session)
    }
}

pub fn plan(path: &Path, options: &Options) -> Result<Plan> {
    let read = read_path(path, options)?;
    let name = read.name.clone();
    make_plan(&read, options).map_err(|e| e.context(name))
}

pub fn open_path(path: &Path, options: &Options) -> Result<Arc<Model>> {
    open(read_path(path, options)?, options, |source| source)
}

#[cfg(all(test, feature = "prefetch"))]
pub fn open_behind(
    path: &Path,
    options: &Options,
    wrap: impl Fn(Box<dyn Source>) -> Box<dyn Source>,
) -> Result<Arc<Model>> {
    open(read_path(path, options)?, options, wrap)
}

pub fn open_file(file: File, offset: u64, length: u64, options: &Options) -> Result<Arc<Model>> {
    let first = source::from_file(file, offset, length, "the file".into())?;
    let siblings = |name: &str| {
        Err(Error::unsupported(format!("{name}: the other files of a split model cannot be found from a descriptor")))
    };
    open(read("the file".into(), first, options, siblings)?, options, |source| source)
}

/// Bytes that metadata and directory may take: the budget that the options give, before anything is known of the model.
fn metadata_limit(options: &Options) -> u64 {
    let budget = match (&options.shared_budget, options.memory_budget) {
        (Some(shared), _) => shared.total(),
        (None, 0) => memory::automatic_budget(),
        (None, bytes) => bytes,
    };
    budget.max(MIN_METADATA_LIMIT)
}

fn read_path(path: &Path, options: &Options) -> Result<Read> {
    let first = source::open_path(path)?;
    let name = path.display().to_string();
    read(name, first, options, |sibling| {
        // The suffix alone is taken from the name, because the path need not be UTF-8.
        let suffix = &sibling[sibling.len().saturating_sub(gguf::SPLIT_SUFFIX_LEN)..];
        let path = with_suffix(path, suffix)
            .ok_or_else(|| Error::unsupported(format!("{sibling}: its name cannot be made from the first file's")))?;
        source::open_path(&path)
    })
}

fn read(
    name: String,
    first: FileSource,
    options: &Options,
    siblings: impl FnMut(&str) -> Result<FileSource>,
) -> Result<Read> {
    let heap = Trimmed;
    let (mut directory, files) = gguf::open_split(&name, first, metadata_limit(options), siblings)?;
    interpret(&mut directory, &files, if options.predictor { Part::Predictor } else { Part::Model })
        .map(|Interpreted { tokenizer, compiled, fingerprint }| Read {
            files,
            file_bytes: directory.file_bytes(),
            weight_bytes: directory.tensor_bytes(),
            parameter_count: directory.tensors().iter().map(|t| t.elements()).sum(),
            metadata: std::mem::take(&mut directory.metadata),
            name: name.clone(),
            tokenizer,
            compiled,
            fingerprint,
            heap,
        })
        .map_err(|e| e.context(name))
}

/// What the model computes, as it was described and compiled.
struct Compiled {
    description: Description,
    program: Program,
    schedule: Schedule,
    vectors: Vec<VectorSource>,
    unread_tensors: u32,
    unread_bytes: u64,
}

struct Interpreted {
    tokenizer: std::result::Result<Arc<Tokenizer>, Error>,
    compiled: Compiled,
    fingerprint: Fingerprint,
}

fn interpret(directory: &mut Directory, files: &[FileSource], part: Part) -> Result<Interpreted> {
    let starts: Vec<u64> = files.iter().map(FileSource::start).collect();
    // Before the tokenizer takes its part of the metadata.
    let fingerprint = Fingerprint::new(directory, &starts)?;
    let Described { description, matrices, vectors, unread_tensors, unread_bytes } =
        arch::describe(directory, starts, part)?;
    let program = Program::new(&description, &matrices);
    let schedule = program.schedule(matrices, granule())?;
    let compiled = Compiled { description, program, schedule, vectors, unread_tensors, unread_bytes };
    let tokenizer = match Tokenizer::from_metadata(&mut directory.metadata) {
        Ok(Some(tokenizer)) => Ok(Arc::new(tokenizer)),
        Ok(None) => Err(Error::unsupported("the file has no tokenizer")),
        // Another time there may be memory for it.
        Err(e) if e.status() == Status::OutOfMemory => return Err(e),
        Err(e) => Err(e),
    };
    let (rows, tokens) = (compiled.description.shape.vocab, tokenizer.as_ref().map_or(0, |t| t.vocab_size()));
    if tokens > rows {
        return Err(Error::format(format!(
            "tensor \"token_embd.weight\" has {rows} rows for a vocabulary of {tokens} tokens"
        )));
    }
    // The model that it drafts for has the same one.
    let own = || Err(Error::unsupported("a layer that predicts further tokens has no tokenizer of its own"));
    let tokenizer = if part == Part::Predictor { own() } else { tokenizer };
    Ok(Interpreted { tokenizer, compiled, fingerprint })
}

fn needs(read: &Read, options: &Options) -> Result<Needs> {
    let Compiled { description: d, program, schedule, vectors, .. } = &read.compiled;
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
        n => n as usize,
    };
    let threads = if cfg!(feature = "prefetch") { threads } else { 1 };
    let context = match options.context_length {
        0 => DEFAULT_CONTEXT.min(d.shape.context.max(1)),
        n => n,
    } as usize;
    let chunk = match options.chunk_length as usize {
        // Where tokens see those after them, all of a sequence share a sweep.
        _ if !d.causal => context,
        0 => DEFAULT_CHUNK,
        n => n,
    };
    let layout = Layout::new(program, schedule, chunk);
    let vector_bytes: u64 = vectors.iter().map(|v| v.elements as u64 * 4).sum();
    let tables = read.metadata.memory_bytes()
        + read.tokenizer.as_ref().map_or(0, |t| t.memory_bytes())
        + vector_bytes
        + read.fingerprint.memory_bytes()
        + d.ropes.iter().map(Rotation::memory_bytes).sum::<usize>() as u64
        + (d.layers.capacity() * size_of::<arch::Layer>() + program.memory_bytes()) as u64
        + Engine::overhead_bytes(schedule, options.prefetch && cfg!(feature = "prefetch"), READERS);
    let scratch = layout.memory_bytes() + (Pool::memory_needed(threads) + PassQueue::memory_needed()) as u64;
    let session = session_bytes(d, &MemoryLayout::new(d, context, chunk, options.kv_type)?, chunk);
    Ok(Needs { tables, scratch, session, threads, chunk, context, layout })
}

fn min_budget(needs: &Needs, schedule: &Schedule) -> u64 {
    needs.base().saturating_add(Engine::min_frames(schedule))
}

fn make_plan(read: &Read, options: &Options) -> Result<Plan> {
    let needs = needs(read, options)?;
    let schedule = &read.compiled.schedule;
    let floor = min_budget(&needs, schedule);
    let budget = match options.memory_budget {
        0 => memory::automatic_budget(),
        n => n,
    };
    let frames = budget.max(floor) - needs.base();
    let residency = Engine::plan_frames(schedule, frames, options.cache_layers, READERS, options.kept_experts);
    Ok(Plan {
        layer_count: schedule.layer_count,
        file_bytes: read.file_bytes,
        weight_bytes: read.weight_bytes,
        floor_bytes: floor,
        full_bytes: needs.base().saturating_add(Engine::full_frames(schedule)),
        kv_bytes: needs.session,
        scratch_bytes: needs.scratch,
        tables_bytes: needs.tables,
        pinned_bytes: residency.pinned_bytes,
        streamed_bytes: residency.streamed_bytes,
        expert_working_set_bytes: schedule.working_set_bytes(),
        unread_tensors: read.compiled.unread_tensors,
        unread_bytes: read.compiled.unread_bytes,
    })
}

/// `wrap` may put something in front of each source.
fn open(read: Read, options: &Options, wrap: impl Fn(Box<dyn Source>) -> Box<dyn Source>) -> Result<Arc<Model>> {
    let needs = needs(&read, options).map_err(|e| e.context(&read.name))?;
    let floor = min_budget(&needs, &read.compiled.schedule);
    let automatic = options.memory_budget == 0;
    let (budget_share, budget) = match &options.shared_budget {
        Some(shared) => {
            let full = needs.base().saturating_add(Engine::full_frames(&read.compiled.schedule));
            let (budget_share, share) =
                shared.admit(Share { least: floor, full }).map_err(|e| e.context(&read.name))?;
            (Some(budget_share), share)
        }
        None if automatic => (None, memory::automatic_budget()),
        None => (None, options.memory_budget),
    };
    if budget < floor {
        let what = if automatic { "the memory this process may use, " } else { "the memory budget of " };
        return Err(Error::new(
            Status::MemoryBudget,
            format!(
                "{}: {what}{budget} bytes is below the floor of {floor} bytes (tables {}, scratch {}, a session of {} tokens {}, frames {})",
                read.name,
                needs.tables,
                needs.scratch,
                needs.context,
                needs.session,
                Engine::min_frames(&read.compiled.schedule)
            ),
        ));
    }
    let profile = |path| Profile::read(path, read.compiled.schedule.experts.len());
    let profile = options.profile.as_deref().map(profile).transpose()?;
    let isa = Isa::detect();
    let vectors = read_vectors(&read.files, &read.compiled.vectors)?;
    let Compiled { description, program, schedule, .. } = read.compiled;
    let rotation = |rope| Rotation::new(rope, |id| &vectors[id.0 as usize]).map_err(|e| e.context(&read.name));
    let rotations = description.ropes.iter().map(rotation).collect::<Result<Vec<_>>>()?;
    let (sources, io) = source::in_mode(read.files, options.io)?;
    let scratch = Scratch::new(needs.layout.clone()).map_err(|e| e.context(&read.name))?;
    let pool = Pool::new(needs.threads)?;
    let engine = Engine::start(Config {
        accounting: Accounting::new(budget, needs.fixed(), needs.session),
        schedule,
        sources: sources.into_iter().map(wrap).collect(),
        prefetch: options.prefetch,
        readers: READERS,
        prefetch_distance: options.prefetch_distance,
        cache_layers: options.cache_layers,
        kept_experts: options.kept_experts,
        budget_share,
    })?;
    if let (Some(profile), Some(path)) = (profile, &options.profile) {
        let own = read.fingerprint.get(&engine)?;
        if profile.fingerprint != own {
            return Err(Error::invalid(format!(
                "the profile {}: of another model: its fingerprint is {:032x}, here it is {own:032x}",
                path.display(),
                profile.fingerprint
            )));
        }
        engine.expect_experts(&profile.experts)?;
    }
    Ok(Arc::new(Model {
        description,
        metadata: read.metadata,
        tokenizer: read.tokenizer,
        #[cfg(feature = "constraints")]
        guide: Mutex::new(None),
        parameter_count: read.parameter_count,
        fingerprint: read.fingerprint,
        io,
        chunk_length: needs.chunk,
        default_context: needs.context,
        kv_type: options.kv_type,
        passes: PassQueue::new(options.share_sweeps),
        loaded: Loaded {
            program,
            vectors,
            rotations,
            isa,
            pool,
            scratch: Mutex::new(scratch),
            turns: Turns::new(options.share_sweeps, needs.chunk),
            engine,
        },
        _heap: read.heap,
    }))
}

fn read_vectors(files: &[FileSource], vectors: &[VectorSource]) -> Result<Vec<Box<[f32]>>> {
    let mut bytes = Vec::new();
    let mut read = |v: &VectorSource| {
        bytes.clear();
        heap::reserve(&mut bytes, v.bytes as usize, &v.name)?;
        bytes.resize(v.bytes as usize, 0);
        files[v.file as usize].read_full(v.offset, &mut bytes).map_err(|e| e.context(&v.name))?;
        let mut values = heap::filled(0.0, v.elements, &v.name)?.into_boxed_slice();
        quant::decode_row(v.format, &bytes, &mut values);
        Ok(values)
    };
    vectors.iter().map(&mut read).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    /// The file is sparse; the memory that is refused is told by the message, since nothing was read.
    #[test]
    fn metadata_that_exceeds_the_budget_is_refused_before_it_is_read() {
        let length = 300u64 << 20;
        let path = std::env::temp_dir().join(format!("layerline-metadata-{}.gguf", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let mut head = b"GGUF".to_vec();
        head.extend(3u32.to_le_bytes());
        [0u64, 1, 1].iter().for_each(|n| head.extend(n.to_le_bytes()));
        head.push(b'k');
        head.extend(8u32.to_le_bytes());
        head.extend(length.to_le_bytes());
        file.write_all(&head).unwrap();
        let end = file.stream_position().unwrap() + length;
        file.set_len(end).unwrap();
        let options = Options { memory_budget: 16 << 20, ..Options::default() };
        let refused = [plan(&path, &options).map(drop), open_path(&path, &options).map(drop)];
        std::fs::remove_file(&path).unwrap();
        for error in refused.map(Result::unwrap_err) {
            assert_eq!(error.status(), Status::MemoryBudget, "{}", error.message());
            assert!(error.message().contains(&length.to_string()[..4]), "{}", error.message());
        }
    }
}
