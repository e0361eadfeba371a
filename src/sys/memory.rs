//! What memory the system still has for this process.

/// Bytes of memory that are free, or could be without swapping. `None`: the system does not say.
pub fn free_bytes() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return super::linux::memory::free_bytes();
    #[cfg(target_vendor = "apple")]
    return super::apple::memory::free_bytes();
    #[cfg(target_family = "wasm")]
    return super::wasm::memory::free_bytes();
    #[cfg(windows)]
    return super::windows::memory::free_bytes();
    #[cfg(not(any(
        windows,
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_family = "wasm"
    )))]
    None
}

/// Bytes that the tightest control group above this process leaves it, or on Windows its job object. `None`: there is no
/// limit, or there are no groups.
pub fn group_room() -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return super::linux::memory::group_room();
    #[cfg(windows)]
    return super::windows::memory::job_room();
    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    None
}
