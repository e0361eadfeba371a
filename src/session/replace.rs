//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names that are tried for a file before it gets its own. Other writers have some at the moment, killed ones for good.
const NAMES: u32 = 1000;

/// Makes a file of this name, or replaces it, by what `write` writes. That goes to a file `.layerline-*.tmp` beside it,
/// which gets the name when it is complete and on storage: until then, and after a failure, the name means what it meant
/// before. Only its owner can read the new file.
///
/// # Errors
/// `IO`, also where the name means something else than a regular file.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let failed = |what: &str, e: io::Error| Error::io(format!("{}: {what}{e}", path.display()));
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => return Err(Error::io(format!("{}: not a regular file", path.display()))),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("", e)),
        _ => {}
    }
    if path.file_name().is_none() {
        return Err(Error::io(format!("{:?} is not the name of a file", path.display().to_string())));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (temporary, mut file) = create(folder).map_err(|e| failed("a file beside it: ", e))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(|e| failed("writing: ", e))?;
    temporary.rename(path).map_err(|e| failed("", e))?;
    // So that the name is on storage too. Not every system lets a folder be synced, and the file is whole either way.
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// A file that goes with this, unless it got its name.
struct Temporary {
    path: PathBuf,
    named: bool,
}

impl Temporary {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create(folder: &Path) -> io::Result<(Temporary, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut number = 0;
    loop {
        let path = folder.join(format!(".layerline-{}-{number}.tmp", std::process::id()));
        match options.open(&path) {
            Ok(file) => return Ok((Temporary { path, named: false }, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < NAMES => number += 1,
            Err(e) => return Err(e),
        }
    }
}
