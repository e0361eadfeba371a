//! BPE: inside each word of the pre-tokeniser, neighbours join in the order of the file's list of merges.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::escape::{Fallback, Stretch, Words};
use super::long::{Long, is_long};
use super::merge::Merger;
use super::pretokenize::{Definition, Pretokenizer, Spelling};
use super::vocabulary::{Kind, NONE, TextTable, Vocabulary, text_of};
use crate::error::{Error, Result};
use crate::gguf::Strings;

/// Positions inside a word are 32 bits wide: a longer one is cut.
const LONGEST_WORD: usize = 1 << 30;

/// The pair that joins with a token: `right`, its place in the list of merges, and the token of both.
struct Merge {
    right: u32,
    rank: u32,
    joined: u32,
}

pub(super) struct Bpe {
    units: Units,
    /// The text is brought to Unicode normalisation form C first.
    nfc: bool,
    /// The merges whose left side is token t stand at `starts[t]..starts[t + 1]`, in the order of their right sides.
    merges: Vec<Merge>,
    starts: Vec<u32>,
}

/// What merging begins with.
enum Units {
    Bytes {
        pretokenizer: Pretokenizer,
        /// The token of each byte.
        bytes: Box<[u32; 256]>,
        /// Where a word that is itself a token is taken as that token, whatever the merges say.
        whole: Option<TextTable>,
    },
    Characters {
        spaces: Spaces,
        /// The tokens of single characters.
        characters: TextTable,
        fallback: Fallback,
    },
}

/// What becomes of the spaces of a text that is spelt in characters.
enum Spaces {
    Escaped(Words),
    /// White space parts words and is gone.
    Dropped {
        lowercase: bool,
    },
}

impl Bpe {
    /// Reads the list of merges against the texts as the file spells them, and turns the texts of normal tokens into
    /// the bytes they stand for. `spelt` finds those texts as the file spells them. With `lowercase` so is the text,
    /// where the definition keeps words alone.
    pub fn new(
        vocabulary: &mut Vocabulary,
        spelt: TextTable,
        merges: Strings,
        definition: &Definition,
        unknown: Option<u32>,
        lowercase: bool,
    ) -> Result<Bpe> {
        let (merges, starts) = read_merges(vocabulary, &spelt, merges)?;
        let escaped = || Spaces::Escaped(Words::new(vocabulary.of_text().map(|token| vocabulary.text(token))));
        let units = match definition.spelling {
            Spelling::Bytes => bytes_of(vocabulary, spelt, definition)?,
            Spelling::Text => characters_of(vocabulary, escaped(), unknown)?,
            Spelling::Words => characters_of(vocabulary, Spaces::Dropped { lowercase }, unknown)?,
        };
        Ok(Bpe { units, nfc: definition.nfc, merges, starts })
    }

    /// Whether texts of tokens have U+2581 for a space.
    pub fn escapes_spaces(&self) -> bool {
        matches!(self.units, Units::Characters { spaces: Spaces::Escaped(_), .. })
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, vocabulary: &Vocabulary, text: &str, merger: &mut Merger, out: &mut Vec<i32>) {
        let text = if self.nfc { composed(text) } else { Cow::Borrowed(text) };
        match &self.units {
            Units::Bytes { pretokenizer, bytes, whole } => pretokenizer.split(&text, &mut |word| {
                if let Some(token) = whole.as_ref().and_then(|whole| whole.get(&vocabulary.texts, word)) {
                    return out.push(token as i32);
                }
                for part in word.chunks(LONGEST_WORD) {
                    if is_long(part.len()) && Long::holds(vocabulary.len()) {
                        let mut long = Long::new(part.len(), true);
                        part.iter().enumerate().for_each(|(at, &byte)| long.push(at, bytes[byte as usize]));
                        self.merge_long(&mut long, out);
                        let merged = long.symbols().filter(|&(.., token)| token != NONE);
                        out.extend(merged.map(|(.., token)| token as i32));
                        continue;
                    }
                    merger.clear();
                    for (at, &byte) in part.iter().enumerate() {
                        merger.push(at as u32, bytes[byte as usize]);
                    }
                    // A few vocabularies lack bytes that no UTF-8 text, or hardly any, has; like their own tools, we
                    // leave those out.
                    let merged = self.merge(merger, part.len()).filter(|&(.., token)| token != NONE);
                    out.extend(merged.map(|(.., token)| token as i32));
                }
            }),
            Units::Characters { spaces, characters, fallback } => {
                let from = out.len();
                let mut buffer = String::new();
                let mut encode = |stretch: Stretch, out: &mut Vec<i32>| {
                    let character = |text: &str| characters.get(&vocabulary.texts, text.as_bytes()).unwrap_or(NONE);
                    if is_long(stretch.len()) && Long::holds(vocabulary.len()) {
                        let mut long = Long::new(stretch.len(), true);
                        let mut ends = stretch.starts().skip(1);
                        for start in stretch.starts() {
                            let end = ends.next().unwrap_or(stretch.len());
                            long.push(start, character(stretch.part(start, end, &mut buffer)));
                        }
                        self.merge_long(&mut long, out);
                        for (start, end, token) in long.symbols() {
                            if token != NONE {
                                out.push(token as i32);
                            } else {
                                fallback.spell(stretch.part(start, end, &mut buffer).as_bytes(), from, out);
                            }
                        }
                        return;
                    }
                    let word = stretch.escaped(&mut buffer);
                    merger.clear();
                    for (start, c) in word.char_indices() {
                        merger.push(start as u32, character(&word[start..start + c.len_utf8()]));
                    }
                    for (start, end, token) in self.merge(merger, word.len()) {
                        if token != NONE {
                            out.push(token as i32);
                        } else {
                            fallback.spell(&word.as_bytes()[start as usize..end as usize], from, out);
                        }
                    }
                };
                match spaces {
                    Spaces::Escaped(words) => words.each(&text, false, &mut |word| encode(word, out)),
                    Spaces::Dropped { lowercase } => {
                        for word in text.split_whitespace() {
                            let lower = if *lowercase { lowered(word) } else { Cow::Borrowed(word) };
                            encode(Stretch { text: &lower, prefix: false }, out);
                        }
                    }
                }
            }
        }
    }

    /// Joins what the merger holds: start, end and token of what is left.
    fn merge<'a>(&self, merger: &'a mut Merger, length: usize) -> impl Iterator<Item = (u32, u32, u32)> + use<'a> {
        let end = length as u32;
        merger.merge(end, |left, right, _| self.joined(left.token, right.token));
        merger.symbols(end)
    }

    /// Joins what a long word holds, and makes room for what is left.
    fn merge_long(&self, long: &mut Long, out: &mut Vec<i32>) {
        long.merge(|pair| self.joined(pair.left, pair.right));
        out.reserve(long.count());
    }

    fn joined(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let end = *self.starts.get(left.checked_add(1)? as usize)?;
        let merges = &self.merges[self.starts[left as usize] as usize..end as usize];
        let merge = &merges[merges.binary_search_by_key(&right, |merge| merge.right).ok()?];
        Some((merge.rank, merge.joined))
    }

    /// The token that stands for a byte.
    pub fn byte(&self, byte: u8) -> Option<u32> {
        match &self.units {
            Units::Bytes { bytes, .. } => Some(bytes[byte as usize]).filter(|&token| token != NONE),
            Units::Characters { fallback, .. } => fallback.byte(byte),
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        let merges = self.merges.capacity() * size_of::<Merge>() + self.starts.capacity() * size_of::<u32>();
        let units = match &self.units {
            Units::Bytes { pretokenizer, bytes, whole } => {
                let whole = whole.as_ref().map_or(0, TextTable::memory_bytes);
                pretokenizer.memory_bytes() + size_of_val(&**bytes) as u64 + whole
            }
            Units::Characters { spaces, characters, fallback } => {
                let words = match spaces {
                    Spaces::Escaped(words) => words.memory_bytes(),
                    Spaces::Dropped { .. } => 0,
                };
                words + characters.memory_bytes() + fallback.memory_bytes()
            }
        };
        merges as u64 + units
    }
}

/// A word in lower case, in no more memory than that takes.
fn lowered(word: &str) -> Cow<'_, str> {
    if word.chars().all(|c| c.to_lowercase().eq([c])) {
        return Cow::Borrowed(word);
    }
    let lower = || word.chars().flat_map(char::to_lowercase);
    let mut text = String::with_capacity(lower().map(char::len_utf8).sum());
    text.extend(lower());
    Cow::Owned(text)
}

/// A text in Unicode's normalisation form C, in no more memory than that takes.
fn composed(text: &str) -> Cow<'_, str> {
    if is_nfc(text) {
        return Cow::Borrowed(text);
    }
    let mut normal = String::with_capacity(text.nfc().map(char::len_utf8).sum());
    normal.extend(text.nfc());
    Cow::Owned(normal)
}

fn bytes_of(vocabulary: &mut Vocabulary, spelt: TextTable, definition: &Definition) -> Result<Units> {
    let may_come_of_text = |&token: &u32| !matches!(vocabulary.kind(token), Kind::Control | Kind::Unknown);
    let mut bytes = Box::new([NONE; 256]);
    for byte in 0..=255u8 {
        let spelling = spelling(byte).to_string();
        let token = spelt.get(&vocabulary.texts, spelling.as_bytes()).filter(may_come_of_text);
        bytes[byte as usize] = token.unwrap_or(NONE);
    }
    drop(spelt);
    let exact = respell(vocabulary);
    let whole = definition.whole_words.then(|| {
        let tokens =
            (0..vocabulary.len() as u32).filter(|&token| exact(vocabulary, token) && !vocabulary.is_doubled(token));
        TextTable::of(&vocabulary.texts, tokens)
    });
    Ok(Units::Bytes { pretokenizer: Pretokenizer::new(definition)?, bytes, whole })
}

fn characters_of(vocabulary: &Vocabulary, spaces: Spaces, unknown: Option<u32>) -> Result<Units> {
    let single = |&token: &u32| std::str::from_utf8(vocabulary.text(token)).is_ok_and(|text| text.chars().count() == 1);
    Ok(Units::Characters {
        spaces,
        characters: TextTable::of(&vocabulary.texts, vocabulary.of_text().filter(single)),
        fallback: Fallback::new(vocabulary, unknown)?,
    })
}

/// The merges and where those of each left side start. A pair that is listed twice counts where it stands first; one
/// that would make a control token out of ordinary text, or a token that the vocabulary does not have, is left out.
fn read_merges(vocabulary: &Vocabulary, spelt: &TextTable, list: Strings) -> Result<(Vec<Merge>, Vec<u32>)> {
    let mut sorted = Vec::with_capacity(list.ends.len());
    let mut both = Vec::new();
    for rank in 0..list.ends.len() as u32 {
        let merge = text_of(&list, rank);
        let fault = |what: &str| {
            let merge = String::from_utf8_lossy(merge);
            Error::format(format!("tokenizer.ggml.merges: entry {rank}, {merge:?}, {what}"))
        };
        // A space may be the left side's own first byte, never its second.
        let space = merge.iter().skip(1).position(|&byte| byte == b' ').ok_or_else(|| fault("is not a pair"))? + 1;
        let (left, right) = (&merge[..space], &merge[space + 1..]);
        both.clear();
        both.extend_from_slice(left);
        both.extend_from_slice(right);
        let token = |text: &[u8]| spelt.get(&vocabulary.texts, text);
        let (Some(left), Some(right), Some(joined)) = (token(left), token(right), token(&both)) else { continue };
        if !matches!(vocabulary.kind(joined), Kind::Control | Kind::Unknown) {
            sorted.push((left, right, rank, joined));
        }
    }
    drop(list);
    sorted.sort_unstable();
    sorted.dedup_by_key(|&mut (left, right, ..)| (left, right));

    let mut starts = vec![0; vocabulary.len() + 1];
    for &(left, ..) in &sorted {
        starts[left as usize + 1] += 1;
    }
    for token in 1..starts.len() {
        starts[token] += starts[token - 1];
    }
    let mut merges = Vec::with_capacity(sorted.len());
    merges.extend(sorted.into_iter().map(|(_, right, rank, joined)| Merge { right, rank, joined }));
    Ok((merges, starts))
}

/// Puts the bytes that normal tokens stand for in the place of their spelling, which is never shorter. A text that is
/// not spelt in the byte alphabet stays. Returns which tokens' texts are exactly what they stand for.
fn respell(vocabulary: &mut Vocabulary) -> impl Fn(&Vocabulary, u32) -> bool + use<> {
    let mut foreign = Vec::new();
    let Vocabulary { texts, kinds, .. } = vocabulary;
    let (mut from, mut to) = (0, 0);
    let mut decoded = Vec::new();
    for (token, end) in texts.ends.iter_mut().enumerate() {
        let range = from..*end as usize;
        from = range.end;
        decoded.clear();
        let spelt = kinds[token] == Kind::Normal && spelt_bytes(&texts.bytes[range.clone()], &mut decoded);
        if spelt {
            texts.bytes[to..to + decoded.len()].copy_from_slice(&decoded);
            to += decoded.len();
        } else {
            foreign.push(token as u32);
            texts.bytes.copy_within(range.clone(), to);
            to += range.len();
        }
        *end = to as u32;
    }
    texts.bytes.truncate(to);
    texts.bytes.shrink_to_fit();
    move |vocabulary, token| foreign.binary_search(&token).is_err() && !vocabulary.text(token).is_empty()
}

/// The printable character that stands for a byte in the file: itself where it is printable in Latin-1, else the next
/// of those from U+0100 on.
fn spelling(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..);
    if printable(byte) {
        return byte as char;
    }
    let before = (0..byte).filter(|&byte| !printable(byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Appends the bytes a text spells; false if it has a character that stands for none.
fn spelt_bytes(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    text.chars().all(|c| {
        let byte = match c as u32 {
            0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => c as u8,
            // 00..20, then 7f..a0, then ad: the unprintable bytes in their order.
            n @ 0x100..=0x120 => (n - 0x100) as u8,
            n @ 0x121..=0x142 => (n - 0x121) as u8 + 0x7f,
            0x143 => 0xad,
            _ => return false,
        };
        out.push(byte);
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_spelt_and_read_back() {
        for byte in 0..=255u8 {
            let mut out = Vec::new();
            assert!(spelt_bytes(spelling(byte).to_string().as_bytes(), &mut out));
            assert_eq!(out, [byte]);
        }
        assert_eq!(spelling(b' '), 'Ġ');
        assert_eq!(spelling(b'\n'), 'Ċ');
        assert!(!spelt_bytes("a b".as_bytes(), &mut Vec::new()));
        assert!(!spelt_bytes("Ń\u{144}".as_bytes(), &mut Vec::new()));
    }
}
