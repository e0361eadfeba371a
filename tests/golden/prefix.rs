//! What a session keeps of a conversation, and what is left when the oldest tokens are dropped, has the bits of a new session
//! that was given the same tokens: attention, sliding windows and recurrent layers.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use layerline::generate::Generation;
use layerline::model::{Logits, Model, Options};
use layerline::session::Session;
use layerline::{End, Sampler, Status};

use crate::drafts::{Numbers, Timeless};
use crate::support::*;

/// Models of every kind that remember what came before.
fn models() -> impl Iterator<Item = (PathBuf, Arc<Model>)> {
    let all = ["arch", "arch2", "peer", "family"].into_iter().flat_map(models_in);
    let open = |path: PathBuf| {
        let model = open(&path, &Options { context_length: 32, chunk_length: 4, ..light() });
        (path, model)
    };
    all.map(open).filter(|(_, model)| model.info().causal && model.info().has_head)
}

fn session(model: &Arc<Model>) -> Session {
    Session::new(model, 0).unwrap_or_else(|e| panic!("{e}"))
}

/// Tokens from the `from`-th of a row that does not repeat itself soon.
fn some(model: &Model, from: usize, count: usize) -> Vec<i32> {
    let vocab = model.info().vocab_size as usize;
    (from..from + count).map(|i| ((i * 37 + i * i / 5 + 11) % vocab) as i32).collect()
}

fn last(session: &Session) -> Vec<f32> {
    session.logits(session.logit_rows() - 1).unwrap().to_vec()
}

/// What a new session leaves after `tokens`.
fn fresh(model: &Arc<Model>, tokens: &[i32]) -> Vec<f32> {
    let mut session = session(model);
    session.forward(tokens, Logits::Last).unwrap();
    last(&session)
}

#[test]
fn a_next_turn_takes_in_its_new_tokens_and_has_the_bits_of_a_new_session() {
    let (mut kept_all, mut recurrent) = (0, 0);
    for (path, model) in models() {
        let held = some(&model, 0, 18);
        let whole = [&held[..], &some(&model, 90, 5)].concat();
        for common in [0, 1, 9, 17, 18] {
            let what = format!("{}, {common} in common", stem(&path));
            let mut next = [&held[..common], &some(&model, 60, 6)].concat();
            // Whatever the model has there, they differ.
            if common < held.len() && next[common] == held[common] {
                next[common] = (next[common] + 1) % model.info().vocab_size as i32;
            }
            let mut session = session(&model);
            session.forward(&held[..11], Logits::None).unwrap();
            session.forward(&held[11..], Logits::Last).unwrap();
            assert_eq!(session.common_prefix(&next), common, "{what}");
            let can = common == 18 || common >= session.fewest_tokens();
            let kept = session.reuse_prefix(&next).unwrap();
            assert_eq!(kept, if can { common } else { 0 }, "{what}");
            assert_eq!((session.position(), session.tokens()), (kept, Some(&next[..kept])), "{what}");
            kept_all += usize::from(kept > 0);
            recurrent += usize::from(!can);
            session.forward(&next[kept..], Logits::Last).unwrap();
            assert_same_bits(&last(&session), &fresh(&model, &next), &what);
        }
        // The same again: the logits are there, and where they are not, a token is left for a pass.
        let mut session = session(&model);
        session.forward(&held, Logits::Last).unwrap();
        assert_eq!(session.reuse_prefix(&held).unwrap(), 18);
        assert_same_bits(&last(&session), &fresh(&model, &held), "the same");
        session.forward(&whole[18..], Logits::None).unwrap();
        let kept = session.reuse_prefix(&whole).unwrap();
        assert!(kept == 22 || kept == 0 && session.model().info().has_recurrent_memory, "{kept}");
        session.forward(&whole[kept..], Logits::Last).unwrap();
        assert_same_bits(&last(&session), &fresh(&model, &whole), "after a pass without logits");
        assert_eq!(session.reuse_prefix(&[]).unwrap(), 0);
    }
    assert!(kept_all > 100 && recurrent > 20, "{kept_all} and {recurrent}");
}

#[test]
fn copies_checkpoints_states_and_failed_passes_keep_tokens_and_position_together() {
    let model = open(&golden("arch/gemma3.gguf"), &Options { context_length: 32, chunk_length: 4, ..options() });
    let tokens = some(&model, 0, 30);
    let mut session = session(&model);
    session.forward(&tokens[..9], Logits::Last).unwrap();
    let point = session.checkpoint().unwrap();
    session.forward(&tokens[9..20], Logits::Last).unwrap();
    let copy = session.copy(0).unwrap();
    let mut state = Vec::new();
    session.save_to(&mut state).unwrap();
    assert_eq!(state.len() as u64, session.state_size().unwrap());
    session.interrupt_handle().raise();
    assert_eq!(session.forward(&tokens[20..30], Logits::Last).unwrap_err().status(), Status::Cancelled);
    assert_eq!(session.tokens(), Some(&tokens[..20]));
    session.restore(&point).unwrap();
    assert_eq!(session.tokens(), Some(&tokens[..9]));
    session.forward(&[1, 2], Logits::Last).unwrap();
    assert_eq!(session.tokens().map(|own| &own[9..]), Some(&[1, 2][..]));
    session.load_from(&state).unwrap();
    for other in [&session, &copy] {
        assert_eq!((other.position(), other.tokens()), (20, Some(&tokens[..20])));
    }
}

/// A state as releases before tokens were in it wrote it, and one with another token.
fn older_and_forged(state: &[u8], layers: usize, tokens: usize) -> [Vec<u8>; 2] {
    let table = 72 + 16 * layers;
    let sealed = |mut bytes: Vec<u8>| {
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..64]);
        bytes[64..72].copy_from_slice(&sum.to_le_bytes());
        let end = bytes.len() - 16;
        let sum = xxhash_rust::xxh3::xxh3_128(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    let mut older = [&state[..table], &state[table + 4 * tokens..]].concat();
    older[8] = 2;
    let mut forged = state.to_vec();
    forged[table + 4..table + 8].copy_from_slice(&(-1i32).to_le_bytes());
    [sealed(older), sealed(forged)]
}

#[test]
fn a_state_of_the_form_without_tokens_is_loaded_and_its_tokens_are_unknown() {
    let model = open(&golden("arch/llama.gguf"), &options());
    let tokens = some(&model, 0, 12);
    let mut session = session(&model);
    session.forward(&tokens, Logits::Last).unwrap();
    let want = last(&session);
    let mut state = Vec::new();
    session.save_to(&mut state).unwrap();
    let [older, forged] = older_and_forged(&state, model.info().layer_count as usize, 12);
    let error = session.load_from(&forged).unwrap_err();
    assert_eq!(error.status(), Status::Format);
    assert!(error.message().contains("token -1"), "{error}");
    assert_eq!(session.tokens(), Some(&tokens[..]));

    session.load_from(&older).unwrap();
    assert_eq!((session.position(), session.tokens()), (12, None));
    assert_same_bits(&last(&session), &want, "the older form");
    let mut again = Vec::new();
    session.save_to(&mut again).unwrap();
    assert_eq!(again, older);
    // Neither a pass nor going back makes them known; a copy knows as little.
    session.forward(&[1], Logits::Last).unwrap();
    session.truncate(5).unwrap();
    assert_eq!((session.tokens(), session.common_prefix(&tokens)), (None, 0));
    assert_eq!(session.copy(0).unwrap().tokens(), None);
    // An empty session knows them again.
    assert_eq!(session.reuse_prefix(&tokens).unwrap(), 0);
    session.forward(&tokens, Logits::Last).unwrap();
    assert_eq!(session.reuse_prefix(&tokens).unwrap(), 12);
    session.load_from(&state).unwrap();
    assert_eq!(session.tokens(), Some(&tokens[..]));
}

/// The greedy text after `held` in a context of `context`, and what is left; a new session takes in what a drop leaves.
fn simulated(
    model: &Arc<Model>,
    mut held: Vec<i32>,
    context: usize,
    keep: usize,
    count: usize,
) -> (Vec<i32>, Vec<i32>) {
    let mut text = Vec::new();
    let vocab = model.info().vocab_size as usize;
    let mut of_held = session(model);
    let mut taken = 0;
    while text.len() < count {
        if let Some(&token) = text.last() {
            if held.len() == context {
                let dropped = ((context - keep) / 2).max(1);
                held.drain(keep..keep + dropped);
                (of_held, taken) = (session(model), 0);
            }
            held.push(token);
        }
        of_held.forward(&held[taken..], Logits::Last).unwrap();
        taken = held.len();
        let logits = last(&of_held);
        let best = (0..vocab).fold(0, |best, at| if logits[at] > logits[best] { at } else { best });
        text.push(best as i32);
    }
    (text, held)
}

#[test]
fn dropping_the_oldest_leaves_the_bits_of_a_session_that_was_given_the_rest() {
    for (path, model) in models() {
        for (keep, drafts) in [(0, 0), (3, 0), (3, 5), (14, 0)] {
            let what = format!("{}, {keep} kept, {drafts} drafts", stem(&path));
            let prompt = some(&model, 0, 9);
            let mut session = Timeless::new(Session::new(&model, 16).unwrap());
            let mut generation = Generation::new();
            generation.set_max_tokens(22);
            generation.set_kept_first(Some(keep));
            if drafts > 0 {
                generation.draft_from_text(drafts).unwrap();
            }
            let mut text = Vec::new();
            let keeping = |token, _: &str| {
                text.push(token);
                ControlFlow::Continue(())
            };
            generation.run(&mut session, &Numbers, &mut Sampler::new(), &prompt, keeping).unwrap();
            let (want, held) = simulated(&model, prompt, 16, keep, 22);
            let session = session.session;
            assert_eq!((&text, session.tokens()), (&want, Some(&held[..])), "{what}");
            assert_same_bits(&last(&session), &fresh(&model, &held), &what);
            let stats = generation.stats();
            assert_eq!(stats.dropped as usize + held.len(), 9 + 21, "{what}");
            assert!(stats.dropped > 0 && stats.end == End::Length, "{what}");
        }
    }
}

#[test]
fn a_prompt_that_does_not_fit_drops_what_is_oldest_or_is_refused() {
    let model = open(&golden("arch/llama.gguf"), &options());
    let mut generation = Generation::new();
    generation.set_max_tokens(1);
    generation.set_kept_first(Some(2));
    let run = |generation: &mut Generation, session: &mut Session, prompt: &[i32]| {
        generation.run(session, &Numbers, &mut Sampler::new(), prompt, |_, _| ControlFlow::Continue(()))
    };
    let mut session = Session::new(&model, 16).unwrap();
    let (first, second) = (some(&model, 0, 12), some(&model, 40, 12));
    run(&mut generation, &mut session, &first).unwrap();
    run(&mut generation, &mut session, &second).unwrap();
    // Four fit, so eight are to go: more than half of the ten that may.
    let held = [&first[..2], &first[10..], &second].concat();
    assert_eq!((session.tokens(), generation.stats().dropped), (Some(&held[..]), 8));
    assert_same_bits(&last(&session), &fresh(&model, &held), "two turns");

    let long = some(&model, 7, 15);
    for kept in [Some(2), None] {
        generation.set_kept_first(kept);
        let error = run(&mut generation, &mut session, &long).unwrap_err();
        assert_eq!((error.status(), generation.stats().end), (Status::ContextFull, End::Context), "{error}");
        assert_eq!(session.tokens(), Some(&held[..]));
    }
    // Without the policy a text that fills the context ends there, and says why.
    generation.set_max_tokens(100);
    session.truncate(0).unwrap();
    let error = run(&mut generation, &mut session, &first).unwrap_err();
    assert_eq!((error.status(), generation.stats().end), (Status::ContextFull, End::Context));
    assert_eq!((session.position(), generation.stats().tokens), (16, 5));
}
