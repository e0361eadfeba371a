//! Reads one file: header, metadata, tensor directory. Nothing of the weights is touched.

use super::cursor::Cursor;
use super::value::{Array, Strings, Value};
use super::{Input, Metadata, Tensor};
use crate::error::{Error, Result};
use crate::order;
use crate::quant::Format;
use crate::quant::layout::type_name;
use crate::sys::heap;

/// The longest tensor name, in bytes, as the format's specification has it.
pub const MAX_TENSOR_NAME: u64 = 64;

/// The longest metadata key, in bytes, as the format's specification has it.
const MAX_KEY: u64 = 65535;

/// Arrays in arrays are allowed by the format and used by nobody; this keeps the stack safe.
const MAX_DEPTH: u32 = 4;

/// Where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Above any page size in use, and far from overflow.
const MAX_ALIGNMENT: u64 = 1 << 30;

/// The least a metadata entry takes in the file: a key of one byte with its length, a type, a value of one byte.
const LEAST_ENTRY: u64 = 8 + 1 + 4 + 1;

/// The least a tensor takes in the directory: a name of one byte with its length, one dimension, type and offset.
const LEAST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// What one file says, checked.
#[derive(Clone, Debug)]
pub struct File {
    pub version: u32,
    /// A power of two; the tensor data and every tensor in it start at a multiple of it.
    pub alignment: u64,
    pub metadata: Metadata,
    /// In file order; their `file` is 0.
    pub tensors: Vec<Tensor>,
    /// Where the tensor data starts. May lie past the end of a file without tensors.
    pub data_offset: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
}

/// Reads the header, metadata and tensor directory of one file. `name` is put in front of messages.
///
/// # Errors
/// `FORMAT`: not GGUF, truncated, contradictory, out of range. `UNSUPPORTED`: a version other than 2 and 3, a file with
/// the other byte order, a tensor type without a decoder. `IO`: as the input reports it.
pub fn read_file(input: &dyn Input, name: &str) -> Result<File> {
    read_file_within(input, name, u64::MAX)
}

/// As [`read_file`], and fails with `MEMORY_BUDGET` before metadata and directory take more than `limit` bytes of memory.
pub fn read_file_within(input: &dyn Input, name: &str, limit: u64) -> Result<File> {
    read(&mut Cursor::new(input, limit)).map_err(|error| error.context(name))
}

fn read(cursor: &mut Cursor) -> Result<File> {
    let version = read_version(cursor)?;
    let tensor_count = cursor.u64("the header's tensor count")?;
    let entry_count = cursor.u64("the header's metadata count")?;
    let metadata = read_metadata(cursor, entry_count)?;
    let alignment = read_alignment(&metadata)?;
    let mut tensors = read_directory(cursor, tensor_count)?;
    let data_offset = cursor.offset().checked_next_multiple_of(alignment);
    let data_offset = data_offset.ok_or_else(|| Error::format("the tensor data starts past any file"))?;
    for tensor in &mut tensors {
        place(tensor, alignment, data_offset, cursor.length())?;
    }
    refuse_duplicates(cursor, &tensors)?;
    refuse_overlaps(cursor, &tensors)?;
    Ok(File { version, alignment, metadata, tensors, data_offset, bytes: cursor.length() })
}

fn read_version(cursor: &mut Cursor) -> Result<u32> {
    if cursor.length() < 4 {
        return Err(Error::format(format!("not a GGUF file: it has {} bytes", cursor.length())));
    }
    let magic: [u8; 4] = cursor.array("the magic")?;
    if magic != *b"GGUF" {
        let [a, b, c, d] = magic;
        return Err(Error::format(format!(
            "not a GGUF file: it starts with bytes {a:02x} {b:02x} {c:02x} {d:02x}, not 47 47 55 46"
        )));
    }
    let version = cursor.u32("the header's version")?;
    match version {
        2 | 3 => Ok(version),
        // A small number with its bytes swapped: the file was written for machines of the other byte order.
        _ if version & 0xffff == 0 && version != 0 => Err(Error::unsupported(format!(
            "a big-endian GGUF file (version {}); only little-endian files are read",
            version.swap_bytes()
        ))),
        _ => Err(Error::unsupported(format!("GGUF version {version}; versions 2 and 3 are read"))),
    }
}

fn read_metadata(cursor: &mut Cursor, count: u64) -> Result<Metadata> {
    cursor.expect(count, LEAST_ENTRY, "metadata entries")?;
    let mut metadata = Metadata::default();
    for i in 0..count {
        let key = read_key(cursor).map_err(|error| error.context(format!("metadata entry {i} of {count}")))?;
        let value = read_value(cursor).map_err(|error| error.context(format!("metadata key {key:?}")))?;
        cursor.push(&mut metadata.entries, (key, value))?;
    }
    metadata.entries.shrink_to_fit();
    let order = sorted(cursor, metadata.entries.len(), |i| &metadata.entries[i].0)?;
    for pair in order.windows(2) {
        let [(a, _), (b, _)] = [&metadata.entries[pair[0] as usize], &metadata.entries[pair[1] as usize]];
        if a == b {
            return Err(Error::format(format!("metadata key {a:?} occurs twice")));
        }
    }
    Ok(metadata)
}

fn read_key(cursor: &mut Cursor) -> Result<String> {
    let length = cursor.u64("a key's length")?;
    if length == 0 || length > MAX_KEY {
        return Err(Error::format(format!("the key has {length} bytes; keys have 1 to {MAX_KEY}")));
    }
    let bytes = read_bytes(cursor, length, "the key")?;
    String::from_utf8(bytes).map_err(|_| Error::format("the key is not UTF-8"))
}

/// `length` bytes as they are, after a check that the file has them.
fn read_bytes(cursor: &mut Cursor, length: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    cursor.expect(length, 1, "bytes of a string")?;
    cursor.reserve(&mut bytes, to_usize(length)?)?;
    bytes.resize(length as usize, 0);
    cursor.read_into(&mut bytes, what)?;
    Ok(bytes)
}

fn read_value(cursor: &mut Cursor) -> Result<Value> {
    const VALUE: &str = "the value";
    let id = cursor.u32("the value's type")?;
    Ok(match id {
        0 => Value::U8(u8::from_le_bytes(cursor.array(VALUE)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(VALUE)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(VALUE)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(VALUE)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.array(VALUE)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.array(VALUE)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(VALUE)?)),
        7 => Value::Bool(to_bool(cursor.array(VALUE)?)?),
        8 => {
            let length = cursor.u64("the string's length")?;
            Value::String(read_bytes(cursor, length, "the string")?.into_boxed_slice())
        }
        9 => Value::Array(read_array(cursor, 1)?),
        10 => Value::U64(u64::from_le_bytes(cursor.array(VALUE)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.array(VALUE)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(VALUE)?)),
        _ => return Err(unknown_type(id)),
    })
}

fn unknown_type(id: u32) -> Error {
    Error::format(format!("value type {id} is not one of 0 to 12"))
}

fn to_bool(byte: [u8; 1]) -> Result<bool> {
    match byte[0] {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::format(format!("a bool is stored as {other}, not as 0 or 1"))),
    }
}

fn to_usize(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::out_of_memory(format!("{n} bytes are more than this machine can address")))
}

fn read_array(cursor: &mut Cursor, depth: u32) -> Result<Array> {
    let id = cursor.u32("the array's element type")?;
    let count = cursor.u64("the array's length")?;
    Ok(match id {
        0 => Array::U8(scalars(cursor, count, |b| Ok(u8::from_le_bytes(b)))?),
        1 => Array::I8(scalars(cursor, count, |b| Ok(i8::from_le_bytes(b)))?),
        2 => Array::U16(scalars(cursor, count, |b| Ok(u16::from_le_bytes(b)))?),
        3 => Array::I16(scalars(cursor, count, |b| Ok(i16::from_le_bytes(b)))?),
        4 => Array::U32(scalars(cursor, count, |b| Ok(u32::from_le_bytes(b)))?),
        5 => Array::I32(scalars(cursor, count, |b| Ok(i32::from_le_bytes(b)))?),
        6 => Array::F32(scalars(cursor, count, |b| Ok(f32::from_le_bytes(b)))?),
        7 => Array::Bool(scalars(cursor, count, to_bool)?),
        8 => Array::String(read_strings(cursor, count)?),
        9 if depth == MAX_DEPTH => {
            return Err(Error::format(format!("arrays are nested more than {MAX_DEPTH} deep")));
        }
        9 => {
            // Each has a type and a length at least.
            cursor.expect(count, 4 + 8, "arrays")?;
            let mut arrays = Vec::new();
            for _ in 0..count {
                let array = read_array(cursor, depth + 1)?;
                cursor.push(&mut arrays, array)?;
            }
            arrays.shrink_to_fit();
            Array::Array(arrays)
        }
        10 => Array::U64(scalars(cursor, count, |b| Ok(u64::from_le_bytes(b)))?),
        11 => Array::I64(scalars(cursor, count, |b| Ok(i64::from_le_bytes(b)))?),
        12 => Array::F64(scalars(cursor, count, |b| Ok(f64::from_le_bytes(b)))?),
        _ => return Err(unknown_type(id)),
    })
}

/// `count` elements of `N` bytes each.
fn scalars<T, const N: usize>(
    cursor: &mut Cursor,
    count: u64,
    decode: impl Fn([u8; N]) -> Result<T>,
) -> Result<Vec<T>> {
    cursor.expect(count, N as u64, "array elements")?;
    let mut values = Vec::new();
    let count = to_usize(count)?;
    cursor.reserve(&mut values, count)?;
    let mut chunk = [[0; N]; 512];
    while values.len() < count {
        let part = &mut chunk[..(count - values.len()).min(512)];
        cursor.read_into(part.as_flattened_mut(), "the array")?;
        for bytes in part {
            values.push(decode(*bytes)?);
        }
    }
    Ok(values)
}

/// Two passes, so that a vocabulary is allocated once at its exact size and never copied: first the lengths are added
/// up, then the strings are read.
fn read_strings(cursor: &mut Cursor, count: u64) -> Result<Strings> {
    cursor.expect(count, 8, "strings")?;
    let start = cursor.offset();
    let mut total = 0;
    for _ in 0..count {
        let length = cursor.u64("a string's length")?;
        cursor.skip(length, "a string")?;
        // No overflow: every part has been found in the file.
        total += length;
    }
    if total > u64::from(u32::MAX) {
        return Err(Error::format(format!("the strings of the array have {total} bytes; at most 4 GiB are read")));
    }
    let mut strings = Strings::default();
    cursor.reserve(&mut strings.ends, to_usize(count)?)?;
    cursor.reserve(&mut strings.bytes, to_usize(total)?)?;
    cursor.seek(start);
    for _ in 0..count {
        let length = cursor.u64("a string's length")?;
        let at = strings.bytes.len();
        // Only a file that changes between the passes gets here.
        if length > total - at as u64 {
            return Err(Error::io("the file changed while it was read"));
        }
        strings.bytes.resize(at + length as usize, 0);
        cursor.read_into(&mut strings.bytes[at..], "a string")?;
        strings.ends.push(strings.bytes.len() as u32);
    }
    Ok(strings)
}

fn read_alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.get_u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(Error::format(format!(
            "metadata key \"general.alignment\" is {alignment}, not a power of two of at most {MAX_ALIGNMENT}"
        )));
    }
    Ok(alignment)
}

fn read_directory(cursor: &mut Cursor, count: u64) -> Result<Vec<Tensor>> {
    cursor.expect(count, LEAST_TENSOR, "tensors")?;
    let mut tensors = Vec::new();
    for i in 0..count {
        let name = read_tensor_name(cursor).map_err(|error| error.context(format!("tensor {i} of {count}")))?;
        cursor.charge(size_of::<Tensor>() as u64)?;
        let context = |error: Error| error.context(format!("tensor {name:?}"));
        let (dims, dim_count) = read_dims(cursor).map_err(context)?;
        let id = cursor.u32("the type").map_err(context)?;
        let Some(format) = Format::from_id(id) else {
            let known = type_name(id).map_or_else(|| format!("the unknown type {id}"), |name| format!("type {name}"));
            return Err(context(Error::unsupported(format!("it has {known}, for which no decoder is built in"))));
        };
        let bytes = tensor_bytes(format, &dims).map_err(context)?;
        // Relative to the tensor data until that is known.
        let offset = cursor.u64("the offset").map_err(context)?;
        let tensor = Tensor { name, format, dims, dim_count, file: 0, offset, bytes };
        heap::push(&mut tensors, tensor, "a tensor directory")?;
    }
    tensors.shrink_to_fit();
    Ok(tensors)
}

fn read_tensor_name(cursor: &mut Cursor) -> Result<String> {
    let length = cursor.u64("a name's length")?;
    if length == 0 || length > MAX_TENSOR_NAME {
        return Err(Error::format(format!("the name has {length} bytes; names have 1 to {MAX_TENSOR_NAME}")));
    }
    let bytes = read_bytes(cursor, length, "the name")?;
    String::from_utf8(bytes).map_err(|_| Error::format("the name is not UTF-8"))
}

fn read_dims(cursor: &mut Cursor) -> Result<([u64; 4], u32)> {
    let count = cursor.u32("the number of dimensions")?;
    if !(1..=4).contains(&count) {
        return Err(Error::format(format!("it has {count} dimensions; tensors have 1 to 4")));
    }
    let mut dims = [1; 4];
    for dim in &mut dims[..count as usize] {
        *dim = cursor.u64("a dimension")?;
    }
    let shape = &dims[..count as usize];
    if dims.contains(&0) {
        return Err(Error::format(format!("a dimension of {shape:?} is 0")));
    }
    if dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim)).is_none() {
        return Err(Error::format(format!("the dimensions {shape:?} multiply to more than 64 bits")));
    }
    Ok((dims, count))
}

/// Bytes of a tensor whose dimensions multiply without overflow.
pub(super) fn tensor_bytes(format: Format, dims: &[u64; 4]) -> Result<u64> {
    let (name, block) = (format.name(), format.block_len() as u64);
    if !dims[0].is_multiple_of(block) {
        let row = dims[0];
        return Err(Error::format(format!("rows of {row} elements are no whole number of {name} blocks of {block}")));
    }
    let blocks = (dims[0] / block) * dims[1] * dims[2] * dims[3];
    let bytes = blocks.checked_mul(format.block_bytes() as u64);
    bytes.ok_or_else(|| Error::format(format!("{blocks} {name} blocks have more bytes than 64 bits count")))
}

/// Turns the tensor's offset from one in the tensor data into one in the file, and checks that it lies there.
fn place(tensor: &mut Tensor, alignment: u64, data_offset: u64, length: u64) -> Result<()> {
    let (name, relative, bytes) = (&tensor.name, tensor.offset, tensor.bytes);
    if !relative.is_multiple_of(alignment) {
        return Err(Error::format(format!(
            "tensor {name:?}: its offset {relative} is not a multiple of the alignment {alignment}"
        )));
    }
    let offset = data_offset.checked_add(relative);
    match offset.and_then(|offset| offset.checked_add(bytes)) {
        Some(end) if end <= length => {}
        Some(end) => {
            return Err(Error::format(format!(
                "truncated or corrupt: tensor {name:?} ends at byte {end}, the file has {length} bytes"
            )));
        }
        None => {
            return Err(Error::format(format!(
                "corrupt: tensor {name:?} has {bytes} bytes at offset {relative}, the file has {length} bytes"
            )));
        }
    }
    tensor.offset = data_offset + relative;
    Ok(())
}

fn refuse_duplicates(cursor: &mut Cursor, tensors: &[Tensor]) -> Result<()> {
    for pair in sorted(cursor, tensors.len(), |i| &tensors[i].name)?.windows(2) {
        let name = &tensors[pair[0] as usize].name;
        if *name == tensors[pair[1] as usize].name {
            return Err(Error::format(format!("tensor {name:?} occurs twice")));
        }
    }
    Ok(())
}

fn refuse_overlaps(cursor: &mut Cursor, tensors: &[Tensor]) -> Result<()> {
    for pair in sorted(cursor, tensors.len(), |i| tensors[i].offset)?.windows(2) {
        let [a, b] = [&tensors[pair[0] as usize], &tensors[pair[1] as usize]];
        let end = a.offset + a.bytes;
        if end > b.offset {
            return Err(Error::format(format!(
                "tensors {:?} and {:?} overlap: the first ends at byte {end}, the second starts at byte {}",
                a.name, b.name, b.offset
            )));
        }
    }
    Ok(())
}

/// The indices 0 to `count` in the order of their keys.
fn sorted<K: Ord>(cursor: &mut Cursor, count: usize, key: impl Fn(usize) -> K) -> Result<Vec<u32>> {
    let count = u32::try_from(count).map_err(|_| Error::format(format!("{count} entries; at most 2^32 are read")))?;
    let mut order = Vec::new();
    cursor.reserve(&mut order, count as usize)?;
    order.extend(0..count);
    order::sort(&mut order, &mut |a, b| key(a as usize).cmp(&key(b as usize)));
    Ok(order)
}
