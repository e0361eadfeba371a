//! Version and build of the library.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use super::boundary::caller;
use crate::kernel::Isa;

/// The version this header belongs to. Compare with `layerline_version_number`, which is that of the library loaded.
pub const LAYERLINE_VERSION_MAJOR: u32 = 0;
/// Grows when something is added.
pub const LAYERLINE_VERSION_MINOR: u32 = 2;
/// Grows when something is corrected.
pub const LAYERLINE_VERSION_PATCH: u32 = 0;
/// MAJOR * 1000000 + MINOR * 1000 + PATCH.
pub const LAYERLINE_VERSION_NUMBER: u32 =
    LAYERLINE_VERSION_MAJOR * 1000000 + LAYERLINE_VERSION_MINOR * 1000 + LAYERLINE_VERSION_PATCH;

/// Returns the version of the library as a number, made as LAYERLINE_VERSION_NUMBER is. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_version_number() -> u32 {
    LAYERLINE_VERSION_NUMBER
}

/// Returns the version of the library as text, "MAJOR.MINOR.PATCH". The string is the library's and always valid.
/// Cannot fail; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Returns what the library was built for and runs with: target, instruction set in use on this processor, features;
/// separated by "; ". For logs: the wording may change. The string is the library's and always valid. Cannot fail; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn layerline_build_info() -> *const c_char {
    static INFO: OnceLock<CString> = OnceLock::new();
    caller!().or(c"".as_ptr(), |_| Ok(INFO.get_or_init(build_info).as_ptr()))
}

fn build_info() -> CString {
    let feature = |built_in: bool, name: &str| if built_in { name.to_string() } else { format!("no {name}") };
    let features =
        [feature(cfg!(feature = "constraints"), "constraints"), feature(cfg!(feature = "prefetch"), "prefetch")]
            .join("; ");
    let text = format!("{}; {}; {features}", env!("LAYERLINE_TARGET"), Isa::detect().name());
    CString::new(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn the_version_is_the_packages() {
        let expected =
            [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")];
        let given = [LAYERLINE_VERSION_MAJOR, LAYERLINE_VERSION_MINOR, LAYERLINE_VERSION_PATCH];
        assert_eq!(given.map(|part| part.to_string()), expected);
        // SAFETY: a static string with a NUL.
        let text = unsafe { CStr::from_ptr(layerline_version()) };
        assert_eq!(text.to_str().unwrap(), expected.join("."));
        assert_eq!(layerline_version_number(), given[0] * 1_000_000 + given[1] * 1_000 + given[2]);
    }

    #[test]
    fn the_build_info_names_target_instruction_set_and_features() {
        // SAFETY: a string with a NUL, kept for ever.
        let text = unsafe { CStr::from_ptr(layerline_build_info()) }.to_str().unwrap();
        let parts: Vec<&str> = text.split("; ").collect();
        assert_eq!(parts.len(), 4, "{text}");
        assert_eq!(parts[2].starts_with("no "), cfg!(not(feature = "constraints")), "{text}");
        assert!(parts[0].contains(std::env::consts::ARCH), "{text}");
        assert!(Isa::available().iter().any(|isa| isa.name() == parts[1]), "{text}");
    }
}
