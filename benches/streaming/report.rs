//! From runs to medians, and from medians to a table.

use serde_json::{Value, json};

const MIB: f64 = 1048576.0;
/// A load average above which neighbours are measured too.
const BUSY: f64 = 1.0;

/// Adds `summary` to each budget of a record.
pub fn summarise(record: &mut Value) {
    let file = record["model"]["file_bytes"].as_f64().unwrap_or(0.0);
    let Some(budgets) = record["budgets"].as_array_mut() else { return };
    for budget in budgets {
        let streamed = budget["streamed_bytes"].as_f64().unwrap_or(0.0);
        let Some(runs) = budget["runs"].as_array() else { continue };
        let of = |pick: &dyn Fn(&Value) -> Option<f64>| spread(runs.iter().filter_map(pick).collect());
        let ours = |name: &'static str| of(&|run| run["ours"][name].as_f64());
        let mut summary = json!({
            "ours": ours("tokens_per_second"),
            "bound": of(&|run| bound(run, streamed)),
            "of_bound": of(&|run| Some(run["ours"]["tokens_per_second"].as_f64()? / bound(run, streamed)?)),
            "together": of(&|run| together(run, streamed)),
            "of_together": of(&|run| Some(run["ours"]["tokens_per_second"].as_f64()? / together(run, streamed)?)),
            "first": ours("first_logits_seconds"),
            "first_over_bound": of(&|run| Some(run["ours"]["first_logits_seconds"].as_f64()? / first_bound(run, file)?)),
            "arithmetic": of(&|run| run["arithmetic"]["tokens_per_second"].as_f64()),
            "storage": of(&|run| storage(run)),
            "read_bytes_per_pass": ours("read_bytes_per_pass"),
            "stall_seconds_per_pass": ours("stall_seconds_per_pass"),
            "layers_stalled_per_pass": ours("layers_stalled_per_pass"),
            "peak_bytes": ours("peak_bytes"),
            "max_bytes": ours("max_bytes"),
        });
        let settings = ["mapped", "repacked"].map(|name| {
            let figures = of(&|run| run["peer"][name]["tokens_per_second"].as_f64());
            let read = of(&|run| run["peer"][name]["read_bytes_per_pass"].as_f64());
            // One that ended in some repeat has no figure: it cannot be relied on at this limit.
            let ended = runs.iter().find_map(|run| run["peer"][name]["ended"].as_str());
            json!({ "setting": name, "ended": ended, "figures": figures, "read_bytes_per_pass": read })
        });
        let speed = |s: &Value| if s["ended"].is_null() { s["figures"]["median"].as_f64() } else { None };
        let better = settings
            .iter()
            .filter(|s| speed(s).is_some())
            .max_by(|a, b| speed(a).unwrap_or(0.0).total_cmp(&speed(b).unwrap_or(0.0)));
        let ended = settings.iter().find(|s| s["ended"].is_string());
        summary["peer"] = better.or(ended).cloned().unwrap_or(Value::Null);
        budget["summary"] = summary;
    }
}

/// The fastest way of reading in this repeat, in bytes per second: the hardest to hold up to.
fn storage(run: &Value) -> Option<f64> {
    run["storage"].as_object()?.values().filter_map(Value::as_f64).reduce(f64::max)
}

/// Tokens per second that no plan with this much streaming can exceed.
fn bound(run: &Value, streamed: f64) -> Option<f64> {
    let arithmetic = 1.0 / run["arithmetic"]["tokens_per_second"].as_f64()?;
    let reading = streamed / storage(run)?;
    Some(1.0 / arithmetic.max(reading))
}

/// Seconds that no program can fall below from an unread file to the first logits: whatever the budget, all of it is read.
fn first_bound(run: &Value, file: f64) -> Option<f64> {
    Some(run["arithmetic"]["prompt_seconds"].as_f64()?.max(file / storage(run)?))
}

/// Tokens per second that arithmetic and reading allow when each has the other beside it for as long as both go on, and
/// the longer one ends alone.
fn together(run: &Value, streamed: f64) -> Option<f64> {
    let both = &run["together"];
    let (pass, read) = (1.0 / both["tokens_per_second"].as_f64()?, streamed / both["storage"].as_f64()?);
    let shared = pass.min(read);
    // What is left of either, at the speed it has alone.
    let left_pass = (1.0 - shared / pass) / run["arithmetic"]["tokens_per_second"].as_f64()?;
    let left_read = if read > 0.0 { (1.0 - shared / read) * streamed / storage(run)? } else { 0.0 };
    Some(1.0 / (shared + left_pass + left_read))
}

/// Median, least and most; null of none.
pub fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 {
        return Value::Null;
    }
    let median = if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 };
    json!({ "median": median, "least": values[0], "most": values[n - 1] })
}

/// Tokens per second and MiB read of runs that took in a prompt, as columns.
pub fn prompts(runs: &[Value]) -> String {
    let median = |name: &str| {
        let values = spread(runs.iter().filter_map(|run| run[name].as_f64()).collect());
        values["median"].as_f64().unwrap_or(f64::NAN)
    };
    format!("{:.1} | {:.0}", median("tokens_per_second"), median("read_bytes") / MIB)
}

/// What one run gave, as it is measured.
pub fn line(repeat: usize, name: &str, run: &Value) -> String {
    let number = |v: &Value| v.as_f64().map_or("-".into(), |v| format!("{v:.2}"));
    let peer = |name: &str| match &run["peer"][name] {
        Value::Null => "-".to_string(),
        p => p["ended"].as_str().map_or_else(|| number(&p["tokens_per_second"]), String::from),
    };
    format!(
        "{}. {name:>13}: ours {} tok/s, stalled {} layers and {:.1} ms a pass; in memory {}; storage {:.2} GB/s; llama.cpp mapped {}, repacked {}",
        repeat + 1,
        number(&run["ours"]["tokens_per_second"]),
        number(&run["ours"]["layers_stalled_per_pass"]),
        run["ours"]["stall_seconds_per_pass"].as_f64().unwrap_or(0.0) * 1e3,
        number(&run["arithmetic"]["tokens_per_second"]),
        storage(run).unwrap_or(0.0) * 1e-9,
        peer("mapped"),
        peer("repacked"),
    )
}

/// Says so where the machine had other work.
pub fn load_warning(machine: &Value) -> String {
    let load = machine["load"].as_f64().filter(|l| *l > BUSY);
    load.map_or(String::new(), |load| {
        format!("The machine was busy (load {load:.1} at the start): these figures say little.\n\n")
    })
}

/// The figures as the documentation has them.
pub fn markdown(record: &Value) -> String {
    let number = |v: &Value| v.as_f64().unwrap_or(0.0);
    let (machine, model, settings) = (&record["machine"], &record["model"], &record["settings"]);
    let mut text = format!(
        "{} ({} MiB, {} layers, floor {:.0} MiB); {} threads, {} tokens a run, context {}, {} repeats.\n",
        model["name"].as_str().unwrap_or("?"),
        (number(&model["file_bytes"]) / MIB).round(),
        model["layers"],
        number(&model["floor_bytes"]) / MIB,
        settings["threads"],
        settings["tokens"],
        settings["context"],
        settings["repeats"],
    );
    text += &format!(
        "{}, {} cores, {:.0} GiB, {} ({}); {}.\n\n",
        machine["processor"].as_str().unwrap_or("?"),
        machine["cores"],
        number(&machine["memory_bytes"]) / MIB / 1024.0,
        machine["system"].as_str().unwrap_or("?"),
        machine["instructions"].as_str().unwrap_or("?"),
        record["date"].as_str().unwrap_or("?"),
    );
    text += &load_warning(machine);
    text += "| budget | MiB | streamed MiB a pass (read) | storage GB/s | in memory tok/s | bound tok/s | **ours tok/s** | of the bound | of both at once | layers stalled a pass | stall ms a pass | first logits s | over its bound | llama.cpp tok/s | it reads MiB a token |\n";
    text += "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for budget in record["budgets"].as_array().into_iter().flatten() {
        let s = &budget["summary"];
        let with = |v: &Value, scale: f64, digits: usize| {
            let part = |name: &str| format!("{:.*}", digits, number(&v[name]) * scale);
            match (part("median"), part("least"), part("most")) {
                _ if v.is_null() => "–".to_string(),
                (median, least, most) if least == most => median,
                (median, least, most) => format!("{median} ({least}–{most})"),
            }
        };
        let median = |v: &Value, scale: f64, digits: usize| format!("{:.*}", digits, number(&v["median"]) * scale);
        let peer = match s["peer"]["ended"].as_str() {
            Some(ended) => ended.to_string(),
            None if s["peer"].is_null() => "–".to_string(),
            None => {
                let copied = if s["peer"]["setting"] == "repacked" { " repacked" } else { "" };
                format!("{}{copied}", with(&s["peer"]["figures"], 1.0, 2))
            }
        };
        let peer_reads = &s["peer"]["read_bytes_per_pass"];
        text += &format!(
            "| {} | {:.0} | {:.0} ({}) | {} | {} | {} | **{}** | {} | {} | {} | {} | {} | {} | {peer} | {} |\n",
            budget["name"].as_str().unwrap_or("?"),
            number(&budget["budget_bytes"]) / MIB,
            number(&budget["streamed_bytes"]) / MIB,
            median(&s["read_bytes_per_pass"], 1.0 / MIB, 0),
            with(&s["storage"], 1e-9, 2),
            with(&s["arithmetic"], 1.0, 1),
            with(&s["bound"], 1.0, 2),
            with(&s["ours"], 1.0, 2),
            with(&s["of_bound"], 1.0, 2),
            with(&s["of_together"], 1.0, 2),
            median(&s["layers_stalled_per_pass"], 1.0, 1),
            median(&s["stall_seconds_per_pass"], 1e3, 1),
            with(&s["first"], 1.0, 2),
            with(&s["first_over_bound"], 1.0, 2),
            if peer_reads.is_null() { "–".into() } else { median(peer_reads, 1.0 / MIB, 0) },
        );
    }
    text
}
