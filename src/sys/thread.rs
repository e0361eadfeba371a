//! Hints to the scheduler, and the process that threads belong to.

/// The process in which something with threads was made. A child made by `fork` has a copy of the memory, but none of the
/// threads: whoever waited for one there would wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeProcess(u32);

impl Default for HomeProcess {
    /// The process that runs.
    fn default() -> HomeProcess {
        HomeProcess(std::process::id())
    }
}

impl HomeProcess {
    /// Whether this is still that process, and not a child of it.
    pub fn is_here(self) -> bool {
        self.0 == std::process::id()
    }
}

/// Asks the scheduler to let this thread run soon after it wakes, however busy the processors are: the loader and the
/// readers run for microseconds at a time, and storage idles while they wait for a core that a compute thread uses up its
/// turn on. Measured on two busy cores, with what a pass streams about equal to what it computes: a twelfth less time.
///
/// It is a wish: where it is refused, nothing else changes.
pub fn take_short_turns() {
    #[cfg(target_os = "linux")]
    super::linux::thread::take_short_turns();
}
