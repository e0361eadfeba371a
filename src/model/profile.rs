//! A profile of use: how likely each expert of a model is to be used, in a file of a byte for each, so that a model that is
//! opened again begins with the likeliest ones.
//!
//! Numbers are little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `LAYRPROF` |
//! | 8 | 4 | version of the form: 1 |
//! | 12 | 4 | how many experts |
//! | 16 | 16 | the model's [fingerprint](super::Model) |
//! | 32 | 1 × experts | by layer, then by number: n for a chance of 2^(−n/8) that its layer chooses it; 255: no use is known |
//! | | 16 | XXH3-128 of all that stands before |

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};
use crate::sys::file::open_for_reading;
use crate::sys::heap;
use crate::sys::replace::replace;
use crate::weights::Rarity;

const MAGIC: &[u8; 8] = b"LAYRPROF";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 16;
/// What memory is for, in errors.
const WHAT: &str = "a profile of use";

/// What a file of this form says.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    pub fingerprint: u128,
    /// By number in the schedule.
    pub experts: Vec<Rarity>,
}

impl Profile {
    /// Writes it to a file, which gets its name when it is complete and on storage.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        // What is not there yet is a name of its own.
        let target = fs::canonicalize(path);
        replace(target.as_deref().unwrap_or(path), |file| file.write_all(&bytes))
    }

    /// Reads one for a model with `experts` experts.
    ///
    /// # Errors
    /// `IO`; `FORMAT`: not a profile, cut or damaged; `UNSUPPORTED`: of another version; `INVALID_ARGUMENT`: for another
    /// number of experts.
    pub fn read(path: &Path, experts: usize) -> Result<Profile> {
        let named = |e: Error| e.context(format!("the profile {}", path.display()));
        let unreadable = |e: std::io::Error| named(Error::io(e.to_string()));
        let file = open_for_reading(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(named(Error::io("not a regular file")));
        }
        read_bytes(file, experts).and_then(|bytes| Profile::from_bytes(&bytes, experts)).map_err(named)
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        heap::reserve(&mut bytes, HEADER_BYTES + self.experts.len() + CHECKSUM_BYTES, WHAT)?;
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(self.experts.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend(self.experts.iter().map(|rarity| rarity.0));
        let sum = xxh3_128(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }

    /// `bytes`: the file's, or as many of them as tell that it is too long.
    fn from_bytes(bytes: &[u8], experts: usize) -> Result<Profile> {
        let Some((body, stated)) = bytes.split_last_chunk::<CHECKSUM_BYTES>().filter(|(b, _)| b.len() >= HEADER_BYTES)
        else {
            let least = HEADER_BYTES + CHECKSUM_BYTES;
            return Err(Error::format(format!("{} bytes; a profile of use has {least} at least", bytes.len())));
        };
        if !body.starts_with(MAGIC) {
            return Err(Error::format("not a profile of use: it does not begin with \"LAYRPROF\""));
        }
        let number = |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
        let (version, count) = (number(8), number(12));
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "a profile of use in version {version} of its form; this library reads version {VERSION}"
            )));
        }
        if count as usize != experts {
            return Err(Error::invalid(format!("of another model: it has {count} experts, this one {experts}")));
        }
        let chances = &body[HEADER_BYTES..];
        if chances.len() != experts {
            let (more, want) = (chances.len() > experts, HEADER_BYTES + experts + CHECKSUM_BYTES);
            let found = if more { "longer".into() } else { format!("{} bytes", bytes.len()) };
            return Err(Error::format(format!("{found}; a profile of {experts} experts has {want} bytes")));
        }
        let (found, stated) = (xxh3_128(body), u128::from_le_bytes(*stated));
        if found != stated {
            return Err(Error::format(format!("damaged: the checksum is {found:032x}, it says {stated:032x}")));
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&body[16..32]);
        Ok(Profile {
            fingerprint: u128::from_le_bytes(fingerprint),
            experts: heap::collected(chances.iter().map(|&n| Rarity(n)), WHAT)?,
        })
    }
}

/// The file, or its beginning where it is longer than a profile of so many experts.
fn read_bytes(file: File, experts: usize) -> Result<Vec<u8>> {
    let most = HEADER_BYTES + experts + CHECKSUM_BYTES + 1;
    let mut bytes = Vec::new();
    heap::reserve(&mut bytes, most, WHAT)?;
    file.take(most as u64).read_to_end(&mut bytes).map_err(|e| Error::io(e.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    fn profile() -> Profile {
        Profile { fingerprint: 0x0123_4567_89ab_cdef_0011_2233_4455_6677, experts: (0..=255).map(Rarity).collect() }
    }

    #[test]
    fn a_profile_is_read_as_it_was_written_and_replaces_another_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile");
        fs::write(&path, "another file").unwrap();
        profile().save(&path).unwrap();
        assert_eq!(Profile::read(&path, 256).unwrap(), profile());
        assert_eq!(fs::metadata(&path).unwrap().len(), 32 + 256 + 16);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(profile().save(folder.path()).unwrap_err().status(), Status::Io);
        assert_eq!(Profile::read(folder.path(), 256).unwrap_err().status(), Status::Io);
        assert_eq!(Profile::read(&path.with_file_name("none"), 256).unwrap_err().status(), Status::Io);
    }

    #[test]
    fn profiles_that_are_cut_extended_flipped_or_of_others_are_refused() {
        let bytes = profile().to_bytes().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(Profile::from_bytes(&bytes[..length], 256).unwrap_err().status(), Status::Format, "{length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Profile::from_bytes(&longer, 256).unwrap_err().status(), Status::Format);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                8..12 => Status::Unsupported,
                12..16 => Status::InvalidArgument,
                _ => Status::Format,
            };
            assert_eq!(Profile::from_bytes(&flipped, 256).unwrap_err().status(), expected, "bit {bit}");
        }
        for experts in [0, 255, 257] {
            let error = Profile::from_bytes(&bytes, experts).unwrap_err();
            assert_eq!(error.status(), Status::InvalidArgument);
            assert!(error.message().contains("256 experts"), "{error}");
        }
    }
}
