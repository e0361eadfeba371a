//! Layers with a sliding window keep little more than the window: the bits stay, the memory does not grow, and where
//! truncation cannot go back a checkpoint can.

use std::path::PathBuf;
use std::sync::Arc;

use layerline::Status;
use layerline::model::{KvType, Logits, Model, Options};
use layerline::session::Session;

use crate::support::*;

const CONTEXT: u32 = 400;
/// More than what a window of 64 at most and a short chunk have room for.
const PROMPT: usize = 330;

fn windowed() -> Vec<PathBuf> {
    let names = ["gemma2", "gemma3", "gpt-oss", "cohere2", "olmo2", "gemma4", "gemma3n"];
    let all = models_in("arch").into_iter().chain(models_in("peer"));
    all.filter(|path| names.iter().any(|name| stem(path).starts_with(name))).collect()
}

fn open_with(path: &std::path::Path, chunk_length: u32, kv_type: KvType) -> Arc<Model> {
    open(path, &Options { context_length: CONTEXT, chunk_length, kv_type, ..options() })
}

fn tokens(model: &Model, count: usize) -> Vec<i32> {
    let vocab = model.info().vocab_size as usize;
    (0..count).map(|i| ((i * 37 + i / 7 + 11) % vocab) as i32).collect()
}

fn last(session: &Session) -> Vec<f32> {
    session.logits(session.logit_rows() - 1).unwrap().to_vec()
}

#[test]
fn beyond_the_window_the_bits_are_those_of_a_memory_of_the_whole_context() {
    let mut dropped = 0;
    for path in windowed() {
        // With chunks as long as the context nothing is ever dropped.
        let whole = open_with(&path, CONTEXT, KvType::F16);
        let tokens = tokens(&whole, PROMPT);
        let want = logits_of(&whole, &tokens, PROMPT);
        for (chunk, per_pass) in [(64, 1), (64, 3), (8, 7), (16, PROMPT), (50, 128)] {
            let model = open_with(&path, chunk, KvType::F16);
            let mut session = Session::new(&model, 0).unwrap();
            let mut got = Vec::new();
            for part in tokens.chunks(per_pass) {
                session.forward(part, Logits::All).unwrap();
                (0..session.logit_rows()).for_each(|row| got.extend_from_slice(session.logits(row).unwrap()));
            }
            assert_same_bits(&got, &want, &format!("{}, chunks of {chunk}, passes of {per_pass}", stem(&path)));
            dropped += usize::from(session.fewest_tokens() > 1);
        }
        let quantized = [16, CONTEXT].map(|chunk| {
            let options = Options { context_length: CONTEXT, chunk_length: chunk, kv_type: KvType::Q8_0, ..options() };
            Model::open(&path, &options).map(|model| logits_of(&model, &tokens, 33))
        });
        match quantized {
            [Ok(short), Ok(whole)] => assert_same_bits(&short, &whole, stem(&path)),
            [Err(e), _] | [_, Err(e)] => {
                assert_eq!(e.status(), Status::Unsupported);
                assert!(e.message().contains("blocks of 32 elements"), "{e}");
            }
        }
    }
    assert!(dropped >= 15, "{dropped} sessions have dropped something");
}

/// A model that drops, a session after [`PROMPT`] tokens, and its tokens.
fn long_session() -> (Arc<Model>, Session, Vec<i32>) {
    let model = open_with(&golden("arch/gemma3.gguf"), 16, KvType::F16);
    let tokens = tokens(&model, CONTEXT as usize);
    let mut session = Session::new(&model, 0).unwrap();
    session.forward(&tokens[..PROMPT], Logits::Last).unwrap();
    (model, session, tokens)
}

#[test]
fn truncation_that_is_not_possible_changes_nothing_and_says_what_is() {
    let (model, mut session, tokens) = long_session();
    let fewest = session.fewest_tokens();
    assert!((200..PROMPT).contains(&fewest), "{fewest}");
    let before = last(&session);
    let error = session.truncate(fewest - 1).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains(&fewest.to_string()), "{error}");
    assert_eq!(session.position(), PROMPT);
    assert_same_bits(&last(&session), &before, "after the refusal");
    session.truncate(fewest).unwrap();
    session.forward(&tokens[fewest..PROMPT], Logits::Last).unwrap();
    assert_same_bits(&last(&session), &before, "after a truncation");
    session.truncate(0).unwrap();
    session.forward(&tokens[..PROMPT], Logits::Last).unwrap();
    assert_same_bits(&last(&session), &before, "from the beginning");
    drop(model);
}

#[test]
fn a_checkpoint_brings_back_what_truncation_cannot() {
    let (model, mut session, tokens) = long_session();
    let free = model.stats().used_bytes;
    let want = {
        let mut other = session.copy(0).unwrap();
        other.forward(&tokens[PROMPT..], Logits::Last).unwrap();
        last(&other)
    };
    let checkpoint = session.checkpoint().unwrap();
    assert!(checkpoint.position() == PROMPT && checkpoint.bytes() > 0);
    for _ in 0..2 {
        session.restore(&checkpoint).unwrap();
        session.forward(&tokens[..CONTEXT as usize - PROMPT], Logits::Last).unwrap();
        let later = session.checkpoint().unwrap();
        session.restore(&checkpoint).unwrap();
        assert_eq!((session.position(), session.logit_rows()), (PROMPT, 0));
        session.forward(&tokens[PROMPT..], Logits::Last).unwrap();
        assert_same_bits(&last(&session), &want, "after the checkpoint");
        assert_eq!(session.restore(&later).unwrap_err().status(), Status::InvalidArgument);
    }
    let mut other = Session::new(&model, 0).unwrap();
    assert!(other.restore(&checkpoint).unwrap_err().message().contains("another session"));
    session.truncate(0).unwrap();
    session.forward(&tokens[..PROMPT + 5], Logits::None).unwrap();
    let error = session.restore(&checkpoint).unwrap_err();
    assert!(error.message().contains("is lost"), "{error}");
    assert_eq!(session.position(), PROMPT + 5);
    drop((checkpoint, other));
    assert!(model.stats().used_bytes <= free);
}

#[test]
fn checkpoints_count_in_the_budget() {
    let path = golden("arch/gemma3.gguf");
    let mut tight = Options { context_length: CONTEXT, chunk_length: 16, ..options() };
    tight.memory_budget = plan(&path, &tight).floor_bytes;
    let model = open(&path, &tight);
    let mut session = Session::new(&model, 0).unwrap();
    session.forward(&tokens(&model, PROMPT), Logits::Last).unwrap();
    let before = last(&session);
    assert_eq!(session.checkpoint().map(|_| ()).unwrap_err().status(), Status::MemoryBudget);
    assert_same_bits(&last(&session), &before, "after the refusal");
    model.set_memory_budget(tight.memory_budget + (1 << 20)).unwrap();
    for _ in 0..50 {
        session.checkpoint().unwrap();
    }
    assert!(model.stats().peak_bytes <= model.stats().budget_bytes);
}

#[test]
fn a_session_that_has_dropped_is_saved_loaded_and_copied_with_the_same_bits() {
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let path = golden("arch/gemma3.gguf");
        let Ok(model) =
            Model::open(&path, &Options { context_length: CONTEXT, chunk_length: 16, kv_type, ..options() })
        else {
            assert_eq!(kv_type, KvType::Q8_0);
            continue;
        };
        let tokens = tokens(&model, CONTEXT as usize);
        let mut session = Session::new(&model, 0).unwrap();
        session.forward(&tokens[..PROMPT], Logits::Last).unwrap();
        let mut state = Vec::new();
        session.save_to(&mut state).unwrap();
        assert_eq!(session.state_size().unwrap(), state.len() as u64);
        let fewest = session.fewest_tokens();
        let mut others = vec![session.copy(0).unwrap(), session.copy(PROMPT as u32 + 70).unwrap()];
        for context in [0, PROMPT as u32 + 70] {
            let mut loaded = Session::new(&model, context).unwrap();
            loaded.forward(&tokens[5..20], Logits::None).unwrap();
            loaded.load_from(&state).unwrap();
            others.push(loaded);
        }
        session.forward(&tokens[PROMPT..], Logits::Last).unwrap();
        for mut other in others {
            assert_eq!((other.position(), other.fewest_tokens()), (PROMPT, fewest));
            other.forward(&tokens[PROMPT..], Logits::Last).unwrap();
            assert_same_bits(&last(&other), &last(&session), "a loaded or copied session");
        }
    }
}

#[test]
fn a_state_of_another_type_is_refused() {
    let Some(path) = small_model("golden: states of a quantised cache") else { return };
    let [quantized, half] = [KvType::Q8_0, KvType::F16].map(|kv_type| open(&path, &Options { kv_type, ..options() }));
    let sessions = [quantized, half].map(|model| {
        let mut session = Session::new(&model, 0).unwrap();
        session.forward(&tokens(&model, 5), Logits::Last).unwrap();
        session
    });
    let states = sessions.each_ref().map(|session| {
        let mut state = Vec::new();
        session.save_to(&mut state).unwrap();
        state
    });
    let [mut quantized, mut half] = sessions;
    for (session, other) in [(&mut quantized, &states[1]), (&mut half, &states[0])] {
        let before = last(session);
        let error = session.load_from(other).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.message().contains("q8_0") && error.message().contains("f16"), "{error}");
        assert_same_bits(&last(session), &before, "after the refusal");
    }
    for (session, own) in [(&mut quantized, &states[0]), (&mut half, &states[1])] {
        session.load_from(own).unwrap();
    }
}

/// Gemma 3 270M has 15 layers of 18 with a window of 512.
#[test]
fn a_long_context_of_gemma_3_takes_at_most_a_quarter_of_what_all_positions_take() {
    let Some(path) = model_file("gemma-3-270m-Q4_K_M.gguf", "golden: sequence memory of Gemma 3") else { return };
    let at = |chunk_length, kv_type| {
        plan(&path, &Options { context_length: 32768, chunk_length, kv_type, ..options() }).kv_bytes
    };
    let (windowed, whole, quantized) = (at(0, KvType::F16), at(32768, KvType::F16), at(0, KvType::Q8_0));
    println!("kv_bytes: {windowed} with windows, {whole} with all positions, {quantized} in q8_0");
    assert!(4 * windowed <= whole, "{windowed} of {whole}");
    assert!(quantized < windowed * 6 / 10);
}
