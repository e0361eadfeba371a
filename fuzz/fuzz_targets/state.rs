//! A session's file, whatever it is. Input: the file but for its two checksums, which are made right here, as they would
//! keep everything else from being looked at; with a first byte of 0 the model's fingerprint too.

#![no_main]

use std::sync::OnceLock;

use layerline::{Logits, Model, Options, Session, Status};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Where the header has its checksum, and where it ends.
const SUM: usize = 64;
const HEADER: usize = 72;

/// A session of three tokens, and its file.
fn known() -> &'static (std::path::PathBuf, Vec<u8>, std::sync::Arc<Model>) {
    static KNOWN: OnceLock<(std::path::PathBuf, Vec<u8>, std::sync::Arc<Model>)> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/golden/arch/llama.gguf");
        let options = Options { memory_budget: 64 << 20, context_length: 16, threads: 1, ..Options::default() };
        let model = Model::open(model.as_ref(), &options).expect("the small model opens");
        let path = std::env::temp_dir().join(format!("layerline-fuzz-state-{}", std::process::id()));
        let mut session = Session::new(&model, 0).expect("there is room");
        session.forward(&[1, 2, 3], Logits::Last).expect("a pass runs");
        session.save(&path).expect("the temporary folder can be written");
        let good = std::fs::read(&path).expect("it was just written");
        (path, good, model)
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&keep, rest)) = data.split_first() else { return };
    let (path, good, model) = known();
    let mut file = rest.to_vec();
    if file.len() >= HEADER {
        file[..8].copy_from_slice(&good[..8]);
        if keep == 0 {
            file[8..52].copy_from_slice(&good[8..52]);
        }
        let sum = xxh3_64(&file[..SUM]);
        file[SUM..HEADER].copy_from_slice(&sum.to_le_bytes());
        let sum = xxh3_128(&file);
        file.extend(sum.to_le_bytes());
    }
    std::fs::write(path, &file).expect("the temporary folder can be written");
    let mut session = Session::new(model, 0).expect("there is room");
    match session.load(path) {
        Ok(()) => {
            assert_eq!(session.position() as u64, u64::from_le_bytes(file[56..64].try_into().expect("eight bytes")));
            assert!(session.position() <= session.context_length());
            if session.position() < session.context_length() {
                session.forward(&[1], Logits::Last).expect("keys of any bits can be attended to");
            }
        }
        Err(e) => {
            assert_eq!(session.position(), 0);
            assert_ne!(e.status(), Status::Internal);
        }
    }
});
