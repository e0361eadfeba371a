//! Opening: from a path or descriptor to a checked description, a plan of memory, and a running engine.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::fingerprint::Fingerprint;
use super::rotation::Rotation;
use super::types::{Io, Options, Plan};
use super::{Model, memory};
use crate::arch::{self, Described, VectorSource};
use crate::error::{Error, Result, Status};
use crate::gguf::{self, Directory, Metadata};
use crate::kernel::Isa;
use crate::kernel::pool::Pool;
use crate::quant;
use crate::session::{Layout, Passes, Scratch, session_bytes};
use crate::text::Tokenizer;
use crate::weights::budget::Needs as Share;
use crate::weights::engine::{Config, Engine};
use crate::weights::source::{self, DIRECT_ALIGNMENT, FileSource, Source};
use crate::weights::{Accounting, Schedule};

/// Reads that are in flight at once: four of 1–2 MiB reach the speed of direct storage.
const READERS: usize = 4;
const DEFAULT_CHUNK: usize = 256;
const DEFAULT_CONTEXT: u32 = 4096;

/// All that the files say, before anything is decided about memory.
struct Read {
    name: String,
    files: Vec<FileSource>,
    metadata: Metadata,
    tokenizer: std::result::Result<Tokenizer, Error>,
    described: Described,
    fingerprint: Fingerprint,
    file_bytes: u64,
    weight_bytes: u64,
    parameter_count: u64,
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
    let read = read_path(path)?;
    let name = read.name.clone();
    make_plan(&read, options).map_err(|e| e.context(name))
}

pub fn open_path(path: &Path, options: &Options) -> Result<Arc<Model>> {
    open(read_path(path)?, options, |source| source)
}

#[cfg(all(test, feature = "prefetch"))]
pub fn open_behind(
    path: &Path,
    options: &Options,
    door: impl Fn(Box<dyn Source>) -> Box<dyn Source>,
) -> Result<Arc<Model>> {
    open(read_path(path)?, options, door)
}

pub fn open_file(file: File, offset: u64, length: u64, options: &Options) -> Result<Arc<Model>> {
    let first = source::from_file(file, offset, length, "the file".into())?;
    let siblings = |name: &str| {
        Err(Error::unsupported(format!("{name}: the other files of a split model cannot be found from a descriptor")))
    };
    open(read("the file".into(), first, siblings)?, options, |source| source)
}

fn read_path(path: &Path) -> Result<Read> {
    let first = source::open_path(path)?;
    let name = path.display().to_string();
    let bytes = path.as_os_str().as_bytes();
    read(name, first, |sibling| {
        // The suffix alone is taken from the name, because the path need not be UTF-8.
        let keep = bytes.len().saturating_sub(gguf::SPLIT_SUFFIX_LEN);
        let suffix = &sibling.as_bytes()[sibling.len().saturating_sub(gguf::SPLIT_SUFFIX_LEN)..];
        let path = PathBuf::from(OsString::from_vec([&bytes[..keep], suffix].concat()));
        source::open_path(&path)
    })
}

fn read(name: String, first: FileSource, siblings: impl FnMut(&str) -> Result<FileSource>) -> Result<Read> {
    let (mut directory, files) = gguf::open_split(&name, first, u64::MAX, siblings)?;
    interpret(&mut directory, &files)
        .map(|Interpreted { tokenizer, described, fingerprint }| Read {
            files,
            file_bytes: directory.file_bytes(),
            weight_bytes: directory.tensor_bytes(),
            parameter_count: directory.tensors().iter().map(|t| t.elements()).sum(),
            metadata: std::mem::take(&mut directory.metadata),
            name: name.clone(),
            tokenizer,
            described,
            fingerprint,
        })
        .map_err(|e| e.context(name))
}

struct Interpreted {
    tokenizer: std::result::Result<Tokenizer, Error>,
    described: Described,
    fingerprint: Fingerprint,
}

fn interpret(directory: &mut Directory, files: &[FileSource]) -> Result<Interpreted> {
    let starts: Vec<u64> = files.iter().map(FileSource::start).collect();
    // Before the tokenizer takes its part of the metadata.
    let fingerprint = Fingerprint::new(directory, &starts)?;
    let described = arch::describe(directory, starts, DIRECT_ALIGNMENT)?;
    let tokenizer = match Tokenizer::from_metadata(&mut directory.metadata) {
        Ok(Some(tokenizer)) => Ok(tokenizer),
        Ok(None) => Err(Error::unsupported("the file has no tokenizer")),
        Err(e) => Err(e),
    };
    Ok(Interpreted { tokenizer, described, fingerprint })
}

fn needs(read: &Read, options: &Options) -> Result<Needs> {
    let Described { description: d, schedule, vectors } = &read.described;
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
    let layout = Layout::new(d, schedule, chunk);
    let vector_bytes: u64 = vectors.iter().map(|v| v.elements as u64 * 4).sum();
    let tables = read.metadata.memory_bytes()
        + read.tokenizer.as_ref().map_or(0, Tokenizer::memory_bytes)
        + vector_bytes
        + read.fingerprint.memory_bytes()
        + d.ropes.iter().map(Rotation::memory_bytes).sum::<usize>() as u64
        + (d.layers.capacity() * size_of::<arch::Layer>()) as u64
        + Engine::overhead_bytes(schedule, options.prefetch && cfg!(feature = "prefetch"), READERS);
    let scratch = layout.bytes() + (Pool::memory_needed(threads) + Passes::memory_needed()) as u64;
    let session = session_bytes(d, context, chunk, options.kv_type)?;
    Ok(Needs { tables, scratch, session, threads, chunk, context, layout })
}

fn min_budget(needs: &Needs, schedule: &Schedule) -> u64 {
    needs.base().saturating_add(Engine::min_frames(schedule))
}

fn make_plan(read: &Read, options: &Options) -> Result<Plan> {
    let needs = needs(read, options)?;
    let schedule = &read.described.schedule;
    let floor = min_budget(&needs, schedule);
    let budget = match options.memory_budget {
        0 => memory::automatic_budget(),
        n => n,
    };
    let frames = budget.max(floor) - needs.base();
    let residency = Engine::plan_frames(schedule, frames, options.cache_layers, READERS);
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
    })
}

/// `door` may put something in front of each source.
fn open(read: Read, options: &Options, door: impl Fn(Box<dyn Source>) -> Box<dyn Source>) -> Result<Arc<Model>> {
    let needs = needs(&read, options).map_err(|e| e.context(&read.name))?;
    let floor = min_budget(&needs, &read.described.schedule);
    let automatic = options.memory_budget == 0;
    let (budget_share, budget) = match &options.shared_budget {
        Some(shared) => {
            let full = needs.base().saturating_add(Engine::full_frames(&read.described.schedule));
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
                Engine::min_frames(&read.described.schedule)
            ),
        ));
    }
    let isa = Isa::detect();
    let vectors = read_vectors(&read.files, &read.described.vectors)?;
    let Described { description, schedule, .. } = read.described;
    let rotation = |rope| Rotation::new(rope, |id| &vectors[id.0 as usize]).map_err(|e| e.context(&read.name));
    let rotations = description.ropes.iter().map(rotation).collect::<Result<Vec<_>>>()?;
    let (sources, io) = in_mode(read.files, options.io)?;
    let scratch = Scratch::new(&needs.layout)
        .map_err(|e| Error::out_of_memory(format!("{}: {} bytes of scratch memory: {e}", read.name, needs.scratch)))?;
    let pool = Pool::new(needs.threads)?;
    let engine = Engine::start(Config {
        accounting: Accounting::new(budget, needs.fixed(), needs.session),
        schedule,
        sources: sources.into_iter().map(door).collect(),
        prefetch: options.prefetch,
        readers: READERS,
        prefetch_distance: options.prefetch_distance,
        cache_layers: options.cache_layers,
        budget_share,
    })?;
    Ok(Arc::new(Model {
        description,
        rotations,
        vectors,
        metadata: read.metadata,
        tokenizer: read.tokenizer,
        parameter_count: read.parameter_count,
        fingerprint: read.fingerprint,
        io,
        isa,
        pool,
        scratch: Mutex::new(scratch),
        chunk_length: needs.chunk,
        default_context: needs.context,
        kv_type: options.kv_type,
        passes: Passes::default(),
        engine,
    }))
}

/// All files in one mode: where one of them cannot be read directly, none is.
fn in_mode(files: Vec<FileSource>, io: Io) -> Result<(Vec<Box<dyn Source>>, Io)> {
    let io = match io {
        Io::Auto if files.iter().all(FileSource::takes_direct) => Io::Direct,
        Io::Auto => Io::Buffered,
        other => other,
    };
    let sources = files.into_iter().map(|f| f.with_mode(io)).collect::<Result<_>>()?;
    Ok((sources, io))
}

fn read_vectors(files: &[FileSource], vectors: &[VectorSource]) -> Result<Vec<Box<[f32]>>> {
    let mut bytes = Vec::new();
    let mut read = |v: &VectorSource| {
        bytes.resize(v.bytes as usize, 0);
        files[v.file as usize].read_full(v.offset, &mut bytes).map_err(|e| e.context(&v.name))?;
        let mut values = vec![0.0; v.elements].into_boxed_slice();
        quant::decode_row(v.format, &bytes, &mut values);
        Ok(values)
    };
    vectors.iter().map(&mut read).collect()
}
