//! Files on Windows: reads at an offset, several of one file at a time, through the cache or past it.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_CALL_NOT_IMPLEMENTED, ERROR_HANDLE_EOF, ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER,
    ERROR_IO_PENDING, ERROR_NOT_SUPPORTED, ERROR_SHARING_VIOLATION, GENERIC_READ, INVALID_HANDLE_VALUE,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_ALIGNMENT_INFO, FILE_FLAG_NO_BUFFERING, FILE_FLAG_OVERLAPPED, FILE_FLAGS_AND_ATTRIBUTES,
    FILE_INFO_BY_HANDLE_CLASS, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, FILE_STORAGE_INFO,
    FileAlignmentInfo, FileStorageInfo, GetFileInformationByHandleEx, ReOpenFile, ReadFile,
};
use windows_sys::Win32::System::IO::{GetOverlappedResult, OVERLAPPED};

use super::event;
use crate::sys::file::DIRECT_ALIGNMENT;

/// Where an unbuffered read may put a block.
#[repr(align(4096))]
struct Block([u8; DIRECT_ALIGNMENT as usize]);

const _: () = assert!(align_of::<Block>() as u64 == DIRECT_ALIGNMENT);

thread_local! {
    /// What the calling thread's read is waited for by. The file's own handle is signalled by any read that ends.
    static FINISHED: OnceCell<OwnedHandle> = const { OnceCell::new() };
}

/// Reads at an offset, whether the file was opened for overlapped reads or not. Those of a file that was not are done one
/// after another by the system, and move its position.
pub fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    FINISHED.with(|finished| {
        if finished.get().is_none() {
            let _ = finished.set(event::create()?);
        }
        let event = finished.get().expect("it was just made").as_raw_handle();
        read_with(file, buf, offset, event)
    })
}

fn read_with(file: &File, buf: &mut [u8], offset: u64, event: *mut std::ffi::c_void) -> io::Result<usize> {
    let mut place = OVERLAPPED { hEvent: event, ..OVERLAPPED::default() };
    place.Anonymous.Anonymous.Offset = offset as u32;
    place.Anonymous.Anonymous.OffsetHigh = (offset >> 32) as u32;
    // A multiple of any sector's size.
    let len = buf.len().min(1 << 30) as u32;
    let mut read = 0;
    // SAFETY: the buffer has that many bytes. It and `place` stay where they are until the read is done, which is waited for
    // below; nothing between panics.
    let done = unsafe {
        let file = file.as_raw_handle();
        match ReadFile(file, buf.as_mut_ptr(), len, null_mut(), &mut place) {
            0 if io::Error::last_os_error().raw_os_error() != Some(ERROR_IO_PENDING as i32) => 0,
            _ => GetOverlappedResult(file, &place, &mut read, 1),
        }
    };
    if done != 0 {
        return Ok(read as usize);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(ERROR_HANDLE_EOF as i32) { Ok(0) } else { Err(error) }
}

/// Opens the same file again for unbuffered reads, and tries one: some file systems refuse only then.
pub fn reopen_direct(file: &File, probe: u64) -> io::Result<File> {
    let needed = alignment(file);
    if needed > DIRECT_ALIGNMENT || !DIRECT_ALIGNMENT.is_multiple_of(needed) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("its volume wants reads of multiples of {needed} bytes, not {DIRECT_ALIGNMENT}"),
        ));
    }
    let direct = reopen(file, FILE_FLAG_NO_BUFFERING | FILE_FLAG_OVERLAPPED)?;
    let mut block = Block([0; DIRECT_ALIGNMENT as usize]);
    read_at(&direct, &mut block.0, probe & !(DIRECT_ALIGNMENT - 1))?;
    Ok(direct)
}

/// The same file for reads that do not wait for one another.
pub fn reopen_overlapped(file: &File) -> io::Result<File> {
    reopen(file, FILE_FLAG_OVERLAPPED)
}

/// Through the handle, not the name: the name may mean another file by now.
fn reopen(file: &File, flags: FILE_FLAGS_AND_ATTRIBUTES) -> io::Result<File> {
    let share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    // SAFETY: a handle of our own, and numbers.
    let handle = unsafe { ReOpenFile(file.as_raw_handle(), GENERIC_READ, share, flags) };
    if handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new handle that nothing else owns.
    Ok(unsafe { File::from_raw_handle(handle) })
}

/// What unbuffered reads of the file are multiples of, as far as its volume says: the logical sector, and what the
/// device's driver wants of addresses.
fn alignment(file: &File) -> u64 {
    let storage = information::<FILE_STORAGE_INFO>(file, FileStorageInfo);
    let address = information::<FILE_ALIGNMENT_INFO>(file, FileAlignmentInfo);
    let sector = storage.map_or(1, |info| u64::from(info.LogicalBytesPerSector).max(1));
    // A mask: 511 for multiples of 512.
    sector.max(address.map_or(1, |info| u64::from(info.AlignmentRequirement) + 1))
}

/// What the system says about a file, where it knows.
fn information<T: Default>(file: &File, class: FILE_INFO_BY_HANDLE_CLASS) -> Option<T> {
    let mut info = T::default();
    // SAFETY: both callers name the structure that belongs to the class, and its size.
    let known = unsafe {
        GetFileInformationByHandleEx(file.as_raw_handle(), class, (&raw mut info).cast(), size_of::<T>() as u32)
    };
    (known != 0).then_some(info)
}

/// Gives a file another name; what has the name is replaced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    while_in_use(|| std::fs::rename(from, to))
}

/// What is done with a name, Windows may refuse while somebody has its file open, or is replacing it: a reader, a writer of
/// the same name, a program that looks at new files. It is tried again for two seconds. The pauses stay short, as each of
/// those may come again and again.
pub fn while_in_use<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Err(e) if is_in_use(&e) && begun.elapsed() < Duration::from_secs(2) => std::thread::sleep(pause),
            result => return result,
        }
        pause = (2 * pause).min(Duration::from_millis(8));
    }
}

fn is_in_use(e: &io::Error) -> bool {
    e.raw_os_error().is_some_and(|code| [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION].contains(&(code as u32)))
}

pub fn refuses_direct(e: &io::Error) -> bool {
    const REFUSALS: [u32; 4] =
        [ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER, ERROR_NOT_SUPPORTED, ERROR_CALL_NOT_IMPLEMENTED];
    e.kind() == io::ErrorKind::Unsupported || e.raw_os_error().is_some_and(|code| REFUSALS.contains(&(code as u32)))
}

#[cfg(test)]
mod tests {
    use std::os::windows::ffi::OsStrExt;
    use std::os::windows::fs::OpenOptionsExt;
    use std::path::PathBuf;

    use super::*;
    use crate::sys::file::open_for_reading;

    fn content() -> Vec<u8> {
        (0..3 * DIRECT_ALIGNMENT + 77).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn reads_by_several_threads_of_one_handle_get_the_bytes_of_their_offsets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = content();
        std::fs::write(&path, &bytes).unwrap();
        let file = open_for_reading(&path).unwrap();
        for file in [reopen_overlapped(&file).unwrap(), reopen_direct(&file, 5000).unwrap(), file] {
            std::thread::scope(|scope| {
                for block in 0..4u64 {
                    let (file, bytes) = (&file, &bytes);
                    scope.spawn(move || {
                        for _ in 0..200 {
                            let mut buffer = Block([0; DIRECT_ALIGNMENT as usize]);
                            let read = read_at(file, &mut buffer.0, block * DIRECT_ALIGNMENT).unwrap();
                            let expected = bytes.chunks(DIRECT_ALIGNMENT as usize).nth(block as usize).unwrap();
                            assert_eq!(read, expected.len());
                            assert!(buffer.0.starts_with(expected));
                        }
                    });
                }
            });
            let mut buffer = Block([0; DIRECT_ALIGNMENT as usize]);
            assert_eq!(read_at(&file, &mut buffer.0, 1 << 33).unwrap(), 0, "beyond the end");
        }
    }

    #[test]
    fn a_name_that_is_not_ascii_in_a_path_longer_than_260_characters_is_found() {
        let folder = tempfile::tempdir().unwrap();
        // Each name fits into the 255 bytes that file systems of Linux take, where wine puts it.
        let deep: PathBuf = folder.path().join("Ordner-名前-🦀".repeat(12)).join("ü".repeat(100)).join("y".repeat(99));
        assert!(deep.as_os_str().encode_wide().count() > 260);
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("modèle.gguf");
        crate::sys::replace::replace(&path, |file| std::io::Write::write_all(file, b"weights")).unwrap();
        crate::sys::replace::replace(&path, |file| std::io::Write::write_all(file, b"others!")).unwrap();
        let mut some = [0; 7];
        let direct = reopen_direct(&open_for_reading(&path).unwrap(), 0).unwrap();
        assert_eq!(read_at(&open_for_reading(&path).unwrap(), &mut some, 0).unwrap(), 7);
        assert_eq!(&some, b"others!");
        drop(direct);
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
    }

    #[test]
    fn a_name_whose_file_is_open_elsewhere_is_taken_as_soon_as_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        // Shared with nobody: no system replaces it meanwhile.
        let open = File::options().read(true).share_mode(0).open(&to).unwrap();
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(open);
        });
        rename(&from, &to).unwrap();
        closing.join().unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"new");
        assert!(rename(&from, &to).is_err());
    }

    #[test]
    fn a_volume_that_wants_another_alignment_is_one_that_refuses() {
        for code in [1, 50, 87, 120] {
            assert!(refuses_direct(&io::Error::from_raw_os_error(code)));
        }
        assert!(!refuses_direct(&io::Error::from_raw_os_error(5)), "access denied");
    }
}
