//! The GGUF file format: bytes in, checked metadata and tensor directory out. No file access policy.
//!
//! [`open_split`] is the entry for models: it reads the first file through an [`Input`], asks its caller for the others
//! of a split by name, and gives a [`Directory`]. [`read_file`] reads one file. [`write`] makes files, for tests and tools.
//!
//! Everything in a file is hostile until checked: nothing here panics on any input, and nothing is allocated for what
//! the file only claims to hold. Integers are little-endian; versions 2 and 3 of the format are read.

use crate::error::Result;

mod cursor;
mod directory;
mod metadata;
mod read;
mod split;
#[cfg(test)]
mod tests;
mod value;
pub mod write;

pub use directory::{Directory, Part};
pub use metadata::Metadata;
pub use read::{File, MAX_TENSOR_NAME, read_file, read_file_within};
pub use split::{SPLIT_SUFFIX_LEN, open_split, split_suffix};
pub use value::{Array, Strings, Value, value_as_text};
pub(crate) use write::write_value;

/// Where the bytes of one file come from. Reads are exact: a short file is an error that says so.
pub trait Input {
    /// Length of the file in bytes.
    fn len(&self) -> u64;

    /// Fills `buf` from `offset`, or fails.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Input + ?Sized> Input for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

/// A file that is already in memory.
impl Input for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let source = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or_else(|| {
                let (wanted, length) = (buf.len(), self.len());
                crate::Error::io(format!("cannot read {wanted} bytes at offset {offset} of {length} bytes"))
            })?;
        buf.copy_from_slice(source);
        Ok(())
    }
}

impl Input for Vec<u8> {
    fn len(&self) -> u64 {
        Input::len(self.as_slice())
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.as_slice().read_exact_at(offset, buf)
    }
}

/// One tensor of the directory, checked: it lies inside its file and its size follows from its type and dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    pub name: String,
    pub format: crate::quant::Format,
    /// `dims[0]` is the contiguous (input) dimension; 1 to 4 dimensions, absent ones are 1.
    pub dims: [u64; 4],
    pub dim_count: u32,
    /// Which file of a split holds it, from 0.
    pub file: u32,
    /// Offset of its first byte in that file.
    pub offset: u64,
    pub bytes: u64,
}

impl Tensor {
    /// The dimensions the file states, 1 to 4 of them.
    pub fn shape(&self) -> &[u64] {
        &self.dims[..self.dim_count as usize]
    }

    /// Rows of `dims[0]` elements: the product of the other dimensions.
    pub fn rows(&self) -> u64 {
        self.dims[1..].iter().product()
    }

    /// Elements in all; the reader has checked that the product does not overflow.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> u64 {
        self.bytes / self.rows()
    }
}
