//! What a tokeniser says it holds against what the allocator gave it. Alone in its process, so that nothing else is
//! counted.

use std::alloc::System;
use std::io::Read;

use cap::Cap;
use layerline::gguf::read_file;
use layerline::text::Tokenizer;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

#[test]
fn memory_bytes_is_what_the_allocator_counts() {
    for name in ["llama-spm", "gpt-2", "llama-bpe", "qwen2", "smollm2", "deepseek-llm", "bert-bge", "xlm-r-small"] {
        let path = format!("{}/tests/data/vocab/{name}.gguf.gz", env!("CARGO_MANIFEST_DIR"));
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
        let before = ALLOCATOR.allocated();
        let tokenizer = Tokenizer::from_metadata(&mut read_file(&bytes, name).unwrap().metadata).unwrap().unwrap();
        let counted = (ALLOCATOR.allocated() - before + size_of::<Tokenizer>()) as u64;
        assert_eq!(tokenizer.memory_bytes(), counted, "{name}");
    }
}
