//! Numbers on their way to and from a state, with their checksum.

use std::io::{self, Read, Write};

use xxhash_rust::xxh3::Xxh3;

/// Read and written at once. On the caller's stack, so that no budget has to have room for it.
const BUFFER_BYTES: usize = 16 << 10;

/// Writes numbers and their checksum.
pub struct Writer<'f, F> {
    file: &'f mut F,
    hash: Xxh3,
    buffer: [u8; BUFFER_BYTES],
    used: usize,
}

impl<F: Write> Writer<'_, F> {
    pub fn new(file: &mut F) -> Writer<'_, F> {
        Writer { file, hash: Xxh3::new(), buffer: [0; BUFFER_BYTES], used: 0 }
    }

    pub fn put<T: Copy, const N: usize>(
        &mut self,
        mut values: &[T],
        to_bytes: impl Fn(T) -> [u8; N],
    ) -> io::Result<()> {
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
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.write_all(&self.hash.digest128().to_le_bytes())
    }
}

/// Reads numbers and makes their checksum.
pub struct Reader<'f, F> {
    file: &'f mut F,
    hash: Xxh3,
    buffer: [u8; BUFFER_BYTES],
    /// Bytes of the buffer that were read and not yet taken.
    start: usize,
    end: usize,
    /// Bytes of the file that are to be read.
    left: u64,
}

impl<F: Read> Reader<'_, F> {
    pub fn new(file: &mut F, left: u64) -> Reader<'_, F> {
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

    pub fn take<T, const N: usize>(
        &mut self,
        mut values: &mut [T],
        from_bytes: impl Fn([u8; N]) -> T,
    ) -> io::Result<()> {
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

    /// Reads all that is left, and returns its checksum with that of what was read before.
    pub fn skip_rest(mut self) -> io::Result<u128> {
        while self.left > 0 {
            self.end = self.start;
            self.fill()?;
        }
        Ok(self.hash.digest128())
    }

    /// The checksum of all that was read.
    pub fn checksum(&self) -> u128 {
        self.hash.digest128()
    }
}
