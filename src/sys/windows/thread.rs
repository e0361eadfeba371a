//! Priorities of threads.

use windows_sys::Win32::System::Threading::{
    GetCurrentThread, GetThreadPriority, SetThreadPriority, THREAD_PRIORITY_ABOVE_NORMAL, THREAD_PRIORITY_NORMAL,
};

/// One step above the process's ordinary threads: Windows has no turns of a length of one's own, and a thread that is ready
/// runs before those of a lesser priority.
pub fn take_short_turns() {
    // SAFETY: both calls take the calling thread's pseudo handle and numbers.
    unsafe {
        // A host that has chosen another priority keeps it.
        if GetThreadPriority(GetCurrentThread()) == THREAD_PRIORITY_NORMAL {
            SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_ABOVE_NORMAL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_thread_is_raised_by_one_step_and_another_one_keeps_its_priority() {
        let raised_from = |before| {
            let thread = std::thread::spawn(move || {
                // SAFETY: the calling thread's pseudo handle and numbers.
                unsafe { SetThreadPriority(GetCurrentThread(), before) };
                take_short_turns();
                // SAFETY: as above.
                unsafe { GetThreadPriority(GetCurrentThread()) }
            });
            thread.join().unwrap()
        };
        assert_eq!(raised_from(THREAD_PRIORITY_NORMAL), THREAD_PRIORITY_ABOVE_NORMAL);
        assert_eq!(raised_from(-2), -2);
    }
}
