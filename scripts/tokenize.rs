//! What the tokenisers make of texts, for comparing them with others.
//!
//!     tokenize definitions            each pre-tokeniser: its names, then its expressions, in JSON
//!     tokenize words NAME < TEXTS     where each word ends by a pre-tokeniser, in bytes
//!     tokenize ids MODEL.gguf < TEXTS the tokens by a model's vocabulary, special tokens not recognised
//!     tokenize ends MODEL.gguf        the tokens that end a text
//!
//! Texts end with NUL; the answer to each is a line of numbers.

use std::io::{BufWriter, Read, Write};

use layerline::gguf::read_file;
use layerline::text::{Tokenizer, pretokenize, pretokenizers};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = BufWriter::new(std::io::stdout().lock());
    match arguments[..] {
        ["definitions"] => {
            let all: Vec<_> = pretokenizers().collect();
            writeln!(out, "{}", serde_json::to_string(&all)?)?;
        }
        ["words", name] => {
            for text in texts()? {
                let words = pretokenize(name, &text).ok_or_else(|| format!("no pre-tokeniser {name:?}"))?;
                let mut end = 0;
                line(
                    &mut out,
                    words.iter().map(|word| {
                        end += word.len();
                        end
                    }),
                )?;
            }
        }
        ["ids", path] => {
            let tokenizer = tokenizer(path)?;
            for text in texts()? {
                line(&mut out, tokenizer.encode(&text, false, false))?;
            }
        }
        ["ends", path] => {
            let tokenizer = tokenizer(path)?;
            line(
                &mut out,
                (0..tokenizer.vocab_size() as i32).filter(|&token| tokenizer.is_end(token).unwrap_or(false)),
            )?;
        }
        _ => return Err("usage: tokenize definitions | words NAME | ids MODEL | ends MODEL".into()),
    }
    Ok(out.flush()?)
}

fn tokenizer(path: &str) -> Result<Tokenizer, Failure> {
    let bytes = std::fs::read(path)?;
    Tokenizer::from_metadata(&mut read_file(&bytes, path)?.metadata)?.ok_or_else(|| "the file has no vocabulary".into())
}

fn texts() -> Result<Vec<String>, Failure> {
    let mut all = String::new();
    std::io::stdin().read_to_string(&mut all)?;
    Ok(all.split_terminator('\0').map(str::to_string).collect())
}

fn line(out: &mut impl Write, numbers: impl IntoIterator<Item = impl std::fmt::Display>) -> std::io::Result<()> {
    for (i, number) in numbers.into_iter().enumerate() {
        write!(out, "{}{number}", if i > 0 { " " } else { "" })?;
    }
    writeln!(out)
}
