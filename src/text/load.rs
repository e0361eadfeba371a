//! A tokeniser from the metadata of a model file. Everything in the file is doubted.

use super::bpe::Bpe;
use super::ends;
use super::pretokenize::Definition;
use super::special::Specials;
use super::spm::Spm;
use super::tokenizer::{Rules, Tokenizer};
use super::unigram::{Charsmap, Normalizer, Unigram};
use super::vocabulary::{Kind, TextTable, Vocabulary};
use super::wordpiece::WordPiece;
use crate::error::{Error, Result};
use crate::gguf::{Array, Metadata, Strings, Value, value_as_text};
use crate::order;
use crate::sys::heap;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// The values of `tokenizer.ggml.model` that are built in.
pub const MODELS: &[&str] = &["llama", "t5", "bert", "gpt2", "gemma4"];

impl Tokenizer {
    /// Takes the vocabulary out of the metadata; `None` where the file has none. Whatever the result, the large arrays
    /// (tokens, scores, types, merges) are gone from the metadata.
    ///
    /// `UNSUPPORTED` names a tokeniser or pre-tokeniser that is not built in; `FORMAT` says what in the file
    /// contradicts itself.
    pub fn from_metadata(metadata: &mut Metadata) -> Result<Option<Tokenizer>> {
        let tokens = metadata.take(TOKENS);
        let scores = metadata.take(SCORES);
        let kinds = metadata.take(TOKEN_TYPE);
        let merges = metadata.take(MERGES);
        let charsmap = metadata.take(CHARSMAP);
        let family = match metadata.get_str(MODEL)? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("llama") => Family::Spm,
            Some("t5") => Family::Unigram,
            Some("bert") => Family::WordPiece,
            Some("gpt2") => Family::bpe(metadata.get_str(PRE)?.unwrap_or("default"))?,
            Some("gemma4") => Family::bpe("gemma4")?,
            Some(other) => return Err(Error::unsupported(format!("{MODEL} {other:?} is not built in"))),
        };

        let texts = strings(TOKENS, tokens)?.ok_or_else(|| Error::format(format!("{TOKENS} is missing")))?;
        let count = texts.ends.len();
        if count == 0 || i32::try_from(count).is_err() {
            return Err(Error::format(format!("{TOKENS} has {count} entries")));
        }
        let mut vocabulary = Vocabulary { texts, kinds: read_kinds(kinds, count)?, doubled: Vec::new() };
        vocabulary.texts.bytes.shrink_to_fit();
        vocabulary.texts.ends.shrink_to_fit();
        let spelt = table_of_all(&mut vocabulary)?;
        let defaults = family.defaults();
        let id = |metadata: &Metadata, name: &str| read_id(metadata, name, defaults.id(name), count);
        let flag = |name: &str, default: bool| {
            Ok::<_, Error>(metadata.get_bool(&format!("tokenizer.ggml.{name}"))?.unwrap_or(default))
        };

        let ends = ends::find(metadata, &mut vocabulary, &spelt, id)?;
        let eos = id(metadata, "eos")?;
        let (bos, closing) = match family {
            // The classifier's token begins a text, the separator ends it.
            Family::WordPiece => (id(metadata, "cls")?.or(id(metadata, "bos")?), id(metadata, "seperator")?),
            _ => (id(metadata, "bos")?, eos),
        };
        let closes = flag("add_eos_token", defaults.add_eos)?
            || matches!(family, Family::WordPiece) && flag("add_sep_token", true)?;
        // The first files of Gemma 4 say that it wants no beginning token; it does.
        let add_bos = flag("add_bos_token", defaults.add_bos)? || metadata.get_str(MODEL)? == Some("gemma4");
        let add_space_prefix = !matches!(family, Family::Bpe(_)) && flag("add_space_prefix", true)?;
        // A control token is no stand-in for text, but where the file names it as one.
        let unknown = id(metadata, "unknown")?;
        let user_defined = Specials::new(&vocabulary, &[Kind::UserDefined])?;
        let specials = Specials::new(&vocabulary, &[Kind::UserDefined, Kind::Control, Kind::Unknown])?;
        let strip_after_special = strip_after_special(metadata, &vocabulary, &spelt)?;

        let rules = match family {
            Family::Spm => {
                let unknown = unknown.filter(|&token| vocabulary.kind(token) != Kind::Control);
                drop(spelt);
                Rules::Spm(Spm::new(&vocabulary, read_scores(scores, count)?, unknown)?)
            }
            Family::Unigram => {
                drop(spelt);
                let normalizer = Normalizer {
                    charsmap: Charsmap::new(&bytes(CHARSMAP, charsmap)?)?,
                    add_space: add_space_prefix,
                    space_is_suffix: flag("treat_whitespace_as_suffix", false)?,
                    merge_spaces: flag("remove_extra_whitespaces", false)?,
                };
                Rules::Unigram(Unigram::new(&vocabulary, read_scores(scores, count)?, unknown, normalizer)?)
            }
            Family::WordPiece => {
                drop(spelt);
                let lowercase = flag("normalizer.lowercase", true)?;
                let strip_accents = flag("normalizer.strip_accents", lowercase)?;
                Rules::WordPiece(WordPiece::new(&vocabulary, unknown, lowercase, strip_accents)?)
            }
            Family::Bpe(definition) => {
                let merges = strings(MERGES, merges)?.ok_or_else(|| Error::format(format!("{MERGES} is missing")))?;
                let lowercase = flag("normalizer.lowercase", false)?;
                Rules::Bpe(Bpe::new(&mut vocabulary, spelt, merges, definition, unknown, lowercase)?)
            }
        };
        Ok(Some(Tokenizer {
            vocabulary,
            rules,
            user_defined,
            specials,
            bos,
            eos,
            add_bos,
            closing: closing.filter(|_| closes),
            add_space_prefix,
            strip_after_special,
            ends,
        }))
    }
}

/// Phi-3's special tokens were trained with the white space after them taken away; the file only tells by its name.
fn strip_after_special(metadata: &Metadata, vocabulary: &Vocabulary, texts: &TextTable) -> Result<Option<Vec<u32>>> {
    // A name is for people: it may be a number, or no UTF-8.
    let name = metadata.get("general.name").and_then(value_as_text).unwrap_or_default().to_ascii_lowercase();
    let find = |text: &&str| texts.get(&vocabulary.texts, text.as_bytes());
    let is_phi3 = name.contains("phi-3") || name.contains("phi3");
    Ok(is_phi3.then(|| ["<unk>", "<s>", "<|endoftext|>"].iter().filter_map(find).collect()))
}

enum Family {
    Spm,
    Unigram,
    WordPiece,
    Bpe(&'static Definition),
}

/// What holds where the file does not say.
struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    separator: Option<u32>,
    add_bos: bool,
    add_eos: bool,
}

impl Defaults {
    fn id(&self, name: &str) -> Option<u32> {
        match name {
            "bos" => self.bos,
            "eos" => self.eos,
            "unknown" => self.unknown,
            "seperator" => self.separator,
            _ => None,
        }
    }
}

impl Family {
    fn defaults(&self) -> Defaults {
        let none = Defaults { bos: None, eos: None, unknown: None, separator: None, add_bos: false, add_eos: false };
        match self {
            Family::Spm => Defaults { bos: Some(1), eos: Some(2), unknown: Some(0), add_bos: true, ..none },
            Family::Unigram => Defaults { eos: Some(1), unknown: Some(2), add_eos: true, ..none },
            Family::WordPiece => {
                Defaults { bos: Some(101), unknown: Some(100), separator: Some(102), add_bos: true, ..none }
            }
            Family::Bpe(definition) => Defaults { add_bos: definition.add_bos, ..none },
        }
    }

    fn bpe(name: &str) -> Result<Family> {
        let definition = Definition::of(name);
        definition.map(Family::Bpe).ok_or_else(|| Error::unsupported(format!("{PRE} {name:?} is not built in")))
    }
}

fn strings(key: &str, value: Option<Value>) -> Result<Option<Strings>> {
    match value {
        None => Ok(None),
        Some(Value::Array(Array::String(strings))) => Ok(Some(strings)),
        Some(_) => Err(Error::format(format!("{key} is not an array of strings"))),
    }
}

fn bytes(key: &str, value: Option<Value>) -> Result<Vec<u8>> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(Array::U8(bytes))) => Ok(bytes),
        Some(Value::Array(Array::I8(bytes))) => Ok(bytes.into_iter().map(|byte| byte as u8).collect()),
        Some(_) => Err(Error::format(format!("{key} is not an array of bytes"))),
    }
}

fn read_kinds(value: Option<Value>, count: usize) -> Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = match value {
        None => heap::filled(Kind::Normal, count, TOKEN_TYPE)?,
        Some(Value::Array(Array::I32(kinds))) => kinds.into_iter().map(|kind| Kind::from_file(kind.into())).collect(),
        Some(Value::Array(Array::U32(kinds))) => kinds.into_iter().map(|kind| Kind::from_file(kind.into())).collect(),
        Some(_) => return Err(Error::format(format!("{TOKEN_TYPE} is not an array of 32-bit integers"))),
    };
    at_least(TOKEN_TYPE, kinds.len(), count)?;
    kinds.truncate(count);
    kinds.shrink_to_fit();
    Ok(kinds)
}

fn read_scores(value: Option<Value>, count: usize) -> Result<Vec<f32>> {
    let mut scores = match value {
        Some(Value::Array(Array::F32(scores))) => scores,
        Some(Value::Array(Array::I32(scores))) => scores.into_iter().map(|score| score as f32).collect(),
        None => return Err(Error::format(format!("{SCORES} is missing"))),
        Some(_) => return Err(Error::format(format!("{SCORES} is not an array of 32-bit numbers"))),
    };
    at_least(SCORES, scores.len(), count)?;
    scores.truncate(count);
    scores.shrink_to_fit();
    Ok(scores)
}

fn at_least(key: &str, found: usize, tokens: usize) -> Result<()> {
    if found < tokens {
        return Err(Error::format(format!("{key} has {found} entries for {tokens} tokens")));
    }
    Ok(())
}

/// All texts but the empty ones. Of several tokens with one text a control token is taken for it, so that no text makes
/// the others, else a normal one, else the first; the others are noted as doubled.
fn table_of_all(vocabulary: &mut Vocabulary) -> Result<TextTable> {
    let place = |kind: Kind| match kind {
        Kind::Control | Kind::Unknown => 0,
        Kind::Normal | Kind::UserDefined => 1,
        Kind::Byte => 2,
        Kind::Unused | Kind::Undefined => 3,
    };
    let mut table = TextTable::new(vocabulary.len())?;
    let mut doubled = Vec::new();
    for turn in 0..4 {
        for token in 0..vocabulary.len() as u32 {
            if place(vocabulary.kind(token)) == turn
                && !vocabulary.text(token).is_empty()
                && table.insert(&vocabulary.texts, token).is_some()
            {
                heap::push(&mut doubled, token, TOKENS)?;
            }
        }
    }
    order::sort(&mut doubled, &mut |a, b| a.cmp(&b));
    doubled.shrink_to_fit();
    vocabulary.doubled = doubled;
    Ok(table)
}

/// A special token by its key. One that the vocabulary has not counts as not given, as files say 2^32 - 1 for none.
fn read_id(metadata: &Metadata, name: &str, default: Option<u32>, count: usize) -> Result<Option<u32>> {
    let known = |token: &u32| (*token as usize) < count;
    let key = format!("tokenizer.ggml.{name}_token_id");
    let given = match metadata.get(&key).map(Value::integer) {
        Some(None) => return Err(Error::format(format!("{key} is not an integer"))),
        Some(id) => id,
        None => None,
    };
    let given = given.and_then(|id| u32::try_from(id).ok()).filter(known);
    Ok(given.or(default.filter(known)))
}
