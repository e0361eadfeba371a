//! A long run over the routing of three real models, one after the other, while the budget changes.

use std::path::Path;

use super::KeptExperts;
use super::engine::Engine;
use super::expert_tests::{frames, pass};
use super::residency::Residency;
use super::schedule::Schedule;
use super::testing::schedule::{ROUTED, SAME, schedule_of};
use super::tests::{READERS, open};

#[path = "../../scripts/make_model/trace.rs"]
mod trace;

const LAYERS: u32 = 4;
/// As many as the model with the most has.
const EXPERTS: u64 = 128;
/// Tokens over which the cache is compared, and which it may take to fill.
const WINDOW: usize = 64;

fn layers() -> Schedule {
    let expert =
        |layer| [(layer | ROUTED, 256, 60), (layer | ROUTED | SAME, 256, 60), (layer | ROUTED | SAME, 256, 60)];
    let layer = |layer| [(layer, 256, 100)].into_iter().chain((0..EXPERTS).flat_map(move |_| expert(layer)));
    schedule_of(&(0..LAYERS).flat_map(layer).collect::<Vec<_>>())
}

fn routing() -> Vec<Vec<Vec<u32>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/routing");
    let read = |name: &str| trace::Trace::read(folder.join(name).to_str().unwrap()).unwrap();
    let traces = ["qwen3.tr", "gpt-oss.tr", "olmoe.tr"].map(read);
    assert!(traces.iter().all(|t| t.layers == LAYERS && u64::from(t.experts) <= EXPERTS && t.used() >= 2));
    traces.into_iter().flat_map(|t| t.tokens).collect()
}

#[test]
fn over_any_64_tokens_no_more_is_missing_than_of_a_fixed_share() {
    let s = layers();
    let tokens = routing();
    let budgets = [25, 10, 50, 6, 33].map(|percent| frames(&s, u64::from(LAYERS) * EXPERTS * percent / 100));
    let b = open(layers(), budgets[0], true, |_| {});
    let mut fixed: Option<Residency> = None;
    let (mut missed, mut of_fixed, mut last, mut changes) = (Vec::new(), Vec::new(), 0, 0);
    for (t, token) in tokens.iter().enumerate() {
        let budget = budgets[t * budgets.len() / tokens.len()];
        if last != budget {
            b.engine.set_budget(budget).unwrap();
            fixed = Some(Engine::plan_frames(&s, budget, 0, READERS, KeptExperts::FixedShare));
            (last, changes) = (budget, changes + 1);
        }
        let before = b.stats();
        pass(&b, token).unwrap();
        let stats = b.stats();
        assert!(stats.used_bytes <= budget, "token {t}: {stats:?}");
        let hits = stats.expert_hits - before.expert_hits;
        let uses: u64 = token.iter().map(|chosen| chosen.len() as u64).sum();
        assert_eq!(hits + stats.expert_misses - before.expert_misses, uses);
        missed.push(stats.expert_missed_bytes - before.expert_missed_bytes);
        let plan = fixed.as_ref().unwrap();
        let of_layer = |(layer, chosen): (usize, &Vec<u32>)| {
            let first = s.expert_groups[0].layers[layer].start;
            let pages = chosen.iter().flat_map(|&e| s.experts[(first + e) as usize].pages());
            pages.filter(|&p| !plan.pinned[p]).map(|p| s.pages[p].extent_bytes).sum::<u64>()
        };
        of_fixed.push(token.iter().enumerate().map(of_layer).sum::<u64>());
    }
    assert_eq!((changes, tokens.len()), (budgets.len(), 320));
    assert!(b.stats().peak_bytes <= *budgets.iter().max().unwrap());
    let sum = |of: &[u64], t: usize| of[t..t + WINDOW].iter().sum::<u64>();
    for t in WINDOW..=tokens.len() - WINDOW {
        let (ours, fixed) = (sum(&missed, t), sum(&of_fixed, t));
        assert!(ours <= fixed, "tokens from {t}: {ours} bytes were missing, of a fixed share {fixed}");
    }
}
