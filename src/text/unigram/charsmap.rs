//! SentencePiece's `precompiled_charsmap`: which sequences of bytes are replaced by which texts.
//!
//! The file has the length of a double array in bytes, the double array (a trie of the sequences), then the texts, each
//! ended by NUL. A unit of the array, 32 bits little endian, has: bit 31, that it holds a value; bits 0–7, the byte that
//! leads to it; bit 8, that a value hangs below it; bits 10–30, how far its children are away, in units of 256 if bit 9
//! is set. (The format is that of the Darts-clone library.)

use crate::error::{Error, Result};
use crate::sys::heap;
use crate::text::work::step;

const NAME: &str = "tokenizer.ggml.precompiled_charsmap";

/// The longest sequence that is looked for, and the longest text put in its place, in bytes. The longest in use are 18
/// and 33 bytes (U+FDFA); without a limit a malicious file could make any text as large as it likes.
const LONGEST: usize = 64;

pub(in crate::text) struct Charsmap {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl Charsmap {
    /// `None` for a file that has none, which is written as one of no bytes.
    pub fn new(bytes: &[u8]) -> Result<Option<Charsmap>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let fault = |what: String| Error::format(format!("{NAME}: {what}"));
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| fault(format!("has {} bytes", bytes.len())))?;
        let length = u32::from_le_bytes(*length) as usize;
        if !length.is_multiple_of(4) || length > rest.len() {
            return Err(fault(format!("has {} bytes for a trie of {length}", rest.len())));
        }
        let (units, texts) = rest.split_at(length);
        let unit = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if texts.last().is_some_and(|&last| last != 0) {
            return Err(fault("the last text has no end".into()));
        }
        for text in texts.split(|&byte| byte == 0) {
            if text.len() > LONGEST {
                return Err(fault(format!("a text has {} bytes, more than {LONGEST}", text.len())));
            }
            std::str::from_utf8(text).map_err(|_| fault("a text is not UTF-8".into()))?;
        }
        let units = heap::collected(units.chunks_exact(4).map(unit), NAME)?;
        Ok(Some(Charsmap { units, texts: heap::collected(texts.iter().copied(), NAME)? }))
    }

    /// Hands out the characters of a text, replaced.
    pub fn apply(&self, text: &str, push: &mut dyn FnMut(char)) {
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            match self.longest_prefix(&text.as_bytes()[at..]) {
                // A sequence that ends inside a character is none.
                Some((length, replacement)) if text.is_char_boundary(at + length) => {
                    replacement.chars().for_each(&mut *push);
                    at += length;
                }
                _ => {
                    push(c);
                    at += c.len_utf8();
                }
            }
        }
    }

    /// The longest sequence of the trie that the text begins with: its length, and what replaces it.
    fn longest_prefix(&self, text: &[u8]) -> Option<(usize, &str)> {
        let unit = |at: u32| self.units.get(at as usize).copied();
        let offset = |unit: u32| (unit >> 10) << (unit >> 6 & 8);
        let mut at = offset(unit(0)?);
        let mut longest = None;
        for (depth, &byte) in text.iter().take(LONGEST).enumerate() {
            step();
            at ^= u32::from(byte);
            let Some(node) = unit(at) else { break };
            if byte == 0 || node & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(node);
            if node >> 8 & 1 == 1 {
                longest = unit(at).map(|value| (depth + 1, value & !(1 << 31))).or(longest);
            }
        }
        let (length, start) = longest?;
        let text = self.texts.get(start as usize..)?.split(|&byte| byte == 0).next()?;
        Some((length, std::str::from_utf8(text).ok()?))
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.units.capacity() * size_of::<u32>() + self.texts.capacity()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie of the sequences "a" -> "bc" and "ab" -> "".
    fn small() -> Vec<u8> {
        let mut units = vec![0u32; 1024];
        let leaf = |start: u32| 1 << 31 | start;
        let node = |offset: u32, label: u8, has_leaf: bool| offset << 10 | u32::from(has_leaf) << 8 | u32::from(label);
        units[0] = node(256, 0, false);
        let a = 256 ^ u32::from(b'a');
        let below_a = 512;
        units[a as usize] = node(a ^ below_a, b'a', true);
        units[below_a as usize] = leaf(0);
        let ab = below_a ^ u32::from(b'b');
        let below_ab = 768;
        units[ab as usize] = node(ab ^ below_ab, b'b', true);
        units[below_ab as usize] = leaf(3);
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        units.iter().for_each(|unit| bytes.extend(unit.to_le_bytes()));
        bytes.extend(b"bc\0\0");
        bytes
    }

    fn apply(bytes: &[u8], text: &str) -> String {
        let mut out = String::new();
        Charsmap::new(bytes).unwrap().unwrap().apply(text, &mut |c| out.push(c));
        out
    }

    #[test]
    fn the_longest_sequence_is_replaced() {
        assert_eq!(apply(&small(), "xaabac\0é"), "xbcbcc\0é");
    }

    #[test]
    fn contradictions_are_errors_and_wild_offsets_do_no_harm() {
        let message = |bytes: &[u8]| Charsmap::new(bytes).err().unwrap().message().to_string();
        assert!(Charsmap::new(&[]).unwrap().is_none());
        assert!(message(&[1, 2]).contains("2 bytes"));
        assert!(message(&[8, 0, 0, 0, 1, 1, 1, 1]).contains("trie of 8"));
        assert!(message(&[0, 0, 0, 0, b'x']).contains("no end"));
        assert!(message(&[0, 0, 0, 0, 0xff, 0]).contains("UTF-8"));
        assert!(message(&[[0; 4].as_slice(), &[b'x'; 65], &[0]].concat()).contains("65 bytes"));
        assert_eq!(apply(&[4, 0, 0, 0, 255, 255, 255, 255, 0], "ab"), "ab");
        for at in 0..small().len() {
            let mut bytes = small();
            bytes[at] = bytes[at].wrapping_add(0x81);
            if let Ok(Some(charsmap)) = Charsmap::new(&bytes) {
                charsmap.apply("abaabbab", &mut |_| ());
            }
        }
    }
}
