//! Models with recurrent layers: states that go on, come along and come back with the same bits.

use std::path::PathBuf;
use std::sync::Arc;

use layerline::Status;
use layerline::model::{Logits, Model, Options};
use layerline::session::Session;

use crate::support::*;

fn models() -> Vec<PathBuf> {
    let families = ["qwen35", "qwen3next", "lfm2", "mamba2", "granitehybrid", "nemotron_h", "falcon-h1", "kimi-linear"];
    let all = ["arch2", "family"].into_iter().flat_map(models_in);
    let all: Vec<PathBuf> = all.filter(|path| families.iter().any(|name| stem(path).starts_with(name))).collect();
    assert_eq!(all.len(), 27, "{all:?}");
    all
}

fn rows(session: &Session) -> Vec<f32> {
    (0..session.logit_rows()).flat_map(|row| session.logits(row).unwrap()).copied().collect()
}

fn session(model: &Arc<Model>, context: u32) -> Session {
    Session::new(model, context).unwrap_or_else(|e| panic!("{e}"))
}

/// Logits of all tokens that follow those a session holds.
fn rest(session: &mut Session, tokens: &[i32]) -> Vec<f32> {
    session.forward(&tokens[session.position()..], Logits::All).unwrap_or_else(|e| panic!("{e}"));
    rows(session)
}

#[test]
fn pieces_of_three_and_one_thread_give_the_same_bits() {
    for path in models() {
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        let want = logits_of(&open(&path, &options()), &tokens, tokens.len());
        let alone = open(&path, &Options { threads: 1, ..options() });
        assert!(alone.info().has_recurrent_memory, "{}", stem(&path));
        for step in [1, 3, tokens.len()] {
            let what = format!("{}, one thread, passes of {step}", stem(&path));
            assert_same_bits(&logits_of(&alone, &tokens, step), &want, &what);
        }
    }
}

#[test]
fn saved_loaded_and_copied_states_go_on_with_the_same_bits() {
    for path in models() {
        let model = open(&path, &Options { chunk_length: 9, ..options() });
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        for at in [0, 1, 2, 19, tokens.len() - 1] {
            let mut first = session(&model, 0);
            // Passes of several chunks and of one.
            for part in tokens[..at].chunks(14) {
                first.forward(part, Logits::Last).unwrap();
            }
            let mut state = Vec::new();
            first.save_to(&mut state).unwrap();
            assert_eq!(first.state_size().unwrap(), state.len() as u64);
            let mut others = vec![first.copy(0).unwrap(), first.copy(50).unwrap()];
            for context in [0, 50] {
                let mut loaded = session(&model, context);
                loaded.forward(&tokens[3..8], Logits::None).unwrap();
                loaded.load_from(&state).unwrap_or_else(|e| panic!("{e}"));
                others.push(loaded);
            }
            let want = rest(&mut first, &tokens);
            for mut other in others {
                let what = format!("{}, {at} tokens", stem(&path));
                assert_eq!(other.position(), at, "{what}");
                assert_same_bits(&rest(&mut other, &tokens), &want, &what);
            }
        }
    }
}

#[test]
fn a_state_cannot_be_truncated_but_to_nothing_and_a_checkpoint_brings_it_back() {
    for path in models() {
        let model = open(&path, &options());
        let tokens = Arrays::of(&path).get::<i32>("tokens");
        let name = stem(&path);
        let mut session = session(&model, 0);
        session.forward(&tokens[..21], Logits::Last).unwrap();
        let at = rows(&session);
        assert_eq!(session.fewest_tokens(), 21, "{name}");
        for fewer in [1, 20] {
            let error = session.truncate(fewer).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
            assert!(error.message().contains("checkpoint"), "{error}");
        }
        session.truncate(21).unwrap();
        assert_same_bits(&rows(&session), &at, name);
        let free = model.stats().used_bytes;
        let checkpoint = session.checkpoint().unwrap();
        assert_eq!(model.stats().used_bytes, free + checkpoint.bytes());
        assert!(2 * checkpoint.bytes() < session.memory_bytes(), "{name}: both banks are counted");
        let want = rest(&mut session, &tokens);
        for _ in 0..2 {
            session.restore(&checkpoint).unwrap();
            session.forward(&tokens[5..12], Logits::None).unwrap();
            session.restore(&checkpoint).unwrap();
            assert_same_bits(&rest(&mut session, &tokens), &want, name);
        }
        session.truncate(0).unwrap();
        session.forward(&tokens[..21], Logits::Last).unwrap();
        assert_same_bits(&rows(&session), &at, &format!("{name}, from the beginning"));
    }
}
