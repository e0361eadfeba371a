//! From logits to a token: penalty, top-k, top-p, min-p, temperature, draw. The order is llama.cpp's default order.

use std::collections::VecDeque;

use super::Sequence;
use crate::error::{Error, Result};
use crate::exec::Candidates;

/// A token that may be chosen, with its logit, as one number. Of two, the lesser one is likelier, or of the same logit and
/// the lower token: a total order, as no candidate's logit is NaN.
type Candidate = u64;

fn candidate((token, logit): (usize, f32)) -> Candidate {
    // Adding zero makes -0.0 a plain zero, which the total order would else put behind it.
    u64::from(!ascending((logit + 0.0).to_bits())) << 32 | token as u64
}

fn token_of(candidate: Candidate) -> u32 {
    candidate as u32
}

fn logit_of(candidate: Candidate) -> f32 {
    let ascending = !((candidate >> 32) as u32);
    // What `ascending` does to the bits, taken back.
    f32::from_bits(ascending ^ if ascending >> 31 == 1 { 1 << 31 } else { u32::MAX })
}

/// The bits of a float so that greater floats have greater ones: those of negative floats turned round, behind the others.
fn ascending(bits: u32) -> u32 {
    bits ^ if bits >> 31 == 0 { 1 << 31 } else { u32::MAX }
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
    /// For choices outside a session.
    candidates: Candidates,
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
            candidates: Candidates::default(),
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
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`: none of them was added.
    pub fn accept(&mut self, tokens: &[i32]) -> Result<()> {
        let tokens = &tokens[tokens.len().saturating_sub(self.last_n)..];
        let more = tokens.len().min(self.last_n - self.history.len().min(self.last_n));
        let refused = |_| Error::out_of_memory(format!("{} more tokens that a sampler looks at", tokens.len()));
        self.history.try_reserve(more).map_err(refused)?;
        for &token in tokens {
            let Ok(token) = u32::try_from(token) else { continue };
            if self.history.len() >= self.last_n {
                self.history.pop_front();
            }
            self.history.push_back(token);
        }
        Ok(())
    }

    /// Chooses a token by `logits`, one for each token of the vocabulary, and remembers it for the repeat penalty. A choice
    /// that is not greedy takes 16 bytes for each of them, which the sampler keeps and no budget counts.
    ///
    /// # Errors
    /// `FORMAT`: no logit is a number; `OUT_OF_MEMORY`.
    pub fn sample(&mut self, logits: &[f32]) -> Result<i32> {
        let mut own = std::mem::take(&mut self.candidates);
        let token = self.sample_in(&mut own, logits);
        self.candidates = own;
        token
    }

    /// As [`Sampler::sample`], by the logits of the sequence's last pass and in its memory.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the last pass left no logits; as [`Sampler::sample`].
    pub fn sample_last<S: Sequence>(&mut self, sequence: &S) -> Result<i32> {
        let logits = sequence.last_logits()?;
        sequence.with_candidates(|memory| self.sample_in(memory, logits))
    }

    /// As [`Sampler::sample`], in memory of the caller's.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_in(&mut self, memory: &mut Candidates, logits: &[f32]) -> Result<i32> {
        let token = if self.temperature == 0.0 && self.penalty == 1.0 {
            likeliest(logits.iter().copied().enumerate())
        } else {
            let (candidates, weights) = memory.numbers(logits.len())?;
            let candidates = self.fill(candidates, logits);
            if self.temperature == 0.0 {
                likeliest(candidates.iter().map(|&c| (token_of(c) as usize, logit_of(c))))
            } else {
                self.draw(candidates, weights)
            }
        };
        let token = token.ok_or_else(|| {
            Error::format(format!("none of the {} logits is a number: the model's weights are damaged", logits.len()))
        })?;
        let token = i32::try_from(token).map_err(|_| Error::invalid("more logits than tokens can be numbered"))?;
        self.accept(&[token])?;
        Ok(token)
    }

    /// The candidates: every token whose logit is a number, with the penalty applied.
    fn fill<'a>(&self, all: &'a mut [Candidate], logits: &[f32]) -> &'a mut [Candidate] {
        for (place, entry) in all.iter_mut().zip(logits.iter().copied().enumerate()) {
            *place = candidate(entry);
        }
        if self.penalty != 1.0 {
            // Each token once, however often it was seen: the value is computed from the given logit, not in place.
            for &token in &self.history {
                if let Some(&logit) = logits.get(token as usize) {
                    let penalised = if logit > 0.0 { logit / self.penalty } else { logit * self.penalty };
                    all[token as usize] = candidate((token as usize, penalised));
                }
            }
        }
        keep(all, |logit| !logit.is_nan())
    }

    /// Narrows the candidates, then draws one. `None`: there are none.
    fn draw(&mut self, mut candidates: &mut [Candidate], weights: &mut [u64]) -> Option<u32> {
        let k = self.top_k as usize;
        if k > 0 && k < candidates.len() {
            candidates.select_nth_unstable(k - 1);
            candidates = &mut candidates[..k];
        }
        if self.top_p < 1.0 {
            candidates = keep_top_p(candidates, self.top_p);
        }
        let max = candidates.iter().copied().map(logit_of).reduce(f32::max)?;
        if self.min_p > 0.0 {
            // p_i >= min_p · p_max in logits, so that no softmax is needed.
            let least = f64::from(max) + f64::from(self.min_p).ln();
            candidates = keep(candidates, |logit| logit == max || f64::from(logit) >= least);
        }
        let temperature = f64::from(self.temperature);
        let weights = &mut weights[..candidates.len()];
        for (place, &candidate) in weights.iter_mut().zip(&*candidates) {
            *place = weight(logit_of(candidate), max, temperature).to_bits();
        }
        let total: f64 = weights.iter().copied().map(f64::from_bits).sum();
        let mut left = self.random.unit() * total;
        for (&candidate, &weight) in candidates.iter().zip(&*weights) {
            left -= f64::from_bits(weight);
            if left < 0.0 {
                return Some(token_of(candidate));
            }
        }
        // Rounding left a remainder: the last one that can be drawn.
        let last = weights.iter().rposition(|&weight| f64::from_bits(weight) > 0.0)?;
        Some(token_of(candidates[last]))
    }
}

/// Keeps the fewest likeliest candidates whose probabilities sum to `top_p`, likeliest first.
fn keep_top_p(candidates: &mut [Candidate], top_p: f32) -> &mut [Candidate] {
    let Some(max) = candidates.iter().copied().map(logit_of).reduce(f32::max) else { return candidates };
    let total: f64 = candidates.iter().map(|&candidate| weight(logit_of(candidate), max, 1.0)).sum();
    let wanted = f64::from(top_p) * total;
    let mut sum = 0.0;
    let mut sorted = 0;
    // The nucleus is small beside the vocabulary: sort the head, and more only if it does not suffice.
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let head = rest.len().min((sorted * 7).max(64));
        if head < rest.len() {
            rest.select_nth_unstable(head - 1);
        }
        rest[..head].sort_unstable();
        for index in 0..head {
            sum += weight(logit_of(rest[index]), max, 1.0);
            if sum >= wanted {
                return &mut candidates[..sorted + index + 1];
            }
        }
        sorted += head;
    }
    candidates
}

/// Keeps the candidates whose logits `stays` takes, in their order.
fn keep(candidates: &mut [Candidate], stays: impl Fn(f32) -> bool) -> &mut [Candidate] {
    let mut kept = 0;
    for i in 0..candidates.len() {
        let candidate = candidates[i];
        if stays(logit_of(candidate)) {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    &mut candidates[..kept]
}

/// The token of the greatest logit; of equals the first.
fn likeliest(logits: impl Iterator<Item = (usize, f32)>) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (token, logit) in logits {
        // A comparison with NaN is false, so that the first one needs its own check.
        if best.map_or(!logit.is_nan(), |(_, best)| logit > best) {
            best = Some((token, logit));
        }
    }
    best.map(|(token, _)| token as u32)
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
mod tests;
