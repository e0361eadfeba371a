//! What a process may really use, for a budget of 0.

use crate::sys::memory::{free_bytes, group_room};

/// Left in a cgroup to the host and to what no accounting sees: 16 MiB, and no less than a 64th.
///
/// Measured with `scripts/headroom.py`: a program that only generates needs nothing beside the budget in groups of 64 MiB
/// to 640 MiB, in one of seven 512 KiB: its own pages and the system's tables weigh less than what the budget
/// counts in full and a pass hardly touches, as the stacks of threads. What is left is therefore the host's.
const GROUP_HEADROOM_LEAST: u64 = 16 << 20;
const GROUP_HEADROOM_PART: u64 = 64;
/// Left of the machine's free memory, which is an estimate, and which all its programs share.
const FREE_HEADROOM_PART: u64 = 16;

/// The memory this process may still take: what its cgroup leaves it, or what is free, the lesser, each without some
/// headroom. 0 where the system does not say.
pub fn automatic_budget() -> u64 {
    let free = free_bytes().map(|free| free - free / FREE_HEADROOM_PART);
    let group = group_room().map(|room| room.saturating_sub((room / GROUP_HEADROOM_PART).max(GROUP_HEADROOM_LEAST)));
    match (free, group) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b).unwrap_or(0),
    }
}
