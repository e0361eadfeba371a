//! The page cache: what it holds of a model would be read from it, not from storage, and is charged to whichever group
//! read it first. So each run begins with none of the file in it.

use std::fs::File;
use std::path::Path;

use crate::Result;

/// Makes the page cache forget the file; how many of its bytes it holds all the same.
pub fn forget(path: &Path) -> Result<u64> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    advise(&file);
    let kept = cached(&file).map_err(failed)?;
    if kept > 0 {
        // Needs root; where it is refused the caller learns what is left.
        let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
        return cached(&file).map_err(failed);
    }
    Ok(kept)
}

#[cfg(target_os = "linux")]
fn advise(file: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; the call touches no memory of this process.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &File) {}

#[cfg(target_os = "linux")]
fn cached(file: &File) -> std::io::Result<u64> {
    const PAGE: usize = 4096;
    // SAFETY: nothing is read through the mapping; it is only asked about.
    let map = unsafe { memmap2::Mmap::map(file)? };
    let mut pages = vec![0u8; map.len().div_ceil(PAGE)];
    // SAFETY: the mapping is whole, and there is a byte for each of its pages.
    let status = unsafe { libc::mincore(map.as_ptr() as *mut libc::c_void, map.len(), pages.as_mut_ptr()) };
    if status != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|p| **p & 1 == 1).count() as u64 * PAGE as u64)
}

#[cfg(not(target_os = "linux"))]
fn cached(_: &File) -> std::io::Result<u64> {
    Ok(0)
}
