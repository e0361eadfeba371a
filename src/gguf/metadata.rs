//! The metadata of a model, and getters that say what is wrong when a key is missing or not what it should be.

use super::value::{Array, Value};
use crate::error::{Error, Result};

/// The metadata of a model, keys in file order, none twice. Of a split it is that of the first file:
/// the others hold only their place in the split.
///
/// A `get_` function gives `None` for a missing key, a `require_` function fails with `FORMAT`; both fail with
/// `FORMAT` when the value is of another type or out of range. The messages name the key, not the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    pub entries: Vec<(String, Value)>,
}

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Takes a value out, so that its new owner needs no copy.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(at).1)
    }

    /// Bytes of memory that the entries hold at present.
    pub fn memory_bytes(&self) -> u64 {
        let table = self.entries.capacity() * size_of::<(String, Value)>();
        let contents = self.entries.iter().map(|(key, value)| key.capacity() as u64 + value.heap_bytes());
        table as u64 + contents.sum::<u64>()
    }

    /// A string that must be UTF-8.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => match str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Error::format(format!("metadata key {key:?}: the string is not UTF-8"))),
            },
            Some(other) => Err(mismatch(key, "a string", other)),
        }
    }

    /// An integer of any type whose value fits.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>> {
        self.integer(key, "an integer from 0 to 4294967295")
    }

    /// An integer of any type whose value fits.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>> {
        self.integer(key, "an integer from 0 to 18446744073709551615")
    }

    /// An integer of any type whose value fits.
    pub fn get_i32(&self, key: &str) -> Result<Option<i32>> {
        self.integer(key, "an integer from -2147483648 to 2147483647")
    }

    /// An f32, or an f64 rounded to one.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            Some(other) => Err(mismatch(key, "an f32 or f64", other)),
        }
    }

    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(other) => Err(mismatch(key, "a bool", other)),
        }
    }

    /// An array of any element type.
    pub fn get_array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(v)) => Ok(Some(v)),
            Some(other) => Err(mismatch(key, "an array", other)),
        }
    }

    pub fn require_str(&self, key: &str) -> Result<&str> {
        present(key, self.get_str(key)?)
    }

    pub fn require_u32(&self, key: &str) -> Result<u32> {
        present(key, self.get_u32(key)?)
    }

    pub fn require_u64(&self, key: &str) -> Result<u64> {
        present(key, self.get_u64(key)?)
    }

    pub fn require_i32(&self, key: &str) -> Result<i32> {
        present(key, self.get_i32(key)?)
    }

    pub fn require_f32(&self, key: &str) -> Result<f32> {
        present(key, self.get_f32(key)?)
    }

    pub fn require_bool(&self, key: &str) -> Result<bool> {
        present(key, self.get_bool(key)?)
    }

    pub fn require_array(&self, key: &str) -> Result<&Array> {
        present(key, self.get_array(key)?)
    }

    fn integer<T: TryFrom<i128>>(&self, key: &str, expected: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.integer().and_then(|v| T::try_from(v).ok()) {
            Some(v) => Ok(Some(v)),
            None => Err(mismatch(key, expected, value)),
        }
    }
}

fn present<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::format(format!("metadata key {key:?} is missing")))
}

fn mismatch(key: &str, expected: &str, found: &Value) -> Error {
    Error::format(format!("metadata key {key:?}: expected {expected}, found {}", found.describe()))
}
