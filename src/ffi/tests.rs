//! Promises of the boundary: contained panics, poisoned handles, owned errors, buffers, growing structs.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::boundary::{Handle, Poison, Versioned, busy, caller, outside, versioned};
use super::error::*;
use super::model::layerline_model_info;
use super::plan::layerline_plan;
use super::prefetch::layerline_stats;
use super::session::layerline_session_info;
use crate::error::{Error, Result, Status};

/// A handle as those of the header are: poison, and state behind a lock.
#[derive(Default)]
struct Thing {
    poison: Poison,
    calls: Mutex<u32>,
}

impl Handle for Thing {
    const NAME: &'static str = "thing";
    fn poison(&self) -> &Poison {
        &self.poison
    }
}

/// A function of the interface: counts its calls, then does what the test wants.
unsafe fn thing_call(
    thing: *mut Thing,
    inside: fn() -> Result<()>,
    err: *mut *mut layerline_error,
) -> layerline_status {
    caller!().run(err, |c| {
        let thing = c.handle(thing)?;
        *thing.calls.lock() += 1;
        inside()
    })
}

fn call(thing: &mut Thing, inside: fn() -> Result<()>) -> (layerline_status, Option<(layerline_status, String)>) {
    // A value that is no pointer: it must be overwritten in either case.
    let mut err = ptr::dangling_mut();
    // SAFETY: a thing that lives, and an error freed once.
    unsafe {
        let status = thing_call(thing, inside, &mut err);
        if err.is_null() {
            return (status, None);
        }
        let message = CStr::from_ptr(layerline_error_message(err)).to_str().unwrap().to_string();
        let told = (layerline_error_status(err), message);
        layerline_error_free(err);
        (status, Some(told))
    }
}

#[test]
fn success_sets_the_error_to_null_and_failure_to_one_the_caller_owns() {
    let mut thing = Thing::default();
    assert_eq!(call(&mut thing, || Ok(())), (LAYERLINE_OK, None));
    let (status, error) = call(&mut thing, || Err(Error::io("model.gguf: 3 of 7 bytes")));
    assert_eq!((status, error), (LAYERLINE_ERROR_IO, Some((LAYERLINE_ERROR_IO, "model.gguf: 3 of 7 bytes".into()))));
    // SAFETY: NULL for the error is allowed.
    let status = unsafe { thing_call(&mut thing, || Err(Error::cancelled()), ptr::null_mut()) };
    assert_eq!(status, LAYERLINE_ERROR_CANCELLED);
    assert_eq!(*thing.calls.lock(), 3);
}

#[test]
fn a_nul_in_a_message_does_not_cut_it_short() {
    let (_, error) = call(&mut Thing::default(), || Err(Error::format("key a\0b is missing")));
    assert_eq!(error.unwrap().1, "key a b is missing");
}

#[test]
fn no_error_has_no_status_and_no_message() {
    // SAFETY: NULL is allowed.
    unsafe {
        assert_eq!(layerline_error_status(ptr::null()), LAYERLINE_OK);
        assert_eq!(CStr::from_ptr(layerline_error_message(ptr::null())), c"");
        layerline_error_free(ptr::null_mut());
    }
}

#[test]
fn a_panic_becomes_an_error_that_says_what_and_where() {
    let (status, error) = call(&mut Thing::default(), || panic!("seven is {}", 7));
    assert_eq!(status, LAYERLINE_ERROR_INTERNAL);
    let (status, message) = error.unwrap();
    assert_eq!(status, LAYERLINE_ERROR_INTERNAL);
    assert!(message.contains("seven is 7") && message.contains("tests.rs:"), "{message}");
    let (_, error) = call(&mut Thing::default(), || std::panic::panic_any(7));
    assert!(error.unwrap().1.contains("without a message"));
}

#[test]
fn a_panic_poisons_its_handle_and_no_other() {
    let (mut thing, mut other) = (Thing::default(), Thing::default());
    call(&mut thing, || panic!("broken"));
    let (status, error) = call(&mut thing, || Ok(()));
    assert_eq!(status, LAYERLINE_ERROR_INTERNAL);
    assert!(error.unwrap().1.contains("it can only be freed"));
    assert_eq!(*thing.calls.lock(), 1, "a poisoned handle is not touched again");
    assert_eq!(call(&mut other, || Ok(())), (LAYERLINE_OK, None));
    // A failure is no fault: the handle goes on.
    call(&mut other, || Err(Error::io("short")));
    assert_eq!(call(&mut other, || Ok(())), (LAYERLINE_OK, None));
}

#[test]
fn every_handle_of_a_call_is_poisoned() {
    let (one, two) = (Thing::default(), Thing::default());
    let status = caller!().status(|c| {
        let (_one, _two) = (c.handle(&one)?, c.handle(&two)?);
        panic!("broken");
    });
    assert_eq!(status, LAYERLINE_ERROR_INTERNAL);
    let c = caller!();
    assert!(c.handle(&one).is_err() && c.handle(&two).is_err());
}

#[test]
fn a_poisoned_handle_can_be_freed_and_a_panic_of_its_destructor_stays_inside() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Fragile(#[allow(dead_code)] Thing);
    impl Drop for Fragile {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
            panic!("cannot even be dropped");
        }
    }
    let mut thing = Thing::default();
    call(&mut thing, || panic!("broken"));
    caller!().free(Box::into_raw(Box::new(Fragile(thing))));
    caller!().free(ptr::null_mut::<Fragile>());
    assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
}

#[test]
fn a_host_that_is_unwinding_does_not_poison_what_it_calls() {
    struct Host<'a>(&'a Thing);
    impl Drop for Host<'_> {
        fn drop(&mut self) {
            assert_eq!(caller!().status(|c| c.handle(self.0).map(|_| ())), LAYERLINE_OK);
        }
    }
    let thing = Thing::default();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _host = Host(&thing);
        std::panic::resume_unwind(Box::new("the host's own"));
    }));
    assert!(unwound.is_err());
    assert!(caller!().handle(&thing).is_ok());
}

#[test]
fn panics_outside_of_calls_reach_the_hosts_hook() {
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    // In a process of its own, as the hook is the process's.
    if std::env::var_os("LAYERLINE_TEST_HOOK").is_none() {
        let name = "ffi::tests::panics_outside_of_calls_reach_the_hosts_hook";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1"])
            .env("LAYERLINE_TEST_HOOK", "1")
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
        assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
        return;
    }
    std::panic::set_hook(Box::new(|_| {
        HEARD.fetch_add(1, Ordering::SeqCst);
    }));
    call(&mut Thing::default(), || panic!("inside"));
    assert_eq!(HEARD.load(Ordering::SeqCst), 0);
    let _ = std::panic::catch_unwind(|| panic!("outside"));
    assert_eq!(HEARD.load(Ordering::SeqCst), 1);
    for (name, heard) in [("layerline-0", 1), ("host", 2)] {
        let thread = std::thread::Builder::new().name(name.into()).spawn(|| panic!("on a thread")).unwrap();
        assert!(thread.join().is_err());
        assert_eq!(HEARD.load(Ordering::SeqCst), heard, "{name}");
    }
    // The host's code in a callback is outside, and after it comes inside again.
    call(&mut Thing::default(), || {
        let _ = outside(|| std::panic::catch_unwind(|| panic!("in a callback")));
        panic!("inside");
    });
    assert_eq!(HEARD.load(Ordering::SeqCst), 3);
}

#[test]
fn a_handle_in_use_is_busy_not_waited_for() {
    let error = busy::<Thing>();
    assert_eq!((error.status(), error.message()), (Status::Busy, "another call on this thing is running"));
}

fn refusal(result: Result<impl Sized>) -> String {
    let error = result.err().expect("it is refused");
    assert_eq!(error.status(), Status::InvalidArgument);
    error.message().to_string()
}

#[test]
fn null_is_refused_by_name_except_for_arrays_of_length_zero() {
    let c = caller!();
    assert_eq!(refusal(c.handle::<Thing>(ptr::null())), "thing is NULL");
    assert_eq!(refusal(c.out(ptr::null_mut::<i32>(), "token")), "token is NULL");
    assert_eq!(refusal(c.out_array(ptr::null_mut::<i32>(), 1, "tokens")), "tokens is NULL");
    assert_eq!(refusal(c.out_struct::<layerline_plan>(ptr::null_mut())), "plan is NULL");
    assert_eq!(refusal(c.array(ptr::null::<i32>(), 1, "tokens")), "tokens is NULL");
    assert_eq!(refusal(c.path(ptr::null())), "path is NULL");
    assert!(c.optional::<Thing>(ptr::null()).unwrap().is_none());
    assert!(c.out_array(ptr::null_mut::<i32>(), 0, "tokens").is_ok());
    assert!(c.array(ptr::null::<i32>(), 0, "tokens").unwrap().is_empty());
    assert_eq!(c.text(ptr::null(), 0, "text").unwrap(), "");
}

#[test]
fn a_count_no_array_can_have_is_refused() {
    let c = caller!();
    assert!(refusal(c.array(&1i32, usize::MAX / 4, "tokens")).contains("tokens cannot have"));
    assert!(refusal(c.text(c"a".as_ptr(), usize::MAX, "text")).contains("text cannot have"));
}

#[test]
fn text_that_is_not_utf8_is_refused_with_the_offset() {
    let c = caller!();
    assert_eq!(refusal(c.text(b"ab\xffd".as_ptr().cast(), 4, "text")), "text is not UTF-8 at byte 2");
    assert_eq!(refusal(c.text("abcd\u{e9}".as_ptr().cast(), 5, "text")), "text is not UTF-8 at byte 4");
}

#[test]
fn text_is_written_whole_with_its_nul_or_not_at_all() {
    let small = Err(Status::BufferTooSmall);
    for (cap, expected) in [(2, small), (3, small), (4, Ok(b"abc\0##")), (5, Ok(b"abc\0##"))] {
        let mut buf = *b"######";
        let c = caller!();
        let out = c.out_array(buf.as_mut_ptr().cast::<c_char>(), cap, "buf").unwrap();
        let result = out.set_text(b"abc").map_err(|error| error.status());
        assert_eq!(result.map(|()| &buf), expected, "cap {cap}");
        if expected.is_err() {
            assert_eq!(&buf, b"######");
        }
    }
    let c = caller!();
    let query = c.out_array(ptr::null_mut::<c_char>(), 0, "buf").unwrap();
    assert_eq!(query.set_text(b"abc").unwrap_err().status(), Status::BufferTooSmall);
    assert_eq!(query.set_text(b"").unwrap_err().status(), Status::BufferTooSmall);
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grown {
    struct_size: u32,
    first: u32,
    appended: u64,
}

versioned!(Grown as "grown", up to first: u32);

#[test]
fn structs_are_filled_as_far_as_both_sides_know_them() {
    let given = Grown { struct_size: 0, first: 1, appended: 2 };
    let fill = |struct_size: u32| {
        // Room for a struct larger than ours.
        let mut room = [Grown { struct_size, first: 7, appended: 7 }, Grown { struct_size: 7, first: 7, appended: 7 }];
        caller!().out_struct::<Grown>(room.as_mut_ptr()).map(|out| out.set(given)).map(|()| room)
    };
    for small in [0, 4, 7] {
        assert!(refusal(fill(small)).contains(&format!("grown.struct_size is {small}")));
    }
    let beyond = Grown { struct_size: 7, first: 7, appended: 7 };
    assert_eq!(fill(8).unwrap(), [Grown { struct_size: 8, first: 1, appended: 7 }, beyond]);
    assert_eq!(fill(16).unwrap(), [Grown { struct_size: 16, first: 1, appended: 2 }, beyond]);
    assert_eq!(fill(32).unwrap(), [Grown { struct_size: 32, first: 1, appended: 2 }, beyond]);
}

#[test]
fn structs_may_be_as_small_as_they_were_released_first() {
    assert_eq!(<layerline_plan as Versioned>::FIRST_SIZE, 96);
    assert_eq!(<layerline_model_info as Versioned>::FIRST_SIZE, 56);
    assert_eq!(<layerline_session_info as Versioned>::FIRST_SIZE, 40);
    assert_eq!(<layerline_stats as Versioned>::FIRST_SIZE, 136);
}

#[test]
fn every_status_has_words_of_its_own() {
    let words = |status| {
        // SAFETY: a static string with a NUL.
        unsafe { CStr::from_ptr(layerline_status_string(status)) }.to_str().unwrap()
    };
    let mut all: Vec<&str> = (LAYERLINE_ERROR_NOT_FOUND..=LAYERLINE_OK).map(words).collect();
    all.push(words(1));
    assert_eq!([words(LAYERLINE_ERROR_NOT_FOUND - 1), words(i32::MIN), words(i32::MAX)], [words(1); 3]);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 14);
}
