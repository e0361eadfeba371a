//! Direct reads on Linux.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use crate::sys::file::DIRECT_ALIGNMENT;
use crate::sys::mapping::map_anonymous;

/// Opens the same file again for direct reads, and tries one: some file systems refuse only then.
pub fn reopen_direct(file: &File, probe: u64) -> io::Result<File> {
    // Through the descriptor, not the name: the name may mean another file by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (a, b) = (file.metadata()?, direct.metadata()?);
    if (a.dev(), a.ino()) != (b.dev(), b.ino()) {
        return Err(io::Error::other("the file was replaced"));
    }
    // A mapping begins at a system page.
    let mut buffer = map_anonymous(DIRECT_ALIGNMENT as usize)?;
    direct.read_at(&mut buffer, probe & !(DIRECT_ALIGNMENT - 1))?;
    Ok(direct)
}
