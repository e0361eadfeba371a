//! Models in one file or several. The files of a split are named `*-00001-of-0000N.gguf`; each says in `split.no`
//! (from 0), `split.count` and `split.tensors.count` where it belongs, and all are opened through the first.

use super::read::{File, read_file_within};
use super::{Directory, Input, Part, Tensor};
use crate::error::{Error, Result};

/// Bytes of `-00001-of-0000N.gguf`, with which the name of every file of a split ends.
pub const SPLIT_SUFFIX_LEN: usize = 20;

/// Five digits name a part.
const MAX_PARTS: u64 = 99_999;

/// The end of the name of part `no` (from 0) of `count`: `-00001-of-00003.gguf` is part 0 of 3.
pub fn split_suffix(no: u32, count: u32) -> String {
    format!("-{:05}-of-{count:05}.gguf", u64::from(no) + 1)
}

/// Part (from 0) and count that the end of a file name states, and what stands before it.
fn parse_name(name: &str) -> Option<(&str, u32, u32)> {
    let (stem, suffix) = name.split_at_checked(name.len().checked_sub(SPLIT_SUFFIX_LEN)?)?;
    let number = |range| suffix.get(range).and_then(|digits: &str| digits.parse::<u32>().ok());
    let (no, count) = (number(1..6)?.checked_sub(1)?, number(10..15)?);
    // Written again and compared, so that signs and other separators do not pass.
    (split_suffix(no, count) == suffix).then_some((stem, no, count))
}

/// Reads the directory of a model through its first (or only) file, and returns with it the inputs of all its files
/// in the order that [`super::Tensor::file`] counts them.
///
/// `name` is the first file's name, with or without folders; messages carry it. `open` opens a further file of a split,
/// by a name made of `name` with its last [`SPLIT_SUFFIX_LEN`] bytes replaced; a caller whose path is not UTF-8 may
/// replace those bytes of the path itself. `limit` bounds the memory that metadata and directory may take.
///
/// # Errors
/// `INVALID_ARGUMENT`: the file is a part other than the first; the message names the first. `FORMAT`: a file is
/// malformed, or the files contradict one another. `MEMORY_BUDGET`: `limit` is not enough. Else as
/// [`super::read_file`], and as `open` reports it.
pub fn open_split<I: Input>(
    name: &str,
    first: I,
    limit: u64,
    mut open: impl FnMut(&str) -> Result<I>,
) -> Result<(Directory, Vec<I>)> {
    let File { metadata, mut tensors, bytes, .. } = read_file_within(&first, name, limit)?;
    let in_first = |error: Error| error.context(name);
    let count = metadata.get_u64("split.count").map_err(in_first)?.unwrap_or(1);
    if count == 0 || count > MAX_PARTS {
        return Err(in_first(Error::format(format!(
            "metadata key \"split.count\" is {count}; a model has 1 to {MAX_PARTS} parts"
        ))));
    }
    let count = count as u32;
    let total = metadata.get_u64("split.tensors.count").map_err(in_first)?;
    let stem = first_name(name, count, metadata.get_u64("split.no").map_err(in_first)?.unwrap_or(0))?;

    let mut parts = vec![Part { name: name.to_owned(), bytes }];
    let mut inputs = vec![first];
    let held = |tensor: &Tensor| (size_of_val(tensor) + tensor.name.capacity()) as u64;
    let mut left = limit.saturating_sub(metadata.memory_bytes() + tensors.iter().map(held).sum::<u64>());
    for no in 1..count {
        let name = format!("{stem}{}", split_suffix(no, count));
        let place = |error: Error| error.context(format!("part {} of {count}", no + 1));
        let input = open(&name).map_err(place)?;
        let file = read_file_within(&input, &name, left).map_err(place)?;
        check_place(&file, no, count, total).map_err(|error| place(error.context(&name)))?;
        for mut tensor in file.tensors {
            tensor.file = no;
            left = left.saturating_sub(held(&tensor));
            crate::sys::heap::push(&mut tensors, tensor, "a tensor directory")?;
        }
        parts.push(Part { name, bytes: file.bytes });
        inputs.push(input);
    }
    if let Some(total) = total.filter(|&total| total != tensors.len() as u64) {
        let found = tensors.len();
        return Err(in_first(Error::format(format!(
            "metadata key \"split.tensors.count\" is {total}, the {count} files hold {found} tensors"
        ))));
    }
    tensors.shrink_to_fit();
    Ok((Directory::new(metadata, parts, tensors).map_err(in_first)?, inputs))
}

/// Checks that `name` and `split.no` are those of the first of `count` files, and gives what stands before the suffix.
fn first_name(name: &str, count: u32, no: u64) -> Result<&str> {
    if count == 1 && no == 0 {
        return Ok(name);
    }
    let named = parse_name(name);
    if no != 0 {
        if no >= u64::from(count) {
            return Err(Error::format(format!("{name}: metadata key \"split.no\" is {no} of {count} parts")));
        }
        let first = named.map_or_else(|| "the one whose name ends in ".to_owned(), |(stem, ..)| stem.to_owned());
        let suffix = split_suffix(0, count);
        return Err(Error::invalid(format!(
            "{name}: this is part {} of {count}; a split model is opened by its first file, {first}{suffix}",
            no + 1
        )));
    }
    match named {
        Some((stem, 0, named)) if named == count => Ok(stem),
        _ => Err(Error::format(format!(
            "{name}: this is the first of {count} files, but its name does not end in {}",
            split_suffix(0, count)
        ))),
    }
}

/// Checks that a further file is the one its name says, of the same split.
fn check_place(file: &File, no: u32, count: u32, total: Option<u64>) -> Result<()> {
    let equal = |key: &str, found: u64, expected: u64| {
        if found == expected {
            return Ok(());
        }
        Err(Error::format(format!("metadata key {key:?} is {found}, expected {expected}")))
    };
    equal("split.no", file.metadata.require_u64("split.no")?, u64::from(no))?;
    equal("split.count", file.metadata.require_u64("split.count")?, u64::from(count))?;
    match (file.metadata.get_u64("split.tensors.count")?, total) {
        (Some(found), Some(expected)) => equal("split.tensors.count", found, expected),
        _ => Ok(()),
    }
}
