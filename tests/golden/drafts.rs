//! Texts generated with drafts are those generated without, whatever the model, the sampler and the budget.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerline::generate::{DraftModel, Generation, GenerationStats, Sequence, Vocabulary};
use layerline::model::{Logits, Model, Options};
use layerline::session::{See, Session};
use layerline::{Result, Sampler, Status, Tokenizer};

use crate::support::*;

/// A session for which every pass takes as long as any other, so that drafts always seem worth it.
pub struct Timeless {
    pub session: Session,
    time: std::cell::Cell<Instant>,
    /// Passes with drafts: the position of the first token, and the tokens.
    pub drafted: Vec<(usize, Vec<i32>)>,
    /// Each pass whose hidden states are seen is interrupted after its first chunk.
    pub interrupted: bool,
}

impl Timeless {
    pub fn new(session: Session) -> Timeless {
        Timeless { session, time: Instant::now().into(), drafted: vec![], interrupted: false }
    }

    fn pass(&self) {
        self.time.set(self.time.get() + Duration::from_millis(1));
    }
}

impl Sequence for Timeless {
    fn forward(&mut self, tokens: &[i32], logits: Logits, since: u64) -> Result<()> {
        self.pass();
        Sequence::forward(&mut self.session, tokens, logits, since)
    }
    fn last_logits(&self) -> Result<&[f32]> {
        self.session.last_logits()
    }
    fn with_candidates<R>(&self, choose: impl FnOnce(&mut layerline::exec::Candidates) -> R) -> R {
        self.session.with_candidates(choose)
    }
    fn interrupts(&self) -> u64 {
        self.session.interrupts()
    }
    fn settle(&self) {
        self.session.settle();
    }
    fn position(&self) -> usize {
        self.session.position()
    }
    fn room(&self) -> usize {
        self.session.room()
    }
    fn pass_bytes(&self) -> u64 {
        1
    }
    fn now(&self) -> Instant {
        self.time.get()
    }
    fn drop_oldest(&mut self, keep: usize, more: usize) -> Result<(Vec<i32>, usize)> {
        Sequence::drop_oldest(&mut self.session, keep, more)
    }
    fn begin_drafts(&mut self, rows: usize, since: u64) -> usize {
        self.session.begin_drafts(rows, since)
    }
    fn end_drafts(&mut self) {
        self.session.end_drafts();
    }
    fn forward_drafts(&mut self, tokens: &[i32], since: u64) -> Result<()> {
        self.pass();
        self.drafted.push((self.session.position(), tokens.to_vec()));
        self.session.forward_drafts(tokens, since)
    }
    fn draft_logits(&self, row: usize) -> Result<&[f32]> {
        Sequence::draft_logits(&self.session, row)
    }
    fn keep_drafts(&mut self, count: usize) -> Result<usize> {
        self.session.keep_drafts(count)
    }
    fn begin_hidden(&mut self, predictor: &Model, since: u64) -> Result<usize> {
        Sequence::begin_hidden(&mut self.session, predictor, since)
    }
    fn end_hidden(&mut self) {
        self.session.end_hidden();
    }
    fn forward_seen(&mut self, tokens: &[i32], since: u64, see: &mut See) -> Result<()> {
        self.pass();
        let interrupt = self.interrupted.then(|| self.session.interrupt_handle());
        self.session.forward_seen(tokens, since, &mut |start, tokens, hidden| {
            see(start, tokens, hidden);
            if let Some(interrupt) = &interrupt {
                interrupt.raise();
            }
        })
    }
    fn draft_hidden(&self, count: usize) -> Result<&[f32]> {
        self.session.draft_hidden(count)
    }
}

/// Tokens without texts, of which none ends.
pub struct Numbers;

impl Vocabulary for Numbers {
    fn check_same(&self, _: &Tokenizer) -> Result<()> {
        Ok(())
    }
    fn is_end(&self, _: i32) -> Result<bool> {
        Ok(false)
    }
    fn append_bytes(&self, _: i32, _: bool, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

/// Tokens, the last logits, the next pass's, and how it ended; and what was drafted.
pub type Generated = (Vec<i32>, Vec<f32>, Vec<f32>, std::result::Result<(), Status>);

pub fn generated(
    model: &Arc<Model>,
    generation: &mut Generation,
    sampler: &mut Sampler,
    prompt: &[i32],
) -> (Generated, GenerationStats) {
    let mut timeless = Timeless::new(Session::new(model, 0).unwrap());
    let mut tokens = vec![];
    let result = generation.run(&mut timeless, &Numbers, sampler, prompt, |token, _| {
        tokens.push(token);
        ControlFlow::Continue(())
    });
    let mut session = timeless.session;
    let last = session.logits(0).unwrap().to_vec();
    assert_eq!((session.logit_rows(), session.position()), (1, prompt.len() + tokens.len() - 1));
    // What the session keeps of earlier tokens is right too.
    let room = session.context_length() - session.position();
    let next = if room == 0 {
        vec![]
    } else {
        session.forward(&[3], Logits::Last).unwrap();
        session.logits(0).unwrap().to_vec()
    };
    ((tokens, last, next, result.map_err(|e| e.status())), generation.stats())
}

pub fn assert_same(got: &Generated, want: &Generated, what: &str) {
    assert_eq!((&got.0, got.3), (&want.0, want.3), "{what}");
    assert_same_bits(&got.1, &want.1, what);
    assert_same_bits(&got.2, &want.2, what);
}

/// A prompt that repeats itself.
pub fn prompt(path: &Path) -> Vec<i32> {
    let tokens = Arrays::of(path).get::<i32>("tokens");
    let part = &tokens[..tokens.len().min(9)];
    [part, part].concat()
}

#[test]
#[cfg_attr(not(feature = "prefetch"), ignore = "long, and nothing in it depends on the loader")]
fn drafts_of_the_text_change_no_bit_in_any_architecture_at_any_budget() {
    let (mut drafted, mut accepted, mut tried) = (0, 0, 0);
    for path in models_in("arch").into_iter().chain(models_in("arch2")) {
        let wide = Options { context_length: 120, chunk_length: 16, ..light() };
        let (floor, full) = (plan(&path, &wide).floor_bytes, 1 << 30);
        let resident = open(&path, &wide);
        if !resident.info().has_head || !resident.info().causal {
            continue;
        }
        // Room for a few rows of logits above the floor.
        let rows = 6 * 4 * u64::from(resident.info().vocab_size);
        let tight = open(&path, &Options { memory_budget: (floor + rows).min(full), ..wide });
        for (seed, temperature) in [(0, 0.0), (1, 0.02)] {
            let sampler = || {
                let mut sampler = Sampler::new();
                sampler.set_temperature(temperature).unwrap();
                sampler.set_top_p(0.95).unwrap();
                sampler.set_repeat_penalty(1.02, 16).unwrap();
                sampler.set_seed(seed);
                sampler
            };
            let prompt = prompt(&path);
            let mut plain = Generation::new();
            plain.set_max_tokens(48);
            let (want, _) = generated(&resident, &mut plain, &mut sampler(), &prompt);
            for (model, drafts) in [(&resident, 3), (&resident, 12), (&tight, 5)] {
                let mut generation = Generation::new();
                generation.set_max_tokens(48);
                generation.draft_from_text(drafts).unwrap();
                let (got, stats) = generated(model, &mut generation, &mut sampler(), &prompt);
                assert_same(&got, &want, &format!("{}, {temperature}, {drafts} drafts", stem(&path)));
                assert!(model.stats().peak_bytes <= model.stats().budget_bytes);
                (drafted, accepted, tried) = (drafted + stats.drafted, accepted + stats.accepted, tried + 1);
            }
        }
    }
    assert!(tried > 200 && drafted > accepted + 300 && accepted > 500, "{accepted} of {drafted} in {tried} texts");
}

#[test]
fn drafts_of_another_model_change_no_bit_and_its_full_context_ends_no_text() {
    let path = golden("arch/llama.gguf");
    let model = open(&path, &Options { context_length: 100, ..options() });
    let prompt = prompt(&path);
    let mut plain = Generation::new();
    plain.set_max_tokens(70);
    let (want, _) = generated(&model, &mut plain, &mut Sampler::new(), &prompt);
    // The model itself is a drafter that is always right, as far as its own context goes.
    for (context, least) in [(100, 20), (40, 5)] {
        let mut generation = Generation::new();
        generation.set_max_tokens(70);
        let mut drafter = DraftModel::new(&model, context).unwrap();
        drafter.set_least_chance(0.0);
        generation.draft_with(drafter, 6).unwrap();
        for _ in 0..2 {
            let (got, stats) = generated(&model, &mut generation, &mut Sampler::new(), &prompt);
            assert_same(&got, &want, "drafted by itself");
            assert!(stats.accepted >= least && stats.accepted == stats.drafted, "{context}: {stats:?}");
        }
    }
}

#[test]
fn a_model_with_another_vocabulary_does_not_draft() {
    let model = open(&golden("arch/llama.gguf"), &options());
    let others = models_in("arch2").into_iter().chain(models_in("peer")).map(|path| open(&path, &options()));
    let other = others
        .filter(|other| other.tokenizer().is_ok_and(|t| !t.has_tokens_of(model.tokenizer().unwrap())))
        .find_map(|other| DraftModel::new(&other, 0).ok())
        .expect("a model with other tokens");
    let mut generation = Generation::new();
    generation.draft_with(other, 4).unwrap();
    let mut session = Session::new(&model, 0).unwrap();
    let go_on = |_: i32, _: &str| ControlFlow::Continue(());
    let result = generation.run(&mut session, model.tokenizer().unwrap(), &mut Sampler::new(), &[1, 2], go_on);
    assert_eq!(result.unwrap_err().status(), Status::InvalidArgument);
    assert_eq!(session.position(), 0);
}
