//! How likely tokens were: by the model's logits, and by what the sampler's chain made of them. Sums are in double
//! precision and in the order of tokens, so that the same logits give the same bits.

use super::sampler::{Candidate, candidate, logit_of, token_of, weight};
use crate::error::{Error, Result};
use crate::sys::heap;

/// Likeliest tokens of a distribution that can be asked for.
pub const MAX_TOP: usize = 256;

/// A token and the natural logarithm of its probability.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: i32,
    pub logprob: f32,
}

/// What a distribution says of a token that was chosen, and of its likeliest tokens.
#[derive(Debug, Default)]
pub struct Distribution {
    /// The natural logarithm of the probability of the token chosen.
    pub chosen: f32,
    /// The likeliest tokens, the likeliest first; of equals the lowest token. Those that are impossible are left out.
    pub top: Vec<TokenLogprob>,
    most: usize,
    /// The likeliest so far.
    best: Vec<Candidate>,
}

/// How likely a token was that a generation chose.
#[derive(Debug, Default)]
pub struct Logprobs {
    /// By the softmax of the model's logits.
    pub raw: Distribution,
    /// By what it was drawn from: what the sampler's chain left, divided by the temperature. A greedy choice is certain.
    pub sampled: Distribution,
}

impl Logprobs {
    /// With the `top` likeliest tokens of both.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: more than [`MAX_TOP`]; `OUT_OF_MEMORY`.
    pub(super) fn new(top: usize) -> Result<Logprobs> {
        if top > MAX_TOP {
            return Err(Error::invalid(format!("the {top} likeliest tokens: at most {MAX_TOP} can be asked for")));
        }
        Ok(Logprobs { raw: Distribution::new(top)?, sampled: Distribution::new(top)? })
    }
}

impl Distribution {
    fn new(most: usize) -> Result<Distribution> {
        let mut made = Distribution { most, ..Distribution::default() };
        heap::reserve(&mut made.top, most, "log-probabilities")?;
        heap::reserve(&mut made.best, most, "log-probabilities")?;
        Ok(made)
    }

    /// The softmax of logits, of which those that are no numbers do not count.
    pub(super) fn of_logits(&mut self, logits: &[f32], chosen: i32) {
        let numbers = || logits.iter().copied().enumerate().filter(|(_, logit)| !logit.is_nan());
        let max = numbers().map(|(_, logit)| logit).fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = numbers().map(|(_, logit)| weight(logit, max, 1.0)).sum();
        let logit = usize::try_from(chosen).ok().and_then(|at| logits.get(at)).copied();
        self.fill(numbers().map(candidate), (max, 1.0, total), logit.unwrap_or(f32::NEG_INFINITY));
    }

    /// The softmax of candidates divided by a temperature, where `weights` are their weights. At temperature 0 the one that
    /// was chosen is certain.
    pub(super) fn of_candidates(
        &mut self,
        candidates: &[Candidate],
        weights: &[u64],
        temperature: f64,
        chosen: Candidate,
    ) {
        if temperature == 0.0 {
            return self.certain(token_of(chosen));
        }
        let total = weights[..candidates.len()].iter().copied().map(f64::from_bits).sum();
        let max = candidates.iter().copied().map(logit_of).fold(f32::NEG_INFINITY, f32::max);
        self.fill(candidates.iter().copied(), (max, temperature, total), logit_of(chosen));
    }

    /// One token alone is possible.
    pub(super) fn certain(&mut self, token: u32) {
        self.chosen = 0.0;
        self.top.clear();
        if self.most > 0 {
            self.top.push(TokenLogprob { token: token as i32, logprob: 0.0 });
        }
    }

    fn fill(
        &mut self,
        candidates: impl Iterator<Item = Candidate>,
        (max, temperature, total): (f32, f64, f64),
        chosen: f32,
    ) {
        let log_total = total.ln();
        let logprob = |logit: f32| {
            // The difference of two infinities is no number.
            let above = if logit == max { 0.0 } else { (f64::from(logit) - f64::from(max)) / temperature };
            (above - log_total) as f32
        };
        self.chosen = logprob(chosen);
        self.top.clear();
        self.best.clear();
        if self.most == 0 {
            return;
        }
        for candidate in candidates {
            if self.best.len() == self.most {
                if self.best.last().is_some_and(|&last| candidate >= last) {
                    continue;
                }
                self.best.pop();
            }
            let at = self.best.partition_point(|&better| better < candidate);
            self.best.insert(at, candidate);
        }
        let likely = self.best.iter().map(|&c| (token_of(c) as i32, logprob(logit_of(c))));
        let possible = likely.filter(|(_, logprob)| *logprob > f32::NEG_INFINITY);
        self.top.extend(possible.map(|(token, logprob)| TokenLogprob { token, logprob }));
    }
}
