//! How many drafted tokens a pass is worth: from what passes cost and how many drafts were right lately.
//!
//! A pass over n tokens takes about a + b·n. Where weights are streamed, b is small beside a, and several drafts pay even
//! if most are wrong; where all is in memory b is nearly all there is. Both are measured as passes run, by least squares
//! over the latest ones. With experts each token may add reading, which b then has in it.
//!
//! Every pass with drafts is held against what the same tokens would have taken one by one, and so is drafting for nothing.
//! As long as that has lost more than a small share of the whole time, there is none. Text that a drafting model takes in
//! before its first draft is no such loss: it is spent once, and says nothing about the drafts that follow.

use std::time::Duration;

/// How fast older passes stop counting.
const DECAY: f64 = 0.9;

/// The share of the time that trying may cost.
const MAX_LOSS: f64 = 0.03;

/// Passes over one token before the first trial where nothing tells that further tokens are cheap.
const BEFORE_TRIAL: u32 = 24;

/// Drafts of the first trial.
const TRIAL: usize = 2;

/// The least chance of a draft before passes were measured.
const UNMEASURED_CHANCE: f32 = 0.4;

/// Passes without drafts after which one is tried again although too few were right lately: texts change.
const BEFORE_RETRIAL: u32 = 32;

/// How sure a drafter is, from the least to the most; what share of each kind was right is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    Low,
    Fair,
    High,
}

/// Sums over passes of n tokens that took t seconds, older ones with less weight.
#[derive(Clone, Debug, Default)]
struct Sums {
    one: f64,
    n: f64,
    nn: f64,
    t: f64,
    nt: f64,
}

#[derive(Clone, Debug)]
pub struct Pace {
    sums: Sums,
    /// Seconds that a further token adds, once passes of different lengths were seen.
    further: Option<f64>,
    singles: u32,
    /// Passes since the last one with drafts.
    since_drafts: u32,
    /// The last pass read weights from storage.
    streaming: bool,
    /// Of each certainty: drafts that were right, and those that were looked at.
    right: [(f64, f64); 3],
    /// Seconds that making a draft takes.
    each: f64,
    /// Seconds that drafting has saved, less those it has lost.
    gained: f64,
    /// Seconds that a drafter has spent on taking in text, which `gained` leaves out.
    prepared: f64,
    /// Seconds of all passes.
    spent: f64,
}

impl Default for Pace {
    fn default() -> Pace {
        // Half of the drafts of a kind that was never seen are taken to be right.
        let unknown = (0.5, 1.0);
        Pace {
            sums: Sums::default(),
            further: None,
            singles: 0,
            since_drafts: 0,
            streaming: false,
            right: [unknown; 3],
            each: 0.0,
            gained: 0.0,
            prepared: 0.0,
            spent: 0.0,
        }
    }
}

impl Pace {
    /// How many of at most `most` drafts the next pass takes, beside `fed` tokens that are to be taken in anyway.
    pub fn drafts(&self, most: usize, fed: usize, certainty: Certainty) -> usize {
        if self.singles == 0 || self.gained < -MAX_LOSS * self.spent {
            return 0;
        }
        let Some(further) = self.further else {
            return if self.streaming || self.singles >= BEFORE_TRIAL { most.min(TRIAL) } else { 0 };
        };
        let (right, seen) = self.right[certainty as usize];
        let right = right / seen;
        let (mut best, mut best_rate) = (0, 1.0 / self.seconds(fed));
        let (mut tokens, mut chance) = (1.0, 1.0);
        for n in 1..=most {
            chance *= right;
            tokens += chance;
            let rate = tokens / (self.seconds(fed) + (further + self.each) * n as f64);
            if rate > best_rate {
                (best, best_rate) = (n, rate);
            }
        }
        if best == 0 && self.since_drafts >= BEFORE_RETRIAL { most.min(1) } else { best }
    }

    /// How likely a draft must be, by the model that makes it, to be worth what it costs. Where such drafts were nearly all
    /// right lately, less likely ones are tried too: a model is surer of its choice by greed than its probabilities say.
    pub fn least_chance(&self, certainty: Certainty) -> f32 {
        let Some(further) = self.further else { return UNMEASURED_CHANCE };
        let (right, seen) = self.right[certainty as usize];
        let cost = (further + self.each) / self.seconds(1);
        (cost * 2.0 * (1.0 - right / seen)).clamp(0.0, 0.9) as f32
    }

    /// A pass over `tokens` tokens without drafts, which read `bytes` from storage.
    pub fn plain(&mut self, tokens: usize, took: Duration, bytes: u64) {
        self.singles = self.singles.saturating_add(1);
        self.since_drafts = self.since_drafts.saturating_add(1);
        self.streaming = bytes > 0;
        self.add(tokens, took.as_secs_f64());
    }

    /// A pass over `fed` tokens and `drafted` drafts, of which the first `accepted` were right; `drafting` is what making
    /// the drafts took.
    pub fn drafted(
        &mut self,
        (fed, drafted, accepted): (usize, usize, usize),
        certainty: Certainty,
        took: Duration,
        drafting: Duration,
    ) {
        let took = took.as_secs_f64();
        self.since_drafts = 0;
        self.add(fed + drafted, took);
        let (right, seen) = &mut self.right[certainty as usize];
        *right = *right * DECAY + accepted as f64;
        *seen = *seen * DECAY + drafted.min(accepted + 1) as f64;
        let drafting = drafting.as_secs_f64();
        let each = drafting / drafted as f64;
        self.each = if self.each == 0.0 { each } else { DECAY * self.each + (1.0 - DECAY) * each };
        self.spent += drafting;
        self.gained += (accepted + 1) as f64 * self.seconds(1) - took - drafting;
    }

    /// A drafter was asked and drafted nothing.
    pub fn abstained(&mut self, drafting: Duration) {
        self.spent += drafting.as_secs_f64();
        self.gained -= drafting.as_secs_f64();
    }

    /// A drafter has taken in text that was there before it drafted.
    pub fn prepared(&mut self, took: Duration) {
        self.prepared += took.as_secs_f64();
    }

    /// Seconds saved so far; negative where drafting cost more than it brought.
    pub fn gained(&self) -> f64 {
        self.gained - self.prepared
    }

    fn add(&mut self, tokens: usize, seconds: f64) {
        self.spent += seconds;
        let (n, s) = (tokens as f64, &mut self.sums);
        for sum in [&mut s.one, &mut s.n, &mut s.nn, &mut s.t, &mut s.nt] {
            *sum *= DECAY;
        }
        s.one += 1.0;
        s.n += n;
        s.nn += n * n;
        s.t += seconds;
        s.nt += n * seconds;
        let spread = s.nn - s.n * s.n / s.one;
        // Passes of nearly the same length say nothing about a further token.
        if spread > 0.05 * s.one {
            self.further = Some(((s.nt - s.n * s.t / s.one) / spread).max(0.0));
        }
    }

    /// What a pass over `tokens` tokens takes.
    fn seconds(&self, tokens: usize) -> f64 {
        let s = &self.sums;
        let further = self.further.unwrap_or(0.0);
        let (mean, length) = (s.t / s.one.max(f64::MIN_POSITIVE), s.n / s.one.max(f64::MIN_POSITIVE));
        (mean + further * (tokens as f64 - length)).max(further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens per second with drafting by those without, over `tokens` tokens: passes take base + further·n milliseconds,
    /// and the drafts of a token of the text are right as `right` says.
    fn speedup(base: f64, further: f64, streamed: u64, tokens: usize, right: impl Fn(usize) -> bool) -> f64 {
        let seconds = |n: usize| (base + further * n as f64) / 1000.0;
        let (mut pace, mut made, mut time) = (Pace::default(), 0, 0.0);
        while made < tokens {
            let n = pace.drafts(16, 1, Certainty::Fair);
            let took = seconds(1 + n);
            time += took;
            let mut accepted = 0;
            while accepted < n && right(made + accepted) {
                accepted += 1;
            }
            match n {
                0 => pace.plain(1, Duration::from_secs_f64(took), streamed),
                _ => pace.drafted((1, n, accepted), Certainty::Fair, Duration::from_secs_f64(took), Duration::ZERO),
            }
            made += accepted + 1;
        }
        made as f64 * seconds(1) / time
    }

    #[test]
    fn drafts_that_are_right_are_many_where_a_further_token_is_cheap() {
        assert!(speedup(100.0, 10.0, 1 << 20, 200, |_| true) > 5.0);
        assert!(speedup(100.0, 1.0, 1 << 20, 200, |_| true) > 9.0);
        // Half of them are right.
        assert!(speedup(100.0, 5.0, 1 << 20, 400, |i| i % 2 == 0) > 1.3);
        // In memory the first ones come later.
        assert!(speedup(10.0, 2.0, 0, 400, |_| true) > 2.0);
    }

    #[test]
    fn drafts_that_are_wrong_cost_less_than_a_twentieth() {
        for (base, further, streamed) in [(100.0, 10.0, 1), (100.0, 60.0, 1), (10.0, 10.0, 0), (0.5, 10.0, 0)] {
            for tokens in [40, 100, 400, 4000] {
                let speedup = speedup(base, further, streamed, tokens, |_| false);
                assert!(speedup > 0.95, "{base} + {further}·n, {tokens} tokens: {speedup}");
            }
        }
    }

    #[test]
    fn drafts_that_become_wrong_and_right_again_are_followed() {
        let changing = |i: usize| (i / 300).is_multiple_of(2);
        let speedup = speedup(100.0, 10.0, 1, 3000, changing);
        assert!(speedup > 1.4, "{speedup}");
    }

    #[test]
    fn what_making_a_draft_takes_is_counted() {
        // A further token costs little, a draft as much as a pass.
        let mut pace = Pace::default();
        let seconds = Duration::from_secs_f64;
        for _ in 0..8 {
            pace.plain(1, seconds(0.1), 1);
            pace.drafted((1, 4, 4), Certainty::Fair, seconds(0.104), seconds(0.2));
        }
        assert!(pace.drafts(16, 1, Certainty::Fair) > 4);
        for _ in 0..20 {
            pace.drafted((1, 4, 4), Certainty::Fair, seconds(0.104), seconds(0.6));
        }
        assert_eq!(pace.drafts(16, 1, Certainty::Fair), 0);
    }

    #[test]
    fn unlikely_drafts_are_made_where_they_cost_little_or_are_right_all_the_same() {
        let seconds = Duration::from_secs_f64;
        let least = |each: f64, accepted: usize| {
            let mut pace = Pace::default();
            for _ in 0..20 {
                pace.plain(1, seconds(0.1), 1);
                pace.drafted((1, 4, accepted), Certainty::Fair, seconds(0.104), seconds(4.0 * each));
            }
            pace.least_chance(Certainty::Fair)
        };
        assert!(least(0.01, 1) < 0.15 && least(0.05, 1) > 0.4, "{} {}", least(0.01, 1), least(0.05, 1));
        assert!(least(0.05, 4) < 0.1, "{}", least(0.05, 4));
    }

    #[test]
    fn text_that_a_drafter_takes_in_first_does_not_stop_it() {
        let mut pace = Pace::default();
        let seconds = Duration::from_secs_f64;
        pace.plain(1, seconds(0.1), 1);
        pace.prepared(seconds(2.0));
        pace.drafted((1, 2, 2), Certainty::Fair, seconds(0.11), seconds(0.01));
        assert!(pace.drafts(16, 1, Certainty::Fair) >= 2 && pace.gained() < -1.0);
        // Drafting for nothing does.
        pace.abstained(seconds(0.4));
        assert_eq!(pace.drafts(16, 1, Certainty::Fair), 0);
    }

    #[test]
    fn nothing_is_drafted_before_a_pass_was_measured() {
        assert_eq!(Pace::default().drafts(8, 1, Certainty::High), 0);
    }
}
