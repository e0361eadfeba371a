//! Speed with everything in memory: `make bench-speed`, or `cargo bench --bench speed -- OPTIONS`.
//!
//! Takes in a prompt of 512 tokens, decodes at the start of the context and at 4096, beside llama.cpp where a Python has it:
//! with its weights where they are mapped, and with its default of copying them into a layout of its own. The ratio is to the
//! better of the two, of runs that follow each other.

#[path = "streaming/cache.rs"]
mod cache;
#[path = "streaming/machine.rs"]
mod machine;
#[path = "streaming/made.rs"]
mod made;
#[allow(dead_code)] // What only budgets need.
#[path = "streaming/options.rs"]
mod options;
#[allow(dead_code)]
#[path = "streaming/run.rs"]
mod run;
#[allow(dead_code)]
#[path = "streaming/sequences.rs"]
mod sequences;
#[path = "streaming/worker.rs"]
mod worker;

use layerline::model::Model;
use options::Options;
use run::Runner;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, String>;

/// The source tree: scripts and models are found from here.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const USAGE: &str = "\
usage: cargo bench --bench speed -- [OPTIONS]      (or make bench-speed ARGS='OPTIONS')
  --model FILE         measure this model; may be given again. Default: SmolLM2, Gemma 3 270M and the 7B shape where they
                       are in models/, and the 1.1B shape in Q4_K_M, Q4_0 and Q8_0, made there
  --tasks LIST         of prompt, decode and deep (decoding at 4096 tokens); default: all
  --tokens N           tokens decoded; default 64
  --before N           tokens before those that are decoded; default 8. A model with experts needs some hundred, which
                       bring its experts to memory
  --repeats N          default 3
  --skip-peer          default: compared where LAYERLINE_PEER_PYTHON names a Python that has llama_cpp
  --json FILE          the figures of every run";

/// What is measured of a model: its name, tokens before those decoded, and the figure that counts.
const TASKS: [(&str, usize, &str); 3] = [
    ("prompt", 512, "prompt_tokens_per_second"),
    ("decode", worker::SHORT, "tokens_per_second"),
    ("deep", 4096, "tokens_per_second"),
];
/// A file of more bytes takes too long to fill a context of 4096 tokens with.
const DEEP_BYTES: u64 = 2 << 30;

struct Wanted {
    models: Vec<PathBuf>,
    tasks: Vec<String>,
    tokens: usize,
    before: usize,
    repeats: usize,
    skip_peer: bool,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        // `cargo test` over all targets starts benches without arguments; a bench is not a test.
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let result = match &arguments[..] {
        [flag, rest @ ..] if flag == worker::FLAG => worker::main(rest),
        _ => parse(arguments.into_iter().filter(|a| a != "--bench")).and_then(|wanted| match wanted {
            Some(wanted) => bench(&wanted),
            None => {
                println!("{USAGE}");
                Ok(())
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("speed: {message}");
            ExitCode::FAILURE
        }
    }
}

/// `None`: help was asked for.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wanted>> {
    let tasks = TASKS.iter().map(|task| task.0.to_string()).collect();
    let (models, before) = (Vec::new(), worker::SHORT);
    let mut wanted = Wanted { models, tasks, tokens: 64, before, repeats: 3, skip_peer: false, json: None };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value"));
        let count = |text: String| text.parse().ok().filter(|n| *n > 0).ok_or(format!("{flag}: {text:?} is no count"));
        match flag.as_str() {
            "--model" => wanted.models.push(value()?.into()),
            "--tasks" => wanted.tasks = value()?.split(',').map(String::from).collect(),
            "--tokens" => wanted.tokens = count(value()?)?,
            "--before" => wanted.before = count(value()?)?,
            "--repeats" => wanted.repeats = count(value()?)?,
            "--skip-peer" => wanted.skip_peer = true,
            "--json" => wanted.json = Some(value()?.into()),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("{flag:?} is not an option\n{USAGE}")),
        }
    }
    if let Some(task) = wanted.tasks.iter().find(|name| TASKS.iter().all(|task| task.0 != **name)) {
        return Err(format!("--tasks: there is no {task:?}"));
    }
    if wanted.models.is_empty() {
        let known = |name: &str| Some(Path::new(ROOT).join("models").join(name)).filter(|path| path.exists());
        let fetched = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-Q4_K_M.gguf"];
        wanted.models.extend(fetched.into_iter().filter_map(known));
        for kind in ["q4_k_m", "q4_0", "q8_0"] {
            wanted.models.push(made::model("tinyllama-1.1b", kind)?);
        }
        wanted.models.extend(known("llama2-7b-q4_k_m.gguf"));
    }
    Ok(Some(wanted))
}

fn bench(wanted: &Wanted) -> Result<()> {
    let mut rows = Vec::new();
    println!(
        "| model | task | ours tok/s | llama.cpp mapped | repacked | ratio to the better |\n|---|---|--:|--:|--:|--:|"
    );
    for model in &wanted.models {
        let bytes = std::fs::metadata(model).map_err(|e| format!("{}: {e}", model.display()))?.len();
        for (task, before, figure) in TASKS.into_iter().filter(|task| wanted.tasks.iter().any(|name| name == task.0)) {
            let before = if task == "decode" { wanted.before } else { before };
            if before <= 512 || bytes <= DEEP_BYTES {
                rows.push(measure(wanted, model, task, before, figure)?);
            }
        }
    }
    if let Some(path) = &wanted.json {
        let record = json!({ "date": machine::today(), "machine": machine::describe(), "rows": rows });
        std::fs::write(path, format!("{record:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn measure(wanted: &Wanted, model: &Path, task: &str, before: usize, figure: &str) -> Result<Value> {
    // A prompt's time does not depend on what is decoded after it.
    let tokens = if task == "prompt" { 1 } else { wanted.tokens };
    let mut options: Options = options::parse(std::iter::empty())?.expect("no help was asked for");
    options.before = before;
    options.tokens = tokens;
    options.chunk = 512;
    // Nothing of the model is read while something is measured.
    options.forget = false;
    options.context = (before + tokens + 16).next_multiple_of(256) as u32;
    if wanted.skip_peer {
        options.peer_python = None;
    }
    let full = Model::plan(model, &options.of_library(1)).map_err(|e| e.to_string())?.full_bytes;
    let runner = Runner::new(model, &options)?;
    let mut runs = Vec::new();
    for _ in 0..wanted.repeats {
        runs.push(json!({ "ours": runner.ours(full, None)?, "peer": runner.peers(None, false, None)? }));
    }
    let of = |pick: &dyn Fn(&Value) -> Option<f64>| median(runs.iter().filter_map(pick).collect());
    let peer = |run: &Value, setting: &str| run["peer"][setting][figure].as_f64();
    // One of the two may not run: a llama.cpp that was compiled for another processor ends with a fault.
    let better =
        |run: &Value| ["mapped", "repacked"].into_iter().filter_map(|setting| peer(run, setting)).reduce(f64::max);
    let ours = of(&|run| run["ours"][figure].as_f64());
    let [mapped, repacked] = ["mapped", "repacked"].map(|setting| of(&|run| peer(run, setting)));
    let ratio = of(&|run| Some(run["ours"][figure].as_f64()? / better(run)?));
    let name = model.file_name().map_or("?".into(), |n| n.to_string_lossy());
    let text = |v: Option<f64>, digits: usize| v.map_or("–".to_string(), |v| format!("{v:.digits$}"));
    println!(
        "| {name} | {task} | {} | {} | {} | {} |",
        text(ours, 1),
        text(mapped, 1),
        text(repacked, 1),
        text(ratio, 2)
    );
    Ok(json!({
        "model": name, "task": task, "before": before, "tokens": tokens, "ours": ours, "mapped": mapped,
        "repacked": repacked, "ratio": ratio, "runs": runs,
    }))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (n > 0).then(|| (values[(n - 1) / 2] + values[n / 2]) / 2.0)
}
