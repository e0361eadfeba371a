//! Every binding that lives here has every function of the C interface.

use std::path::Path;

#[test]
fn each_binding_calls_every_exported_function() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    for binding in ["include/layerline.hpp", "bindings/python/layerline.py"] {
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
