//! What the engine promises of experts: a pass reads those that it is routed to and no others, once each.

use std::ops::Range;

use super::engine::{Engine, Sweep};
use super::schedule::{MatrixId, Schedule};
use super::testing::schedule::{ROUTED, schedule_of};
use super::testing::scripted::byte_at;
use super::tests::{Bench, open};
use crate::error::Result;
use crate::weights::RoutedExpert;

const LAYERS: u32 = 4;
const EXPERTS: u64 = 6;
/// Two before the experts (the second stands for the router), one beside them.
const ALWAYS: u32 = 3;
const PER_LAYER: u32 = ALWAYS + EXPERTS as u32;

/// Layers of three matrices that all passes use and six experts of uneven pages, and a head.
fn routed() -> Schedule {
    let mut matrices = Vec::new();
    for layer in 0..LAYERS {
        matrices.extend([(layer, 8192, 96), (layer, 8192, 16), (layer, 8192, 48)]);
        matrices.extend((0..EXPERTS).map(|e| (layer | ROUTED, 8192, 144 + 16 * e)));
    }
    matrices.push((LAYERS - 1, 8192, 160));
    schedule_of(&matrices)
}

fn matrix(layer: u32, part: u32) -> MatrixId {
    MatrixId(layer * PER_LAYER + part)
}

fn expert_pages(s: &Schedule, layer: u32, experts: &[u32]) -> Vec<usize> {
    experts.iter().flat_map(|&e| s.matrix(matrix(layer, ALWAYS + e)).pages()).collect()
}

fn routed_experts(s: &Schedule, layer: u32, experts: &[u32]) -> Vec<RoutedExpert> {
    let number = |&e: &u32| s.expert_of(matrix(layer, ALWAYS + e)).unwrap() as u32;
    experts.iter().map(|e| RoutedExpert { expert: number(e), tag: *e }).collect()
}

fn take(sweep: &mut Sweep, p: usize) -> Result<()> {
    let held = sweep.page(p)?;
    let page = held.page();
    assert!(held.bytes().iter().zip(page.offset..).step_by(509).all(|(&b, at)| b == byte_at(at)), "page {p}");
    Ok(())
}

/// One pass that each layer routes to `experts`; `each` runs after every page.
fn pass(b: &Bench, experts: &[u32], mut each: impl FnMut()) -> Result<()> {
    let s = b.engine.schedule();
    let mut sweep = b.engine.sweep(&b.interrupt, b.interrupt.count(), s.sweep_len)?;
    for layer in 0..LAYERS {
        for part in 0..ALWAYS {
            for p in s.matrix(matrix(layer, part)).pages() {
                take(&mut sweep, p)?;
                each();
            }
            if part == 1 {
                sweep.route(&mut routed_experts(s, layer, experts), false);
            }
        }
        for p in expert_pages(s, layer, experts) {
            take(&mut sweep, p)?;
            each();
        }
    }
    for p in s.matrix(matrix(LAYERS, 0)).pages() {
        take(&mut sweep, p)?;
        each();
    }
    Ok(())
}

/// How often each page was read, wholly or in part at its middle.
fn times_read(s: &Schedule, reads: &[Range<u64>]) -> Vec<usize> {
    let middle = |p: &super::Page| p.offset + p.bytes / 2;
    s.pages.iter().map(|p| reads.iter().filter(|r| r.contains(&middle(p))).count()).collect()
}

fn budgets(s: &Schedule) -> Vec<u64> {
    let (floor, full) = (Engine::min_frames(s), Engine::full_frames(s));
    (0..=8).map(|i| floor + (full - floor) * i / 8).collect()
}

#[test]
fn experts_follow_the_circle_and_stand_at_the_gates_of_their_layers() {
    let s = routed();
    assert_eq!(s.route_points.len(), LAYERS as usize);
    for layer in 0..LAYERS {
        assert_eq!(s.route_points[layer as usize] as usize, s.matrix(matrix(layer, 2)).pages().end);
        assert!(s.layer_pages(layer).end <= s.sweep_len);
        for p in expert_pages(&s, layer, &[0, 5]) {
            assert!((s.sweep_len..s.routed_end).contains(&p) && s.pages[p].layer == layer);
        }
    }
    assert!(s.routed_bytes() > s.sweep_bytes());
}

#[test]
fn a_pass_reads_the_experts_that_it_is_routed_to_and_no_others_at_the_floor() {
    let s = routed();
    for prefetch in [true, false] {
        let b = open(routed(), Engine::min_frames(&s), prefetch, |_| {});
        for experts in [&[1, 4][..], &[0], &[2, 3, 5], &[]] {
            b.engine.settle();
            b.control.take_reads();
            pass(&b, experts, || {}).unwrap();
            let times = times_read(&s, &b.control.take_reads());
            for layer in 0..LAYERS {
                for e in 0..EXPERTS as u32 {
                    let wanted = usize::from(experts.contains(&e));
                    for p in expert_pages(&s, layer, &[e]) {
                        assert_eq!(times[p], wanted, "prefetch {prefetch}, layer {layer}, expert {e}");
                    }
                }
            }
        }
        assert!(b.stats().peak_bytes <= Engine::min_frames(&s));
    }
}

#[test]
fn with_fast_storage_routed_pages_are_there_in_time_and_nothing_is_read_twice() {
    let s = routed();
    for frames in budgets(&s) {
        let b = open(routed(), frames, true, |_| {});
        b.engine.settle();
        b.control.take_reads();
        pass(&b, &[0, 3, 5], || b.engine.settle()).unwrap();
        let times = times_read(&s, &b.control.take_reads());
        // The pages before the first route point may have been read for the next pass as well.
        let first_route_point = s.route_points[0] as usize;
        for (p, &times) in times.iter().enumerate().skip(first_route_point) {
            assert!(times <= 1, "{frames}: page {p} was read {times} times");
        }
        // Only the first page of a route point may be waited for: until the router has spoken nobody knows it. Beside that route point a
        // page of the cyclic part is used first, so not even that.
        assert!(b.stats().layers_stalled <= 1, "{frames}: {:?}", b.stats());
        assert!(b.stats().peak_bytes <= frames);
    }
}

#[test]
fn experts_that_fit_beside_the_cyclic_part_are_read_once() {
    let s = routed();
    let swept = s.sweep_bytes() + 2 * Engine::min_frames(&s);
    for frames in [swept + s.routed_bytes() * 3 / 4, Engine::full_frames(&s)] {
        let b = open(routed(), frames, true, |_| {});
        b.engine.settle();
        let plan = b.engine.shared().state.lock().residency().clone();
        assert!(plan.pinned[..s.sweep_len].iter().all(|&p| p), "{frames}: pages of every pass come first");
        let (full, cached) = (frames == Engine::full_frames(&s), plan.cached[0] as usize);
        assert!(if full { cached == 0 } else { cached > 2 * LAYERS as usize }, "{frames}: {cached}");
        assert_eq!(plan.pinned[s.sweep_len..s.routed_end].iter().filter(|&&p| p).count() > 0, full);
        pass(&b, &[1, 4], || {}).unwrap();
        b.control.take_reads();
        // What they use fits.
        (0..3).for_each(|_| pass(&b, &[1, 4], || {}).unwrap());
        assert!(b.control.take_reads().is_empty(), "{frames}");
        pass(&b, &[0, 1, 2, 3, 4, 5], || {}).unwrap();
        b.engine.settle();
        let times = times_read(&s, &b.control.take_reads());
        for layer in 0..LAYERS {
            let read = |e| expert_pages(&s, layer, &[e]).iter().all(|&p| times[p] == usize::from(!full));
            assert!([0, 2, 3, 5].into_iter().all(read), "{frames}: layer {layer}: {times:?}");
            assert!(expert_pages(&s, layer, &[1, 4]).iter().all(|&p| times[p] == 0), "{frames}: layer {layer}");
        }
    }
}

#[test]
fn a_pass_that_was_interrupted_at_a_gate_leaves_nothing_in_the_way_of_the_next() {
    let s = routed();
    for prefetch in [true, false] {
        let b = open(routed(), Engine::min_frames(&s), prefetch, |_| {});
        for last in 1..12 {
            let mut pages = 0;
            let ended = pass(&b, &[1, 2, 5], || {
                pages += 1;
                if pages == last {
                    b.interrupt.raise();
                }
            });
            assert!(ended.is_err());
            pass(&b, &[0, 4], || {}).unwrap();
        }
        assert!(b.stats().peak_bytes <= Engine::min_frames(&s));
    }
}

#[test]
fn an_expert_whose_reading_fails_is_tried_again_and_then_fails_the_pass() {
    let s = routed();
    let p = &s.pages[expert_pages(&s, 2, &[3])[0]];
    let middle = p.offset + p.bytes / 2;
    for prefetch in [true, false] {
        let b = open(routed(), Engine::min_frames(&s), prefetch, |c| c.fail(middle..middle + 1, usize::MAX));
        pass(&b, &[1], || {}).unwrap();
        let error = pass(&b, &[1, 3], || {}).unwrap_err();
        assert!(error.message().contains("scripted.gguf"), "{}", error.message());
        b.control.heal();
        pass(&b, &[1, 3], || {}).unwrap();
    }
}

#[test]
fn the_streamed_bytes_of_a_plan_count_the_share_of_experts_that_a_token_uses() {
    let mut s = routed();
    s.routed_share = (2, EXPERTS);
    let floor = Engine::plan_frames(&s, Engine::min_frames(&s), 0, 4, Default::default());
    assert_eq!(floor.pinned_bytes, 0);
    assert_eq!(floor.streamed_bytes, s.sweep_bytes() + s.routed_bytes() / 3);
    assert_eq!(Engine::plan_frames(&s, Engine::full_frames(&s), 0, 4, Default::default()).streamed_bytes, 0);
}
