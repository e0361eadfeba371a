//! Files: opening without waiting, reads at an offset, direct reads, descriptors of a host.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Offsets, lengths and addresses of direct reads are multiples of this, which no device in use exceeds.
pub const DIRECT_ALIGNMENT: u64 = 4096;

/// Opens a file, which may turn out to be no regular one: a pipe without a writer is not waited for.
pub fn open_for_reading(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    #[cfg(unix)]
    super::unix::file::without_waiting(&mut options);
    options.read(true).open(path)
}

/// Reads up to `buf.len()` bytes at `offset`, without moving the file's position; 0 at the end of the file.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    return super::unix::file::read_at(file, buf, offset);
    #[cfg(windows)]
    return super::windows::file::read_at(file, buf, offset);
    #[cfg(target_os = "wasi")]
    return super::wasm::file::read_at(file, buf, offset);
    #[cfg(not(any(unix, windows, target_os = "wasi")))]
    {
        let _ = (file, buf, offset);
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// Opens the same file again for reads that leave the page cache alone. `probe` is a place in it that may be read to
/// find out whether the file system grants them.
pub fn reopen_direct(file: &File, probe: u64) -> io::Result<File> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return super::linux::file::reopen_direct(file, probe);
    #[cfg(target_vendor = "apple")]
    {
        let _ = probe;
        super::apple::file::without_cache(file)
    }
    #[cfg(windows)]
    return super::windows::file::reopen_direct(file, probe);
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", windows)))]
    {
        let _ = (file, probe);
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// The same file for reads of any length at any offset, which a descriptor opened for direct reads refuses, and for several
/// at a time, which Windows does one after another where a file was opened for ordinary ones.
pub fn reopen_buffered(file: File) -> io::Result<File> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return super::linux::file::reopen_buffered(file);
    // A host that shares its file with nobody keeps others from opening it.
    #[cfg(windows)]
    return Ok(super::windows::file::reopen_overlapped(&file).unwrap_or(file));
    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    Ok(file)
}

/// Whether an error means that direct reads are not possible here, not that something is wrong.
pub fn refuses_direct(e: &io::Error) -> bool {
    #[cfg(unix)]
    return super::unix::file::refuses_direct(e);
    #[cfg(windows)]
    return super::windows::file::refuses_direct(e);
    #[cfg(not(any(unix, windows)))]
    return e.kind() == io::ErrorKind::Unsupported;
}

/// Duplicates a file descriptor of the host, who keeps and closes its own.
///
/// # Errors
/// `InvalidInput`: it is not a descriptor that is open; `Unsupported`: the system has no descriptors.
pub fn duplicate(descriptor: i32) -> io::Result<File> {
    #[cfg(unix)]
    return super::unix::file::duplicate(descriptor);
    #[cfg(not(unix))]
    {
        let _ = descriptor;
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// The path with its last `suffix.len()` bytes replaced. It need not be UTF-8. `None`: it is shorter than that, or the
/// system cannot tell its bytes.
pub fn with_suffix(path: &Path, suffix: &str) -> Option<PathBuf> {
    #[cfg(unix)]
    return super::unix::file::with_suffix(path, suffix);
    #[cfg(not(unix))]
    {
        let text = path.to_str()?;
        let keep = text.get(..text.len().checked_sub(suffix.len())?)?;
        Some(PathBuf::from(format!("{keep}{suffix}")))
    }
}
