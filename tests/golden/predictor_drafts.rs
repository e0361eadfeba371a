//! Texts that are drafted by the layer of a file that predicts further tokens, and what is refused of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use layerline::generate::{DraftModel, DraftPredictor, Generation, Sequence};
use layerline::model::{Embeddings, Logits, Model, Options, Outputs, Plan};
use layerline::session::Session;
#[cfg(feature = "constraints")]
use layerline::{Constraint, ConstraintKind};
use layerline::{Sampler, SharedBudget, Status};

use crate::drafts::{Numbers, Timeless, assert_same, generated};
use crate::predictor::{MODELS, Tiny, noise, predicting};
use crate::support::*;

/// A generation of `count` tokens for which the layer drafts up to `drafts` tokens for a pass.
fn drafted_by(predictor: &Arc<Model>, context: u32, drafts: usize, count: usize) -> Generation {
    let mut drafter = DraftPredictor::new(predictor, context).unwrap();
    drafter.set_least_chance(0.0);
    let mut generation = Generation::new();
    generation.set_max_tokens(count);
    generation.draft_with_predictor(drafter, drafts).unwrap();
    generation
}

fn plain(count: usize) -> Generation {
    let mut generation = Generation::new();
    generation.set_max_tokens(count);
    generation
}

/// The tokens that a session goes on with, and how that ended.
fn continued(
    session: &mut Timeless,
    generation: &mut Generation,
    sampler: &mut Sampler,
    prompt: &[i32],
) -> (Vec<i32>, Result<(), Status>) {
    let mut tokens = vec![];
    let on_token = |token, _: &str| {
        tokens.push(token);
        ControlFlow::Continue(())
    };
    let result = generation.run(session, &Numbers, sampler, prompt, on_token);
    (tokens, result.map(drop).map_err(|e| e.status()))
}

fn sampler(seed: u64, temperature: f32) -> Sampler {
    let mut sampler = Sampler::new();
    sampler.set_temperature(temperature).unwrap();
    sampler.set_top_p(0.95).unwrap();
    sampler.set_repeat_penalty(1.02, 16).unwrap();
    sampler.set_seed(seed);
    sampler
}

fn prompt(tiny: &Tiny, count: usize) -> Vec<i32> {
    (0..count as i32).map(|i| (i * 31 + 7) % tiny.vocab() as i32).collect()
}

/// A budget between the least one and the one at which nothing is streamed, with room for the results of drafts.
fn budget(path: &std::path::Path, options: &Options, share: u64) -> Options {
    let plan = plan(path, options);
    let results = 1 << 17;
    let memory_budget = plan.floor_bytes + (plan.full_bytes - plan.floor_bytes) / 4 * share + results;
    Options { memory_budget, ..options.clone() }
}

#[test]
#[cfg_attr(not(feature = "prefetch"), ignore = "long, and nothing in it depends on the loader")]
fn its_drafts_change_no_bit_whatever_the_sampler_and_the_budgets() {
    let (mut drafted, mut accepted) = (0, 0);
    for model in MODELS {
        for (scale, of_hidden) in [(1.0, 0.2), (0.1, 0.02)] {
            let tiny = Tiny::of(model).nearly_still(scale, of_hidden);
            let written = tiny.write("drafts");
            let wide = Options { context_length: 120, chunk_length: 16, ..light() };
            let resident = open(&written.0, &wide);
            let own = predicting(wide.clone());
            let pairs = [
                (resident.clone(), open(&written.0, &own)),
                (open(&written.0, &budget(&written.0, &wide, 1)), open(&written.0, &budget(&written.0, &own, 1))),
                (open(&written.0, &budget(&written.0, &wide, 0)), open(&written.0, &budget(&written.0, &own, 0))),
            ];
            let prompt = prompt(&tiny, 37);
            for (seed, temperature) in [(0, 0.0), (2, 0.6)] {
                let (want, _) = generated(&resident, &mut plain(40), &mut sampler(seed, temperature), &prompt);
                for (drafts, (model, predictor)) in [(3, &pairs[0]), (9, &pairs[1]), (4, &pairs[2])] {
                    let mut generation = drafted_by(predictor, 0, drafts, 40);
                    let mut sampler = sampler(seed, temperature);
                    let (got, stats) = generated(model, &mut generation, &mut sampler, &prompt);
                    let what = format!("{}, {scale}, {temperature}, {drafts} drafts", tiny.architecture);
                    assert_same(&got, &want, &what);
                    for model in [model, predictor] {
                        assert!(model.stats().peak_bytes <= model.stats().budget_bytes, "{what}");
                    }
                    (drafted, accepted) = (drafted + stats.drafted, accepted + stats.accepted);
                }
            }
        }
    }
    assert!(drafted > accepted + 500 && accepted > 500, "{accepted} of {drafted}");
}

#[test]
fn it_drafts_what_follows_from_the_hidden_states_of_all_tokens_before() {
    for model in ["glm4moe", "deepseek2-v3", "qwen35-mtp"] {
        let tiny = Tiny::of(model).nearly_still(0.3, 0.1);
        let written = tiny.write("chain");
        let options = Options { context_length: 120, chunk_length: 16, ..options() };
        let trunk = open(&written.0, &options);
        // A smaller chunk than the model's: a prompt is taken in by several passes.
        let predictor = open(&written.0, &predicting(Options { chunk_length: 8, ..options.clone() }));
        let mut generation = drafted_by(&predictor, 0, 3, 40);
        let mut session = Timeless::new(Session::new(&trunk, 0).unwrap());
        let mut text = prompt(&tiny, 37);
        let (more, end) = continued(&mut session, &mut generation, &mut sampler(3, 0.4), &text);
        end.unwrap();
        text.extend(more);

        let mut exact = Session::new(&trunk, 0).unwrap();
        exact.forward(&text, Embeddings::All).unwrap();
        let mut hidden = vec![0.0; tiny.width];
        (0..text.len()).for_each(|row| hidden.extend_from_slice(exact.embeddings(row).unwrap()));
        let outputs = Outputs { logits: Logits::Last, embeddings: Embeddings::Last };
        // What it drafts after the first tokens of the text.
        let drafts_after = |known: usize, count: usize| {
            let mut layer = Session::new(&predictor, 0).unwrap();
            for first in (0..known).step_by(8) {
                let part = first..known.min(first + 8);
                let rows = &hidden[part.start * tiny.width..part.end * tiny.width];
                layer.hidden_inputs()[..rows.len()].copy_from_slice(rows);
                layer.predict(&text[part], outputs).unwrap();
            }
            let mut drafts = vec![];
            loop {
                drafts.push(greedy(layer.logits(0).unwrap()));
                if drafts.len() == count {
                    return drafts;
                }
                let row = layer.embeddings(0).unwrap().to_vec();
                layer.hidden_inputs()[..row.len()].copy_from_slice(&row);
                layer.predict(&drafts[drafts.len() - 1..], outputs).unwrap();
            }
        };
        assert!(session.drafted.len() > 4, "{model}");
        let of_model = |(start, tokens): &(usize, Vec<i32>)| {
            let splits = 1..tokens.len();
            splits.clone().any(|known| {
                tokens[..known] == text[*start..start + known]
                    && tokens[known..] == drafts_after(start + known, tokens.len() - known)
            })
        };
        for pass in &session.drafted {
            assert!(of_model(pass), "{model}: {pass:?}");
        }
    }
}

#[test]
fn where_it_is_always_right_its_drafts_are_accepted_and_a_full_context_begins_anew() {
    let tiny = Tiny::of("glm4moe").nearly_still(0.0, 0.0);
    let written = tiny.write("right");
    let options = Options { context_length: 120, chunk_length: 16, ..options() };
    let (model, predictor) = (open(&written.0, &options), open(&written.0, &predicting(options.clone())));
    let prompt = prompt(&tiny, 40);
    let (want, _) = generated(&model, &mut plain(70), &mut Sampler::new(), &prompt);
    for context in [0, 24, 5] {
        let mut generation = drafted_by(&predictor, context, 4, 70);
        for _ in 0..2 {
            let (got, stats) = generated(&model, &mut generation, &mut Sampler::new(), &prompt);
            assert_same(&got, &want, "always right");
            assert!(stats.accepted > 25 && stats.accepted == stats.drafted, "{context}: {stats:?}");
        }
    }
}

#[test]
fn where_the_oldest_tokens_are_dropped_its_drafts_change_no_token() {
    for model in ["deepseek2-v3", "qwen35moe"] {
        let tiny = Tiny::of(model).nearly_still(0.2, 0.05);
        let written = tiny.write("dropped");
        let options = Options { context_length: 40, chunk_length: 16, ..options() };
        let trunk = open(&written.0, &options);
        let predictor = open(&written.0, &predicting(options.clone()));
        let text = |mut generation: Generation| {
            let mut session = Timeless::new(Session::new(&trunk, 0).unwrap());
            generation.set_kept_first(Some(2));
            let (text, end) = continued(&mut session, &mut generation, &mut sampler(3, 0.5), &prompt(&tiny, 12));
            end.unwrap();
            (text, generation.stats())
        };
        let ((want, plain), (got, stats)) = (text(plain(90)), text(drafted_by(&predictor, 0, 3, 90)));
        assert_eq!((got, stats.dropped), (want, plain.dropped), "{model}");
        assert!(stats.drafted > 0 && stats.dropped > 40, "{model}: {stats:?}");
    }
}

#[test]
fn a_text_that_goes_on_in_further_generations_is_the_one_without_drafts() {
    for model in ["deepseek2-v3", "qwen35moe"] {
        let tiny = Tiny::of(model).nearly_still(0.2, 0.05);
        let written = tiny.write("further");
        let options = Options { context_length: 120, chunk_length: 16, ..options() };
        let trunk = open(&written.0, &options);
        let predictor = open(&written.0, &predicting(options.clone()));
        let texts = |mut generation: Generation| {
            let mut session = Timeless::new(Session::new(&trunk, 0).unwrap());
            let (mut text, mut sampler) = (vec![], sampler(5, 0.5));
            let mut prompt = prompt(&tiny, 12);
            for turn in 0..4 {
                let (more, end) = continued(&mut session, &mut generation, &mut sampler, &prompt);
                end.unwrap();
                text.extend(more);
                // With the last token, with another in its place, or after going back.
                prompt = match turn {
                    0 => vec![*text.last().unwrap(), 3],
                    1 => vec![9, 3, 4],
                    _ => {
                        session.session.truncate(0).unwrap();
                        vec![5; 7]
                    }
                };
            }
            (text, generation.stats().drafted)
        };
        let ((want, none), (got, drafted)) = (texts(plain(15)), texts(drafted_by(&predictor, 0, 3, 15)));
        assert_eq!((got, none), (want, 0), "{model}");
        assert!(drafted > 0, "{model}");
    }
}

#[test]
fn after_a_prompt_that_was_interrupted_between_its_chunks_another_is_drafted_for() {
    for model in ["deepseek2-v3", "qwen35moe"] {
        let tiny = Tiny::of(model).nearly_still(0.2, 0.05);
        let written = tiny.write("interrupted");
        let options = Options { context_length: 120, chunk_length: 16, ..options() };
        let (trunk, predictor) = (open(&written.0, &options), open(&written.0, &predicting(options)));
        let mut session = Timeless::new(Session::new(&trunk, 0).unwrap());
        let mut generation = drafted_by(&predictor, 0, 3, 30);
        session.interrupted = true;
        let stopped = continued(&mut session, &mut generation, &mut sampler(4, 0.5), &prompt(&tiny, 53));
        assert_eq!(stopped, (vec![], Err(Status::Cancelled)), "{model}");
        assert_eq!((session.session.position(), generation.stats().tokens), (0, 0), "{model}");

        session.interrupted = false;
        let other = &prompt(&tiny, 60)[9..];
        let got = continued(&mut session, &mut generation, &mut sampler(4, 0.5), other);
        let mut alone = Timeless::new(Session::new(&trunk, 0).unwrap());
        let want = continued(&mut alone, &mut plain(30), &mut sampler(4, 0.5), other);
        assert_eq!(got, want, "{model}");
        assert!(want.1.is_ok() && generation.stats().drafted > 0, "{model}: {:?}", generation.stats());
    }
}

#[test]
fn it_shares_its_models_budget_and_drafts_nothing_without_room_for_hidden_states() {
    let tiny = Tiny::of("glm4moe").nearly_still(0.0, 0.0);
    let written = tiny.write("shared");
    let options = Options { context_length: 64, chunk_length: 16, ..options() };
    let prompt = prompt(&tiny, 9);
    let (want, _) = generated(&open(&written.0, &options), &mut plain(20), &mut Sampler::new(), &prompt);
    let floors = [options.clone(), predicting(options.clone())].map(|options| plan(&written.0, &options).floor_bytes);
    let shared = SharedBudget::new(floors[0] + floors[1] + (1 << 19));
    let of_shared = Options { shared_budget: Some(shared.clone()), ..options.clone() };
    let (model, predictor) = (open(&written.0, &of_shared), open(&written.0, &predicting(of_shared.clone())));
    let (got, stats) = generated(&model, &mut drafted_by(&predictor, 0, 3, 20), &mut Sampler::new(), &prompt);
    assert_same(&got, &want, "with a shared budget");
    assert!(stats.accepted > 0, "{stats:?}");

    // Nothing is left beside the session.
    let tight = open(&written.0, &Options { memory_budget: floors[0], ..options.clone() });
    let predictor = open(&written.0, &predicting(options));
    let (got, stats) = generated(&tight, &mut drafted_by(&predictor, 0, 3, 20), &mut Sampler::new(), &prompt);
    assert_same(&got, &want, "without room");
    assert_eq!(stats.drafted, 0);
}

#[cfg(feature = "constraints")]
#[test]
fn what_a_constraint_forces_goes_through_without_room_for_hidden_states() {
    let path = golden("arch2/glm4moe.gguf");
    let options = Options { context_length: 64, chunk_length: 16, ..options() };
    let floor = plan(&path, &options).floor_bytes;
    let predictor = open(&path, &predicting(options.clone()));
    let constrained = |model: &Arc<Model>| Constraint::new(model, ConstraintKind::Regex, "abcdefgh[0-9]{2}xyz");
    let text = |model: &Arc<Model>, mut generation: Generation| {
        generation.set_constraint(Some(&constrained(model).unwrap()));
        let (mut session, mut text) = (Session::new(model, 0).unwrap(), String::new());
        let on_token = |_, piece: &str| {
            text.push_str(piece);
            ControlFlow::Continue(())
        };
        let tokenizer = model.tokenizer().unwrap();
        generation.run(&mut session, tokenizer, &mut Sampler::new(), &[1, 40, 50], on_token).unwrap();
        (text, generation.stats().accepted)
    };
    let (want, accepted) = text(&open(&path, &options), plain(40));
    assert!(want.starts_with("abcdefgh") && accepted > 0, "{want}");
    // With room for nothing beside constraint and session, for the logits of some drafts alone, and for all.
    let mut met = [0; 3];
    let mut budget = floor;
    while met[2] == 0 {
        budget += 512;
        let tight = open(&path, &Options { memory_budget: budget, ..options.clone() });
        if constrained(&tight).is_err() {
            continue;
        }
        let Ok(mut session) = Session::new(&tight, 0) else { continue };
        match (session.begin_hidden(0), session.begin_drafts(17, 0)) {
            (false, 0) => met[0] += 1,
            (false, _) => met[1] += 1,
            (true, _) => met[2] += 1,
        }
        drop(session);
        assert_eq!(text(&tight, drafted_by(&predictor, 0, 3, 40)).0, want, "{budget}");
    }
    assert!(met.iter().all(|&met| met > 0), "{met:?}");
}

#[test]
fn opened_without_it_the_model_needs_what_it_needs_in_a_file_without_it() {
    let tiny = Tiny::of("glm4moe");
    let own = format!("blk.{}.", tiny.block);
    let of_layer =
        |(name, _, values): &(String, _, Vec<f32>)| if name.starts_with(&own) { 4 * values.len() } else { 0 };
    let bytes: usize = tiny.tensors.iter().map(of_layer).sum();
    let (with, mut without) = (tiny.write("with"), Tiny::of("glm4moe"));
    without.tensors.retain(|(name, ..)| !name.starts_with(&own));
    without.set("block_count", without.block as u32);
    without.set("nextn_predict_layers", 0u32);
    let without = without.write("without");
    let [with_plan, without_plan] = [&with, &without].map(|written| plan(&written.0, &options()));
    // Pages begin elsewhere in the file, and the fingerprint knows all of its tensors.
    let near = |figure: fn(&Plan) -> u64| figure(&with_plan).abs_diff(figure(&without_plan)) < bytes as u64 / 4;
    assert!(near(|p| p.floor_bytes) && near(|p| p.full_bytes) && near(|p| p.tables_bytes), "{with_plan:?}");
    assert_eq!(with_plan.scratch_bytes, without_plan.scratch_bytes);
    assert_eq!(with_plan.kv_bytes, without_plan.kv_bytes);
    let layer = plan(&with.0, &predicting(options()));
    assert!(layer.full_bytes < with_plan.full_bytes && layer.layer_count == 1);
    assert!(layer.unread_bytes > 0 && layer.tables_bytes < with_plan.tables_bytes);
}

#[test]
fn what_it_cannot_do_is_refused() {
    let tiny = Tiny::of("glm4moe");
    let written = tiny.write("refused");
    let (model, predictor) = (open(&written.0, &options()), open(&written.0, &predicting(options())));
    let mut session = Session::new(&predictor, 0).unwrap();
    let error = session.forward(&[1, 2], Logits::Last).unwrap_err();
    assert!(error.status() == Status::Unsupported && error.message().contains("hidden states"), "{error}");
    assert_eq!(DraftModel::new(&predictor, 0).err().unwrap().status(), Status::Unsupported);
    assert_eq!(DraftPredictor::new(&model, 0).err().unwrap().status(), Status::Unsupported);
    assert_eq!(predictor.tokenizer().err().unwrap().status(), Status::Unsupported);
    assert!(predictor.is_predictor() && !model.is_predictor());

    // One that reads hidden states of another length.
    let other = open(&golden("arch2/deepseek2-lite-v3.gguf"), &options());
    let mut session = Session::new(&other, 0).unwrap();
    let go_on = |_: i32, _: &str| ControlFlow::Continue(());
    let mut generation = drafted_by(&predictor, 0, 3, 5);
    let error = generation.run(&mut session, &Numbers, &mut Sampler::new(), &[1, 2], go_on).unwrap_err();
    let figures = error.message().contains("48") && error.message().contains("32");
    assert!(error.status() == Status::InvalidArgument && figures, "{error}");
    assert_eq!(Sequence::position(&session), 0);
}

#[test]
fn files_without_the_layer_or_with_another_shape_of_it_are_refused_by_name() {
    let refusal = |tiny: &Tiny| {
        let written = tiny.write("hostile");
        Model::open(&written.0, &predicting(options())).err().expect("the layer is opened")
    };
    for part in ["nextn.eh_proj", "nextn.enorm", "nextn.hnorm", "attn_q", "ffn_down_exps"] {
        let mut tiny = Tiny::of("glm4moe");
        let name = tiny.own(part);
        let values = tiny.take(&name).unwrap();
        let error = refusal(&tiny);
        assert!(error.status() == Status::Format && error.message().contains(&name), "{error}");
        // As many numbers, in another shape.
        let half = values.len() / 2;
        tiny.put(&name, &[2, half], values);
        let error = refusal(&tiny);
        assert!(error.status() == Status::Format && error.message().contains(&name), "{error}");
    }
    for part in ["nextn.embed_tokens", "nextn.shared_head_head", "nextn.shared_head_norm"] {
        let mut tiny = Tiny::of("glm4moe");
        tiny.put_own(part, &[tiny.width, 3], noise(1, 3 * tiny.width));
        let error = refusal(&tiny);
        assert!(error.status() == Status::Format && error.message().contains(part), "{error}");
    }
    let mut stray = Tiny::of("glm4moe");
    stray.put_own("nextn.of_tomorrow", &[32], vec![0.0; 32]);
    let error = refusal(&stray);
    assert!(error.status() == Status::Unsupported && error.message().contains("nextn.of_tomorrow"), "{error}");

    for (layers, status) in [(0, Status::Unsupported), (4, Status::Format), (u32::MAX, Status::Format)] {
        let mut tiny = Tiny::of("glm4moe");
        tiny.set("nextn_predict_layers", layers);
        let error = refusal(&tiny);
        assert!(error.status() == status && error.message().contains("predict"), "{layers}: {error}");
    }
    // The first of them would be a block without its tensors.
    let mut tiny = Tiny::of("glm4moe");
    tiny.set("nextn_predict_layers", 3u32);
    assert!(refusal(&tiny).message().contains("blk.1.nextn."), "{}", refusal(&tiny));

    let llama = Model::open(&golden("arch/llama.gguf"), &predicting(options())).err().unwrap();
    assert!(llama.message().contains("llama.nextn_predict_layers"), "{llama}");
}
