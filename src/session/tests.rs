//! What sessions promise while storage stands still or fails, shown on a small model whose reads obey commands.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Session, SharedSession};
use crate::arch::Block;
use crate::error::Status;
use crate::exec::memory::Held;
use crate::model::{Embeddings, Logits, Model, Options, Outputs};
use crate::weights::testing::scripted::{Control, ScriptedSource};

#[allow(dead_code)]
#[path = "../../tests/data/drawn.rs"]
mod drawn;

const CONTEXT: u32 = 64;
const FIRST: [i32; 5] = [1, 17, 300, 42, 7];
const SECOND: [i32; 3] = [99, 5, 260];

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/golden/arch/llama.gguf"].iter().collect()
}

/// Options with which part of the model is read again in each pass.
fn options() -> Options {
    let mut options = Options { context_length: CONTEXT, threads: 2, ..Options::default() };
    let plan = Model::plan(&path(), &Options { memory_budget: 1, ..options.clone() }).unwrap();
    // Room for a second session, beside the floor's one, and for logits of a few tokens.
    options.memory_budget = plan.floor_bytes + 2 * plan.kv_bytes;
    options
}

struct Bench {
    model: Arc<Model>,
    control: Control,
    /// Has taken in [`FIRST`].
    session: Session,
    /// A byte that the next pass will have to read.
    needed: Range<u64>,
}

impl Bench {
    fn new() -> Bench {
        let control = Control::default();
        let script = control.clone();
        let model =
            Model::open_behind(&path(), &options(), |source| Box::new(ScriptedSource::over(&script, source))).unwrap();
        let mut session = Session::new(&model, CONTEXT).unwrap();
        session.forward(&FIRST, Logits::All).unwrap();
        model.engine().settle();
        Bench { needed: last_absent(&model), model, control, session }
    }
}

/// A byte in the middle of the last page of the schedule that is not in memory.
fn last_absent(model: &Model) -> Range<u64> {
    let engine = model.engine();
    let state = engine.shared().state.lock();
    let p = (0..engine.schedule().sweep_len).rev().find(|&p| state.is_absent(p)).expect("the budget streams something");
    let page = &engine.schedule().pages[p];
    let middle = page.offset + page.bytes / 2;
    middle..middle + 1
}

fn rows(session: &Session) -> Vec<Vec<f32>> {
    (0..session.logit_rows()).map(|row| session.logits(row).unwrap().to_vec()).collect()
}

/// The logits of [`FIRST`], and those of [`SECOND`] after it, when nothing disturbs them.
fn undisturbed() -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let model = Model::open(&path(), &options()).unwrap();
    let mut session = Session::new(&model, CONTEXT).unwrap();
    session.forward(&FIRST, Logits::All).unwrap();
    let first = rows(&session);
    session.forward(&SECOND, Logits::All).unwrap();
    (first, rows(&session))
}

/// The session stands after [`FIRST`] as if nothing had come since, and goes on from there.
fn assert_unharmed(session: &mut Session) {
    let (first, second) = undisturbed();
    assert_eq!(session.position(), FIRST.len());
    assert_eq!(rows(session), first);
    session.forward(&SECOND, Logits::All).unwrap();
    assert_eq!(rows(session), second);
}

/// The experts that reads touched, as (layer, expert).
fn experts_in(model: &Model, reads: &[Range<u64>]) -> std::collections::BTreeSet<(u32, usize)> {
    let schedule = model.engine().schedule();
    let mut found = std::collections::BTreeSet::new();
    for (layer, l) in model.description().layers.iter().enumerate() {
        let Some(Block::Experts(experts)) = l.feed_forward.as_ref().map(|f| &f.block) else { continue };
        for expert in 0..experts.count {
            let pages = experts.matrices(expert).into_iter().flat_map(|m| schedule.matrix(m).pages());
            let mut middles = pages.map(|p| schedule.pages[p].offset + schedule.pages[p].bytes / 2);
            if middles.any(|middle| reads.iter().any(|r| r.contains(&middle))) {
                found.insert((layer as u32, expert));
            }
        }
    }
    found
}

#[test]
fn at_the_floor_a_pass_reads_each_expert_of_its_tokens_once() {
    let path = drawn::golden("arch/qwen3moe.gguf");
    let mut options = Options { context_length: CONTEXT, threads: 2, ..Options::default() };
    options.memory_budget = Model::plan(&path, &Options { memory_budget: 1, ..options.clone() }).unwrap().floor_bytes;
    let control = Control::default();
    let script = control.clone();
    let model = Model::open_behind(&path, &options, |source| Box::new(ScriptedSource::over(&script, source))).unwrap();
    let (count, used) = model.description().experts().map(|e| (e.count, e.used)).unwrap();
    let layers = model.description().layers.len();
    let read = |tokens: &[i32]| {
        let mut session = Session::new(&model, CONTEXT).unwrap();
        model.engine().settle();
        control.take_reads();
        session.forward(tokens, Logits::None).unwrap();
        let reads = control.take_reads();
        let middle = |p: &crate::weights::Page| p.offset + p.bytes / 2;
        let routed = model.engine().schedule().sweep_len..model.engine().schedule().routed_end;
        for page in &model.engine().schedule().pages[routed] {
            assert!(reads.iter().filter(|r| r.contains(&middle(page))).count() <= 1, "a page was read twice");
        }
        experts_in(&model, &reads)
    };
    let mut all = std::collections::BTreeSet::new();
    for token in FIRST {
        let mine = read(&[token]);
        assert_eq!(mine.len(), layers * used, "{mine:?}");
        all.extend(mine.into_iter().filter(|(layer, _)| *layer == 0));
    }
    // The first token's choice in the first layer is what it would be alone; later ones see others before them.
    let together = read(&FIRST);
    assert!(together.is_superset(&read(&FIRST[..1])), "{together:?}");
    assert!(together.len() > layers * used && together.len() <= layers * count && all.len() > used, "{together:?}");
}

#[test]
fn a_profile_of_use_is_bound_to_its_model_and_changes_no_bit() {
    let path = drawn::golden("arch/qwen3moe.gguf");
    let mut options = Options { context_length: CONTEXT, threads: 2, ..Options::default() };
    let plan = Model::plan(&path, &Options { memory_budget: 1, ..options.clone() }).unwrap();
    // Room for the logits too.
    options.memory_budget = plan.floor_bytes + 2 * plan.kv_bytes;
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("profile");
    let run = |options: &Options| {
        let model = Model::open(&path, options).unwrap();
        let mut session = Session::new(&model, CONTEXT).unwrap();
        session.forward(&FIRST, Logits::All).unwrap();
        (rows(&session), model)
    };
    let (expected, model) = run(&options);
    model.save_profile(&profile).unwrap();
    let first = std::fs::read(&profile).unwrap();
    assert_eq!(first.len(), 48 + model.engine().schedule().experts.len());
    assert!(first[32..first.len() - 16].contains(&0));

    options.profile = Some(profile.clone());
    let (found, model) = run(&options);
    assert_eq!(found, expected);
    // Saved where it was, it is another one, whole.
    model.save_profile(&profile).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let refused = |path: &std::path::Path, options: &Options| Model::open(path, options).map(drop).unwrap_err();
    let whole = std::fs::read(&profile).unwrap();
    for (bytes, status) in [
        (whole[..whole.len() - 1].to_vec(), Status::Format),
        ([&whole[..], b"x"].concat(), Status::Format),
        (b"GGUF".to_vec(), Status::Format),
        (Vec::new(), Status::Format),
        (whole.iter().enumerate().map(|(i, b)| if i == 40 { b ^ 1 } else { *b }).collect(), Status::Format),
    ] {
        std::fs::write(&profile, bytes).unwrap();
        let error = refused(&path, &options);
        assert_eq!(error.status(), status);
        assert!(error.message().contains(&*profile.to_string_lossy()), "{error}");
    }
    std::fs::write(&profile, &whole).unwrap();
    // Of its kind and size, with other weights.
    let other = folder.path().join("other.gguf");
    let mut weights = std::fs::read(&path).unwrap();
    let schedule = model.engine().schedule();
    let page = &schedule.pages[schedule.sweep_len];
    let count = weights.len();
    weights[page.offset as usize..].iter_mut().step_by(7).take(count).for_each(|b| *b ^= 1);
    std::fs::write(&other, weights).unwrap();
    let error = refused(&other, &options);
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("fingerprint"), "{error}");
    let dense = drawn::golden("arch/llama.gguf");
    assert_eq!(refused(&dense, &options).status(), Status::InvalidArgument);
    options.profile = Some(folder.path().join("none"));
    assert_eq!(refused(&path, &options).status(), Status::Io);
    options.profile = None;
    let error = Model::open(&dense, &options).unwrap().save_profile(&profile).unwrap_err();
    assert_eq!(error.status(), Status::Unsupported);
    assert_eq!(std::fs::read(&profile).unwrap(), whole);
}

#[test]
fn what_undoes_a_pass_and_what_a_sampler_needs_are_counted_in_what_a_session_takes() {
    let path = drawn::golden("arch/gemma3.gguf");
    let options = Options { context_length: 400, chunk_length: 16, threads: 1, ..Options::default() };
    let plan = Model::plan(&path, &options).unwrap();
    let model = Model::open(&path, &options).unwrap();
    let mut session = Session::new(&model, 0).unwrap();
    let mut dropping = 0;
    for _ in 0..20 {
        dropping += usize::from(session.memory.may_drop(session.position(), 17));
        let undo = session.memory.snapshot_bytes(Held::Droppable, session.position());
        assert!(session.cache_bytes() + undo <= session.memory.bytes(), "{undo} bytes at {}", session.position());
        session.forward(&[5; 17], Logits::Last).unwrap();
    }
    assert!(dropping > 0);
    let candidates = crate::exec::Candidates::bytes(model.info().vocab_size as usize);
    assert!(session.memory_bytes() > session.memory.bytes() + candidates);
    assert_eq!(session.memory_bytes(), plan.kv_bytes);
    // The sampler works in that memory: the account is the same, and the sampler's own memory is none.
    let used = model.stats().used_bytes;
    let mut sampler = crate::generate::Sampler::new();
    sampler.set_temperature(1.0).unwrap();
    sampler.sample_last(&session).unwrap();
    assert_eq!(session.candidates().lock().len() as u64, candidates);
    assert_eq!(model.stats().used_bytes, used);
}

#[test]
fn embeddings_without_logits_do_not_read_the_output_head() {
    let b = Bench::new();
    let schedule = b.model.engine().schedule();
    let head = &schedule.pages[schedule.head_start..schedule.sweep_len];
    assert!(head.iter().any(|p| p.offset <= b.needed.start && b.needed.start < p.offset + p.bytes));
    // Reads are of whole blocks, whose edges lie in the neighbours.
    let middles: Vec<u64> = head.iter().map(|p| p.offset + p.bytes / 2).collect();
    let of_head = |reads: &[Range<u64>]| reads.iter().filter(|r| middles.iter().any(|m| r.contains(m))).count();
    let mut session = Session::new(&b.model, CONTEXT).unwrap();
    let mut read = |outputs: Outputs| {
        b.model.engine().settle();
        b.control.take_reads();
        session.forward(&SECOND, outputs).unwrap();
        b.control.take_reads()
    };
    for which in [Embeddings::All, Embeddings::Last, Embeddings::Mean, Embeddings::First] {
        let reads = read(which.into());
        assert!(!reads.is_empty() && of_head(&reads) == 0, "{which:?}: {reads:?}");
    }
    assert!(of_head(&read(Outputs { logits: Logits::Last, embeddings: Embeddings::Mean })) > 0);
}

#[test]
fn a_mean_has_the_same_bits_however_the_pass_is_cut_into_chunks() {
    let tokens: Vec<i32> = (0..23).map(|i| i * 37 % 300).collect();
    let mean = |chunk_length, threads| {
        let model = Model::open(&path(), &Options { chunk_length, threads, ..options() }).unwrap();
        let mut session = Session::new(&model, CONTEXT).unwrap();
        session.forward(&tokens, Embeddings::Mean).unwrap();
        let mean = session.embeddings(0).unwrap().to_vec();
        session.truncate(0).unwrap();
        session.forward(&tokens, Embeddings::All).unwrap();
        let mut sum = vec![0.0f32; mean.len()];
        for row in 0..tokens.len() {
            sum.iter_mut().zip(session.embeddings(row).unwrap()).for_each(|(sum, x)| *sum += x);
        }
        assert!(
            sum.iter().zip(&mean).all(|(sum, mean)| (sum * (1.0 / tokens.len() as f32)).to_bits() == mean.to_bits())
        );
        mean
    };
    let want = mean(23, 1);
    for (chunk, threads) in [(1, 2), (5, 1), (7, 2), (256, 2)] {
        assert_eq!(mean(chunk, threads), want, "chunks of {chunk}");
    }
}

#[test]
fn a_failing_read_fails_the_pass_and_the_session_goes_on_from_where_it_was() {
    let mut b = Bench::new();
    b.control.fail(b.needed.clone(), usize::MAX);
    let error = b.session.forward(&SECOND, Logits::All).unwrap_err();
    assert_eq!(error.status(), Status::Io);
    assert!(error.message().contains("llama.gguf"), "{}", error.message());
    assert!(b.control.failed_reads() >= 2, "the pass tried again before it failed");
    b.control.heal();
    assert_unharmed(&mut b.session);
}

/// The first chunks of the failing pass have taken the place of what its layers with a window had.
#[test]
fn a_long_pass_that_fails_late_brings_back_what_its_chunks_dropped() {
    let path = drawn::golden("arch/gemma3.gguf");
    let mut options = Options { context_length: 600, chunk_length: 16, threads: 1, ..Options::default() };
    options.memory_budget = Model::plan(&path, &Options { memory_budget: 1, ..options.clone() }).unwrap().floor_bytes;
    let control = Control::default();
    let script = control.clone();
    let model = Model::open_behind(&path, &options, |source| Box::new(ScriptedSource::over(&script, source))).unwrap();
    let tokens: Vec<i32> = (0..450).map(|i| i * 37 % 200).collect();
    // The row of a token that the last chunk alone has.
    let (last, rare) = (449, 201);
    let (mut bad, good) = (tokens.clone(), tokens);
    bad[last] = rare;
    let embedding = model.engine().schedule().matrix(model.description().embedding);
    let (_, at) = embedding.row_place(rare as usize);
    for before in [0, 150] {
        let mut session = Session::new(&model, 0).unwrap();
        if before > 0 {
            session.forward(&good[..before], Logits::Last).unwrap();
        }
        model.engine().settle();
        control.fail(at..at + 1, usize::MAX);
        assert_eq!(session.forward(&bad[before..], Logits::None).unwrap_err().status(), Status::Io);
        control.heal();
        assert_eq!(session.position(), before);
        let mut fresh = Session::new(&Model::open(&path, &options).unwrap(), 0).unwrap();
        fresh.forward(&good, Logits::Last).unwrap();
        session.forward(&good[before..], Logits::Last).unwrap();
        assert_eq!(rows(&session), rows(&fresh), "after {before} tokens");
    }
}

/// Recurrent layers have changed their states when the pass fails, in an earlier chunk or in the one that fails.
#[test]
fn a_pass_that_fails_leaves_recurrent_states_as_they_were() {
    for name in ["qwen35", "lfm2", "falcon-h1"] {
        let path = drawn::golden(&format!("arch2/{name}.gguf"));
        let mut options = Options { context_length: 200, chunk_length: 16, threads: 1, ..Options::default() };
        options.memory_budget =
            Model::plan(&path, &Options { memory_budget: 1, ..options.clone() }).unwrap().floor_bytes;
        let control = Control::default();
        let door = control.clone();
        let model =
            Model::open_behind(&path, &options, |source| Box::new(ScriptedSource::over(&door, source))).unwrap();
        let tokens: Vec<i32> = (0..150).map(|i| i * 37 % 200).collect();
        let embedding = model.engine().schedule().matrix(model.description().embedding);
        let row = |token: i32| embedding.row_place(token as usize).1;
        let end = last_absent(&model);
        // After the last layer of the first chunk, and at the first step of a later one.
        for (fails, bad) in [(end, tokens[..30].to_vec()), (row(201)..row(201) + 1, [&tokens[..90], &[201]].concat())] {
            for before in [0, 13] {
                let mut session = Session::new(&model, 0).unwrap();
                if before > 0 {
                    session.forward(&tokens[..before], Logits::Last).unwrap();
                }
                model.engine().settle();
                control.fail(fails.clone(), usize::MAX);
                assert_eq!(session.forward(&bad[before..], Logits::Last).unwrap_err().status(), Status::Io);
                control.heal();
                assert_eq!(session.position(), before);
                let mut fresh = Session::new(&Model::open(&path, &options).unwrap(), 0).unwrap();
                fresh.forward(&tokens, Logits::Last).unwrap();
                session.forward(&tokens[before..], Logits::Last).unwrap();
                assert_eq!(rows(&session), rows(&fresh), "{name} after {before} tokens");
            }
        }
    }
}

#[test]
fn a_read_that_fails_once_is_not_noticed_by_the_pass() {
    let mut b = Bench::new();
    b.control.fail(b.needed.clone(), 1);
    assert_unharmed(&mut b.session);
    assert_eq!(b.control.failed_reads(), 1);
}

// Without the loader the pass reads on its own thread, and ends when that read has returned.
#[cfg(feature = "prefetch")]
#[test]
fn a_pass_on_the_callers_thread_is_interrupted_while_storage_is_blocked() {
    let mut b = Bench::new();
    b.control.block_within(b.needed.clone());
    let interrupt = b.session.interrupt_handle();
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| b.session.forward(&SECOND, Logits::All));
        b.control.await_blocked(1);
        interrupt.raise();
        assert_eq!(pass.join().unwrap().unwrap_err().status(), Status::Cancelled);
    });
    b.control.unblock();
    assert_unharmed(&mut b.session);
}

#[cfg(feature = "prefetch")]
#[test]
fn progress_stands_where_storage_is_blocked_and_is_complete_at_the_end() {
    let mut b = Bench::new();
    let handle = b.session.interrupt_handle();
    let whole = b.model.engine().sweep_bytes();
    let report = || handle.progress().report();
    assert_eq!((report().bytes_done, report().bytes), (whole, whole));
    b.control.block_within(b.needed.clone());
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| b.session.forward(&SECOND, Logits::All));
        b.control.await_blocked(1);
        // The page that is waited for is near the end, and those before it come by and by.
        while report().bytes_done == 0 || report().bytes_done == whole {
            std::thread::yield_now();
        }
        let now = report();
        assert!(now.bytes_done < now.bytes, "{now:?}");
        assert_eq!((now.tokens_done, now.tokens), (0, SECOND.len() as u64));
        b.control.unblock();
        pass.join().unwrap().unwrap();
    });
    assert_eq!((report().bytes_done, report().tokens_done), (whole, SECOND.len() as u64));
}

#[cfg(not(feature = "prefetch"))]
#[test]
fn without_threads_passes_cannot_be_submitted() {
    let b = Bench::new();
    let shared = SharedSession::new(b.session);
    assert_eq!(shared.submit(&SECOND, Logits::Last).unwrap_err().status(), Status::Unsupported);
    let mut events = Vec::new();
    b.model.poll(&mut events, 1);
    assert!(events.is_empty());
    assert_unharmed(&mut shared.write().unwrap());
}

mod batch;
mod sourced;
mod submitted;
