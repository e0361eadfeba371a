//! From logits to a token: a chain of steps, then a draw. The steps and their default order are llama.cpp's.

mod breakers;
mod candidates;
mod random;
mod repetition;
mod steps;

use std::collections::VecDeque;

use super::Sequence;
use crate::error::{Error, Result};
use crate::exec::Candidates;
use crate::sys::heap;
use crate::text::Tokenizer;
use candidates::{Candidate, candidate, keep, logit_of, token_of};
use random::SplitMix64;
use repetition::{Dry, Penalties, counts};
use steps::Mirostat;
pub use steps::Step;

/// Chooses tokens for one sequence. Greedy until told otherwise; of equal logits the lowest token wins.
///
/// Logit biases first; then the chain, each step on what the one before left, in the order of [`Step`] unless told:
/// 1. penalties: logits of tokens among the last ones ([`Sampler::set_repeat_penalty`], [`Sampler::set_frequency_penalty`]);
/// 2. DRY: those of tokens that go on with a repeated sequence ([`Sampler::set_dry`]);
/// 3. top-n-sigma (Tang et al. 2024): logits at most n standard deviations below the greatest;
/// 4. top-k: the k likeliest;
/// 5. typical (Meister et al. 2022);
/// 6. top-p (Holtzman et al. 2020): the fewest likeliest whose probabilities sum to p;
/// 7. min-p (Nguyen et al. 2024): those at least p times as probable as the likeliest;
/// 8. XTC (p-e-w 2024): sometimes all of the likeliest but the last;
/// 9. temperature: logits are divided by it; at last one token is drawn from their softmax.
///
/// With Mirostat only biases and the temperature are before the draw, as there.
///
/// A logit that is NaN is never chosen. The same seed, settings and logits give the same tokens on one platform;
/// between platforms the last bit of `exp` may differ.
///
/// The tokens that penalties look at are those given to [`Sampler::accept`]; [`Sampler::sample`] does it for what it
/// chooses.
#[derive(Debug)]
pub struct Sampler {
    show_control: bool,
    /// Added to logits, by token.
    biases: Vec<(u32, f32)>,
    order: [Step; Step::ALL.len()],
    /// How many of them the chain has.
    steps: usize,
    penalties: Penalties,
    dry: Dry,
    top_n_sigma: f32,
    top_k: u32,
    typical_p: f32,
    top_p: f32,
    min_p: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    temperature: f32,
    /// The temperature goes as far up and down.
    temperature_range: f32,
    temperature_exponent: f32,
    mirostat: Option<Mirostat>,
    seed: u64,
    random: SplitMix64,
    /// The last tokens of the sequence, at most [`Sampler::reach`].
    history: VecDeque<u32>,
    /// For choices outside a session.
    candidates: Candidates,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler {
            show_control: false,
            biases: Vec::new(),
            order: Step::ALL,
            steps: Step::ALL.len(),
            penalties: Penalties { repeat: 1.0, frequency: 0.0, presence: 0.0, last_n: 64 },
            dry: Dry::default(),
            top_n_sigma: 0.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            temperature: 0.0,
            temperature_range: 0.0,
            temperature_exponent: 1.0,
            mirostat: None,
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

    /// A second one with the same settings, the tokens seen so far and the place in the random sequence.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`.
    pub fn copy(&self) -> Result<Sampler> {
        let mut history = VecDeque::new();
        let refused = |_| Error::out_of_memory("tokens that a sampler looks at");
        history.try_reserve_exact(self.history.len()).map_err(refused)?;
        history.extend(&self.history);
        Ok(Sampler {
            biases: heap::collected(self.biases.iter().copied(), "logit biases")?,
            dry: self.dry.copy()?,
            random: self.random.clone(),
            history,
            candidates: Candidates::default(),
            ..*self
        })
    }

    /// 0: greedy, the default.
    pub fn set_temperature(&mut self, temperature: f32) -> Result<()> {
        self.temperature = at_least_zero(temperature, "temperature")?;
        Ok(())
    }

    /// Lets the temperature be from `range` below to `range` above what is set, never below 0: the less certain the model
    /// is, the higher. 0: none, the default. `exponent`: above 1 it stays low for longer; 1 by default.
    pub fn set_dynamic_temperature(&mut self, range: f32, exponent: f32) -> Result<()> {
        let range = at_least_zero(range, "the range of the temperature")?;
        self.temperature_exponent = at_least_zero(exponent, "the exponent of the temperature")?;
        self.temperature_range = range;
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
        self.top_p = probability(p, "top-p")?;
        Ok(())
    }

    /// From 0 to 1; 0: all, the default.
    pub fn set_min_p(&mut self, p: f32) -> Result<()> {
        self.min_p = probability(p, "min-p")?;
        Ok(())
    }

    /// From 0 to 1; 1: all, the default.
    pub fn set_typical_p(&mut self, p: f32) -> Result<()> {
        self.typical_p = probability(p, "typical p")?;
        Ok(())
    }

    /// Standard deviations; 0: all, the default.
    pub fn set_top_n_sigma(&mut self, n: f32) -> Result<()> {
        self.top_n_sigma = at_least_zero(n, "top-n-sigma")?;
        Ok(())
    }

    /// With this probability, of the tokens at least as probable as the threshold only the least probable stays, where there
    /// are two or more. Probability 0: never, the default; a threshold above 0.5 leaves nothing to do.
    pub fn set_xtc(&mut self, chance: f32, threshold: f32) -> Result<()> {
        let chance = probability(chance, "the probability of XTC")?;
        self.xtc_threshold = probability(threshold, "the threshold of XTC")?;
        self.xtc_probability = chance;
        Ok(())
    }

    /// Mirostat 2 with the surprise `tau`, in bits, and the learning rate `eta`; `tau` 0: off, the default.
    pub fn set_mirostat(&mut self, tau: f32, eta: f32) -> Result<()> {
        let (tau, eta) = (at_least_zero(tau, "tau")?, at_least_zero(eta, "eta")?);
        self.mirostat = (tau > 0.0).then(|| Mirostat::new(tau, eta));
        Ok(())
    }

    /// Over the last `last_n` tokens; 1 is no penalty, the default, with 64 tokens. Forgets the tokens seen so far.
    pub fn set_repeat_penalty(&mut self, penalty: f32, last_n: u32) -> Result<()> {
        if !(penalty.is_finite() && penalty > 0.0) {
            return Err(Error::invalid(format!("repeat penalty is {penalty}; it must be finite and above 0")));
        }
        self.penalties.repeat = penalty;
        self.penalties.last_n = last_n as usize;
        self.history.clear();
        Ok(())
    }

    /// Taken off the logit of a token for each time that it is among the last ones, as many as the repeat penalty looks at. It
    /// may be below 0; 0, the default: nothing.
    pub fn set_frequency_penalty(&mut self, penalty: f32) -> Result<()> {
        self.penalties.frequency = finite(penalty, "frequency penalty")?;
        Ok(())
    }

    /// As [`Sampler::set_frequency_penalty`], once however often it is there.
    pub fn set_presence_penalty(&mut self, penalty: f32) -> Result<()> {
        self.penalties.presence = finite(penalty, "presence penalty")?;
        Ok(())
    }

    /// A token that would go on with a sequence of `allowed_length` tokens or more that is among the last `last_n` loses
    /// `multiplier` · `base`^(length − `allowed_length`). Multiplier 0: off, the default.
    pub fn set_dry(&mut self, multiplier: f32, base: f32, allowed_length: u32, last_n: u32) -> Result<()> {
        let multiplier = at_least_zero(multiplier, "the multiplier of DRY")?;
        if !(base.is_finite() && base >= 1.0) {
            return Err(Error::invalid(format!("the base of DRY is {base}; it must be finite and at least 1")));
        }
        (self.dry.multiplier, self.dry.base, self.dry.allowed_length) = (multiplier, base, allowed_length);
        self.dry.last_n = last_n as usize;
        Ok(())
    }

    /// Adds a breaker: no sequence that DRY looks for goes across these tokens. At least one; those beyond 21 do not count.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `OUT_OF_MEMORY`.
    pub fn add_dry_breaker(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::invalid("a breaker of sequences is empty"));
        }
        self.dry.add_breaker(tokens)
    }

    /// Adds a text as a breaker: every way in which tokens of a vocabulary have it, wherever it begins and ends in them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it is empty; `OUT_OF_MEMORY`. Nothing has changed then.
    pub fn add_dry_breaker_text(&mut self, tokenizer: &Tokenizer, text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(Error::invalid("a breaker of sequences is empty"));
        }
        let mut dry = self.dry.copy()?;
        for sequence in breakers::sequences_of(tokenizer, text)? {
            dry.add_breaker(&sequence)?;
        }
        self.dry = dry;
        Ok(())
    }

    /// Removes all breakers.
    pub fn clear_dry_breakers(&mut self) {
        self.dry.clear_breakers();
    }

    /// What is added to logits, in place of what was set before. An infinite bias below 0 bans a token.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `OUT_OF_MEMORY`; nothing has changed then.
    pub fn set_logit_biases(&mut self, biases: impl ExactSizeIterator<Item = (i32, f32)>) -> Result<()> {
        let mut own = Vec::new();
        heap::reserve(&mut own, biases.len(), "logit biases")?;
        for (token, bias) in biases {
            let known = u32::try_from(token).ok().filter(|_| !bias.is_nan() && bias != f32::INFINITY);
            let token =
                known.ok_or_else(|| Error::invalid(format!("a bias of {bias} for token {token}: tokens are numbered from 0, and a bias is a number, or infinite below 0")))?;
            own.push((token, bias));
        }
        self.biases = own;
        Ok(())
    }

    /// Which steps the chain has, in their order; each at most once. One that is not named does nothing.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: one comes twice.
    pub fn set_steps(&mut self, order: &[Step]) -> Result<()> {
        if let Some(twice) = (1..order.len()).find(|&i| order[..i].contains(&order[i])) {
            return Err(Error::invalid(format!("step {twice} of the chain was there before")));
        }
        // Each at most once: there are no more than kinds of them.
        self.order[..order.len()].copy_from_slice(order);
        self.steps = order.len();
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
        if let Some(mirostat) = &mut self.mirostat {
            *mirostat = Mirostat::new(mirostat.tau, mirostat.eta);
        }
    }

    /// How many tokens back penalties look.
    fn reach(&self) -> usize {
        let dry = if self.dry.changes_nothing() { 0 } else { self.dry.last_n };
        self.penalties.last_n.max(dry)
    }

    /// Adds tokens of the sequence that were not sampled here (a prompt) to what penalties look at.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY`: none of them was added.
    pub fn accept(&mut self, tokens: &[i32]) -> Result<()> {
        let reach = self.reach();
        let tokens = &tokens[tokens.len().saturating_sub(reach)..];
        let more = tokens.len().min(reach - self.history.len().min(reach));
        let refused = |_| Error::out_of_memory(format!("{} more tokens that a sampler looks at", tokens.len()));
        self.history.try_reserve(more).map_err(refused)?;
        for &token in tokens {
            let Ok(token) = u32::try_from(token) else { continue };
            while self.history.len() >= reach {
                self.history.pop_front();
            }
            self.history.push_back(token);
        }
        Ok(())
    }

    /// Chooses a token by `logits`, one for each token of the vocabulary, and remembers it for the penalties. A choice
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
        let token = if self.takes_likeliest() {
            likeliest(logits.iter().copied().enumerate())
        } else {
            let (candidates, weights) = memory.numbers(logits.len())?;
            self.choose(candidates, weights, logits)?
        };
        let token = token.ok_or_else(|| {
            Error::format(format!("none of the {} logits is a number: the model's weights are damaged", logits.len()))
        })?;
        let token = i32::try_from(token).map_err(|_| Error::invalid("more logits than tokens can be numbered"))?;
        self.accept(&[token])?;
        Ok(token)
    }

    /// Whether it is greedy, and no step can take the likeliest token away or make another one the likeliest.
    fn takes_likeliest(&self) -> bool {
        let has = |step| self.order[..self.steps].contains(&step);
        self.temperature == 0.0
            && self.temperature_range == 0.0
            && self.biases.is_empty()
            && self.mirostat.is_none()
            && (self.penalties.change_nothing() || !has(Step::Penalties))
            && (self.dry.changes_nothing() || !has(Step::Dry))
            && (self.xtc_probability == 0.0 || !has(Step::Xtc))
            && (self.typical_p == 1.0 || !has(Step::Typical))
    }

    fn choose(&mut self, all: &mut [Candidate], weights: &mut [u64], logits: &[f32]) -> Result<Option<u32>> {
        let (candidates, temperature) = self.narrow(all, weights, logits)?;
        let chosen = match &mut self.mirostat {
            Some(mirostat) => mirostat.draw(candidates, weights, temperature, &mut self.random),
            None => steps::draw(candidates, weights, temperature, &mut self.random),
        };
        Ok(chosen.map(token_of))
    }

    /// What the chain leaves of the tokens, and the temperature to draw with.
    fn narrow<'a>(
        &mut self,
        all: &'a mut [Candidate],
        keys: &mut [u64],
        logits: &[f32],
    ) -> Result<(&'a mut [Candidate], f64)> {
        for (place, entry) in all.iter_mut().zip(logits.iter().copied().enumerate()) {
            *place = candidate(entry);
        }
        let mut left = Left { candidates: all, complete: true };
        // Sums of all biases of a token, whose order does not count.
        for &(token, bias) in &self.biases {
            left.change_one(token, |logit| logit + bias);
        }
        const MIROSTAT: &[Step] = &[Step::Temperature];
        let order = if self.mirostat.is_some() { MIROSTAT } else { &self.order[..self.steps] };
        // A sampler without this step draws from the logits as they are.
        let mut temperature = 1.0;
        for (i, step) in order.iter().enumerate() {
            match step {
                Step::Penalties if !self.penalties.change_nothing() => {
                    let seen = self.history.len().saturating_sub(self.penalties.last_n);
                    let counts = counts(self.history.range(seen..).copied())?;
                    left.change(&counts, |logit, count| self.penalties.penalised(logit, count));
                }
                Step::Dry if !self.dry.changes_nothing() => {
                    let penalties = self.dry.penalties(self.history.make_contiguous())?;
                    left.change(&penalties, |logit, penalty| logit - penalty);
                }
                Step::Penalties | Step::Dry => {}
                Step::TopNSigma => left.narrow(|all| steps::top_n_sigma(all, self.top_n_sigma)),
                Step::TopK => left.narrow(|all| steps::top_k(all, self.top_k as usize)),
                Step::Typical => left.narrow(|all| steps::typical(all, self.typical_p, keys)),
                Step::TopP => left.narrow(|all| steps::top_p(all, self.top_p)),
                Step::MinP => left.narrow(|all| steps::min_p(all, self.min_p)),
                Step::Xtc if self.xtc_probability > 0.0 && self.xtc_threshold <= 0.5 => {
                    if self.random.unit() < f64::from(self.xtc_probability) {
                        left.narrow(|all| steps::xtc(all, self.xtc_threshold));
                    }
                }
                Step::Xtc => {}
                Step::Temperature => {
                    left.narrow(|all| all);
                    let now = match self.temperature_range {
                        0.0 => f64::from(self.temperature),
                        range => steps::dynamic_temperature(
                            left.candidates,
                            self.temperature,
                            range,
                            self.temperature_exponent,
                        ),
                    };
                    if i + 1 == order.len() || now == 0.0 {
                        // The draw divides by it, and rounds less; where it is 0, one is left.
                        temperature = now;
                    } else {
                        left.candidates.iter_mut().for_each(|place| {
                            let scaled = (f64::from(logit_of(*place)) / now) as f32;
                            *place = candidate((token_of(*place) as usize, scaled));
                        });
                    }
                }
            }
        }
        left.narrow(|all| all);
        Ok((left.candidates, temperature))
    }
}

/// What is left of the tokens.
struct Left<'a> {
    candidates: &'a mut [Candidate],
    /// Every token is there, in their order, those whose logits are no numbers too.
    complete: bool,
}

impl Left<'_> {
    /// Changes the logits of some tokens; `changes` are in the order of tokens, each once.
    fn change<T: Copy>(&mut self, changes: &[(u32, T)], change: impl Fn(f32, T) -> f32) {
        if self.complete {
            return changes.iter().for_each(|&(token, by)| self.change_one(token, |logit| change(logit, by)));
        }
        for place in self.candidates.iter_mut() {
            let token = token_of(*place);
            if let Ok(at) = changes.binary_search_by_key(&token, |&(token, _)| token) {
                *place = candidate((token as usize, change(logit_of(*place), changes[at].1)));
            }
        }
    }

    /// Changes the logit of a token, while all are there.
    fn change_one(&mut self, token: u32, change: impl FnOnce(f32) -> f32) {
        if let Some(place) = self.candidates.get_mut(token as usize) {
            *place = candidate((token as usize, change(logit_of(*place))));
        }
    }

    /// Leaves fewer of them; those whose logits are no numbers go first.
    fn narrow(&mut self, narrow: impl FnOnce(&mut [Candidate]) -> &mut [Candidate]) {
        let mut candidates = std::mem::take(&mut self.candidates);
        if std::mem::take(&mut self.complete) {
            candidates = keep(candidates, |candidate| !logit_of(candidate).is_nan());
        }
        self.candidates = narrow(candidates);
    }
}

fn finite(value: f32, what: &str) -> Result<f32> {
    if value.is_finite() { Ok(value) } else { Err(Error::invalid(format!("{what} is {value}; it must be finite"))) }
}

fn at_least_zero(value: f32, what: &str) -> Result<f32> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(Error::invalid(format!("{what} is {value}; it must be finite and at least 0")))
}

fn probability(value: f32, what: &str) -> Result<f32> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(format!("{what} is {value}; it must be from 0 to 1")))
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

#[cfg(test)]
mod tests;
