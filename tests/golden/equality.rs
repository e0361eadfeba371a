//! Sampled texts are the same with and without drafts, alone and in sweeps shared with others, at every budget.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use layerline::Sampler;
use layerline::generate::{DraftModel, Generation, GenerationStats};
use layerline::model::{Logits, Model, Options, Stats};
use layerline::session::Session;

use crate::drafts::{Numbers, Timeless};
use crate::support::*;

/// Drafts of a pass at most.
const MAX_DRAFTS: usize = 5;

/// Who drafts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Drafter {
    Nobody,
    Text,
    Model,
}

/// A model whose texts are compared.
struct Subject {
    name: String,
    path: std::path::PathBuf,
    prompts: Vec<Vec<i32>>,
    temperature: f32,
    options: Options,
    /// Long prompts that the company has taken in.
    prompts_taken: AtomicU64,
}

/// How many texts, and how long.
#[derive(Clone, Copy)]
struct Extent {
    seeds: usize,
    tokens: usize,
}

/// What was generated in all.
#[derive(Debug, Default)]
struct Figures {
    /// Of each way of running, at each budget.
    tokens: u64,
    drafted: u64,
    accepted: u64,
    /// Sweeps of those in company, and how many these would be for each pass alone.
    sweeps: u64,
    alone: u64,
}

/// Every seed another sampler.
fn sampler(seed: usize, temperature: f32) -> Sampler {
    let mut sampler = Sampler::new();
    sampler.set_temperature(temperature * (0.7 + 0.1 * (seed % 5) as f32)).unwrap();
    sampler.set_top_p(0.95).unwrap();
    if seed % 3 == 1 {
        sampler.set_top_k(40);
    }
    if seed % 4 == 2 {
        sampler.set_repeat_penalty(1.02, 32).unwrap();
    }
    if seed % 5 == 3 {
        sampler.set_min_p(0.02).unwrap();
    }
    sampler.set_seed(seed as u64);
    sampler
}

impl Subject {
    /// Tokens of a prompt of the company.
    fn long(&self) -> u32 {
        self.options.context_length * 3 / 4
    }

    /// Sweeps beyond one that a pass takes alone.
    fn further_sweeps(&self, tokens: usize) -> u64 {
        tokens.div_ceil(self.options.chunk_length as usize) as u64 - 1
    }

    fn text(
        &self,
        model: &Arc<Model>,
        drafter: (Drafter, &Arc<Model>),
        seed: usize,
        tokens: usize,
    ) -> (Vec<i32>, GenerationStats) {
        let mut generation = Generation::new();
        generation.set_max_tokens(tokens);
        match drafter {
            (Drafter::Nobody, _) => {}
            (Drafter::Text, _) => generation.draft_from_text(MAX_DRAFTS).unwrap(),
            (Drafter::Model, other) => {
                let mut drafter = DraftModel::new(other, 0).unwrap();
                drafter.set_least_chance(0.0);
                generation.draft_with(drafter, MAX_DRAFTS).unwrap();
            }
        }
        let mut session = Timeless::new(Session::new(model, 0).unwrap());
        let mut text = Vec::new();
        let prompt = &self.prompts[seed % self.prompts.len()];
        let mut sampler = sampler(seed, self.temperature);
        let result = generation.run(&mut session, &Numbers, &mut sampler, prompt, |token, _| {
            text.push(token);
            ControlFlow::Continue(())
        });
        result.unwrap_or_else(|e| panic!("{}, seed {seed}: {e}", self.name));
        (text, generation.stats())
    }

    /// The texts of all seeds, one after the other, or at once, while another session takes in prompts.
    fn texts(
        &self,
        model: &Arc<Model>,
        drafter: (Drafter, &Arc<Model>),
        extent: Extent,
        company: bool,
    ) -> Vec<(Vec<i32>, GenerationStats)> {
        let text = |seed| self.text(model, drafter, seed, extent.tokens);
        if !company {
            return (0..extent.seeds).map(text).collect();
        }
        let over = &AtomicBool::new(false);
        let prompts_taken = &self.prompts_taken;
        let long = self.long();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut session = Session::new(model, 0).unwrap();
                let long: Vec<i32> = (0..long as i32).map(|i| i * 7 % 250).collect();
                while !over.load(Ordering::Relaxed) {
                    session.forward(&long, Logits::None).unwrap();
                    session.truncate(0).unwrap();
                    prompts_taken.fetch_add(1, Ordering::Relaxed);
                }
            });
            let threads: Vec<_> = (0..extent.seeds).map(|seed| scope.spawn(move || text(seed))).collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            over.store(true, Ordering::Relaxed);
            ended.into_iter().map(|text| text.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    }

    /// Compares every way of running at every budget with texts generated alone, in memory, without drafts.
    fn compare(&self, extent: Extent, figures: &mut Figures) {
        let bounds = plan(&self.path, &self.options);
        let rows = (MAX_DRAFTS + 1) as u64 * 4;
        let resident = open(&self.path, &Options { memory_budget: 16 << 30, ..self.options.clone() });
        // What sessions take, and the rows of those that draft.
        let sessions = (extent.seeds as u64 + 1) * (bounds.kv_bytes + (1 << 20));
        let rows = extent.seeds as u64 * rows * u64::from(resident.info().vocab_size);
        let nobody = (Drafter::Nobody, &resident);
        let want = self.texts(&resident, nobody, extent, false);
        let half = bounds.floor_bytes.midpoint(bounds.full_bytes);
        for budget in [bounds.floor_bytes, half, bounds.full_bytes] {
            let memory_budget = budget + sessions + rows;
            let model = open(&self.path, &Options { memory_budget, ..self.options.clone() });
            for drafter in [Drafter::Nobody, Drafter::Text, Drafter::Model] {
                for company in [false, true] {
                    let before = model.stats();
                    self.prompts_taken.store(0, Ordering::Relaxed);
                    let got = self.texts(&model, (drafter, &resident), extent, company);
                    for (seed, ((got, stats), (want, _))) in got.iter().zip(&want).enumerate() {
                        let way = format!("{drafter:?}, company {company}, budget {memory_budget}");
                        assert_eq!(got, want, "{}, seed {seed}, drafter {way}", self.name);
                        figures.drafted += stats.drafted;
                        figures.accepted += stats.accepted;
                        if (drafter, company) == (Drafter::Nobody, false) {
                            figures.tokens += got.len() as u64;
                        }
                    }
                    let after = model.stats();
                    assert!(after.peak_bytes <= after.budget_bytes);
                    if company {
                        let accesses = |s: Stats| s.layers_resident + s.layers_prefetched + s.layers_stalled;
                        figures.sweeps += (accesses(after) - accesses(before)) / u64::from(bounds.layer_count);
                        let prompts = (0..extent.seeds).map(|seed| &self.prompts[seed % self.prompts.len()]);
                        let further: u64 = prompts.map(|prompt| self.further_sweeps(prompt.len())).sum();
                        let company = self.prompts_taken.load(Ordering::Relaxed);
                        figures.alone += after.passes - before.passes + further;
                        figures.alone += company * self.further_sweeps(self.long() as usize);
                    }
                }
            }
        }
    }
}

/// Models with experts and with recurrent layers among them.
#[test]
#[cfg_attr(not(feature = "prefetch"), ignore = "long, and nothing in it depends on the loader")]
fn sampled_texts_are_the_same_with_drafts_and_in_company() {
    let mut figures = Figures::default();
    for name in ["arch/gemma3", "arch/qwen3moe", "arch2/qwen35moe", "arch2/falcon-h1"] {
        let path = golden(&format!("{name}.gguf"));
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        let part = &tokens[..tokens.len().min(9)];
        let subject = Subject {
            name: name.into(),
            prompts: vec![[part, part].concat(), tokens.clone()],
            // Their logits are all nearly the same.
            temperature: 0.15,
            options: Options { context_length: 96, chunk_length: 16, ..light() },
            prompts_taken: AtomicU64::new(0),
            path,
        };
        subject.compare(Extent { seeds: 5, tokens: 32 }, &mut figures);
    }
    assert!(figures.accepted > 200 && figures.drafted > figures.accepted + 200, "{figures:?}");
    assert!(figures.alone > figures.sweeps, "no company: {figures:?}");
}

/// The long form, on real models: LAYERLINE_EQUAL_TOKENS tokens over 20 seeds, 3 budgets and 2 models, 10,000 unless told, each
/// way of running.
#[test]
#[ignore = "half an hour; scripts/torture.sh runs it"]
fn ten_thousand_tokens_of_real_models_are_the_same_with_drafts_and_in_company() {
    let tokens: usize = std::env::var("LAYERLINE_EQUAL_TOKENS").map_or(10_000, |text| text.parse().unwrap());
    let extent = Extent { seeds: 20, tokens: tokens.div_ceil(20 * 3 * 2) };
    let prompts = [
        "{\"id\": 1, \"name\": \"Anna Berg\", \"city\": \"Oslo\", \"orders\": 12}\n{\"id\": 2, \"name\": \"Jon Dahl\", \
         \"city\": \"Bergen\", \"orders\": 7}\n",
        "The harbour of Lindholm was built in 1874 by a company of stone masons from the north. The harbour of",
        "def area(width, height):\n    return width * height\n\ndef volume(width, height, depth):\n",
        "Once upon a time there was a boy who",
    ];
    let mut figures = Figures::default();
    let mut models = 0;
    for file in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-Q4_K_M.gguf"] {
        let Some(path) = model_file(file, "golden: drafts and company over real models") else { continue };
        let options = Options { context_length: 256, chunk_length: 64, ..options() };
        let tokenizer = open(&path, &options);
        let encode = |text: &&str| tokenizer.tokenizer().unwrap().encode(text, true, false);
        let prompts = prompts.iter().map(encode).collect();
        let prompts_taken = AtomicU64::new(0);
        let subject = Subject { name: file.into(), prompts, temperature: 0.8, options, path, prompts_taken };
        subject.compare(extent, &mut figures);
        println!("{file} and before: {figures:?}");
        models += 1;
    }
    assert!(models < 2 || figures.tokens >= tokens as u64, "{figures:?}");
    assert!(models < 2 || figures.accepted > figures.tokens / 2, "{figures:?}");
}
