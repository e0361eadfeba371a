//! The shared library exports the functions of the header and nothing else.

use std::collections::BTreeSet;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::Command;

use object::Object;

/// Builds the shared library as this test was built, and says where it is. What is fresh is not built again.
fn library() -> PathBuf {
    // <target folder>[/<triple>]/<profile folder>/deps/<this test>
    let test = std::env::current_exe().expect("a test knows its file");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in <profile>/deps");
    let name = profile.file_name().and_then(|name| name.to_str()).expect("cargo's folders have plain names");
    let mut target = profile.parent().expect("the profile lies in the target folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--lib", "--message-format=json", "--manifest-path"]);
    cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    cargo.args(["--profile", if name == "debug" { "dev" } else { name }, "--no-default-features"]);
    for (feature, is_on) in [("prefetch", cfg!(feature = "prefetch")), ("constraints", cfg!(feature = "constraints"))] {
        if is_on {
            cargo.args(["--features", feature]);
        }
    }
    let triple = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if triple == env!("LAYERLINE_TARGET") {
        cargo.args(["--target", triple]);
        target = target.parent().expect("a triple lies in the target folder");
    }
    let output = cargo.arg("--target-dir").arg(target).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = format!("{DLL_PREFIX}layerline{DLL_SUFFIX}");
    let messages = String::from_utf8(output.stdout).expect("cargo's messages are UTF-8");
    messages
        .split('"')
        .map(|text| PathBuf::from(text.replace("\\\\", "\\")))
        .find(|path| path.file_name().is_some_and(|name| name == file.as_str()))
        .unwrap_or_else(|| panic!("cargo names {file} among what it built: {messages}"))
}

#[test]
#[ignore = "builds the library once more; make test looks at the one that it makes"]
fn the_library_exports_the_functions_of_the_list_and_nothing_else() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/symbols.txt");
    let list = std::fs::read_to_string(list).expect("include/symbols.txt is there");
    let expected: BTreeSet<&str> = list.lines().collect();
    let path = library();
    let bytes = std::fs::read(&path).expect("the library can be read");
    let file = object::File::parse(&*bytes).expect("the library is one the system's loader knows");
    let exports = file.exports().expect("the library has a table of exports");
    let names: Vec<String> = exports.iter().map(|export| String::from_utf8_lossy(export.name()).into_owned()).collect();
    // Mach-O puts an underscore before C's names.
    let underscore = if cfg!(target_vendor = "apple") { "_" } else { "" };
    let exported: BTreeSet<&str> = names.iter().map(|name| name.strip_prefix(underscore).unwrap_or(name)).collect();
    assert_eq!(exported, expected, "{}", path.display());
}
