//! Sessions saved, loaded and copied go on with the same bits; files that are not what they should be change nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use layerline::Status;
use layerline::model::{Embeddings, Logits, Model, Options, Outputs};
use layerline::session::Session;

use crate::support::*;

const TOKENS: usize = 24;

/// A folder that goes when this does.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("layerline-state-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tokens_of(model: &Model, count: usize) -> Vec<i32> {
    let vocab = model.info().vocab_size as usize;
    (0..count).map(|i| ((i * 37 + 11) % vocab) as i32).collect()
}

fn session(model: &Arc<Model>, context: u32) -> Session {
    Session::new(model, context).unwrap_or_else(|e| panic!("{e}"))
}

/// A session that has taken in some of [`tokens_of`], with logits of the last one.
fn session_at(model: &Arc<Model>, context: u32, tokens: usize) -> Session {
    let mut session = session(model, context);
    session.forward(&tokens_of(model, tokens), Logits::Last).unwrap_or_else(|e| panic!("{e}"));
    session
}

fn rows(session: &Session) -> Vec<f32> {
    (0..session.logit_rows()).flat_map(|row| session.logits(row).unwrap()).copied().collect()
}

/// Logits of all tokens that follow those a session holds.
fn rest(session: &mut Session) -> Vec<f32> {
    let tokens = tokens_of(session.model(), TOKENS);
    session.forward(&tokens[session.position()..], Logits::All).unwrap_or_else(|e| panic!("{e}"));
    rows(session)
}

/// Context lengths that models with two sets of rotations do not tell apart.
fn contexts(path: &Path) -> [u32; 3] {
    if stem(path).contains("longrope-32") { [64, 40, 48] } else { [32, 24, 48] }
}

#[test]
fn loaded_and_copied_sessions_go_on_with_the_same_bits_in_every_architecture() {
    let folder = Folder::new("bits");
    for path in models_in("arch").into_iter().chain(models_in("peer")) {
        let model = open(&path, &options());
        let [own, ..] = contexts(&path);
        for at in [1, 7, 16, TOKENS - 1] {
            let mut first = session_at(&model, own, at);
            let (last, file) = (rows(&first), folder.file("state"));
            first.save(&file).unwrap_or_else(|e| panic!("{e}"));
            let copies = contexts(&path).map(|context| first.copy(context).unwrap_or_else(|e| panic!("{e}")));
            let want = rest(&mut first);
            let loaded = contexts(&path).map(|context| {
                let mut other = session_at(&model, context, 3);
                other.load(&file).unwrap_or_else(|e| panic!("{e}"));
                other
            });
            for mut other in copies.into_iter().chain(loaded) {
                let what = format!("{}, {at} tokens, context {}", stem(&path), other.context_length());
                assert_eq!(other.position(), at, "{what}");
                assert_same_bits(&rows(&other), &last, &what);
                assert_same_bits(&rest(&mut other), &want, &what);
            }
        }
    }
    assert_eq!(folder.names(), ["state"]);
}

fn llama() -> Arc<Model> {
    open(&golden("arch/llama.gguf"), &options())
}

#[test]
fn another_opening_of_the_model_with_other_options_goes_on_with_the_same_bits() {
    let folder = Folder::new("reopened");
    let file = folder.file("state");
    let mut first = session_at(&llama(), 32, 9);
    first.save(&file).unwrap();
    let path = golden("arch/llama.gguf");
    let mut least = Options { threads: 1, chunk_length: 4, prefetch: false, ..options() };
    least.memory_budget = plan(&path, &least).floor_bytes;
    let mut other = session(&open(&path, &least), 64);
    other.load(&file).unwrap();
    // At the floor there is room for one row.
    let next = tokens_of(first.model(), 10)[9];
    first.forward(&[next], Logits::Last).unwrap();
    other.forward(&[next], Logits::Last).unwrap();
    assert_same_bits(&rows(&other), &rows(&first), "at the floor");
    assert!(other.model().stats().peak_bytes <= least.memory_budget);
}

#[test]
fn logits_come_along_only_where_the_last_pass_left_some_and_of_the_last_token_only() {
    let (folder, model) = (Folder::new("logits"), llama());
    let file = folder.file("state");
    let mut first = session(&model, 32);
    let tokens = tokens_of(&model, 8);
    let seen = |first: &Session| {
        first.save(&file).unwrap();
        let mut loaded = session_at(&model, 32, 5);
        loaded.load(&file).unwrap();
        let copy = first.copy(0).unwrap();
        assert_same_bits(&rows(&loaded), &rows(&copy), "logits");
        assert_eq!((loaded.position(), copy.position()), (first.position(), first.position()));
        rows(&loaded)
    };
    assert!(seen(&first).is_empty());
    first.forward(&tokens[..4], Logits::All).unwrap();
    assert_same_bits(&seen(&first), first.logits(3).unwrap(), "the last of four");
    first.forward(&tokens[4..6], Logits::None).unwrap();
    assert!(seen(&first).is_empty());
    first.forward(&tokens[6..], Logits::Last).unwrap();
    assert_same_bits(&seen(&first), first.logits(0).unwrap(), "the last");
    first.truncate(7).unwrap();
    assert!(seen(&first).is_empty());
}

#[test]
fn copies_live_on_their_own() {
    let mut first = session_at(&llama(), 32, 8);
    let want = rest(&mut first.copy(0).unwrap());
    let mut copy = first.copy(0).unwrap();
    first.truncate(2).unwrap();
    first.forward(&[1, 2, 3], Logits::Last).unwrap();
    let mut of_copy = copy.copy(0).unwrap();
    drop(first);
    assert_same_bits(&rest(&mut copy), &want, "the copy");
    drop(copy);
    assert_same_bits(&rest(&mut of_copy), &want, "the copy's copy");
}

#[test]
fn a_copy_that_does_not_fit_is_refused_and_takes_nothing() {
    let path = golden("arch/llama.gguf");
    let mut tight = Options { context_length: 64, threads: 1, ..options() };
    tight.memory_budget = plan(&path, &tight).floor_bytes;
    let model = open(&path, &tight);
    let mut first = session_at(&model, 64, 8);
    let refused = |first: &Session, context| first.copy(context).map(|_| ()).unwrap_err();
    assert_eq!(refused(&first, 0).status(), Status::MemoryBudget);
    let error = refused(&first, 7);
    assert_eq!(error.status(), Status::ContextFull);
    assert!(error.message().contains("8 tokens") && error.message().contains("of 7"), "{error}");
    assert_eq!(model.stats().budget_bytes, tight.memory_budget);
    model.set_memory_budget(tight.memory_budget + plan(&path, &tight).kv_bytes).unwrap();
    let tokens = tokens_of(&model, 9);
    let mut copy = first.copy(0).unwrap();
    copy.forward(&tokens[8..], Logits::Last).unwrap();
    first.forward(&tokens[8..], Logits::Last).unwrap();
    assert_same_bits(&rows(&copy), &rows(&first), "after the refusal");
    assert!(model.stats().peak_bytes <= model.stats().budget_bytes);
}

#[test]
fn copies_are_made_while_the_budget_changes() {
    let path = golden("arch/llama.gguf");
    let tight = Options { context_length: 64, threads: 1, ..options() };
    let needs = plan(&path, &tight);
    let roomy = needs.full_bytes + 2 * needs.kv_bytes;
    let model = open(&path, &Options { memory_budget: roomy, ..tight });
    let first = session_at(&model, 64, 8);
    let want = rows(&first);
    std::thread::scope(|scope| {
        let budget = scope.spawn(|| {
            for i in 0..100u64 {
                let least = needs.floor_bytes + 2 * needs.kv_bytes;
                model.set_memory_budget(least + (roomy - least) * (i % 3) / 2).unwrap();
            }
        });
        for _ in 0..100 {
            let copy = first.copy(0).unwrap_or_else(|e| panic!("{e}"));
            assert_same_bits(&rows(&copy), &want, "a copy");
        }
        budget.join().unwrap();
    });
}

/// Whatever `change` makes of a good file, loading it fails with one of `statuses`, and the session goes on as if nothing
/// had been.
struct Victim {
    folder: Folder,
    good: Vec<u8>,
    session: Session,
    logits: Vec<f32>,
}

impl Victim {
    fn new(name: &str) -> Victim {
        let (folder, model) = (Folder::new(name), llama());
        session_at(&model, 32, 2).save(&folder.file("state")).unwrap();
        let good = fs::read(folder.file("state")).unwrap();
        let session = session_at(&model, 32, 5);
        Victim { logits: rows(&session), folder, good, session }
    }

    fn refusal(&mut self, bytes: &[u8], what: &str) -> layerline::Error {
        let path = self.folder.file("state");
        fs::write(&path, bytes).unwrap();
        let error = self.session.load(&path).expect_err(what);
        assert!(error.message().starts_with(path.to_str().unwrap()), "{what}: {error}");
        assert_eq!(self.session.position(), 5, "{what}");
        assert_same_bits(&rows(&self.session), &self.logits, what);
        error
    }

    fn assert_unharmed(mut self) {
        let want = rest(&mut session_at(self.session.model(), 32, 5));
        assert_same_bits(&rest(&mut self.session), &want, "after all refusals");
    }
}

#[test]
fn a_file_cut_anywhere_or_longer_than_it_says_is_refused_and_the_session_stays() {
    let mut v = Victim::new("cut");
    let mut bytes = v.good.clone();
    bytes.push(0);
    let error = v.refusal(&bytes, "a byte more");
    assert!(error.message().contains(&v.good.len().to_string()), "{error}");
    for length in 0..v.good.len() {
        assert_eq!(v.refusal(&bytes[..length], &format!("{length} bytes")).status(), Status::Format);
    }
    v.assert_unharmed();
}

#[test]
fn a_change_of_any_byte_is_noticed_and_the_session_stays() {
    let mut v = Victim::new("changed");
    let mut bytes = v.good.clone();
    for at in 0..bytes.len() {
        for bit in [0, 7] {
            bytes[at] ^= 1 << bit;
            let error = v.refusal(&bytes, &format!("byte {at}, bit {bit}"));
            assert_eq!(error.status(), Status::Format, "byte {at}, bit {bit}: {error}");
            bytes[at] ^= 1 << bit;
        }
    }
    v.assert_unharmed();
}

/// A good header with some bytes changed and its checksum made again, as somebody would who means harm.
fn forged(good: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..64]);
    bytes[64..72].copy_from_slice(&sum.to_le_bytes());
    let end = bytes.len() - 16;
    let sum = xxhash_rust::xxh3::xxh3_128(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn forged_figures_are_refused_with_what_is_wrong() {
    let mut v = Victim::new("forged");
    let good = v.good.clone();
    assert_eq!(forged(&good, 0, &[]), good, "the form as it is described");
    let mut refused = |at: usize, with: &[u8], status: Status, word: &str| {
        let error = v.refusal(&forged(&good, at, with), word);
        assert_eq!(error.status(), status, "{error}");
        assert!(error.message().contains(word), "{error}");
    };
    refused(8, &1u32.to_le_bytes(), Status::Unsupported, "written by an older version");
    refused(8, &4u32.to_le_bytes(), Status::Unsupported, "version 4");
    refused(8, &2u32.to_le_bytes(), Status::Format, "takes");
    refused(12, &1u32.to_le_bytes(), Status::InvalidArgument, "turns keys");
    refused(16, &[1, 2, 3], Status::InvalidArgument, "fingerprint");
    for at in [32, 36, 40, 44, 48] {
        refused(at, &u32::MAX.to_le_bytes(), Status::Format, "takes");
        refused(at, &0u32.to_le_bytes(), Status::Format, "takes");
    }
    refused(52, &2u32.to_le_bytes(), Status::Format, "2 rows of logits");
    refused(52, &0u32.to_le_bytes(), Status::Format, "takes");
    refused(56, &0u64.to_le_bytes(), Status::Format, "rows of logits after 0 tokens");
    refused(56, &u64::MAX.to_le_bytes(), Status::Format, "more than 2^64");
    refused(56, &3u64.to_le_bytes(), Status::Format, "the state of 3 tokens");
    // The table of the layers: kind, type, padding, window, first position.
    for (at, with) in [(72, 3), (73, 1), (73, 3), (74, 1), (76, 1)] {
        refused(at, &[with], Status::Format, "unknown kind of memory");
    }
    refused(72, &[1, 0, 0, 0, 9, 0, 0, 0], Status::InvalidArgument, "keys and values of 9 positions");
    refused(72, &[2], Status::Format, "takes");
    refused(73, &[2], Status::Format, "takes");
    refused(80, &[1], Status::Format, "rows from position 1 on");
    v.assert_unharmed();
}

#[test]
fn too_many_tokens_for_the_context_are_refused_with_both_figures() {
    let (folder, model) = (Folder::new("full"), llama());
    let file = folder.file("state");
    session_at(&model, 32, 9).save(&file).unwrap();
    let mut other = session_at(&model, 8, 5);
    let error = other.load(&file).unwrap_err();
    assert_eq!(error.status(), Status::ContextFull);
    assert!(error.message().contains("9 tokens") && error.message().contains("of 8"), "{error}");
    assert_eq!(other.position(), 5);
}

#[test]
fn the_state_of_every_other_model_is_refused() {
    let folder = Folder::new("models");
    let models: Vec<_> = models_in("arch").into_iter().map(|path| open(&path, &options())).collect();
    for (i, model) in models.iter().enumerate() {
        let file = folder.file("state");
        session_at(model, 32, 3).save(&file).unwrap();
        for (j, other) in models.iter().enumerate() {
            let loaded = session(other, 32).load(&file);
            assert_eq!(loaded.map_err(|e| e.status()).err(), (i != j).then_some(Status::InvalidArgument), "{i} in {j}");
        }
    }
}

/// A copy of the llama model with other bytes.
fn changed_llama(folder: &Folder, change: impl FnOnce(&mut Vec<u8>)) -> Arc<Model> {
    let mut bytes = fs::read(golden("arch/llama.gguf")).unwrap();
    change(&mut bytes);
    let path = folder.file("changed.gguf");
    fs::write(&path, bytes).unwrap();
    open(&path, &options())
}

#[test]
fn a_model_with_other_weights_is_another_and_a_renamed_one_is_not() {
    let folder = Folder::new("weights");
    let file = folder.file("state");
    session_at(&llama(), 32, 3).save(&file).unwrap();
    let same = changed_llama(&folder, |_| ());
    session(&same, 32).load(&file).unwrap();
    // Its tensors are the file's last and by far largest part; the sample has the middle of each.
    let other = changed_llama(&folder, |bytes| {
        let directory = layerline::gguf::read_file(bytes, "llama").unwrap();
        let norm = directory.tensors.iter().find(|t| t.name == "blk.1.attn_norm.weight").unwrap();
        let middle = (norm.offset + norm.bytes / 2) as usize;
        bytes[middle] ^= 1;
    });
    let error = session(&other, 32).load(&file).unwrap_err();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.message().contains("fingerprint"), "{error}");
}

#[test]
fn an_encoder_remembers_nothing_and_says_so() {
    let folder = Folder::new("encoder");
    let model = open(&golden("encoder/bert.gguf"), &options());
    let mut first = session(&model, 16);
    first.forward(&tokens_of(&model, 4), Embeddings::Mean).unwrap();
    let (file, want) = (folder.file("state"), first.embeddings(0).unwrap().to_vec());
    for error in [first.save(&file).unwrap_err(), first.copy(0).map(|_| ()).unwrap_err()] {
        assert_eq!(error.status(), Status::Unsupported, "{error}");
    }
    session_at(&llama(), 32, 3).save(&file).unwrap();
    assert_eq!(first.load(&file).unwrap_err().status(), Status::Unsupported);
    assert_same_bits(first.embeddings(0).unwrap(), &want, "after all refusals");
}

#[test]
fn embeddings_stay_behind() {
    let (folder, model) = (Folder::new("embeddings"), llama());
    let file = folder.file("state");
    let mut first = session(&model, 32);
    let outputs = Outputs { logits: Logits::Last, embeddings: Embeddings::All };
    first.forward(&tokens_of(&model, 4), outputs).unwrap();
    first.save(&file).unwrap();
    let copy = first.copy(0).unwrap();
    first.load(&file).unwrap();
    for session in [&first, &copy] {
        assert_eq!((session.logit_rows(), session.embedding_rows()), (1, 0));
    }
}

#[test]
fn keys_turned_for_a_long_context_do_not_go_into_a_short_one() {
    let folder = Folder::new("rotations");
    let model = open(&golden("peer/phi3-longrope-32.gguf"), &options());
    let file = folder.file("state");
    let long = session_at(&model, 64, 5);
    long.save(&file).unwrap();
    let mut short = session_at(&model, 32, 3);
    for error in [short.load(&file).unwrap_err(), long.copy(32).map(|_| ()).unwrap_err()] {
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.message().contains("32 tokens"), "{error}");
    }
    assert_eq!(short.position(), 3);
    // Where there are no keys there is nothing to be turned.
    assert_eq!(session(&model, 64).copy(32).unwrap().context_length(), 32);
}

#[test]
fn what_cannot_be_written_or_read_is_said_and_nothing_is_left_behind() {
    let (folder, model) = (Folder::new("places"), llama());
    let mut first = session_at(&model, 32, 5);
    let want = rows(&first);
    let status = |result: layerline::Result<()>| {
        let error = result.unwrap_err();
        assert!(!error.message().is_empty());
        error.status()
    };
    let pipe = folder.file("pipe");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: a path that ends.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    fs::create_dir(folder.file("folder")).unwrap();
    let no_folder = folder.file("none").join("state");
    for path in [&pipe, &folder.file("folder"), &no_folder, Path::new(""), Path::new("/"), Path::new("/dev/null")] {
        assert_eq!(status(first.save(path)), Status::Io, "saving to {path:?}");
        assert_eq!(status(first.load(path)), Status::Io, "loading {path:?}");
    }
    assert_eq!(status(first.load(&folder.file("nothing"))), Status::Io);
    assert_eq!(folder.names(), ["folder", "pipe"]);
    assert_same_bits(&rows(&first), &want, "after all refusals");
}

#[test]
fn saving_replaces_a_file_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, model) = (Folder::new("replaced"), llama());
    let file = folder.file("state");
    session_at(&model, 32, 5).save(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    session_at(&model, 32, 6).save(&file).unwrap();
    let mut other = session(&model, 32);
    other.load(&file).unwrap();
    assert_eq!(other.position(), 6);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(folder.names(), ["state"]);
}
