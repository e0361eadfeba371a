//! Models read from storage of the host's own, which fails, shortens and blocks on command.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Weak};

use super::*;
use crate::error::{Error, Result};
use crate::model::{Adapter, HostSource, Io};
use crate::weights::source::{self, Source};

/// What a source answers in place of what it has read.
type Answer = Box<dyn Fn(usize) -> io::Result<usize> + Send>;

/// A file of the golden models, read for the host.
struct Hosted {
    name: String,
    content: ScriptedSource,
    answer: Mutex<Option<Answer>>,
    /// Reads that are under way, and the most that ever were.
    at_once: [AtomicUsize; 2],
}

impl Hosted {
    fn new(name: &str, path: &std::path::Path, control: &Control) -> Arc<Hosted> {
        let content = ScriptedSource::over(control, Box::new(source::open_path(path).unwrap()));
        Arc::new(Hosted { name: name.into(), content, answer: Mutex::default(), at_once: Default::default() })
    }

    fn answers(&self, answer: impl Fn(usize) -> io::Result<usize> + Send + 'static) {
        *self.answer.lock().unwrap() = Some(Box::new(answer));
    }
}

impl HostSource for Hosted {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.content.end()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!buf.is_empty() && offset + buf.len() as u64 <= self.size(), "{} bytes at {offset}", buf.len());
        let [now, most] = &self.at_once;
        most.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        let read = self.content.read_at(offset, buf);
        now.fetch_sub(1, Ordering::SeqCst);
        match &*self.answer.lock().unwrap() {
            Some(answer) => read.and_then(answer),
            None => read,
        }
    }
}

fn hosted() -> (Arc<Hosted>, Control) {
    let control = Control::default();
    (Hosted::new("tiny.gguf", &path(), &control), control)
}

fn open_with(source: &Arc<Hosted>, options: &Options) -> Result<Arc<Model>> {
    let source: Arc<dyn HostSource> = source.clone();
    Model::open_source(&[source], options)
}

/// A model of which part is read again in each pass, and a session that has taken in [`FIRST`].
fn open(source: &Arc<Hosted>) -> (Arc<Model>, Session) {
    let model = open_with(source, &options()).unwrap();
    let mut session = Session::new(&model, CONTEXT).unwrap();
    session.forward(&FIRST, Logits::All).unwrap();
    model.engine().settle();
    (model, session)
}

fn assert_says(error: &Error, status: Status, parts: &[&str]) {
    assert_eq!(error.status(), status, "{error}");
    assert!(parts.iter().all(|part| error.message().contains(part)), "{error}");
}

#[test]
fn a_host_source_gives_the_bits_of_the_file_at_every_budget() {
    let expected = undisturbed();
    let plan = Model::plan(&path(), &options()).unwrap();
    let (source, control) = hosted();
    let planned: Arc<dyn HostSource> = source.clone();
    assert_eq!(Model::plan_source(&[planned], &options()).unwrap(), plan);
    for (budget, prefetch, most) in [
        (plan.floor_bytes + 2 * plan.kv_bytes, true, 4096),
        (plan.floor_bytes + 2 * plan.kv_bytes, false, usize::MAX),
        ((plan.floor_bytes + plan.full_bytes) / 2 + 2 * plan.kv_bytes, true, 1000),
        (plan.full_bytes + 2 * plan.kv_bytes, true, usize::MAX),
        (plan.full_bytes + 2 * plan.kv_bytes, false, 333),
    ] {
        control.shorten(most);
        let model = open_with(&source, &Options { memory_budget: budget, prefetch, ..options() }).unwrap();
        let mut session = Session::new(&model, CONTEXT).unwrap();
        session.forward(&FIRST, Logits::All).unwrap();
        assert_eq!(rows(&session), expected.0, "{budget} bytes, prefetch {prefetch}, reads of {most}");
        session.forward(&SECOND, Logits::All).unwrap();
        assert_eq!(rows(&session), expected.1, "{budget} bytes, prefetch {prefetch}, reads of {most}");
        let stats = model.stats();
        assert_eq!(stats.io, Io::Source);
        assert!(stats.read_bytes > 0 && stats.peak_bytes <= budget, "{stats:?}");
    }
}

#[test]
fn a_source_that_fails_is_asked_once_more_and_then_ends_the_pass() {
    let (source, control) = hosted();
    let (model, mut session) = open(&source);
    let needed = last_absent(&model);
    control.fail(needed.clone(), 1);
    session.forward(&SECOND, Logits::All).unwrap();
    assert_eq!((control.failed_reads(), rows(&session)), (1, undisturbed().1));
    session.truncate(0).unwrap();
    session.forward(&FIRST, Logits::All).unwrap();
    model.engine().settle();

    control.fail(last_absent(&model), usize::MAX);
    let error = session.forward(&SECOND, Logits::All).unwrap_err();
    assert_says(&error, Status::Io, &["tiny.gguf", ".weight: row", "bytes at offset", "os error 5"]);
    control.heal();
    assert_unharmed(&mut session);
}

#[test]
fn a_source_that_ends_early_or_claims_more_than_was_asked_ends_the_pass() {
    let (source, _) = hosted();
    let (_, mut session) = open(&source);
    source.answers(|_| Ok(0));
    let error = session.forward(&SECOND, Logits::All).unwrap_err();
    assert_says(&error, Status::Io, &["tiny.gguf", ".weight: row", "gives nothing at", "its size is", "wanted"]);
    source.answers(|read| Ok(read + 1));
    let error = session.forward(&SECOND, Logits::All).unwrap_err();
    assert_says(&error, Status::Io, &["tiny.gguf", ".weight: row", "it has read", "were asked for"]);
    let error = open_with(&source, &options()).map(drop).unwrap_err();
    assert_says(&error, Status::Io, &["tiny.gguf", "it has read"]);
    *source.answer.lock().unwrap() = None;
    assert_unharmed(&mut session);
}

#[test]
fn an_interrupt_ends_a_pass_while_the_source_blocks() {
    let (source, control) = hosted();
    let (model, mut session) = open(&source);
    control.block_within(last_absent(&model));
    let interrupt = session.interrupt_handle();
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| session.forward(&SECOND, Logits::All));
        control.await_blocked(1);
        interrupt.raise();
        assert_eq!(pass.join().unwrap().unwrap_err().status(), Status::Cancelled);
    });
    control.unblock();
    assert_unharmed(&mut session);
}

#[test]
fn several_readers_are_in_a_source_at_once() {
    let (source, control) = hosted();
    control.shorten(4096);
    let (_, mut session) = open(&source);
    control.block();
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| session.forward(&SECOND, Logits::All));
        control.await_blocked(2);
        control.unblock();
        pass.join().unwrap().unwrap();
    });
    assert!(source.at_once[1].load(Ordering::SeqCst) >= 2);
    assert_eq!(rows(&session), undisturbed().1);
}

#[test]
fn closing_leaves_a_blocked_read_behind_and_the_source_goes_after_it() {
    let (source, control) = hosted();
    let needed = last_absent(&open(&source).0);
    control.block_within(needed);
    let model = open_with(&source, &Options { memory_budget: 0, ..options() }).unwrap();
    let session = Session::new(&model, CONTEXT).unwrap();
    control.await_blocked(1);
    let gone = Arc::downgrade(&source);
    drop(source);
    drop(session);
    drop(model);
    assert!(gone.strong_count() > 0, "a read that is under way has its source");
    control.unblock();
    await_gone(&gone);
}

#[test]
fn a_source_is_dropped_with_the_last_session_of_its_model() {
    let (source, _) = hosted();
    let (model, mut session) = open(&source);
    let gone = Arc::downgrade(&source);
    drop(source);
    drop(model);
    session.forward(&SECOND, Logits::All).unwrap();
    assert_eq!(rows(&session), undisturbed().1);
    drop(session);
    await_gone(&gone);
}

/// Threads that end let go of it a moment after the model is closed.
fn await_gone(source: &Weak<Hosted>) {
    while source.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn modes_of_files_are_refused_by_name() {
    let (source, _) = hosted();
    for io in [Io::Auto, Io::Buffered, Io::Source] {
        assert_eq!(open_with(&source, &Options { io, ..options() }).unwrap().stats().io, Io::Source);
    }
    let refused = |io| open_with(&source, &Options { io, ..options() }).map(drop).unwrap_err();
    assert_says(&refused(Io::Direct), Status::Unsupported, &["tiny.gguf", "past the page cache", "buffered"]);
    assert_says(&refused(Io::Mmap), Status::Unsupported, &["tiny.gguf", "mapped", "buffered"]);
    let error = Model::open(&path(), &Options { io: Io::Source, ..options() }).map(drop).unwrap_err();
    assert_says(&error, Status::Unsupported, &["llama.gguf", "host's source"]);
}

/// The tiny model cut into three files.
fn split(folder: &std::path::Path) -> Vec<PathBuf> {
    let bytes = std::fs::read(path()).unwrap();
    let file = crate::gguf::read_file(&bytes, "whole").unwrap();
    let mut writer = crate::gguf::write::Writer::new();
    for (key, value) in &file.metadata.entries {
        writer.set(key, value.clone());
    }
    for t in &file.tensors {
        writer.tensor(&t.name, t.shape(), t.format).unwrap();
    }
    let mut files = Vec::new();
    let create = |name: &str| {
        files.push(folder.join(name));
        std::fs::File::create(folder.join(name))
    };
    let fill = |tensor: &crate::gguf::write::Declared, out: &mut dyn io::Write| {
        let from = file.tensors.iter().find(|t| t.name == tensor.name).unwrap();
        out.write_all(&bytes[from.offset as usize..][..from.bytes as usize])
    };
    writer.write_split("tiny", 3, create, fill).unwrap();
    files
}

#[test]
fn a_model_in_several_files_has_a_source_for_each_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::default();
    let files: Vec<_> = split(folder.path());
    let named = |path: &PathBuf| -> Arc<dyn HostSource> {
        Hosted::new(path.file_name().unwrap().to_str().unwrap(), path, &control)
    };
    let sources: Vec<_> = files.iter().map(named).collect();
    let open = |order: &[usize]| {
        let sources: Vec<_> = order.iter().map(|&i| sources[i].clone()).collect();
        Model::open_source(&sources, &options())
    };
    let model = open(&[0, 2, 1]).unwrap();
    let mut session = Session::new(&model, CONTEXT).unwrap();
    session.forward(&FIRST, Logits::All).unwrap();
    assert_eq!(rows(&session), undisturbed().0);

    let refused = |order: &[usize]| open(order).map(drop).unwrap_err();
    assert_says(&refused(&[0, 1]), Status::InvalidArgument, &["part 3 of 3", "tiny-00003-of-00003.gguf"]);
    assert_says(&refused(&[0, 1, 2, 1]), Status::InvalidArgument, &["in 3 files", "4 sources"]);
    assert_says(&refused(&[1, 0, 2]), Status::InvalidArgument, &["part 2 of 3", "tiny-00001-of-00003.gguf"]);
    assert_says(&refused(&[]), Status::InvalidArgument, &["no source"]);
    let nameless: [Arc<dyn HostSource>; 1] = [Hosted::new("some bytes", &files[0], &control)];
    let error = Model::open_source(&nameless, &options()).map(drop).unwrap_err();
    assert_says(&error, Status::Format, &["some bytes", "first of 3 files", "-00001-of-00003.gguf"]);
}

#[test]
fn an_adapter_comes_from_a_source_as_from_its_file() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/lora.gguf"].iter().collect();
    let control = Control::default();
    let source = Hosted::new("lora.gguf", &path, &control);
    let mut options = options();
    options.memory_budget = 0;
    let model = Model::open(&self::path(), &options).unwrap();
    let logits = |adapter: &Arc<Adapter>| {
        let mut session = Session::new(&model, CONTEXT).unwrap();
        session.set_adapters(&[(adapter, 1.0)]).unwrap();
        session.forward(&FIRST, Logits::All).unwrap();
        rows(&session)
    };
    let expected = logits(&Adapter::open(&model, &path).unwrap());
    let sources: [Arc<dyn HostSource>; 1] = [source.clone()];
    let adapter = Adapter::open_source(&model, &sources).unwrap();
    drop(sources);
    assert_eq!(Arc::strong_count(&source), 1, "nothing is read of it any more");
    assert_eq!(logits(&adapter), expected);
    assert_ne!(expected, undisturbed().0);
    control.fail(0..u64::MAX, usize::MAX);
    let sources: [Arc<dyn HostSource>; 1] = [source];
    assert_says(&Adapter::open_source(&model, &sources).err().unwrap(), Status::Io, &["lora.gguf", "at offset 0"]);
}
