//! Embeddings against those that other programs computed of the same tiny models (`scripts/arch_cases.py` and
//! `scripts/encoder_cases.py`), and against themselves under every way of running.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerline::model::{Embeddings, Logits, Model, Options, Outputs};
use layerline::session::Session;
use layerline::{Sampler, Status, Tokenizer, generate};

use crate::support::*;

/// What a pass leaves, row after row.
fn rows_of(session: &mut Session, tokens: &[i32], outputs: impl Into<Outputs>) -> Vec<f32> {
    session.forward(tokens, outputs).unwrap_or_else(|e| panic!("{e}"));
    (0..session.embedding_rows()).flat_map(|row| session.embeddings(row).unwrap().to_vec()).collect()
}

/// The embeddings of a pass of a session of its own.
fn embeddings_of(model: &Arc<Model>, tokens: &[i32], which: Embeddings) -> Vec<f32> {
    rows_of(&mut Session::new(model, 0).unwrap_or_else(|e| panic!("{e}")), tokens, which)
}

fn tokens_and_rows(path: &Path) -> (Vec<i32>, Vec<f32>) {
    let mut arrays = Arrays::of(path);
    (arrays.get("tokens"), arrays.get("embeddings"))
}

/// Fails where `path`'s model gives other embeddings than the reference, or its ways to choose do not fit together.
fn check(path: &Path, failures: &mut Vec<String>) -> Vec<f32> {
    let name = stem(path);
    let (tokens, want) = tokens_and_rows(path);
    let model = open(path, &options());
    let got = embeddings_of(&model, &tokens, Embeddings::All);
    // Keys and values are kept as half floats, with 11 bits: 2e-4 comes of that. NaN must not pass.
    let error = relative_error(&got, &want);
    if error.is_nan() || error >= 1e-3 {
        failures.push(format!("{name}: relative error {error:.2e}"));
    }
    let width = model.info().embedding_length as usize;
    assert_same_bits(&embeddings_of(&model, &tokens, Embeddings::First), &got[..width], &format!("{name}, first"));
    let last = &got[got.len() - width..];
    assert_same_bits(&embeddings_of(&model, &tokens, Embeddings::Last), last, &format!("{name}, last"));
    let mut mean = vec![0.0f32; width];
    for row in got.chunks_exact(width) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    mean.iter_mut().for_each(|sum| *sum *= 1.0 / tokens.len() as f32);
    assert_same_bits(&embeddings_of(&model, &tokens, Embeddings::Mean), &mean, &format!("{name}, mean"));
    got
}

fn encoders() -> Vec<PathBuf> {
    let all = models_in("encoder");
    assert!(all.len() >= 2, "{all:?}");
    all
}

#[test]
fn embeddings_of_decoders_are_the_references_however_the_tokens_are_cut() {
    let mut failures = Vec::new();
    for path in models_in("peer") {
        let name = stem(&path);
        let got = check(&path, &mut failures);
        let (tokens, _) = tokens_and_rows(&path);
        let chunked = open(&path, &Options { chunk_length: 5, ..options() });
        let mut session = Session::new(&chunked, 0).unwrap();
        let parts = tokens.chunks(7).flat_map(|part| rows_of(&mut session, part, Embeddings::All));
        assert_same_bits(&parts.collect::<Vec<_>>(), &got, &format!("{name}, passes of 7 in chunks of 5"));
        session.truncate(0).unwrap();
        let both = Outputs { logits: Logits::All, embeddings: Embeddings::All };
        assert_same_bits(&rows_of(&mut session, &tokens, both), &got, &format!("{name}, beside logits"));
        let logits: Vec<f32> = (0..tokens.len()).flat_map(|row| session.logits(row).unwrap().to_vec()).collect();
        assert_same_bits(&logits, &logits_of(&chunked, &tokens, 1), &format!("{name}, logits beside them"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn embeddings_of_encoders_are_the_references_at_any_budget_and_thread_count() {
    let mut failures = Vec::new();
    for path in encoders() {
        let name = stem(&path);
        let got = check(&path, &mut failures);
        let (tokens, _) = tokens_and_rows(&path);
        let mean = embeddings_of(&open(&path, &options()), &tokens, Embeddings::Mean);
        for threads in [1, 2] {
            // A sequence shares one sweep whatever the length of chunks.
            let base = Options { threads, chunk_length: 5, ..options() };
            let least = plan(&path, &base);
            let floor = Options { memory_budget: least.floor_bytes, ..base.clone() };
            assert!(plan(&path, &floor).streamed_bytes > 0, "{name}: the floor holds the whole model");
            let full = Options { memory_budget: least.full_bytes + 4 * got.len() as u64, ..base };
            assert_eq!(plan(&path, &full).streamed_bytes, 0, "{name}");
            let (floor, full) = (open(&path, &floor), open(&path, &full));
            let what = format!("{name}, {threads} threads");
            assert_same_bits(&embeddings_of(&full, &tokens, Embeddings::All), &got, &what);
            assert_same_bits(&embeddings_of(&floor, &tokens, Embeddings::Mean), &mean, &what);
            assert_same_bits(&embeddings_of(&floor, &tokens, Embeddings::Mean), &mean, &what);
            let stats = floor.stats();
            assert!(stats.read_bytes > least.weight_bytes / 2 && stats.peak_bytes <= stats.budget_bytes, "{stats:?}");
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn tokens_of_an_encoder_see_those_after_them() {
    for path in encoders() {
        let (mut tokens, _) = tokens_and_rows(&path);
        let model = open(&path, &options());
        let before = embeddings_of(&model, &tokens, Embeddings::First);
        *tokens.last_mut().unwrap() ^= 1;
        assert_ne!(embeddings_of(&model, &tokens, Embeddings::First), before, "{}", stem(&path));
    }
}

#[test]
fn each_pass_of_an_encoder_is_a_sequence_of_its_own() {
    for path in encoders() {
        let (tokens, _) = tokens_and_rows(&path);
        let model = open(&path, &options());
        let want = embeddings_of(&model, &tokens, Embeddings::Mean);
        let mut session = Session::new(&model, 0).unwrap();
        rows_of(&mut session, &tokens[3..], Embeddings::Mean);
        assert_same_bits(&rows_of(&mut session, &tokens, Embeddings::Mean), &want, "after another pass");
        assert_eq!(session.position(), tokens.len());
        let room = session.context_length();
        // What does not fit is refused, and what was there stays.
        let long: Vec<i32> = tokens.iter().copied().cycle().take(room + 1).collect();
        assert_eq!(session.forward(&long, Embeddings::Mean).unwrap_err().status(), Status::ContextFull);
        assert_eq!(session.position(), tokens.len());
        assert_same_bits(session.embeddings(0).unwrap(), &want, "after a refused pass");
        assert_eq!(rows_of(&mut session, &long[..room], Embeddings::All).len(), room * want.len());
        let error = Session::new(&model, room as u32 + 1).err().unwrap();
        assert_eq!(error.status(), Status::InvalidArgument, "{error}");
    }
}

#[test]
fn an_encoder_has_no_logits_and_generates_nothing() {
    for path in encoders() {
        let (tokens, _) = tokens_and_rows(&path);
        let model = open(&path, &options());
        let mut session = Session::new(&model, 0).unwrap();
        for logits in [Logits::Last, Logits::All] {
            let error = session.forward(&tokens, logits).unwrap_err();
            assert!(error.status() == Status::Unsupported && error.message().contains("no output head"), "{error}");
            let both = Outputs { logits, embeddings: Embeddings::Mean };
            assert_eq!(session.forward(&tokens, both).unwrap_err().status(), Status::Unsupported);
        }
        let other = open(&golden("arch/llama.gguf"), &options());
        let tokenizer: &Tokenizer = other.tokenizer().unwrap();
        let go_on = |_, _: &str| std::ops::ControlFlow::Continue(());
        let error = generate(&mut session, tokenizer, &mut Sampler::new(), &tokens, 4, go_on).unwrap_err();
        assert!(error.status() == Status::Unsupported && error.message().contains("no text"), "{error}");
        assert_eq!(session.position(), 0);
        session.forward(&tokens, Logits::None).unwrap();
        assert_eq!((session.position(), session.embedding_rows(), session.logit_rows()), (tokens.len(), 0, 0));
    }
}

#[test]
fn scores_are_the_references_and_the_same_bits_at_the_floor_and_with_any_threads() {
    let mut with_score = 0;
    for path in encoders() {
        let (name, mut arrays) = (stem(&path), Arrays::of(&path));
        let tokens = arrays.get::<i32>("tokens");
        let model = open(&path, &options());
        if !arrays.has("score") {
            let refused = Session::new(&model, 0).unwrap().forward(&tokens, Embeddings::Score).unwrap_err();
            assert_eq!(refused.status(), Status::Unsupported, "{name}: {refused}");
            continue;
        }
        with_score += 1;
        let got = embeddings_of(&model, &tokens, Embeddings::Score);
        let error = relative_error(&got, &arrays.get::<f32>("score"));
        assert!(error < 1e-3, "{name}: {got:?}, relative error {error:.2e}");
        for threads in [1, 2] {
            let base = Options { threads, ..options() };
            let floor = Options { memory_budget: plan(&path, &base).floor_bytes, ..base };
            let model = open(&path, &floor);
            let mut session = Session::new(&model, 0).unwrap();
            assert_same_bits(&rows_of(&mut session, &tokens, Embeddings::Score), &got, name);
            // The row is as long as an embedding again afterwards, and the score is no sum.
            let width = model.info().embedding_length as usize;
            assert_eq!(rows_of(&mut session, &tokens, Embeddings::First).len(), width, "{name}");
            assert_same_bits(&rows_of(&mut session, &tokens, Embeddings::Score), &got, name);
        }
    }
    assert!(with_score >= 3, "{with_score} models with a classifier");
}

#[test]
fn a_decoders_score_is_the_probability_of_each_label_after_the_last_token() {
    let path = golden("family/qwen3-rank.gguf");
    let mut arrays = Arrays::of(&path);
    let (tokens, want) = (arrays.get::<i32>("tokens"), arrays.get::<f32>("score"));
    let model = open(&path, &options());
    let got = embeddings_of(&model, &tokens, Embeddings::Score);
    assert!(relative_error(&got, &want) < 1e-3, "{got:?}, not {want:?}");
    assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-6 && want[0] != want[1]);
    let floor = plan(&path, &options()).floor_bytes;
    for (chunk_length, memory_budget) in [(5, 1 << 30), (1, 1 << 30), (options().chunk_length, floor)] {
        let model = open(&path, &Options { chunk_length, memory_budget, ..options() });
        let mut session = Session::new(&model, 0).unwrap();
        assert_same_bits(&rows_of(&mut session, &tokens, Embeddings::Score), &got, "in chunks");
        // What the session holds already counts, and logits may come beside the score.
        session.truncate(0).unwrap();
        session.forward(&tokens[..9], Logits::None).unwrap();
        let both = Outputs { logits: Logits::Last, embeddings: Embeddings::Score };
        assert_same_bits(&rows_of(&mut session, &tokens[9..], both), &got, "in two passes");
    }
    // The whole matrix of the head is not read for a score. On demand, so that nothing read for a later pass counts.
    let on_demand = Options { prefetch: false, ..options() };
    let model = open(&path, &Options { memory_budget: plan(&path, &on_demand).floor_bytes, ..on_demand });
    let mut session = Session::new(&model, 0).unwrap();
    let read = |session: &mut Session, outputs: Outputs| {
        session.truncate(0).unwrap();
        let before = model.stats().read_bytes;
        rows_of(session, &tokens, outputs);
        model.stats().read_bytes - before
    };
    read(&mut session, Logits::Last.into());
    let (score, logits) = (read(&mut session, Embeddings::Score.into()), read(&mut session, Logits::Last.into()));
    assert!(score < logits, "{score} bytes for a score, {logits} for logits");
}
