//! Where C ends and Rust begins: panics are contained, pointers checked, handles poisoned, results written.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{LAYERLINE_OK, layerline_error, layerline_status};
use crate::error::{Error, Result, Status};

/// Runs the body of a function that returns only a status.
pub(super) fn status(body: impl FnOnce() -> Result<()>) -> layerline_status {
    match contain(body) {
        Ok(()) => LAYERLINE_OK,
        Err(error) => error.status() as layerline_status,
    }
}

/// Runs the body of a function that has an error out-parameter: sets it to NULL, or to an error the caller owns.
///
/// # Safety
/// `err` is NULL or may be written.
pub(super) unsafe fn with_error(err: *mut *mut layerline_error, body: impl FnOnce() -> Result<()>) -> layerline_status {
    let result = contain(body);
    let status = result.as_ref().map_or_else(|error| error.status() as layerline_status, |()| LAYERLINE_OK);
    if !err.is_null() {
        // SAFETY: not NULL, and then the caller vouches for it.
        unsafe { err.write(result.map_or_else(layerline_error::boxed, |()| std::ptr::null_mut())) };
    }
    status
}

/// Runs the body of a function that cannot tell of a failure: `fallback` stands for one.
pub(super) fn or<R>(fallback: R, body: impl FnOnce() -> Result<R>) -> R {
    contain(body).unwrap_or(fallback)
}

/// Turns a panic of `body` into an error that says where it was.
fn contain<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    silence_panics();
    // A body that calls the host back may be entered again from there.
    let outer = INSIDE.replace(true);
    // What a panicking body was changing is not looked at again: the handles it had entered are poisoned.
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    result.unwrap_or_else(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without a message");
        let place = PLACE.take().unwrap_or_default();
        let error = Error::new(Status::Internal, format!("a fault inside the library: {text}{place}"));
        // The destructor of a payload could panic in its turn, with nobody left to catch it.
        std::mem::forget(payload);
        Err(error)
    })
}

/// Runs code of the host's from inside a body: its panics are not the library's.
pub(super) fn outside<R>(call: impl FnOnce() -> R) -> R {
    INSIDE.set(false);
    let result = call();
    INSIDE.set(true);
    result
}

/// What the names of the library's own threads begin with.
const THREADS: &str = "layerline-";

thread_local! {
    /// Whether this thread is inside a call whose panics are contained.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Where the last contained panic was.
    static PLACE: Cell<Option<String>> = const { Cell::new(None) };
}

/// Keeps contained panics off the host's standard error: each is told by the error of the call it ends.
///
/// The panic hook belongs to a copy of Rust's standard library. A program that links the shared library has none of its
/// own in it, so nothing of the host's changes. A Rust program that links the crate shares it; for that the hook is
/// installed by the first call of the C interface and not before, so never for a host of the Rust interface alone, and
/// hands every panic that is neither inside a call nor on a thread of ours to the hook it found. A hook that the host
/// sets later replaces it and then hears ours too. It costs a call one load of an atomic.
fn silence_panics() {
    static HOOK: Once = Once::new();
    // The hook cannot be exchanged while a panic unwinds; the next call does it.
    if HOOK.is_completed() || std::thread::panicking() {
        return;
    }
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                PLACE.set(info.location().map(|place| format!(" ({}:{})", place.file(), place.line())));
            } else if !std::thread::current().name().is_some_and(|name| name.starts_with(THREADS)) {
                previous(info);
            }
        }));
    });
}

/// Whether a panic ended a call on a handle. From then on its state cannot be trusted: only free may follow.
#[derive(Default)]
pub(super) struct Poison(AtomicBool);

/// An object behind an opaque pointer. It is never borrowed mutably: what changes in it lies behind a lock.
pub(super) trait Handle {
    /// What the header calls it.
    const NAME: &'static str;
    fn poison(&self) -> &Poison;
}

/// A handle inside a call: poisoned when the call ends in a panic.
pub(super) struct Entered<'a, H: Handle> {
    handle: &'a H,
    /// The thread was unwinding before the call, which says nothing about it.
    panicking: bool,
}

impl<H: Handle> std::ops::Deref for Entered<'_, H> {
    type Target = H;
    fn deref(&self) -> &H {
        self.handle
    }
}

impl<H: Handle> Drop for Entered<'_, H> {
    fn drop(&mut self) {
        if !self.panicking && std::thread::panicking() {
            self.handle.poison().0.store(true, Ordering::Release);
        }
    }
}

/// Enters a handle: it must not be NULL, and no earlier call on it may have panicked.
///
/// # Safety
/// `handle` is NULL, or came from the library and is not freed before the result is dropped.
pub(super) unsafe fn enter<'a, H: Handle>(handle: *const H) -> Result<Entered<'a, H>> {
    // SAFETY: NULL is looked for; for the rest the caller vouches, and no handle is ever borrowed mutably.
    let handle = unsafe { handle.as_ref() }.ok_or_else(|| null(H::NAME))?;
    if handle.poison().0.load(Ordering::Acquire) {
        return Err(Error::new(
            Status::Internal,
            format!("an earlier call on this {} failed inside the library: it can only be freed", H::NAME),
        ));
    }
    Ok(Entered { handle, panicking: std::thread::panicking() })
}

/// Frees what a `_new` or `_open` function gave out; NULL is a no-op.
///
/// # Safety
/// `object` is NULL, or came from `Box::into_raw`, was not freed, and no call on it is running.
pub(super) unsafe fn free<T>(object: *mut T) {
    if object.is_null() {
        return;
    }
    or((), || {
        // SAFETY: not NULL, and then the caller vouches for it.
        drop(unsafe { Box::from_raw(object) });
        Ok(())
    });
}

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

/// The error of a call that needs a handle for itself while another call is on it.
pub(super) fn busy<H: Handle>() -> Error {
    Error::new(Status::Busy, format!("another call on this {} is running", H::NAME))
}

/// An out-parameter: checked before the work, written after it.
pub(super) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or may be written until the call ends.
    pub(super) unsafe fn new(pointer: *mut T, name: &str) -> Result<Out<T>> {
        if pointer.is_null() { Err(null(name)) } else { Ok(Out(pointer)) }
    }

    pub(super) fn set(&self, value: T) {
        // SAFETY: `new` looked for NULL, and its caller vouched for the rest.
        unsafe { self.0.write(value) };
    }
}

/// An array to be filled. NULL goes with `cap` 0 alone.
pub(super) struct OutArray<T> {
    pointer: *mut T,
    cap: usize,
}

impl<T: Copy> OutArray<T> {
    /// # Safety
    /// `pointer` is NULL, or `cap` elements may be written there until the call ends.
    pub(super) unsafe fn new(pointer: *mut T, cap: usize, name: &str) -> Result<OutArray<T>> {
        if pointer.is_null() && cap > 0 { Err(null(name)) } else { Ok(OutArray { pointer, cap }) }
    }

    /// Writes all of `values`, or nothing.
    pub(super) fn set(&self, values: &[T]) -> Result<()> {
        if values.len() > self.cap {
            let message = format!("the buffer has room for {}, the result is {} long", self.cap, values.len());
            return Err(Error::new(Status::BufferTooSmall, message));
        }
        if !values.is_empty() {
            // SAFETY: not more than `cap`, for which `new`'s caller vouched; and no value of ours lies in it.
            unsafe { self.pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
        Ok(())
    }
}

impl OutArray<c_char> {
    /// Writes `text` and its NUL, or nothing: what a host finds in its buffer always ends.
    pub(super) fn set_text(&self, text: &[u8]) -> Result<()> {
        if text.len() >= self.cap {
            let message = format!("the buffer has {} bytes, the text and its NUL take {}", self.cap, text.len() + 1);
            return Err(Error::new(Status::BufferTooSmall, message));
        }
        let bytes = OutArray { pointer: self.pointer.cast::<u8>(), cap: self.cap };
        bytes.set(text)?;
        // SAFETY: inside the `cap` bytes of the buffer, as just checked.
        unsafe { bytes.pointer.add(text.len()).write(0) };
        Ok(())
    }
}

/// A struct of the header that begins with its size, so that fields can be appended to it.
///
/// # Safety
/// `repr(C)`, with `struct_size: u32` as its first field.
pub(super) unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// Size of the struct as first released: no caller's is smaller.
    const FIRST_SIZE: usize;
}

/// A struct to be filled, as long as the caller knows it.
pub(super) struct OutStruct<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Versioned> OutStruct<T> {
    /// # Safety
    /// `pointer` is NULL, or its first field says how many bytes may be written there until the call ends.
    pub(super) unsafe fn new(pointer: *mut T) -> Result<OutStruct<T>> {
        if pointer.is_null() {
            return Err(null(T::NAME));
        }
        // SAFETY: not NULL, and then the caller vouches for it; the size is the first field.
        let size = unsafe { pointer.cast::<u32>().read() } as usize;
        if size < T::FIRST_SIZE {
            return Err(Error::invalid(format!(
                "{}.struct_size is {size}: set it to the size of the struct, at least {}, before the call",
                T::NAME,
                T::FIRST_SIZE
            )));
        }
        Ok(OutStruct { pointer, size })
    }

    /// Writes the fields that both sides know; `struct_size` and what lies beyond stay as they are.
    pub(super) fn set(&self, value: T) {
        let head = size_of::<u32>();
        let bytes = self.size.min(size_of::<T>()) - head;
        let from = (&raw const value).cast::<u8>();
        // SAFETY: both sides are at least `head + bytes` long, the host's by what `new`'s caller vouched for; and no
        // value of ours lies in it.
        unsafe { self.pointer.cast::<u8>().add(head).copy_from_nonoverlapping(from.add(head), bytes) };
    }
}

/// An array of the caller's. NULL goes with `count` 0 alone.
///
/// # Safety
/// `pointer` is NULL, or `count` elements may be read there for `'a`.
pub(super) unsafe fn array<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(Error::invalid(format!("{name} cannot have {count} elements")));
    }
    // SAFETY: not NULL and no longer than an object can be; for the rest the caller vouches.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A string of the caller's, of a given length.
///
/// # Safety
/// As for [`array`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, length: usize, name: &str) -> Result<&'a str> {
    // SAFETY: the caller vouches for it.
    utf8(unsafe { array(pointer.cast::<u8>(), length, name) }?, name)
}

/// The bytes of a NUL-terminated string of the caller's.
///
/// # Safety
/// `pointer` is NULL, or a NUL-terminated string that may be read for `'a`.
pub(super) unsafe fn c_bytes<'a>(pointer: *const c_char, name: &str) -> Result<&'a [u8]> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, and then the caller vouches for it.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

pub(super) fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid(format!("{name} is not UTF-8 at byte {}", error.valid_up_to())))
}
