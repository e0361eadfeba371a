//! From logits to a token: penalty, top-k, top-p, min-p, temperature, draw. The order is llama.cpp's default order.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::error::{Error, Result};

/// A token that may be chosen.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    token: u32,
}

impl Candidate {
    /// Likelier first, of equals the lower token first: a total order, as no candidate's logit is NaN.
    fn order(&self, other: &Candidate) -> Ordering {
        other.logit.total_cmp(&self.logit).then(self.token.cmp(&other.token))
    }
}

/// Chooses tokens for one sequence. Greedy until told otherwise; of equal logits the lowest token wins.
///
/// The chain, each step on what the one before left:
/// 1. repeat penalty (Keskar et al. 2019, CTRL): logits of the last `last_n` tokens are divided by the penalty where
///    positive, multiplied by it where not;
/// 2. top-k: the k likeliest;
/// 3. top-p (Holtzman et al. 2020): the fewest likeliest whose probabilities sum to p;
/// 4. min-p (Nguyen et al. 2024): those at least p times as probable as the likeliest;
/// 5. temperature: logits are divided by it, and one token is drawn from their softmax.
///
/// A logit that is NaN is never chosen. The same seed, settings and logits give the same tokens on one platform;
/// between platforms the last bit of `exp` may differ.
///
/// The tokens that the penalty looks at are those given to [`Sampler::accept`]; [`Sampler::sample`] does it for what it
/// chooses.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    show_control: bool,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    penalty: f32,
    last_n: usize,
    seed: u64,
    random: SplitMix64,
    /// The last tokens of the sequence, at most `last_n`.
    history: VecDeque<u32>,
    /// Reused from token to token.
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler {
            temperature: 0.0,
            show_control: false,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            penalty: 1.0,
            last_n: 64,
            seed: 0,
            random: SplitMix64(0),
            history: VecDeque::new(),
            candidates: Vec::new(),
            weights: Vec::new(),
        }
    }
}

impl Sampler {
    pub fn new() -> Sampler {
        Sampler::default()
    }

    /// 0: greedy, the default.
    pub fn set_temperature(&mut self, temperature: f32) -> Result<()> {
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(Error::invalid(format!("temperature is {temperature}; it must be finite and at least 0")));
        }
        self.temperature = temperature;
        Ok(())
    }

    /// Whether [`generate`](super::generate) gives control tokens the text of their names, such as `<|im_end|>`; by
    /// default they have none.
    pub fn set_show_control(&mut self, show: bool) {
        self.show_control = show;
    }

    pub(super) fn shows_control(&self) -> bool {
        self.show_control
    }

    /// 0: all, the default.
    pub fn set_top_k(&mut self, k: u32) {
        self.top_k = k;
    }

    /// From 0 to 1; 1: all, the default. The likeliest token always stays.
    pub fn set_top_p(&mut self, p: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::invalid(format!("top-p is {p}; it must be from 0 to 1")));
        }
        self.top_p = p;
        Ok(())
    }

    /// From 0 to 1; 0: all, the default.
    pub fn set_min_p(&mut self, p: f32) -> Result<()> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::invalid(format!("min-p is {p}; it must be from 0 to 1")));
        }
        self.min_p = p;
        Ok(())
    }

    /// Over the last `last_n` tokens; 1 is no penalty, the default, with 64 tokens. Forgets the tokens seen so far.
    pub fn set_repeat_penalty(&mut self, penalty: f32, last_n: u32) -> Result<()> {
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(Error::invalid(format!("repeat penalty is {penalty}; it must be finite and above 0")));
        }
        self.penalty = penalty;
        self.last_n = last_n as usize;
        self.history.clear();
        Ok(())
    }

    /// Starts the random sequence anew; 0 is the default.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
        self.random = SplitMix64(seed);
    }

    /// Forgets the tokens seen so far and starts the random sequence anew, as a new sequence wants it. Settings stay.
    pub fn reset(&mut self) {
        self.history.clear();
        self.random = SplitMix64(self.seed);
    }

    /// Adds tokens of the sequence that were not sampled here (a prompt) to what the repeat penalty looks at.
    pub fn accept(&mut self, tokens: &[i32]) {
        for &token in &tokens[tokens.len().saturating_sub(self.last_n)..] {
            let Ok(token) = u32::try_from(token) else { continue };
            if self.history.len() >= self.last_n {
                self.history.pop_front();
            }
            self.history.push_back(token);
        }
    }

    /// Chooses a token by `logits`, one for each token of the vocabulary, and remembers it for the repeat penalty.
    pub fn sample(&mut self, logits: &[f32]) -> Result<i32> {
        let token = if self.temperature == 0.0 && self.penalty == 1.0 {
            likeliest(logits.iter().copied().enumerate().map(candidate))
        } else {
            self.reserve(logits.len())?;
            self.fill(logits);
            if self.temperature == 0.0 { likeliest(self.candidates.iter().copied()) } else { self.draw() }
        };
        let token = token.ok_or_else(|| {
            Error::format(format!("none of the {} logits is a number: the model's weights are damaged", logits.len()))
        })?;
        let token = i32::try_from(token).map_err(|_| Error::invalid("more logits than tokens can be numbered"))?;
        self.accept(&[token]);
        Ok(token)
    }

    /// Room for the candidates and their weights: 16 bytes for each token of the vocabulary.
    fn reserve(&mut self, vocab: usize) -> Result<()> {
        self.candidates.clear();
        self.weights.clear();
        let reserved = self.candidates.try_reserve_exact(vocab).and_then(|()| self.weights.try_reserve_exact(vocab));
        reserved.map_err(|_| Error::out_of_memory(format!("a sampler's candidates among {vocab} tokens")))
    }

    /// The candidates: every token whose logit is a number, with the penalty applied.
    fn fill(&mut self, logits: &[f32]) {
        self.candidates.clear();
        self.candidates.extend(logits.iter().copied().enumerate().map(candidate));
        if self.penalty != 1.0 {
            // Each token once, however often it was seen: the value is computed from the given logit, not in place.
            for &token in &self.history {
                if let Some(&logit) = logits.get(token as usize) {
                    let penalised = if logit > 0.0 { logit / self.penalty } else { logit * self.penalty };
                    self.candidates[token as usize].logit = penalised;
                }
            }
        }
        self.candidates.retain(|candidate| !candidate.logit.is_nan());
    }

    /// Narrows the candidates, then draws one. `None`: there are none.
    fn draw(&mut self) -> Option<u32> {
        let k = self.top_k as usize;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, Candidate::order);
            self.candidates.truncate(k);
        }
        if self.top_p < 1.0 {
            self.keep_top_p();
        }
        let max = self.candidates.iter().map(|candidate| candidate.logit).reduce(f32::max)?;
        if self.min_p > 0.0 {
            // p_i >= min_p · p_max in logits, so that no softmax is needed.
            let least = f64::from(max) + f64::from(self.min_p).ln();
            self.candidates.retain(|candidate| candidate.logit == max || f64::from(candidate.logit) >= least);
        }
        let temperature = f64::from(self.temperature);
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|candidate| weight(candidate.logit, max, temperature)));
        let total: f64 = self.weights.iter().sum();
        let mut left = self.random.unit() * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding left a remainder: the last one that can be drawn.
        let last = self.weights.iter().rposition(|&weight| weight > 0.0)?;
        Some(self.candidates[last].token)
    }

    /// Keeps the fewest likeliest candidates whose probabilities sum to `top_p`, likeliest first.
    fn keep_top_p(&mut self) {
        let Some(max) = self.candidates.iter().map(|candidate| candidate.logit).reduce(f32::max) else { return };
        let total: f64 = self.candidates.iter().map(|candidate| weight(candidate.logit, max, 1.0)).sum();
        let wanted = f64::from(self.top_p) * total;
        let mut sum = 0.0;
        let mut sorted = 0;
        // The nucleus is small beside the vocabulary: sort the head, and more only if it does not suffice.
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let head = rest.len().min((sorted * 7).max(64));
            if head < rest.len() {
                rest.select_nth_unstable_by(head - 1, Candidate::order);
            }
            rest[..head].sort_unstable_by(Candidate::order);
            for (index, candidate) in rest[..head].iter().enumerate() {
                sum += weight(candidate.logit, max, 1.0);
                if sum >= wanted {
                    self.candidates.truncate(sorted + index + 1);
                    return;
                }
            }
            sorted += head;
        }
    }
}

fn candidate((token, logit): (usize, f32)) -> Candidate {
    // Adding zero makes -0.0 a plain zero, which the total order would else put behind it.
    Candidate { logit: logit + 0.0, token: token as u32 }
}

/// The likeliest candidate; of equals the first.
fn likeliest(candidates: impl Iterator<Item = Candidate>) -> Option<u32> {
    let mut best: Option<Candidate> = None;
    for candidate in candidates {
        // A comparison with NaN is false, so that the first candidate needs its own check.
        if best.map_or(!candidate.logit.is_nan(), |best| candidate.logit > best.logit) {
            best = Some(candidate);
        }
    }
    best.map(|candidate| candidate.token)
}

/// exp((logit − max) ÷ temperature): 1 for the maximum even where it is infinite.
fn weight(logit: f32, max: f32, temperature: f64) -> f64 {
    if logit == max { 1.0 } else { ((f64::from(logit) - f64::from(max)) / temperature).exp() }
}

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, any seed is a good one.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), in steps of 2^-53.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn drawing(seed: u64) -> Sampler {
        let mut sampler = Sampler::new();
        sampler.set_temperature(1.0).unwrap();
        sampler.set_seed(seed);
        sampler
    }

    /// The tokens that ever come up in 2000 draws.
    fn drawn(sampler: &mut Sampler, logits: &[f32]) -> Vec<i32> {
        let mut tokens: Vec<i32> = (0..2000).map(|_| sampler.sample(logits).unwrap()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    #[test]
    fn a_new_sampler_takes_the_likeliest_and_of_equals_the_lowest() {
        let mut sampler = Sampler::new();
        assert_eq!(sampler.sample(&[0.5, 2.0, -1.0, 2.0]).unwrap(), 1);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, f32::NEG_INFINITY]).unwrap(), 0);
        assert_eq!(sampler.sample(&[-0.0, 0.0]).unwrap(), 0);
    }

    #[test]
    fn a_logit_that_is_not_a_number_is_never_chosen() {
        assert_eq!(Sampler::new().sample(&[f32::NAN, -5.0, f32::NAN, -4.0]).unwrap(), 3);
        assert_eq!(drawn(&mut drawing(3), &[f32::NAN, 0.0, f32::NAN, 0.0]), [1, 3]);
        let mut nucleus = drawing(3);
        nucleus.set_top_p(0.9).unwrap();
        nucleus.set_top_k(3);
        assert_eq!(drawn(&mut nucleus, &[f32::NAN, 0.0, f32::NAN, 0.0]), [1, 3]);
    }

    #[test]
    fn logits_without_a_number_are_an_error_not_a_token() {
        for sampler in [&mut Sampler::new(), &mut drawing(1)] {
            assert_eq!(sampler.sample(&[f32::NAN; 4]).unwrap_err().status(), Status::Format);
            assert_eq!(sampler.sample(&[]).unwrap_err().status(), Status::Format);
        }
    }

    #[test]
    fn an_infinite_logit_is_always_drawn() {
        assert_eq!(drawn(&mut drawing(1), &[0.0, f32::INFINITY, 3.0]), [1]);
        assert_eq!(drawn(&mut drawing(1), &[f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY]), [1]);
        assert_eq!(drawn(&mut drawing(1), &[f32::NEG_INFINITY; 2]), [0, 1]);
    }

    #[test]
    fn draws_follow_the_softmax() {
        // Probabilities 1/2, 1/3, 1/6 at temperature 1; at 0.5 they are squared: 9/14, 4/14, 1/14.
        let logits = [3f32.ln(), 2f32.ln(), 1f32.ln()];
        for (temperature, expected) in [(1.0, [0.5, 0.3333, 0.1667]), (0.5, [0.6429, 0.2857, 0.0714])] {
            let mut sampler = drawing(42);
            sampler.set_temperature(temperature).unwrap();
            let mut counts = [0u32; 3];
            for _ in 0..60_000 {
                counts[sampler.sample(&logits).unwrap() as usize] += 1;
            }
            for (count, expected) in counts.iter().zip(expected) {
                let share = f64::from(*count) / 60_000.0;
                assert!((share - expected).abs() < 0.008, "{counts:?} at temperature {temperature}");
            }
        }
    }

    #[test]
    fn a_seed_repeats_its_tokens_and_another_gives_others() {
        let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.7).sin()).collect();
        let run = |seed| {
            let mut sampler = drawing(seed);
            (0..40).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let mut sampler = drawing(7);
        let first: Vec<i32> = (0..40).map(|_| sampler.sample(&logits).unwrap()).collect();
        sampler.set_seed(7);
        assert_eq!(first, (0..40).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published sequence for seed 1234567.
        let mut random = SplitMix64(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn top_k_keeps_the_k_likeliest_and_of_equals_the_lowest() {
        let mut sampler = drawing(1);
        sampler.set_top_k(2);
        assert_eq!(drawn(&mut sampler, &[1.0, 0.9, 1.1, 0.95]), [0, 2]);
        assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1]);
        sampler.set_top_k(0);
        assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1, 2, 3, 4]);
        sampler.set_top_k(9);
        assert_eq!(drawn(&mut sampler, &[1.0; 5]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_the_fewest_likeliest_that_reach_it() {
        // Probabilities 0.2, 0.5, 0.3.
        let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
        for (p, expected) in [(0.0, &[1][..]), (0.45, &[1]), (0.55, &[1, 2]), (0.79, &[1, 2]), (0.85, &[0, 1, 2])] {
            let mut sampler = drawing(1);
            sampler.set_top_p(p).unwrap();
            assert_eq!(drawn(&mut sampler, &logits), expected, "top-p {p}");
        }
    }

    #[test]
    fn top_p_reaches_beyond_the_head_it_sorts_first() {
        // 1000 equal tokens: 0.9 of them stay, the lowest, whatever order the selection leaves behind.
        let mut sampler = drawing(1);
        sampler.set_top_p(0.9).unwrap();
        sampler.fill(&[0.0; 1000]);
        sampler.keep_top_p();
        let kept: Vec<u32> = sampler.candidates.iter().map(|candidate| candidate.token).collect();
        assert_eq!(kept, (0..900).collect::<Vec<_>>());
    }

    #[test]
    fn min_p_is_relative_to_the_likeliest() {
        // Probabilities 0.2, 0.5, 0.3: relative to the likeliest 0.4, 1, 0.6.
        let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
        for (p, expected) in [(0.35, &[0, 1, 2][..]), (0.5, &[1, 2]), (0.7, &[1]), (1.0, &[1])] {
            let mut sampler = drawing(1);
            sampler.set_min_p(p).unwrap();
            assert_eq!(drawn(&mut sampler, &logits), expected, "min-p {p}");
        }
    }

    #[test]
    fn narrowing_looks_at_probabilities_before_temperature() {
        // Hot enough to flatten everything; yet top-p and min-p see the unheated 0.5, 0.3, 0.2.
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let mut sampler = drawing(1);
        sampler.set_temperature(100.0).unwrap();
        sampler.set_top_p(0.55).unwrap();
        assert_eq!(drawn(&mut sampler, &logits), [0, 1]);
        sampler.set_top_p(1.0).unwrap();
        sampler.set_min_p(0.7).unwrap();
        assert_eq!(drawn(&mut sampler, &logits), [0]);
    }

    #[test]
    fn top_p_looks_at_what_top_k_left() {
        // Of 0.4, 0.3, 0.3 the two likeliest are renormalised to 0.571 and 0.429: 0.55 is reached by the first alone.
        let logits = [0.4f32.ln(), 0.3f32.ln(), 0.3f32.ln()];
        let mut sampler = drawing(1);
        sampler.set_top_p(0.55).unwrap();
        assert_eq!(drawn(&mut sampler, &logits), [0, 1]);
        sampler.set_top_k(2);
        assert_eq!(drawn(&mut sampler, &logits), [0]);
    }

    #[test]
    fn the_penalty_divides_positive_logits_and_multiplies_the_others_once() {
        let mut sampler = Sampler::new();
        sampler.set_repeat_penalty(2.0, 8).unwrap();
        sampler.accept(&[0, 0, 0, 1]);
        sampler.fill(&[3.0, -1.0, 0.5]);
        let logits: Vec<f32> = sampler.candidates.iter().map(|candidate| candidate.logit).collect();
        assert_eq!(logits, [1.5, -2.0, 0.5]);
    }

    #[test]
    fn the_penalty_looks_back_last_n_tokens() {
        let mut sampler = Sampler::new();
        sampler.set_repeat_penalty(10.0, 2).unwrap();
        // Greedy over three near-equal tokens: with two remembered, the third is free again each time.
        let tokens: Vec<i32> = (0..6).map(|_| sampler.sample(&[3.0, 2.0, 1.0]).unwrap()).collect();
        assert_eq!(tokens, [0, 1, 2, 0, 1, 2]);
        sampler.accept(&[2, 2]);
        assert_eq!(sampler.sample(&[1.0, 2.0, 3.0]).unwrap(), 1);
        sampler.set_repeat_penalty(10.0, 0).unwrap();
        assert_eq!([sampler.sample(&[2.0, 1.0]).unwrap(), sampler.sample(&[2.0, 1.0]).unwrap()], [0, 0]);
    }

    #[test]
    fn the_penalty_counts_tokens_sampled_before_it_was_needed_but_forgets_them_when_set() {
        let mut sampler = Sampler::new();
        sampler.accept(&[-1, 7, 1]);
        assert_eq!(sampler.history, [7, 1]);
        sampler.set_repeat_penalty(5.0, 4).unwrap();
        assert_eq!(sampler.sample(&[1.0, 2.0]).unwrap(), 1);
        assert_eq!(sampler.sample(&[1.0, 2.0]).unwrap(), 0);
    }

    #[test]
    fn a_reset_sampler_begins_as_it_did_and_a_copy_goes_on_alike() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut sampler = drawing(9);
        sampler.set_repeat_penalty(1.5, 4).unwrap();
        let first: Vec<i32> = (0..20).map(|_| sampler.sample(&logits).unwrap()).collect();
        let mut copy = sampler.clone();
        let next: Vec<i32> = (0..20).map(|_| sampler.sample(&logits).unwrap()).collect();
        assert_eq!(next, (0..20).map(|_| copy.sample(&logits).unwrap()).collect::<Vec<_>>());
        assert_ne!(first, next);
        sampler.reset();
        assert_eq!(first, (0..20).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn a_figure_out_of_range_is_refused_and_changes_nothing() {
        let mut sampler = Sampler::new();
        for bad in [f32::NAN, f32::INFINITY, -0.1] {
            assert_eq!(sampler.set_temperature(bad).unwrap_err().status(), Status::InvalidArgument);
            assert!(sampler.set_top_p(bad).is_err());
            assert!(sampler.set_min_p(bad).is_err());
            assert!(sampler.set_repeat_penalty(bad, 1).is_err());
        }
        assert!(sampler.set_top_p(1.01).is_err() && sampler.set_min_p(1.01).is_err());
        assert!(sampler.set_repeat_penalty(0.0, 1).is_err());
        let fresh = Sampler::new();
        assert_eq!((sampler.temperature, sampler.top_p, sampler.min_p), (fresh.temperature, fresh.top_p, fresh.min_p));
        assert_eq!((sampler.penalty, sampler.last_n), (fresh.penalty, fresh.last_n));
    }

    #[test]
    fn no_memory_is_taken_for_a_second_token() {
        let logits: Vec<f32> = (0..5000).map(|i| (i as f32).cos()).collect();
        let mut sampler = drawing(1);
        sampler.set_top_p(0.95).unwrap();
        sampler.set_repeat_penalty(1.1, 4).unwrap();
        for _ in 0..8 {
            sampler.sample(&logits).unwrap();
        }
        let before = (sampler.candidates.capacity(), sampler.weights.capacity(), sampler.history.capacity());
        for _ in 0..100 {
            sampler.sample(&logits).unwrap();
        }
        assert_eq!(before, (sampler.candidates.capacity(), sampler.weights.capacity(), sampler.history.capacity()));
    }
}
