//! Makes GGUF files, for tests and tools. Tensors of any size are streamed: their names, shapes and formats are declared
//! first, and their bytes are asked for one tensor after the other while the file is written.
//!
//! ```
//! use layerline::gguf::{read_file, write::Writer};
//! use layerline::quant::Format;
//!
//! let mut writer = Writer::new();
//! writer.set("general.architecture", "llama");
//! writer.tensor("output_norm.weight", &[2], Format::F32)?;
//! let mut file = Vec::new();
//! writer.write(&mut file, |_tensor, out| out.write_all(&[0; 8]))?;
//! assert_eq!(read_file(&file, "example")?.tensors[0].bytes, 8);
//! # Ok::<(), layerline::Error>(())
//! ```

use std::io;

use super::read::tensor_bytes;
use super::split::split_suffix;
use super::value::{Array, Value};
use crate::error::{Error, Result};
use crate::quant::Format;

/// A tensor that has been declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    pub format: Format,
    /// 1 to 4 dimensions, the contiguous one first.
    pub dims: Vec<u64>,
    pub bytes: u64,
}

/// What a file will hold. It checks that sizes can be worked out; names, keys and their uniqueness are the caller's,
/// so that tests can write what a reader must refuse.
#[derive(Clone, Debug)]
pub struct Writer {
    version: u32,
    alignment: u64,
    entries: Vec<(String, Value)>,
    tensors: Vec<Declared>,
}

impl Default for Writer {
    fn default() -> Self {
        Writer::new()
    }
}

impl Writer {
    /// A file of version 3 with the alignment 32 that needs no key.
    pub fn new() -> Self {
        Writer { version: 3, alignment: 32, entries: Vec::new(), tensors: Vec::new() }
    }

    /// Writes this version number; the layout is that of 2 and 3, which is the same.
    pub fn version(&mut self, version: u32) -> &mut Self {
        self.version = version;
        self
    }

    /// Starts the tensor data and every tensor at a multiple of `alignment`, and says so in `general.alignment`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: it is not a power of two.
    pub fn alignment(&mut self, alignment: u32) -> Result<&mut Self> {
        if !alignment.is_power_of_two() {
            return Err(Error::invalid(format!("an alignment of {alignment} is not a power of two")));
        }
        self.alignment = u64::from(alignment);
        Ok(self.set("general.alignment", alignment))
    }

    /// Adds a key, or another with the same name.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.entries.push((key.into(), value.into()));
        self
    }

    /// Declares the next tensor. `dims[0]` is the contiguous dimension.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: not 1 to 4 dimensions, one of them 0, or their product overflows. `FORMAT`: a row is no whole
    /// number of blocks.
    pub fn tensor(&mut self, name: impl Into<String>, dims: &[u64], format: Format) -> Result<&mut Self> {
        let name = name.into();
        let product = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        if !(1..=4).contains(&dims.len()) || product.is_none_or(|product| product == 0) {
            return Err(Error::invalid(format!("tensor {name:?}: no tensor has the shape {dims:?}")));
        }
        let mut padded = [1; 4];
        padded[..dims.len()].copy_from_slice(dims);
        let bytes = tensor_bytes(format, &padded).map_err(|error| error.context(format!("tensor {name:?}")))?;
        self.tensors.push(Declared { name, format, dims: dims.to_vec(), bytes });
        Ok(self)
    }

    /// The tensors declared so far, in file order.
    pub fn tensors(&self) -> &[Declared] {
        &self.tensors
    }

    /// Writes one file and returns its length. `fill` writes the bytes of each tensor, in the order of declaration,
    /// and must write exactly [`Declared::bytes`]. Many small writes are made; `out` should be buffered.
    ///
    /// # Errors
    /// `IO`: as `out` and `fill` report it. `INVALID_ARGUMENT`: `fill` wrote another number of bytes.
    pub fn write(
        &self,
        out: impl io::Write,
        mut fill: impl FnMut(&Declared, &mut dyn io::Write) -> io::Result<()>,
    ) -> Result<u64> {
        self.write_part(out, &[], &self.entries, &self.tensors, &mut fill)
    }

    /// Writes a model split in `parts` files of about the same size, the metadata in the first. `create` makes the file
    /// of a name (`stem` with the suffix of the part); `fill` is that of [`Writer::write`]. Returns the length of all.
    ///
    /// # Errors
    /// As [`Writer::write`] and as `create` reports it; `INVALID_ARGUMENT`: `parts` is not 1 to 99999.
    pub fn write_split<W: io::Write>(
        &self,
        stem: &str,
        parts: u32,
        mut create: impl FnMut(&str) -> io::Result<W>,
        mut fill: impl FnMut(&Declared, &mut dyn io::Write) -> io::Result<()>,
    ) -> Result<u64> {
        if !(1..=99_999).contains(&parts) {
            return Err(Error::invalid(format!("a model cannot be split in {parts} files")));
        }
        let mut all = 0;
        let mut rest = self.tensors.as_slice();
        for no in 0..parts {
            let left: u64 = rest.iter().map(|tensor| tensor.bytes).sum();
            let share = left / u64::from(parts - no);
            let count = if no + 1 == parts { rest.len() } else { leading(rest, share) };
            let (here, after) = rest.split_at(count);
            rest = after;
            let mut entries = vec![
                ("split.no".to_owned(), Value::U16(no as u16)),
                ("split.count".to_owned(), Value::U16(parts as u16)),
                ("split.tensors.count".to_owned(), Value::I32(self.tensors.len() as i32)),
            ];
            if parts > u32::from(u16::MAX) {
                entries[0].1 = Value::U32(no);
                entries[1].1 = Value::U32(parts);
            }
            let own = if no == 0 { self.entries.as_slice() } else { &[] };
            if no != 0 && self.alignment != 32 {
                entries.push(("general.alignment".to_owned(), Value::U32(self.alignment as u32)));
            }
            let name = format!("{stem}{}", split_suffix(no, parts));
            let file = create(&name).map_err(|error| io_error(&error).context(&name))?;
            all += self.write_part(file, own, &entries, here, &mut fill).map_err(|error| error.context(&name))?;
        }
        Ok(all)
    }

    /// One file with the keys of `first` and `second`, and these tensors.
    fn write_part(
        &self,
        out: impl io::Write,
        first: &[(String, Value)],
        second: &[(String, Value)],
        tensors: &[Declared],
        fill: &mut dyn FnMut(&Declared, &mut dyn io::Write) -> io::Result<()>,
    ) -> Result<u64> {
        let mut out = Counted { out, written: 0 };
        let head = (|| {
            self.write_head(&mut out, first, second, tensors)?;
            pad(&mut out, self.alignment)
        })();
        head.map_err(|error| io_error(&error))?;
        for tensor in tensors {
            let start = out.written;
            let filled = fill(tensor, &mut out);
            filled.map_err(|error| io_error(&error).context(format!("tensor {:?}", tensor.name)))?;
            let (written, bytes) = (out.written - start, tensor.bytes);
            if written != bytes {
                let name = &tensor.name;
                return Err(Error::invalid(format!("tensor {name:?}: {written} bytes were written, it has {bytes}")));
            }
            pad(&mut out, self.alignment).map_err(|error| io_error(&error))?;
        }
        io::Write::flush(&mut out).map_err(|error| io_error(&error))?;
        Ok(out.written)
    }

    /// Header, metadata and tensor directory.
    fn write_head(
        &self,
        out: &mut dyn io::Write,
        first: &[(String, Value)],
        second: &[(String, Value)],
        tensors: &[Declared],
    ) -> io::Result<()> {
        out.write_all(b"GGUF")?;
        out.write_all(&self.version.to_le_bytes())?;
        out.write_all(&(tensors.len() as u64).to_le_bytes())?;
        out.write_all(&((first.len() + second.len()) as u64).to_le_bytes())?;
        for (key, value) in first.iter().chain(second) {
            write_string(out, key.as_bytes())?;
            out.write_all(&value.type_id().to_le_bytes())?;
            write_value(out, value)?;
        }
        let mut offset = 0u64;
        for tensor in tensors {
            write_string(out, tensor.name.as_bytes())?;
            out.write_all(&(tensor.dims.len() as u32).to_le_bytes())?;
            for dim in &tensor.dims {
                out.write_all(&dim.to_le_bytes())?;
            }
            out.write_all(&tensor.format.id().to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
            let next = offset.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(self.alignment));
            offset = next.ok_or_else(|| io::Error::other("the tensors have more bytes than 64 bits count"))?;
        }
        Ok(())
    }
}

/// How many of the first tensors come nearest to `share` bytes from below, but at least one where there is one.
fn leading(tensors: &[Declared], share: u64) -> usize {
    let mut sum = 0u64;
    let fits = tensors.iter().take_while(|tensor| {
        sum = sum.saturating_add(tensor.bytes);
        sum <= share
    });
    fits.count().max(1).min(tensors.len())
}

fn io_error(error: &io::Error) -> Error {
    Error::io(error.to_string())
}

/// Passes everything on and counts it, so that positions are known without seeking.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pad<W: io::Write>(out: &mut Counted<W>, alignment: u64) -> io::Result<()> {
    let gap = out.written.next_multiple_of(alignment) - out.written;
    io::copy(&mut io::Read::take(io::repeat(0), gap), out)?;
    Ok(())
}

fn write_string(out: &mut dyn io::Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&(bytes.len() as u64).to_le_bytes())?;
    out.write_all(bytes)
}

pub(crate) fn write_value(out: &mut dyn io::Write, value: &Value) -> io::Result<()> {
    match value {
        Value::U8(v) => out.write_all(&v.to_le_bytes()),
        Value::I8(v) => out.write_all(&v.to_le_bytes()),
        Value::U16(v) => out.write_all(&v.to_le_bytes()),
        Value::I16(v) => out.write_all(&v.to_le_bytes()),
        Value::U32(v) => out.write_all(&v.to_le_bytes()),
        Value::I32(v) => out.write_all(&v.to_le_bytes()),
        Value::F32(v) => out.write_all(&v.to_le_bytes()),
        Value::Bool(v) => out.write_all(&[u8::from(*v)]),
        Value::String(v) => write_string(out, v),
        Value::Array(v) => write_array(out, v),
        Value::U64(v) => out.write_all(&v.to_le_bytes()),
        Value::I64(v) => out.write_all(&v.to_le_bytes()),
        Value::F64(v) => out.write_all(&v.to_le_bytes()),
    }
}

fn write_array(out: &mut dyn io::Write, array: &Array) -> io::Result<()> {
    out.write_all(&array.element_id().to_le_bytes())?;
    out.write_all(&(array.len() as u64).to_le_bytes())?;
    match array {
        Array::U8(v) => out.write_all(v),
        Array::I8(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::U16(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::I16(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::U32(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::I32(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::F32(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::Bool(v) => v.iter().try_for_each(|v| out.write_all(&[u8::from(*v)])),
        // An index past the end of `bytes` makes a shorter array than was announced; `get` refuses it, as does this.
        Array::String(v) => (0..v.len()).try_for_each(|i| match v.get(i) {
            Some(string) => write_string(out, string),
            None => Err(io::Error::other(format!("string {i} lies outside the bytes of its array"))),
        }),
        Array::Array(v) => v.iter().try_for_each(|v| write_array(out, v)),
        Array::U64(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::I64(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
        Array::F64(v) => v.iter().try_for_each(|v| out.write_all(&v.to_le_bytes())),
    }
}
