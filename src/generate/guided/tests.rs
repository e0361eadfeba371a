use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::exec::Candidates;
use crate::generate::{ConstraintKind, End, Generation, GenerationStats, Sampler, Sequence};
use crate::model::{Logits, Options};
use crate::{Model, Session, Status};

fn model(name: &str) -> Arc<Model> {
    let mut path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    let packed = path.with_extension("gguf.gz");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    if packed.exists() {
        std::io::copy(&mut flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap()), &mut file).unwrap();
        path = file.path().to_path_buf();
    }
    Model::open(&path, &Options { memory_budget: 64 << 20, context_length: 256, ..Options::default() }).unwrap()
}

/// A session that takes no drafts.
struct Single(Session);

impl Sequence for Single {
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
        Sequence::forward(&mut self.0, tokens, logits, since)
    }
    fn last_logits(&self) -> Result<&[f32]> {
        self.0.last_logits()
    }
    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
        self.0.with_candidates(choose)
    }
    fn interrupts(&self) -> u64 {
        Sequence::interrupts(&self.0)
    }
    fn settle(&self) {
        Sequence::settle(&self.0);
    }
    fn position(&self) -> usize {
        Sequence::position(&self.0)
    }
    fn room(&self) -> usize {
        Sequence::room(&self.0)
    }
    fn pass_bytes(&self) -> u64 {
        Sequence::pass_bytes(&self.0)
    }
}

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "first name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "address": {"type": "object", "properties": {"street": {"enum": ["Long Street", "Short Street"]}},
    "required": ["street"], "additionalProperties": false}},
    "required": ["first name", "age", "address"], "additionalProperties": false}"#;

/// All that can be seen of a generation, and what it leaves.
#[derive(Debug, PartialEq)]
struct Seen {
    pieces: Vec<(i32, String)>,
    end: std::result::Result<End, Status>,
    position: usize,
    logits: Vec<u32>,
    next_drawn: i32,
}

fn run<S: Sequence>(
    model: &Model,
    sequence: &mut S,
    generation: &mut Generation,
    seed: u64,
) -> (Seen, GenerationStats) {
    let mut sampler = Sampler::new();
    sampler.set_temperature(seed as f32 / 2.0).unwrap();
    sampler.set_seed(seed);
    sampler.set_repeat_penalty(1.05, 8).unwrap();
    let mut pieces = vec![];
    let result = generation.run(sequence, model.tokenizer().unwrap(), &mut sampler, &[1, 40, 50], |token, piece| {
        pieces.push((token, piece.to_string()));
        ControlFlow::Continue(())
    });
    let stats = generation.stats();
    let logits = sequence.last_logits().unwrap().iter().map(|logit| logit.to_bits()).collect();
    let seen = Seen {
        pieces,
        end: result.map(|()| stats.end).map_err(|e| e.status()),
        position: sequence.position(),
        logits,
        next_drawn: sampler.sample(&[1.0; 40]).unwrap(),
    };
    (seen, stats)
}

#[test]
fn what_is_forced_goes_through_in_few_passes_and_changes_nothing() {
    let (mut passes, mut tokens) = (0, 0);
    for name in ["arch/llama.gguf", "arch2/lfm2.gguf", "arch/gemma3.gguf"] {
        let model = model(name);
        let constraint = Constraint::new(&model, ConstraintKind::JsonSchema, SCHEMA).unwrap();
        for seed in 0..4 {
            for (max_tokens, stop, drafts) in [(200, None, 0), (23, None, 0), (200, Some("age"), 0), (200, None, 4)] {
                let mut generation = Generation::new();
                generation.set_max_tokens(max_tokens);
                generation.set_constraint(Some(&constraint));
                if let Some(stop) = stop {
                    generation.add_stop(stop).unwrap();
                }
                let mut single = Single(Session::new(&model, 0).unwrap());
                let (expected, alone) = run(&model, &mut single, &mut generation, seed);
                if drafts > 0 {
                    generation.draft_from_text(drafts).unwrap();
                }
                let mut session = Session::new(&model, 0).unwrap();
                let (seen, stats) = run(&model, &mut session, &mut generation, seed);
                assert_eq!(seen, expected, "{name}, {seed}, {max_tokens}, {stop:?}, {drafts}");
                assert_eq!(alone.drafted, 0);
                let text: String = seen.pieces.iter().map(|(_, piece)| piece.as_str()).collect();
                if max_tokens == 200 && stop.is_none() {
                    assert_eq!(seen.end, Ok(End::Constraint), "{text}");
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert!(value["address"]["street"].as_str().unwrap().ends_with(" Street"), "{text}");
                    (passes, tokens) = (passes + stats.passes, tokens + stats.tokens);
                }
            }
        }
    }
    assert!(passes * 2 < tokens, "{passes} passes for {tokens} tokens");
}

#[test]
fn a_constraint_of_another_vocabulary_is_refused_and_a_complete_one_ends_at_once() {
    let model = model("arch/llama.gguf");
    let mut constraint = Constraint::new(&model, ConstraintKind::Regex, "a").unwrap();
    let mut generation = Generation::new();
    let forced = constraint.forced().unwrap();
    constraint.accept_all(&forced).unwrap();
    generation.set_constraint(Some(&constraint));
    let mut session = Session::new(&model, 0).unwrap();
    let (seen, _) = run(&model, &mut session, &mut generation, 0);
    assert_eq!((seen.pieces.len(), seen.end, seen.position), (0, Ok(End::Constraint), 3));
    let other = self::model("arch/qwen2.gguf");
    if other.tokenizer().is_ok_and(|t| !t.has_tokens_of(model.tokenizer().unwrap())) {
        let mut session = Session::new(&other, 0).unwrap();
        let mut sampler = Sampler::new();
        let on_token = |_: i32, _: &str| ControlFlow::Continue(());
        let result = generation.run(&mut session, other.tokenizer().unwrap(), &mut sampler, &[1], on_token);
        assert_eq!(result.unwrap_err().status(), Status::InvalidArgument);
    }
    generation.set_constraint(None);
    generation.set_max_tokens(2);
    let (seen, _) = run(&model, &mut session, &mut generation, 0);
    assert_eq!(seen.end, Ok(End::Length));
}
