//! Decoding a trace with a model that follows it. Each run is a process of its own, in a memory cgroup of its own where
//! there are any; runs of all ways take turns.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use layerline::model::{Logits, Model, Options};
use layerline::session::Session;
use layerline::weights::KeptExperts;
use serde_json::{Value, json};

use crate::trace::{Trace, token_of};
use crate::{ROOT, Result, cache, chart, made, storage};

pub const WORKER: &str = "--worker";
pub const USAGE: &str = "\
       cargo bench --bench experts -- --end-to-end TRACE [OPTIONS]
  --model FILE      made for this trace; default: experts q4_0, made in models/
  --shares LIST     per cent of the file; default 12,25,50,full
  --repeats N       default 3
  --json FILE       figures; default target/bench/experts.json; the chart is beside it
  --peer-python PATH   a Python that has llama_cpp; default: the environment's LAYERLINE_PEER_PYTHON, else none";

/// What a cgroup grants beside the budget: the program itself.
const PROGRAM_BYTES: u64 = 24 << 20;
/// Status of scripts/cgroup_budget.sh where no group can be made.
const NO_GROUP: i32 = 77;
/// llama.cpp decodes so many tokens that are not counted, and then for so long, or to the end of the trace.
const PEER_BEFORE: usize = 16;
const PEER_SECONDS: usize = 20;

pub fn run(arguments: &[String]) -> Result<()> {
    let mut arguments = arguments.iter().cloned();
    let trace_path = arguments.next().ok_or(USAGE)?;
    let trace = Trace::read(&trace_path)?;
    let (mut model, mut repeats, mut shares) = (None, 3, "12,25,50,full".to_string());
    let mut peer = std::env::var_os("LAYERLINE_PEER_PYTHON").filter(|p| !p.is_empty()).map(PathBuf::from);
    let mut output = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench").join("experts.json");
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--model" => model = Some(PathBuf::from(value)),
            "--repeats" => repeats = value.parse().map_err(|_| format!("--repeats: {value:?} is not a count"))?,
            "--shares" => shares = value,
            "--peer-python" => peer = Some(value.into()),
            "--json" => output = value.into(),
            _ => return Err(format!("{flag:?} is not an option\n{USAGE}")),
        }
    }
    let model = model.map_or_else(|| made(&trace_path), Ok)?;
    let plan = Model::plan(&model, &options(1, KeptExperts::Cached)).map_err(|e| e.to_string())?;
    let budgets = shares.split(',').map(|share| match share.trim() {
        "full" => Ok(("in memory".to_string(), plan.full_bytes)),
        percent => match percent.parse::<u64>() {
            Ok(n) => Ok((format!("{n} %"), (plan.file_bytes * n / 100).max(plan.floor_bytes))),
            Err(_) => Err(format!("--shares: {percent:?} is not a percentage")),
        },
    });
    let budgets = budgets.collect::<Result<Vec<_>>>()?;
    println!("{}: {} bytes, {} tokens, the second half counts", model.display(), plan.file_bytes, trace.tokens.len());
    let ways = [("cache", KeptExperts::Cached), ("fixed share", KeptExperts::FixedShare)];
    let mut runs: Vec<[Vec<Value>; 4]> = budgets.iter().map(|_| Default::default()).collect();
    for repeat in 0..repeats {
        for ((name, budget), runs) in budgets.iter().zip(&mut runs) {
            for ((way, _), runs) in ways.iter().zip(&mut *runs) {
                let run = child(&model, *budget, &trace_path, way)?;
                println!("{repeat} {name:<10} {way:<12} {run}");
                runs.push(run);
            }
            let speed = storage::measure(&model, plan.expert_working_set_bytes as usize / uses_of(&trace) / 3)?;
            println!("{repeat} {name:<10} {:<12} {speed}", "storage");
            runs[2].push(speed);
            if let Some(python) = &peer {
                let run = peer_run(python, &model, *budget, trace.tokens.len())?;
                println!("{repeat} {name:<10} {:<12} {run}", "llama.cpp");
                runs[3].push(run);
            }
        }
    }
    // With everything in memory a token takes its arithmetic alone.
    let full = budgets.iter().zip(&runs).find(|((name, _), _)| name == "in memory");
    let arithmetic = full.map(|(_, runs)| 1.0 / median(figures(&runs[0], "tokens_per_second")));
    println!(
        "\n| budget | cache tok/s | fixed share tok/s | ratio | llama.cpp tok/s | bytes found, cache | fixed | \
         MB missed per token | storage GB/s | time over the bound | expert in one read, in three, µs |"
    );
    println!("|--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut rows = Vec::new();
    for ((name, budget), runs) in budgets.iter().zip(runs) {
        let of = |i: usize, key: &str| median(figures(&runs[i], key));
        let [cache, fixed, _, llama] = [0, 1, 2, 3].map(|i| of(i, "tokens_per_second"));
        let (missed, speed) = (of(0, "missed_bytes_per_token"), of(2, "bytes_per_second"));
        let found = |i| 100.0 * (1.0 - of(i, "missed_bytes_per_token") / plan.expert_working_set_bytes as f64);
        let over = arithmetic.map(|seconds| 1.0 / cache / seconds.max(missed / speed));
        println!(
            "| {name} | {cache:.2} | {fixed:.2} | {:.2} | {llama:.2} | {:.1} % | {:.1} % | {:.1} / {:.1} | {:.2} | {} | {:.0}, {:.0} |",
            cache / fixed,
            found(0),
            found(1),
            missed / 1e6,
            of(1, "missed_bytes_per_token") / 1e6,
            speed / 1e9,
            over.map_or("–".into(), |over| format!("{over:.2}")),
            of(2, "one_read_seconds") * 1e6,
            of(2, "three_reads_seconds") * 1e6,
        );
        let [cached, kept, storage, peer] = runs;
        rows.push(json!({
            "share": name,
            "budget_bytes": budget,
            "cache": cached,
            "fixed_share": kept,
            "storage": storage,
            "peer": peer,
            "summary": {
                "cache": { "tokens_per_second": cache },
                "fixed_share": { "tokens_per_second": fixed },
                "peer": { "tokens_per_second": llama },
                "time_over_bound": over,
            },
        }));
    }
    let record = json!({
        "trace": trace_path,
        "trace_name": Path::new(&trace_path).file_stem().map(|name| name.to_string_lossy()),
        "model": { "file_bytes": plan.file_bytes, "working_set_bytes": plan.expert_working_set_bytes },
        "budgets": rows,
    });
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?;
    std::fs::write(&output, text).map_err(|e| format!("{}: {e}", output.display()))?;
    let picture = output.with_extension("svg");
    std::fs::write(&picture, chart::svg(&record)?).map_err(|e| format!("{}: {e}", picture.display()))?;
    println!("figures: {}, {}", output.display(), picture.display());
    Ok(())
}

fn figures(runs: &[Value], key: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| run[key].as_f64()).collect()
}

/// Experts that a token uses, of all layers.
fn uses_of(trace: &Trace) -> usize {
    (trace.used() * trace.layers).max(1) as usize
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn options(budget: u64, kept_experts: KeptExperts) -> Options {
    Options { memory_budget: budget, context_length: 384, chunk_length: 8, kept_experts, ..Options::default() }
}

/// llama.cpp decodes the same tokens one at a time, its weights mapped, in a group of the same limit and what the
/// interpreter takes.
fn peer_run(python: &Path, model: &Path, budget: u64, tokens: usize) -> Result<Value> {
    cache::forget(model)?;
    let script = Path::new(ROOT).join("scripts/peer_decode.py");
    let describe = Command::new(python).arg(&script).arg("--describe").output().map_err(|e| e.to_string())?;
    let own = last_json(&describe.stdout).and_then(|v| v["interpreter_bytes"].as_u64()).unwrap_or(0);
    let mut command = Command::new(Path::new(ROOT).join("scripts/cgroup_budget.sh"));
    command.arg((budget + PROGRAM_BYTES + own).to_string()).arg(python).arg(&script).arg(model);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    for (name, value) in [
        ("--threads", threads),
        ("--context", 384),
        ("--chunk", 1),
        ("--before", PEER_BEFORE),
        ("--tokens", tokens - PEER_BEFORE - 2),
        ("--seconds", PEER_SECONDS),
        ("--first", token_of(0) as usize),
    ] {
        command.args([name, &value.to_string()]);
    }
    let out = command.output().map_err(|e| e.to_string())?;
    let complaint = || String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default().to_string();
    Ok(last_json(&out.stdout).unwrap_or_else(|| json!({ "ended": complaint() })))
}

fn last_json(text: &[u8]) -> Option<Value> {
    serde_json::from_str(String::from_utf8_lossy(text).lines().last()?).ok()
}

/// The model of a trace, written to models/ where it is missing.
fn made(trace: &str) -> Result<PathBuf> {
    let name = Path::new(trace).file_stem().map_or("trace".into(), |name| name.to_string_lossy());
    let trace = std::path::absolute(trace).map_err(|e| format!("{trace}: {e}"))?;
    let options = ["--shape", "experts", "--type", "q4_0", "--trace"].map(OsStr::new);
    made::written(&format!("experts-{name}-q4_0"), options.into_iter().chain([trace.as_os_str()]))
}

fn child(model: &Path, budget: u64, trace: &str, way: &str) -> Result<Value> {
    cache::forget(model)?;
    let bench = std::env::current_exe().map_err(|e| e.to_string())?;
    let spawn = |grouped: bool| {
        let mut command = if grouped {
            let mut command = Command::new(Path::new(ROOT).join("scripts/cgroup_budget.sh"));
            command.arg((budget + PROGRAM_BYTES).to_string()).arg(&bench);
            command
        } else {
            Command::new(&bench)
        };
        command.arg(WORKER).arg(model).args([&budget.to_string(), trace, way]);
        command.output().map_err(|e| e.to_string())
    };
    let mut out = spawn(true)?;
    let grouped = out.status.code() != Some(NO_GROUP);
    if !grouped {
        out = spawn(false)?;
    }
    let mut result =
        last_json(&out.stdout).ok_or_else(|| format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr)))?;
    result["in_a_group"] = json!(grouped);
    Ok(result)
}

/// `MODEL BUDGET TRACE WAY`: decodes the trace, and prints what its second half took as a line of JSON.
pub fn work(arguments: &[String]) -> Result<()> {
    let [model, budget, trace, way] = arguments else { return Err("a worker takes four arguments".into()) };
    let text = |e: layerline::Error| e.to_string();
    let budget = budget.parse().map_err(|_| "the budget is not a number")?;
    let kept = if way == "cache" { KeptExperts::Cached } else { KeptExperts::FixedShare };
    let trace = Trace::read(trace)?;
    let model = Model::open(Path::new(model), &options(budget, kept)).map_err(text)?;
    let mut session = Session::new(&model, 0).map_err(text)?;
    let half = trace.tokens.len() / 2;
    let (mut before, mut started) = (model.stats(), Instant::now());
    for t in 0..trace.tokens.len() {
        if t == half {
            (before, started) = (model.stats(), Instant::now());
        }
        session.forward(&[token_of(t as u32) as i32], Logits::Last).map_err(text)?;
    }
    let (seconds, after) = (started.elapsed().as_secs_f64(), model.stats());
    let tokens = (trace.tokens.len() - half) as f64;
    let (hits, misses) = (after.expert_hits - before.expert_hits, after.expert_misses - before.expert_misses);
    let foreseen = after.expert_misses_foreseen - before.expert_misses_foreseen;
    let result = json!({
        "tokens_per_second": tokens / seconds,
        "experts_found_percent": 100.0 * hits as f64 / (hits + misses).max(1) as f64,
        "uses": hits + misses,
        "misses_foreseen_percent": 100.0 * foreseen as f64 / misses.max(1) as f64,
        "missed_bytes_per_token": (after.expert_missed_bytes - before.expert_missed_bytes) as f64 / tokens,
        "read_bytes_per_token": (after.read_bytes - before.read_bytes) as f64 / tokens,
        "stall_seconds_per_token": (after.stall_ns - before.stall_ns) as f64 * 1e-9 / tokens,
        "used_bytes": after.used_bytes,
        "peak_bytes": after.peak_bytes,
        "budget_bytes": after.budget_bytes,
    });
    println!("{result}");
    Ok(())
}
