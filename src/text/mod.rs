//! Tokenisers, detokenisation and chat templates.
//!
//! Four families are built in: `llama` (SentencePiece BPE: merges chosen by the score of the token they make, bytes as
//! a last resort), `t5` (SentencePiece unigram), `bert` (WordPiece) and `gpt2` (BPE by a list of merges, inside the
//! words that one of many pre-tokenisers cuts), of which `gemma4` is one.

mod bpe;
mod chat;
mod detokenizer;
mod ends;
mod escape;
#[cfg(feature = "constraints")]
mod guide;
mod load;
mod long;
mod merge;
mod message;
mod pretokenize;
mod special;
mod spm;
mod tokenizer;
mod trie;
mod unigram;
mod utf8;
mod vocabulary;
mod wordpiece;
mod work;

#[cfg(test)]
mod tests;

pub use chat::{Chat, Conversation};
pub use detokenizer::{DetokenizeOptions, Detokenizer};
#[cfg(feature = "constraints")]
pub(crate) use guide::{Guide, GuidePlan, Reader};
#[doc(hidden)]
pub use load::MODELS;
pub use message::{MessageParser, MessagePart, PartKind};
#[doc(hidden)]
pub use pretokenize::{pretokenize, pretokenizers};
pub use tokenizer::{TokenAttributes, TokenizeOptions, Tokenizer};
pub use utf8::Utf8Stream;
