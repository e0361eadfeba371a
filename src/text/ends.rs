//! The tokens that end a text or a turn. Files name one or two of them, models have several.

use super::vocabulary::{Kind, TextTable, Vocabulary};
use crate::error::Result;
use crate::gguf::Metadata;

/// Keys that name such a token, without `tokenizer.ggml.` and `_token_id`: ends of a text, a turn and a message, and in
/// models of code what stands between files and repositories.
const KEYS: &[&str] = &["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"];

/// Texts that nobody writes but as such a token. They are control tokens even where the file says otherwise.
const UNMISTAKABLE: &[&str] = &[
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
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

/// The tokens that end a text or a turn, in order. Those that the file did not mark as such become control tokens, so
/// that no text makes them.
pub(super) fn find(
    metadata: &Metadata,
    vocabulary: &mut Vocabulary,
    texts: &TextTable,
    id: impl Fn(&Metadata, &str) -> Result<Option<u32>>,
) -> Result<Vec<u32>> {
    let token = |vocabulary: &Vocabulary, text: &&str| texts.get(&vocabulary.texts, text.as_bytes());
    let mut ends: Vec<u32> = UNMISTAKABLE.iter().filter_map(|text| token(vocabulary, text)).collect();
    for &end in &ends {
        vocabulary.kinds[end as usize] = Kind::Control;
    }
    let eos = id(metadata, "eos")?;
    for key in KEYS {
        let Some(end) = id(metadata, key)? else { continue };
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
    ends.sort_unstable();
    ends.dedup();
    ends.shrink_to_fit();
    Ok(ends)
}
