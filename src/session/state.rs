//! What a session remembers, in a file or in another session: the keys and values of its tokens, and the logits of the
//! last one where the last pass left some. Going on from there gives the bits that the session itself would have given.
//!
//! The form of a file. Numbers are little-endian, nothing is padded, and nothing depends on the context length, on
//! threads, or on how a session keeps its cache:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `LAYRSESS` |
//! | 8 | 4 | version of the form: 1 |
//! | 12 | 4 | bit i: rotation i is that of sessions with room for more tokens than the usual one is for |
//! | 16 | 16 | the model's [fingerprint](crate::model::Model) |
//! | 32 | 4 × 5 | layers, heads of keys and values, elements of a key, elements of a value, vocabulary |
//! | 52 | 4 | rows of logits: 0 or 1 |
//! | 56 | 8 | tokens |
//! | 64 | 8 | XXH3-64 of what stands before |
//! | 72 | | for each layer its keys, \[tokens\]\[heads\]\[elements\], then its values, half floats |
//! | | | logits, floats |
//! | | 16 | XXH3-128 of all that stands before |
//!
//! The tokens themselves are not in it: a session does not know them.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::results::Results;
use super::{Session, replace::replace};
use crate::error::{Error, Result, Status};
use crate::model::Logits;
use crate::sys::file::open_for_reading;

const MAGIC: &[u8; 8] = b"LAYRSESS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 72;
const CHECKSUM_BYTES: usize = 16;
/// Read and written at once. On the caller's stack, so that no budget has to have room for it.
const BUFFER_BYTES: usize = 16 << 10;

/// What stands before keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    rotations: u32,
    fingerprint: u128,
    /// Layers, heads, elements of a key, of a value, vocabulary.
    sizes: [u32; 5],
    logit_rows: u32,
    tokens: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.rotations.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.fingerprint.to_le_bytes());
        for (to, size) in bytes[32..52].chunks_exact_mut(4).zip(self.sizes) {
            to.copy_from_slice(&size.to_le_bytes());
        }
        bytes[52..56].copy_from_slice(&self.logit_rows.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.tokens.to_le_bytes());
        let sum = xxh3_64(&bytes[..64]);
        bytes[64..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Fails with `FORMAT`, and with `UNSUPPORTED` for another version.
    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Header> {
        if &bytes[..8] != MAGIC {
            return Err(Error::format("not the state of a session: it does not begin with \"LAYRSESS\""));
        }
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let (found, stated) = (xxh3_64(&bytes[..64]), long(64));
        if found != stated {
            return Err(Error::format(format!(
                "damaged: the header's checksum is {found:016x}, it says {stated:016x}"
            )));
        }
        // Every version has the checksum at this place, so that a damaged one is not taken for another version.
        if number(8) != VERSION {
            return Err(Error::unsupported(format!(
                "the state of a session in version {} of its form; this library reads version {VERSION}",
                number(8)
            )));
        }
        let header = Header {
            rotations: number(12),
            fingerprint: u128::from_le_bytes(bytes[16..32].try_into().expect("sixteen bytes")),
            sizes: [32, 36, 40, 44, 48].map(number),
            logit_rows: number(52),
            tokens: long(56),
        };
        if header.logit_rows > 1 || (header.logit_rows == 1 && header.tokens == 0) {
            return Err(Error::format(format!("{} rows of logits after {} tokens", header.logit_rows, header.tokens)));
        }
        Ok(header)
    }

    /// Bytes of the file that begins with it.
    fn file_bytes(&self) -> Option<u64> {
        let [layers, heads, key, value, vocab] = self.sizes.map(u128::from);
        let cache = layers * heads * (key + value) * 2;
        let rest = u128::from(self.logit_rows) * vocab * 4 + (HEADER_BYTES + CHECKSUM_BYTES) as u128;
        let all = cache.checked_mul(u128::from(self.tokens))?.checked_add(rest)?;
        u64::try_from(all).ok()
    }
}

impl Session {
    /// Writes what the session remembers to a file, which [`Session::load`] reads into a session of the same model. It is
    /// written beside `path` and gets the name when it is complete and on storage; only its owner can read it. A killed
    /// process may leave the file `.layerline-*.tmp` there.
    ///
    /// # Errors
    /// `IO`, after which a file that was there is as before; `UNSUPPORTED`: the model remembers nothing.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = self.header(u32::from(self.logit_rows() > 0))?;
        let cache = self.cache.as_slice::<u16>();
        replace(path, |file| {
            let mut out = Writer::new(file);
            out.put(&header.to_bytes(), |byte| [byte])?;
            for row in self.rows(self.position) {
                out.put(&cache[row], u16::to_le_bytes)?;
            }
            out.put(self.last_logits(), f32::to_le_bytes)?;
            out.finish()
        })
    }

    /// Reads what [`Session::save`] wrote in place of what the session holds. The context lengths of the two sessions need
    /// not be the same.
    ///
    /// The file is read twice: everything is checked before anything is replaced, with no memory for a second cache.
    ///
    /// # Errors
    /// `IO`; `FORMAT`: it is no such file, damaged or cut; `UNSUPPORTED`: of another version, or the
    /// model remembers nothing; `INVALID_ARGUMENT`: of
    /// another model, or of a session whose context length makes the model turn its keys otherwise; `CONTEXT_FULL`: more
    /// tokens than this session has room for; `OUT_OF_MEMORY`. The session is then as it was before, with one exception:
    /// when the file changes, or cannot be read any more, after it was checked, `IO` leaves the session without tokens.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.load_from(path).map_err(|e| e.context(path.display()))
    }

    fn load_from(&mut self, path: &Path) -> Result<()> {
        let mut file = open_for_reading(path).map_err(unreadable)?;
        let (header, length) = self.accept(&mut file)?;
        let checksum = check(&mut file, length)?;

        let mut results = Results::claim(&self.model, of_last(header.logit_rows > 0).into(), 1)?;
        results.allocate(&mut self.spare, &self.interrupt, self.interrupt.count())?;
        // From here on the session has nothing that was, and not yet what is to be.
        self.truncate(0)?;
        let tokens = header.tokens as usize;
        let read = self.read_in(&mut file, length, tokens, results.logits.all_mut());
        let changed = match read {
            Ok(found) if found == checksum => None,
            Ok(_) => Some("its checksum is another".into()),
            Err(e) => Some(e.to_string()),
        };
        if let Some(how) = changed {
            self.spare.keep(&mut results);
            return Err(Error::io(format!("changed after it was checked, and the session is empty now: {how}")));
        }
        self.position = tokens;
        self.results = results;
        Ok(())
    }

    /// The header of a file that is as long as it says, and that this session can take; and its bytes but the checksum.
    fn accept(&self, file: &mut File) -> Result<(Header, u64)> {
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(Error::io("not a regular file"));
        }
        if meta.len() < (HEADER_BYTES + CHECKSUM_BYTES) as u64 {
            let least = HEADER_BYTES + CHECKSUM_BYTES;
            return Err(Error::format(format!("{} bytes; the state of a session has {least} at least", meta.len())));
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        let header = Header::from_bytes(&bytes)?;
        if header.file_bytes() != Some(meta.len()) {
            let want = header.file_bytes().map_or("more than 2^64".into(), |n| n.to_string());
            let tokens = header.tokens;
            return Err(Error::format(format!("{} bytes; the state of {tokens} tokens takes {want}", meta.len())));
        }
        let own = self.header(header.logit_rows)?;
        let names = ["layers", "heads of keys and values", "elements of a key", "elements of a value", "tokens known"];
        for ((theirs, ours), name) in header.sizes.into_iter().zip(own.sizes).zip(names) {
            if theirs != ours {
                return Err(Error::invalid(format!("the state of another model: {name}: {theirs}, here {ours}")));
            }
        }
        if header.fingerprint != own.fingerprint {
            return Err(Error::invalid(format!(
                "the state of another model: its fingerprint is {:032x}, here it is {:032x}",
                header.fingerprint, own.fingerprint
            )));
        }
        if header.tokens > self.context as u64 {
            return Err(too_many(header.tokens, self.context));
        }
        if header.rotations != own.rotations {
            return Err(other_rotations(self.context));
        }
        Ok((header, meta.len() - CHECKSUM_BYTES as u64))
    }

    /// Reads keys, values and logits into their places, and returns the checksum of the `length` bytes that end with them.
    fn read_in(&mut self, file: &mut File, length: u64, tokens: usize, logits: &mut [f32]) -> io::Result<u128> {
        file.rewind()?;
        let mut input = Reader::new(file, length);
        input.take(&mut [0; HEADER_BYTES], |[byte]| byte)?;
        let rows = self.rows(tokens);
        let cache = self.cache.as_slice_mut::<u16>();
        for row in rows {
            input.take(&mut cache[row], u16::from_le_bytes)?;
        }
        input.take(logits, f32::from_le_bytes)?;
        Ok(input.hash.digest128())
    }

    /// A session with what this one remembers, and room for `context_length` tokens; 0: for as many as this one. They have
    /// nothing in common from then on but the model. Its cache is taken from the model's budget, and of this one's as much
    /// is copied as is in use.
    ///
    /// # Errors
    /// As [`Session::new`]; `UNSUPPORTED`: the model remembers nothing; `CONTEXT_FULL`: this one holds more tokens; `INVALID_ARGUMENT`: the context length would make
    /// the model turn keys otherwise than those that are there.
    pub fn copy(&self, context_length: u32) -> Result<Session> {
        self.remembers()?;
        let context = if context_length == 0 { self.context } else { context_length as usize };
        if self.position > context {
            return Err(too_many(self.position as u64, context));
        }
        if self.position > 0 && self.rotations(context) != self.rotations(self.context) {
            return Err(other_rotations(context));
        }
        let context = u32::try_from(context).map_err(|_| Error::invalid(format!("a session of {context} tokens")))?;
        let mut copy = Session::new(&self.model, context)?;
        let mut results = Results::claim(&self.model, of_last(self.logit_rows() > 0).into(), 1)?;
        results.allocate(&mut copy.spare, &copy.interrupt, copy.interrupt.count())?;
        results.logits.all_mut().copy_from_slice(self.last_logits());
        copy.results = results;
        let cache = copy.cache.as_slice_mut::<u16>();
        for (from, to) in self.parts(self.context).zip(self.parts(context as usize)) {
            for head in 0..from.heads {
                let used = &self.cache.as_slice()[from.rows(head, 0..self.position)];
                cache[to.rows(head, 0..self.position)].copy_from_slice(used);
            }
        }
        copy.position = self.position;
        Ok(copy)
    }

    /// Fails where no pass sees anything of the one before it.
    fn remembers(&self) -> Result<()> {
        if self.model.description().causal {
            return Ok(());
        }
        Err(Error::unsupported(
            "each pass of this model is a sequence of its own: there is nothing to copy, save or load",
        ))
    }

    /// The header of what the session holds now.
    fn header(&self, logit_rows: u32) -> Result<Header> {
        self.remembers()?;
        let d = self.model.description();
        let s = d.shape;
        Ok(Header {
            rotations: self.rotations(self.context),
            fingerprint: self.model.fingerprint()?,
            sizes: [d.layers.len(), s.kv_heads, s.key_dim, s.value_dim, s.vocab].map(|n| n as u32),
            logit_rows,
            tokens: self.position as u64,
        })
    }

    /// Which rotations of the model are others in a session of this context length than in most.
    fn rotations(&self, context: usize) -> u32 {
        let beyond = |rope: &crate::arch::Rope| rope.beyond.is_some_and(|(tokens, _)| context > tokens as usize);
        let ropes = self.model.description().ropes.iter().enumerate();
        ropes.filter(|(_, rope)| beyond(rope)).fold(0, |bits, (i, _)| bits | 1 << (i % 32))
    }

    /// Logits of the last position, where the last pass left some.
    fn last_logits(&self) -> &[f32] {
        self.logit_rows().checked_sub(1).and_then(|row| self.logits(row).ok()).unwrap_or(&[])
    }

    /// Where the cache of a session with room for `context` tokens has the keys, then the values of each layer.
    fn parts(&self, context: usize) -> impl Iterator<Item = Part> + use<> {
        let (layers, s) = (self.model.description().layers.len(), self.model.description().shape);
        let keys = s.kv_heads * context * s.key_dim;
        let values = s.kv_heads * context * s.value_dim;
        let part = move |first, row| Part { first, row, heads: s.kv_heads, context };
        (0..layers).flat_map(move |layer| {
            let first = layer * (keys + values);
            [part(first, s.key_dim), part(first + keys, s.value_dim)]
        })
    }

    /// Where the cache has the keys and values of the first `tokens` tokens, in the order of the file.
    fn rows(&self, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        self.parts(self.context).flat_map(move |part| {
            (0..tokens).flat_map(move |token| (0..part.heads).map(move |head| part.rows(head, token..token + 1)))
        })
    }
}

/// The keys or the values of a layer in a cache, [heads][context][row].
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    row: usize,
    heads: usize,
    context: usize,
}

impl Part {
    /// Where the rows of tokens are that belong to a head.
    fn rows(&self, head: usize, tokens: Range<usize>) -> Range<usize> {
        let at = |token| self.first + (head * self.context + token) * self.row;
        at(tokens.start)..at(tokens.end)
    }
}

/// What is kept of the logits.
fn of_last(there: bool) -> Logits {
    if there { Logits::Last } else { Logits::None }
}

fn unreadable(e: io::Error) -> Error {
    Error::io(e.to_string())
}

fn too_many(tokens: u64, context: usize) -> Error {
    Error::new(Status::ContextFull, format!("{tokens} tokens exceed the context of {context}"))
}

fn other_rotations(context: usize) -> Error {
    Error::invalid(format!(
        "the model turns keys otherwise in a session with room for {context} tokens than those here were turned"
    ))
}

/// The checksum of a file of `length` bytes, which ends with it.
fn check(file: &mut File, length: u64) -> Result<u128> {
    file.rewind().map_err(unreadable)?;
    let mut input = Reader::new(file, length);
    while input.left > 0 {
        input.end = 0;
        input.fill().map_err(unreadable)?;
    }
    let found = input.hash.digest128();
    let mut stated = [0; CHECKSUM_BYTES];
    file.read_exact(&mut stated).map_err(unreadable)?;
    let stated = u128::from_le_bytes(stated);
    if found != stated {
        return Err(Error::format(format!("damaged: the checksum is {found:032x}, it says {stated:032x}")));
    }
    Ok(found)
}

/// Writes numbers and their checksum.
struct Writer<'f> {
    file: &'f mut File,
    hash: Xxh3,
    buffer: [u8; BUFFER_BYTES],
    used: usize,
}

impl Writer<'_> {
    fn new(file: &mut File) -> Writer<'_> {
        Writer { file, hash: Xxh3::new(), buffer: [0; BUFFER_BYTES], used: 0 }
    }

    fn put<T: Copy, const N: usize>(&mut self, mut values: &[T], to_bytes: impl Fn(T) -> [u8; N]) -> io::Result<()> {
        while !values.is_empty() {
            let room = &mut self.buffer[self.used..];
            let (here, later) = values.split_at(values.len().min(room.len() / N));
            for (bytes, value) in room.chunks_exact_mut(N).zip(here) {
                bytes.copy_from_slice(&to_bytes(*value));
            }
            self.used += here.len() * N;
            values = later;
            if !values.is_empty() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = &self.buffer[..self.used];
        self.used = 0;
        self.hash.update(bytes);
        self.file.write_all(bytes)
    }

    /// Writes the checksum of all that was written.
    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.write_all(&self.hash.digest128().to_le_bytes())
    }
}

/// Reads numbers and makes their checksum.
struct Reader<'f> {
    file: &'f mut File,
    hash: Xxh3,
    buffer: [u8; BUFFER_BYTES],
    /// Bytes of the buffer that were read and not yet taken.
    start: usize,
    end: usize,
    /// Bytes of the file that are to be read.
    left: u64,
}

impl Reader<'_> {
    fn new(file: &mut File, left: u64) -> Reader<'_> {
        Reader { file, hash: Xxh3::new(), buffer: [0; BUFFER_BYTES], start: 0, end: 0, left }
    }

    /// Fills the buffer behind what was not taken.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let room = &mut self.buffer[self.end..];
        let count = self.left.min(room.len() as u64) as usize;
        self.file.read_exact(&mut room[..count])?;
        self.hash.update(&room[..count]);
        self.end += count;
        self.left -= count as u64;
        Ok(())
    }

    fn take<T, const N: usize>(&mut self, mut values: &mut [T], from_bytes: impl Fn([u8; N]) -> T) -> io::Result<()> {
        while !values.is_empty() {
            let ready = &self.buffer[self.start..self.end];
            let count = values.len().min(ready.len() / N);
            let (here, later) = values.split_at_mut(count);
            for (value, bytes) in here.iter_mut().zip(ready.chunks_exact(N)) {
                *value = from_bytes(bytes.try_into().expect("chunks of N bytes"));
            }
            self.start += count * N;
            values = later;
            if !values.is_empty() {
                if self.left == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.fill()?;
            }
        }
        Ok(())
    }
}
