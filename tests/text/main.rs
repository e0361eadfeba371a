//! Tokenisers against the reference ids of real vocabularies, and against files that lie.

mod doubles;
mod ends;
mod files;
mod pieces;
mod vocabularies;

use std::io::Read;
use std::path::PathBuf;

use layerline::gguf::{Array, Metadata, Strings, Value, read_file};
use layerline::text::Tokenizer;
use layerline::{Error, Status};

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data/vocab", name].iter().collect()
}

fn metadata(name: &str) -> Metadata {
    let file = std::fs::File::open(data(&format!("{name}.gguf.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    read_file(&bytes, name).unwrap().metadata
}

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_metadata(&mut metadata(name)).unwrap().unwrap()
}

/// A small generator (xorshift64*): the same texts on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn text(&mut self, length: usize) -> String {
        const ALPHABETS: [&str; 6] = [
            "aeinrst ",
            "  \t\n\r\u{a0}\u{3000}",
            "0123456789½², .",
            "'sStTrReEvVmMlLdDſ",
            "éßжя漢字ひら한국ا",
            "🦊👩\u{200d}👧\u{301}\u{2581}<|>",
        ];
        let mut text = String::new();
        while text.len() < length {
            let alphabet: Vec<char> = ALPHABETS[self.below(ALPHABETS.len())].chars().collect();
            for _ in 0..1 + self.below(8) {
                text.push(alphabet[self.below(alphabet.len())]);
            }
            text.extend(char::from_u32(self.below(0x11_0000) as u32));
        }
        text
    }
}

fn strings(texts: &[&[u8]]) -> Value {
    let mut strings = Strings::default();
    for text in texts {
        strings.bytes.extend_from_slice(text);
        strings.ends.push(strings.bytes.len() as u32);
    }
    Value::Array(Array::String(strings))
}

fn made(entries: Vec<(&str, Value)>) -> Metadata {
    Metadata { entries: entries.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect() }
}

fn text_value(text: &str) -> Value {
    Value::String(text.as_bytes().into())
}

fn spm(texts: &[&[u8]], scores: Vec<f32>, kinds: Vec<i32>) -> Vec<(&'static str, Value)> {
    vec![
        ("model", text_value("llama")),
        ("tokens", strings(texts)),
        ("scores", Value::Array(Array::F32(scores))),
        ("token_type", Value::Array(Array::I32(kinds))),
    ]
}

fn bpe(texts: &[&[u8]], merges: &[&[u8]], pre: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("model", text_value("gpt2")),
        ("pre", text_value(pre)),
        ("tokens", strings(texts)),
        ("merges", strings(merges)),
    ]
}

fn load(entries: Vec<(&str, Value)>) -> Result<Option<Tokenizer>, Error> {
    Tokenizer::from_metadata(&mut made(entries))
}

fn refused(entries: Vec<(&str, Value)>, status: Status, mention: &str) {
    let error = load(entries).err().unwrap_or_else(|| panic!("accepted; expected a message with {mention:?}"));
    assert_eq!(error.status(), status, "{error}");
    assert!(error.message().contains(mention), "{error}");
}
