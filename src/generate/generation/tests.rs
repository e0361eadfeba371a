use super::*;
use crate::Status;
use crate::exec::Candidates;
use crate::generate::{Distribution, MAX_TOP};
use crate::model::Logits;
use crate::text::Tokenizer;
use std::cell::Cell;
use std::time::{Duration, Instant};

const VOCAB: usize = 24;

/// A sequence whose logits follow from its last tokens, so that its text repeats itself in part, as a real one does.
struct Toy {
    tokens: Vec<i32>,
    /// The same, before it was truncated.
    kept: Vec<i32>,
    context: usize,
    /// Cannot go back into a pass.
    recurrent: bool,
    rows: usize,
    /// Logits of the last pass, of one position or of all.
    logits: Vec<Vec<f32>>,
    /// Tokens of the last pass, where it was one of drafts.
    drafted: usize,
    passes: usize,
    cancelled_from_pass: usize,
    interrupts: Cell<u64>,
    /// Time goes on by what passes take alone: 100 ms and 5 ms for each token.
    time: Instant,
}

impl Toy {
    fn new(recurrent: bool) -> Toy {
        Toy {
            tokens: vec![],
            kept: vec![],
            context: 10_000,
            recurrent,
            rows: 0,
            logits: vec![],
            drafted: 0,
            passes: 0,
            cancelled_from_pass: usize::MAX,
            interrupts: Cell::new(0),
            time: Instant::now(),
        }
    }

    fn logits_of(tokens: &[i32]) -> Vec<f32> {
        let tail = &tokens[tokens.len().saturating_sub(2)..];
        let mut state = tail.iter().fold(7u64, |s, &t| s.wrapping_mul(31).wrapping_add(t as u64));
        let mut logit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 22) as f32
        };
        (0..VOCAB).map(|_| logit()).collect()
    }

    fn take(&mut self, tokens: &[i32], all: bool) -> Result<()> {
        if self.passes >= self.cancelled_from_pass {
            return Err(Error::cancelled());
        }
        if tokens.len() > self.room() {
            return Err(Error::new(Status::ContextFull, "full"));
        }
        self.passes += 1;
        self.kept = self.tokens.clone();
        self.kept.extend_from_slice(tokens);
        self.time += Duration::from_millis(100 + 5 * tokens.len() as u64);
        self.logits.clear();
        for token in tokens {
            self.tokens.push(*token);
            self.logits.push(Toy::logits_of(&self.tokens));
        }
        if !all {
            self.logits.drain(..tokens.len() - 1);
        }
        Ok(())
    }
}

impl Sequence for Toy {
    fn forward(&mut self, tokens: &[i32], _: Logits, _: u64) -> Result<()> {
        self.take(tokens, false)
    }
    fn last_logits(&self) -> Result<&[f32]> {
        self.logits.last().map(Vec::as_slice).ok_or_else(|| Error::invalid("no logits"))
    }
    fn with_candidates<R>(&self, choose: impl FnOnce(&mut Candidates) -> R) -> R {
        choose(&mut Candidates::default())
    }
    fn interrupts(&self) -> u64 {
        self.interrupts.get()
    }
    fn settle(&self) {}
    fn position(&self) -> usize {
        self.tokens.len()
    }
    fn room(&self) -> usize {
        self.context - self.tokens.len()
    }
    fn pass_bytes(&self) -> u64 {
        1
    }
    fn now(&self) -> Instant {
        self.time
    }
    fn drop_oldest(&mut self, keep: usize, more: usize) -> Result<(Vec<i32>, usize)> {
        let dropped = (self.tokens.len() - keep) / 2;
        assert!(more <= self.room() + dropped);
        let mut again = self.tokens.split_off(keep + dropped);
        self.tokens.truncate(if self.recurrent { 0 } else { keep });
        if self.recurrent {
            again.splice(0..0, self.kept[..keep].iter().copied());
        }
        Ok((again, dropped))
    }
    fn begin_drafts(&mut self, rows: usize, _: u64) -> usize {
        self.rows = rows;
        rows
    }
    fn end_drafts(&mut self) {
        self.rows = 0;
    }
    fn forward_drafts(&mut self, tokens: &[i32], _: u64) -> Result<()> {
        assert!(tokens.len() <= self.rows && self.drafted == 0);
        self.take(tokens, true)?;
        self.drafted = tokens.len();
        Ok(())
    }
    fn draft_logits(&self, row: usize) -> Result<&[f32]> {
        Ok(&self.logits[row])
    }
    fn keep_drafts(&mut self, count: usize) -> Result<usize> {
        let drafted = std::mem::take(&mut self.drafted);
        self.logits = vec![self.logits[count - 1].clone()];
        let kept = if self.recurrent && count < drafted { 0 } else { count };
        self.tokens.truncate(self.tokens.len() - drafted + kept);
        Ok(kept)
    }
}

/// Token n is the n-th letter; the last one ends a text, where it is wanted.
struct Letters {
    ends: bool,
}

impl Vocabulary for Letters {
    fn check_same(&self, _: &Tokenizer) -> Result<()> {
        Ok(())
    }
    fn is_end(&self, token: i32) -> Result<bool> {
        Ok(self.ends && token == VOCAB as i32 - 1)
    }
    fn append_bytes(&self, token: i32, _: bool, out: &mut Vec<u8>) -> Result<()> {
        out.push(b'a' + token as u8);
        Ok(())
    }
}

/// All that can be seen of a generation, and of what it leaves behind.
#[derive(Debug, PartialEq)]
struct Seen {
    pieces: Vec<(i32, String)>,
    logprobs: Vec<Vec<u32>>,
    result: std::result::Result<End, Status>,
    dropped: u64,
    tokens: Vec<i32>,
    logits: Vec<f32>,
    next_drawn: i32,
}

/// All numbers of both distributions.
fn bits(logprobs: &Logprobs) -> Vec<u32> {
    let of = |d: &Distribution| {
        let top = d.top.iter().flat_map(|t| [t.token as u32, t.logprob.to_bits()]);
        [d.chosen.to_bits()].into_iter().chain(top).collect::<Vec<_>>()
    };
    [of(&logprobs.raw), of(&logprobs.sampled)].concat()
}

struct Case {
    seed: u64,
    temperature: f32,
    max_tokens: usize,
    stop_after: usize,
    context: usize,
    kept_first: Option<usize>,
    stop: Option<&'static str>,
    ends: bool,
}

impl Case {
    fn run(&self, recurrent: bool, drafts: usize) -> (Seen, GenerationStats) {
        let mut toy = Toy::new(recurrent);
        toy.context = self.context;
        let mut sampler = Sampler::new();
        sampler.set_temperature(self.temperature).unwrap();
        sampler.set_seed(self.seed);
        sampler.set_repeat_penalty(1.05, 8).unwrap();
        let mut generation = Generation::new();
        generation.set_max_tokens(self.max_tokens);
        if drafts > 0 {
            generation.draft_from_text(drafts).unwrap();
        }
        if let Some(stop) = self.stop {
            generation.add_stop(stop).unwrap();
        }
        generation.set_logprobs(Some(3)).unwrap();
        generation.set_kept_first(self.kept_first);
        let (mut pieces, mut logprobs) = (vec![], vec![]);
        let prompt: Vec<i32> = (0..12).map(|i| (i + self.seed as i32) % 5).collect();
        let letters = Letters { ends: self.ends };
        let result = generation.run_detailed(&mut toy, &letters, &mut sampler, &prompt, |made| {
            pieces.push((made.token, made.piece.to_string()));
            logprobs.push(bits(made.logprobs.unwrap()));
            if pieces.len() == self.stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let stats = generation.stats();
        let seen = Seen {
            pieces,
            logprobs,
            result: result.map(|()| stats.end).map_err(|e| e.status()),
            dropped: stats.dropped,
            logits: toy.last_logits().unwrap().to_vec(),
            tokens: toy.tokens,
            next_drawn: sampler.sample(&[1.0; 40]).unwrap(),
        };
        (seen, stats)
    }
}

#[test]
fn drafts_change_nothing_that_can_be_seen() {
    let (mut drafted, mut accepted) = (0, 0);
    for seed in 0..40 {
        for temperature in [0.0, 0.05, 0.6] {
            let plain = Case {
                seed,
                temperature,
                max_tokens: 150,
                stop_after: usize::MAX,
                context: 10_000,
                kept_first: None,
                stop: None,
                ends: false,
            };
            for case in [
                Case { ends: true, ..plain },
                Case { max_tokens: 37, ..plain },
                Case { stop_after: 23, ..plain },
                Case { context: 60, ..plain },
                Case { context: 60, kept_first: Some(7), ..plain },
                Case { stop: Some("ab"), ..plain },
                plain,
            ] {
                let (expected, _) = case.run(false, 0);
                for recurrent in [false, true] {
                    for drafts in [1, 3, 16] {
                        let (seen, stats) = case.run(recurrent, drafts);
                        assert_eq!(
                            seen, expected,
                            "seed {seed}, {temperature}, recurrent {recurrent}, {drafts} drafts"
                        );
                        drafted += stats.drafted;
                        accepted += stats.accepted;
                    }
                }
            }
        }
    }
    // Else nothing was tried.
    assert!(accepted > 10_000 && drafted > accepted + 1_000, "{accepted} of {drafted} drafts were right");
}

#[test]
fn the_end_is_told_and_what_was_drafted_counted() {
    let case = Case {
        seed: 1,
        temperature: 0.0,
        max_tokens: 200,
        stop_after: usize::MAX,
        context: 10_000,
        kept_first: None,
        stop: None,
        ends: false,
    };
    let (seen, stats) = case.run(false, 8);
    assert_eq!((seen.result, stats.tokens), (Ok(End::Length), 200));
    // Every pass but the first token's leaves one token and those accepted.
    assert_eq!(stats.tokens, 1 + stats.passes + stats.accepted);
    assert!(stats.passes < 120, "{stats:?}");
    let (_, stats) = Case { stop_after: 5, ..case }.run(false, 8);
    assert_eq!((stats.end, stats.tokens), (End::Callback, 5));
}

#[test]
fn an_interrupt_in_the_middle_leaves_what_was_accepted_before() {
    for cancelled_from_pass in 1..30 {
        let mut toy = Toy::new(false);
        toy.cancelled_from_pass = cancelled_from_pass;
        let mut generation = Generation::new();
        generation.draft_from_text(8).unwrap();
        let mut tokens = vec![1, 2, 3, 1, 2, 3];
        let prompt = tokens.clone();
        let result = generation.run(&mut toy, &Letters { ends: false }, &mut Sampler::new(), &prompt, |token, _| {
            tokens.push(token);
            ControlFlow::Continue(())
        });
        assert_eq!(result.unwrap_err().status(), Status::Cancelled);
        assert_eq!(toy.tokens, tokens[..tokens.len() - 1]);
    }
}

#[test]
fn a_callback_that_panics_leaves_no_draft_behind() {
    let mut toy = Toy::new(false);
    let mut generation = Generation::new();
    generation.draft_from_text(8).unwrap();
    let mut tokens = vec![1, 2, 3, 1, 2, 3];
    let prompt = tokens.clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        generation.run(&mut toy, &Letters { ends: false }, &mut Sampler::new(), &prompt, |token, _| {
            tokens.push(token);
            assert!(tokens.len() < 90);
            ControlFlow::Continue(())
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(toy.tokens, tokens[..tokens.len() - 1]);
}

#[test]
fn numbers_of_drafts_out_of_range_are_refused() {
    for drafts in [0, MAX_DRAFTS + 1] {
        assert_eq!(Generation::new().draft_from_text(drafts).unwrap_err().status(), Status::InvalidArgument);
    }
}

#[test]
fn log_probabilities_are_there_where_they_are_asked_for() {
    let mut generation = Generation::new();
    generation.set_max_tokens(20);
    let run = |generation: &mut Generation| {
        let mut all = vec![];
        let mut toy = Toy::new(false);
        let mut sampler = Sampler::new();
        generation
            .run_detailed(&mut toy, &Letters { ends: false }, &mut sampler, &[1, 2], |made| {
                all.push(made.logprobs.map(|l| (made.token, l.raw.chosen, l.raw.top.clone(), l.sampled.chosen)));
                ControlFlow::Continue(())
            })
            .unwrap();
        (all, toy.tokens)
    };
    assert!(run(&mut generation).0.iter().all(Option::is_none));
    for top in [0, 1, 5, MAX_TOP] {
        generation.set_logprobs(Some(top)).unwrap();
        let (all, tokens) = run(&mut generation);
        assert_eq!(all.len(), 20);
        for (i, seen) in all.into_iter().enumerate() {
            let (token, chosen, best, sampled) = seen.unwrap();
            // The softmax, written out.
            let logits = Toy::logits_of(&tokens[..tokens.len().min(2 + i)]);
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            let mut want: Vec<(f64, i32)> =
                logits.iter().zip(0..).map(|(&l, t)| ((f64::from(l).exp() / total).ln(), t)).collect();
            assert!((f64::from(chosen) - want[token as usize].0).abs() < 1e-6);
            want.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            want.truncate(top);
            assert_eq!(best.len(), top.min(VOCAB));
            for (got, want) in best.iter().zip(want) {
                assert!(got.token == want.1 && (f64::from(got.logprob) - want.0).abs() < 1e-6, "{got:?}, not {want:?}");
            }
            // A greedy choice is certain.
            assert_eq!(sampled, 0.0);
        }
    }
    generation.set_logprobs(None).unwrap();
    assert!(run(&mut generation).0.iter().all(Option::is_none));
    assert_eq!(generation.set_logprobs(Some(MAX_TOP + 1)).unwrap_err().status(), Status::InvalidArgument);
}
