//! Every binding that lives here has every function of the C interface.

use std::path::Path;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All sources of a folder that end so, but for tests.
fn read_all(folder: &str, ending: &str) -> String {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    let files = files.unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = files.map(|file| file.expect("a folder can be listed").file_name().into_string().expect("UTF-8"));
    let sources = names.filter(|name| name.ends_with(ending) && !name.ends_with("_test.go"));
    sources.map(|name| read(&format!("{folder}/{name}"))).collect()
}

#[test]
fn each_binding_calls_every_exported_function() {
    for (binding, text) in [
        ("include/layerline.hpp", read("include/layerline.hpp")),
        ("bindings/python/layerline.py", read("bindings/python/layerline.py")),
        ("bindings/go", read_all("bindings/go", ".go")),
        ("bindings/swift", read_all("bindings/swift/Sources/Layerline", ".swift")),
    ] {
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

#[test]
fn the_header_that_travels_with_the_go_module_is_the_librarys() {
    assert!(
        read("bindings/go/layerline.h") == read("include/layerline.h"),
        "bindings/go/layerline.h is stale: run `make header` and commit it"
    );
}
