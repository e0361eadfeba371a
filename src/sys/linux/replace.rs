//! Files without a name.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A new file without a name, which only its owner can read, for [`link`].
///
/// # Errors
/// The file system has no such files, or the process does not see its descriptors in `/proc`.
pub fn unnamed(folder: &Path) -> io::Result<File> {
    let file = File::options().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(folder)?;
    fs::metadata(descriptor(&file))?;
    Ok(file)
}

/// Gives a file without a name one that nothing has yet.
pub fn link(file: &File, path: &Path) -> io::Result<()> {
    let [from, to] = [&descriptor(file), path].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (from, to) = (from?, to?);
    let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
    // SAFETY: both end in NUL, and are only read.
    match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
