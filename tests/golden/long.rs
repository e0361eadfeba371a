//! A prompt longer than the sections of attention that Llama 4 has: 8192 positions in three of four layers, and in the
//! fourth, which sees everything, another temperature from there on.

use layerline::model::{Logits, Options};
use layerline::session::Session;

use crate::support::*;

/// Positions of a section.
const SECTION: usize = 8192;

#[test]
fn logits_beyond_a_section_are_the_references_however_the_tokens_are_cut() {
    let path = golden("long/llama4.gguf");
    let mut arrays = Arrays::of(&path);
    let (tokens, want) = (arrays.get::<i32>("tokens"), arrays.get::<f32>("logits"));
    let options = Options { context_length: tokens.len() as u32, ..options() };
    let model = open(&path, &options);
    let kept = want.len() / model.info().vocab_size as usize;
    let first = tokens.len() - kept;
    assert!(first < SECTION - 8 && tokens.len() > SECTION + 8);
    let rest = |session: &mut Session, per_pass: usize| {
        let mut all = Vec::new();
        for part in tokens[session.position()..].chunks(per_pass) {
            session.forward(part, Logits::All).unwrap();
            (0..session.logit_rows()).for_each(|row| all.extend_from_slice(session.logits(row).unwrap()));
        }
        all
    };
    let mut session = Session::new(&model, 0).unwrap();
    session.forward(&tokens[..first], Logits::None).unwrap();
    let mut state = Vec::new();
    session.save_to(&mut state).unwrap();
    let got = rest(&mut session, kept);
    // The last before the border, the first after it, and all.
    let vocab = want.len() / kept;
    for rows in [SECTION - 1 - first..SECTION - first, SECTION - first..SECTION + 1 - first, 0..kept] {
        let part = rows.start * vocab..rows.end * vocab;
        let error = relative_error(&got[part.clone()], &want[part]);
        assert!(error < 1e-3, "relative error {error:.2e} at {} to {}", first + rows.start, first + rows.end);
    }
    for per_pass in [1, 3, 7] {
        session.truncate(first).unwrap();
        assert_same_bits(&rest(&mut session, per_pass), &got, &format!("{per_pass} at once"));
    }
    let floor = Options { memory_budget: plan(&path, &options).floor_bytes, threads: 1, ..options };
    let model = open(&path, &floor);
    let mut loaded = Session::new(&model, 0).unwrap();
    loaded.load_from(&state).unwrap();
    assert_same_bits(&rest(&mut loaded, 1), &got, "from a saved state, at the floor");
}
