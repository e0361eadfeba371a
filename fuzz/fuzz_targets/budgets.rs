//! Budgets that change, sessions that come and go, layers that are prefetched, states that are saved and loaded, in any
//! order: what is used stays within the budget, every pass gives the bits that it gives alone, and nothing waits for ever.
//!
//! Input: pairs of bytes, an operation and what it is done with.

#![no_main]

use std::sync::{Arc, OnceLock};

use layerline::weights::Io;
use layerline::{Checkpoint, Logits, Model, Options, Session, Status};
use libfuzzer_sys::fuzz_target;

/// Tokens that a session can hold.
const CONTEXT: usize = 24;
const SESSIONS: usize = 3;

struct Known {
    path: std::path::PathBuf,
    /// The logits after 1, 2, … of the tokens that every session is given.
    logits: Vec<Vec<f32>>,
    floor: u64,
    full: u64,
    layers: u32,
}

fn token(position: usize) -> i32 {
    (position * 37 % 300) as i32
}

fn options() -> Options {
    Options { context_length: CONTEXT as u32, chunk_length: 8, threads: 1, ..Options::default() }
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let path: std::path::PathBuf = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden/arch/llama.gguf").into();
        let plan = Model::plan(&path, &options()).expect("the small model has a plan");
        let model = Model::open(&path, &Options { memory_budget: 64 << 20, ..options() }).expect("the small model opens");
        let mut session = Session::new(&model, 0).expect("there is room");
        let logits = (0..CONTEXT).map(|position| {
            session.forward(&[token(position)], Logits::Last).expect("a pass runs");
            session.logits(0).expect("the pass leaves logits").to_vec()
        });
        let logits = logits.collect();
        let room = SESSIONS as u64 * plan.kv_bytes;
        Known { path, logits, floor: plan.floor_bytes, full: plan.full_bytes + room, layers: plan.layer_count }
    })
}

/// The budget may refuse, and so may what was asked for; nothing else may go wrong.
fn allowed<T>(result: layerline::Result<T>) -> Option<T> {
    result.map_err(|e| assert!(matches!(e.status(), Status::MemoryBudget | Status::InvalidArgument), "{e}")).ok()
}

struct Run {
    model: Arc<Model>,
    prefetch: bool,
    sessions: [Option<Session>; SESSIONS],
    checkpoint: Option<Checkpoint>,
    state: Vec<u8>,
}

impl Run {
    fn step(&mut self, operation: u8, value: u8) {
        let known = known();
        let which = usize::from(value) % SESSIONS;
        let amount = usize::from(value) / SESSIONS;
        let Run { model, prefetch, sessions, checkpoint, state } = self;
        match operation % 12 {
            0 => sessions[which] = allowed(Session::new(model, 0)),
            1 => sessions[which] = None,
            2 => {
                let budget = known.floor + (known.full - known.floor) * amount as u64 / 85;
                allowed(model.set_memory_budget(budget));
            }
            3 => {
                let asked = model.prefetch(amount as u32 % known.layers, 1);
                if *prefetch {
                    allowed(asked);
                } else {
                    assert_eq!(asked.expect_err("there is no loader").status(), Status::Unsupported);
                }
            }
            4 => model.poll(&mut Vec::new(), 1 + amount),
            operation => {
                let other = sessions[(which + 1) % SESSIONS].take();
                if let Some(session) = &mut sessions[which] {
                    match operation {
                        5..=7 => pass(session, 1 + amount % 12, operation == 7),
                        8 => {
                            allowed(session.truncate(amount % CONTEXT));
                        }
                        9 => *checkpoint = allowed(session.checkpoint()),
                        10 => {
                            if let Some(point) = checkpoint {
                                allowed(session.restore(point));
                            }
                        }
                        _ if amount % 2 == 0 => {
                            state.clear();
                            session.save_to(state).expect("memory can be written");
                        }
                        _ if !state.is_empty() => {
                            allowed(session.load_from(state));
                        }
                        _ => {}
                    }
                }
                sessions[(which + 1) % SESSIONS] = other;
            }
        }
    }
}

fn pass(session: &mut Session, count: usize, all: bool) {
    let from = session.position();
    let count = count.min(CONTEXT - from);
    if count == 0 {
        return;
    }
    let tokens: Vec<i32> = (from..from + count).map(token).collect();
    let logits = if all { Logits::All } else { Logits::Last };
    if allowed(session.forward(&tokens, logits)).is_none() {
        assert_eq!(session.position(), from);
        return;
    }
    let expected = &known().logits;
    for row in 0..session.logit_rows() {
        let position = if all { from + row } else { from + count - 1 };
        let found = session.logits(row).expect("there is such a row");
        assert!(found.iter().zip(&expected[position]).all(|(a, b)| a.to_bits() == b.to_bits()), "position {position}");
    }
}

fuzz_target!(|data: &[u8]| {
    let [io, prefetch, operations @ ..] = data else { return };
    let io = [Io::Auto, Io::Direct, Io::Buffered, Io::Mmap][usize::from(io % 4)];
    let known = known();
    let prefetch = prefetch % 2 == 0;
    let options = Options { memory_budget: known.floor, io, prefetch, ..options() };
    let Some(model) = Model::open(&known.path, &options).ok() else { return };
    let mut run = Run { model, prefetch, sessions: Default::default(), checkpoint: None, state: Vec::new() };
    for step in operations.chunks_exact(2).take(64) {
        run.step(step[0], step[1]);
        let stats = run.model.stats();
        assert!(stats.peak_bytes <= known.full, "{stats:?}");
    }
    // Whatever has happened, memory goes down to what the sessions need, and passes go on.
    run.sessions = Default::default();
    run.checkpoint = None;
    run.model.set_memory_budget(known.floor).expect("the floor is enough without sessions");
    let mut session = Session::new(&run.model, 0).expect("the floor has room for one session");
    assert!(run.model.stats().used_bytes <= known.floor);
    pass(&mut session, CONTEXT, true);
});
