//! Files on Unix.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub fn without_waiting(options: &mut OpenOptions) {
    options.custom_flags(libc::O_NONBLOCK);
}

pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    FileExt::read_at(file, buf, offset)
}

/// Whether two descriptors are of one file.
///
/// # Errors
/// They are not: the name by which the second was opened means another file by now.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
pub fn same_file(a: &File, b: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let (a, b) = (a.metadata()?, b.metadata()?);
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) { Ok(()) } else { Err(io::Error::other("the file was replaced")) }
}

pub fn refuses_direct(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::Unsupported || matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

pub fn duplicate(descriptor: i32) -> io::Result<File> {
    // SAFETY: the call takes any number, and a descriptor of ours is not given to the host.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        let cause = io::Error::last_os_error();
        let bad = cause.raw_os_error() == Some(libc::EBADF);
        return Err(if bad { io::Error::new(io::ErrorKind::InvalidInput, cause) } else { cause });
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(copy) })
}

pub fn with_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    let bytes = path.as_os_str().as_bytes();
    let keep = bytes.get(..bytes.len().checked_sub(suffix.len())?)?;
    Some(PathBuf::from(OsString::from_vec([keep, suffix.as_bytes()].concat())))
}
