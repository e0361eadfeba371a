//! What a session remembers, in a file, in the host's memory or in another session: the keys and values of its tokens, and the logits of the
//! last one where the last pass left some. Going on from there gives the bits that the session itself would have given.
//!
//! The form of a state. Numbers are little-endian, nothing is padded, and nothing depends on threads. Of a layer with a
//! window it has the positions that the session still has, so that what is loaded can be truncated as far:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `LAYRSESS` |
//! | 8 | 4 | version of the form: 3, or 2 where the tokens are not in it |
//! | 12 | 4 | bit i: rotation i is that of sessions with room for more tokens than the usual one is for |
//! | 16 | 16 | the model's [fingerprint](crate::model::Model) |
//! | 32 | 4 × 5 | layers that keep something, heads of keys and values, elements of a key, elements of a value, vocabulary; heads as the model's keys say for the first layer, rows are each as its own layer has them |
//! | 52 | 4 | rows of logits: 0 or 1 |
//! | 56 | 8 | tokens |
//! | 64 | 8 | XXH3-64 of what stands before |
//! | 72 | 16 × layers | for each layer, those with a state after the others: |
//! | | 1 | kind: 0 all positions, 1 a window, 2 compressed: the values are a part of the keys; 3 a recurrent state |
//! | | 1 | type: 0 half floats, 1 q8_0: rotated, in blocks of a half float and 32 signed bytes |
//! | | 2 | 0 |
//! | | 4 | the window, of kind 1; the numbers of the state, of kind 3; else 0 |
//! | | 8 | the first position that it has rows of; 0 but of kind 1 |
//! | | 4 × tokens | of version 3: the tokens |
//! | | | for each layer its keys, \[positions\]\[heads\]\[elements\], then its values, but of kind 2; a state is floats, in an order of its own, and left out where there are no tokens |
//! | | | logits, floats |
//! | | 16 | XXH3-128 of all that stands before |
//!
//! Version 2 is that of earlier releases. A session that was loaded from it does not know its tokens, and is saved so again.

mod form;
mod stream;

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, Write};
use std::path::Path;

use super::Session;
use super::results::Results;
use crate::error::{Error, Result, Status};
use crate::exec::memory::{Held, Layer, Row, RowMut, Snapshot};
use crate::model::Logits;
use crate::sys::file::open_for_reading;
use crate::sys::heap;
use crate::sys::replace::replace;
use form::{CHECKSUM_BYTES, HEADER_BYTES, Header, LAYER_BYTES, LayerEntry};
use stream::{Reader, Writer};

impl Session {
    /// Writes what the session remembers to a file, which [`Session::load`] reads into a session of the same model. The
    /// file gets its name when it is complete and on storage; only its owner can read it. Where `path` is a symbolic link,
    /// the file that it leads to is replaced. A killed process may leave a file `.layerline-*.tmp` there, which the next
    /// save in that folder removes.
    ///
    /// # Errors
    /// `IO`, after which a file that was there is as before; `UNSUPPORTED`: the model remembers nothing.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = self.header(u32::from(self.logit_rows() > 0))?;
        // What is not there yet is a name of its own.
        let target = fs::canonicalize(path);
        replace(target.as_deref().unwrap_or(path), |file| self.write(&header, file))
    }

    /// Bytes that [`Session::save_to`] writes now.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the model remembers nothing; `IO`, as [`Session::save_to`].
    pub fn state_size(&self) -> Result<u64> {
        let header = self.header(u32::from(self.logit_rows() > 0))?;
        let rows = self.memory.layers().iter().map(|l| ((self.position - l.first) * l.position_words() * 2) as u64);
        let states = self.memory.state_layers().iter().filter(|_| self.position > 0).map(|l| 4 * l.0.len() as u64);
        let tokens = 4 * self.tokens().map_or(0, <[i32]>::len) as u64;
        Ok(header.bytes_without_rows() + tokens + rows.sum::<u64>() + states.sum::<u64>())
    }

    /// Writes what a file of [`Session::save`] would hold.
    ///
    /// # Errors
    /// `IO`: what `out` says, or the model cannot be read; `UNSUPPORTED`: the model remembers nothing.
    pub fn save_to(&self, out: &mut impl Write) -> Result<()> {
        let header = self.header(u32::from(self.logit_rows() > 0))?;
        self.write(&header, out).map_err(|e| Error::io(format!("writing the state: {e}")))
    }

    /// What a state says of the memory of each layer.
    fn entries(&self) -> impl Iterator<Item = LayerEntry> {
        let states = self.memory.state_layers().iter().map(|l| LayerEntry::of_state(l.0.len()));
        self.memory.layers().iter().map(LayerEntry::of).chain(states)
    }

    fn write(&self, header: &Header, out: &mut impl Write) -> io::Result<()> {
        let mut out = Writer::new(out);
        out.put(&header.to_bytes(), |byte| [byte])?;
        for entry in self.entries() {
            out.put(&entry.to_bytes(), |byte| [byte])?;
        }
        out.put(self.tokens().unwrap_or_default(), i32::to_le_bytes)?;
        self.memory.save(self.position, |row| match row {
            Row::Halves(halves) => out.put(halves, u16::to_le_bytes),
            Row::Bytes(bytes) => out.put(bytes, |byte| [byte]),
            Row::Floats(floats) => out.put(floats, f32::to_le_bytes),
        })?;
        out.put(self.last_logits(), f32::to_le_bytes)?;
        out.finish()
    }

    /// Reads what [`Session::save`] wrote in place of what the session holds. The context lengths of the two sessions need
    /// not be the same. Checkpoints of what the session held cannot be restored any more.
    ///
    /// The file is read twice: everything is checked before anything is replaced. Meanwhile what the session holds is
    /// copied, because the second reading can fail too; an empty session needs no memory for that.
    ///
    /// # Errors
    /// `IO`; `FORMAT`: it is no such file, damaged or cut; `UNSUPPORTED`: of another version, or the model remembers
    /// nothing; `INVALID_ARGUMENT`: of another model, of a session that keeps another type of keys and values, or whose
    /// context length makes the model turn its keys otherwise; `CONTEXT_FULL`: more tokens than this session has room for;
    /// `MEMORY_BUDGET`: no room for the copy; `OUT_OF_MEMORY`. The session is then as it was before.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let open = || {
            let file = open_for_reading(path).map_err(unreadable)?;
            let meta = file.metadata().map_err(unreadable)?;
            if !meta.is_file() {
                return Err(Error::io("not a regular file"));
            }
            Ok((file, meta.len()))
        };
        let load = |(mut file, length): (File, u64)| self.read(&mut file, length, true);
        open().and_then(load).map_err(|e| e.context(path.display()))
    }

    /// The same from what [`Session::save_to`] wrote. No memory is taken for a copy: reading cannot fail here.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub fn load_from(&mut self, state: &[u8]) -> Result<()> {
        self.read(&mut Cursor::new(state), state.len() as u64, false)
    }

    /// `may_fail`: a second reading of what was read before can fail, or give something else.
    fn read(&mut self, file: &mut (impl Read + Seek), length: u64, may_fail: bool) -> Result<()> {
        let header = self.accept(file, length)?;
        let length = length - CHECKSUM_BYTES as u64;
        let checksum = check(file, length)?;
        let firsts = self.firsts(file, &header)?;
        check_tokens(file, &header)?;

        let mut results = Results::claim(&self.model, of_last(header.logit_rows > 0).into(), 1)?;
        results.allocate(&mut self.spare, &self.interrupt, self.interrupt.count())?;
        let backup = if may_fail && self.position > 0 { Some(self.backup()?) } else { None };
        let read = self.read_in(file, length, &header, &firsts, results.logits.all_mut());
        let changed = match read {
            Ok(found) if found == checksum => None,
            Ok(_) => Some("its checksum is another".into()),
            Err(e) => Some(e.to_string()),
        };
        let reserved = backup.as_ref().map_or(0, |backup| backup.bytes);
        if changed.is_some() {
            match &backup {
                Some(backup) => {
                    self.memory.put_back(&backup.memory);
                    self.tokens.replace(backup.tokens.as_deref());
                }
                None => {
                    self.memory.clear();
                    self.tokens.truncate(0);
                }
            }
        }
        drop(backup);
        self.model.engine().release(reserved);
        if let Some(how) = changed {
            self.spare.keep(&mut results);
            return Err(Error::io(format!("changed after it was checked: {how}")));
        }
        self.spare.keep(&mut self.results);
        self.marks.lose_all();
        self.position = header.tokens as usize;
        self.results = results;
        Ok(())
    }

    /// A copy of all that the session holds.
    fn backup(&self) -> Result<Backup> {
        let tokens = self.tokens().map_or(0, size_of_val) as u64;
        let bytes = self.memory.snapshot_bytes(Held::Everything, self.position) + tokens;
        let engine = self.model.engine();
        engine.reserve(bytes).map_err(|e| {
            e.context("a copy of what the session holds, for the case that reading fails (an empty session needs none)")
        })?;
        let copy = || {
            let own = self.tokens().map(|tokens| heap::collected(tokens.iter().copied(), "a copy of tokens"));
            let (memory, tokens) = (self.memory.snapshot(Held::Everything, self.position)?, own.transpose()?);
            Ok(Backup { memory, tokens, bytes })
        };
        copy().inspect_err(|_| engine.release(bytes))
    }

    /// The header of a state that is as long as it says, and that this session can take.
    fn accept(&self, file: &mut impl Read, length: u64) -> Result<Header> {
        if length < (HEADER_BYTES + CHECKSUM_BYTES) as u64 {
            let least = HEADER_BYTES + CHECKSUM_BYTES;
            return Err(Error::format(format!("{length} bytes; the state of a session has {least} at least")));
        }
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        let header = Header::from_bytes(&bytes)?;
        let [layers, ..] = header.sizes;
        let least = header.bytes_without_rows();
        if length < least {
            return Err(Error::format(format!("{length} bytes; the state of {layers} layers takes {least} at least")));
        }
        let mut want = header.token_bytes().and_then(|tokens| least.checked_add(tokens));
        let own = self.header(header.logit_rows)?;
        for i in 0..layers {
            let same = if header.sizes == own.sizes { self.memory.layers().get(i as usize) } else { None };
            let (_, rows) = read_entry(file, i, &header, same)?;
            want = want.and_then(|want| want.checked_add(rows?));
        }
        if want != Some(length) {
            let want = want.map_or("more than 2^64".into(), |n| n.to_string());
            let tokens = header.tokens;
            return Err(Error::format(format!("{length} bytes; the state of {tokens} tokens takes {want}")));
        }
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
        Ok(header)
    }

    /// Where the rows of each layer begin in a state that was checked, if this session keeps them in the same way.
    fn firsts(&self, file: &mut (impl Read + Seek), header: &Header) -> Result<Vec<usize>> {
        file.seek(io::SeekFrom::Start(HEADER_BYTES as u64)).map_err(unreadable)?;
        let layers = self.memory.layers();
        let mut firsts = Vec::new();
        firsts.try_reserve_exact(layers.len()).map_err(|_| Error::out_of_memory("the table of a state's layers"))?;
        for (i, own) in self.entries().enumerate() {
            let (entry, _) = read_entry(file, i as u32, header, layers.get(i))?;
            entry.check(i, own)?;
            if i < layers.len() {
                // No more than the header's tokens, for which there is room.
                firsts.push(entry.first as usize);
            }
        }
        Ok(firsts)
    }

    /// Reads rows and logits into their places, and returns the checksum of the `length` bytes that end with them.
    fn read_in(
        &mut self,
        file: &mut (impl Read + Seek),
        length: u64,
        header: &Header,
        firsts: &[usize],
        logits: &mut [f32],
    ) -> io::Result<u128> {
        file.rewind()?;
        let mut input = Reader::new(file, length);
        input.take(&mut [0; HEADER_BYTES], |[byte]| byte)?;
        for _ in self.entries() {
            input.take(&mut [0; LAYER_BYTES], |[byte]| byte)?;
        }
        let tokens = header.tokens as usize;
        match header.has_tokens {
            true => input.take(self.tokens.places(tokens), i32::from_le_bytes)?,
            false => self.tokens.replace((tokens == 0).then_some(&[])),
        }
        self.memory.load(tokens, firsts, |row| match row {
            RowMut::Halves(halves) => input.take(halves, u16::from_le_bytes),
            RowMut::Bytes(bytes) => input.take(bytes, |[byte]| byte),
            RowMut::Floats(floats) => input.take(floats, f32::from_le_bytes),
        })?;
        input.take(logits, f32::from_le_bytes)?;
        Ok(input.checksum())
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
        copy.memory.copy_from(&self.memory, self.position);
        copy.tokens.replace(self.tokens());
        copy.position = self.position;
        copy.copy_adapters(self)?;
        Ok(copy)
    }

    /// Fails where no pass sees anything of the one before it.
    pub(super) fn remembers(&self) -> Result<()> {
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
            has_tokens: self.tokens().is_some(),
            rotations: self.rotations(self.context),
            fingerprint: self.model.fingerprint()?,
            sizes: [self.entries().count(), s.kv_heads, s.key_dim, s.value_dim, s.vocab].map(|n| n as u32),
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
}

/// A copy of what a session holds.
struct Backup {
    memory: Snapshot,
    tokens: Option<Vec<i32>>,
    /// What was taken from the budget for it.
    bytes: u64,
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

/// `own`: the layer as the session has it, whose heads may be others than those of the first one.
fn read_entry(file: &mut impl Read, i: u32, header: &Header, own: Option<&Layer>) -> Result<(LayerEntry, Option<u64>)> {
    let mut bytes = [0; LAYER_BYTES];
    file.read_exact(&mut bytes).map_err(unreadable)?;
    LayerEntry::from_bytes(&bytes, i, header, own)
}

/// Reads the tokens of a state, which stand where `file` is.
fn check_tokens(file: &mut impl Read, header: &Header) -> Result<()> {
    let [.., vocab] = header.sizes.map(i64::from);
    let mut bytes = [0; 4096];
    let mut left = header.token_bytes().unwrap_or_default();
    while left > 0 {
        let part = &mut bytes[..left.min(4096) as usize];
        file.read_exact(part).map_err(unreadable)?;
        left -= part.len() as u64;
        let tokens = part.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("four bytes")));
        if let Some(token) = tokens.into_iter().find(|&token| !(0..vocab).contains(&i64::from(token))) {
            return Err(Error::format(format!("it has token {token}; the vocabulary has {vocab}")));
        }
    }
    Ok(())
}

/// The checksum of a state of `length` bytes, which ends with it.
fn check(file: &mut (impl Read + Seek), length: u64) -> Result<u128> {
    file.rewind().map_err(unreadable)?;
    let found = Reader::new(file, length).skip_rest().map_err(unreadable)?;
    let mut stated = [0; CHECKSUM_BYTES];
    file.read_exact(&mut stated).map_err(unreadable)?;
    let stated = u128::from_le_bytes(stated);
    if found != stated {
        return Err(Error::format(format!("damaged: the checksum is {found:032x}, it says {stated:032x}")));
    }
    Ok(found)
}
