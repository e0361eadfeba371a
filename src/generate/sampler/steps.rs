//! The steps of a sampler's chain that narrow candidates down, and the draw. Each is what llama.cpp means by its name.

use super::candidates::{Candidate, keep, likeliest_of, logit_of, max_of, token_of, weight};
use super::random::SplitMix64;

/// One step of the chain. The numbers are those of the C interface; their order is the default one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    Penalties,
    Dry,
    TopNSigma,
    TopK,
    Typical,
    TopP,
    MinP,
    Xtc,
    Temperature,
}

impl Step {
    pub const ALL: [Step; 9] = [
        Step::Penalties,
        Step::Dry,
        Step::TopNSigma,
        Step::TopK,
        Step::Typical,
        Step::TopP,
        Step::MinP,
        Step::Xtc,
        Step::Temperature,
    ];
}

/// How probable candidates are, by the softmax of their logits divided by a temperature above 0.
struct Softmax {
    max: f32,
    total: f64,
    temperature: f64,
}

impl Softmax {
    /// `None`: there are no candidates.
    fn of(candidates: &[Candidate], temperature: f64) -> Option<Softmax> {
        let max = max_of(candidates)?;
        let total = candidates.iter().map(|&c| weight(logit_of(c), max, temperature)).sum();
        Some(Softmax { max, total, temperature })
    }

    /// In proportion to the probability: 1 for the likeliest.
    fn weight(&self, candidate: Candidate) -> f64 {
        weight(logit_of(candidate), self.max, self.temperature)
    }

    fn probability(&self, candidate: Candidate) -> f64 {
        self.weight(candidate) / self.total
    }

    /// What is to be expected of the information of one that is drawn.
    fn entropy(&self, candidates: &[Candidate]) -> f64 {
        candidates.iter().map(|&c| self.probability(c)).map(|p| information(p) * p).sum()
    }
}

/// Keeps the `k` likeliest; 0: all.
pub fn top_k(candidates: &mut [Candidate], k: usize) -> &mut [Candidate] {
    if k == 0 || k >= candidates.len() {
        return candidates;
    }
    candidates.select_nth_unstable(k - 1);
    &mut candidates[..k]
}

/// Keeps the fewest likeliest candidates whose probabilities sum to `top_p`, likeliest first.
pub fn top_p(candidates: &mut [Candidate], top_p: f32) -> &mut [Candidate] {
    if top_p >= 1.0 {
        return candidates;
    }
    let Some(softmax) = Softmax::of(candidates, 1.0) else { return candidates };
    let wanted = f64::from(top_p) * softmax.total;
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
            sum += softmax.weight(rest[index]);
            if sum >= wanted {
                return &mut candidates[..sorted + index + 1];
            }
        }
        sorted += head;
    }
    candidates
}

/// Keeps those at least `min_p` times as probable as the likeliest; 0: all.
pub fn min_p(candidates: &mut [Candidate], min_p: f32) -> &mut [Candidate] {
    if min_p == 0.0 {
        return candidates;
    }
    let Some(max) = max_of(candidates) else { return candidates };
    // p_i >= min_p · p_max in logits, so that no softmax is needed.
    let least = f64::from(max) + f64::from(min_p).ln();
    keep_from(candidates, max, least)
}

/// Keeps those whose logits are at least `least`, which rounding may put above the greatest.
fn keep_from(candidates: &mut [Candidate], max: f32, least: f64) -> &mut [Candidate] {
    keep(candidates, |candidate| logit_of(candidate) == max || f64::from(logit_of(candidate)) >= least)
}

/// Keeps those whose logits are at most `n` standard deviations of all below the greatest; 0: all. Infinite logits have no
/// deviation.
pub fn top_n_sigma(candidates: &mut [Candidate], n: f32) -> &mut [Candidate] {
    if n == 0.0 {
        return candidates;
    }
    let Some(max) = max_of(candidates).filter(|max| max.is_finite()) else { return candidates };
    let finite = || candidates.iter().map(|&c| f64::from(logit_of(c))).filter(|logit| logit.is_finite());
    let count = finite().count() as f64;
    let mean = finite().sum::<f64>() / count;
    let deviation = (finite().map(|logit| (logit - mean) * (logit - mean)).sum::<f64>() / count).sqrt();
    let least = f64::from(max) - f64::from(n) * deviation;
    keep_from(candidates, max, least)
}

/// Keeps the fewest whose probabilities sum to more than `p`, beginning with those whose information is nearest to what is
/// expected, the entropy (Meister et al. 2022); 1: all. `keys` has room for a number for each.
pub fn typical<'a>(candidates: &'a mut [Candidate], p: f32, keys: &mut [u64]) -> &'a mut [Candidate] {
    if p >= 1.0 {
        return candidates;
    }
    let Some(softmax) = Softmax::of(candidates, 1.0) else { return candidates };
    let entropy = softmax.entropy(candidates);
    let keys = &mut keys[..candidates.len()];
    for (i, key) in keys.iter_mut().enumerate() {
        // Distances are not negative, so that their bits are in their order.
        let distance = (information(softmax.probability(candidates[i])) - entropy).abs() as f32;
        *key = u64::from(distance.to_bits()) << 32 | i as u64;
    }
    keys.sort_unstable();
    let mut sum = 0.0;
    let enough = keys.iter().position(|&key| {
        sum += softmax.probability(candidates[key as u32 as usize]);
        sum > f64::from(p)
    });
    let kept = enough.map_or(keys.len(), |last| last + 1);
    let chosen = &mut keys[..kept];
    chosen.iter_mut().for_each(|key| *key = u64::from(*key as u32));
    chosen.sort_unstable();
    for (to, &from) in chosen.iter().enumerate() {
        candidates[to] = candidates[from as usize];
    }
    &mut candidates[..kept]
}

/// −ln p, nothing where p is 0: it adds nothing to an entropy.
fn information(p: f64) -> f64 {
    if p > 0.0 { -p.ln() } else { 0.0 }
}

/// Of those whose probability is at least `threshold` only the least probable stays, where there are two or more.
pub fn xtc(candidates: &mut [Candidate], threshold: f32) -> &mut [Candidate] {
    let Some(softmax) = Softmax::of(candidates, 1.0) else { return candidates };
    let is_top = |c: Candidate| softmax.probability(c) >= f64::from(threshold);
    // The greatest number is the least likely.
    let Some(stays) = candidates.iter().copied().filter(|&c| is_top(c)).max() else { return candidates };
    keep(candidates, |candidate| candidate == stays || !is_top(candidate))
}

/// The temperature that the entropy of the candidates makes of a range around `temperature`: its lower end where one is
/// certain, its upper end where all are equally likely.
pub fn dynamic_temperature(candidates: &[Candidate], temperature: f32, range: f32, exponent: f32) -> f64 {
    let (low, high) = (f64::from((temperature - range).max(0.0)), f64::from(temperature + range));
    if candidates.len() < 2 {
        return f64::from(temperature);
    }
    let Some(softmax) = Softmax::of(candidates, 1.0) else { return f64::from(temperature) };
    let entropy = softmax.entropy(candidates);
    let part = (entropy / (candidates.len() as f64).ln()).clamp(0.0, 1.0);
    low + (high - low) * part.powf(f64::from(exponent))
}

/// Draws one from the softmax of the logits divided by the temperature, 0: the likeliest. `weights` has room for a number
/// for each, and holds what each weighs afterwards. `None`: there are none.
pub fn draw(
    candidates: &[Candidate],
    weights: &mut [u64],
    temperature: f64,
    random: &mut SplitMix64,
) -> Option<Candidate> {
    let max = max_of(candidates)?;
    let weights = &mut weights[..candidates.len()];
    if temperature == 0.0 {
        let chosen = likeliest_of(candidates)?;
        for (place, &candidate) in weights.iter_mut().zip(candidates) {
            *place = f64::from(u8::from(candidate == chosen)).to_bits();
        }
        return Some(chosen);
    }
    for (place, &candidate) in weights.iter_mut().zip(candidates) {
        *place = weight(logit_of(candidate), max, temperature).to_bits();
    }
    let total: f64 = weights.iter().copied().map(f64::from_bits).sum();
    let mut left = random.unit() * total;
    for (&candidate, &weight) in candidates.iter().zip(&*weights) {
        left -= f64::from_bits(weight);
        if left < 0.0 {
            return Some(candidate);
        }
    }
    // Rounding left a remainder: the last one that can be drawn.
    let last = weights.iter().rposition(|&weight| f64::from_bits(weight) > 0.0)?;
    Some(candidates[last])
}

/// Mirostat 2 (Basu et al. 2021): candidates more surprising than `mu` bits are left out, and what was drawn moves `mu`
/// towards a surprise of `tau`.
#[derive(Clone, Copy, Debug)]
pub struct Mirostat {
    pub tau: f32,
    pub eta: f32,
    pub mu: f64,
}

impl Mirostat {
    /// At the beginning of a sequence.
    pub fn new(tau: f32, eta: f32) -> Mirostat {
        Mirostat { tau, eta, mu: 2.0 * f64::from(tau) }
    }

    /// `None`: there are no candidates.
    pub fn draw(
        &mut self,
        candidates: &mut [Candidate],
        weights: &mut [u64],
        temperature: f64,
        random: &mut SplitMix64,
    ) -> Option<Candidate> {
        let candidates = self.narrow(candidates, temperature)?;
        let chosen = draw(candidates, weights, temperature, random)?;
        self.moved_by(candidates, weights, chosen);
        Some(chosen)
    }

    /// Those that are not too surprising, at least the likeliest.
    pub fn narrow<'a>(&self, candidates: &'a mut [Candidate], temperature: f64) -> Option<&'a mut [Candidate]> {
        let likeliest = likeliest_of(candidates)?;
        let fits = |softmax: &Softmax, c: Candidate| -softmax.probability(c).log2() <= self.mu;
        let softmax = Softmax::of(candidates, temperature).filter(|s| temperature > 0.0 && fits(s, likeliest));
        let Some(softmax) = softmax else {
            candidates[0] = likeliest;
            return Some(&mut candidates[..1]);
        };
        Some(keep(candidates, |candidate| fits(&softmax, candidate)))
    }

    /// After a draw of `chosen` from candidates of these weights.
    pub fn moved_by(&mut self, candidates: &[Candidate], weights: &[u64], chosen: Candidate) {
        let weights = &weights[..candidates.len()];
        let total: f64 = weights.iter().copied().map(f64::from_bits).sum();
        let Some(at) = candidates.iter().position(|&c| token_of(c) == token_of(chosen)) else { return };
        let surprise = -(f64::from_bits(weights[at]) / total).log2();
        self.mu -= f64::from(self.eta) * (surprise - f64::from(self.tau));
    }
}
