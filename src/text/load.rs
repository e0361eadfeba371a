//! A tokeniser from the metadata of a model file. Everything in the file is doubted.

use super::bpe::Bpe;
use super::pretokenize::Definition;
use super::special::Specials;
use super::spm::Spm;
use super::tokenizer::{Rules, Tokenizer};
use super::vocabulary::{Kind, TextTable, Vocabulary};
use crate::error::{Error, Result};
use crate::gguf::{Array, Metadata, Strings, Value};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Texts that end a turn or a document, where they are control tokens.
const END_TEXTS: &[&str] = &[
    "</s>",
    "<eos>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

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
        let family = match metadata.get_str(MODEL)? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("llama") => Family::Spm,
            Some("gpt2") => Family::bpe(metadata.get_str(PRE)?.unwrap_or("default"))?,
            Some(other) => return Err(Error::unsupported(format!("{MODEL} {other:?} is not built in"))),
        };

        let texts = strings(TOKENS, tokens)?.ok_or_else(|| Error::format(format!("{TOKENS} is missing")))?;
        let count = texts.ends.len();
        if count == 0 || i32::try_from(count).is_err() {
            return Err(Error::format(format!("{TOKENS} has {count} entries")));
        }
        let mut vocabulary = Vocabulary { texts, kinds: read_kinds(kinds, count)? };
        vocabulary.texts.bytes.shrink_to_fit();
        vocabulary.texts.ends.shrink_to_fit();
        let spelt = table_of_all(&vocabulary)?;
        let find = |text: &str| spelt.get(&vocabulary.texts, text.as_bytes());
        let id = |name: &str, default: Option<u32>| read_id(metadata, name, default, count);

        let (default_bos, default_eos) = match family {
            Family::Spm => (Some(1), Some(2)),
            Family::Bpe(_) => (None, None),
        };
        let bos = id("bos", default_bos)?;
        let eos = id("eos", default_eos)?;
        let mut ends: Vec<u32> = eos.into_iter().chain(id("eot", None)?).chain(id("eom", None)?).collect();
        let control = |text: &&str| find(text).filter(|&token| vocabulary.kind(token) == Kind::Control);
        ends.extend(END_TEXTS.iter().filter_map(control));
        // Where a message ends with `<|end|>` and a turn with one of these, the first is not the end.
        if ["<|return|>", "<|call|>"].iter().all(|text| find(text).is_some()) {
            ends.retain(|&token| vocabulary.text(token) != b"<|end|>" || Some(token) == eos);
        }
        ends.sort_unstable();
        ends.dedup();
        ends.shrink_to_fit();
        // Phi-3's special tokens were trained with the white space after them taken away; the file only tells by its
        // name.
        let name = metadata.get_str("general.name")?.unwrap_or("").to_ascii_lowercase();
        let strip_after_special = (name.contains("phi-3") || name.contains("phi3"))
            .then(|| ["<unk>", "<s>", "<|endoftext|>"].iter().filter_map(|text| find(text)).collect());
        let add_bos = metadata.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(match family {
            Family::Spm => true,
            Family::Bpe(definition) => definition.add_bos,
        });
        let add_space_prefix = match family {
            Family::Spm => metadata.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
            Family::Bpe(_) => false,
        };
        let user_defined = Specials::new(&vocabulary, &[Kind::UserDefined]);
        let specials = Specials::new(&vocabulary, &[Kind::UserDefined, Kind::Control, Kind::Unknown]);

        let rules = match family {
            Family::Spm => {
                // A control token is no stand-in for text.
                let unknown = id("unknown", Some(0))?.filter(|&token| vocabulary.kind(token) != Kind::Control);
                drop(spelt);
                Rules::Spm(Spm::new(&vocabulary, read_scores(scores, count)?, unknown)?)
            }
            Family::Bpe(definition) => {
                let merges = strings(MERGES, merges)?.ok_or_else(|| Error::format(format!("{MERGES} is missing")))?;
                Rules::Bpe(Bpe::new(&mut vocabulary, spelt, merges, definition)?)
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
            add_space_prefix,
            strip_after_special,
            ends,
        }))
    }
}

enum Family {
    Spm,
    Bpe(&'static Definition),
}

impl Family {
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

fn read_kinds(value: Option<Value>, count: usize) -> Result<Vec<Kind>> {
    let mut kinds: Vec<Kind> = match value {
        None => vec![Kind::Normal; count],
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
        None => return Err(Error::format(format!("{SCORES} is missing"))),
        Some(_) => return Err(Error::format(format!("{SCORES} is not an array of 32-bit floats"))),
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

/// All texts but the empty ones. Two tokens with one text cannot be told apart.
fn table_of_all(vocabulary: &Vocabulary) -> Result<TextTable> {
    let mut table = TextTable::new(vocabulary.len());
    for token in 0..vocabulary.len() as u32 {
        if vocabulary.text(token).is_empty() {
            continue;
        }
        if let Some(earlier) = table.insert(&vocabulary.texts, token) {
            let text = String::from_utf8_lossy(vocabulary.text(token));
            return Err(Error::format(format!("{TOKENS}: {earlier} and {token} are both {text:?}")));
        }
    }
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
