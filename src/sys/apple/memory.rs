//! What is left before the system ends the app, or on macOS, before it swaps.

/// What the app may still take: the system ends one that takes more.
#[cfg(not(target_os = "macos"))]
pub fn free_bytes() -> Option<u64> {
    unsafe extern "C" {
        fn os_proc_available_memory() -> usize;
    }
    // SAFETY: it takes nothing and gives a number, 0 for a process without a limit.
    match unsafe { os_proc_available_memory() } {
        0 => None,
        bytes => Some(bytes as u64),
    }
}

/// Pages that are free, hold parts of files, or are marked as not worth keeping.
#[cfg(target_os = "macos")]
pub fn free_bytes() -> Option<u64> {
    // SAFETY: numbers alone, for which zero is a value.
    let mut now: libc::vm_statistics64 = unsafe { std::mem::zeroed() };
    let mut count = libc::HOST_VM_INFO64_COUNT;
    // SAFETY: the system writes at most `count` words to what it is given.
    let done = unsafe {
        #[allow(deprecated)]
        let host = libc::mach_host_self();
        libc::host_statistics64(host, libc::HOST_VM_INFO64, (&raw mut now).cast(), &mut count)
    };
    if done != libc::KERN_SUCCESS {
        return None;
    }
    let pages = [now.free_count, now.external_page_count, now.purgeable_count].map(u64::from);
    Some(pages.iter().sum::<u64>() * crate::sys::pages::page_bytes() as u64)
}
