//! A real model, on prompts in English, French with Chinese and an emoji, and Python.

use std::path::Path;

use layerline::model::{KvType, Logits, Options};
use layerline::session::Session;

use crate::support::*;

#[test]
fn the_small_model_reads_its_prompts_as_the_reference_does() {
    let Some(path) = small_model("golden: tokens of the small model") else { return };
    let model = open(&path, &options());
    let mut arrays = Arrays::open(&golden("real/smollm2.npz"));
    let mut prompts = 0;
    while arrays.has(&format!("prompt{prompts}")) {
        let text = String::from_utf8(arrays.get::<u8>(&format!("prompt{prompts}"))).unwrap();
        let want = arrays.get::<i32>(&format!("tokens{prompts}"));
        assert_eq!(model.tokenizer().unwrap().encode(&text, false, true), want, "{text:?}");
        prompts += 1;
    }
    assert_eq!(prompts, 4);
}

#[test]
fn the_small_model_is_as_near_to_its_exact_distribution_as_the_peer() {
    let Some(path) = small_model("golden: fidelity of the small model") else { return };
    let (ours, peer, each) = small_model_divergence(&path, KvType::F16);
    assert!(
        ours <= 1.1 * peer,
        "mean divergence {ours:.3e}, the peer's {peer:.3e} at the same positions\n{}",
        each.join("\n")
    );
}

/// Its mean divergence, the peer's, and a line for each prompt.
fn small_model_divergence(path: &Path, kv_type: KvType) -> (f64, f64, Vec<String>) {
    let full = plan(path, &options()).full_bytes;
    let model = open(path, &Options { memory_budget: full + (64 << 20), kv_type, ..options() });
    let vocab = model.info().vocab_size as usize;
    let mut arrays = Arrays::open(&golden("real/smollm2.npz"));
    let (mut ours, mut peer, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..4 {
        let tokens = arrays.get::<i32>(&format!("tokens{i}"));
        let exact = arrays.get::<f32>(&format!("exact_logprobs{i}"));
        let peers = arrays.get::<f64>(&format!("peer_kl{i}"));
        let rows = exact.len() / vocab;
        let logits = logits_of(&model, &tokens, tokens.len());
        let last = &logits[(tokens.len() - rows) * vocab..];
        let mine: Vec<f64> =
            exact.chunks_exact(vocab).zip(last.chunks_exact(vocab)).map(|(e, o)| divergence(e, o)).collect();
        let theirs = &peers[peers.len() - rows..];
        each.push(format!("prompt {i}: {:.3e}, the peer {:.3e}", mean(&mine), mean(theirs)));
        ours.extend(mine);
        peer.extend_from_slice(theirs);
    }
    assert_eq!(ours.len(), 23);
    (mean(&ours), mean(&peer), each)
}

/// The gate is what the peer's own file of the same model costs, at the same positions.
#[test]
fn gemma_3_is_as_near_to_its_exact_distribution_as_the_peer() {
    let Some(path) = model_file("gemma-3-270m-Q4_K_M.gguf", "golden: fidelity of Gemma 3") else { return };
    let (ours, peer) = gemma_3_divergence(&path, KvType::F16);
    assert!(ours <= 1.1 * peer, "mean divergence {ours:.3e}, the peer's {peer:.3e} at the same positions");
}

/// Its mean divergence and the peer's. Of the exact distribution the 16384 most probable tokens are known, and what all
/// others have together.
fn gemma_3_divergence(path: &Path, kv_type: KvType) -> (f64, f64) {
    let full = plan(path, &options()).full_bytes;
    let model = open(path, &Options { memory_budget: full + (64 << 20), kv_type, ..options() });
    let vocab = model.info().vocab_size as usize;
    let mut arrays = Arrays::open(&golden("real/gemma3.npz"));
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for i in 0..4 {
        let tokens = arrays.get::<i32>(&format!("tokens{i}"));
        let top = arrays.get::<i32>(&format!("top_tokens{i}"));
        let exact = arrays.get::<f32>(&format!("top_logprobs{i}"));
        let peers = arrays.get::<f64>(&format!("peer_kl{i}"));
        const ROWS: usize = 6;
        let logits = logits_of(&model, &tokens, tokens.len());
        let last = logits[(tokens.len() - ROWS) * vocab..].chunks_exact(vocab);
        let known = top.len() / ROWS;
        for ((top, exact), row) in top.chunks_exact(known).zip(exact.chunks_exact(known)).zip(last) {
            ours.push(divergence_of_top(top, exact, row));
        }
        peer.extend_from_slice(&peers[peers.len() - ROWS..]);
    }
    assert_eq!(ours.len(), 24);
    (mean(&ours), mean(&peer))
}

/// Keys and values are rotated before they are rounded to 8 bits; the bound is what a cache in 8 bits is to cost. The exact
/// model was computed for few positions, where the rounding of activations makes most of the divergence and any change
/// of its input moves it: SmolLM2 has 1.07 times the divergence of half floats, Gemma 3 0.90 times; not rotated, SmolLM2
/// had 1.44 times.
#[test]
fn a_quantised_cache_costs_at_most_a_tenth_of_the_divergence() {
    let mut measured = Vec::new();
    if let Some(path) = small_model("golden: the quantised cache of the small model") {
        measured.push(("SmolLM2", [KvType::F16, KvType::Q8_0].map(|kv_type| small_model_divergence(&path, kv_type).0)));
    }
    if let Some(path) = model_file("gemma-3-270m-Q4_K_M.gguf", "golden: the quantised cache of Gemma 3") {
        measured.push(("Gemma 3", [KvType::F16, KvType::Q8_0].map(|kv_type| gemma_3_divergence(&path, kv_type).0)));
    }
    println!("mean divergences with f16 and with q8_0: {measured:?}");
    let near = measured.iter().all(|(_, [half, quantised])| *quantised <= 1.1 * half);
    assert!(near, "mean divergences with f16 and with q8_0: {measured:?}");
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Streamed pages are read once for all tokens of a chunk, however many those are.
#[test]
fn a_prompt_reads_each_streamed_page_once_a_chunk() {
    let Some(path) = small_model("golden: reads of a long prompt") else { return };
    const PROMPT: u32 = 512;
    let prefetches: &[bool] = if cfg!(feature = "prefetch") { &[true, false] } else { &[false] };
    for &prefetch in prefetches {
        for chunk in [PROMPT / 4, PROMPT] {
            let base = Options { context_length: PROMPT, chunk_length: chunk, prefetch, ..options() };
            let bounds = plan(&path, &base);
            // A quarter of the file where that is enough for activations of so many tokens.
            let budget = bounds.floor_bytes.max(bounds.file_bytes / 4);
            let base = Options { memory_budget: budget, ..base };
            let plan = plan(&path, &base);
            assert!(plan.streamed_bytes > bounds.file_bytes / 2, "{} bytes are streamed", plan.streamed_bytes);
            let model = open(&path, &base);
            let mut session = Session::new(&model, 0).unwrap();
            let tokens: Vec<i32> = (0..PROMPT as i32).map(|i| i * 97 % 40_000).collect();
            session.forward(&tokens, Logits::Last).unwrap();
            let read = model.stats().read_bytes;
            // What stays is read once; a row of the embedding at a time lies in one or two blocks of the storage.
            let sweeps = u64::from(PROMPT / chunk);
            let rows = u64::from(PROMPT) * 2 * 4096;
            // The loader reads on for the pass that may follow, as far as its frames reach.
            let ahead = if prefetch { budget - plan.pinned_bytes - plan.kv_bytes - plan.scratch_bytes } else { 0 };
            let most = plan.pinned_bytes + sweeps * plan.streamed_bytes + rows + ahead;
            assert!(read <= most, "chunks of {chunk}, prefetch {prefetch}: {read} bytes read, {most} are enough");
            assert!(read >= plan.pinned_bytes + plan.streamed_bytes, "{read} bytes cannot have been all");
        }
    }
}
