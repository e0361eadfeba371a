//! Files cut short and files with changed bytes: an error that says something, or a model that runs; nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use layerline::model::{Embeddings, Io, Logits, Model, Options};
use layerline::session::Session;
use layerline::{Error, Result, Status, gguf};

use crate::support::*;

/// A small generator (xorshift64*): the same bytes on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound
    }
}

/// A copy of a tiny model that may be broken, removed at the end.
struct Victim {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Victim {
    fn new(name: &str) -> Victim {
        Victim::of("arch/llama.gguf", name)
    }

    fn of(model: &str, name: &str) -> Victim {
        let bytes = std::fs::read(golden(model)).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.gguf", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        Victim { path, bytes }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens, runs and reads a text, in one of several ways of running that `way` chooses.
fn try_everything(path: &Path, way: u64) -> Result<()> {
    let options = Options {
        memory_budget: 32 << 20,
        context_length: 16,
        chunk_length: 4,
        threads: 1,
        // Threads are slow to start: every tenth has the loader.
        prefetch: way.is_multiple_of(10),
        io: [Io::Buffered, Io::Mmap][way as usize % 2],
        ..Options::default()
    };
    let model = Model::open(path, &options)?;
    if let Ok(tokenizer) = model.tokenizer() {
        let tokens = tokenizer.encode("Hello, 世界! <s> 123\n", true, true);
        let vocab = tokenizer.vocab_size();
        assert!(tokens.iter().all(|&t| (t as usize) < vocab), "{tokens:?} of {vocab}");
        tokenizer.decode(&tokens, true)?;
    } else {
        says_something(&model.tokenizer().err().unwrap());
    }
    let mut session = Session::new(&model, 0)?;
    session.forward(&[1, 2, 3], Embeddings::Mean)?;
    assert_eq!(session.embeddings(0)?.len(), model.info().embedding_length as usize);
    match session.forward(&[4, 5], Logits::Last) {
        Err(e) if e.status() == Status::Unsupported && e.message().contains("no output head") => return Ok(()),
        other => other?,
    }
    assert_eq!(session.logits(0)?.len(), model.info().vocab_size as usize);
    Ok(())
}

fn says_something(e: &Error) {
    assert!(!e.message().trim().is_empty(), "{:?} without a message", e.status());
}

/// What became of a broken file: an error, or `None` where it runs.
#[track_caller]
fn outcome(path: &Path, way: u64, what: &str) -> Option<Error> {
    let result = catch_unwind(AssertUnwindSafe(|| try_everything(path, way)));
    let error = result.unwrap_or_else(|_| panic!("{what}: a panic")).err()?;
    says_something(&error);
    Some(error)
}

/// Panics of the library's own threads, which no caller would see.
static BACKGROUND_PANICS: AtomicUsize = AtomicUsize::new(0);

fn watch_background_threads() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("layerline")) {
                BACKGROUND_PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(info);
        }));
    });
}

#[test]
fn a_truncated_file_is_refused_with_a_message() {
    watch_background_threads();
    let victim = Victim::new("truncated");
    assert!(outcome(&victim.path, 0, "whole").is_none(), "the whole file runs");
    let file = OpenOptions::new().write(true).open(&victim.path).unwrap();
    let length = victim.bytes.len() as u64;
    let header = header_length(&victim.bytes);
    // Half of the places in the header and directory, half in the weights; from the end, so that the file only shrinks.
    let places = (0..100).map(|i| header * i / 100).chain((0..100).map(|i| header + (length - header) * i / 100));
    for (i, place) in places.rev().enumerate() {
        file.set_len(place).unwrap();
        let what = format!("cut at {place} of {length}");
        assert!(outcome(&victim.path, i as u64, &what).is_some(), "{what}: runs");
    }
    assert_eq!(BACKGROUND_PANICS.load(Ordering::Relaxed), 0);
}

#[test]
fn changed_bytes_end_in_an_error_with_a_message_or_in_a_model_that_runs() {
    change_bytes(Victim::new("changed"), 2000);
}

#[test]
fn changed_bytes_of_other_architectures_end_so_too() {
    let attention =
        ["arch/gpt-oss", "arch/gemma3", "peer/qwen2moe", "peer/gpt2", "peer/phi3-longrope-32", "encoder/bert"];
    let recurrent = ["arch2/qwen3next-legacy", "arch2/lfm2-swa", "arch2/nemotron_h_moe-latent", "arch2/kimi-linear"];
    for model in attention.into_iter().chain(recurrent) {
        change_bytes(Victim::of(&format!("{model}.gguf"), "changed-other"), 500);
    }
}

fn change_bytes(victim: Victim, times: u64) {
    watch_background_threads();
    let file = OpenOptions::new().write(true).open(&victim.path).unwrap();
    let length = victim.bytes.len() as u64;
    let header = header_length(&victim.bytes);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut ran) = (0, 0);
    for i in 0..times {
        // Three of four in the header and directory, the others anywhere.
        let place = random.below(if i.is_multiple_of(4) { length } else { header });
        let flip = 1 + random.below(255) as u8;
        let original = victim.bytes[place as usize];
        file.write_all_at(&[original ^ flip], place).unwrap();
        match outcome(&victim.path, i, &format!("{}: byte {place} ^ {flip:#04x}", victim.path.display())) {
            Some(_) => refused += 1,
            None => ran += 1,
        }
        file.write_all_at(&[original], place).unwrap();
    }
    // Both happen, or the bytes did not go where they should.
    assert!(refused > times / 10 && ran > times / 10, "{refused} refused, {ran} ran");
    assert_eq!(BACKGROUND_PANICS.load(Ordering::Relaxed), 0);
}

/// The file with another number, of four bytes, under a key.
fn with_number(model: &str, key: &str, number: [u8; 4]) -> Error {
    let victim = Victim::of(model, "number");
    // Keys and strings are preceded by their lengths, which tells them from others that contain them.
    let name = [&(key.len() as u64).to_le_bytes()[..], key.as_bytes()].concat();
    let at = victim.bytes.windows(name.len()).position(|w| w == name).unwrap_or_else(|| panic!("{model} has no {key}"));
    let file = OpenOptions::new().write(true).open(&victim.path).unwrap();
    // The value follows its type.
    file.write_all_at(&number, (at + name.len() + 4) as u64).unwrap();
    outcome(&victim.path, 0, key).unwrap_or_else(|| panic!("{model} runs with {key} = {number:?}"))
}

#[test]
fn a_contradictory_description_is_refused_by_name_and_figure() {
    let moe = "arch/qwen3moe.gguf";
    let cases: [(&str, &str, [u8; 4], &[&str]); 18] = [
        (moe, "qwen3moe.expert_count", 7u32.to_le_bytes(), &["blk.0.ffn_gate_inp.weight", "7"]),
        (moe, "qwen3moe.expert_count", u32::MAX.to_le_bytes(), &["4294967295"]),
        (moe, "qwen3moe.expert_count", 0u32.to_le_bytes(), &["blk.0.ffn_"]),
        (moe, "qwen3moe.expert_used_count", 9u32.to_le_bytes(), &["9 of 8 experts"]),
        (moe, "qwen3moe.expert_used_count", 0u32.to_le_bytes(), &["expert_used_count"]),
        (moe, "qwen3moe.expert_feed_forward_length", 33u32.to_le_bytes(), &["ffn_gate_exps.weight", "33"]),
        (moe, "qwen3moe.attention.head_count", 3u32.to_le_bytes(), &["3 query heads"]),
        (moe, "qwen3moe.rope.dimension_count", 18u32.to_le_bytes(), &["18", "16"]),
        ("arch/gpt-oss.gguf", "gpt-oss.attention.sliding_window", 0u32.to_le_bytes(), &["sliding_window"]),
        ("arch/gemma2.gguf", "gemma2.attn_logit_softcapping", f32::NAN.to_le_bytes(), &["softcapping", "NaN"]),
        ("arch/gemma2.gguf", "gemma2.final_logit_softcapping", (-1f32).to_le_bytes(), &["softcapping", "-1"]),
        ("peer/gpt2.gguf", "gpt2.context_length", 65u32.to_le_bytes(), &["position_embd.weight", "65"]),
        ("arch2/qwen35.gguf", "qwen35.ssm.group_count", 3u32.to_le_bytes(), &["4 heads", "3 groups"]),
        ("arch2/qwen35.gguf", "qwen35.ssm.conv_kernel", 9u32.to_le_bytes(), &["9 tokens", "at most 8"]),
        ("arch2/mamba2.gguf", "mamba2.ssm.state_size", 257u32.to_le_bytes(), &["257", "at most 256"]),
        ("arch2/mamba2.gguf", "mamba2.ssm.inner_size", u32::MAX.to_le_bytes(), &["4294967295"]),
        ("arch2/kimi-linear.gguf", "kimi-linear.kda.head_dim", 17u32.to_le_bytes(), &["blk.0.", "68"]),
        ("arch/granite.gguf", "granite.block_count", 3u32.to_le_bytes(), &["blk.2.attn_norm.weight"]),
    ];
    for (model, key, number, wanted) in cases {
        let error = with_number(model, key, number);
        for part in wanted {
            assert!(error.message().contains(part), "{key}: {:?} does not say {part:?}", error.message());
        }
        assert!(matches!(error.status(), Status::Format | Status::Unsupported), "{key}: {:?}", error.status());
    }
}

#[test]
fn a_session_longer_than_the_positions_that_a_model_has_learned_is_refused() {
    let model = open(&golden("peer/gpt2.gguf"), &options());
    let error = Session::new(&model, 65).err().expect("there are 64 positions");
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("65") && error.message().contains("64"), "{}", error.message());
}

/// Where the weights begin.
fn header_length(bytes: &[u8]) -> u64 {
    gguf::read_file(&bytes, "golden").unwrap().data_offset
}
