//! Where C ends and Rust begins: panics are contained, pointers checked, handles poisoned, results written.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::{LAYERLINE_OK, layerline_error, layerline_status};
use crate::error::{Error, Result, Status};
use crate::sys::heap;
use crate::sys::thread::Uncancelled;

/// A call from C. It turns the pointers of the call's parameters into Rust's types: one conversion for each kind of
/// parameter. What a conversion returns lives no longer than the call.
pub(super) struct Caller(());

/// The call that the function around it serves. Only for functions that are `unsafe extern "C"`, or that get no pointer.
macro_rules! caller {
    () => {{
        // SAFETY: the function is unsafe for its caller, who keeps the rules of the header: each pointer is NULL or what
        // the header asks for, and stays so until the function returns.
        #[allow(unused_unsafe)]
        let caller = unsafe { $crate::ffi::boundary::Caller::trusted() };
        caller
    }};
}
pub(super) use caller;

impl Caller {
    /// # Safety
    /// Each pointer given to a method is NULL or what the method's description asks for, until the caller is dropped.
    pub(super) const unsafe fn trusted() -> Caller {
        Caller(())
    }

    /// Runs the body of a function that returns only a status.
    pub(super) fn status(&self, body: impl FnOnce(&Caller) -> Result<()>) -> layerline_status {
        match contain(|| body(self)) {
            Ok(()) => LAYERLINE_OK,
            Err(error) => error.status() as layerline_status,
        }
    }

    /// Runs the body of a function that has an error out-parameter, NULL or to be written: sets it to NULL, or to an error
    /// the caller owns.
    pub(super) fn run(
        &self,
        err: *mut *mut layerline_error,
        body: impl FnOnce(&Caller) -> Result<()>,
    ) -> layerline_status {
        self.tell(err, contain(|| body(self)))
    }

    /// Writes what became of a call.
    #[inline(never)] // Small code, once.
    fn tell(&self, err: *mut *mut layerline_error, result: Result<()>) -> layerline_status {
        let status = result.as_ref().map_or_else(|error| error.status() as layerline_status, |()| LAYERLINE_OK);
        if !err.is_null() {
            // SAFETY: not NULL, and `trusted` says that it may be written then.
            unsafe { err.write(result.map_or_else(layerline_error::boxed, |()| std::ptr::null_mut())) };
        }
        status
    }

    /// Runs the body of a function that cannot tell of a failure: `fallback` stands for one.
    pub(super) fn or<R>(&self, fallback: R, body: impl FnOnce(&Caller) -> Result<R>) -> R {
        contain(|| body(self)).unwrap_or(fallback)
    }

    /// Looks at an object of the library that has no lock; `None` for NULL.
    pub(super) fn peek<T>(&self, object: *const T) -> Option<&T> {
        // SAFETY: NULL, or an object of the library that is not freed during the call.
        unsafe { object.as_ref() }
    }

    /// Enters a handle of the library: it must not be NULL, and no earlier call on it may have panicked.
    pub(super) fn handle<H: Handle>(&self, handle: *const H) -> Result<Entered<'_, H>> {
        let handle = self.peek(handle).ok_or_else(|| null(H::NAME))?;
        if handle.poison().0.load(Ordering::Acquire) {
            return Err(poisoned(H::NAME));
        }
        Ok(Entered { handle, panicking: std::thread::panicking() })
    }

    /// Enters a handle that may be NULL.
    pub(super) fn optional<H: Handle>(&self, handle: *const H) -> Result<Option<Entered<'_, H>>> {
        if handle.is_null() { Ok(None) } else { self.handle(handle).map(Some) }
    }

    /// Frees an object that came from [`owned`], once, with no call on it running; NULL is a no-op.
    pub(super) fn free<T>(&self, object: *mut T) {
        if object.is_null() {
            return;
        }
        self.or((), |_| {
            // SAFETY: not NULL, and `trusted` says that the library made it and that it is freed here alone.
            drop(unsafe { Box::from_raw(object) });
            Ok(())
        });
    }

    /// An out-parameter, which may be written.
    pub(super) fn out<T>(&self, pointer: *mut T, name: &str) -> Result<Out<'_, T>> {
        if pointer.is_null() { Err(null(name)) } else { Ok(Out { pointer, call: PhantomData }) }
    }

    /// An array to be filled, of which `cap` elements may be written. NULL goes with `cap` 0 alone.
    pub(super) fn out_array<T: Copy>(&self, pointer: *mut T, cap: usize, name: &str) -> Result<OutArray<'_, T>> {
        if pointer.is_null() && cap > 0 { Err(null(name)) } else { Ok(OutArray { pointer, cap, call: PhantomData }) }
    }

    /// A buffer to be filled, of which `cap` elements may be written, and where the length of all goes.
    pub(super) fn out_buffer<T: Copy>(
        &self,
        (buf, cap, needed): (*mut T, usize, *mut usize),
    ) -> Result<(OutArray<'_, T>, Out<'_, usize>)> {
        Ok((self.out_array(buf, cap, "buf")?, self.out(needed, "needed")?))
    }

    /// A struct to be filled, whose first field says how many bytes may be written.
    pub(super) fn out_struct<T: Versioned>(&self, pointer: *mut T) -> Result<OutStruct<'_, T>> {
        if pointer.is_null() {
            return Err(null(T::NAME));
        }
        // SAFETY: not NULL, and then it may be read, as `trusted` says; the size is the first field.
        let size = unsafe { pointer.cast::<u32>().read() } as usize;
        if size < T::FIRST_SIZE {
            return Err(Error::invalid(format!(
                "{}.struct_size is {size}: set it to the size of the struct, at least {}, before the call",
                T::NAME,
                T::FIRST_SIZE
            )));
        }
        Ok(OutStruct { pointer, size, call: PhantomData })
    }

    /// An array of `count` structs that may be read and written, each as long as the first one's first field says.
    pub(super) fn structs<T: Versioned>(&self, pointer: *mut T, count: usize) -> Result<Structs<'_, T>> {
        if count == 0 {
            return Ok(Structs { pointer, stride: 0, call: PhantomData });
        }
        let first = self.out_struct(pointer)?;
        if count > isize::MAX as usize / first.size || !first.size.is_multiple_of(align_of::<T>()) {
            return Err(Error::invalid(format!("{} cannot have {count} structs of {} bytes", T::NAME, first.size)));
        }
        let structs = Structs { pointer, stride: first.size, call: PhantomData };
        for i in 0..count {
            // SAFETY: there are `count` structs, each with its size as the first field; `trusted` says that they may be read.
            let size = unsafe { structs.at(i).cast::<u32>().read() } as usize;
            if size != first.size {
                return Err(Error::invalid(format!(
                    "{}[{i}].struct_size is {size}, that of the first one {}",
                    T::NAME,
                    first.size
                )));
            }
        }
        Ok(structs)
    }

    /// An array of `count` elements that may be read. NULL goes with `count` 0 alone.
    pub(super) fn array<T>(&self, pointer: *const T, count: usize, name: &str) -> Result<&[T]> {
        if count == 0 {
            return Ok(&[]);
        }
        if pointer.is_null() {
            return Err(null(name));
        }
        if count > isize::MAX as usize / size_of::<T>() {
            return Err(Error::invalid(format!("{name} cannot have {count} elements")));
        }
        // SAFETY: not NULL and no longer than an object can be; `trusted` says that it may be read then.
        Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
    }

    /// A string of a given length that may be read.
    pub(super) fn text(&self, pointer: *const c_char, length: usize, name: &str) -> Result<&str> {
        utf8(self.array(pointer.cast::<u8>(), length, name)?, name)
    }

    /// The bytes of a NUL-terminated string.
    pub(super) fn c_bytes(&self, pointer: *const c_char, name: &str) -> Result<&[u8]> {
        if pointer.is_null() {
            return Err(null(name));
        }
        // SAFETY: not NULL, and `trusted` says that it is a NUL-terminated string then.
        Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
    }

    /// A NUL-terminated string.
    pub(super) fn c_text(&self, pointer: *const c_char, name: &str) -> Result<&str> {
        utf8(self.c_bytes(pointer, name)?, name)
    }

    /// A path: bytes as the file system has them; on Windows UTF-8.
    pub(super) fn path(&self, path: *const c_char) -> Result<&Path> {
        let bytes = self.c_bytes(path, "path")?;
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
        }
        #[cfg(not(unix))]
        Ok(Path::new(utf8(bytes, "path")?))
    }
}

/// Turns a panic of `body` into an error that says where it was. The thread cannot be cancelled meanwhile.
fn contain<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    let (mut body, mut made) = (Some(body), None);
    contain_any(&mut || {
        if let Some(body) = body.take() {
            made = Some(body()?);
        }
        Ok(())
    })?;
    Ok(made.expect("a body that ended well has made something"))
}

/// [`contain`] for a body of whatever kind, compiled once for all functions of the interface.
#[inline(never)]
fn contain_any(body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    silence_panics();
    let _uncancelled = Uncancelled::begin();
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

/// Runs code of the host's, from inside a body or on a thread of ours: its panics are not the library's.
pub(super) fn outside<R>(call: impl FnOnce() -> R) -> R {
    let before = INSIDE.replace(false);
    let result = call();
    INSIDE.set(before);
    result
}

/// An object that belongs to the caller from now on, until [`Caller::free`] has it back.
pub(super) fn owned<T>(object: T) -> Result<*mut T> {
    heap::boxed(object).map(Box::into_raw)
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

#[cold]
#[inline(never)]
fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

#[cold]
#[inline(never)]
fn poisoned(name: &str) -> Error {
    let message = format!("an earlier call on this {name} failed inside the library: it can only be freed");
    Error::new(Status::Internal, message)
}

/// The error of a call that needs a handle for itself while another call is on it.
pub(super) fn busy<H: Handle>() -> Error {
    occupied(H::NAME)
}

#[cold]
#[inline(never)]
fn occupied(name: &str) -> Error {
    Error::new(Status::Busy, format!("another call on this {name} is running"))
}

/// An out-parameter: checked before the work, written after it.
pub(super) struct Out<'a, T> {
    pointer: *mut T,
    call: PhantomData<&'a Caller>,
}

impl<T> Out<'_, T> {
    pub(super) fn set(&self, value: T) {
        // SAFETY: not NULL, and it may be written until the call ends.
        unsafe { self.pointer.write(value) };
    }
}

#[cold]
#[inline(never)]
fn too_small(cap: usize, count: usize) -> Error {
    let message = format!("the buffer has room for {cap}, the result is {count} long");
    Error::new(Status::BufferTooSmall, message)
}

/// An array to be filled.
pub(super) struct OutArray<'a, T> {
    pointer: *mut T,
    cap: usize,
    call: PhantomData<&'a Caller>,
}

impl<T: Copy> OutArray<'_, T> {
    fn has_room(&self, count: usize) -> Result<()> {
        if count <= self.cap { Ok(()) } else { Err(too_small(self.cap, count)) }
    }

    /// The error of a result that is longer than there is room for.
    pub(super) fn refuse(&self, count: usize) -> Result<()> {
        self.has_room(count)
    }

    /// Writes all of `values`, or nothing.
    pub(super) fn set(&self, values: &[T]) -> Result<()> {
        self.has_room(values.len())?;
        if !values.is_empty() {
            // SAFETY: not more than the `cap` elements that may be written; and no value of ours lies in it.
            unsafe { self.pointer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
        Ok(())
    }
}

impl<'a> OutArray<'a, u8> {
    /// Writes `count` bytes piece by piece, if there is room for them all.
    pub(super) fn writer(self, count: usize) -> Result<ArrayWriter<'a>> {
        self.has_room(count)?;
        Ok(ArrayWriter { array: self, used: 0 })
    }
}

/// Fills an array from its beginning, as far as it has room.
pub(super) struct ArrayWriter<'a> {
    array: OutArray<'a, u8>,
    used: usize,
}

impl io::Write for ArrayWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let OutArray { pointer, cap, call } = self.array;
        let count = bytes.len().min(cap - self.used);
        if count > 0 {
            // `used` is less than `cap`, so that the place is inside the array.
            let rest = OutArray { pointer: pointer.wrapping_add(self.used), cap: cap - self.used, call };
            rest.set(&bytes[..count]).map_err(io::Error::other)?;
        }
        self.used += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OutArray<'_, c_char> {
    /// Writes `text` and its NUL, or nothing: what a host finds in its buffer always ends.
    pub(super) fn set_text(&self, text: &[u8]) -> Result<()> {
        if text.len() >= self.cap {
            let message = format!("the buffer has {} bytes, the text and its NUL take {}", self.cap, text.len() + 1);
            return Err(Error::new(Status::BufferTooSmall, message));
        }
        let bytes = OutArray { pointer: self.pointer.cast::<u8>(), cap: self.cap, call: PhantomData };
        bytes.set(text)?;
        // SAFETY: inside the `cap` bytes of the buffer, as just checked.
        unsafe { bytes.pointer.add(text.len()).write(0) };
        Ok(())
    }
}

/// A struct of the header that begins with its size, so that fields can be appended to it.
///
/// # Safety
/// `repr(C)`, with `struct_size: u32` as its first field; all zeros are one.
pub(super) unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// Size of the struct as first released: no caller's is smaller.
    const FIRST_SIZE: usize;
}

/// Makes a struct [`Versioned`]: what messages call it, and the last field that it had when it was first released.
macro_rules! versioned {
    ($type:ident as $name:literal, up to $last:ident: $last_type:ty) => {
        const _: fn(&$type) -> (u32, $last_type) = |value| (value.struct_size, value.$last);
        const _: () = assert!(std::mem::offset_of!($type, struct_size) == 0);
        // SAFETY: `struct_size` is a u32 and lies first, as the lines above say, and cbindgen takes `repr(C)` structs only,
        // whose fields are numbers and pointers.
        unsafe impl $crate::ffi::boundary::Versioned for $type {
            const NAME: &'static str = $name;
            const FIRST_SIZE: usize = std::mem::offset_of!($type, $last) + size_of::<$last_type>();
        }
    };
}
pub(super) use versioned;

/// A struct to be filled, as long as the caller knows it.
pub(super) struct OutStruct<'a, T> {
    pointer: *mut T,
    size: usize,
    call: PhantomData<&'a Caller>,
}

impl<T: Versioned> OutStruct<'_, T> {
    /// Writes the fields that both sides know; `struct_size` and what lies beyond stay as they are.
    pub(super) fn set(&self, value: T) {
        let head = size_of::<u32>();
        let bytes = self.size.min(size_of::<T>()) - head;
        let from = (&raw const value).cast::<u8>();
        // SAFETY: both sides are at least `head + bytes` long, the host's as its first field says; and no value of ours
        // lies in it.
        unsafe { self.pointer.cast::<u8>().add(head).copy_from_nonoverlapping(from.add(head), bytes) };
    }
}

/// An array of structs that are read, then written.
pub(super) struct Structs<'a, T> {
    pointer: *mut T,
    /// Bytes from one to the next.
    stride: usize,
    call: PhantomData<&'a Caller>,
}

impl<T: Versioned> Structs<'_, T> {
    fn at(&self, i: usize) -> *mut T {
        self.pointer.wrapping_byte_add(i * self.stride)
    }

    /// What both sides know of the struct `i`, which is there; the rest is 0.
    pub(super) fn get(&self, i: usize) -> T {
        let mut value = std::mem::MaybeUninit::<T>::zeroed();
        let bytes = self.stride.min(size_of::<T>());
        // SAFETY: both sides are at least as long; and all zeros are a `T`, as are the host's numbers and pointers.
        unsafe {
            value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(self.at(i).cast::<u8>(), bytes);
            value.assume_init()
        }
    }

    /// Writes the struct `i`, which is there.
    pub(super) fn set(&self, i: usize, value: T) {
        OutStruct { pointer: self.at(i), size: self.stride, call: PhantomData }.set(value);
    }
}

fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid(format!("{name} is not UTF-8 at byte {}", error.valid_up_to())))
}
