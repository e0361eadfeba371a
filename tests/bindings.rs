//! Every binding that lives here has every function of the C interface.

use std::path::Path;

#[test]
fn each_binding_calls_every_exported_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| text_of(&root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    for binding in ["include/layerline.hpp", "bindings/python/layerline.py", "bindings/swift/Sources/Layerline"] {
        let text = read(binding);
        for function in read("include/symbols.txt").lines() {
            let called = text.match_indices(function).any(|(at, _)| {
                // The whole name, not the beginning of a longer one.
                !text[at + function.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            });
            // What frees errors holds them: bindings read status and message of an error in one place.
            assert!(called || function == "layerline_error_status", "{binding} does not have {function}");
        }
    }
}

/// A file's text, or those of all files in a folder.
fn text_of(path: &Path) -> std::io::Result<String> {
    if !path.is_dir() {
        return std::fs::read_to_string(path);
    }
    std::fs::read_dir(path)?.map(|file| std::fs::read_to_string(file?.path())).collect()
}
