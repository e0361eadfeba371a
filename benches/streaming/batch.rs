//! Several sequences in the same sweeps: what each more is worth, at every budget.

use layerline::model::Plan;
use serde_json::{Value, json};

use crate::options::Options;
use crate::report::{load_warning, spread};
use crate::run::Runner;
use crate::sequences::Way;
use crate::{Result, machine, made, output, plan, write};

const MIB: f64 = 1048576.0;
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
