//! Several sequences in the same sweeps: what each more is worth, at every budget.

use layerline::model::Plan;
use serde_json::{Value, json};

use crate::options::Options;
use crate::report::{load_warning, spread};
use crate::run::Runner;
use crate::sequences::Way;
use crate::{Result, chart, machine, made, output, plan, write};

const MIB: f64 = 1048576.0;

/// The peer's passes over a token of each sequence.
pub const PEER: &str = "llama.cpp";

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
        let Some((name, bytes, grouped)) = budget.of(&least) else { continue };
        entries.push((name, bytes, grouped, plan(&model, options, bytes)?));
    }
    let machine = machine::describe();
    let peer = options.peer_python.is_some();
    let cases = || options.batches.iter().flat_map(|&count| Way::ALL.map(|way| (count, Some(way))));
    let mut cases: Vec<_> = cases().filter(|&(count, way)| count > 1 || way == Some(Way::Batch)).collect();
    cases.extend(options.batches.iter().filter(|_| peer).map(|&count| (count, None)));
    let name_of = |way: Option<Way>| way.map_or(PEER, Way::name);
    let mut runs = vec![vec![Vec::new(); cases.len()]; entries.len()];
    for repeat in 0..options.repeats {
        for ((name, bytes, grouped, plan), runs) in entries.iter().zip(&mut runs) {
            for (&(count, way), runs) in cases.iter().zip(runs) {
                // Each more sequence brings its own memory, so that as much is left for weights.
                let budget = bytes + u64::from(count - 1) * plan.kv_bytes;
                let limit = (*grouped && runner.has_groups()).then_some(budget + options.program_bytes);
                let run = match way {
                    Some(way) => runner.batch(budget, limit, count, way)?,
                    None => runner.peer_batch(limit, *grouped, count, runs.last())?,
                };
                let figure = match (run["tokens_per_second"].as_f64(), run["ended"].as_str()) {
                    (Some(figure), _) => format!("{figure:.2} tok/s"),
                    (None, ended) => ended.unwrap_or("not measured").to_string(),
                };
                println!("{}. {name:>13}, {count} by {}: {figure}", repeat + 1, name_of(way));
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
                    "way": name_of(way),
                    // What ended in some repeat cannot be relied on.
                    "ended": runs.iter().find_map(|run| run["ended"].as_str()),
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
    let record = json!({
        "date": machine::today(),
        "machine": machine,
        "model": { "name": model.file_name().map(|n| n.to_string_lossy()), "file_bytes": least.file_bytes },
        "threads": options.threads,
        "repeats": options.repeats,
        "peer": runner.peer_description(),
        "budgets": figures,
    });
    let path = options.json.clone().unwrap_or_else(|| output("batch.json"));
    write(&path, &serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?)?;
    println!("figures: {}\n\n{}{}", path.display(), load_warning(&record["machine"]), markdown(&record));
    draw(options, &record)
}

/// The chart of a record, and its table.
pub fn render(options: &Options, record: &Value) -> Result<()> {
    println!("{}", markdown(record));
    draw(options, record)
}

fn draw(options: &Options, record: &Value) -> Result<()> {
    let path = options.svg.clone().unwrap_or_else(|| output("batch.svg"));
    write(&path, &chart::of_batches(record)?)?;
    println!("chart: {}", path.display());
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
        let cases = || budget["cases"].as_array().into_iter().flatten();
        // Each is held against its own single sequence.
        let one = |peer: bool| {
            let single = cases().find(|case| number(&case["sequences"]) == 1.0 && (case["way"] == PEER) == peer);
            single.map_or(f64::NAN, |case| number(&case["tokens_per_second"]["median"]))
        };
        for case in cases() {
            let (speed, count) = (&case["tokens_per_second"], number(&case["sequences"]));
            if let Some(ended) = case["ended"].as_str() {
                text += &format!(
                    "| {} | {:.0} | {count} | {PEER} | {ended} | – | – | – |\n",
                    budget["name"].as_str().unwrap_or("?"),
                    number(&budget["budget_bytes"]) / MIB,
                );
                continue;
            }
            let one = one(case["way"] == PEER);
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
