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

/// The words of a text that look like names, numbers among them.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_number_and_every_field_is_frozen_on_both_sides() {
    let read =
        |file: &str| std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (c, rust, header) = (read("ctests/layout.c"), read("src/ffi/layout.rs"), committed());

    let defined: BTreeSet<(&str, &str)> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter(|(name, value)| !name.contains("VERSION") && value.parse::<i64>().is_ok())
        .collect();
    assert!(defined.len() > 20, "{defined:?}");
    let in_c = c.lines().filter_map(|line| line.strip_prefix("NUMBER("));
    let in_c: BTreeSet<_> = in_c.map(|line| (words(line)[0], words(line)[1])).collect();
    assert_eq!(in_c, defined, "ctests/layout.c and the header");
    let in_rust = rust.lines().filter(|line| line.starts_with("    LAYERLINE_"));
    let in_rust: BTreeSet<_> = in_rust.map(|line| (words(line)[0], words(line)[1])).collect();
    assert_eq!(in_rust, defined, "src/ffi/layout.rs and the header");

    // Type, field, offset; a type's own line has its size in place of both.
    let mut in_c = BTreeSet::new();
    for line in c.lines().filter(|line| line.starts_with("SIZE(layerline_") || line.starts_with("OFFSET(")) {
        in_c.insert(words(line)[1..].join(" "));
    }
    let mut in_rust = BTreeSet::from(["layerline_status 4".to_string()]);
    let mut of = "";
    for line in rust.lines() {
        if line.starts_with("layout!(") {
            of = words(line)[1];
            in_rust.insert(words(line)[1..].join(" "));
        } else if line == "});" {
            of = "";
        } else if !of.is_empty() {
            in_rust.insert(format!("{of} {}", words(line).join(" ")));
        }
    }
    assert_eq!(in_c, in_rust);
}

/// A declaration of a function: what it returns, its name, its parameters, and the first word of its description.
struct Function {
    returned: String,
    name: String,
    parameters: Vec<String>,
    first_word: String,
}

fn functions(header: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    let lines: Vec<&str> = header.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, _)) = line.split_once('(') else { continue };
        let name = before.rsplit([' ', '*']).next().unwrap_or_default();
        if line.starts_with([' ', '/', '#']) || line.starts_with("typedef") || !name.starts_with("layerline_") {
            continue;
        }
        let mut text = String::new();
        for line in &lines[at..] {
            text.push_str(line.trim());
            text.push(' ');
            if line.ends_with(';') {
                break;
            }
        }
        let inside = &text[text.find('(').expect("a function has parameters") + 1..text.rfind(')').expect("they end")];
        let begin = (0..at).rev().find(|&i| lines[i].starts_with("/**")).expect("every function has a description");
        let prose = lines[begin..at].join(" ");
        let first_word = prose.trim_start_matches(['/', '*', ' ']).split([' ', ';']).next().unwrap_or_default();
        functions.push(Function {
            returned: before.trim_end_matches(name).trim().to_string(),
            name: name.to_string(),
            parameters: inside.split(", ").map(str::to_string).filter(|text| text != "void").collect(),
            first_word: first_word.to_string(),
        });
    }
    functions
}

/// The type of a parameter without const and pointers, and without its name.
fn type_of(parameter: &str) -> &str {
    let parameter = parameter.trim_start_matches("const ");
    parameter.split([' ', '*']).next().unwrap_or_default()
}

#[test]
fn a_functions_noun_is_the_type_of_its_first_parameter() {
    let all = functions(&committed());
    assert_eq!(all.len(), declared(&committed()).len());
    for function in all {
        let name = &function.name;
        let makes = ["_new", "_open", "_open_fd", "_open_source"].iter().any(|ending| name.ends_with(ending));
        let noun = if makes {
            // What it makes: the result, or the object that an out-parameter is set to.
            let made = function.parameters.iter().rev().find(|p| p.contains("**") && type_of(p) != "layerline_error");
            type_of(made.unwrap_or(&function.returned)).to_string()
        } else if let Some(first) = function.parameters.first() {
            type_of(first).to_string()
        } else {
            // Functions without parameters tell about the library.
            "layerline".to_string()
        };
        assert!(name.starts_with(&format!("{noun}_")), "{name}: its noun is {noun}");
    }
}

#[test]
fn a_function_that_can_fail_gives_its_error_last() {
    for function in functions(&committed()).iter().filter(|function| function.returned == "layerline_status") {
        let name = &function.name;
        // One that opens a session of another model, copies a constraint or takes an array has more to say.
        let more_to_say = [
            "layerline_generation_set_constraint",
            "layerline_generation_set_draft_model",
            "layerline_sampler_set_logit_biases",
            "layerline_sampler_set_steps",
        ];
        let setter = ["layerline_options_set_", "layerline_sampler_set_", "layerline_generation_set_"]
            .iter()
            .any(|prefix| name.starts_with(prefix) && !more_to_say.contains(&name.as_str()));
        let has_error = function.parameters.last().is_some_and(|last| last == "layerline_error **err");
        assert!(has_error != (setter || name == "layerline_error_status"), "{name}");
    }
}

#[test]
fn a_description_begins_with_a_verb() {
    for function in functions(&committed()) {
        let word = &function.first_word;
        assert!(word.ends_with('s') && !word.ends_with("ss"), "{}: {word}", function.name);
    }
}
