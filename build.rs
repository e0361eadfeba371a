//! Names the shared library the way each system's loader wants it, and writes the C header when asked to.

use std::env;

#[cfg(feature = "generate-header")]
#[path = "include/header.rs"]
mod header;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=LAYERLINE_TARGET={}", env::var("TARGET").unwrap_or_default());
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    // cargo-c gives the name itself: the same one where there are versions in it, and the one its target wants elsewhere.
    let named = env::var_os("CARGO_FEATURE_CAPI").is_some();
    match os.as_str() {
        "linux" | "android" | "freebsd" | "netbsd" | "openbsd" | "dragonfly" => {
            if os == "android" {
                // An app's libraries have names without versions, and those of systems with pages of 16 KiB are aligned to them.
                println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblayerline.so");
                println!("cargo:rustc-cdylib-link-arg=-Wl,-z,max-page-size=16384");
            } else if !named {
                println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblayerline.so.0");
            }
            // Reader threads may still be inside a blocked read when a host unloads the library: it must stay mapped.
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
            // What other crates would export for C stays inside.
            println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
        }
        "macos" | "ios" if !named => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/liblayerline.0.dylib");
        }
        _ => {}
    }
    #[cfg(feature = "generate-header")]
    {
        let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo:rerun-if-changed=src/ffi");
        println!("cargo:rerun-if-changed=include/cbindgen.toml");
        println!("cargo:rerun-if-changed=include/header.rs");
        let text = header::generate(root.as_ref()).expect("the header follows from the source");
        let file = format!("{root}/include/layerline.h");
        if std::fs::read_to_string(&file).ok().as_ref() != Some(&text) {
            std::fs::write(file, text).expect("include/layerline.h can be written");
        }
    }
}
