//! sched_setattr(2): the length of a thread's turn.

/// The turn that the background threads ask the scheduler for. A tenth of it was no better.
const TURN_NS: u64 = 500_000;

const SIZE: u32 = size_of::<Attributes>() as u32;
/// SCHED_OTHER.
const ORDINARY: u32 = 0;

/// The kernel's `struct sched_attr` in its first version, which every kernel takes. Not every C library has it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Linux 6.12 or later takes the length of a turn from `sched_runtime` of ordinary threads; earlier ones ignore it.
pub fn take_short_turns() {
    let mut now = Attributes::default();
    // SAFETY: the system writes at most `SIZE` bytes to what it is given; thread 0 is the calling one.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut now, SIZE, 0) } == 0;
    // A host that has chosen another policy for its threads keeps it.
    if known && now.policy == ORDINARY {
        let wish = Attributes { size: SIZE, runtime: TURN_NS, ..now };
        // SAFETY: the structure is only read.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) };
    }
}
