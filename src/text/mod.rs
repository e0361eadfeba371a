//! Tokenisers and detokenisation.
//!
//! Two families are built in: `llama` (SentencePiece BPE: merges chosen by the score of the token they make, bytes as
//! a last resort) and `gpt2` (BPE over bytes, inside the words a pre-tokeniser cuts).

mod bpe;
mod load;
mod merge;
mod pretokenize;
mod special;
mod spm;
mod tokenizer;
mod utf8;
mod vocabulary;

pub use tokenizer::Tokenizer;
pub use utf8::Utf8Stream;
