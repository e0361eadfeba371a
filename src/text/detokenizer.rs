//! Tokens to text as they come, in whole characters.

use super::tokenizer::Tokenizer;
use super::utf8::Utf8Stream;
use crate::error::Result;

/// How tokens are turned into text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DetokenizeOptions {
    /// Control, unknown and unused tokens have the text of their names, such as `<|im_end|>`, in place of none.
    pub control: bool,
    /// The tokens go on a text: a space that the tokeniser puts before every text is not taken off the first.
    pub continues: bool,
}

/// Turns tokens into text as they come: what is handed out is whole characters.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    options: DetokenizeOptions,
    /// Whether the space that goes before a text may still come.
    begins: bool,
    stream: Utf8Stream,
}

impl Detokenizer {
    pub fn new(options: DetokenizeOptions) -> Detokenizer {
        Detokenizer { options, begins: !options.continues, stream: Utf8Stream::new() }
    }

    /// Takes tokens and appends to `out` the text that became whole with them. Bytes that can never become a character
    /// are handed out as U+FFFD. `tokenizer` is the same in every call.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a token is not in the vocabulary. Then none of them is taken.
    pub fn push(&mut self, tokenizer: &Tokenizer, tokens: &[i32], out: &mut String) -> Result<()> {
        let mut begins = self.begins;
        let mut bytes = Vec::new();
        tokenizer.append_text(tokens, self.options.control, &mut begins, &mut bytes)?;
        self.begins = begins;
        self.stream.push(&bytes, out);
        Ok(())
    }

    /// Ends the text: what is left of a character that was cut short is appended to `out` as U+FFFD. The next token
    /// begins another text.
    pub fn finish(&mut self, out: &mut String) {
        self.stream.finish(out);
        self.begins = !self.options.continues;
    }
}
