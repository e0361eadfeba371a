//! Which experts stay in memory, decided by when each is expected to be used next. A plain data structure: it holds no
//! memory, starts no thread and does no reading.
//!
//! An expert of layer m, seen from layer l of L, is expected to be used after
//! (layers until m comes again) + L · (1/p − 1) layers, where p is the estimated chance that its layer chooses it the next
//! time it comes. p is a mix of two moving averages of its uses: 0.3 of one with a half-life of 2 tokens, 0.7 of one with
//! 32. The resident expert with the largest score is evicted; an expert that scores worse than all resident ones is not
//! admitted. What the running token uses is never evicted for the sake of the same token.
//!
//! How often each expert was used on the whole is counted too: it is what a profile of use keeps, and what a cache that was
//! given one begins with.
//!
//! Averages fall by themselves with every token. A layer's experts decay alike, so each keeps its averages as of its last
//! use, and the order within a layer is kept by an index that decay leaves alone (see `Layer`).

use std::collections::BTreeSet;

/// Half-lives of the two moving averages, in tokens, and the weight of the short one.
const HALF_LIVES: [f64; 2] = [2.0, 32.0];
const SHORT_WEIGHT: f64 = 0.3;
/// p is never taken for less: the score stays finite.
const MIN_CHANCE: f64 = 1e-9;
/// A profile counts as much as so many tokens.
const PROFILE_TOKENS: f64 = 256.0;

/// How likely an expert is to be chosen by its layer: the chance is 2^(−n/8). One byte, for profiles of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rarity(pub u8);

impl Rarity {
    /// No use is known.
    pub const NEVER: Rarity = Rarity(u8::MAX);

    fn of(chance: f64) -> Rarity {
        if chance > 0.0 { Rarity((-8.0 * chance.log2()).round().clamp(0.0, 254.0) as u8) } else { Rarity::NEVER }
    }

    fn chance(self) -> f64 {
        if self == Rarity::NEVER { 0.0 } else { 0.5f64.powf(f64::from(self.0) / 8.0) }
    }
}

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
    /// How often it was used.
    count: u32,
    /// What the profile says of it, where there is one.
    profile: Rarity,
    resident: bool,
    /// The token that used it last; 0: none yet.
    token: u64,
    /// Its entry among the candidates of its layer.
    key: u64,
}

/// Experts of one layer.
struct Layer {
    uses: Vec<Use>,
    /// How often the layer has chosen.
    count: u64,
    /// The token at which it chose last.
    chose: u64,
    /// Resident experts that the running token does not use, by [`key`], ascending: the first is the least likely one.
    candidates: BTreeSet<(u64, u32)>,
    /// Resident experts that the running token uses.
    in_use: Vec<u32>,
    /// The candidate that is expected to be used last, and when.
    worst: Option<(u64, u32)>,
}

/// The cache's book-keeping.
pub struct Cache {
    layers: Vec<Layer>,
    /// The worst candidate of each layer that has one: when it is expected to be used, and its layer.
    worst: BTreeSet<(u64, u32)>,
    capacity: usize,
    resident: usize,
    token: u64,
    /// It was given a profile.
    profiled: bool,
}

impl Cache {
    /// A cache of `capacity` experts, none of them resident.
    pub fn new(layers: u32, experts: u32, capacity: usize) -> Cache {
        let layer = || Layer {
            uses: vec![Use::default(); experts as usize],
            count: 0,
            chose: 0,
            candidates: BTreeSet::new(),
            in_use: Vec::new(),
            worst: None,
        };
        let layers = (0..layers).map(|_| layer()).collect();
        Cache { layers, worst: BTreeSet::new(), capacity, resident: 0, token: 0, profiled: false }
    }

    /// Bytes of book-keeping for each expert.
    pub const fn bytes_per_expert() -> usize {
        // Nodes of the tree are at least half full.
        size_of::<Use>() + 2 * size_of::<(u64, u32)>() + size_of::<u32>()
    }

    /// A new token, or chunk of tokens, begins: what the one before used may be evicted from now on.
    pub fn begin_token(&mut self) {
        self.token += 1;
        for layer in 0..self.layers.len() as u32 {
            let l = &mut self.layers[layer as usize];
            if l.in_use.is_empty() && l.chose + 1 == self.token {
                continue;
            }
            for e in l.in_use.drain(..) {
                l.candidates.insert((l.uses[e as usize].key, e));
            }
            self.find_worst(layer);
        }
    }

    pub fn is_resident(&self, (layer, expert): Expert) -> bool {
        self.layers[layer as usize].uses[expert as usize].resident
    }

    /// Whether the running token has chosen the expert.
    pub fn is_in_use(&self, (layer, expert): Expert) -> bool {
        let u = &self.layers[layer as usize].uses[expert as usize];
        u.token == self.token && self.token > 0
    }

    pub fn resident(&self) -> usize {
        self.resident
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A layer chooses these experts; each counts once, however many tokens of a chunk chose it. Their uses are recorded
    /// first, so that decisions see all of them.
    pub fn choose(&mut self, layer: u32, experts: &[u32]) {
        let token = self.token;
        let l = &mut self.layers[layer as usize];
        l.count += 1;
        l.chose = token;
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
            let moves = u.resident && u.token != token;
            (u.at, u.token) = (count, token);
            u.count = u.count.saturating_add(1);
            if moves {
                l.candidates.remove(&(u.key, e));
                l.in_use.push(e);
            }
            u.key = key(u);
        }
        self.find_worst(layer);
    }

    /// What to do for an expert that [`Cache::choose`] named. O(log n).
    pub fn decide(&mut self, (layer, expert): Expert) -> Decision {
        if self.is_resident((layer, expert)) {
            return Decision::Hit;
        }
        if self.resident < self.capacity {
            self.admit((layer, expert));
            return Decision::Admit;
        }
        match self.worst.last() {
            Some(&(use_of_worst, of)) if use_of_worst > self.next_use((layer, expert)).to_bits() => {
                let victim = (of, self.layers[of as usize].worst.map_or(0, |(_, e)| e));
                self.evict(victim);
                self.admit((layer, expert));
                Decision::Replace(victim)
            }
            _ => Decision::Bypass,
        }
    }

    /// Takes in an expert that no token uses yet, if there is free room for it. O(log n).
    pub fn admit_unused(&mut self, (layer, expert): Expert) -> bool {
        if self.resident >= self.capacity || self.is_resident((layer, expert)) {
            return false;
        }
        let l = &mut self.layers[layer as usize];
        let u = &mut l.uses[expert as usize];
        u.resident = true;
        u.key = key(u);
        if u.token == self.token && self.token > 0 {
            l.in_use.push(expert);
        } else {
            l.candidates.insert((u.key, expert));
        }
        self.resident += 1;
        self.find_worst(layer);
        true
    }

    /// Begins with what a profile says of an expert. To be called before the first token.
    pub fn expect(&mut self, (layer, expert): Expert, profile: Rarity) {
        self.profiled = true;
        let u = &mut self.layers[layer as usize].uses[expert as usize];
        (u.averages, u.profile) = ([profile.chance(); 2], profile);
    }

    /// How likely the expert is to be chosen, by all uses and the profile: what the next profile says of it.
    pub fn rarity(&self, (layer, expert): Expert) -> Rarity {
        let l = &self.layers[layer as usize];
        let u = &l.uses[expert as usize];
        let before = if self.profiled { PROFILE_TOKENS } else { 0.0 };
        let uses = f64::from(u.count) + before * u.profile.chance();
        Rarity::of(uses / (l.count as f64 + before).max(1.0))
    }

    /// Changes the capacity. Gives the experts that are evicted, the worst first; those that the running token uses come
    /// last.
    pub fn set_capacity(&mut self, capacity: usize) -> Vec<Expert> {
        self.capacity = capacity;
        let mut evicted = Vec::new();
        while self.resident > capacity {
            let of = self.worst.last().map(|&(_, layer)| layer);
            let worst = of.and_then(|layer| Some((layer, self.layers[layer as usize].worst?.1)));
            let Some(victim) = worst.or_else(|| self.any_in_use()) else { break };
            self.evict(victim);
            evicted.push(victim);
        }
        evicted
    }

    /// Layers until the expert is expected to be used again, seen from layer `from`, which has just chosen.
    pub fn score(&self, expert: Expert, from: u32) -> f64 {
        self.next_use(expert) - (self.token * self.layers.len() as u64 + u64::from(from)) as f64
    }

    /// When the expert is expected to be used next, in layers since the first token. It changes only when its layer
    /// chooses, and when a token begins before it has: so one order of all layers' worst candidates serves every decision.
    fn next_use(&self, (layer, expert): Expert) -> f64 {
        let (l, count) = (&self.layers[layer as usize], self.layers.len() as u64);
        let chance = chance(&l.uses[expert as usize], l.count).max(MIN_CHANCE);
        let token = self.token + u64::from(l.chose == self.token);
        (token * count + u64::from(layer)) as f64 + count as f64 * (1.0 / chance - 1.0)
    }

    /// Brings the order of the worst candidates up to date for a layer.
    fn find_worst(&mut self, layer: u32) {
        let l = &self.layers[layer as usize];
        // Keys order by both averages together only nearly: the worst is among the first few.
        let first = l.candidates.iter().take(CLOSE);
        let worst = first.map(|&(_, e)| (self.next_use((layer, e)).to_bits(), e)).max();
        let before = std::mem::replace(&mut self.layers[layer as usize].worst, worst);
        if let Some((at, _)) = before {
            self.worst.remove(&(at, layer));
        }
        if let Some((at, _)) = worst {
            self.worst.insert((at, layer));
        }
    }

    fn any_in_use(&self) -> Option<Expert> {
        (0..).zip(&self.layers).find_map(|(layer, l)| Some((layer, *l.in_use.last()?)))
    }

    /// Takes in an expert that the running token uses.
    fn admit(&mut self, (layer, expert): Expert) {
        let l = &mut self.layers[layer as usize];
        l.uses[expert as usize].resident = true;
        l.in_use.push(expert);
        self.resident += 1;
    }

    fn evict(&mut self, (layer, expert): Expert) {
        let l = &mut self.layers[layer as usize];
        let u = &mut l.uses[expert as usize];
        u.resident = false;
        if !l.candidates.remove(&(u.key, expert)) {
            l.in_use.retain(|&e| e != expert);
        }
        self.resident -= 1;
        self.find_worst(layer);
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
    fn a_profile_keeps_the_share_of_tokens_and_the_next_one_goes_on_from_it() {
        let mut cache = Cache::new(1, 4, 0);
        for t in 0..256 {
            token(&mut cache, &[if t % 4 == 0 { &[0, 1] } else { &[0] }]);
        }
        let profile: Vec<Rarity> = (0..4).map(|e| cache.rarity((0, e))).collect();
        assert_eq!(profile, [Rarity(0), Rarity(16), Rarity::NEVER, Rarity::NEVER]);
        let mut next = Cache::new(1, 4, 2);
        (0..).zip(&profile).for_each(|(e, &rarity)| next.expect((0, e), rarity));
        assert!((0..4).map(|e| next.rarity((0, e))).eq(profile));
        for _ in 0..256 {
            token(&mut next, &[&[2]]);
        }
        assert_eq!([0, 1, 2, 3].map(|e| next.rarity((0, e))), [Rarity(8), Rarity(24), Rarity(8), Rarity::NEVER]);
    }

    #[test]
    fn experts_of_a_profile_are_taken_into_free_room_alone_and_the_rarest_leaves_first() {
        let mut cache = Cache::new(2, 4, 3);
        for (expert, rarity) in [((0, 0), 4), ((0, 1), 40), ((1, 2), 20), ((1, 3), 8)] {
            cache.expect(expert, Rarity(rarity));
        }
        let admitted = [(0, 0), (0, 0), (0, 1), (1, 2), (1, 3)].map(|expert| cache.admit_unused(expert));
        assert_eq!(admitted, [true, false, true, true, false]);
        assert_eq!(token(&mut cache, &[&[0], &[3]]), [Decision::Hit, Decision::Replace((0, 1))]);
        assert_eq!(token(&mut cache, &[&[0], &[3]]), [Decision::Hit, Decision::Hit]);
        assert_eq!(cache.set_capacity(2), [(1, 2)]);
    }

    #[test]
    fn scores_are_layers_until_the_next_use() {
        let mut cache = Cache::new(4, 2, 8);
        for _ in 0..2000 {
            token(&mut cache, &[&[0], &[0], &[0], &[0]]);
        }
        cache.begin_token();
        (0..2).for_each(|layer| cache.choose(layer, &[0]));
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

    /// Numbers that look random.
    fn drawn(seed: &mut u64, below: u32) -> u32 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((*seed >> 33) % u64::from(below)) as u32
    }

    #[test]
    fn the_expert_evicted_is_the_worst_of_all_that_the_token_does_not_use() {
        let (layers, experts) = (5, 16);
        let mut cache = Cache::new(layers, experts, 20);
        let (mut seed, mut evicted, mut best) = (7, 0, 0);
        for token in 0..400 {
            cache.begin_token();
            let mut used: Vec<Expert> = Vec::new();
            // Some tokens end early, as passes do that are cancelled.
            for layer in 0..(if token % 7 == 0 { 3 } else { layers }) {
                // Some are chosen far more often than others.
                let chosen = [0; 3].map(|_| drawn(&mut seed, experts).min(drawn(&mut seed, experts)));
                cache.choose(layer, &chosen);
                used.extend(chosen.map(|e| (layer, e)));
                for e in chosen {
                    let all = (0..layers).flat_map(|l| (0..experts).map(move |e| (l, e)));
                    let others = all.filter(|x| cache.is_resident(*x) && !used.contains(x));
                    let worst = others.map(|x| cache.score(x, layer)).fold(f64::MIN, f64::max);
                    let own = cache.score((layer, e), layer);
                    let scores: Vec<f64> = (0..layers)
                        .flat_map(|l| (0..experts).map(move |e| (l, e)))
                        .map(|x| cache.score(x, layer))
                        .collect();
                    match cache.decide((layer, e)) {
                        Decision::Replace((l, v)) => {
                            let score = scores[(l * experts + v) as usize];
                            assert!(!used.contains(&(l, v)) && score > own, "token {token}");
                            evicted += 1;
                            best += usize::from(score >= worst);
                        }
                        // The order within a layer is that of the scores only nearly.
                        Decision::Bypass => assert!(worst <= own * 1.5, "token {token}: {worst} against {own}"),
                        Decision::Hit | Decision::Admit => {}
                    }
                    assert!(cache.resident() <= 20);
                }
            }
        }
        assert!(evicted > 500 && best * 100 >= evicted * 98, "{best} of {evicted} were the worst");
    }
}
