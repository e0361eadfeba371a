//! The linear memory.

/// Bytes by which the memory of this module could still grow, if the host lets it: 32-bit addresses reach 4 GiB.
#[cfg(target_arch = "wasm32")]
pub fn free_bytes() -> Option<u64> {
    const PAGES: u64 = 1 << 16;
    const PAGE_BYTES: u64 = 1 << 16;
    Some((PAGES - core::arch::wasm32::memory_size::<0>() as u64) * PAGE_BYTES)
}

/// With 64-bit addresses only the host knows.
#[cfg(not(target_arch = "wasm32"))]
pub fn free_bytes() -> Option<u64> {
    None
}
