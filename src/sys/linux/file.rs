//! Direct reads on Linux.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::sys::file::DIRECT_ALIGNMENT;
use crate::sys::mapping::map_anonymous;
use crate::sys::unix::file::same_file;

/// Opens the same file again for direct reads, and tries one: some file systems refuse only then.
pub fn reopen_direct(file: &File, probe: u64) -> io::Result<File> {
    // Through the descriptor, not the name: the name may mean another file by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    same_file(file, &direct)?;
    // A mapping begins at a system page.
    let mut buffer = map_anonymous(DIRECT_ALIGNMENT as usize)?;
    loop {
        match direct.read_at(&mut buffer, probe & !(DIRECT_ALIGNMENT - 1)) {
            Ok(_) => return Ok(direct),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// The same file for reads of any length, where the host's descriptor was opened for direct ones: the flag belongs to
/// what both descriptors share, so it is not the library's to clear.
pub fn reopen_buffered(file: File) -> io::Result<File> {
    // SAFETY: a query of a descriptor of our own.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::O_DIRECT == 0 {
        return Ok(file);
    }
    File::options().read(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
