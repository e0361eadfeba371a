//! include/layerline.h is what the source says, declares what it must, and compiles as C and C++.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../include/header.rs"]
mod header;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> String {
    std::fs::read_to_string(root().join("include/layerline.h")).expect("include/layerline.h is there")
}

#[test]
fn the_committed_header_is_the_one_the_source_makes() {
    let made = header::generate(root()).expect("the header follows from the source");
    for (number, (made, committed)) in made.lines().zip(committed().lines()).enumerate() {
        let line = number + 1;
        assert_eq!(made, committed, "line {line}: make it anew with `cargo build --features generate-header`");
    }
    assert_eq!(made.len(), committed().len(), "make it anew with `cargo build --features generate-header`");
}

/// The functions a header declares: names of the library that stand at the outermost level before a parenthesis.
fn declared(header: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in header.lines().filter(|line| !line.starts_with([' ', '/', '#'])) {
        let Some((before, _)) = line.split_once('(') else { continue };
        let name = before.rsplit([' ', '*']).next().unwrap_or_default();
        if name.starts_with("layerline_") {
            names.insert(name.to_string());
        }
    }
    names
}

#[test]
fn the_header_declares_the_functions_of_the_list() {
    let list = std::fs::read_to_string(root().join("include/symbols.txt")).expect("include/symbols.txt is there");
    let list: BTreeSet<String> = list.lines().map(str::to_string).collect();
    assert_eq!(declared(&committed()), list);
}

#[test]
fn the_header_compiles_without_a_warning_as_c_and_as_cpp() {
    // Included twice, alone, before everything else.
    let source = "#include \"layerline.h\"\n#include \"layerline.h\"\nint main(void) { return LAYERLINE_OK; }\n";
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (file, compiler, default, standard) in
        [("header.c", "CC", "cc", "-std=c99"), ("header.cpp", "CXX", "c++", "-std=c++17")]
    {
        let path = folder.join(file);
        std::fs::write(&path, source).expect("the scratch folder can be written");
        let compiler = std::env::var(compiler).unwrap_or_else(|_| default.to_string());
        let output = Command::new(&compiler)
            .args([standard, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-I"])
            .arg(root().join("include"))
            .arg(&path)
            .output()
            .unwrap_or_else(|error| panic!("{compiler} is needed for this test: {error}"));
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
