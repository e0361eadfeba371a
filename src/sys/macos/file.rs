//! macOS has no direct reads, but a descriptor that leaves the page cache alone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A second descriptor of the file that leaves the page cache alone.
pub fn without_cache(file: &File) -> io::Result<File> {
    let file = file.try_clone()?;
    // SAFETY: a plain flag on a descriptor of our own.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_NOCACHE, 1) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
