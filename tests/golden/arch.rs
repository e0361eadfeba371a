//! Tiny float32 models of each kind, whose logits were computed by other programs: those of `arch` in float64 by an
//! independent one, those of `peer` (`scripts/arch_cases.py`, `layer_cases.py`), `family` (`scripts/family_cases.py`) and
//! `arch2` by llama.cpp.

use std::path::PathBuf;

use layerline::model::{Io, Options};

use crate::support::*;

fn models() -> Vec<PathBuf> {
    let all = ["arch", "arch2", "peer", "family"].map(models_in).concat();
    assert!(all.len() >= 120, "{all:?}");
    all
}

#[test]
fn logits_are_the_references_and_the_same_bits_however_the_tokens_are_cut() {
    let mut failures = Vec::new();
    for path in models() {
        let name = stem(&path);
        let mut arrays = Arrays::of(&path);
        let (tokens, want) = (arrays.get::<i32>("tokens"), arrays.get::<f32>("logits"));
        let model = open(&path, &options());
        let got = logits_of(&model, &tokens, tokens.len());
        // Keys and values are kept as half floats, with 11 bits: 2e-4 comes of that. NaN must not pass.
        let error = relative_error(&got, &want);
        if error.is_nan() || error >= 1e-3 {
            failures.push(format!("{name}: relative error {error:.2e}"));
        }

        assert_same_bits(&logits_of(&model, &tokens, 1), &got, &format!("{name}, token by token"));
        assert_same_bits(&logits_of(&model, &tokens, 7), &got, &format!("{name}, passes of 7"));
        let chunked = open(&path, &Options { chunk_length: 5, ..options() });
        assert_same_bits(&logits_of(&chunked, &tokens, tokens.len()), &got, &format!("{name}, chunks of 5"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_floor_budget_streams_and_gives_the_same_bits_as_everything_resident() {
    for path in models() {
        let name = stem(&path);
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        // Logits of all positions are taken from the budget, so they come one by one.
        let least = plan(&path, &options());
        let floor = Options { memory_budget: least.floor_bytes, ..options() };
        assert!(plan(&path, &floor).streamed_bytes > 0, "{name}: the floor holds the whole model");
        let full = Options { memory_budget: least.full_bytes, ..options() };
        assert_eq!(plan(&path, &full).streamed_bytes, 0, "{name}");
        let (floor, full) = (open(&path, &floor), open(&path, &full));
        let got = logits_of(&floor, &tokens, 1);
        assert_same_bits(&got, &logits_of(&full, &tokens, 1), &format!("{name}, floor and full"));
        assert!(floor.stats().read_bytes > least.weight_bytes, "{name}: nothing was read twice");
    }
}

#[test]
fn models_of_experts_give_the_same_bits_at_every_budget_whatever_their_cache_holds() {
    let (mut found, mut evicted) = (0, 0);
    for path in models() {
        let model = open(&path, &options());
        if model.info().expert_count == 0 {
            continue;
        }
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        let want = logits_of(&model, &tokens, 1);
        for (prefetch, io) in [(cfg!(feature = "prefetch"), Io::Buffered), (false, Io::Buffered), (false, Io::Mmap)] {
            for eighth in 4..8 {
                let options = Options { prefetch, io, ..options() };
                let least = plan(&path, &options);
                let memory_budget = least.floor_bytes + (least.full_bytes - least.floor_bytes) * eighth / 8;
                let model = open(&path, &Options { memory_budget, ..options });
                let what = format!("{}, prefetch {prefetch}, {io:?}, {eighth}/8", stem(&path));
                assert_same_bits(&logits_of(&model, &tokens, 1), &want, &what);
                let stats = model.stats();
                assert!(stats.peak_bytes <= memory_budget, "{what}: {stats:?}");
                (found, evicted) = (found + stats.expert_hits, evicted + stats.expert_evictions);
            }
        }
    }
    assert!(found > 100 && evicted > 100, "{found} experts were found in memory, {evicted} evicted");
}

/// Rows of the table that layers have their own inputs from: 160 tokens, 22 layers, 256 floats each.
#[test]
fn inputs_of_each_layer_are_read_by_rows_and_never_held() {
    let path = golden("peer/gemma3n.gguf");
    let full = Options { memory_budget: plan(&path, &options()).full_bytes, ..options() };
    let plan = plan(&path, &full);
    let table = 160 * 22 * 256 * 4;
    assert_eq!(plan.streamed_bytes, 0);
    // Pages are read with what lies around them, up to 8 KiB each, so that all others take more than their weights.
    assert!(plan.pinned_bytes < table, "{} bytes are held, and the table has {table}", plan.pinned_bytes);
    let model = open(&path, &full);
    logits_of(&model, &[1, 2, 3], 3);
    let after_one = model.stats().read_bytes;
    logits_of(&model, &[1, 2, 3], 3);
    assert!(model.stats().read_bytes - after_one >= 3 * 22 * 256 * 4, "no rows were read");
}
