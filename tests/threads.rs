//! What threads the library starts. A file of its own with one test, so that no other test's threads are counted.
#![cfg(target_os = "linux")]

use std::path::Path;

use layerline::model::{Logits, Model, Options};
use layerline::session::Session;

fn threads_of_this_process() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// How many threads more there are after a model was opened and has run a pass, while it is open.
fn started(options: &Options) -> usize {
    let before = threads_of_this_process();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/arch/llama.gguf");
    let model = Model::open(&path, options).unwrap();
    let opened = threads_of_this_process();
    let mut session = Session::new(&model, 0).unwrap();
    session.forward(&[1, 2, 3], Logits::Last).unwrap();
    // Without a loader it is refused, not served by a thread made for it.
    assert_eq!(model.prefetch(0, 1).is_ok(), options.prefetch && cfg!(feature = "prefetch"));
    session.forward(&[4], Logits::Last).unwrap();
    opened.max(threads_of_this_process()) - before
}

#[test]
fn threads_are_started_only_where_asked_for_and_never_without_the_feature() {
    let base = Options { memory_budget: 1 << 26, context_length: 16, ..Options::default() };
    assert_eq!(started(&Options { prefetch: false, threads: 1, ..base.clone() }), 0);
    let asked_for = started(&Options { prefetch: true, threads: 3, ..base });
    if cfg!(feature = "prefetch") {
        // Two that compute beside the caller, and the loader with its readers.
        assert!(asked_for > 3, "{asked_for} threads");
    } else {
        assert_eq!(asked_for, 0);
    }
}
