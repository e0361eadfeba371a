//! Speed under a budget: `make bench-streaming`, or `cargo bench --bench streaming -- OPTIONS`.
//!
//! Decodes with less and less memory and holds each figure against the bound that the machine sets: a pass takes at
//! least as long as reading what its budget cannot hold, and at least as long as its arithmetic. Both are measured
//! beside every run, because they drift. Every run is a process of its own in a memory cgroup of its own; llama.cpp,
//! where a Python has it, runs in the same kind of group. What the figures mean: docs/benchmarks.md.

#[path = "streaming/batch.rs"]
mod batch;
#[path = "streaming/cache.rs"]
mod cache;
#[path = "streaming/chart.rs"]
mod chart;
#[path = "streaming/drafts.rs"]
mod drafts;
#[path = "streaming/machine.rs"]
mod machine;
#[path = "streaming/made.rs"]
mod made;
#[path = "streaming/options.rs"]
mod options;
#[path = "streaming/report.rs"]
mod report;
#[path = "streaming/run.rs"]
mod run;
#[path = "streaming/sequences.rs"]
mod sequences;
#[path = "streaming/worker.rs"]
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use layerline::model::{Model, Plan};
use serde_json::{Value, json};

use options::Options;
use run::Runner;

type Result<T> = std::result::Result<T, String>;

/// The source tree: scripts and models are found from here.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        // `cargo test` over all targets starts benches without arguments; a bench is not a test.
        println!("{}", options::USAGE);
        return ExitCode::SUCCESS;
    }
    if let [flag, rest @ ..] = &arguments[..]
        && flag == worker::FLAG
    {
        return ending(worker::main(rest));
    }
    match options::parse(arguments.into_iter().filter(|a| a != "--bench")) {
        Ok(Some(options)) => ending(bench(&options)),
        Ok(None) => {
            println!("{}", options::USAGE);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}\n{}", options::USAGE);
            ExitCode::from(2)
        }
    }
}

fn ending(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("streaming: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    if options.draft {
        return drafts::compare(options, options.draft_model.as_ref());
    }
    if !options.batches.is_empty() {
        return match &options.render {
            Some(path) => batch::render(options, &read(path)?),
            None => batch::compare(options),
        };
    }
    if !options.chunks.is_empty() {
        return compare_chunks(options);
    }
    let record = match &options.render {
        Some(path) => {
            let mut record = read(path)?;
            report::summarise(&mut record);
            record
        }
        None => {
            let record = measure(options)?;
            let path = options.json.clone().unwrap_or_else(|| output("streaming.json"));
            write(&path, &serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?)?;
            println!("figures: {}", path.display());
            record
        }
    };
    println!("\n{}", report::markdown(&record));
    let path = options.svg.clone().unwrap_or_else(|| output("streaming.svg"));
    write(&path, &chart::svg(&record)?)?;
    println!("chart: {}", path.display());
    Ok(())
}

/// Where results go unless told otherwise.
fn output(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join(name)
}

/// Figures that were written before.
fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn measure(options: &Options) -> Result<Value> {
    let model = match &options.model {
        Some(path) => path.clone(),
        None => made::model(if options.quick { "tiny" } else { "tinyllama-1.1b" }, "q4_k_m")?,
    };
    let least = plan(&model, options, 1)?;
    let runner = Runner::new(&model, options)?;
    let mut entries: Vec<(String, u64, Option<u64>, Plan)> = Vec::new();
    for &budget in &options.budgets {
        let Some((name, bytes, grouped)) = budget.of(&least) else { continue };
        // Without a cgroup ours is still held to its budget by itself; a peer without one is not.
        let limit = (grouped && runner.has_groups()).then_some(bytes + options.program_bytes);
        entries.push((name, bytes, limit, plan(&model, options, bytes)?));
    }
    // Taken before the bench is a load itself.
    let machine = machine::describe();
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); entries.len()];
    for repeat in 0..options.repeats {
        for ((name, bytes, limit, _), runs) in entries.iter().zip(&mut runs) {
            let grouped = name != "all in memory";
            let run = json!({
                "storage": runner.storage()?,
                "arithmetic": runner.ours(least.full_bytes, None)?,
                "together": runner.together(least.full_bytes)?,
                "ours": runner.ours(*bytes, *limit)?,
                "peer": runner.peers(*limit, grouped, runs.last())?,
            });
            println!("{}", report::line(repeat, name, &run));
            runs.push(run);
        }
    }
    let budgets: Vec<Value> = entries
        .iter()
        .zip(runs)
        .map(|((name, bytes, limit, plan), runs)| {
            json!({
                "name": name,
                "budget_bytes": bytes,
                "limit_bytes": limit,
                "pinned_bytes": plan.pinned_bytes,
                "streamed_bytes": plan.streamed_bytes,
                "runs": runs,
            })
        })
        .collect();
    let mut record = json!({
        "date": machine::today(),
        "machine": machine,
        "model": {
            "name": model.file_name().map(|n| n.to_string_lossy()),
            "file_bytes": least.file_bytes,
            "floor_bytes": least.floor_bytes,
            "full_bytes": least.full_bytes,
            "layers": least.layer_count,
        },
        "settings": {
            "threads": options.threads,
            "tokens": options.tokens,
            "context": options.context,
            "chunk": options.chunk,
            "repeats": options.repeats,
            "program_bytes": options.program_bytes,
            "groups": runner.has_groups(),
            "peer": runner.peer_description(),
        },
        "budgets": budgets,
    });
    report::summarise(&mut record);
    Ok(record)
}

/// What a longer chunk brings a prompt, and what it costs: its activations take memory from the frames.
fn compare_chunks(options: &Options) -> Result<()> {
    const PROMPT: u32 = 512;
    const MIB: f64 = 1048576.0;
    let model = match &options.model {
        Some(path) => path.clone(),
        None => made::model(if options.quick { "tiny" } else { "tinyllama-1.1b" }, "q4_k_m")?,
    };
    let runner = Runner::new(&model, options)?;
    let plans: Vec<(u32, u64, Plan)> = options
        .chunks
        .iter()
        .map(|&chunk| {
            let of_library = |budget| layerline::model::Options {
                chunk_length: chunk,
                context_length: PROMPT,
                ..options.of_library(budget)
            };
            let least = Model::plan(&model, &of_library(1)).map_err(|e| e.to_string())?;
            let budget = least.floor_bytes.max(least.file_bytes / 4);
            Ok((chunk, budget, Model::plan(&model, &of_library(budget)).map_err(|e| e.to_string())?))
        })
        .collect::<Result<_>>()?;
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); plans.len()];
    for _ in 0..options.repeats {
        for (&(chunk, budget, _), runs) in plans.iter().zip(&mut runs) {
            runs.push(runner.prompt(budget, PROMPT, chunk)?);
        }
    }
    println!("| chunk | budget MiB | activations MiB | prompt tok/s | read MiB |\n|--:|--:|--:|--:|--:|");
    for ((chunk, budget, plan), runs) in plans.iter().zip(&runs) {
        println!(
            "| {chunk} | {:.0} | {:.1} | {} |",
            *budget as f64 / MIB,
            plan.scratch_bytes as f64 / MIB,
            report::prompts(runs)
        );
    }
    Ok(())
}

fn plan(model: &Path, options: &Options, budget: u64) -> Result<Plan> {
    Model::plan(model, &options.of_library(budget)).map_err(|e| e.to_string())
}
