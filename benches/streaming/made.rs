//! Models without trained weights, of the shapes that people run: speed does not depend on what weights say.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{ROOT, Result};

/// The synthetic model of a shape and type that scripts/make_model.rs knows, written to models/ where it is missing.
#[allow(dead_code)] // One bench has models of traces alone.
pub fn model(shape: &str, kind: &str) -> Result<PathBuf> {
    written(&format!("{shape}-{kind}"), ["--shape", shape, "--type", kind])
}

/// models/NAME.gguf, which scripts/make_model.rs writes with these options where it is missing.
pub fn written(name: &str, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<PathBuf> {
    let folder = Path::new(ROOT).join("models");
    let path = folder.join(format!("{name}.gguf"));
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // Under another name until it is whole.
    let fresh = folder.join(format!(".{name}-{}.gguf", std::process::id()));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(ROOT)
        .args(["run", "--release", "--quiet", "--example", "make_model", "--"])
        .args(options)
        .arg("--out")
        .arg(&fresh)
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !status.success() {
        return Err(format!("make_model ended with {status}"));
    }
    std::fs::rename(&fresh, &path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
