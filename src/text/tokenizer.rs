//! Text to tokens and back.

use std::borrow::Cow;
use std::ops::Range;

use super::bpe::Bpe;
use super::detokenizer::DetokenizeOptions;
use super::escape::push_unescaped;
use super::merge::Merger;
use super::special::Specials;
use super::spm::Spm;
use super::unigram::Unigram;
use super::vocabulary::{Kind, Vocabulary, named_byte};
use super::wordpiece::WordPiece;
use crate::error::{Error, Result};

/// A model's vocabulary and the rules that turn text into its tokens. Any number of threads may use one at once.
pub struct Tokenizer {
    pub(super) vocabulary: Vocabulary,
    pub(super) rules: Rules,
    /// Tokens recognised in any text.
    pub(super) user_defined: Specials,
    /// Tokens recognised where special tokens are asked for.
    pub(super) specials: Specials,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: bool,
    /// The token that goes behind a text where the model wants one.
    pub(super) closing: Option<u32>,
    /// Put a space before text that starts the sequence or follows a special token, and take it off again.
    pub(super) add_space_prefix: bool,
    /// Special tokens swallow the white space after them, but for those listed.
    pub(super) strip_after_special: Option<Vec<u32>>,
    /// Tokens that end a generation, in order.
    pub(super) ends: Vec<u32>,
}

/// How a text is turned into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Control tokens written in the text become those tokens: for templates, never for what a user typed.
    pub special: bool,
    /// The beginning token comes first, where the model wants one.
    pub bos: bool,
    /// The ending token comes last, where the model wants one.
    pub eos: bool,
    /// The text goes on another: no space is put before it.
    pub continues: bool,
}

/// What one token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenAttributes {
    /// It steers the model and has no text in an answer.
    pub control: bool,
    /// It is recognised in any text as it is written.
    pub user_defined: bool,
    /// It stands for text that the vocabulary does not have.
    pub unknown: bool,
    pub unused: bool,
    /// It stands for one byte, which may be part of a character.
    pub byte: bool,
    /// A generation is over with it.
    pub end: bool,
}

pub(super) enum Rules {
    Spm(Spm),
    Unigram(Unigram),
    WordPiece(WordPiece),
    Bpe(Bpe),
}

impl Rules {
    /// Whether texts of tokens have U+2581 for a space.
    fn escape_spaces(&self) -> bool {
        match self {
            Rules::Spm(_) | Rules::Unigram(_) | Rules::WordPiece(_) => true,
            Rules::Bpe(bpe) => bpe.escapes_spaces(),
        }
    }

    /// The token that stands for a byte alone.
    fn byte(&self, byte: u8) -> Option<u32> {
        match self {
            Rules::Spm(spm) => spm.byte(byte),
            Rules::Unigram(unigram) => unigram.byte(byte),
            Rules::WordPiece(_) => None,
            Rules::Bpe(bpe) => bpe.byte(byte),
        }
    }
}

impl Tokenizer {
    /// The tokens of a text.
    ///
    /// With `special`, control tokens written in the text become those tokens: for templates, never for what a user
    /// typed. User-defined tokens are recognised either way. With `add_bos` the beginning token comes first, where the
    /// model wants one.
    ///
    /// Takes n log n steps in the length of the text. Beside the result it takes at most 1 MiB and 4 bytes for each byte
    /// of the longest word; one more where the text is brought to a normal form first.
    pub fn encode(&self, text: &str, special: bool, add_bos: bool) -> Vec<i32> {
        let mut out = Vec::new();
        self.begin(add_bos, &mut out);
        self.encode_parts(text, self.specials(special), self.add_space_prefix, &mut Merger::default(), &mut out);
        out
    }

    /// The tokens of a text that need not be UTF-8: a byte that is in no character becomes the token of that byte.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the text is not UTF-8, and the vocabulary has no token for such a byte.
    pub fn tokenize(&self, text: &[u8], options: TokenizeOptions) -> Result<Vec<i32>> {
        let (mut out, mut merger, mut at) = (Vec::new(), Merger::default(), 0);
        self.begin(options.bos, &mut out);
        let mut prefix = self.add_space_prefix && !options.continues;
        for chunk in text.utf8_chunks() {
            self.encode_parts(chunk.valid(), self.specials(options.special), prefix, &mut merger, &mut out);
            at += chunk.valid().len();
            for (i, &byte) in chunk.invalid().iter().enumerate() {
                let token = self.rules.byte(byte).ok_or_else(|| {
                    let at = at + i;
                    Error::invalid(format!(
                        "text is not UTF-8 at byte {at}, and no token stands for the byte {byte:#04x}"
                    ))
                })?;
                out.push(token as i32);
            }
            at += chunk.invalid().len();
            prefix = false;
        }
        out.extend(self.closing().filter(|_| options.eos));
        Ok(out)
    }

    fn begin(&self, add_bos: bool, out: &mut Vec<i32>) {
        if add_bos && self.add_bos {
            out.extend(self.bos());
        }
    }

    fn specials(&self, special: bool) -> &Specials {
        if special { &self.specials } else { &self.user_defined }
    }

    /// The tokens of a text in which control tokens are recognised only inside the ranges `own`, which are in order.
    pub(super) fn encode_own(&self, text: &str, own: &[Range<usize>]) -> Vec<i32> {
        let (mut out, mut merger, mut from) = (Vec::new(), Merger::default(), 0);
        for range in own {
            let bytes = &text.as_bytes()[..range.end];
            let mut at = range.start.max(from);
            while let Some((found, token)) = self.specials.find(&self.vocabulary, bytes, at) {
                at = found + self.vocabulary.text(token).len();
                if self.vocabulary.kind(token) == Kind::UserDefined {
                    continue;
                }
                self.encode_parts(&text[from..found], &self.user_defined, self.add_space_prefix, &mut merger, &mut out);
                out.push(token as i32);
                from = at + self.stripped_after(token, &text.as_bytes()[at..]);
                at = from.min(range.end);
            }
        }
        self.encode_parts(&text[from..], &self.user_defined, self.add_space_prefix, &mut merger, &mut out);
        out
    }

    /// Texts of the control tokens that can be found in a text.
    pub(super) fn control_texts(&self) -> Vec<String> {
        self.specials.controls(&self.vocabulary).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// Bytes of white space that a special token swallows.
    fn stripped_after(&self, token: u32, rest: &[u8]) -> usize {
        let space = |byte: &&u8| matches!(byte, b' ' | 0x09..=0x0d);
        let strips = self.strip_after_special.as_ref().is_some_and(|but| !but.contains(&token));
        if strips { rest.iter().take_while(space).count() } else { 0 }
    }

    /// With a space in front of the text if `prefix`. Where the model wants one, one goes behind each special token.
    fn encode_parts(&self, text: &str, specials: &Specials, prefix: bool, merger: &mut Merger, out: &mut Vec<i32>) {
        let text = &*match &self.rules {
            Rules::Spm(_) => specials.with_spaces(text),
            Rules::Bpe(bpe) if bpe.escapes_spaces() => specials.with_spaces(text),
            _ => Cow::Borrowed(text),
        };
        let mut from = 0;
        while from < text.len() {
            let found = specials.find(&self.vocabulary, text.as_bytes(), from);
            let part = &text[from..found.map_or(text.len(), |(at, _)| at)];
            if !part.is_empty() {
                let prefix = if from == 0 { prefix } else { self.add_space_prefix };
                match &self.rules {
                    Rules::Spm(spm) => spm.encode(&self.vocabulary, part, prefix, merger, out),
                    Rules::Unigram(unigram) => unigram.encode(&self.vocabulary, part, prefix, out),
                    Rules::WordPiece(pieces) => pieces.encode(part, out),
                    Rules::Bpe(bpe) => bpe.encode(&self.vocabulary, part, merger, out),
                }
            }
            let Some((at, token)) = found else { break };
            out.push(token as i32);
            from = at + self.vocabulary.text(token).len();
            from += self.stripped_after(token, &text.as_bytes()[from..]);
        }
    }

    /// Appends the bytes of a token to `out`: a piece of a text that goes on, which may end inside a character.
    ///
    /// Control and unknown tokens, and those the vocabulary marks as unused, have bytes only if `special` asks for
    /// them. A token that is not in the vocabulary is `INVALID_ARGUMENT`.
    pub fn piece(&self, token: i32, special: bool, out: &mut Vec<u8>) -> Result<()> {
        let token = self.check(token)?;
        let text = self.vocabulary.text(token);
        match self.vocabulary.kind(token) {
            Kind::Normal if self.rules.escape_spaces() => push_unescaped(text, out),
            Kind::Normal => out.extend_from_slice(text),
            Kind::UserDefined => out.extend_from_slice(text),
            Kind::Byte => out.extend(named_byte(text)),
            Kind::Undefined | Kind::Unknown | Kind::Control | Kind::Unused if special => out.extend_from_slice(text),
            Kind::Undefined | Kind::Unknown | Kind::Control | Kind::Unused => {}
        }
        Ok(())
    }

    /// The bytes of a whole sequence. Unlike pieces one after the other, this leaves out the space that encoding put
    /// before the text.
    pub fn decode(&self, tokens: &[i32], special: bool) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.append_text(tokens, special, &mut true, &mut out)?;
        Ok(out)
    }

    /// As [`Tokenizer::decode`], with all that may be asked for.
    pub fn detokenize(&self, tokens: &[i32], options: DetokenizeOptions) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.append_text(tokens, options.control, &mut !options.continues, &mut out)?;
        Ok(out)
    }

    /// Appends the bytes of tokens, without the space that encoding puts before a text where the first of them `begins`
    /// one; that is over with the first that has text.
    pub(super) fn append_text(
        &self,
        tokens: &[i32],
        special: bool,
        begins: &mut bool,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        for &token in tokens {
            let before = out.len();
            self.piece(token, special, out)?;
            let is_text = !matches!(self.vocabulary.kind(token as u32), Kind::Control | Kind::Unknown);
            if *begins && is_text && out.len() > before {
                *begins = false;
                let normal = self.vocabulary.kind(token as u32) == Kind::Normal;
                if self.add_space_prefix && normal && out[before] == b' ' {
                    out.remove(before);
                }
            }
        }
        Ok(())
    }

    /// Number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether every token has the same text in `other`.
    pub fn has_tokens_of(&self, other: &Tokenizer) -> bool {
        let (own, other) = (&self.vocabulary.texts, &other.vocabulary.texts);
        own.ends == other.ends && own.bytes == other.bytes
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<i32> {
        self.bos.map(|token| token as i32)
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<i32> {
        self.eos.map(|token| token as i32)
    }

    /// Whether `encode` puts the beginning token first when asked to.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.bos.is_some()
    }

    /// The token to put behind a text that is complete, where the model wants one: what an encoder was trained with.
    pub fn closing(&self) -> Option<i32> {
        self.closing.map(|token| token as i32)
    }

    /// Whether a generation is over with this token. A token that is not in the vocabulary is `INVALID_ARGUMENT`.
    pub fn is_end(&self, token: i32) -> Result<bool> {
        Ok(self.ends.binary_search(&self.check(token)?).is_ok())
    }

    /// The bytes that stand for one token in a text, and what the token is. Control and unknown tokens have the bytes of
    /// their names.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: the token is not in the vocabulary.
    pub fn token_text(&self, token: i32) -> Result<(Vec<u8>, TokenAttributes)> {
        let mut bytes = Vec::new();
        self.piece(token, true, &mut bytes)?;
        let kind = self.vocabulary.kind(token as u32);
        let attributes = TokenAttributes {
            control: kind == Kind::Control,
            user_defined: kind == Kind::UserDefined,
            unknown: kind == Kind::Unknown,
            unused: kind == Kind::Unused || kind == Kind::Undefined,
            byte: kind == Kind::Byte,
            end: self.is_end(token)?,
        };
        Ok((bytes, attributes))
    }

    /// Everything this holds, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let rules = match &self.rules {
            Rules::Spm(spm) => spm.memory_bytes(),
            Rules::Unigram(unigram) => unigram.memory_bytes(),
            Rules::WordPiece(pieces) => pieces.memory_bytes(),
            Rules::Bpe(bpe) => bpe.memory_bytes(),
        };
        let lists = self.ends.capacity() + self.strip_after_special.as_ref().map_or(0, Vec::capacity);
        self.vocabulary.memory_bytes()
            + rules
            + self.user_defined.memory_bytes()
            + self.specials.memory_bytes()
            + (lists * size_of::<u32>() + size_of::<Tokenizer>()) as u64
    }

    fn check(&self, token: i32) -> Result<u32> {
        match u32::try_from(token) {
            Ok(id) if (id as usize) < self.vocabulary.len() => Ok(id),
            _ => {
                let size = self.vocabulary.len();
                Err(Error::invalid(format!("token {token} is not in the vocabulary of {size} tokens")))
            }
        }
    }
}
