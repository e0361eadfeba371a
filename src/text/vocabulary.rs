//! Token texts stored end to end, what each token is, and a table from text to token.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::work::step;
use crate::gguf::Strings;

/// No token: ids are below it, because a file's arrays are indexed by u32.
pub(super) const NONE: u32 = u32::MAX;

/// What a token is, numbered as in the file's `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Undefined = 0,
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    pub fn from_file(number: i64) -> Kind {
        match number {
            1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Undefined,
        }
    }
}

pub(super) struct Vocabulary {
    pub texts: Strings,
    pub kinds: Vec<Kind>,
    /// Tokens whose text another has that is taken for it, in order: they have a text, but no text becomes them.
    pub doubled: Vec<u32>,
}

impl Vocabulary {
    pub fn len(&self) -> usize {
        self.kinds.len()
    }

    pub fn text(&self, token: u32) -> &[u8] {
        text_of(&self.texts, token)
    }

    pub fn kind(&self, token: u32) -> Kind {
        self.kinds[token as usize]
    }

    /// Whether another token is taken for this one's text.
    pub fn is_doubled(&self, token: u32) -> bool {
        self.doubled.binary_search(&token).is_ok()
    }

    /// The tokens that may come of ordinary text: those that have a text and stand for nothing else.
    pub fn of_text(&self) -> impl Iterator<Item = u32> + Clone {
        (0..self.len() as u32).filter(|&token| !self.is_doubled(token)).filter(|&token| {
            !matches!(self.kind(token), Kind::Control | Kind::Unknown | Kind::Byte) && !self.text(token).is_empty()
        })
    }

    pub fn memory_bytes(&self) -> u64 {
        let numbers = self.texts.ends.capacity() + self.doubled.capacity();
        (self.texts.bytes.capacity() + numbers * size_of::<u32>() + self.kinds.capacity()) as u64
    }
}

pub(super) fn text_of(texts: &Strings, index: u32) -> &[u8] {
    texts.get(index as usize).unwrap_or_default()
}

/// From text to token: open addressing over token numbers, the texts stay where they are.
///
/// The hash is keyed at random, so that a file cannot be made whose tokens all collide. Lookups are exact: the key
/// never shows in a result.
pub(super) struct TextTable {
    slots: Vec<u32>,
    hasher: RandomState,
}

impl TextTable {
    /// A table of these tokens; of several with one text the first.
    pub fn of(texts: &Strings, tokens: impl Iterator<Item = u32> + Clone) -> TextTable {
        let mut table = TextTable::new(tokens.clone().count());
        for token in tokens {
            table.insert(texts, token);
        }
        table
    }

    /// Room for `count` tokens at three quarters full.
    pub fn new(count: usize) -> TextTable {
        TextTable { slots: vec![NONE; count + count / 3 + 1], hasher: RandomState::new() }
    }

    fn home(&self, text: &[u8]) -> usize {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        ((u128::from(hasher.finish()) * self.slots.len() as u128) >> 64) as usize
    }

    fn next(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    pub fn get(&self, texts: &Strings, text: &[u8]) -> Option<u32> {
        let mut slot = self.home(text);
        loop {
            step();
            match self.slots[slot] {
                NONE => return None,
                token if text_of(texts, token) == text => return Some(token),
                _ => slot = self.next(slot),
            }
        }
    }

    /// Enters a token. If its text is there already, the table stays as it is and the earlier token is returned.
    /// At most as many tokens as `new` was told may be entered.
    pub fn insert(&mut self, texts: &Strings, token: u32) -> Option<u32> {
        let text = text_of(texts, token);
        let mut slot = self.home(text);
        loop {
            match self.slots[slot] {
                NONE => {
                    self.slots[slot] = token;
                    return None;
                }
                other if text_of(texts, other) == text => return Some(other),
                _ => slot = self.next(slot),
            }
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.slots.capacity() * size_of::<u32>()) as u64
    }
}

/// The byte that a text of the form `<0xXX>` names.
pub(super) fn named_byte(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
