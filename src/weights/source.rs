//! Where weights are read from: direct, buffered or mapped files and, in tests, a source that delays, fails and shortens
//! reads on command.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys::file::{self, open_for_reading};
use crate::sys::mapping::{FileMapping, map_file};
use crate::weights::Io;

pub use crate::sys::file::DIRECT_ALIGNMENT;

/// One file, or a part of one, that weights are read from. Offsets are absolute in the file.
pub trait Source: Send + Sync {
    /// What to call it in messages.
    fn name(&self) -> &str;
    /// Where the model's bytes begin in the file.
    fn start(&self) -> u64;
    /// Where they end.
    fn end(&self) -> u64;
    /// What offsets, lengths and buffer addresses of reads must be multiples of. 1: nothing.
    fn alignment(&self) -> u64;
    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end of the file. May read less than asked.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// The whole file, where it is mapped: then nothing is read, only touched.
    fn mapping(&self) -> Option<&FileMapping> {
        None
    }

    /// Fails where a mapped file has become shorter than it was when it was opened.
    fn check_intact(&self) -> Result<()> {
        Ok(())
    }

    /// Fills `buf` from `offset`, over short reads and interruptions. Only bytes past [`Source::end`] may be missing.
    fn read_full(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(offset + done as u64, &mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => {
                    done += n;
                    let unaligned = !(done as u64).is_multiple_of(self.alignment());
                    if unaligned && done < buf.len() {
                        // A direct read stops inside a block only at the end of the file; elsewhere it starts over at
                        // the block.
                        if offset + done as u64 >= self.end() {
                            break;
                        }
                        let aligned = done - done % self.alignment() as usize;
                        if aligned + n <= done {
                            return Err(self.short(offset, buf.len(), done));
                        }
                        done = aligned;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(Error::io(format!(
                        "{}: reading {} bytes at offset {}: {e}",
                        self.name(),
                        buf.len() - done,
                        offset + done as u64
                    )));
                }
            }
        }
        if done < buf.len() && offset + (done as u64) < self.end() {
            return Err(self.short(offset, buf.len(), done));
        }
        Ok(())
    }

    fn short(&self, offset: u64, wanted: usize, got: usize) -> Error {
        Error::io(format!(
            "{}: the file ends at {} where it had {} bytes when it was opened (wanted {wanted} bytes at {offset}, got {got})",
            self.name(),
            offset + got as u64,
            self.end()
        ))
    }
}

/// Reads through a file descriptor, with or without the page cache.
pub struct FileSource {
    name: String,
    file: File,
    start: u64,
    end: u64,
    direct: bool,
}

/// A mapping of the whole file. A file truncated while it is mapped kills the process that touches the lost part, which
/// is why no default uses it; the length is checked before each use, which leaves only a short window.
pub struct MappedSource {
    file: FileSource,
    map: FileMapping,
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }
    fn start(&self) -> u64 {
        self.start
    }
    fn end(&self) -> u64 {
        self.end
    }
    fn alignment(&self) -> u64 {
        if self.direct { DIRECT_ALIGNMENT } else { 1 }
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        file::read_at(&self.file, buf, offset)
    }
}

impl Source for MappedSource {
    fn name(&self) -> &str {
        self.file.name()
    }
    fn start(&self) -> u64 {
        self.file.start
    }
    fn end(&self) -> u64 {
        self.file.end
    }
    fn alignment(&self) -> u64 {
        // Pages of the mapping are given back whole.
        DIRECT_ALIGNMENT
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }
    fn mapping(&self) -> Option<&FileMapping> {
        Some(&self.map)
    }
    fn check_intact(&self) -> Result<()> {
        let now = self.file.file.metadata().map_err(|e| Error::io(format!("{}: {e}", self.name())))?.len();
        if now < self.file.end { Err(self.short(now, 0, 0)) } else { Ok(()) }
    }
}

/// Opens a file for reading its directory: buffered, whole.
pub fn open_path(path: &Path) -> Result<FileSource> {
    let name = path.display().to_string();
    let file = open_for_reading(path).map_err(|e| Error::io(format!("{name}: {e}")))?;
    from_file(file, 0, 0, name)
}

/// A part of an open file; `length` 0: to its end.
pub fn from_file(file: File, start: u64, length: u64, name: String) -> Result<FileSource> {
    let meta = file.metadata().map_err(|e| Error::io(format!("{name}: {e}")))?;
    if !meta.is_file() {
        return Err(Error::io(format!("{name}: not a regular file")));
    }
    let size = meta.len();
    let end = if length == 0 { Some(size) } else { start.checked_add(length) };
    match end {
        Some(end) if start <= end && end <= size => Ok(FileSource { name, file, start, end, direct: false }),
        _ => Err(Error::invalid(format!(
            "{name}: the part from {start} with {length} bytes lies outside the file of {size} bytes"
        ))),
    }
}

impl FileSource {
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether the file system grants direct reads of it.
    pub fn takes_direct(&self) -> bool {
        self.reopen_direct().is_ok()
    }

    /// The same file in the mode asked for; [`Io::Auto`] is taken as direct.
    pub fn with_mode(self, io: Io) -> Result<Box<dyn Source>> {
        match io {
            Io::Buffered => Ok(Box::new(self)),
            Io::Mmap => {
                let map = map_file(&self.file).map_err(|e| Error::io(format!("{}: {e}", self.name)))?;
                if (map.len() as u64) < self.end {
                    return Err(Error::io(format!("{}: became shorter while it was opened", self.name)));
                }
                Ok(Box::new(MappedSource { file: self, map }))
            }
            Io::Direct | Io::Auto => match self.reopen_direct() {
                Ok(file) => Ok(Box::new(FileSource { file, direct: true, ..self })),
                Err(e) => Err(Error::unsupported(format!(
                    "{}: direct reads are not possible on its file system ({e}); choose automatic or buffered reads",
                    self.name
                ))),
            },
        }
    }

    /// Opens the same file again for direct reads, where they are possible.
    fn reopen_direct(&self) -> io::Result<File> {
        file::reopen_direct(&self.file, self.start)
    }
}

impl crate::gguf::Input for FileSource {
    fn len(&self) -> u64 {
        self.end - self.start
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let at = self.start + offset;
        if at + buf.len() as u64 > self.end {
            return Err(self.short(at, buf.len(), self.end.saturating_sub(at) as usize));
        }
        self.read_full(at, buf)
    }
}
