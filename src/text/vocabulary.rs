//! Token texts stored end to end, what each token is, and a table from text to token.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

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

/// From text to token: a table of token numbers, the texts stay where they are.
///
/// The hash is keyed at random, so that a file cannot be made whose tokens all collide. Lookups are exact: the key
/// never shows in a result.
pub(super) struct TextTable {
    tokens: HashTable<u32>,
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

    /// Room for `count` tokens.
    pub fn new(count: usize) -> TextTable {
        TextTable { tokens: HashTable::with_capacity(count), hasher: RandomState::new() }
    }

    pub fn get(&self, texts: &Strings, text: &[u8]) -> Option<u32> {
        step();
        let is_meant = |&token: &u32| {
            step();
            text_of(texts, token) == text
        };
        self.tokens.find(hash(&self.hasher, text), is_meant).copied()
    }

    /// Enters a token. If its text is there already, the table stays as it is and the earlier token is returned.
    pub fn insert(&mut self, texts: &Strings, token: u32) -> Option<u32> {
        let text = text_of(texts, token);
        let hasher = &self.hasher;
        let is_same = |&other: &u32| text_of(texts, other) == text;
        let rehash = |&other: &u32| hash(hasher, text_of(texts, other));
        match self.tokens.entry(hash(hasher, text), is_same, rehash) {
            Entry::Occupied(earlier) => Some(*earlier.get()),
            Entry::Vacant(place) => {
                place.insert(token);
                None
            }
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.tokens.allocation_size() as u64
    }
}

fn hash(hasher: &RandomState, text: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(text);
    hasher.finish()
}

/// The byte that a text of the form `<0xXX>` names.
pub(super) fn named_byte(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
