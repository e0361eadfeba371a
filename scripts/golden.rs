//! Writes the tiny models of the golden data, whose weights are drawn again, for tests that are not written in Rust.
//!
//!     cargo run --example golden -- FOLDER         writes all models below FOLDER
//!     cargo run --example golden -- --pack FILES   replaces whole models that tests/data/golden/drawn.txt.gz describes

use std::io::Write;
use std::path::Path;

#[allow(dead_code)]
#[path = "../tests/data/drawn.rs"]
mod drawn;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--pack") => arguments[1..].iter().for_each(|file| pack(Path::new(file))),
        Some(folder) if arguments.len() == 1 => unpack(Path::new(folder)),
        _ => {
            eprintln!("usage: golden FOLDER, or golden --pack FILE...");
            std::process::exit(2);
        }
    }
}

fn unpack(folder: &Path) {
    for part in std::fs::read_dir(drawn::data()).unwrap() {
        let part = part.unwrap();
        if !part.file_type().unwrap().is_dir() {
            continue;
        }
        let part = part.file_name().into_string().unwrap();
        for name in drawn::models(&part) {
            let plain = drawn::data().join(&name);
            if plain.exists() {
                std::fs::create_dir_all(folder.join(&part)).unwrap();
                std::fs::copy(plain, folder.join(&name)).unwrap();
            } else {
                drawn::unpack_into(folder, &name);
            }
        }
    }
}

/// Writes `FILE.gz` and removes FILE. The hash is printed for drawn.txt.gz.
fn pack(file: &Path) {
    let below = file.strip_prefix(drawn::data()).expect("the absolute path of a model of the golden data");
    let name = below.with_extension("").to_str().unwrap().to_string();
    let mut bytes = std::fs::read(file).unwrap();
    println!("{name} {:x}", drawn::hash(&bytes));
    drawn::recipes().get(&name).expect("a model of drawn.txt.gz").exclusive_or(&mut bytes);
    let out = std::fs::File::create(format!("{}.gz", file.display())).unwrap();
    let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::best());
    packed.write_all(&bytes).and_then(|()| packed.finish().map(drop)).unwrap();
    std::fs::remove_file(file).unwrap();
}
