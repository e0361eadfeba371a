//! Which experts stay in memory, decided by when each is expected to be used next. A plain data structure: it holds no
//! memory, starts no thread and does no reading.
//!
//! An expert of layer m, seen from layer l of L, is expected to be used after
//! (layers until m comes again) + L · (1/p − 1) layers, where p is the estimated chance that its layer chooses it the next
//! time it comes. p is a mix of two moving averages of its uses: 0.3 of one with a half-life of 2 tokens, 0.7 of one with
//! 32. The resident expert with the largest score is evicted; an expert that scores worse than all resident ones is not
//! admitted. What the running token uses is never evicted for the sake of the same token.
//!
//! Averages fall by themselves with every token. A layer's experts decay alike, so each keeps its averages as of its last
//! use, and the order within a layer is kept by two indexes that decay leaves alone (see [`Layer`]).

use std::collections::BTreeSet;

/// Half-lives of the two moving averages, in tokens, and the weight of the short one.
const HALF_LIVES: [f64; 2] = [2.0, 32.0];
const SHORT_WEIGHT: f64 = 0.3;
/// p is never taken for less: the score stays finite.
const MIN_CHANCE: f64 = 1e-9;

/// An expert: layer and number.
pub type Expert = (u32, u32);

/// What is to be done for an expert that a token uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is resident.
    Hit,
    /// It is read into free room, and stays.
    Admit,
    /// It is read into the frames of this one, and stays.
    Replace(Expert),
    /// It is read for this use alone.
    Bypass,
}

#[derive(Clone, Copy, Default)]
struct Use {
    /// Both averages as of `at`.
    averages: [f64; 2],
    /// The use of its layer at which they were computed.
    at: u64,
    resident: bool,
    /// The token that used it last; 0: none yet.
    token: u64,
    /// Its entry among the residents of its layer.
    key: u64,
}

/// Experts of one layer.
struct Layer {
    uses: Vec<Use>,
    /// How often the layer has chosen.
    count: u64,
    /// Resident experts by [`Cache::key`], ascending: the first is the least likely one.
    residents: BTreeSet<(u64, u32)>,
}

/// The cache's book-keeping.
pub struct Cache {
    layers: Vec<Layer>,
    capacity: usize,
    resident: usize,
    token: u64,
}

impl Cache {
    /// A cache of `capacity` experts, none of them resident.
    pub fn new(layers: u32, experts: u32, capacity: usize) -> Cache {
        let layer = || Layer { uses: vec![Use::default(); experts as usize], count: 0, residents: BTreeSet::new() };
        Cache { layers: (0..layers).map(|_| layer()).collect(), capacity, resident: 0, token: 0 }
    }

    /// A new token, or chunk of tokens, begins: what the one before used may be evicted from now on.
    pub fn begin_token(&mut self) {
        self.token += 1;
    }

    pub fn is_resident(&self, (layer, expert): Expert) -> bool {
        self.layers[layer as usize].uses[expert as usize].resident
    }

    pub fn resident(&self) -> usize {
        self.resident
    }

    /// A layer chooses these experts; each counts once, however many tokens of a chunk chose it. Their uses are recorded
    /// first, so that decisions see all of them.
    pub fn choose(&mut self, layer: u32, experts: &[u32]) {
        let token = self.token;
        let l = &mut self.layers[layer as usize];
        l.count += 1;
        let count = l.count;
        for &e in experts {
            let u = &mut l.uses[e as usize];
            if u.at == count {
                continue;
            }
            for (average, half_life) in u.averages.iter_mut().zip(HALF_LIVES) {
                let decay = 0.5f64.powf(1.0 / half_life);
                *average = *average * decay.powf((count - u.at) as f64) + (1.0 - decay);
            }
            (u.at, u.token) = (count, token);
            if u.resident {
                l.residents.remove(&(u.key, e));
                u.key = key(u);
                l.residents.insert((u.key, e));
            }
        }
    }

    /// What to do for an expert that [`Cache::choose`] named. O(L + log n).
    pub fn decide(&mut self, (layer, expert): Expert) -> Decision {
        if self.is_resident((layer, expert)) {
            return Decision::Hit;
        }
        if self.resident < self.capacity {
            self.admit((layer, expert));
            return Decision::Admit;
        }
        match self.worst(layer) {
            Some((score, victim)) if score > self.score((layer, expert), layer) => {
                self.evict(victim);
                self.admit((layer, expert));
                Decision::Replace(victim)
            }
            _ => Decision::Bypass,
        }
    }

    /// Changes the capacity. Gives the experts that are evicted, the worst first.
    pub fn set_capacity(&mut self, capacity: usize) -> Vec<Expert> {
        self.capacity = capacity;
        let mut evicted = Vec::new();
        while self.resident > capacity {
            let present = self.worst(0).or_else(|| self.any());
            let Some((_, victim)) = present else { break };
            self.evict(victim);
            evicted.push(victim);
        }
        evicted
    }

    /// Layers until the expert is expected to be used again, seen from layer `from`, which has just chosen.
    pub fn score(&self, (layer, expert): Expert, from: u32) -> f64 {
        let (l, count) = (&self.layers[layer as usize], self.layers.len() as f64);
        let chance = chance(&l.uses[expert as usize], l.count).max(MIN_CHANCE);
        f64::from(self.layers_until(layer, from)) + count * (1.0 / chance - 1.0)
    }

    fn layers_until(&self, layer: u32, from: u32) -> u32 {
        let count = self.layers.len() as u32;
        if layer > from { layer - from } else { layer + count - from }
    }

    /// The resident expert with the largest score that the running token does not use.
    fn worst(&self, from: u32) -> Option<(f64, Expert)> {
        let candidates = (0..).zip(&self.layers).flat_map(|(m, l)| {
            let unused = l.residents.iter().filter(|&&(_, e)| l.uses[e as usize].token != self.token);
            // Keys order by both averages together only nearly: the worst is among the first few.
            unused.take(CLOSE).map(move |&(_, e)| (self.score((m, e), from), (m, e)))
        });
        candidates.max_by(|a, b| a.0.total_cmp(&b.0))
    }

    fn any(&self) -> Option<(f64, Expert)> {
        let mut all = (0..).zip(&self.layers).filter_map(|(m, l)| l.residents.first().map(|&(_, e)| (0.0, (m, e))));
        all.next()
    }

    fn admit(&mut self, (layer, expert): Expert) {
        let l = &mut self.layers[layer as usize];
        let u = &mut l.uses[expert as usize];
        (u.resident, u.key) = (true, key(u));
        l.residents.insert((u.key, expert));
        self.resident += 1;
    }

    fn evict(&mut self, (layer, expert): Expert) {
        let l = &mut self.layers[layer as usize];
        let u = &mut l.uses[expert as usize];
        u.resident = false;
        l.residents.remove(&(u.key, expert));
        self.resident -= 1;
    }
}

/// So many of the least likely experts of a layer are compared by their scores.
const CLOSE: usize = 4;

/// The chance that the expert is chosen the next time, when its layer has chosen `count` times.
fn chance(u: &Use, count: u64) -> f64 {
    let age = (count - u.at) as f64;
    let decayed = |i: usize| u.averages[i] * 0.5f64.powf(age / HALF_LIVES[i]);
    SHORT_WEIGHT * decayed(0) + (1.0 - SHORT_WEIGHT) * decayed(1)
}

/// Orders experts of a layer by their long average, whose order does not change while all of them decay: its logarithm, as
/// if it had grown since the layer's first use. The bits of a positive number order as the number does.
fn key(u: &Use) -> u64 {
    let grown = u.averages[1].max(1e-300).log2() + u.at as f64 / HALF_LIVES[1];
    (grown + 4096.0).max(0.0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cache: &mut Cache, chosen: &[&[u32]]) -> Vec<Decision> {
        cache.begin_token();
        let mut decisions = Vec::new();
        for (layer, experts) in (0..).zip(chosen) {
            cache.choose(layer, experts);
            decisions.extend(experts.iter().map(|&e| cache.decide((layer, e))));
        }
        decisions
    }

    #[test]
    fn free_room_is_filled_and_what_stays_is_found() {
        let mut cache = Cache::new(2, 4, 2);
        assert_eq!(token(&mut cache, &[&[1], &[3]]), [Decision::Admit, Decision::Admit]);
        assert_eq!(token(&mut cache, &[&[1], &[3]]), [Decision::Hit, Decision::Hit]);
        assert_eq!(cache.resident(), 2);
    }

    #[test]
    fn the_working_set_of_a_token_is_never_evicted_by_itself() {
        let mut cache = Cache::new(3, 4, 2);
        for _ in 0..4 {
            let decisions = token(&mut cache, &[&[0], &[0], &[0]]);
            assert!(!decisions.iter().any(|d| matches!(d, Decision::Replace(_))), "{decisions:?}");
            assert_eq!(decisions[2], Decision::Bypass);
        }
        assert!(cache.is_resident((0, 0)) && cache.is_resident((1, 0)));
    }

    #[test]
    fn an_expert_that_is_used_once_does_not_replace_those_that_are_used_often() {
        let mut cache = Cache::new(1, 8, 2);
        for _ in 0..64 {
            token(&mut cache, &[&[0, 1]]);
        }
        assert_eq!(token(&mut cache, &[&[0, 5]])[1], Decision::Bypass);
        // Used again and again, it comes to stay in place of the one that is not.
        let stays = (0..64).any(|_| token(&mut cache, &[&[0, 5]])[1] == Decision::Replace((0, 1)));
        assert!(stays && cache.is_resident((0, 0)));
    }

    #[test]
    fn scores_are_layers_until_the_next_use() {
        let mut cache = Cache::new(4, 2, 8);
        for _ in 0..2000 {
            token(&mut cache, &[&[0], &[0], &[0], &[0]]);
        }
        // Chosen always: its layer's distance. The layer that has just chosen comes again after all of them.
        for (layer, layers) in [(2, 1.0), (3, 2.0), (0, 3.0), (1, 4.0)] {
            assert!((cache.score((layer, 0), 1) - layers).abs() < 1e-6);
        }
        assert!(cache.score((2, 1), 1) > 1e6);
    }

    #[test]
    fn a_smaller_capacity_evicts_the_worst_first() {
        let mut cache = Cache::new(1, 4, 4);
        for chosen in [&[0, 1, 2, 3][..], &[0, 1, 2], &[0, 1], &[0], &[]] {
            token(&mut cache, &[chosen]);
        }
        assert_eq!(cache.set_capacity(1), [(0, 3), (0, 2), (0, 1)]);
        assert!(cache.is_resident((0, 0)));
        assert_eq!(cache.resident(), 1);
    }
}
