//! What a text is in tokens wherever it begins and ends in them, for [`Sampler::add_dry_breaker`](super::Sampler).

use crate::error::Result;
use crate::sys::heap;
use crate::text::{TokenizeOptions, Tokenizer};

/// Sequences of tokens that have `text` in them, or end with its end: each token that contains it, and each that ends with
/// its beginning, with the tokens of the rest.
pub fn sequences_of(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Vec<u32>>> {
    let mut sequences = Vec::new();
    // Of each beginning of the text, the tokens of the rest.
    let mut rests: Vec<Option<Vec<i32>>> = heap::filled(None, text.len(), "a breaker of sequences")?;
    let mut piece = Vec::new();
    for token in 0..tokenizer.vocab_size() as i32 {
        piece.clear();
        tokenizer.piece(token, true, &mut piece)?;
        if piece.windows(text.len()).any(|part| part == text.as_bytes()) {
            heap::push(&mut sequences, vec![token as u32], "breakers of sequences")?;
            continue;
        }
        for (length, rest) in rests.iter_mut().enumerate().skip(1) {
            if !text.is_char_boundary(length) || !piece.ends_with(&text.as_bytes()[..length]) {
                continue;
            }
            if rest.is_none() {
                let options = TokenizeOptions { continues: true, ..TokenizeOptions::default() };
                *rest = Some(tokenizer.tokenize(&text.as_bytes()[length..], options)?);
            }
            let rest = rest.iter().flatten().map(|&token| token as u32);
            heap::push(&mut sequences, std::iter::once(token as u32).chain(rest).collect(), "breakers of sequences")?;
        }
    }
    Ok(sequences)
}
