//! Real files, whole and damaged. An allocator with a ceiling stands guard: a damaged file must never make the reader
//! allocate more than a small multiple of the file.

use std::alloc::System;
use std::fs;

use cap::Cap;
use layerline::Status;
use layerline::gguf::{File, open_split, read_file, value_as_text};
use layerline::quant::Format;

/// All tests of this file together hold a few megabytes; an allocation above the ceiling aborts the run.
const CEILING: usize = 32 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, CEILING);

#[allow(dead_code)]
#[path = "data/drawn.rs"]
mod drawn;

fn golden(name: &str) -> Vec<u8> {
    fs::read(drawn::golden(&format!("arch/{name}.gguf"))).unwrap()
}

#[test]
fn golden_files_are_read() {
    for name in ["llama", "llama3-ropefreqs", "llama-yarn", "llama-linear-rope", "llama-mha-tied"] {
        let bytes = golden(name);
        let file = read_file(&bytes, name).unwrap();
        assert_eq!(file.metadata.get_str("general.architecture").unwrap(), Some("llama"), "{name}");
        assert_eq!(file.metadata.require_array("tokenizer.ggml.tokens").unwrap().len(), 320, "{name}");
        assert!(file.tensors.iter().all(|tensor| tensor.format == Format::F32), "{name}");
    }
}

#[test]
fn the_directory_of_a_golden_file_is_as_other_readers_have_it() {
    let (directory, _) = open_split("llama.gguf", golden("llama"), u64::MAX, |_| unreachable!("one file")).unwrap();
    assert_eq!(directory.tensors().len(), 21);
    assert_eq!(directory.metadata.entries.len(), 21);
    let embedding = directory.require_tensor("token_embd.weight", &[64, 320]).unwrap();
    assert_eq!((embedding.offset, embedding.bytes), (9152, 81920));
    assert_eq!(directory.require_tensor("output.weight", &[64, 320]).unwrap().offset, 387264);
    assert_eq!(directory.require_tensor("blk.1.attn_k.weight", &[64, 32]).unwrap().offset, 255680);
    assert_eq!(directory.file_bytes(), 469184);
    let text = |key: &str| value_as_text(directory.metadata.get(key).unwrap()).unwrap();
    assert_eq!(text("general.name"), "tiny-llama");
    assert_eq!(text("llama.rope.freq_base"), "10000");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = golden("llama");
    let mut places: Vec<usize> = (0..100).map(|i| i * 9152 / 100).collect();
    places.extend((1..=100).map(|i| bytes.len() - 1 - (i - 1) * (bytes.len() - 9152) / 100));
    assert_eq!(places.len(), 200);
    for length in places {
        let error = read_file(&bytes[..length].to_vec(), "cut.gguf").expect_err("a cut file");
        assert_eq!(error.status(), Status::Format, "cut at {length}: {error}");
        assert!(error.message().starts_with("cut.gguf: "), "cut at {length}: {error}");
    }
}

/// What must hold of whatever is accepted.
fn check(file: &File, length: usize) {
    for tensor in &file.tensors {
        assert!(tensor.offset + tensor.bytes <= length as u64);
        assert_eq!(tensor.row_bytes() * tensor.rows(), tensor.bytes);
    }
    assert!(file.metadata.memory_bytes() <= 8 * length as u64);
}

#[test]
fn a_damaged_file_is_refused_or_read_but_never_panics_or_allocates_beyond_its_size() {
    let bytes = golden("llama");
    // The directory ends where the tensors start; damage behind it is none of the reader's business.
    let head = 9152;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut refused = 0;
    let mut damaged = bytes.clone();
    for round in 0..2000 {
        let at = random() as usize % head;
        let mask = if round % 2 == 0 { 1u8 << (random() % 8) } else { (random() % 255 + 1) as u8 };
        damaged[at] ^= mask;
        match read_file(&damaged, "damaged.gguf") {
            Ok(file) => check(&file, damaged.len()),
            Err(error) => {
                assert!(matches!(error.status(), Status::Format | Status::Unsupported), "{at} ^ {mask:#x}: {error}");
                refused += 1;
            }
        }
        damaged[at] ^= mask;
    }
    assert!(refused > 100, "only {refused} of 2000 were refused");
    assert_eq!(damaged, bytes);
}
