//! Files that are there whole or not at all.
//!
//! What is written gets its name when it is complete and on storage. Until then it is a file without a name where the
//! system has such, which goes with the process, or a file `.layerline-*.tmp` in the same folder. Its writer has a lock
//! on it, so that the next one can tell what a killed process has left there, and removes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

const PREFIX: &str = ".layerline-";
const SUFFIX: &str = ".tmp";

/// Makes a file of this name, or replaces it, by what `write` writes; where the name is a symbolic link, the file that it
/// leads to, there or not. After a failure the name means what it meant before.
/// Only its owner can read the new file.
///
/// # Errors
/// `IO`, also where the name means something else than a regular file. Where the message says that the folder could not
/// be synced, the file is there, but may be the earlier one after a power failure.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    replace_by(NewFile::create, path, write)
}

fn replace_by(
    create: fn(&Path) -> io::Result<NewFile>,
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let failed = |what: &str, e: io::Error| Error::io(format!("{}: {what}{e}", path.display()));
    let target = followed(path).map_err(|e| failed("", e))?;
    let path = target.as_path();
    #[cfg(not(windows))]
    let there = fs::metadata(path);
    #[cfg(windows)]
    let there = super::windows::file::while_in_use(|| fs::metadata(path));
    match there {
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
    remove_abandoned(folder);
    let mut new = create(folder).map_err(|e| failed("a file beside it: ", e))?;
    let file = new.file_mut();
    write(file).and_then(|()| file.sync_all()).map_err(|e| failed("writing: ", e))?;
    new.rename(folder, path).map_err(|e| failed("", e))?;
    let synced = if cfg!(unix) { File::open(folder).and_then(|folder| folder.sync_all()) } else { Ok(()) };
    folder_failure(synced).map_err(|e| failed("written, but syncing its folder: ", e))
}

/// What a name stands for: the end of a chain of symbolic links, which need not be there.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// A file that goes with this, unless it got its name.
enum NewFile {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Unnamed(File),
    Named(NamedTempFile),
}

impl NewFile {
    fn create(folder: &Path) -> io::Result<NewFile> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Ok(file) = super::linux::replace::unnamed(folder) {
            let _ = file.try_lock();
            return Ok(NewFile::Unnamed(file));
        }
        NewFile::create_named(folder)
    }

    fn create_named(folder: &Path) -> io::Result<NewFile> {
        loop {
            #[cfg(not(windows))]
            let new = named().tempfile_in(folder)?;
            // One that is not marked as temporary: the mark would stay.
            #[cfg(windows)]
            let new = named().make_in(folder, |path| File::options().write(true).create_new(true).open(path))?;
            // Where files cannot be locked, nobody can tell that this one was abandoned: it is never removed.
            let _ = new.as_file().try_lock();
            // Another writer may have taken it for abandoned before it was locked.
            if fs::exists(new.path())? {
                return Ok(NewFile::Named(new));
            }
        }
    }

    fn file_mut(&mut self) -> &mut File {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            NewFile::Unnamed(file) => file,
            NewFile::Named(file) => file.as_file_mut(),
        }
    }

    /// Gives it its name. What has the name is replaced.
    fn rename(
        self,
        #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(unused))] folder: &Path,
        path: &Path,
    ) -> io::Result<()> {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            NewFile::Unnamed(file) => match super::linux::replace::link(&file, path) {
                // A link replaces nothing: it gets another name, by which it can be renamed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let linked = named().make_in(folder, |name| super::linux::replace::link(&file, name))?;
                    linked.persist(path).map(drop).map_err(|e| e.error)
                }
                linked => linked,
            },
            #[cfg(not(windows))]
            NewFile::Named(file) => file.persist(path).map(drop).map_err(|e| e.error),
            #[cfg(windows)]
            NewFile::Named(file) => {
                // tempfile would not take names of more than 260 characters.
                let (file, mut named) = file.into_parts();
                super::windows::file::rename(&named, path)?;
                named.disable_cleanup(true);
                // Windows keeps others from reading what is locked.
                let _ = file.unlock();
                // There are no folders to sync: the file takes its name to storage.
                file.sync_all()
            }
        }
    }
}

fn named() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX);
    builder
}

/// Removes files that no writer has a lock on any more. What fails here is tried again by the next writer.
fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX)
            && name.ends_with(SUFFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether syncing a folder failed. That a system or a file system does not do it, or not for this user, is no failure.
fn folder_failure(synced: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    synced.or_else(|e| match e.kind() {
        InvalidInput | PermissionDenied | Unsupported => Ok(()),
        _ => Err(e),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const WAYS: [fn(&Path) -> io::Result<NewFile>; 2] = [NewFile::create, NewFile::create_named];

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_made_replaced_and_kept_after_a_failure_without_leaving_others() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state");
            for text in ["first", "second, which is longer", "3"] {
                replace_by(way, &path, |file| file.write_all(text.as_bytes())).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), text);
            }
            let error = replace_by(way, &path, |file| {
                file.write_all(b"half of")?;
                Err(io::Error::other("the disk is full"))
            });
            assert!(error.unwrap_err().message().contains("the disk is full"));
            assert_eq!(fs::read_to_string(&path).unwrap(), "3");
            assert_eq!(names(folder.path()), ["state"]);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn through_a_link_its_target_is_written_and_the_link_stays() {
        use std::os::unix::fs::symlink;
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let of = |name: &str| folder.path().join(name);
            fs::create_dir(of("below")).unwrap();
            symlink("below/state", of("link")).unwrap();
            symlink(of("link"), of("below/outer")).unwrap();
            for text in ["made", "replaced"] {
                replace_by(way, &of("below/outer"), |file| file.write_all(text.as_bytes())).unwrap();
                assert_eq!(fs::read_to_string(of("below/state")).unwrap(), text);
                assert_eq!(fs::read_link(of("link")).unwrap(), Path::new("below/state"));
                assert!(fs::symlink_metadata(of("below/state")).unwrap().is_file());
            }
            symlink("round", of("round")).unwrap();
            let error = replace_by(way, &of("round"), |_| Ok(())).unwrap_err();
            assert!(error.message().contains("round: too many symbolic links"), "{error}");
        }
    }

    #[test]
    fn files_of_killed_writers_are_removed_and_those_of_others_at_work_stay() {
        for way in WAYS {
            let folder = tempfile::tempdir().unwrap();
            let of = |name: &str| folder.path().join(name);
            fs::write(of(".layerline-abc.tmp"), "half").unwrap();
            fs::write(of(".layerline-abc.txt"), "another program's").unwrap();
            let at_work = File::create(of(".layerline-def.tmp")).unwrap();
            at_work.try_lock().unwrap();
            replace_by(way, &of("state"), |file| {
                // Meanwhile another one.
                replace_by(way, &of("other"), |file| file.write_all(b"2"))
                    .map_err(|e| io::Error::other(e.message().to_string()))?;
                file.write_all(b"1")
            })
            .unwrap();
            let mut left = names(folder.path());
            left.sort_unstable();
            assert_eq!(left, [".layerline-abc.txt", ".layerline-def.tmp", "other", "state"]);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_failure_but_one_that_fails_is() {
        assert!(folder_failure(Ok(())).is_ok());
        assert!(folder_failure(Err(io::ErrorKind::InvalidInput.into())).is_ok());
        // EIO has no kind of its own.
        #[cfg(unix)]
        assert!(folder_failure(Err(io::Error::from_raw_os_error(libc::EIO))).is_err());
    }
}
