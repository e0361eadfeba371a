//! arch_prctl(2): permission to use the tile registers of AMX.

/// `ARCH_REQ_XCOMP_PERM` of the system's headers.
const REQUEST_PERMISSION: libc::c_long = 0x1023;
/// The number of the tiles' contents among the parts of a thread's state.
const TILE_DATA: libc::c_long = 18;

/// Linux 5.16 or later keeps the eight KiB of a thread's tiles only for processes that have asked.
pub fn allow() -> bool {
    // SAFETY: numbers alone; where the call is not known or not allowed, nothing changes.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}
