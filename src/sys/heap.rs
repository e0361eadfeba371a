//! Memory of the heap whose size comes from a file or a caller: a refusal is an error with the figure, not the end of the
//! process. And what becomes of it when it is freed.

use crate::error::{Error, Result};

/// Room for exactly `more` elements; `what` names them in the message.
pub fn reserve<T>(list: &mut Vec<T>, more: usize, what: &str) -> Result<()> {
    list.try_reserve_exact(more).map_err(|_| refused::<T>(more, what))
}

/// Appends an element; room grows by halves of what there is.
pub fn push<T>(list: &mut Vec<T>, value: T, what: &str) -> Result<()> {
    list.try_reserve(1).map_err(|_| refused::<T>(list.len() + 1, what))?;
    list.push(value);
    Ok(())
}

/// `count` times the same.
pub fn filled<T: Clone>(value: T, count: usize, what: &str) -> Result<Vec<T>> {
    let mut list = Vec::new();
    reserve(&mut list, count, what)?;
    list.resize(count, value);
    Ok(list)
}

/// What an iterator gives.
pub fn collected<T>(values: impl IntoIterator<Item = T>, what: &str) -> Result<Vec<T>> {
    let values = values.into_iter();
    let mut list = Vec::new();
    reserve(&mut list, values.size_hint().0, what)?;
    for value in values {
        push(&mut list, value, what)?;
    }
    Ok(list)
}

/// A value by itself, as `Box::new` gives it.
pub fn boxed<T>(value: T) -> Result<Box<T>> {
    let mut one = Vec::new();
    reserve(&mut one, 1, "a handle")?;
    one.push(value);
    // SAFETY: a slice of one element is laid out as the element, and nothing else has it.
    Ok(unsafe { Box::from_raw(Box::into_raw(one.into_boxed_slice()).cast::<T>()) })
}

/// When it is dropped, freed memory of the heap goes back to the system: the GNU C library keeps it, up to all that the
/// tables of a closed model took, although it is in no budget any more. The last field of what has such tables.
pub struct Trimmed;

impl Drop for Trimmed {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        super::linux::memory::trim_heap();
    }
}

fn refused<T>(count: usize, what: &str) -> Error {
    let bytes = count.saturating_mul(size_of::<T>());
    Error::out_of_memory(format!("no memory for {bytes} bytes of {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn what_no_machine_has_is_refused_with_its_figure() {
        let error = filled(0u64, 1 << 59, "numbers").unwrap_err();
        assert_eq!(error.status(), Status::OutOfMemory);
        assert_eq!(error.message(), "no memory for 4611686018427387904 bytes of numbers");
        assert!(reserve(&mut Vec::<u16>::new(), usize::MAX, "numbers").is_err());
        assert_eq!(collected((0..9).filter(|n| n % 2 == 0), "numbers").unwrap(), [0, 2, 4, 6, 8]);
    }
}
