//! Storage of the host's own, which a model is read from in place of a file.

use std::ffi::{c_char, c_void};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::boundary::{Caller, Entered, Handle, Poison, busy, caller, outside};
use super::error::{layerline_error, layerline_status};
use crate::error::{Error, Result};
use crate::model::HostSource;
use crate::sys::{heap, sync};

/// Storage of the host's own that a model or an adapter is read from, in place of a file: an archive, memory, a network, a
/// browser. It is a size and a callback that reads at an offset. Models and adapters keep what they need of it, so that it
/// may be freed after they were opened, and one source may serve several of them.
pub struct layerline_source {
    poison: Poison,
    settings: Mutex<Settings>,
}

/// What is set of a source; models and adapters take it as it is when they are opened.
struct Settings {
    first: Named,
    further: Vec<Named>,
}

/// One file's worth of a host's storage.
#[derive(Clone)]
struct Named {
    callbacks: Arc<Callbacks>,
    name: Arc<str>,
    /// Whether several threads may read at once.
    concurrent: bool,
}

/// What the host gave.
struct Callbacks {
    bytes: u64,
    read: unsafe extern "C" fn(u64, *mut c_void, usize, *mut c_void) -> i64,
    release: layerline_release_callback,
    user_data: *mut c_void,
    /// Taken for each read of a source that is not concurrent.
    turn: sync::Mutex<()>,
}

// SAFETY: the host says, by `layerline_source_new`, that its callbacks may be called with `user_data` on any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above; where several threads may not call at once, `turn` keeps them apart.
unsafe impl Sync for Callbacks {}

impl Drop for Callbacks {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the host gave the function for this, once; no read runs, as each has a share of these callbacks.
            outside(|| unsafe { release(self.user_data) });
        }
    }
}

impl HostSource for Named {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.callbacks.bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let Callbacks { read, user_data, turn, .. } = &*self.callbacks;
        let turn = (!self.concurrent).then(|| turn.lock());
        // SAFETY: the host gave the function, which may be called until `release` was; the buffer has as many bytes.
        let got = outside(|| unsafe { read(offset, buf.as_mut_ptr().cast(), buf.len(), *user_data) });
        drop(turn);
        usize::try_from(got).map_err(|_| {
            io::Error::other(match got {
                ..0 => format!("the read callback failed with {got}"),
                _ => format!("the read callback says it has read {got} bytes"),
            })
        })
    }
}

impl Handle for layerline_source {
    const NAME: &'static str = "source";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// The sources of a model, that of its first file first.
pub(super) fn sources(c: &Caller, source: *const layerline_source) -> Result<Vec<Arc<dyn HostSource>>> {
    let source = c.handle(source)?;
    let settings = source.settings.lock();
    let all = std::iter::once(&settings.first).chain(&settings.further);
    heap::collected(all.map(|one| -> Arc<dyn HostSource> { Arc::new(one.clone()) }), "the sources of a model")
}

/// Reads at an offset of a source.
///
/// `offset`, `length`: which bytes; never 0 of them, and never any beyond the size of the source.
/// `buf`: where they go. The callback may write all `length` bytes of it, also those that it then does not count.
/// `user_data`: as given to `layerline_source_new`.
///
/// Returns how many bytes it has read, from the first on. Fewer than `length` is fine: the rest is asked for again. 0 says
/// that there is nothing at the offset, which is an error, as the size of the source says otherwise; so is more than `length`.
/// A negative number says that reading failed; the message of the error has it. What failed is asked for a second time, then
/// the pass ends with LAYERLINE_ERROR_IO, and the next one may go well.
///
/// It is called on threads of the library and of those who call it, also on several at once, unless
/// `layerline_source_set_concurrent` says otherwise, and may block for as long as it likes. What waits for these bytes waits
/// as long; all else goes on. An interrupt ends a pass that waits for a thread of the library. A pass that reads on its own
/// thread, as it does where prefetching is off or a read has failed, ends no sooner than the callback. Freeing the last handle
/// of a model waits for a callback for at most 2 seconds; one that runs on then still has its buffer and its `user_data`.
///
/// It must return: no C++ exception and no longjmp may leave it. It must not call functions on models that are read from this
/// source, on their sessions, and on the source.
pub type layerline_read_callback =
    Option<unsafe extern "C" fn(offset: u64, buf: *mut c_void, length: usize, user_data: *mut c_void) -> i64>;

/// Tells that the library does not use `user_data` any more: it is the last call with it. It comes on any thread, inside the
/// last free function or after it, and must not call the library.
pub type layerline_release_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Makes a source.
///
/// `size`: bytes of it; it must not change.
/// `read`: see `layerline_read_callback`.
/// `release`: called once, when the source is freed and all that was opened from it; NULL: nothing is. Where this function
/// fails it is not called.
/// `user_data`: passed to both.
/// `source`: set to a source that the caller owns: `layerline_source_free`.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_source_new(
    size: u64,
    read: layerline_read_callback,
    release: layerline_release_callback,
    user_data: *mut c_void,
    source: *mut *mut layerline_source,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let out = c.out(source, "source")?;
        let read = read.ok_or_else(|| Error::invalid("read is NULL"))?;
        // Until the handle is there, dropping the callbacks must not release what stays the caller's.
        let callbacks = Callbacks { bytes: size, read, release: None, user_data, turn: sync::Mutex::new(()) };
        let first = Named { callbacks: Arc::new(callbacks), name: "the source".into(), concurrent: true };
        let settings = Mutex::new(Settings { first, further: Vec::new() });
        let mut made = heap::boxed(layerline_source { poison: Poison::default(), settings })?;
        if let Some(callbacks) = Arc::get_mut(&mut made.settings.get_mut().first.callbacks) {
            callbacks.release = release;
        }
        out.set(Box::into_raw(made));
        Ok(())
    })
}

/// Frees a source; NULL is a no-op. What was opened from it goes on. Any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_source_free(source: *mut layerline_source) {
    caller!().free(source);
}

/// Changes what models and adapters that are opened later take.
fn change(c: &Caller, source: *const layerline_source, apply: impl FnOnce(&mut Settings) -> Result<()>) -> Result<()> {
    let source: Entered<'_, layerline_source> = c.handle(source)?;
    apply(&mut *source.settings.try_lock().ok_or_else(busy::<layerline_source>)?)
}

/// Sets what messages call a source. Default: "the source". Sources of a model in several files need the names that the
/// files had, such as "model-00001-of-00003.gguf", with any folders or none.
///
/// `name`: NUL-terminated, UTF-8.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_source_set_name(
    source: *mut layerline_source,
    name: *const c_char,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let name = c.c_text(name, "name")?.into();
        change(c, source, |settings| {
            settings.first.name = name;
            Ok(())
        })
    })
}

/// Sets whether the read callback may be called on several threads at once. True is the default and the faster one where
/// storage takes several reads at a time. False: one call at a time, whatever is opened from the source afterwards.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_source_set_concurrent(
    source: *mut layerline_source,
    enabled: bool,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        change(c, source, |settings| {
            settings.first.concurrent = enabled;
            Ok(())
        })
    })
}

/// Adds a further file of a model in several to the source of its first one, in any order. Opening finds it by the name that
/// it has now, and refuses a model of which files are missing or that has fewer.
///
/// `further`: a source of its own; the first one keeps what it needs of it, so that it may be freed.
///
/// Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where it is the source itself or has further files of its own;
/// LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_source_add_file(
    source: *mut layerline_source,
    further: *const layerline_source,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let added = c.handle(further)?;
        if std::ptr::eq(source, further) {
            return Err(Error::invalid("a source is not a further file of itself"));
        }
        let file = {
            let settings = added.settings.lock();
            if !settings.further.is_empty() {
                return Err(Error::invalid(format!("{} has further files of its own", settings.first.name)));
            }
            settings.first.clone()
        };
        change(c, source, |settings| heap::push(&mut settings.further, file, "the sources of a model"))
    })
}
