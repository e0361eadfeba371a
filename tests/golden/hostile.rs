//! Files cut short and files with changed bytes: an error that says something, or a model that runs; nothing else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use layerline::model::{Io, Logits, Model, Options};
use layerline::session::Session;
use layerline::{Error, Result, gguf};

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

/// A copy of the tiny model that may be broken, removed at the end.
struct Victim {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Victim {
    fn new(name: &str) -> Victim {
        let bytes = std::fs::read(golden("arch/llama.gguf")).unwrap();
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
    session.forward(&[1, 2, 3], Logits::Last)?;
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
    watch_background_threads();
    let victim = Victim::new("changed");
    let file = OpenOptions::new().write(true).open(&victim.path).unwrap();
    let length = victim.bytes.len() as u64;
    let header = header_length(&victim.bytes);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut refused, mut ran) = (0, 0);
    for i in 0..2000u64 {
        // Three of four in the header and directory, the others anywhere.
        let place = random.below(if i.is_multiple_of(4) { length } else { header });
        let flip = 1 + random.below(255) as u8;
        let original = victim.bytes[place as usize];
        file.write_all_at(&[original ^ flip], place).unwrap();
        match outcome(&victim.path, i, &format!("byte {place} ^ {flip:#04x}")) {
            Some(_) => refused += 1,
            None => ran += 1,
        }
        file.write_all_at(&[original], place).unwrap();
    }
    // Both happen, or the bytes did not go where they should.
    assert!(refused > 200 && ran > 200, "{refused} refused, {ran} ran");
    assert_eq!(BACKGROUND_PANICS.load(Ordering::Relaxed), 0);
}

/// Where the weights begin.
fn header_length(bytes: &[u8]) -> u64 {
    gguf::read_file(&bytes, "golden").unwrap().data_offset
}
