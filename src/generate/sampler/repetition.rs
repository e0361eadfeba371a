//! What makes tokens less likely that a text had lately: penalties for single tokens, and DRY for those that would go on
//! with a sequence that was there before.

use crate::error::{Error, Result};
use crate::sys::heap;

/// Penalties for tokens among the last ones.
#[derive(Clone, Copy, Debug)]
pub struct Penalties {
    /// Logits above 0 are divided by it, others multiplied (Keskar et al. 2019); 1: none.
    pub repeat: f32,
    /// Taken off for each time that the token was there.
    pub frequency: f32,
    /// Taken off once.
    pub presence: f32,
    /// How many tokens back.
    pub last_n: usize,
}

impl Penalties {
    pub fn change_nothing(&self) -> bool {
        self.last_n == 0 || self.repeat == 1.0 && self.frequency == 0.0 && self.presence == 0.0
    }

    /// What becomes of the logit of a token that was there `count` times.
    pub fn penalised(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit > 0.0 { logit / self.repeat } else { logit * self.repeat };
        repeated - (count as f32 * self.frequency + self.presence)
    }
}

/// How often each token is among `last`, by token.
pub fn counts(last: impl ExactSizeIterator<Item = u32>) -> Result<Vec<(u32, u32)>> {
    let mut tokens = heap::collected(last, "tokens that a sampler looks at")?;
    tokens.sort_unstable();
    let mut counts: Vec<(u32, u32)> = Vec::new();
    for token in tokens {
        match counts.last_mut() {
            Some((last, count)) if *last == token => *count += 1,
            _ => heap::push(&mut counts, (token, 1), "counts of tokens")?,
        }
    }
    Ok(counts)
}

/// DRY (p-e-w 2024): a token that would go on with a sequence that stood before loses
/// multiplier · base^(length of the sequence − allowed length).
#[derive(Debug)]
pub struct Dry {
    /// 0: off.
    pub multiplier: f32,
    pub base: f32,
    /// Sequences shorter than this may be repeated.
    pub allowed_length: u32,
    /// How many tokens back.
    pub last_n: usize,
    /// What no sequence goes across, each a token and those that follow it; sorted.
    breakers: Vec<Box<[u32]>>,
}

impl Default for Dry {
    fn default() -> Dry {
        Dry { multiplier: 0.0, base: 1.75, allowed_length: 2, last_n: 0, breakers: Vec::new() }
    }
}

/// Of a breaker only so many tokens count after the first.
const MAX_TAIL: usize = 20;
const BREAKERS: &str = "breakers of sequences";

impl Dry {
    pub fn copy(&self) -> Result<Dry> {
        let mut breakers = Vec::new();
        heap::reserve(&mut breakers, self.breakers.len(), BREAKERS)?;
        for breaker in &self.breakers {
            breakers.push(heap::collected(breaker.iter().copied(), BREAKERS)?.into_boxed_slice());
        }
        Ok(Dry { breakers, ..*self })
    }

    pub fn changes_nothing(&self) -> bool {
        self.multiplier == 0.0 || self.base < 1.0 || self.last_n == 0
    }

    /// Adds a breaker.
    pub fn add_breaker(&mut self, tokens: &[u32]) -> Result<()> {
        let tokens = &tokens[..tokens.len().min(1 + MAX_TAIL)];
        if let Err(at) = self.breakers.binary_search_by(|breaker| (**breaker).cmp(tokens)) {
            let own = heap::collected(tokens.iter().copied(), BREAKERS)?;
            self.breakers.try_reserve(1).map_err(|_| Error::out_of_memory(BREAKERS))?;
            self.breakers.insert(at, own.into_boxed_slice());
        }
        Ok(())
    }

    pub fn clear_breakers(&mut self) {
        self.breakers.clear();
    }

    /// What is taken off the logits of which tokens, by token. `last`: the last tokens, the latest one last.
    pub fn penalties(&self, last: &[u32]) -> Result<Vec<(u32, f32)>> {
        let last = &last[last.len().saturating_sub(self.last_n)..];
        let allowed = self.allowed_length as usize;
        let limit = self.reach(last);
        if last.len() <= allowed || limit < allowed {
            return Ok(Vec::new());
        }
        let mut longest: Vec<(u32, usize)> = Vec::new();
        for (end, length) in suffixes_again(last)? {
            let length = length.min(limit);
            if length >= allowed {
                heap::push(&mut longest, (last[end], length), "repeated sequences")?;
            }
        }
        // Of each token the longest sequence.
        longest.sort_unstable_by_key(|&(token, length)| (token, std::cmp::Reverse(length)));
        longest.dedup_by_key(|&mut (token, _)| token);
        let penalty = |length: usize| self.multiplier * self.base.powf((length - allowed) as f32);
        // A penalty beyond all numbers is the greatest one: an infinite logit less an infinite one is no number.
        heap::collected(
            longest.into_iter().map(|(token, length)| (token, penalty(length).min(f32::MAX))),
            "penalties for sequences",
        )
    }

    /// How many tokens a sequence may have that ends with the text: those after the last breaker.
    fn reach(&self, last: &[u32]) -> usize {
        for (back, &token) in last.iter().rev().enumerate() {
            let first = self.breakers.partition_point(|breaker| breaker[0] < token);
            let of_token = self.breakers[first..].iter().take_while(|breaker| breaker[0] == token);
            let at = last.len() - back;
            let here =
                of_token.filter(|breaker| last[at..].starts_with(&breaker[1..])).map(|breaker| breaker.len() - 1);
            if let Some(longest) = here.max() {
                return back - longest;
            }
        }
        last.len()
    }
}

/// For every `end` but the text's own: how long the text before it is the same as the end of the whole text. By the
/// Z-function of the text read backwards, in time that follows its length.
fn suffixes_again(text: &[u32]) -> Result<impl Iterator<Item = (usize, usize)>> {
    let n = text.len();
    let at = |i: usize| text[n - 1 - i];
    let mut z = heap::filled(0usize, n, "lengths of repeated sequences")?;
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < n && at(length) == at(i + length) {
            length += 1;
        }
        z[i] = length;
        if i + length > right {
            (left, right) = (i, i + length);
        }
    }
    Ok((1..n).map(move |i| (n - i, z[i])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_stood_before_is_found_wherever_it_ended() {
        let text = [1, 2, 3, 1, 2, 4, 1, 2];
        let mut found: Vec<(usize, usize)> = suffixes_again(&text).unwrap().filter(|&(_, length)| length > 0).collect();
        found.sort_unstable();
        assert_eq!(found, [(2, 2), (5, 2)]);
        // In time that follows its length: every end of this one is a repeat.
        let long = vec![7; 200_000];
        assert_eq!(suffixes_again(&long).unwrap().map(|(_, length)| length).sum::<usize>(), 199_999 * 200_000 / 2);
    }

    #[test]
    fn no_sequence_goes_across_a_breaker() {
        let mut dry = Dry { multiplier: 1.0, base: 2.0, allowed_length: 2, last_n: 100, ..Dry::default() };
        let text = [1, 2, 3, 4, 9, 1, 2, 3];
        assert_eq!(dry.penalties(&text).unwrap(), [(4, 2.0)]);
        dry.add_breaker(&[2]).unwrap();
        assert_eq!(dry.penalties(&text).unwrap(), []);
        dry.clear_breakers();
        dry.add_breaker(&[1, 2, 8]).unwrap();
        assert_eq!(dry.penalties(&text).unwrap(), [(4, 2.0)]);
        dry.add_breaker(&[1, 2]).unwrap();
        assert_eq!(dry.penalties(&text).unwrap(), []);
        dry.allowed_length = 1;
        assert_eq!(dry.penalties(&text).unwrap(), [(4, 1.0)]);
        assert_eq!(dry.penalties(&[]).unwrap(), []);
    }
}
