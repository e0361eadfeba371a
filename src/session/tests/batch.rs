//! Sessions that share sweeps: each has what it would have alone, and the weights are read once.

use std::sync::Barrier;

use super::*;
use crate::exec::memory::KvType;
use crate::session::{BatchInput, forward_batch};

const CHUNK: u32 = 16;
/// Tokens that the sessions have taken in before the batch, and that each takes in with it.
const BEFORE: [usize; 8] = [5, 0, 133, 1, 12, 60, 3, 187];
const COUNTS: [usize; 8] = [1, 3, 1, 7, 40, 2, 1, 12];

/// Options with room for so many sessions, and for the weights what a pass needs at least, or all they take.
fn options_of(path: &std::path::Path, sessions: u64, resident: bool, threads: u32) -> Options {
    let mut options = Options { context_length: 260, chunk_length: CHUNK, threads, ..Options::default() };
    let plan = Model::plan(path, &Options { memory_budget: 1, ..options.clone() }).unwrap();
    let least = if resident { plan.full_bytes } else { plan.floor_bytes };
    // Beside the sessions, results of more than one row.
    options.memory_budget = least + (sessions - 1) * plan.kv_bytes + (24 << 10);
    options
}

fn tokens_of(session: usize, count: usize) -> Vec<i32> {
    (0..count).map(|i| ((session * 71 + i * 37 + i * i) % 200) as i32).collect()
}

/// Of session `i` some ask for this, some for that.
fn outputs_of(i: usize) -> Outputs {
    let logits = [Logits::Last, Logits::All, Logits::None, Logits::Last][i % 4];
    let embeddings = [Embeddings::None, Embeddings::Last, Embeddings::Mean, Embeddings::All, Embeddings::First][i % 5];
    Outputs { logits, embeddings }
}

/// What a pass has left.
fn left(session: &Session) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    (rows(session), (0..session.embedding_rows()).map(|row| session.embeddings(row).unwrap().to_vec()).collect())
}

/// Logits and embeddings.
type Rows = (Vec<Vec<f32>>, Vec<Vec<f32>>);

/// A session after each of two passes, alone.
fn alone(model: &Arc<Model>, i: usize) -> [Rows; 2] {
    let mut session = Session::new(model, 0).unwrap();
    let all = tokens_of(i, BEFORE[i] + COUNTS[i] + 1);
    if BEFORE[i] > 0 {
        session.forward(&all[..BEFORE[i]], Logits::None).unwrap();
    }
    session.forward(&all[BEFORE[i]..BEFORE[i] + COUNTS[i]], outputs_of(i)).unwrap();
    let first = left(&session);
    session.forward(&all[BEFORE[i] + COUNTS[i]..], Logits::Last).unwrap();
    [first, left(&session)]
}

fn started(model: &Arc<Model>, count: usize) -> Vec<Session> {
    let start = |i: usize| {
        let mut session = Session::new(model, 0).unwrap();
        if BEFORE[i] > 0 {
            session.forward(&tokens_of(i, BEFORE[i]), Logits::None).unwrap();
        }
        session
    };
    (0..count).map(start).collect()
}

fn run_batch(sessions: &mut [Session], tokens: &[Vec<i32>], outputs: impl Fn(usize) -> Outputs) {
    let inputs = sessions.iter_mut().zip(tokens).enumerate();
    let mut inputs: Vec<BatchInput> =
        inputs.map(|(i, (session, tokens))| BatchInput { session, tokens, outputs: outputs(i) }).collect();
    for result in forward_batch(&mut inputs) {
        result.unwrap();
    }
}

#[test]
fn in_a_batch_each_session_has_the_bits_that_it_has_alone() {
    let names = [
        "arch/llama",
        "arch/gemma3",
        "arch/qwen3moe",
        "arch/gpt-oss",
        "arch2/deepseek2-lite-v3",
        "arch2/qwen35",
        "arch2/lfm2",
        "arch2/falcon-h1",
        "arch2/mamba2",
    ];
    for name in names {
        let path = drawn::golden(&format!("{name}.gguf"));
        for (resident, threads, count) in [(false, 1, 8), (false, 2, 5), (true, 2, 8), (true, 1, 2)] {
            let options = options_of(&path, count as u64, resident, threads);
            let model = Model::open(&path, &options).unwrap();
            let want: Vec<_> = (0..count).map(|i| alone(&model, i)).collect();
            let mut sessions = started(&model, count);
            let tokens: Vec<_> =
                (0..count).map(|i| tokens_of(i, BEFORE[i] + COUNTS[i])[BEFORE[i]..].to_vec()).collect();
            run_batch(&mut sessions, &tokens, outputs_of);
            let next: Vec<_> =
                (0..count).map(|i| vec![*tokens_of(i, BEFORE[i] + COUNTS[i] + 1).last().unwrap()]).collect();
            for (i, session) in sessions.iter().enumerate() {
                assert_eq!(session.position(), BEFORE[i] + COUNTS[i]);
                assert!(left(session) == want[i][0], "{name}, session {i} of {count}, resident: {resident}");
            }
            run_batch(&mut sessions, &next, |_| Logits::Last.into());
            for (i, session) in sessions.iter().enumerate() {
                assert!(left(session) == want[i][1], "{name}, a token later, session {i} of {count}, {resident}");
            }
            assert!(model.stats().peak_bytes <= options.memory_budget);
        }
    }
}

#[test]
fn with_a_cache_of_8_bits_too() {
    let path = drawn::golden("quant/Q4_K_M.gguf");
    let options = Options { kv_type: KvType::Q8_0, ..options_of(&path, 8, false, 2) };
    let model = Model::open(&path, &options).unwrap();
    let want: Vec<_> = (0..8).map(|i| alone(&model, i)).collect();
    let mut sessions = started(&model, 8);
    let tokens: Vec<_> = (0..8).map(|i| tokens_of(i, BEFORE[i] + COUNTS[i])[BEFORE[i]..].to_vec()).collect();
    run_batch(&mut sessions, &tokens, outputs_of);
    assert!(sessions.iter().zip(&want).all(|(session, want)| left(session) == want[0]));
}

/// A model that is read through a script, with nothing to spare.
fn scripted(name: &str, sessions: u64, change: impl Fn(&mut Options)) -> (Arc<Model>, Control) {
    let path = drawn::golden(&format!("{name}.gguf"));
    let mut options = options_of(&path, sessions, false, 2);
    change(&mut options);
    let control = Control::default();
    let script = control.clone();
    let model = Model::open_behind(&path, &options, |source| Box::new(ScriptedSource::over(&script, source))).unwrap();
    (model, control)
}

/// How often each page that was read at all was read.
fn most_reads_of_a_page(model: &Model, reads: &[Range<u64>]) -> usize {
    let schedule = model.engine().schedule();
    // Reads are of whole blocks, whose edges lie in the neighbours.
    let pages = schedule.pages[..schedule.routed_end].iter().filter(|p| p.bytes >= 8192);
    let count = |p: &crate::weights::Page| {
        let middle = p.offset + p.bytes / 2;
        reads.iter().filter(|read| read.contains(&middle)).count()
    };
    pages.map(count).max().unwrap_or(0)
}

#[test]
fn a_batch_reads_every_page_once() {
    for name in ["arch/llama", "arch/qwen3moe"] {
        let (model, control) = scripted(name, 8, |_| {});
        let mut sessions: Vec<Session> = (0..8).map(|_| Session::new(&model, 0).unwrap()).collect();
        let tokens: Vec<_> = (0..8).map(|i| tokens_of(i, 2)).collect();
        for round in 0..3 {
            model.engine().settle();
            control.take_reads();
            run_batch(&mut sessions, &tokens, |_| Logits::Last.into());
            let reads = control.take_reads();
            // In the sweep; one of the first pages perhaps once more, ahead of the next one.
            let most = most_reads_of_a_page(&model, &reads);
            assert!((1..=2).contains(&most), "{name}, batch {round}: {most}");
        }
        assert_eq!(model.stats().passes, 24);
    }
}

#[test]
fn an_input_that_cannot_run_fails_alone() {
    let (model, _) = scripted("arch/llama", 4, |_| {});
    let want: Vec<_> = (0..2).map(|i| alone(&model, i)[0].clone()).collect();
    let mut sessions = started(&model, 2);
    let (mut full, mut wrong) = (Session::new(&model, 8).unwrap(), Session::new(&model, 8).unwrap());
    let other = Model::open(&path(), &options()).unwrap();
    let mut foreign = Session::new(&other, CONTEXT).unwrap();
    let tokens: Vec<_> = (0..2).map(|i| tokens_of(i, BEFORE[i] + COUNTS[i])[BEFORE[i]..].to_vec()).collect();
    let [a, b] = &mut sessions[..] else { unreachable!() };
    let mut inputs = [
        BatchInput { session: a, tokens: &tokens[0], outputs: outputs_of(0) },
        BatchInput { session: &mut full, tokens: &[1; 9], outputs: Logits::Last.into() },
        BatchInput { session: &mut wrong, tokens: &[1, 1 << 30], outputs: Logits::Last.into() },
        BatchInput { session: &mut foreign, tokens: &[1], outputs: Logits::Last.into() },
        BatchInput { session: b, tokens: &tokens[1], outputs: outputs_of(1) },
    ];
    let status = |result: &crate::Result<()>| result.as_ref().err().map(|e| e.status());
    let results = forward_batch(&mut inputs);
    let statuses: Vec<_> = results.iter().map(status).collect();
    let invalid = Some(Status::InvalidArgument);
    assert_eq!(statuses, [None, Some(Status::ContextFull), invalid, invalid, None]);
    assert_eq!([full.position(), wrong.position(), foreign.position()], [0, 0, 0]);
    assert!(sessions.iter().zip(&want).all(|(session, want)| left(session) == *want));
}

#[test]
fn storage_that_fails_fails_all_of_a_batch_which_can_then_be_repeated() {
    for name in ["arch/gemma3", "arch2/qwen35"] {
        let (model, control) = scripted(name, 8, |_| {});
        let want: Vec<_> = (0..8).map(|i| alone(&model, i)[0].clone()).collect();
        let mut sessions = started(&model, 8);
        model.engine().settle();
        let tokens: Vec<_> = (0..8).map(|i| tokens_of(i, BEFORE[i] + COUNTS[i])[BEFORE[i]..].to_vec()).collect();
        control.fail(last_absent(&model), usize::MAX);
        let inputs = sessions.iter_mut().zip(&tokens).enumerate();
        let mut inputs: Vec<BatchInput> =
            inputs.map(|(i, (session, tokens))| BatchInput { session, tokens, outputs: outputs_of(i) }).collect();
        // Inputs without logits, alone in their sweep, would not need the head.
        for result in forward_batch(&mut inputs) {
            assert_eq!(result.unwrap_err().status(), Status::Io);
        }
        control.heal();
        for (i, session) in sessions.iter().enumerate() {
            assert_eq!(session.position(), BEFORE[i]);
        }
        run_batch(&mut sessions, &tokens, outputs_of);
        assert!(sessions.iter().zip(&want).all(|(session, want)| left(session) == *want), "{name}");
    }
}

/// Runs `first` in a thread until it stands before a read that does not come back.
fn while_blocked<R: Send>(
    model: &Arc<Model>,
    control: &Control,
    first: impl FnOnce() -> R + Send,
    meanwhile: impl FnOnce(),
) -> R {
    model.engine().settle();
    control.block_within(last_absent(model));
    std::thread::scope(|scope| {
        let first = scope.spawn(first);
        control.await_blocked(1);
        meanwhile();
        first.join().unwrap()
    })
}

fn await_waiting(model: &Model, count: usize) {
    while model.loaded().turns.waiting() < count {
        std::thread::yield_now();
    }
}

#[test]
fn passes_that_wait_share_a_sweep_and_an_interrupt_ends_its_own_alone() {
    let (model, control) = scripted("arch/llama", 4, |_| {});
    let want: Vec<_> = (0..3).map(|i| alone(&model, i)[0].clone()).collect();
    let tokens: Vec<_> = (0..4).map(|i| tokens_of(i, BEFORE[i] + COUNTS[i])[BEFORE[i]..].to_vec()).collect();
    let summed = Outputs { logits: Logits::Last, embeddings: Embeddings::Mean };
    let want_last = {
        let mut session = started(&model, 4).pop().unwrap();
        session.forward(&tokens[3], summed).unwrap();
        left(&session)
    };
    let mut sessions = started(&model, 4);
    let handle = sessions[3].interrupt_handle();
    let [first, second, third, last] = &mut sessions[..] else { unreachable!() };
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        while_blocked(
            &model,
            &control,
            || first.forward(&tokens[0], outputs_of(0)).unwrap(),
            || {
                for (i, session) in [second, third].into_iter().enumerate() {
                    let tokens = &tokens[i + 1];
                    threads.push(scope.spawn(move || session.forward(tokens, outputs_of(i + 1)).unwrap()));
                    await_waiting(&model, i + 1);
                }
                let tokens = &tokens[3];
                threads.push(scope.spawn(move || {
                    assert_eq!(last.forward(tokens, summed).unwrap_err().status(), Status::Cancelled);
                    assert_eq!(last.position(), BEFORE[3]);
                    last.forward(tokens, summed).unwrap();
                }));
                await_waiting(&model, 3);
                control.take_reads();
                control.let_pass(1);
            },
        );
        // The next sweep stands at the same page.
        control.await_blocked(1);
        assert_eq!(model.loaded().turns.waiting(), 0);
        // The last one leaves at once, though another thread runs the sweep, and waits for the next one.
        handle.raise();
        await_waiting(&model, 1);
        control.unblock();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let reads = control.take_reads();
    assert!(
        most_reads_of_a_page(&model, &reads) <= 3,
        "the end of the first sweep, one for three, and one for the last"
    );
    assert!(sessions[..3].iter().zip(&want).all(|(session, want)| left(session) == *want));
    assert!(left(&sessions[3]) == want_last);
}

/// Bytes of pages that were read, without rows of the embedding.
fn page_bytes(model: &Model, reads: &[Range<u64>]) -> u64 {
    let schedule = model.engine().schedule();
    let middles: Vec<u64> = schedule.pages[..schedule.sweep_len].iter().map(|p| p.offset + p.bytes / 2).collect();
    let of_page = |read: &&Range<u64>| middles.iter().any(|middle| read.contains(middle));
    reads.iter().filter(of_page).map(|read| read.end - read.start).sum()
}

/// Sweeps over all layers so far.
fn sweeps(model: &Model) -> u64 {
    let stats = model.stats();
    let accesses = stats.layers_resident + stats.layers_prefetched + stats.layers_stalled;
    accesses / u64::from(model.engine().schedule().layer_count)
}

/// Sweeps that `threads` sessions make which generate `steps` tokens each, bytes of pages read, and what they chose.
fn generated(shares: bool, threads: usize, steps: usize) -> (u64, u64, Vec<Vec<i32>>) {
    let (model, control) = scripted("arch/llama", threads as u64, |options| options.share_sweeps = shares);
    let mut sessions = started(&model, threads);
    // All were in the last sweep, so the first of those that are counted waits for all, however late their threads start.
    run_batch(&mut sessions, &vec![vec![1]; threads], |_| Logits::None.into());
    model.engine().settle();
    control.take_reads();
    let before = sweeps(&model);
    if shares {
        model.loaded().turns.wait_for_all();
    }
    let begin = Barrier::new(threads);
    let mut tokens = Vec::new();
    let run = |session: &mut Session| {
        let mut chosen = Vec::new();
        begin.wait();
        let mut token = 1;
        for _ in 0..steps {
            session.forward(&[token], Logits::Last).unwrap();
            let logits = session.logits(0).unwrap();
            token = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as i32;
            chosen.push(token);
        }
        session.pause();
        chosen
    };
    std::thread::scope(|scope| {
        let run = &run;
        let handles: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(move || run(session))).collect();
        tokens.extend(handles.into_iter().map(|handle| handle.join().unwrap()));
    });
    model.engine().settle();
    (sweeps(&model) - before, page_bytes(&model, &control.take_reads()), tokens)
}

#[test]
fn threads_that_generate_make_one_reading_for_each_step() {
    let (steps, threads) = (6, 4);
    let (shared, shared_bytes, tokens) = generated(true, threads, steps);
    let (apart, bytes, want) = generated(false, threads, steps);
    assert_eq!(tokens, want);
    assert_eq!(apart, (threads * steps) as u64);
    // Of the pages of a sweep some may be there from the one before.
    assert!(shared_bytes * 2 < bytes, "{shared_bytes} bytes were read, and {bytes} by each for itself");
    assert_eq!(shared, steps as u64);
}

#[cfg(feature = "prefetch")]
#[test]
fn submitted_passes_share_a_sweep() {
    let (model, control) = scripted("arch/llama", 4, |_| {});
    let want: Vec<_> = (0..4).map(|i| alone(&model, i)[0].clone()).collect();
    let sessions: Vec<_> = started(&model, 4).into_iter().map(SharedSession::new).collect();
    let submit = |i: usize| {
        let tokens = tokens_of(i, BEFORE[i] + COUNTS[i]);
        sessions[i].submit(&tokens[BEFORE[i]..], outputs_of(i)).unwrap()
    };
    model.engine().settle();
    control.block_within(last_absent(&model));
    let mut tickets = vec![submit(0)];
    control.await_blocked(1);
    tickets.extend((1..4).map(submit));
    control.take_reads();
    control.unblock();
    let mut events = Vec::new();
    while events.len() < 4 {
        model.wait(None, &mut events, 100);
    }
    assert!(events.iter().all(|event| event.failure.is_none()), "{events:?}");
    assert_eq!(events[0].ticket, tickets[0]);
    // In the shared sweep and ahead of the next one. Rows of results may take room from pages that were read ahead, which are
    // read again.
    assert!(most_reads_of_a_page(&model, &control.take_reads()) <= 3);
    for (session, want) in sessions.iter().zip(&want) {
        assert!(left(&session.read().unwrap()) == *want);
    }
}

#[test]
fn a_prompt_leaves_room_for_those_who_generate() {
    let (model, control) = scripted("arch/llama", 4, |_| {});
    let want = {
        let mut session = Session::new(&model, 0).unwrap();
        session.forward(&tokens_of(9, 100), Logits::Last).unwrap();
        left(&session)
    };
    let mut sessions = started(&model, 3);
    let mut prompt = Session::new(&model, 0).unwrap();
    let handle = prompt.interrupt_handle();
    let (first, others) = sessions.split_first_mut().unwrap();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        let mut long = None;
        while_blocked(
            &model,
            &control,
            || first.forward(&[1], Logits::Last).unwrap(),
            || {
                long = Some(scope.spawn(|| prompt.forward(&tokens_of(9, 100), Logits::Last)));
                await_waiting(&model, 1);
                for (i, session) in others.iter_mut().enumerate() {
                    threads.push(scope.spawn(move || session.forward(&[1], Logits::Last)));
                    await_waiting(&model, i + 2);
                }
                control.let_pass(1);
            },
        );
        // Nobody of them waits behind the prompt: it has what they leave of a chunk.
        control.await_blocked(1);
        assert_eq!(model.loaded().turns.waiting(), 0);
        assert_eq!(handle.progress().report().tokens_done, 0);
        control.unblock();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        long.unwrap().join().unwrap().unwrap();
    });
    assert!(left(&prompt) == want);
    let report = handle.progress().report();
    assert_eq!((report.tokens_done, report.bytes_done), (100, report.bytes));
}
