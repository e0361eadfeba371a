//! Several sequences in the same sweeps: what each more is worth, at every budget.

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use layerline::model::{Logits, Model, Outputs, Plan};
use layerline::session::{BatchInput, Session, forward_batch};
use serde_json::{Value, json};

use crate::options::{Budget, Options};
use crate::report::{load_warning, spread};
use crate::run::Runner;
use crate::{Result, machine, made, output, plan, write};

const MIB: f64 = 1048576.0;
/// Steps that are not counted.
const WARM_UP: usize = 3;
/// A step stops the run after this long.
const LIMIT: Duration = Duration::from_secs(20);

/// How sequences come to share sweeps.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// By one call.
    Batch,
    /// Each has a thread of its own.
    Threads,
}

impl Way {
    pub const ALL: [Way; 2] = [Way::Batch, Way::Threads];

    pub fn name(self) -> &'static str {
        match self {
            Way::Batch => "batch",
            Way::Threads => "threads",
        }
    }
}

/// Measures each number of sequences at each budget, one after the other in each repeat.
pub fn compare(options: &Options) -> Result<()> {
    let model = match &options.model {
        Some(path) => path.clone(),
        None => made::model(if options.quick { "tiny" } else { "tinyllama-1.1b" }, "q4_k_m")?,
    };
    let runner = Runner::new(&model, options)?;
    let least = plan(&model, options, 1)?;
    let mut entries: Vec<(String, u64, bool, Plan)> = Vec::new();
    for &budget in &options.budgets {
        let (name, bytes, grouped) = match budget {
            Budget::Full => ("all in memory".to_string(), least.full_bytes, false),
            Budget::Percent(p) => (format!("{p} %"), (least.file_bytes as f64 * p / 100.0) as u64, true),
            Budget::Floor => ("floor".to_string(), least.floor_bytes, true),
        };
        if bytes < least.floor_bytes {
            println!("{name} of the file is below the floor of {} bytes: left out", least.floor_bytes);
            continue;
        }
        entries.push((name, bytes, grouped, plan(&model, options, bytes)?));
    }
    let machine = machine::describe();
    let cases = || options.batches.iter().flat_map(|&count| Way::ALL.map(|way| (count, way)));
    let cases: Vec<_> = cases().filter(|&(count, way)| count > 1 || way == Way::Batch).collect();
    let mut runs = vec![vec![Vec::new(); cases.len()]; entries.len()];
    for repeat in 0..options.repeats {
        for ((name, bytes, grouped, plan), runs) in entries.iter().zip(&mut runs) {
            for (&(count, way), runs) in cases.iter().zip(runs) {
                // Each more sequence brings its own memory, so that as much is left for weights.
                let budget = bytes + u64::from(count - 1) * plan.kv_bytes;
                let limit = (*grouped && runner.has_groups()).then_some(budget + options.program_bytes);
                let run = runner.batch(budget, limit, count, way)?;
                let figure = run["tokens_per_second"].as_f64().unwrap_or(0.0);
                println!("{}. {name:>13}, {count} by {}: {figure:.2} tok/s", repeat + 1, way.name());
                runs.push(run);
            }
        }
    }
    let of = |runs: &[Value], what: &str| spread(runs.iter().filter_map(|run| run[what].as_f64()).collect());
    let figures: Vec<Value> = entries
        .iter()
        .zip(&runs)
        .map(|((name, bytes, _, plan), runs)| {
            let cases = cases.iter().zip(runs).map(|(&(count, way), runs)| {
                json!({
                    "sequences": count,
                    "way": way.name(),
                    "tokens_per_second": of(runs, "tokens_per_second"),
                    "read_bytes_per_step": of(runs, "read_bytes_per_step"),
                })
            });
            json!({
                "name": name,
                "budget_bytes": bytes,
                "streamed_bytes": plan.streamed_bytes,
                "cases": cases.collect::<Vec<_>>(),
            })
        })
        .collect();
    let record =
        json!({ "date": machine::today(), "machine": machine, "threads": options.threads, "budgets": figures });
    let path = options.json.clone().unwrap_or_else(|| output("batch.json"));
    write(&path, &serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?)?;
    println!("figures: {}\n\n{}{}", path.display(), load_warning(&record["machine"]), markdown(&record));
    Ok(())
}

/// Tokens per second of all sequences together, how many times those of one, and what a step reads.
fn markdown(record: &Value) -> String {
    let number = |v: &Value| v.as_f64().unwrap_or(f64::NAN);
    let mut text =
        "| budget | MiB | sequences | by | all together tok/s | times one | one of them tok/s | read MiB a step |\n\
                    |---|--:|--:|---|--:|--:|--:|--:|\n"
            .to_string();
    for budget in record["budgets"].as_array().into_iter().flatten() {
        let one = number(&budget["cases"][0]["tokens_per_second"]["median"]);
        for case in budget["cases"].as_array().into_iter().flatten() {
            let (speed, count) = (&case["tokens_per_second"], number(&case["sequences"]));
            text += &format!(
                "| {} | {:.0} | {count} | {} | {:.2} ({:.2}–{:.2}) | {:.2} | {:.2} | {:.0} |\n",
                budget["name"].as_str().unwrap_or("?"),
                number(&budget["budget_bytes"]) / MIB,
                case["way"].as_str().unwrap_or("?"),
                number(&speed["median"]),
                number(&speed["least"]),
                number(&speed["most"]),
                number(&speed["median"]) / one,
                number(&speed["median"]) / count,
                number(&case["read_bytes_per_step"]["median"]) / MIB,
            );
        }
    }
    text
}

/// Decodes `tokens` tokens of `count` sequences, each after a prompt of its own of `before` tokens.
pub fn decode(
    path: &Path,
    options: &layerline::model::Options,
    tokens: usize,
    before: usize,
    (count, way): (usize, &str),
) -> Result<Value> {
    let text = |e: layerline::Error| e.to_string();
    let model = Model::open(path, options).map_err(text)?;
    let vocabulary = model.info().vocab_size as usize;
    let token = |sequence: usize, i: usize| ((sequence * 31 + i) * 7919 % vocabulary) as i32;
    let mut sessions =
        (0..count).map(|_| Session::new(&model, 0)).collect::<layerline::Result<Vec<_>>>().map_err(text)?;
    let prompts: Vec<Vec<i32>> = (0..count).map(|s| (1..=before).map(|i| token(s, i)).collect()).collect();
    batch(&mut sessions, &prompts)?;
    let (seconds, steps, read) = if way == Way::Threads.name() {
        let barrier = Barrier::new(count + 1);
        std::thread::scope(|scope| -> Result<_> {
            let run = |s: usize, session: &mut Session| -> Result<()> {
                for i in 0..WARM_UP {
                    session.forward(&[token(s, before + i)], Logits::Last).map_err(text)?;
                }
                barrier.wait();
                for i in 0..tokens {
                    session.forward(&[token(s, before + WARM_UP + i)], Logits::Last).map_err(text)?;
                }
                session.pause();
                Ok(())
            };
            let run = &run;
            let threads: Vec<_> =
                sessions.iter_mut().enumerate().map(|(s, session)| scope.spawn(move || run(s, session))).collect();
            barrier.wait();
            let (started, read) = (Instant::now(), model.stats().read_bytes);
            for thread in threads {
                thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))?;
            }
            Ok((started.elapsed().as_secs_f64(), tokens, model.stats().read_bytes - read))
        })?
    } else {
        let step = |sessions: &mut [Session], i: usize| {
            batch(sessions, &(0..count).map(|s| vec![token(s, before + i)]).collect::<Vec<_>>())
        };
        for i in 0..WARM_UP {
            step(&mut sessions, i)?;
        }
        let (started, read) = (Instant::now(), model.stats().read_bytes);
        let mut done = 0;
        while done < tokens && (done == 0 || started.elapsed() < LIMIT) {
            step(&mut sessions, WARM_UP + done)?;
            done += 1;
        }
        (started.elapsed().as_secs_f64(), done, model.stats().read_bytes - read)
    };
    Ok(json!({
        "tokens_per_second": (steps * count) as f64 / seconds,
        "read_bytes_per_step": read as f64 / steps as f64,
        "peak_bytes": model.stats().peak_bytes,
    }))
}

fn batch(sessions: &mut [Session], tokens: &[Vec<i32>]) -> Result<()> {
    let outputs = Outputs::from(Logits::Last);
    let inputs = sessions.iter_mut().zip(tokens);
    let mut inputs: Vec<BatchInput> = inputs.map(|(session, tokens)| BatchInput { session, tokens, outputs }).collect();
    forward_batch(&mut inputs).into_iter().collect::<layerline::Result<()>>().map_err(|e| e.to_string())
}
