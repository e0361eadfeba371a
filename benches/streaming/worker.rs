//! What the bench's child processes do: measure one thing, print it as a line of JSON.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerline::arch::{self, Described};
use layerline::exec::Program;
use layerline::gguf;
use layerline::model::{Io, Model, Options};
use layerline::session::Session;
use layerline::weights::frames::Memory;
use layerline::weights::source::{self, DIRECT_ALIGNMENT, OpenedSource, Source};
use layerline::weights::{Accounting, Config, Engine, Interrupt, KeptExperts, Schedule};
use serde_json::{Value, json};

use crate::{Result, cache, sequences};

pub const FLAG: &str = "--worker";

/// The prompt that decoding starts with where nothing else is asked.
pub const SHORT: usize = 8;

/// Reads in flight, as the library has them.
const READERS: usize = 4;
/// What one read takes at most, as in the library.
const READ_BYTES: u64 = 2 << 20;
/// Passes after the prompt that are not counted.
const WARM_UP: usize = 2;
/// Tokens of a prompt that are enough to bring all weights, nearly all experts among them.
const WARM_UP_PROMPT: usize = 512;
/// A storage probe reads for at least this long.
const PROBE: Duration = Duration::from_millis(600);

/// `storage MODEL`, `decode MODEL BUDGET THREADS CONTEXT CHUNK TOKENS SECONDS BEFORE`, or `prompt` or `together` with the
/// same; `batch MODEL BUDGET THREADS CONTEXT CHUNK TOKENS BEFORE SEQUENCES WAY`.
pub fn main(arguments: &[String]) -> Result<()> {
    let number = |i: usize| -> Result<u64> {
        arguments.get(i).and_then(|a| a.parse().ok()).ok_or_else(|| format!("argument {i} of {arguments:?}"))
    };
    let path = Path::new(arguments.get(1).ok_or("no model")?);
    let result = match arguments[0].as_str() {
        "storage" => storage(path)?,
        work @ ("decode" | "prompt" | "together" | "batch") => {
            let options = Options {
                memory_budget: number(2)?,
                threads: number(3)? as u32,
                context_length: number(4)? as u32,
                chunk_length: number(5)? as u32,
                ..Options::default()
            };
            let tokens = number(6)? as usize;
            match work {
                "batch" => {
                    let way = arguments.get(9).ok_or("no way")?;
                    sequences::decode(path, &options, tokens, number(7)? as usize, (number(8)? as usize, way))?
                }
                "prompt" => prompt(path, &options, tokens)?,
                "together" => together(path, &options, tokens)?,
                _ => decode(path, &options, tokens, Duration::from_secs(number(7)?), number(8)? as usize)?,
            }
        }
        other => return Err(format!("no such work: {other}")),
    };
    println!("{result}");
    Ok(())
}

/// How fast the file's weights can be had, in bytes per second: by the engine with the least ring and with a deep one,
/// when nothing is computed from them; and by the same reads in flight with no engine at all.
fn storage(path: &Path) -> Result<Value> {
    let least = |s: &Schedule| Engine::min_frames(s);
    let deep = |s: &Schedule| (s.sweep_bytes() / 4).max(Engine::min_frames(s));
    Ok(json!({
        "min_ring": swept(path, least)?,
        "deep_ring": swept(path, deep)?,
        "plain_reads": plain(path)?,
    }))
}

/// The files of a model.
fn files(path: &Path) -> Result<(gguf::Directory, Vec<OpenedSource>)> {
    let text = |e: layerline::Error| e.to_string();
    let first = source::open_path(path).map(OpenedSource::File).map_err(text)?;
    let name = path.display().to_string();
    let open = |sibling: &str| source::open_path(Path::new(sibling)).map(OpenedSource::File);
    gguf::open_split(&name, first, u64::MAX, open).map_err(text)
}

/// Bytes per second of an engine that sweeps and computes nothing.
fn swept(path: &Path, frames: impl Fn(&Schedule) -> u64) -> Result<f64> {
    let text = |e: layerline::Error| e.to_string();
    let (directory, files) = files(path)?;
    let starts = files.iter().map(|file| file.source().start()).collect();
    let Described { description, matrices, .. } =
        arch::describe(&directory, starts, arch::Part::Model).map_err(text)?;
    let program = Program::new(&description, &matrices);
    let schedule = program.schedule(matrices, DIRECT_ALIGNMENT).map_err(text)?;
    let end = schedule.sweep_len;
    let accounting = Accounting::new(frames(&schedule), 0, 0);
    let (sources, _) = source::in_mode(files, Io::Auto).map_err(text)?;
    let config = Config {
        accounting,
        schedule,
        sources,
        prefetch: true,
        readers: READERS,
        prefetch_distance: 0,
        cache_layers: 0,
        kept_experts: KeptExperts::Cached,
        budget_share: None,
    };
    let engine = Engine::start(config).map_err(text)?;
    let interrupt = Interrupt::new(&engine);
    let sweep = || -> Result<()> {
        let mut sweep = engine.sweep(&interrupt, 0, end).map_err(text)?;
        (0..end).try_for_each(|p| sweep.page(p).map(drop).map_err(text))
    };
    // The first round brings what stays.
    sweep()?;
    let (mut bytes, mut spent) = (0, Duration::ZERO);
    while spent < PROBE {
        // Without direct reads the second round would come from the page cache.
        cache::forget(path)?;
        let (before, started) = (engine.stats().read_bytes, Instant::now());
        sweep()?;
        spent += started.elapsed();
        bytes += engine.stats().read_bytes - before;
    }
    Ok(bytes as f64 / spent.as_secs_f64())
}

/// Bytes per second of the same number of threads, each reading the next piece of the file until it has ended.
fn plain(path: &Path) -> Result<f64> {
    let source = plain_source(path)?;
    let (mut bytes, mut spent) = (0, Duration::ZERO);
    while spent < PROBE {
        cache::forget(path)?;
        let started = Instant::now();
        let (next, end) = (AtomicU64::new(0), source.end() / READ_BYTES);
        bytes += read_pieces(&*source, || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&piece| piece < end))?;
        spent += started.elapsed();
    }
    Ok(bytes as f64 / spent.as_secs_f64())
}

/// The first file of a model, as the engine reads it.
fn plain_source(path: &Path) -> Result<Box<dyn Source>> {
    let (_, files) = files(path)?;
    let (mut sources, _) = source::in_mode(files, Io::Auto).map_err(|e| e.to_string())?;
    Ok(sources.swap_remove(0))
}

/// Reads pieces with as many threads as the library has readers until `next` gives none; how many bytes.
fn read_pieces(source: &dyn Source, next: impl Fn() -> Option<u64> + Sync) -> Result<u64> {
    let read = || -> Result<u64> {
        let mut buffer = Memory::new(READ_BYTES as usize).map_err(|e| e.to_string())?;
        let mut bytes = 0;
        while let Some(piece) = next() {
            source.read_full(piece * READ_BYTES, buffer.bytes_mut()).map_err(|e| e.to_string())?;
            bytes += READ_BYTES;
        }
        Ok(bytes)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a reader panicked".into()))).sum()
    })
}

/// Arithmetic with everything in memory, and plain reads that nobody waits for, both at once: what each leaves the other
/// of processors, memory and bus. No streaming program can do better while it does both.
fn together(path: &Path, options: &Options, tokens: usize) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let source = plain_source(path)?;
    let pieces = (source.end() / READ_BYTES).max(1);
    let model = Model::open(path, options).map_err(text)?;
    let token = token_of(&model);
    let mut session = Session::new(&model, 0).map_err(text)?;
    let last = layerline::model::Logits::Last;
    for i in 0..WARM_UP {
        session.forward(&[token(i)], last).map_err(text)?;
    }
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let readers = scope.spawn(|| {
            let started = Instant::now();
            let piece = || Some(next.fetch_add(1, Ordering::Relaxed) % pieces);
            let bytes = read_pieces(&*source, || piece().filter(|_| !stop.load(Ordering::Relaxed)))?;
            Result::Ok(bytes as f64 / started.elapsed().as_secs_f64())
        });
        let started = Instant::now();
        let passes = (0..tokens).try_for_each(|i| session.forward(&[token(i)], last).map_err(text));
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let storage = readers.join().unwrap_or_else(|_| Err("a reader panicked".into()))?;
        passes?;
        Ok(json!({ "tokens_per_second": tokens as f64 / seconds, "storage": storage }))
    })
}

/// Decodes one token at a time after a prompt of `before` tokens. The prompt is timed too, once a pass has brought the
/// weights: the beginning of the same prompt where it has more than [`SHORT`] tokens, the whole of a shorter one.
fn decode(path: &Path, options: &Options, tokens: usize, limit: Duration, before: usize) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let opened = Instant::now();
    let model = Model::open(path, options).map_err(text)?;
    let token = token_of(&model);
    let mut session = Session::new(&model, 0).map_err(text)?;
    let prompt_tokens: Vec<i32> = (1..=before).map(&token).collect();
    let last = layerline::model::Logits::Last;
    if before > SHORT {
        session.forward(&prompt_tokens[..before.min(WARM_UP_PROMPT)], last).map_err(text)?;
        session.truncate(0).map_err(text)?;
    }
    let started = Instant::now();
    session.forward(&prompt_tokens, last).map_err(text)?;
    let (first, mut prompt) = (opened.elapsed().as_secs_f64(), started.elapsed().as_secs_f64());
    if before <= SHORT {
        // Once more, when a pass has brought the weights: with all of them in memory, the arithmetic of the first logits.
        session.truncate(0).map_err(text)?;
        let started = Instant::now();
        session.forward(&prompt_tokens, last).map_err(text)?;
        prompt = started.elapsed().as_secs_f64();
    }
    for i in 0..WARM_UP {
        session.forward(&[token(before + 1 + i)], last).map_err(text)?;
    }
    let at_start = model.stats();
    let started = Instant::now();
    let mut done = 0;
    while done < tokens && (done == 0 || started.elapsed() < limit) {
        session.forward(&[token(before + WARM_UP + 1 + done)], last).map_err(text)?;
        done += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    let after = model.stats();
    let per_pass = |of: fn(&layerline::model::Stats) -> u64| (of(&after) - of(&at_start)) as f64 / done as f64;
    Ok(json!({
        "tokens": done,
        "seconds": seconds,
        "tokens_per_second": done as f64 / seconds,
        "first_logits_seconds": first,
        "prompt_seconds": prompt,
        "prompt_tokens_per_second": (before > SHORT).then(|| before as f64 / prompt),
        "direct": after.io == Io::Direct,
        "peak_bytes": after.peak_bytes,
        "pinned_bytes": after.pinned_bytes,
        "read_bytes_per_pass": per_pass(|s| s.read_bytes),
        "stall_seconds_per_pass": per_pass(|s| s.stall_ns) * 1e-9,
        "layers_stalled_per_pass": per_pass(|s| s.layers_stalled),
        "layers_prefetched_per_pass": per_pass(|s| s.layers_prefetched),
        "layers_resident_per_pass": per_pass(|s| s.layers_resident),
    }))
}

/// The tokens are given, so that nobody's sampling is measured; the peer takes the same.
fn token_of(model: &Model) -> impl Fn(usize) -> i32 + use<> {
    let vocabulary = model.info().vocab_size as usize;
    move |i| (i * 7919 % vocabulary) as i32
}

/// Takes in a prompt of `tokens` tokens, after a pass that has brought what stays.
fn prompt(path: &Path, options: &Options, tokens: usize) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let model = Model::open(path, options).map_err(text)?;
    let token = token_of(&model);
    let mut session = Session::new(&model, 0).map_err(text)?;
    let last = layerline::model::Logits::Last;
    session.forward(&[token(0)], last).map_err(text)?;
    session.truncate(0).map_err(text)?;
    let before = model.stats();
    let started = Instant::now();
    session.forward(&(1..=tokens).map(&token).collect::<Vec<_>>(), last).map_err(text)?;
    let seconds = started.elapsed().as_secs_f64();
    let after = model.stats();
    Ok(json!({
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens as f64 / seconds,
        "read_bytes": after.read_bytes - before.read_bytes,
        "pinned_bytes": after.pinned_bytes,
        "peak_bytes": after.peak_bytes,
    }))
}
