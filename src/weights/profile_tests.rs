//! What the engine promises of a profile of use: the likeliest experts are there before passes use them, and reading them
//! is in nobody's way.

use std::ops::Range;

use super::Rarity;
use super::engine::Engine;
use super::expert_tests::{EXPERTS, frames, layers, pass, residents};
use super::experts::{Cache, Decision};
use super::schedule::Schedule;
use super::tests::{Bench, open};

/// A profile in which the numbers of experts scatter over the layers: the rarest is never used, the others differ.
fn profile(s: &Schedule) -> Vec<Rarity> {
    let count = s.experts.len();
    (0..count).map(|e| e * 29 % count).map(|n| if n == 0 { Rarity::NEVER } else { Rarity(n as u8) }).collect()
}

/// Experts by falling chance.
fn likeliest(s: &Schedule) -> Vec<usize> {
    let profile = profile(s);
    let mut order: Vec<usize> = (0..profile.len()).filter(|&e| profile[e] < Rarity::NEVER).collect();
    order.sort_unstable_by_key(|&e| profile[e]);
    order
}

fn sorted(mut experts: Vec<usize>) -> Vec<usize> {
    experts.sort_unstable();
    experts
}

/// The experts of which reads brought a whole page, in their order, each once. A read brings parts of neighbours too.
fn experts_of(s: &Schedule, reads: &[Range<u64>]) -> Vec<usize> {
    let mut found = Vec::new();
    for read in reads {
        let whole = s.pages.iter().filter(|p| read.start <= p.offset && p.offset + p.bytes <= read.end);
        for e in whole.filter_map(|p| p.expert()) {
            if !found.contains(&e) {
                found.push(e);
            }
        }
    }
    found
}

#[test]
fn the_likeliest_experts_are_read_first_until_the_cache_is_full() {
    let s = layers();
    for experts in [1, 8, 20] {
        let b = open(layers(), frames(&s, experts), true, |_| {});
        b.engine.settle();
        b.control.take_reads();
        b.control.block();
        b.engine.expect_experts(&profile(&s)).unwrap();
        let expected = &likeliest(&s)[..experts as usize];
        // Every reader stands still with its first read; as many reads pass, those or the ones that follow them.
        const READERS: usize = super::tests::READERS;
        b.control.await_blocked(READERS);
        b.control.let_pass(READERS);
        let mut read = Vec::new();
        while read.len() < READERS {
            std::thread::yield_now();
            read.extend(b.control.take_reads());
        }
        let likeliest = &expected[..expected.len().min(2 * READERS + 2)];
        assert!(experts_of(&s, &read).iter().all(|e| likeliest.contains(e)), "{read:?}");
        b.control.unblock();
        b.engine.settle();
        assert_eq!(residents(&b), sorted(expected.to_vec()));
        read.extend(b.control.take_reads());
        let read = experts_of(&s, &read);
        assert_eq!((read.len(), b.stats().evictions, b.stats().expert_evictions), (experts as usize, 0, 0));
        assert!(b.stats().peak_bytes <= frames(&s, experts));
        // All of it is read before the first pass: one that uses them finds them.
        let mut trace = vec![Vec::new(); s.expert_groups[0].layers.len()];
        expected.iter().for_each(|&e| trace[s.experts[e].layer as usize].push(e as u32 % EXPERTS));
        pass(&b, &trace).unwrap();
        assert_eq!((b.stats().expert_hits, b.stats().expert_misses), (experts, 0));
    }
}

#[test]
fn without_a_profile_idle_time_reads_no_expert() {
    let s = layers();
    let b = open(layers(), frames(&s, 8), true, |_| {});
    b.engine.settle();
    pass(&b, &vec![vec![1]; 4]).unwrap();
    b.engine.settle();
    assert_eq!(residents(&b).len(), 4);
    assert_eq!(experts_of(&s, &b.control.take_reads()).len(), 4);
}

#[test]
fn room_that_is_left_fills_with_what_passes_use() {
    let s = layers();
    let b = open(layers(), frames(&s, 8), true, |_| {});
    let mut few = vec![Rarity::NEVER; s.experts.len()];
    (few[3], few[40]) = (Rarity(10), Rarity(5));
    b.engine.expect_experts(&few).unwrap();
    b.engine.settle();
    assert_eq!(residents(&b), [3, 40]);
    pass(&b, &vec![vec![1]; 4]).unwrap();
    assert_eq!(residents(&b).len(), 6);
}

#[test]
fn frames_of_a_larger_budget_are_filled_with_the_likeliest_that_are_not_there() {
    let s = layers();
    let b = open(layers(), frames(&s, 12), true, |_| {});
    b.engine.expect_experts(&profile(&s)).unwrap();
    b.engine.settle();
    b.engine.set_budget(frames(&s, 4)).unwrap();
    b.engine.settle();
    assert_eq!(residents(&b), sorted(likeliest(&s)[..4].to_vec()));
    b.engine.set_budget(frames(&s, 12)).unwrap();
    b.engine.settle();
    assert_eq!(residents(&b), sorted(likeliest(&s)[..12].to_vec()));
    b.engine.set_budget(Engine::min_frames(&s)).unwrap();
    b.engine.settle();
    assert!(residents(&b).is_empty() && b.stats().used_bytes <= Engine::min_frames(&s));
}

/// A pass that waits for storage while experts of a profile are read gets readers: these take half of them at most.
#[test]
fn experts_of_a_profile_leave_readers_to_a_pass() {
    let s = layers();
    let b = open(layers(), frames(&s, 20), true, |_| {});
    b.engine.settle();
    let routed = s.pages[s.sweep_len].offset;
    b.control.block_within(routed..routed + s.routed_bytes());
    let sweep = b.engine.sweep(&b.interrupt, 0, s.sweep_len).unwrap();
    b.engine.expect_experts(&profile(&s)).unwrap();
    b.control.await_blocked(1);
    let shared = b.engine.shared();
    let (state, next) = shared.next_page(shared.state.lock());
    assert!(next.is_none());
    assert_eq!(state.outstanding(), super::tests::READERS / 2);
    drop(state);
    b.control.unblock();
    drop(sweep);
    b.engine.settle();
    assert_eq!(residents(&b).len(), 20);
}

/// With and without a loader the decisions are those of a policy that was told the same.
#[test]
fn hits_and_misses_after_a_profile_are_those_of_the_policy() {
    let s = layers();
    for prefetch in [true, false] {
        let b: Bench = open(layers(), frames(&s, 10), prefetch, |_| {});
        b.engine.expect_experts(&profile(&s)).unwrap();
        b.engine.settle();
        let mut policy = Cache::new(4, EXPERTS, 10);
        let place = |e: usize| (e as u32 / EXPERTS, e as u32 % EXPERTS);
        profile(&s).iter().enumerate().for_each(|(e, &rarity)| policy.expect(place(e), rarity));
        likeliest(&s).iter().take(10).for_each(|&e| assert!(policy.admit_unused(place(e))));
        let mut expected = 0;
        for t in 0..40u32 {
            let trace: Vec<Vec<u32>> = (0..4).map(|l| vec![(t * t + l) % 5, 5 + (t + l) % 7]).collect();
            policy.begin_token();
            for (layer, chosen) in (0..).zip(&trace) {
                policy.choose(layer, chosen);
                expected += chosen.iter().filter(|&&e| policy.decide((layer, e)) == Decision::Hit).count() as u64;
            }
            pass(&b, &trace).unwrap();
        }
        assert_eq!(b.stats().expert_hits, expected, "prefetch {prefetch}");
        let told = b.engine.expert_profile().unwrap();
        assert!((0..told.len()).all(|e| told[e] == policy.rarity(place(e))));
    }
}
