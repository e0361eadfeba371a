//! sched_setattr(2): the length of a thread's turn.

/// The turn that the background threads ask the scheduler for. A tenth of it was no better.
const TURN_NS: u64 = 500_000;

const SIZE: u32 = size_of::<libc::sched_attr>() as u32;
const ORDINARY: u32 = libc::SCHED_OTHER as u32;

/// Linux 6.12 or later takes the length of a turn from `sched_runtime` of ordinary threads; earlier ones ignore it.
pub fn take_short_turns() {
    // SAFETY: numbers alone, for which zero is a value.
    let mut now: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the system writes at most `SIZE` bytes to what it is given; thread 0 is the calling one.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0) } == 0;
    // A host that has chosen another policy for its threads keeps it.
    if known && now.sched_policy == ORDINARY {
        let wish = libc::sched_attr { size: SIZE, sched_runtime: TURN_NS, ..now };
        // SAFETY: the structure is only read.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
    }
}
