//! Cancellation of threads, which the standard library does not know.

use std::ffi::c_int;

#[cfg(target_vendor = "apple")]
const DISABLE: c_int = 0;
#[cfg(not(target_vendor = "apple"))]
const DISABLE: c_int = 1;

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// Leaves requests to cancel this thread waiting; how it was before.
pub fn disable_cancellation() -> c_int {
    set(DISABLE)
}

/// Puts back what [`disable_cancellation`] gave.
pub fn restore_cancellation(before: c_int) {
    set(before);
}

fn set(state: c_int) -> c_int {
    let mut before = state;
    // SAFETY: the state is one of the two that there are, and the place of the one before may be written.
    unsafe { pthread_setcancelstate(state, &raw mut before) };
    before
}
