//! What drafts are worth: the same texts with and without them, in turns.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use layerline::generate::{DraftModel, Generation, GenerationStats};
use layerline::model::{Model, Options as ModelOptions};
use layerline::{Sampler, Session};
use serde_json::{Value, json};

use crate::options::Options;
use crate::report::{load_warning, spread};
use crate::{ROOT, Result, machine, output, write};

const MODEL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// Drafts of a pass at most.
const MAX_DRAFTS: usize = 16;
const CONTEXT: u32 = 640;
/// Short, so that a third of a small file is above the floor.
const CHUNK: u32 = 64;

const PARAGRAPH: &str = "The harbour of Lindholm was built in 1874 by a company of stone masons from the north. It has two \
piers, a lighthouse with a red lantern, and a long wall against the winter storms. Every morning the boats leave before \
sunrise and come back in the afternoon with herring and cod. The market on the quay opens at three, and Anna Berg, who has \
sold fish there for thirty years, knows every captain by name. In summer the harbour is full of visitors who come to see \
the old cranes, which still work, and to eat at the small restaurant in the customs house.";

/// A task: its name, what the user asks, and whether its text repeats parts of what is given.
fn tasks() -> [(&'static str, String, bool); 4] {
    let asked = |what: &str| format!("<|im_start|>user\n{what}<|im_end|>\n<|im_start|>assistant\n");
    let record = |n: u32, name: &str, city: &str, sum: u32| {
        format!(
            "{{\"id\": {n}, \"name\": \"{name}\", \"address\": {{\"city\": \"{city}\", \"country\": \"Norway\"}}, \"orders\": {sum}, \"active\": true}}\n"
        )
    };
    let records: String =
        [("Anna Berg", "Oslo", 12), ("Jon Dahl", "Bergen", 7), ("Kari Lie", "Bodo", 31), ("Per Moe", "Hamar", 4)]
            .iter()
            .zip(1..)
            .map(|(&(name, city, sum), n)| record(n, name, city, sum))
            .collect();
    [
        (
            "rewrite with one change",
            asked(&format!(
                "Repeat the following text word for word, but write Maria Berg instead of Anna Berg.\n\n{PARAGRAPH}"
            )),
            true,
        ),
        ("continue records", format!("A file of customers, one JSON object a line:\n{records}"), true),
        (
            "summarise with quotations",
            asked(&format!(
                "List the most important sentences of this text, each quoted word for word.\n\n{PARAGRAPH}"
            )),
            true,
        ),
        ("free text", asked("Tell me a short story about a boy who finds a boat."), false),
    ]
}

struct Case {
    model: Arc<Model>,
    drafter: Option<Arc<Model>>,
    tokens: usize,
}

impl Case {
    /// The tokens of a text and its tokens per second, without the prompt.
    fn run(&self, prompt: &str, drafts: bool) -> layerline::Result<(Vec<i32>, f64, GenerationStats)> {
        let tokenizer = self.model.tokenizer()?;
        let mut session = Session::new(&self.model, 0)?;
        let mut generation = Generation::new();
        generation.set_max_tokens(self.tokens);
        match (&self.drafter, drafts) {
            (Some(model), true) => generation.draft_with(DraftModel::new(model, CONTEXT)?, MAX_DRAFTS)?,
            (None, true) => generation.draft_from_text(MAX_DRAFTS)?,
            (_, false) => {}
        }
        let prompt = tokenizer.encode(prompt, true, true);
        let (mut tokens, mut first) = (Vec::new(), Instant::now());
        let mut sampler = Sampler::new();
        generation.run(&mut session, tokenizer, &mut sampler, &prompt, |token, _| {
            if tokens.is_empty() {
                first = Instant::now();
            }
            tokens.push(token);
            ControlFlow::Continue(())
        })?;
        let seconds = first.elapsed().as_secs_f64();
        Ok((tokens.clone(), (tokens.len() as f64 - 1.0) / seconds, generation.stats()))
    }
}

/// Measures every task at every budget.
pub fn compare(options: &Options, drafter: Option<&PathBuf>) -> Result<()> {
    let text = |e: layerline::Error| e.to_string();
    let path = options.model.clone().unwrap_or_else(|| PathBuf::from(ROOT).join("models").join(MODEL));
    let settings = |memory_budget| ModelOptions {
        memory_budget,
        threads: options.threads,
        context_length: CONTEXT,
        chunk_length: CHUNK,
        ..ModelOptions::default()
    };
    let plan = Model::plan(&path, &settings(0)).map_err(text)?;
    let mut record = json!({ "date": machine::today(), "machine": machine::describe(), "threads": options.threads });
    let mut budgets = Vec::new();
    for &budget in &options.budgets {
        let Some((name, bytes, grouped)) = budget.of(&plan) else { continue };
        // With rows of logits for drafts all is to stay in memory.
        let bytes = if grouped { bytes } else { bytes + (64 << 20) };
        let drafter = match drafter {
            Some(path) => Some(Model::open(path, &settings(4 << 30)).map_err(text)?),
            None => None,
        };
        let case = Case {
            model: Model::open(&path, &settings(bytes)).map_err(text)?,
            drafter,
            tokens: options.tokens.max(96),
        };
        let mut cases = Vec::new();
        for (task, prompt, repeats_itself) in tasks().into_iter().filter(|task| task.0.contains(&options.task)) {
            let (mut plain, mut drafted, mut last) = (Vec::new(), Vec::new(), GenerationStats::default());
            for _ in 0..options.repeats {
                let (want, speed, _) = case.run(&prompt, false).map_err(text)?;
                plain.push(speed);
                let (got, speed, stats) = case.run(&prompt, true).map_err(text)?;
                drafted.push(speed);
                last = stats;
                if got != want {
                    return Err(format!("{task}, {name}: another text with drafts than without"));
                }
            }
            let (plain, drafted) = (spread(plain), spread(drafted));
            let median = |v: &Value| v["median"].as_f64().unwrap_or(f64::NAN);
            println!(
                "{name:>13}, {task}: {:.2} -> {:.2} tok/s, {:.2} times; {} of {} drafts right, {} tokens in {} passes",
                median(&plain),
                median(&drafted),
                median(&drafted) / median(&plain),
                last.accepted,
                last.drafted,
                last.tokens,
                last.passes
            );
            cases.push(json!({
                "task": task,
                "repeats_itself": repeats_itself,
                "plain": plain,
                "drafted": drafted,
                "times": median(&drafted) / median(&plain),
                "drafts": last.drafted,
                "accepted": last.accepted,
                "tokens": last.tokens,
                "passes": last.passes,
            }));
        }
        budgets.push(json!({ "name": name, "budget_bytes": bytes, "tasks": cases }));
    }
    record["budgets"] = json!(budgets);
    let path = options.json.clone().unwrap_or_else(|| output("drafts.json"));
    write(&path, &serde_json::to_string_pretty(&record).map_err(|e| e.to_string())?)?;
    println!("figures: {}\n{}", path.display(), load_warning(&record["machine"]));
    Ok(())
}
