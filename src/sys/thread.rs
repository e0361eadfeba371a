//! Hints to the scheduler, the process that threads belong to, and threads that a host cancels.

/// The process in which something with threads was made. A child made by `fork` has a copy of the memory, but none of the
/// threads: a thread that waited for one there would wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeProcess(u32);

impl Default for HomeProcess {
    /// The process that runs.
    fn default() -> HomeProcess {
        HomeProcess(process())
    }
}

impl HomeProcess {
    /// Whether this is still that process, and not a child of it.
    pub fn is_here(self) -> bool {
        self.0 == process()
    }
}

/// The number of this process. A module of WebAssembly has none, and is never copied while it runs.
fn process() -> u32 {
    if cfg!(target_family = "wasm") { 0 } else { std::process::id() }
}

/// Whether there can be other threads, which could do what one waits for.
pub const THREADS: bool = !cfg!(all(target_family = "wasm", not(target_feature = "atomics")));

/// As long as it lives, a request to cancel this thread (`pthread_cancel`) waits. To end a thread by unwinding frames of
/// Rust would end the process. Android has no such requests.
pub struct Uncancelled {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    before: std::ffi::c_int,
    /// It is about one thread.
    thread: std::marker::PhantomData<*const ()>,
}

impl Uncancelled {
    pub fn begin() -> Uncancelled {
        Uncancelled {
            #[cfg(any(target_os = "linux", target_vendor = "apple"))]
            before: super::unix::thread::disable_cancellation(),
            thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        super::unix::thread::restore_cancellation(self.before);
    }
}

/// Asks the scheduler to let this thread run soon after it wakes, however busy the processors are: the loader and the
/// readers run for microseconds at a time, and storage idles while they wait for a core that a compute thread uses up its
/// turn on. Measured on two busy cores, with what a pass streams about equal to what it computes: a twelfth less time.
///
/// It is a wish: where it is refused, nothing else changes.
pub fn take_short_turns() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    super::linux::thread::take_short_turns();
    #[cfg(target_vendor = "apple")]
    super::apple::thread::take_short_turns();
    #[cfg(windows)]
    super::windows::thread::take_short_turns();
}
