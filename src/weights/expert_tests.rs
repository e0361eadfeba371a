//! What the engine promises of the cache of experts: it keeps those that its policy says, within the budget, whatever else
//! happens.

use std::collections::HashSet;

use super::engine::Engine;
use super::experts::{Cache, Decision};
use super::schedule::Schedule;
use super::testing::schedule::{ROUTED, SAME, schedule_of};
use super::testing::scripted::{Control, byte_at};
use super::tests::{Bench, open};
use super::{Interrupt, RoutedExpert};
use crate::error::{Result, Status};

const LAYERS: u32 = 4;
pub const EXPERTS: u32 = 12;

/// Layers of one matrix for all passes and one that stands for the router, and experts of three matrices.
pub fn layers() -> Schedule {
    let mut matrices = Vec::new();
    for layer in 0..LAYERS {
        matrices.extend([(layer, 4096, 10), (layer, 4096, 2)]);
        let expert = [(layer | ROUTED, 4096, 5), (layer | ROUTED | SAME, 4096, 5), (layer | ROUTED | SAME, 4096, 6)];
        matrices.extend((0..EXPERTS).flat_map(|_| expert));
    }
    matrices.push((LAYERS - 1, 4096, 15));
    schedule_of(&matrices)
}

/// Frames for the cyclic part, the ring, and `experts` of all layers.
pub fn frames(s: &Schedule, experts: u64) -> u64 {
    let mut frames = s.sweep_bytes() + Engine::min_frames(s);
    loop {
        let plan = Engine::plan_frames(s, frames, 0, super::tests::READERS, Default::default());
        match u64::from(plan.cached[0]) {
            n if n >= experts => return frames,
            _ => frames += 4096,
        }
        assert!(frames < Engine::full_frames(s), "no budget below all keeps {experts} experts");
    }
}

fn routed_to(s: &Schedule, layer: u32, experts: &[u32]) -> Vec<RoutedExpert> {
    let first = s.expert_groups[0].layers[layer as usize].start;
    experts.iter().map(|&e| RoutedExpert { expert: first + e, tag: e }).collect()
}

/// A pass on `interrupt` that routes each layer to the experts of `trace`; `each` runs with each page in hand.
fn pass_on(b: &Bench, interrupt: &Interrupt, trace: &[Vec<u32>], each: impl FnMut(usize)) -> Result<()> {
    foreseeing_pass(b, interrupt, trace, &[], each)
}

/// The same that foresees the experts of `foreseen` of each layer but the first, when the one before has chosen.
fn foreseeing_pass(
    b: &Bench,
    interrupt: &Interrupt,
    trace: &[Vec<u32>],
    foreseen: &[Vec<u32>],
    mut each: impl FnMut(usize),
) -> Result<()> {
    let s = b.engine.schedule();
    let mut sweep = b.engine.sweep(interrupt, interrupt.count(), s.sweep_len)?;
    let mut take = |sweep: &mut super::Sweep, p: usize| {
        let held = sweep.page(p)?;
        each(p);
        let page = held.page();
        assert!(held.bytes().iter().zip(page.offset..).step_by(61).all(|(&b, at)| b == byte_at(at)), "page {p}");
        Ok(())
    };
    for layer in 0..s.layer_count {
        let end = if layer + 1 < s.layer_count { s.layer_pages(layer).end } else { s.head_start };
        s.layer_pages(layer).take_while(|&p| p < end).try_for_each(|p| take(&mut sweep, p))?;
        let mut experts = routed_to(s, layer, &trace[layer as usize]);
        sweep.route(&mut experts, true);
        if let Some(foreseen) = foreseen.get(layer as usize + 1) {
            let first = s.expert_groups[0].layers[layer as usize + 1].start;
            if let Some(held) =
                sweep.foresees(first as usize, s.layer_pages(layer + 1).start..s.layer_pages(layer + 1).start + 1)
            {
                assert!(held.iter().all(|held| held.page().layer == layer + 1));
                sweep.foresee(&foreseen.iter().map(|&e| first + e).collect::<Vec<_>>());
            }
        }
        for e in experts {
            s.experts[e.expert as usize].pages().try_for_each(|p| take(&mut sweep, p))?;
        }
    }
    (s.head_start..s.sweep_len).try_for_each(|p| take(&mut sweep, p))
}

pub fn pass(b: &Bench, trace: &[Vec<u32>]) -> Result<()> {
    pass_on(b, &b.interrupt, trace, |_| {})
}

/// Numbers that look random.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }

    /// Up to three experts for each layer, ascending, some far more often than others.
    fn token(&mut self) -> Vec<Vec<u32>> {
        let mut layer = || {
            let mut chosen: Vec<u32> = (0..3).map(|_| self.below(EXPERTS).min(self.below(EXPERTS))).collect();
            chosen.sort_unstable();
            chosen.dedup();
            chosen
        };
        (0..LAYERS).map(|_| layer()).collect()
    }
}

pub fn residents(b: &Bench) -> Vec<usize> {
    b.engine.shared().state.lock().cached_experts()
}

#[test]
fn hits_misses_evictions_and_bytes_are_those_of_the_policy() {
    let s = layers();
    assert_eq!(s.experts.len() as u32, LAYERS * EXPERTS);
    assert!(s.experts.iter().all(|e| e.pages().len() == 3));
    for (experts, prefetch, foresees) in
        [(1, true, false), (5, true, true), (14, false, false), (14, true, false), (14, true, true), (20, true, true)]
    {
        let b = open(layers(), frames(&s, experts), prefetch, |_| {});
        b.engine.settle();
        let (capacity, passing) = {
            let state = b.engine.shared().state.lock();
            (state.residency().cached[0] as usize, state.residency().passing[0] > 0)
        };
        let mut policy = Cache::new(LAYERS, EXPERTS, capacity);
        let (mut draw, mut expected) = (Draw(5), [0; 4]);
        b.control.take_reads();
        for _ in 0..60 {
            let token = draw.token();
            policy.begin_token();
            for (layer, chosen) in (0..).zip(&token) {
                policy.choose(layer, chosen);
                for &e in chosen {
                    let decision = policy.decide((layer, e));
                    expected[0] += u64::from(decision == Decision::Hit);
                    expected[1] += u64::from(decision != Decision::Hit);
                    expected[2] += u64::from(matches!(decision, Decision::Replace(_)));
                    if decision != Decision::Hit {
                        let expert = routed_to(&s, layer, &[e])[0].expert;
                        expected[3] += s.experts[expert as usize].extent_bytes;
                    }
                }
            }
            let foreseen = if foresees { draw.token() } else { Vec::new() };
            foreseeing_pass(&b, &b.interrupt, &token, &foreseen, |_| {}).unwrap();
        }
        let stats = b.stats();
        let counted = [stats.expert_hits, stats.expert_misses, stats.expert_evictions, stats.expert_missed_bytes];
        if passing {
            // What passed through is still there now and then.
            let [hits, misses, evictions, bytes] = counted;
            assert!(hits >= expected[0] && hits + misses == expected[0] + expected[1] && bytes <= expected[3]);
            assert!(hits - expected[0] <= expected[0] / 8);
            assert_eq!(evictions, expected[2], "{experts} experts: what is foreseen decides nothing");
        } else {
            assert_eq!(counted, expected, "{experts} experts, prefetch {prefetch}");
        }
        assert!(expected[0] > 0 && expected[2] > 0);
        // All that was read is what was missing: the cyclic part stays.
        let first = s.pages[s.sweep_len].offset;
        let reads = b.control.take_reads();
        let routed = reads.iter().filter(|r| (first..).contains(&r.end)).map(|r| r.end - r.start).sum::<u64>();
        if prefetch && !foresees {
            assert!(routed <= expected[3] + s.sweep_bytes());
        }
        assert!(stats.peak_bytes <= frames(&s, experts) && stats.used_bytes <= frames(&s, experts));
    }
}

#[test]
fn the_cache_follows_the_budget_down_and_up() {
    let s = layers();
    let (small, large) = (frames(&s, 6), frames(&s, 20));
    for prefetch in [true, false] {
        let b = open(layers(), large, prefetch, |_| {});
        let mut draw = Draw(9);
        for round in 0..6 {
            (0..8).for_each(|_| pass(&b, &draw.token()).unwrap());
            let full = residents(&b).len();
            b.engine.set_budget(small).unwrap();
            assert!(b.stats().used_bytes <= small, "round {round}: {:?}", b.stats());
            let kept = residents(&b);
            // Where everything stayed there was no cache to take from.
            let from_all = round == 3;
            assert!(from_all || (kept.len() == 6 && full > 12), "round {round}: {} of {full}", kept.len());
            (0..8).for_each(|_| pass(&b, &draw.token()).unwrap());
            assert!(b.stats().used_bytes <= small && residents(&b).len() == 6);
            b.engine.set_budget(if round == 2 { Engine::full_frames(&s) } else { large }).unwrap();
            b.engine.settle();
        }
        assert!(b.stats().peak_bytes <= Engine::full_frames(&s));
        let floor = Engine::min_frames(&s);
        b.engine.set_budget(floor).unwrap();
        assert!(b.stats().used_bytes <= floor && residents(&b).is_empty());
        pass(&b, &draw.token()).unwrap();
    }
}

#[test]
fn frames_of_experts_are_used_again_and_none_goes_back_while_the_budget_stays() {
    let s = layers();
    let b = open(layers(), frames(&s, 8), true, |_| {});
    let mut draw = Draw(3);
    (0..10).for_each(|_| pass(&b, &draw.token()).unwrap());
    b.engine.settle();
    let (used, evictions) = (b.stats().used_bytes, b.stats().expert_evictions);
    let addresses = |b: &Bench| b.engine.shared().state.lock().expert_frames().into_iter().collect::<HashSet<_>>();
    let before = addresses(&b);
    assert_eq!(before.len(), 9, "8 that stay, and one that passes through");
    (0..40).for_each(|_| pass(&b, &draw.token()).unwrap());
    assert_eq!(b.stats().used_bytes, used);
    assert_eq!(addresses(&b), before);
    assert!(b.stats().expert_evictions > evictions + 10);
}

#[test]
fn experts_in_memory_come_first_and_are_used_while_the_others_are_read() {
    let s = layers();
    let b = open(layers(), frames(&s, 20), true, |_| {});
    let trace = |experts: &[u32]| vec![experts.to_vec(); LAYERS as usize];
    (0..2).for_each(|_| pass(&b, &trace(&[3, 7])).unwrap());
    b.engine.settle();
    let missing = s.experts[routed_to(&s, 0, &[1])[0].expert as usize].pages();
    let at = s.pages[missing.start].offset;
    b.control.block_within(at..at + 1);
    let mut order = Vec::new();
    std::thread::scope(|scope| {
        let (b, order) = (&b, &mut order);
        scope.spawn(move || {
            pass_on(b, &b.interrupt, &trace(&[1, 3, 7]), |p| {
                order.push(p);
                // The first that is missing lets the others come.
                let last = s.experts[routed_to(&s, 0, &[7])[0].expert as usize].pages().end - 1;
                if p == last {
                    b.control.await_blocked(1);
                    b.control.unblock();
                }
            })
            .unwrap();
        });
    });
    let s = layers();
    let experts: Vec<u32> = order.iter().filter_map(|&p| s.pages[p].expert()).map(|e| e as u32).collect();
    let expected = (0..LAYERS).flat_map(|layer| routed_to(&s, layer, &[3, 7, 1])).flat_map(|e| [e.expert; 3]);
    assert_eq!(experts, expected.collect::<Vec<_>>());
}

#[test]
fn an_expert_that_cannot_be_read_fails_its_pass_alone() {
    let s = layers();
    let expert = routed_to(&s, 2, &[5])[0].expert as usize;
    let page = &s.pages[s.experts[expert].pages().start + 1];
    let at = page.offset + page.bytes / 2;
    let trace = |experts: &[u32]| vec![experts.to_vec(); LAYERS as usize];
    for prefetch in [true, false] {
        let b = open(layers(), frames(&s, 20), prefetch, |c: &Control| c.fail(at..at + 1, usize::MAX));
        pass(&b, &trace(&[0, 1])).unwrap();
        for _ in 0..3 {
            assert_eq!(pass(&b, &trace(&[1, 5])).unwrap_err().status(), Status::Io);
            pass(&b, &trace(&[0, 1])).unwrap();
        }
        b.control.heal();
        pass(&b, &trace(&[1, 5])).unwrap();
        let hits = b.stats().expert_hits;
        pass(&b, &trace(&[1, 5])).unwrap();
        assert_eq!(b.stats().expert_hits, hits + 2 * u64::from(LAYERS), "prefetch {prefetch}");
    }
}

#[test]
fn a_pass_that_is_cancelled_anywhere_leaves_a_cache_that_works() {
    let s = layers();
    for prefetch in [true, false] {
        let b = open(layers(), frames(&s, 10), prefetch, |_| {});
        let mut draw = Draw(11);
        for last in 0..40 {
            let mut pages = 0;
            let (token, foreseen) = (draw.token(), draw.token());
            let ended = foreseeing_pass(&b, &b.interrupt, &token, &foreseen, |_| {
                pages += 1;
                if pages == last {
                    b.interrupt.raise();
                }
            });
            match ended {
                Ok(()) => assert!(last == 0 || pages <= last),
                Err(e) => assert_eq!(e.status(), Status::Cancelled),
            }
            pass(&b, &draw.token()).unwrap();
        }
        assert!(b.stats().peak_bytes <= frames(&s, 10));
    }
}

#[test]
fn sessions_budgets_and_cancellations_at_once_never_exceed_the_budget_and_all_end() {
    let s = layers();
    let budgets: Vec<u64> = [0, 1, 6, 12, 20].iter().map(|&n| frames(&s, n)).collect();
    let most = Engine::full_frames(&s);
    for prefetch in [true, false] {
        let b = open(layers(), most, prefetch, |c| c.fail(0..u64::MAX, 3));
        let interrupts = [0, 1, 2].map(|_| Interrupt::new(&b.engine));
        std::thread::scope(|scope| {
            for (i, interrupt) in interrupts.iter().enumerate() {
                let b = &b;
                scope.spawn(move || {
                    let mut draw = Draw(i as u64 + 1);
                    for _ in 0..60 {
                        let (token, foreseen) = (draw.token(), draw.token());
                        if let Err(e) = foreseeing_pass(b, interrupt, &token, &foreseen, |_| {}) {
                            assert!(matches!(e.status(), Status::Cancelled | Status::Io), "{e}");
                        }
                    }
                });
            }
            let (b, budgets, interrupts) = (&b, &budgets, &interrupts);
            scope.spawn(move || {
                let mut draw = Draw(77);
                for i in 0..60 {
                    let n = draw.below(budgets.len() as u32 + 2) as usize;
                    let bytes = budgets.get(n).copied().unwrap_or(if n.is_multiple_of(2) {
                        most
                    } else {
                        Engine::min_frames(&layers())
                    });
                    b.engine.set_budget(bytes).unwrap();
                    std::thread::sleep(std::time::Duration::from_micros(300));
                    if i % 5 == 0 {
                        interrupts[i % 3].raise();
                    }
                }
            });
        });
        b.engine.set_budget(budgets[2]).unwrap();
        b.engine.settle();
        assert!(b.stats().used_bytes <= budgets[2] && b.stats().peak_bytes <= most, "{:?}", b.stats());
        let mut draw = Draw(5);
        (0..5).for_each(|_| pass(&b, &draw.token()).unwrap());
        assert_eq!(residents(&b).len(), 6);
    }
}
