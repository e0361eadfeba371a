//! There are no direct reads here, but descriptors that leave the page cache alone.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::sys::unix::file::same_file;

/// Opens the same file again, and lets the new descriptor leave the page cache alone. A duplicate would not do: the flag
/// belongs to what duplicates share, so a host's own descriptor would change too.
pub fn without_cache(file: &File) -> io::Result<File> {
    let mut name = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the system writes a path of at most PATH_MAX bytes, its end included.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETPATH, name.as_mut_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    let other = File::open(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))?;
    same_file(file, &other)?;
    // SAFETY: a plain flag on a descriptor of our own.
    if unsafe { libc::fcntl(other.as_raw_fd(), libc::F_NOCACHE, 1) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(other)
}
