//! What stands for mappings where there are none: memory of the heap, aligned as pages are.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// What the addresses of pages are multiples of.
const ALIGNMENT: usize = 4096;

/// A file that is mapped: there are none.
pub struct FileMapping(std::convert::Infallible);

impl FileMapping {
    /// # Errors
    /// Always.
    pub fn map(_: &File) -> io::Result<FileMapping> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "this system maps no files; choose automatic or buffered reads"))
    }
}

impl Deref for FileMapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self.0 {}
    }
}

/// Zeroed memory that belongs to nobody else.
pub struct RawMapping {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory, and lends none of it.
unsafe impl Send for RawMapping {}
// SAFETY: as above.
unsafe impl Sync for RawMapping {}

impl RawMapping {
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for RawMapping {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody has it after this.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// The same, lent as bytes.
pub struct AnonymousMapping(RawMapping);

impl AnonymousMapping {
    /// Memory of `bytes`, at least one.
    pub fn map_anon(bytes: usize) -> io::Result<AnonymousMapping> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(io::Error::other)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) });
        Ok(AnonymousMapping(RawMapping { start: start.ok_or(io::ErrorKind::OutOfMemory)?, layout }))
    }
}

impl Deref for AnonymousMapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory of this length, borrowed as long as the result.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

impl DerefMut for AnonymousMapping {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr(), self.0.len()) }
    }
}

impl From<AnonymousMapping> for RawMapping {
    fn from(mapping: AnonymousMapping) -> RawMapping {
        mapping.0
    }
}
