//! Where weights are read from: direct, buffered or mapped files, a host's own storage and, in tests, a source that delays,
//! fails and shortens reads on command.

mod host;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::sys::file::{self, open_for_reading};
use crate::sys::mapping::{FileMapping, map_file};
use crate::weights::Io;

pub use crate::sys::file::DIRECT_ALIGNMENT;
pub use host::{HostSource, Hosted, named};

/// Direct reads in a row that may deliver less than a block.
const READS_IN_VAIN: usize = 4;

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
        let mut in_vain = 0;
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
                        // Less than a block each time: the storage may do better the next time, but not for ever.
                        in_vain = if aligned + n <= done { in_vain + 1 } else { 0 };
                        if in_vain > READS_IN_VAIN {
                            // Nothing after this block: the file was cut inside it.
                            let next = aligned + self.alignment() as usize;
                            if next < buf.len() && matches!(self.read_at(offset + next as u64, &mut buf[next..]), Ok(0))
                            {
                                return Err(self.short(offset, buf.len(), done));
                            }
                            return Err(Error::io(format!(
                                "{}: reading {} bytes at offset {}: the storage delivers {n} bytes, which is less than a block",
                                self.name(),
                                buf.len() - aligned,
                                offset + aligned as u64
                            )));
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

/// A file, or a part of one.
pub struct FileSource {
    name: String,
    file: File,
    start: u64,
    end: u64,
    way: Way,
}

/// How bytes of a file are reached.
enum Way {
    /// Through the page cache.
    Buffered,
    /// Past it, by a descriptor of its own.
    Direct {
        direct: File,
        /// Whether reads go through the page cache where the file system turns out to refuse direct ones: some grant a
        /// small one and refuse larger ones, or those of another part of the file.
        may_fall_back: bool,
        fell_back: AtomicBool,
    },
    /// A mapping of the whole file. A file truncated while it is mapped kills the process that touches the lost part,
    /// which is why no default uses it; the length is checked before each use, which leaves only a short window.
    Mapped(FileMapping),
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
        match self.way {
            Way::Buffered => 1,
            // Of a mapping whole pages are given back.
            Way::Direct { .. } | Way::Mapped(_) => DIRECT_ALIGNMENT,
        }
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if let Way::Direct { direct, may_fall_back, fell_back } = &self.way
            // Relaxed: a thread that does not see it yet finds it out by its own read.
            && !fell_back.load(Ordering::Relaxed)
        {
            match file::read_at(direct, buf, offset) {
                Err(e) if *may_fall_back && file::refuses_direct(&e) => fell_back.store(true, Ordering::Relaxed),
                result => return result,
            }
        }
        file::read_at(&self.file, buf, offset)
    }
    fn mapping(&self) -> Option<&FileMapping> {
        if let Way::Mapped(map) = &self.way { Some(map) } else { None }
    }
    fn check_intact(&self) -> Result<()> {
        if self.mapping().is_none() {
            return Ok(());
        }
        let now = self.file.metadata().map_err(|e| Error::io(format!("{}: {e}", self.name)))?.len();
        if now < self.end { Err(self.short(now, 0, 0)) } else { Ok(()) }
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
    let file = file::reopen_buffered(file).map_err(|e| {
        Error::io(format!("{name}: its descriptor is for direct reads, and opening it for others failed: {e}"))
    })?;
    let meta = file.metadata().map_err(|e| Error::io(format!("{name}: {e}")))?;
    if !meta.is_file() {
        return Err(Error::io(format!("{name}: not a regular file")));
    }
    let size = meta.len();
    let end = if length == 0 { Some(size) } else { start.checked_add(length) };
    match end {
        Some(end) if start <= end && end <= size => Ok(FileSource { name, file, start, end, way: Way::Buffered }),
        _ => Err(Error::invalid(format!(
            "{name}: the part from {start} with {length} bytes lies outside the file of {size} bytes"
        ))),
    }
}

impl FileSource {
    /// A mapping of it.
    fn map(&self) -> Result<FileMapping> {
        let map = map_file(&self.file).map_err(|e| Error::io(format!("{}: {e}", self.name)))?;
        if (map.len() as u64) < self.end {
            return Err(Error::io(format!("{}: became shorter while it was opened", self.name)));
        }
        Ok(map)
    }

    /// Opens the same file again for direct reads, where they are possible.
    fn reopen_direct(&self) -> io::Result<File> {
        file::reopen_direct(&self.file, self.start)
    }

    /// What an error of [`FileSource::reopen_direct`] means for a host who asked for direct reads and nothing else.
    fn no_direct(&self, e: io::Error) -> Error {
        if file::refuses_direct(&e) {
            return Error::unsupported(format!(
                "{}: direct reads are not possible on its file system ({e}); choose automatic or buffered reads",
                self.name
            ));
        }
        let text = format!("{}: opening it for direct reads: {e}", self.name);
        if e.kind() == io::ErrorKind::OutOfMemory { Error::out_of_memory(text) } else { Error::io(text) }
    }
}

/// What a model's directory was read from.
pub enum OpenedSource {
    File(FileSource),
    Host(Hosted),
}

impl OpenedSource {
    pub fn source(&self) -> &dyn Source {
        match self {
            OpenedSource::File(file) => file,
            OpenedSource::Host(host) => host,
        }
    }
}

/// All files in one mode, and which that is. [`Io::Auto`]: direct where all of them can be opened so, else buffered. What the
/// host reads itself has one mode of its own.
///
/// # Errors
/// `UNSUPPORTED`: what is asked for is not possible; `IO`, `OUT_OF_MEMORY`: opening or mapping failed.
pub fn in_mode(files: Vec<OpenedSource>, io: Io) -> Result<(Vec<Box<dyn Source>>, Io)> {
    let mut ways = Vec::with_capacity(files.len());
    for file in &files {
        ways.push(match (file, io) {
            (OpenedSource::Host(_), Io::Auto | Io::Buffered | Io::Source) => None,
            (OpenedSource::Host(host), Io::Direct | Io::Mmap) => return Err(host.no_mode(io)),
            (OpenedSource::File(_), Io::Buffered) => Some(Way::Buffered),
            (OpenedSource::File(file), Io::Mmap) => Some(Way::Mapped(file.map()?)),
            (OpenedSource::File(file), Io::Source) => {
                return Err(Error::unsupported(format!("{}: a file is not read by a host's source", file.name)));
            }
            (OpenedSource::File(file), Io::Direct | Io::Auto) => match file.reopen_direct() {
                Ok(direct) => {
                    Some(Way::Direct { direct, may_fall_back: io == Io::Auto, fell_back: AtomicBool::new(false) })
                }
                Err(_) if io == Io::Auto => return in_mode(files, Io::Buffered),
                Err(e) => return Err(file.no_direct(e)),
            },
        });
    }
    let mut mode = if io == Io::Auto { Io::Direct } else { io };
    let mut sources: Vec<Box<dyn Source>> = Vec::with_capacity(files.len());
    for (file, way) in files.into_iter().zip(ways) {
        match (file, way) {
            (OpenedSource::File(file), Some(way)) => sources.push(Box::new(FileSource { way, ..file })),
            (OpenedSource::File(file), None) => sources.push(Box::new(file)),
            (OpenedSource::Host(host), _) => {
                mode = Io::Source;
                sources.push(Box::new(host));
            }
        }
    }
    Ok((sources, mode))
}

impl crate::gguf::Input for OpenedSource {
    fn len(&self) -> u64 {
        self.source().end() - self.source().start()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let source = self.source();
        let at = source.start() + offset;
        if at + buf.len() as u64 > source.end() {
            return Err(source.short(at, buf.len(), source.end().saturating_sub(at) as usize));
        }
        source.read_full(at, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    #[cfg(target_os = "linux")]
    use std::io::Write;

    use parking_lot::Mutex;

    use super::*;

    /// Delivers as many bytes, or errors, as it is told, one after another; everything afterwards.
    struct Script {
        bytes: Vec<u8>,
        steps: Mutex<VecDeque<io::Result<usize>>>,
    }

    impl Source for Script {
        fn name(&self) -> &str {
            "script"
        }
        fn start(&self) -> u64 {
            0
        }
        fn end(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn alignment(&self) -> u64 {
            DIRECT_ALIGNMENT
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
            assert!(offset.is_multiple_of(DIRECT_ALIGNMENT), "a direct read at {offset}");
            let rest = &self.bytes[offset as usize..];
            let most = self.steps.lock().pop_front().unwrap_or(Ok(usize::MAX))?;
            let n = most.min(buf.len()).min(rest.len());
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
    }

    /// A file that is gone when this is.
    #[cfg(target_os = "linux")]
    struct TestFile(std::path::PathBuf);

    #[cfg(target_os = "linux")]
    impl TestFile {
        fn with(name: &str, bytes: &[u8]) -> TestFile {
            let path = std::env::temp_dir().join(format!("layerline-{name}-{}", std::process::id()));
            File::create(&path).unwrap().write_all(bytes).unwrap();
            TestFile(path)
        }
    }

    #[cfg(target_os = "linux")]
    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn read_by(steps: impl IntoIterator<Item = io::Result<usize>>) -> Result<bool> {
        let bytes: Vec<u8> = (0..20_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let source = Script { bytes: bytes.clone(), steps: Mutex::new(steps.into_iter().collect()) };
        let mut read = vec![0; 5 * DIRECT_ALIGNMENT as usize];
        source.read_full(0, &mut read)?;
        Ok(read[..bytes.len()] == bytes)
    }

    #[test]
    fn short_direct_reads_go_on_at_the_block_and_endless_ones_fail_with_true_figures() {
        assert!(read_by([Ok(100)]).unwrap());
        assert!(read_by([Ok(4096), Ok(1), Ok(2), Ok(5000), Ok(3)]).unwrap());
        let interrupted = || Err(io::Error::from(io::ErrorKind::Interrupted));
        assert!(read_by([interrupted(), Ok(4096), interrupted()]).unwrap());
        let e = read_by([Ok(4096)].into_iter().chain((0..99).map(|_| Ok(7)))).unwrap_err();
        assert_eq!(e.status(), crate::error::Status::Io);
        let text = e.to_string();
        assert!(
            text.contains("at offset 4096") && text.contains("delivers 7 bytes") && !text.contains("ends"),
            "{text}"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn automatic_reads_fall_back_when_a_direct_one_is_refused_later_and_others_say_so() {
        use std::os::unix::fs::{FileExt, OpenOptionsExt};
        let bytes: Vec<u8> = (0..3 * DIRECT_ALIGNMENT).map(|i| (i % 253) as u8).collect();
        let file = TestFile::with("refused", &bytes);
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&file.0);
        if direct.is_ok_and(|direct| direct.read_at(&mut [0; 10], 3).is_ok()) {
            // Recent tmpfs.
            return println!("skipped: this file system takes any offset");
        }
        for io in [Io::Auto, Io::Direct] {
            let Ok((sources, Io::Direct)) = in_mode(vec![OpenedSource::File(open_path(&file.0).unwrap())], io) else {
                return println!("skipped: no direct reads here");
            };
            // An offset that is no multiple of a block stands for what a file system may refuse.
            let mut some = [0; 10];
            let read = sources[0].read_at(3, &mut some);
            if io == Io::Auto {
                assert_eq!((read.unwrap(), &some[..]), (10, &bytes[3..13]));
            } else {
                assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EINVAL));
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_descriptor_opened_for_direct_reads_is_read_as_any_other() {
        use std::os::unix::fs::OpenOptionsExt;
        let file = TestFile::with("direct", &[5; 1000]);
        let Ok(direct) = File::options().read(true).custom_flags(libc::O_DIRECT).open(&file.0) else {
            return println!("skipped: no direct reads here");
        };
        let source = from_file(direct, 0, 0, "direct".into()).unwrap();
        let mut some = [0; 7];
        source.read_full(11, &mut some).unwrap();
        assert_eq!(some, [5; 7]);
    }
}
