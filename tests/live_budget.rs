//! A budget that goes down and up while passes run: memory goes back to the system, and no bit of the results changes.
//! A process of its own, so that what it has resident is this model's.
#![cfg(all(target_os = "linux", feature = "prefetch"))]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use layerline::model::{Logits, Model, Options};
use layerline::session::Session;

const MIB: u64 = 1 << 20;
const CONTEXT: u32 = 64;
/// Only bounds a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn small_model() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        // Past the harness, which keeps what passing tests print to itself, for `scripts/test.sh` to count.
        let _ = std::io::stderr().write_all(b"\nskipped: live budget (the model is not fetched)\n");
        return None;
    }
    Some(path)
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Logits of a prompt and of one token after it.
fn pass(session: &mut Session) -> Vec<f32> {
    session.truncate(0).unwrap();
    session.forward(&[1, 17, 300, 42, 7], Logits::Last).unwrap();
    let mut all = session.logits(0).unwrap().to_vec();
    session.forward(&[99], Logits::Last).unwrap();
    all.extend_from_slice(session.logits(0).unwrap());
    all
}

struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn memory_follows_the_budget_while_passes_go_on_with_the_same_bits() {
    let Some(path) = small_model() else { return };
    let options = Options { context_length: CONTEXT, threads: 2, memory_budget: 1, ..Options::default() };
    let plan = Model::plan(&path, &options).unwrap();
    // Beside each end, room for a second session.
    let (small, large) = (plan.floor_bytes + plan.kv_bytes, plan.full_bytes + plan.kv_bytes);
    let model = Model::open(&path, &Options { memory_budget: large, ..options }).unwrap();
    let mut session = Session::new(&model, CONTEXT).unwrap();
    let want = pass(&mut session);
    let (stop, passes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // However this ends, the passes end with it.
        let _end = Raised(&stop);
        let running = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(pass(&mut session), want);
                passes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let some_passes = || {
            let before = passes.load(Ordering::Relaxed);
            wait_until("passes go on", || running.is_finished() || passes.load(Ordering::Relaxed) >= before + 2);
        };
        let gained = large - small;
        for _ in 0..4 {
            model.set_memory_budget(large).unwrap();
            wait_until("pages fill the budget", || {
                running.is_finished() || model.stats().used_bytes + 8 * MIB > plan.full_bytes
            });
            let much = resident_bytes();
            model.set_memory_budget(small).unwrap();
            wait_until("within the budget", || model.stats().used_bytes <= small);
            // What is resident may lag behind by pages that are just being read.
            wait_until("memory goes back to the system", || resident_bytes() + gained * 3 / 4 <= much);
            some_passes();
            assert!(resident_bytes() + gained * 3 / 4 <= much);
            // A session takes its cache from the frames, and gives it back.
            let mut other = Session::new(&model, CONTEXT).unwrap();
            assert!(model.stats().used_bytes <= small);
            assert_eq!(pass(&mut other), want);
            drop(other);
            some_passes();
        }
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
    });
    assert!(model.stats().peak_bytes <= large);
}
