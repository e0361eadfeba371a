//! The tokens that end a text or a turn. Files name one or two of them, models have several.

use super::vocabulary::{Kind, TextTable, Vocabulary};
use crate::error::{Error, Result};
use crate::gguf::{Metadata, Value};
use crate::order;

/// Keys that name such a token, without `tokenizer.ggml.` and `_token_id`: ends of a text, a turn and a message, and in
/// models of code what stands between files and repositories.
const KEYS: &[&str] = &["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

/// Where some converters list all that the model's own settings end a generation with.
const LIST: &str = "tokenizer.ggml.eos_token_ids";

/// Texts that nobody writes but as such a token. They are control tokens even where the file says otherwise.
const UNMISTAKABLE: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|im_end|>",
    "[|endofturn|]",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Texts that are such a token only where the file says that it is a control token: Gemma's `</s>`, for one, is the
/// HTML tag.
const IF_CONTROL: &[&str] = &[
    "</s>",
    "<eos>",
    "[EOS]",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<reponame>",
    "<|file_sep|>",
];

/// Where a message ends with `<|end|>` and a turn with one of these pairs, the first is not the end.
const AFTER_MESSAGES: &[[&str; 2]] = &[["<|return|>", "<|call|>"], ["<|calls|>", "<|flush|>"]];

/// GLM ends its turn with the token of who speaks next. Others have these tokens too, and end otherwise: GLM is known by
/// its mask, the first token of each of its prompts.
const NEXT_SPEAKERS: &[&str] = &["<|user|>", "<|observation|>"];
const GLM_MASK: &str = "[gMASK]";

/// The tokens that end a text or a turn, in order. Those that the file did not mark as such become control tokens, so
/// that no text makes them.
pub(super) fn find(
    metadata: &Metadata,
    vocabulary: &mut Vocabulary,
    texts: &TextTable,
    id: impl Fn(&Metadata, &str) -> Result<Option<u32>>,
) -> Result<Vec<u32>> {
    let token = |vocabulary: &Vocabulary, text: &&str| texts.get(&vocabulary.texts, text.as_bytes());
    let is_glm = token(vocabulary, &GLM_MASK).is_some();
    let speakers = if is_glm { NEXT_SPEAKERS } else { &[] };
    let by_text = UNMISTAKABLE.iter().chain(speakers);
    let mut ends: Vec<u32> = by_text.filter_map(|text| token(vocabulary, text)).collect();
    for &end in &ends {
        vocabulary.kinds[end as usize] = Kind::Control;
    }
    let eos = id(metadata, "eos")?;
    let by_key: Vec<Option<u32>> = KEYS.iter().map(|key| id(metadata, key)).collect::<Result<_>>()?;
    for end in by_key.into_iter().flatten().chain(listed(metadata, vocabulary.len())?) {
        if vocabulary.kind(end) == Kind::UserDefined {
            vocabulary.kinds[end as usize] = Kind::Control;
        }
        ends.push(end);
    }
    let is_control = |&token: &u32| vocabulary.kind(token) == Kind::Control;
    ends.extend(IF_CONTROL.iter().filter_map(|text| token(vocabulary, text)).filter(is_control));
    if AFTER_MESSAGES.iter().any(|pair| pair.iter().all(|text| token(vocabulary, text).is_some())) {
        ends.retain(|&end| vocabulary.text(end) != b"<|end|>" || Some(end) == eos);
    }
    // What has the text of an end is one too, and no text makes it.
    order::sort(&mut ends, &mut |a, b| a.cmp(&b));
    let mut more = Vec::new();
    for &double in &vocabulary.doubled {
        let taken = texts.get(&vocabulary.texts, vocabulary.text(double));
        if let Some(taken) = taken.filter(|taken| ends.binary_search(taken).is_ok()) {
            vocabulary.kinds[double as usize] = vocabulary.kinds[taken as usize];
            more.push(double);
        }
    }
    ends.extend(more);
    order::sort(&mut ends, &mut |a, b| a.cmp(&b));
    ends.dedup();
    ends.shrink_to_fit();
    Ok(ends)
}

/// The tokens of the list. One that the vocabulary has not counts as not given, as with single ones.
fn listed(metadata: &Metadata, count: usize) -> Result<Vec<u32>> {
    let array = match metadata.get(LIST) {
        None => return Ok(Vec::new()),
        Some(Value::Array(array)) => array,
        Some(_) => return Err(Error::format(format!("{LIST} is not an array"))),
    };
    let mut tokens = Vec::new();
    for at in 0..array.len() {
        let id = array.integer(at).ok_or_else(|| Error::format(format!("{LIST}: entry {at} is not an integer")))?;
        tokens.extend(u32::try_from(id).ok().filter(|&token| (token as usize) < count));
    }
    Ok(tokens)
}
