//! How SentencePiece spells text: a space is U+2581, and what is in no token is spelt in tokens that stand for bytes.

use super::vocabulary::{Kind, NONE, Vocabulary, named_byte};
use crate::error::{Error, Result};

/// SentencePiece writes a space as U+2581.
pub(super) const SPACE: &str = "\u{2581}";

/// One stretch of text is worked on at a time, and its positions are 32 bits wide: a longer one is cut.
const LONGEST_STRETCH: usize = 1 << 30;

/// Where a text may be cut into words without changing its tokens.
pub(super) struct Words {
    /// Last bytes of the characters that some token has before a space. After any other, no token reaches over the
    /// start of a word.
    glued: Box<[bool; 256]>,
}

impl Words {
    /// For a vocabulary of these texts.
    pub fn new<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Words {
        let mut glued = Box::new([false; 256]);
        texts.for_each(|text| mark_glued(text, &mut glued));
        Words { glued }
    }

    /// Hands out a text in stretches, with a space in front of it if `prefix`.
    pub fn each(&self, text: &str, prefix: bool, word: &mut dyn FnMut(Stretch)) {
        let mut rest = text;
        while !rest.is_empty() {
            let cut = word_end(rest, &self.glued).min(boundary_below(rest, LONGEST_STRETCH));
            word(Stretch { text: &rest[..cut], prefix: prefix && rest.len() == text.len() });
            rest = &rest[cut..];
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        size_of_val(&*self.glued) as u64
    }
}

/// A part of a text as it was written, with a space in front of it if `prefix`. Its positions are those of the space, if
/// there is one, and of its bytes.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub text: &'a str,
    pub prefix: bool,
}

impl<'a> Stretch<'a> {
    pub fn len(&self) -> usize {
        self.text.len() + usize::from(self.prefix)
    }

    /// All of it with its spaces escaped, in `buffer` where it has some.
    pub fn escaped<'b>(&self, buffer: &'b mut String) -> &'b str
    where
        'a: 'b,
    {
        self.part(0, self.len(), buffer)
    }

    /// What lies between two positions with its spaces escaped, in `buffer` where it has some.
    pub fn part<'b>(&self, from: usize, to: usize, buffer: &'b mut String) -> &'b str
    where
        'a: 'b,
    {
        let before = usize::from(self.prefix);
        let text = &self.text[from.saturating_sub(before)..to - before];
        let prefix = self.prefix && from == 0;
        if !prefix && !text.contains(' ') {
            return text;
        }
        buffer.clear();
        if prefix {
            buffer.push_str(SPACE);
        }
        for (i, part) in text.split(' ').enumerate() {
            if i > 0 {
                buffer.push_str(SPACE);
            }
            buffer.push_str(part);
        }
        buffer
    }

    /// Where each character starts.
    pub fn starts(&self) -> impl Iterator<Item = usize> + use<'a> {
        let before = usize::from(self.prefix);
        (0..before).chain(self.text.char_indices().map(move |(at, _)| at + before))
    }
}

/// Tokens for what no other token stands for.
pub(super) struct Fallback {
    bytes: Box<[u32; 256]>,
    unknown: Option<u32>,
}

impl Fallback {
    /// The byte tokens of a vocabulary, and the token for what these cannot spell.
    pub fn new(vocabulary: &Vocabulary, unknown: Option<u32>) -> Result<Fallback> {
        let mut bytes = Box::new([NONE; 256]);
        for token in (0..vocabulary.len() as u32).filter(|&token| vocabulary.kind(token) == Kind::Byte) {
            let text = vocabulary.text(token);
            let byte = named_byte(text).ok_or_else(|| {
                let text = String::from_utf8_lossy(text);
                Error::format(format!("token {token} is a byte token, its text {text:?} names no byte"))
            })?;
            bytes[byte as usize] = token;
        }
        Ok(Fallback { bytes, unknown })
    }

    /// The token that stands for a byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        Some(self.bytes[byte as usize]).filter(|&token| token != NONE)
    }

    /// Appends tokens for bytes: one for each, or the unknown token, which stands for all such bytes in a row. What
    /// `out` held before `from` is another text's.
    pub fn spell(&self, bytes: &[u8], from: usize, out: &mut Vec<i32>) {
        if bytes.iter().all(|&byte| self.bytes[byte as usize] != NONE) {
            out.extend(bytes.iter().map(|&byte| self.bytes[byte as usize] as i32));
        } else if let Some(unknown) = self.unknown
            && out[from..].last() != Some(&(unknown as i32))
        {
            out.push(unknown as i32);
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        size_of_val(&*self.bytes) as u64
    }
}

/// Appends a SentencePiece text with its spaces as spaces.
pub(super) fn push_unescaped(mut text: &[u8], out: &mut Vec<u8>) {
    let space = SPACE.as_bytes();
    while let Some((&byte, rest)) = text.split_first() {
        match text.strip_prefix(space) {
            Some(rest) => {
                out.push(b' ');
                text = rest;
            }
            None => {
                out.push(byte);
                text = rest;
            }
        }
    }
}

/// Marks the bytes that stand before a space in a text, but for those of another space.
fn mark_glued(text: &[u8], glued: &mut [bool; 256]) {
    let space = SPACE.as_bytes();
    for at in 1..text.len() {
        if text[at..].starts_with(space) && !text[..at].ends_with(space) {
            glued[text[at - 1] as usize] = true;
        }
    }
}

/// The last start of a character at or before `limit`, or the end of the text.
fn boundary_below(text: &str, limit: usize) -> usize {
    if text.len() <= limit {
        return text.len();
    }
    (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Where the first word ends: spaces, then anything but spaces, and the next word too if it may be glued to it. A
/// U+2581 in the text counts as the space it will be taken for.
fn word_end(text: &str, glued: &[bool; 256]) -> usize {
    let is_space = |c: char| c == ' ' || SPACE.starts_with(c);
    let mut end = 0;
    loop {
        end += text[end..].find(|c| !is_space(c)).unwrap_or(text.len() - end);
        end += text[end..].find(is_space).unwrap_or(text.len() - end);
        if end == text.len() || !glued[text.as_bytes()[end - 1] as usize] {
            return end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_start_at_their_spaces_unless_a_token_reaches_over_them() {
        let mut glued = [false; 256];
        mark_glued("\u{2581}\u{2581}a".as_bytes(), &mut glued);
        assert!(!glued.contains(&true));
        mark_glued(">\u{2581}</".as_bytes(), &mut glued);
        let end = |text| word_end(text, &glued);
        assert_eq!(end("  ab c"), 4);
        assert_eq!(end("ab c"), 2);
        assert_eq!(end("a\u{2581}b"), 1);
        assert_eq!(end("   "), 3);
        assert_eq!(end("a> b c"), 4);
        assert_eq!(end("> "), 2);
    }
}
