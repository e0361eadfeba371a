//! One result, whatever the budget, the way of reading, the loader and the number of threads.

use std::path::Path;

use layerline::Status;
use layerline::model::{Io, Logits, Model, Options};
use layerline::session::Session;

use crate::support::*;

const PROMPT: &str = "The capital of France is the city";
const STEPS: usize = 4;
const TEST: &str = "golden: same bits of the small model";

/// Logits of the prompt's positions and of [`STEPS`] greedy tokens after it. `None` where the file system has no direct
/// reads.
fn run(path: &Path, options: &Options) -> Option<Vec<f32>> {
    let model = match Model::open(path, options) {
        Ok(model) => model,
        Err(e) if options.io == Io::Direct && e.status() == Status::Unsupported => return None,
        Err(e) => panic!("{options:?}: {e}"),
    };
    let mut session = Session::new(&model, 0).unwrap();
    let prompt = model.tokenizer().unwrap().encode(PROMPT, false, true);
    assert!(prompt.len() >= 6, "{prompt:?}");
    // Logits of all positions would come out of the budget; at the floor there is room for one row.
    session.forward(&prompt, Logits::Last).unwrap_or_else(|e| panic!("{options:?}: {e}"));
    let mut all = session.logits(0).unwrap().to_vec();
    for _ in 0..STEPS {
        let next = greedy(session.logits(0).unwrap());
        session.forward(&[next], Logits::Last).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        all.extend_from_slice(session.logits(0).unwrap());
    }
    let stats = model.stats();
    assert_eq!(stats.io, options.io);
    assert!(stats.peak_bytes <= options.memory_budget, "{options:?}: {} bytes at the peak", stats.peak_bytes);
    Some(all)
}

#[test]
fn the_small_model_gives_the_same_bits_in_every_way_of_running() {
    let Some(path) = small_model(TEST) else { return };
    let base = Options { chunk_length: 16, ..options() };
    let reference = Options { io: Io::Buffered, prefetch: false, threads: 1, ..base.clone() };
    let want = run(&path, &reference).unwrap();
    let mut without_direct = false;
    // Without the feature there is no loader to switch on, and one thread.
    let loaders: &[bool] = if cfg!(feature = "prefetch") { &[true, false] } else { &[false] };
    let threads: &[u32] = if cfg!(feature = "prefetch") { &[1, 2] } else { &[1] };
    for &prefetch in loaders {
        for &threads in threads {
            for io in [Io::Direct, Io::Buffered, Io::Mmap] {
                for quarter in 0..=4 {
                    let mut options = Options { prefetch, threads, io, ..base.clone() };
                    // The loader and the threads take memory of their own, so the floor moves with them.
                    let bounds = plan(&path, &options);
                    options.memory_budget = bounds.floor_bytes + (bounds.full_bytes - bounds.floor_bytes) * quarter / 4;
                    let streamed = plan(&path, &options).streamed_bytes;
                    assert_eq!(streamed == 0, quarter == 4, "{options:?}: {streamed} bytes are streamed");
                    match run(&path, &options) {
                        Some(got) => assert_same_bits(&got, &want, &format!("{options:?}")),
                        None => without_direct = true,
                    }
                }
            }
        }
    }
    if without_direct {
        skipped(TEST, "the file system has no direct reads; the other ways were compared");
    }
}
