//! Status codes and the error object.

use std::ffi::{CStr, CString, c_char};

use super::boundary::caller;
use crate::error::{Error, Status};

/// How a call ended: LAYERLINE_OK, or one of the negative LAYERLINE_ERROR_ numbers, which never change. A newer library
/// may return numbers this header does not have: treat every other number than LAYERLINE_OK as a failure.
pub type layerline_status = i32;

/// Success.
pub const LAYERLINE_OK: layerline_status = 0;
/// An argument is NULL, out of range or not UTF-8.
pub const LAYERLINE_ERROR_INVALID_ARGUMENT: layerline_status = -1;
/// A missing file, a short read, an error of the device.
pub const LAYERLINE_ERROR_IO: layerline_status = -2;
/// A malformed file: not GGUF or not a state, truncated, contradictory, or with values out of range.
pub const LAYERLINE_ERROR_FORMAT: layerline_status = -3;
/// A valid file or request that needs what this library does not have; the message names it.
pub const LAYERLINE_ERROR_UNSUPPORTED: layerline_status = -4;
/// The memory budget has no room for it; the message gives both figures.
pub const LAYERLINE_ERROR_MEMORY_BUDGET: layerline_status = -5;
/// The system gave no memory. So ends every call whose files or arguments ask for more than there is: opening, sessions,
/// passes, samplers, states. Two things still end the process where there is no memory, as they do in any Rust program:
/// small ones (errors, events, what threads share, lists with some bytes for each layer and page of a model), and what
/// tokenising, detokenising, chat templates and constraints work with, which is in proportion to the text; for the first
/// constraint of a model also up to 100 bytes for each token of its vocabulary.
pub const LAYERLINE_ERROR_OUT_OF_MEMORY: layerline_status = -6;
/// The call was interrupted, or its ticket was cancelled.
pub const LAYERLINE_ERROR_CANCELLED: layerline_status = -7;
/// The tokens do not fit into the session's context.
pub const LAYERLINE_ERROR_CONTEXT_FULL: layerline_status = -8;
/// The result is longer than the buffer; *needed says how long.
pub const LAYERLINE_ERROR_BUFFER_TOO_SMALL: layerline_status = -9;
/// Another call is using the handle, which this call needs for itself; or too many events wait to be taken.
pub const LAYERLINE_ERROR_BUSY: layerline_status = -10;
/// A fault inside the library. The handles of that call can only be freed; all others are unharmed.
pub const LAYERLINE_ERROR_INTERNAL: layerline_status = -11;
/// What was named does not exist: a metadata key, a ticket, a chat template.
pub const LAYERLINE_ERROR_NOT_FOUND: layerline_status = -12;

/// Why a call failed: a status and a message that names the file, the tensor, the figures concerned. Functions with a
/// last parameter `err` set it to an error that the caller owns, or to NULL on success.
pub struct layerline_error {
    status: layerline_status,
    message: CString,
}

impl layerline_error {
    pub(super) fn boxed(error: Error) -> *mut layerline_error {
        // A NUL in a message comes from a name in a file: it must not cut the message short.
        let bytes: Vec<u8> = error.message().bytes().map(|byte| if byte == 0 { b' ' } else { byte }).collect();
        let message = CString::new(bytes).unwrap_or_default();
        Box::into_raw(Box::new(layerline_error { status: error.status() as layerline_status, message }))
    }
}

fn describe(status: layerline_status) -> &'static CStr {
    match status {
        LAYERLINE_OK => c"success",
        LAYERLINE_ERROR_INVALID_ARGUMENT => c"invalid argument",
        LAYERLINE_ERROR_IO => c"input/output error",
        LAYERLINE_ERROR_FORMAT => c"malformed file",
        LAYERLINE_ERROR_UNSUPPORTED => c"not supported",
        LAYERLINE_ERROR_MEMORY_BUDGET => c"memory budget too small",
        LAYERLINE_ERROR_OUT_OF_MEMORY => c"out of memory",
        LAYERLINE_ERROR_CANCELLED => c"cancelled",
        LAYERLINE_ERROR_CONTEXT_FULL => c"context full",
        LAYERLINE_ERROR_BUFFER_TOO_SMALL => c"buffer too small",
        LAYERLINE_ERROR_BUSY => c"busy",
        LAYERLINE_ERROR_INTERNAL => c"internal error",
        LAYERLINE_ERROR_NOT_FOUND => c"not found",
        _ => c"unknown status",
    }
}

/// Returns a short English description of a status, "unknown status" for a number that is none. The string is the
/// library's and always valid. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_status_string(status: layerline_status) -> *const c_char {
    describe(status).as_ptr()
}

/// Returns the status of an error; LAYERLINE_OK for NULL. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_error_status(error: *const layerline_error) -> layerline_status {
    caller!().peek(error).map_or(LAYERLINE_OK, |error| error.status)
}

/// Returns the message of an error, UTF-8; "" for NULL. The string is the error's and valid until it is freed.
/// Cannot fail; any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_error_message(error: *const layerline_error) -> *const c_char {
    caller!().peek(error).map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Frees an error; NULL is a no-op. Cannot fail; any thread, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn layerline_error_free(error: *mut layerline_error) {
    caller!().free(error);
}

const _: () = {
    assert!(Status::InvalidArgument as i32 == LAYERLINE_ERROR_INVALID_ARGUMENT);
    assert!(Status::Io as i32 == LAYERLINE_ERROR_IO);
    assert!(Status::Format as i32 == LAYERLINE_ERROR_FORMAT);
    assert!(Status::Unsupported as i32 == LAYERLINE_ERROR_UNSUPPORTED);
    assert!(Status::MemoryBudget as i32 == LAYERLINE_ERROR_MEMORY_BUDGET);
    assert!(Status::OutOfMemory as i32 == LAYERLINE_ERROR_OUT_OF_MEMORY);
    assert!(Status::Cancelled as i32 == LAYERLINE_ERROR_CANCELLED);
    assert!(Status::ContextFull as i32 == LAYERLINE_ERROR_CONTEXT_FULL);
    assert!(Status::BufferTooSmall as i32 == LAYERLINE_ERROR_BUFFER_TOO_SMALL);
    assert!(Status::Busy as i32 == LAYERLINE_ERROR_BUSY);
    assert!(Status::Internal as i32 == LAYERLINE_ERROR_INTERNAL);
    assert!(Status::NotFound as i32 == LAYERLINE_ERROR_NOT_FOUND);
};
