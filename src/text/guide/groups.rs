//! Tokens in groups by the kinds of their characters and by their length. Where a constraint allows, or refuses, every text
//! of some kinds and length, it does so for a whole group at once, and only tokens of the other groups are looked at one by
//! one.

use std::ops::Range;

use llguidance::earley::ParserRecognizer;
use llguidance::toktrie::{Recognizer, SimpleVob, TokTrie, TokenId};

/// A kind of characters, as a bit: LOWER and so on.
pub type Kinds = u8;

pub const LOWER: Kinds = 1;
pub const UPPER: Kinds = 2;
pub const DIGIT: Kinds = 4;
pub const SPACE: Kinds = 8;
/// Of ASCII what is left, but for the quotation mark, the backslash and control characters.
pub const MARK: Kinds = 16;
/// Beyond ASCII, but for what some expressions mean by white space and control characters.
pub const WIDE: Kinds = 32;
pub const KIND_COUNT: usize = 6;
pub const ALL_KINDS: Kinds = 63;

/// Tokens with more characters count as having one more.
pub const MOST_KNOWN: usize = 254;

/// Longer tokens are in groups of their own. So far texts are followed ahead.
pub const MOST_CHARS: usize = 16;

/// The characters WIDE, as ranges of the bytes of their UTF-8. Whole blocks of those that have white space are left out.
pub const WIDE_BYTES: [&[(u8, u8)]; 13] = [
    &[(0xc2, 0xc2), (0xa1, 0xbf)],
    &[(0xc3, 0xdf), (0x80, 0xbf)],
    &[(0xe0, 0xe0), (0xa0, 0xbf), (0x80, 0xbf)],
    &[(0xe1, 0xe1), (0x80, 0x99), (0x80, 0xbf)],
    &[(0xe1, 0xe1), (0x9b, 0xbf), (0x80, 0xbf)],
    &[(0xe2, 0xe2), (0x82, 0xbf), (0x80, 0xbf)],
    &[(0xe3, 0xe3), (0x81, 0xbf), (0x80, 0xbf)],
    &[(0xe4, 0xec), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xed, 0xed), (0x80, 0x9f), (0x80, 0xbf)],
    &[(0xee, 0xef), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf0, 0xf0), (0x90, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf1, 0xf3), (0x80, 0xbf), (0x80, 0xbf), (0x80, 0xbf)],
    &[(0xf4, 0xf4), (0x80, 0x8f), (0x80, 0xbf), (0x80, 0xbf)],
];

/// The kind of a character, if it has one.
pub fn kind_of(c: char) -> Option<Kinds> {
    Some(match c {
        'a'..='z' => LOWER,
        'A'..='Z' => UPPER,
        '0'..='9' => DIGIT,
        ' ' => SPACE,
        '"' | '\\' | '\0'..='\x1f' | '\x7f'..='\u{a0}' => return None,
        '!'..='~' => MARK,
        '\u{1680}'..='\u{16bf}' | '\u{2000}'..='\u{207f}' | '\u{3000}'..='\u{303f}' => return None,
        _ => WIDE,
    })
}

/// The group of a token: the kinds of its characters, and whether there are more than MOST_CHARS of them. 0: it has
/// characters of no kind, or parts of some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class(u8);

const CLASSES: usize = 128;
const LONG: u8 = 64;

impl Class {
    /// Of a token, and how many characters it has.
    fn of(word: &[u8]) -> (Class, u8) {
        let kinds = std::str::from_utf8(word)
            .ok()
            .and_then(|text| text.chars().try_fold((0, 0), |(kinds, count), c| Some((kinds | kind_of(c)?, count + 1))));
        let (kinds, count) = kinds.unwrap_or((0, 0usize));
        (Class(if count > MOST_CHARS { kinds | LONG } else { kinds }), count.min(MOST_KNOWN + 1) as u8)
    }
}

/// Tokens of one class, in the order of their bytes.
pub struct Group {
    pub class: Class,
    tokens: Vec<TokenId>,
    /// Their bytes one after the other, as they are read, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Characters of each, and how many bytes it has in common with the one before it, 255 at most.
    lengths: Vec<u8>,
    common: Vec<u8>,
    /// How many have at most so many characters.
    up_to: [u32; MOST_CHARS + 1],
}

/// What is known of the tokens of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Those of so many characters are allowed.
    pub allowed: usize,
    /// Those of more may be; otherwise they are refused.
    pub open: bool,
}

impl Group {
    /// Empty where the class has no kinds.
    pub fn kinds(&self) -> Kinds {
        self.class.0 & ALL_KINDS
    }

    pub fn is_long(&self) -> bool {
        self.class.0 & LONG != 0
    }

    /// How many tokens have at most so many characters.
    pub fn count(&self, chars: usize) -> usize {
        match self.up_to.get(chars) {
            Some(&count) if !self.is_long() => count as usize,
            None if chars == usize::MAX => self.tokens.len(),
            _ => 0,
        }
    }

    fn word(&self, at: usize) -> &[u8] {
        let from = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[from as usize..self.ends[at] as usize]
    }

    /// The tokens that begin with `start` and have more than that.
    fn range(&self, start: &[u8], trie: &TokTrie) -> Range<usize> {
        if start.is_empty() {
            return 0..self.tokens.len();
        }
        let from = self.tokens.partition_point(|&token| trie.token(token) <= start);
        let begins = |&token: &TokenId| trie.token(token).starts_with(start);
        from..from + self.tokens[from..].partition_point(begins)
    }

    /// Allows the tokens that begin with `start`, of that many characters, and are allowed after it by `verdict`, or by the
    /// recognizer where that leaves it open.
    pub fn allow(
        &self,
        verdict: Verdict,
        (start, start_chars): (&[u8], usize),
        (recognizer, trie): (&mut ParserRecognizer<'_>, &TokTrie),
        allowed: &mut SimpleVob,
    ) {
        let range = self.range(start, trie);
        let most = verdict.allowed.saturating_add(start_chars).min(MOST_KNOWN);
        if !verdict.open {
            let most = if verdict.allowed == usize::MAX { u8::MAX as usize } else { most };
            let tokens = self.tokens[range.clone()].iter().zip(&self.lengths[range]);
            tokens.filter(|(_, length)| **length as usize <= most).for_each(|(&token, _)| allowed.allow_token(token));
            return;
        }
        // Bytes that are pushed, all of the last token that was looked at; how many of them the next one has too.
        let (mut pushed, mut common) = (start.len(), start.len());
        let mut at = range.start;
        recognizer.trie_started("tokens");
        while at < range.end {
            common = common.min(self.common[at] as usize).max(start.len());
            if (1..=most).contains(&(self.lengths[at] as usize)) {
                allowed.allow_token(self.tokens[at]);
                at += 1;
                continue;
            }
            let word = self.word(at);
            if pushed > common {
                recognizer.pop_bytes(pushed - common);
                pushed = common;
            }
            pushed += word[pushed..].iter().take_while(|&&byte| recognizer.try_push_byte(byte)).count();
            common = usize::MAX;
            if pushed == word.len() {
                allowed.allow_token(self.tokens[at]);
                at += 1;
            } else {
                // What has the byte that failed in common fails too.
                at += 1 + first_up_to(&self.common[at + 1..range.end], pushed);
            }
        }
        recognizer.pop_bytes(pushed - start.len());
        recognizer.trie_finished();
    }
}

/// The place of the first number that is not above `most`, or their count.
fn first_up_to(numbers: &[u8], most: usize) -> usize {
    let most = most.min(u8::MAX as usize) as u8;
    let far = numbers.chunks(64).take_while(|chunk| chunk.iter().fold(u8::MAX, |a, &b| a.min(b)) > most).count() * 64;
    let rest = numbers.get(far..).unwrap_or_default();
    far.min(numbers.len()) + rest.iter().take_while(|&&number| number > most).count()
}

/// All tokens but those without bytes, in groups.
pub struct Groups {
    groups: Vec<Group>,
    /// For each length up to MOST_CHARS, and for all: the tokens of classes with kinds that have no more characters.
    masks: Vec<SimpleVob>,
}

impl Groups {
    /// `sorted`: tokens in the order of their bytes, each with bytes of its own.
    pub fn build<'a>(vocabulary: usize, sorted: impl Iterator<Item = (TokenId, &'a [u8])> + Clone) -> Groups {
        let mut counts = [(0, 0); CLASSES];
        sorted.clone().for_each(|(_, word)| {
            let (count, bytes) = &mut counts[Class::of(word).0.0 as usize];
            (*count, *bytes) = (*count + 1, *bytes + word.len());
        });
        let group = |(class, &(count, bytes)): (usize, &(usize, usize))| Group {
            class: Class(class as u8),
            tokens: Vec::with_capacity(count),
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(count),
            lengths: Vec::with_capacity(count),
            common: Vec::with_capacity(count),
            up_to: [0; MOST_CHARS + 1],
        };
        let mut groups: Vec<Group> = counts.iter().enumerate().map(group).collect();
        let mut masks = vec![SimpleVob::alloc(vocabulary); MOST_CHARS + 2];
        let mut before = [&[][..]; CLASSES];
        for (token, word) in sorted {
            let (class, length) = Class::of(word);
            let group = &mut groups[class.0 as usize];
            let before = std::mem::replace(&mut before[class.0 as usize], word);
            let common = before.iter().zip(word).take_while(|(a, b)| a == b).count();
            group.tokens.push(token);
            group.bytes.extend_from_slice(word);
            group.ends.push(group.bytes.len() as u32);
            group.lengths.push(length);
            group.common.push(common.min(255) as u8);
            if class != Class::default() {
                let from = (length as usize).min(MOST_CHARS + 1);
                masks[from..].iter_mut().for_each(|mask| mask.allow_token(token));
                group.up_to.iter_mut().skip(from).for_each(|count| *count += 1);
            }
        }
        groups.retain(|group| !group.tokens.is_empty());
        Groups { groups, masks }
    }

    /// What groups of so many tokens, and bytes of theirs, hold.
    pub fn memory_bytes(vocabulary: usize, bytes: usize) -> u64 {
        (vocabulary * 10 + bytes + (MOST_CHARS + 2) * vocabulary.div_ceil(8) + CLASSES * size_of::<Group>()) as u64
    }

    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// The tokens of classes with kinds that have at most so many characters: MOST_CHARS, or usize::MAX.
    pub fn mask(&self, chars: usize) -> &SimpleVob {
        &self.masks[chars.min(MOST_CHARS + 1)]
    }
}
