//! Mappings: anonymous pages, and files.

use std::fs::File;
use std::io;

/// A file mapped for reading.
#[cfg(not(target_family = "wasm"))]
pub use memmap2::Mmap as FileMapping;

/// Anonymous pages, zeroed, that belong to nobody else.
#[cfg(not(target_family = "wasm"))]
pub use memmap2::MmapMut as AnonymousMapping;

/// The same as an address and a length, for memory that threads share: it lends no references.
#[cfg(not(target_family = "wasm"))]
pub use memmap2::MmapRaw as RawMapping;

#[cfg(target_family = "wasm")]
pub use super::wasm::mapping::{AnonymousMapping, FileMapping, RawMapping};

/// Whether addresses that are mapped and not touched take no memory, and what is discarded goes back to the system. Elsewhere
/// memory is taken only as it is needed, and kept.
pub const LAZY: bool = !cfg!(target_family = "wasm");

/// Maps `bytes` of anonymous memory, at least one. It takes no room before it is touched.
pub fn map_anonymous(bytes: usize) -> io::Result<AnonymousMapping> {
    AnonymousMapping::map_anon(bytes)
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
