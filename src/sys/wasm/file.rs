//! Files of WASI, which have descriptors as those of Unix.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open as long as the file is borrowed, and the buffer has as many bytes.
    let read = unsafe { libc::pread(file.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), offset) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}
