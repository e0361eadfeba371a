//! Reads an [`Input`] from front to back through a small buffer, and keeps count of what is allocated for it.

use super::Input;
use crate::error::{Error, Result, Status};
use crate::sys::heap;

/// The buffer: enough that a directory of 15 MB takes about a hundred reads, little enough to be nothing in any budget.
const BUFFER: usize = 128 * 1024;

pub(super) struct Cursor<'a> {
    input: &'a dyn Input,
    length: u64,
    buffer: Vec<u8>,
    /// File offset of `buffer[0]`.
    start: u64,
    /// Position in `buffer`; never past its end.
    at: usize,
    allocated: u64,
    limit: u64,
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `input`; [`Cursor::charge`] fails when more than `limit` bytes come together.
    pub(super) fn new(input: &'a dyn Input, limit: u64) -> Self {
        Cursor { input, length: input.len(), buffer: Vec::new(), start: 0, at: 0, allocated: 0, limit }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    pub(super) fn remaining(&self) -> u64 {
        self.length - self.offset()
    }

    /// Fails where the file does not have `count` things of at least `least` bytes each from here on.
    pub(super) fn expect(&self, count: u64, least: u64, what: &str) -> Result<()> {
        match count.checked_mul(least) {
            Some(bytes) if bytes <= self.remaining() => Ok(()),
            _ => {
                let (offset, remaining) = (self.offset(), self.remaining());
                let need = if least == 1 { String::new() } else { format!(" of at least {least} bytes each") };
                Err(Error::format(format!(
                    "truncated or corrupt: {count} {what}{need} are stated before byte {offset}, {remaining} bytes remain"
                )))
            }
        }
    }

    /// Accounts for memory that is about to be allocated for what the file holds.
    pub(super) fn charge(&mut self, bytes: u64) -> Result<()> {
        self.allocated = self.allocated.saturating_add(bytes);
        if self.allocated <= self.limit {
            return Ok(());
        }
        let (needed, limit) = (self.allocated, self.limit);
        Err(Error::new(
            Status::MemoryBudget,
            format!("metadata and tensor directory need at least {needed} bytes of memory, {limit} are allowed"),
        ))
    }

    /// Makes room for `count` more elements, accounted for. The caller has checked `count` against the file's size.
    pub(super) fn reserve<T>(&mut self, vec: &mut Vec<T>, count: usize) -> Result<()> {
        let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
        self.charge(bytes)?;
        heap::reserve(vec, count, "metadata")
    }

    /// Appends an element, accounted for.
    pub(super) fn push<T>(&mut self, vec: &mut Vec<T>, value: T) -> Result<()> {
        self.charge(size_of::<T>() as u64)?;
        heap::push(vec, value, "metadata")
    }

    /// Fills `out`; `what` names the thing in the message when the file ends before.
    pub(super) fn read_into(&mut self, out: &mut [u8], what: &str) -> Result<()> {
        if out.len() as u64 > self.remaining() {
            let (offset, wanted, remaining) = (self.offset(), out.len(), self.remaining());
            return Err(Error::format(format!(
                "truncated: {what} at byte {offset} has {wanted} bytes, {remaining} remain"
            )));
        }
        let buffered = out.len().min(self.buffer.len() - self.at);
        let (front, rest) = out.split_at_mut(buffered);
        front.copy_from_slice(&self.buffer[self.at..self.at + buffered]);
        self.at += buffered;
        if rest.is_empty() {
            return Ok(());
        }
        if rest.len() >= BUFFER {
            let offset = self.offset();
            self.restart(offset);
            self.input.read_exact_at(offset, rest)?;
            self.restart(offset + rest.len() as u64);
            return Ok(());
        }
        self.refill()?;
        rest.copy_from_slice(&self.buffer[..rest.len()]);
        self.at = rest.len();
        Ok(())
    }

    /// Puts as much of what follows into the buffer as it takes.
    fn refill(&mut self) -> Result<()> {
        let offset = self.offset();
        let length = self.remaining().min(BUFFER as u64) as usize;
        self.restart(offset);
        heap::reserve(&mut self.buffer, length, "a file's directory")?;
        self.buffer.resize(length, 0);
        let read = self.input.read_exact_at(offset, &mut self.buffer);
        if read.is_err() {
            self.buffer.clear();
        }
        read
    }

    /// Goes on at `offset`, which the caller has checked to be in the file.
    pub(super) fn seek(&mut self, offset: u64) {
        debug_assert!(offset <= self.length);
        match offset.checked_sub(self.start) {
            Some(at) if at <= self.buffer.len() as u64 => self.at = at as usize,
            _ => self.restart(offset),
        }
    }

    /// Goes on at `offset` with nothing buffered.
    fn restart(&mut self, offset: u64) {
        self.buffer.clear();
        self.start = offset;
        self.at = 0;
    }

    /// Passes over `bytes` bytes.
    pub(super) fn skip(&mut self, bytes: u64, what: &str) -> Result<()> {
        if bytes > self.remaining() {
            let (offset, remaining) = (self.offset(), self.remaining());
            return Err(Error::format(format!(
                "truncated: {what} at byte {offset} has {bytes} bytes, {remaining} remain"
            )));
        }
        self.seek(self.offset() + bytes);
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(&mut bytes, what)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }
}
