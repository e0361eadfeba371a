//! What a model writes: the first byte says which format, the second how the text is cut. Whatever it is, no text is
//! refused, the parts are the same as of the whole, and the work is linear.
#![no_main]

use layerline::MessageParser;
use libfuzzer_sys::fuzz_target;

const FORMATS: [&str; 10] =
    ["hermes", "qwen3-coder", "llama3", "mistral", "deepseek", "harmony", "glm", "kimi", "minimax", "plain"];

fn message(format: &str, text: &[u8], piece: usize) -> String {
    let mut parser = MessageParser::new(format, "").unwrap();
    for piece in text.chunks(piece) {
        parser.feed(piece).unwrap();
        while parser.next_part().is_some() {}
    }
    parser.finish().unwrap();
    assert!(parser.work() <= 80 * text.len() as u64 + 80);
    parser.message().unwrap()
}

fuzz_target!(|data: &[u8]| {
    let [format, piece, text @ ..] = data else { return };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let whole = message(format, text, text.len().max(1));
    assert_eq!(message(format, text, usize::from(*piece).max(1)), whole);
});
