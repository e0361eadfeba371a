//! What a tokeniser says it holds against what the allocator gave it. Alone in its process, so that nothing else is
//! counted.

use std::alloc::System;
use std::io::Read;

use cap::Cap;
use layerline::gguf::read_file;
use layerline::text::Tokenizer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fn vocabulary(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/vocab/{name}.gguf.gz", env!("CARGO_MANIFEST_DIR"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// One after the other: what one test allocates would be counted in the other.
#[test]
fn memory_is_what_was_said() {
    memory_bytes_is_what_the_allocator_counts();
    ten_megabytes_of_one_thing_take_no_more_than_was_said();
}

/// A text of which nothing parts words, or everything does: the allocator has no more to give than `encode` says it
/// takes, and the result, three times because it grows.
fn ten_megabytes_of_one_thing_take_no_more_than_was_said() {
    // The long texts take seconds each: two of them, one without words and one of words.
    for (length, parts) in [(800_000, &["a", " ", "🦊", "ab ", "漢"][..]), (10_000_000, &["a", "ab "][..])] {
        for name in ["llama-spm", "llama-bpe", "qwen2", "phi-3", "bert-bge", "xlm-r-small"] {
            let tokenizer =
                Tokenizer::from_metadata(&mut read_file(&vocabulary(name), name).unwrap().metadata).unwrap().unwrap();
            for part in parts {
                let text = part.repeat(length / part.len());
                // By a tenth of it: the whole takes seconds.
                let tenth = part.repeat(length / part.len() / 10);
                let result = 4 * (10 * tokenizer.encode(&tenth, false, false).len() + 16);
                let said = 4 * length + (1 << 20);
                ALLOCATOR.set_limit(ALLOCATOR.allocated() + said + 3 * result).unwrap();
                let tokens = tokenizer.encode(&text, false, false).len();
                ALLOCATOR.set_limit(usize::MAX).unwrap();
                assert!(tokens <= length + 1, "{name}: {tokens} tokens for {length} bytes of {part:?}");
            }
        }
    }
}

fn memory_bytes_is_what_the_allocator_counts() {
    for name in ["llama-spm", "gpt-2", "llama-bpe", "qwen2", "smollm2", "deepseek-llm", "bert-bge", "xlm-r-small"] {
        let bytes = vocabulary(name);
        let before = ALLOCATOR.allocated();
        let tokenizer = Tokenizer::from_metadata(&mut read_file(&bytes, name).unwrap().metadata).unwrap().unwrap();
        let counted = (ALLOCATOR.allocated() - before + size_of::<Tokenizer>()) as u64;
        assert_eq!(tokenizer.memory_bytes(), counted, "{name}");
    }
}
