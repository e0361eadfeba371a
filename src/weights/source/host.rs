//! Weights that the host program reads itself: out of an archive, from memory, over a network, where there are no files.

use std::io;
use std::sync::Arc;

use super::Source;
use crate::error::{Error, Result};
use crate::weights::Io;

/// Storage of the host's own that a model or an adapter is read from, in place of a file.
///
/// Reads come from several threads at once: the loader's readers, threads that run passes, and the one that opens. One that
/// blocks holds up what waits for its bytes, and nothing else: an interrupt ends a pass that waits for a reader, and closing a
/// model leaves a reader behind that has not come back in two seconds. A pass that reads by itself, because prefetching is off
/// or a read failed before, can end no sooner than its read.
///
/// A read must not use the model that it serves, nor sessions of it.
pub trait HostSource: Send + Sync {
    /// What messages call it. Sources of a split model have the names that its files had.
    fn name(&self) -> &str {
        "the source"
    }

    /// Bytes that it holds. It must not change while anything is open.
    fn size(&self) -> u64;

    /// Reads up to `buf.len()` bytes at `offset` and returns how many; `buf` is not empty and ends where the source ends or
    /// before it. Less than asked is read on from there; 0 fails, as the source then has fewer bytes than its size says.
    ///
    /// # Errors
    /// Anything: it ends the pass with `IO` and this error's text, after a second attempt. One of the kind
    /// [`io::ErrorKind::Interrupted`] is tried again at once and for as long as it comes.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
}

/// A [`HostSource`] as the engine reads it.
pub struct Hosted(pub Arc<dyn HostSource>);

impl Source for Hosted {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn start(&self) -> u64 {
        0
    }
    fn end(&self) -> u64 {
        self.0.size()
    }
    fn alignment(&self) -> u64 {
        1
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.end().saturating_sub(offset);
        // Pages are read in whole blocks, of which the last may end behind the source.
        let asked = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if asked == 0 {
            return Ok(0);
        }
        match self.0.read_at(offset, &mut buf[..asked])? {
            read if read <= asked => Ok(read),
            read => {
                Err(io::Error::other(format!("the source says it has read {read} bytes where {asked} were asked for")))
            }
        }
    }

    fn short(&self, offset: u64, wanted: usize, got: usize) -> Error {
        Error::io(format!(
            "{}: the source gives nothing at {}, although its size is {} bytes (wanted {wanted} bytes at {offset}, got {got})",
            self.name(),
            offset + got as u64,
            self.end()
        ))
    }
}

impl Hosted {
    /// The error of a mode that a host's source cannot be read in.
    pub fn no_mode(&self, io: Io) -> Error {
        let mode = if io == Io::Mmap { "mapped" } else { "read past the page cache" };
        Error::unsupported(format!(
            "{}: a host's source cannot be {mode}; choose automatic or buffered reads",
            self.name()
        ))
    }
}

/// The source of a split model's file of this name.
pub fn named(sources: &[Arc<dyn HostSource>], name: &str) -> Result<Arc<dyn HostSource>> {
    sources.iter().find(|source| source.name() == name).cloned().ok_or_else(|| {
        Error::invalid(format!(
            "no source has the name {name}: a model in several files needs one for each, named as its file"
        ))
    })
}
