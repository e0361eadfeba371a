//! The order of the modules, and what stands in which of them, read from the source itself.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module uses only those below it.
const ORDER: [&str; 16] = [
    "ffi",
    "generate",
    "session",
    "model",
    "exec",
    "arch",
    "weights",
    "text",
    "kernel",
    "operations",
    "gguf",
    "quant",
    "sys",
    "order",
    "elementary",
    "error",
];

/// Modules beside each other: the first does not use the second, although it stands above it.
const APART: [(&str, &str); 4] = [("arch", "kernel"), ("arch", "text"), ("text", "kernel"), ("weights", "kernel")];

/// Where memory is handled by hand.
const UNSAFE: [&str; 4] = ["ffi/", "kernel/", "sys/", "weights/frames"];

/// Files of the C boundary that use the system's types: bytes of a path, descriptors.
const OUTSIDE_SYS: [&str; 3] = ["ffi/boundary.rs", "ffi/plan.rs", "ffi/prefetch.rs"];

/// A source file without its tests: its path from `src`, and its lines of code with their numbers.
struct Source {
    path: String,
    lines: Vec<(usize, String)>,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut sources: Vec<Source> = files
        .iter()
        .map(|file| Source {
            path: file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/"),
            lines: product_lines(&fs::read_to_string(file).unwrap()),
        })
        .filter(|source| !is_test(&source.path))
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn is_test(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap();
    name == "tests.rs" || name.ends_with("_tests.rs") || path.contains("/testing/") || path.contains("/tests/")
}

/// Lines before the file's own tests, without comments.
fn product_lines(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_tests = |i: usize| {
        lines[i].starts_with("#[cfg(")
            && lines[i].contains("test")
            && !lines[i].contains("not(")
            && lines.get(i + 1).is_some_and(|next| next.contains("mod ") && next.ends_with('{'))
    };
    let end = (0..lines.len()).find(|&i| is_tests(i)).unwrap_or(lines.len());
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_string();
    (0..end).map(|i| (i + 1, code(lines[i]))).collect()
}

/// Modules that a line names as `crate::x` or in `crate::{x, y::z}`.
fn named_modules(line: &str) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut names = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = 0;
            for (i, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        names.push(list[start..i].trim());
                        start = i + 1;
                    }
                    _ => {}
                }
            }
            names.iter_mut().for_each(|name| *name = &name[..word(name)]);
        } else {
            names.push(&rest[..word(rest)]);
        }
    }
    names
}

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|m| *m == module)
}

#[test]
fn no_module_uses_one_above_it() {
    let mut found = Vec::new();
    for source in sources() {
        let Some(own) = place(source.module()) else {
            assert_eq!(source.path, "lib.rs", "a module that the order does not name");
            continue;
        };
        for (number, line) in &source.lines {
            for name in named_modules(line) {
                // What `lib.rs` exports of the errors may be named there.
                let name = if ["Error", "Result", "Status"].contains(&name) { "error" } else { name };
                if place(name).is_none_or(|at| at < own) || APART.contains(&(source.module(), name)) {
                    found.push(format!("src/{}:{number}: {name} is not below {}", source.path, source.module()));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_operating_system_is_called_in_sys_alone() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| s.module() != "sys" && !OUTSIDE_SYS.contains(&s.path.as_str())) {
        for (number, line) in &source.lines {
            if ["libc::", "windows_sys", "memmap2", "std::os::", "/proc/"].iter().any(|call| line.contains(call)) {
                found.push(format!("src/{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn unsafe_code_stands_only_where_memory_is_handled_by_hand() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !UNSAFE.iter().any(|place| s.path.starts_with(place))) {
        for (number, line) in &source.lines {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| word == "unsafe") {
                found.push(format!("src/{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The results of a C library's functions differ from system to system in their last bits.
#[test]
fn what_gives_logits_calls_no_function_of_a_c_library() {
    const CALLS: [&str; 12] = [
        ".exp()",
        ".exp2()",
        ".exp_m1()",
        ".ln()",
        ".ln_1p()",
        ".log2()",
        ".log10()",
        ".powf(",
        ".powi(",
        ".sin()",
        ".sin_cos()",
        ".tanh()",
    ];
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| ["arch", "exec", "kernel", "quant"].contains(&source.module())) {
        for (number, line) in &source.lines {
            if CALLS.iter().any(|call| line.contains(call)) {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "use `elementary`:\n{}", found.join("\n"));
}

/// A name that is longer says how a test is made; a shorter one says what is promised.
const MAX_TEST_NAME: usize = 79;

#[test]
fn test_names_fit_in_a_line() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next());
        found.extend(names.filter(|name| name.len() > MAX_TEST_NAME).map(|name| format!("{}: {name}", file.display())));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_document_on_the_source_names_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| collect(&root.join(folder), &mut files));
    let document = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let named = document.split('`').skip(1).step_by(2).filter(|text| text.ends_with(".rs"));
    let missing: Vec<&str> = named.clone().filter(|name| !files.iter().any(|file| file.ends_with(name))).collect();
    assert!(named.count() > 50 && missing.is_empty(), "{missing:?}");
}

#[test]
fn modules_are_found_in_every_way_of_naming_them() {
    assert_eq!(named_modules("use crate::model::Io;"), ["model"]);
    assert_eq!(named_modules("pub use crate::weights;"), ["weights"]);
    assert_eq!(named_modules("use crate::{arch, text::{Chat, Tokenizer}, Error};"), ["arch", "text", "Error"]);
    assert_eq!(named_modules("fn f(a: &crate::arch::Rope) -> crate::Result<()>"), ["arch", "Result"]);
    assert_eq!(product_lines("a\n#[cfg(test)]\nuse b;\n#[cfg(test)]\nmod tests {\nc").len(), 3);
}
