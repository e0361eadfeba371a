//! The GGUF file format: bytes in, checked metadata and tensor directory out. No file access policy.

use crate::error::Result;

/// Where the bytes of one file come from. Reads are exact: a short file is an error that says so.
pub trait Input {
    /// Length of the file in bytes.
    fn len(&self) -> u64;
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes as the file has them: meant to be UTF-8, not checked.
    String(Box<[u8]>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array. Strings are stored end to end, because a vocabulary has hundreds of thousands of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Strings),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Byte strings stored end to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Strings {
    pub bytes: Vec<u8>,
    /// End of string i in `bytes`; it starts where i-1 ends.
    pub ends: Vec<u32>,
}

/// The metadata of a model: all files of a split together, keys in file order.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub entries: Vec<(String, Value)>,
}

/// One tensor of the directory, checked: it lies inside its file and its size follows from its type and dimensions.
#[derive(Clone, Debug)]
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
