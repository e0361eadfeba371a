//! Mappings: anonymous pages, and files.

use std::fs::File;
use std::io;

/// A file mapped for reading.
#[cfg(not(target_family = "wasm"))]
pub use memmap2::Mmap as FileMapping;

#[cfg(windows)]
pub use super::windows::pages::Pages as AnonymousMapping;
/// Anonymous pages, zeroed, that belong to nobody else.
#[cfg(not(any(windows, target_family = "wasm")))]
pub use memmap2::MmapMut as AnonymousMapping;

#[cfg(windows)]
pub use super::windows::pages::Pages as RawMapping;
/// The same as an address and a length, for memory that threads share: it lends no references.
#[cfg(not(any(windows, target_family = "wasm")))]
pub use memmap2::MmapRaw as RawMapping;

#[cfg(target_family = "wasm")]
pub use super::wasm::mapping::{AnonymousMapping, FileMapping, RawMapping};

/// Whether addresses that are mapped and not touched take no memory, and what is discarded goes back to the system. Elsewhere
/// memory is taken only as it is needed, and kept.
pub const LAZY: bool = !cfg!(target_family = "wasm");

/// Maps `bytes` of anonymous memory, at least one. It takes no room before it is touched; on Windows it counts as committed
/// at once.
pub fn map_anonymous(bytes: usize) -> io::Result<AnonymousMapping> {
    #[cfg(windows)]
    return AnonymousMapping::new(bytes);
    #[cfg(not(windows))]
    AnonymousMapping::map_anon(bytes)
}

/// Addresses for `bytes` of anonymous memory, at least one, which is there where it has been committed.
pub fn reserve(bytes: usize) -> io::Result<RawMapping> {
    #[cfg(windows)]
    return RawMapping::reserve(bytes);
    #[cfg(not(windows))]
    map_anonymous(bytes).map(RawMapping::from)
}

/// Memory for parts of the given sizes, end to end, in large pages, for systems where those must be asked for at once.
/// `None`: they are not to be had, or come by [`super::pages::advise_huge`].
pub fn map_in_large_pages(sizes: &[usize]) -> Option<RawMapping> {
    #[cfg(windows)]
    return RawMapping::with_large(sizes);
    #[cfg(not(windows))]
    {
        let _ = sizes;
        None
    }
}

/// Sees to it that a range of reserved memory is there. What is there does not change.
///
/// # Errors
/// The system cannot back it.
pub fn commit(map: &RawMapping, offset: usize, len: usize) -> io::Result<()> {
    #[cfg(windows)]
    return map.commit(offset, len);
    #[cfg(not(windows))]
    {
        let _ = (map, offset, len);
        Ok(())
    }
}

/// Maps a whole file for reading.
pub fn map_file(file: &File) -> io::Result<FileMapping> {
    #[cfg(target_family = "wasm")]
    return FileMapping::map(file);
    #[cfg(not(target_family = "wasm"))]
    // SAFETY: the file may change under the mapping; the bytes are only ever read as numbers, any of which is valid, and
    // a shrinking file is checked for before use. Hosts choose this mode knowing that.
    unsafe {
        FileMapping::map(file)
    }
}
