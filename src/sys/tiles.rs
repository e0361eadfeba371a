//! The tile registers of AMX, which a process has to ask for.

/// Whether this process may use them, on all of its threads: asks the system, as often as it is called. A permission is
/// never taken back, and a child made by `fork` has it too.
///
/// With it the system's frames of signal handlers are larger, so that it no longer takes alternative stacks of less than
/// about 12 KiB for them. Where a thread has one already, the permission is refused.
pub fn allow() -> bool {
    #[cfg(target_os = "linux")]
    return super::linux::tiles::allow();
    #[cfg(not(target_os = "linux"))]
    false
}
