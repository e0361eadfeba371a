//! Metadata values: their types in the file, and how a person reads them.

use std::fmt::Write as _;
use std::mem::size_of;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes as the file has them: meant to be UTF-8, not checked.
    String(Box<[u8]>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array. Strings are stored end to end, because a vocabulary has hundreds of thousands of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Strings),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Byte strings stored end to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    pub bytes: Vec<u8>,
    /// End of string i in `bytes`; it starts where i-1 ends.
    pub ends: Vec<u32>,
}

impl Strings {
    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String `i`, as the file has it: meant to be UTF-8, not checked.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.bytes.get(start..end)
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map_while(|i| self.get(i))
    }

    /// Bytes of memory behind it.
    pub fn heap_bytes(&self) -> u64 {
        vec_bytes(&self.bytes) + vec_bytes(&self.ends)
    }
}

/// Collects strings of at most 4 GiB together, which is what `ends` can address.
///
/// # Panics
/// When they are longer. Files are not read through this.
impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Strings::default();
        for string in strings {
            all.bytes.extend_from_slice(string.as_ref());
            all.ends.push(u32::try_from(all.bytes.len()).expect("strings of more than 4 GiB"));
        }
        all
    }
}

fn vec_bytes<T>(vec: &Vec<T>) -> u64 {
    (vec.capacity() * size_of::<T>()) as u64
}

/// Evaluates an expression with the vector or slice of any array variant.
macro_rules! each_array {
    ($array:expr, $v:ident => $scalars:expr, strings => $strings:expr, arrays => $arrays:expr) => {
        match $array {
            Array::U8($v) => $scalars,
            Array::I8($v) => $scalars,
            Array::U16($v) => $scalars,
            Array::I16($v) => $scalars,
            Array::U32($v) => $scalars,
            Array::I32($v) => $scalars,
            Array::F32($v) => $scalars,
            Array::Bool($v) => $scalars,
            Array::U64($v) => $scalars,
            Array::I64($v) => $scalars,
            Array::F64($v) => $scalars,
            Array::String($v) => $strings,
            Array::Array($v) => $arrays,
        }
    };
}

impl Array {
    pub fn len(&self) -> usize {
        each_array!(self, v => v.len(), strings => v.len(), arrays => v.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type, as messages name it.
    pub fn element_type(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::String(_) => "string",
            Array::Array(_) => "array",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
        }
    }

    /// The type id of the elements in the file.
    pub(crate) fn element_id(&self) -> u32 {
        match self {
            Array::U8(_) => 0,
            Array::I8(_) => 1,
            Array::U16(_) => 2,
            Array::I16(_) => 3,
            Array::U32(_) => 4,
            Array::I32(_) => 5,
            Array::F32(_) => 6,
            Array::Bool(_) => 7,
            Array::String(_) => 8,
            Array::Array(_) => 9,
            Array::U64(_) => 10,
            Array::I64(_) => 11,
            Array::F64(_) => 12,
        }
    }

    /// Element `i` as an integer, where the elements are integers of any type and this one is in range of `i128`,
    /// which all are. `None` past the end and for other element types.
    pub fn integer(&self, i: usize) -> Option<i128> {
        Some(match self {
            Array::U8(v) => i128::from(*v.get(i)?),
            Array::I8(v) => i128::from(*v.get(i)?),
            Array::U16(v) => i128::from(*v.get(i)?),
            Array::I16(v) => i128::from(*v.get(i)?),
            Array::U32(v) => i128::from(*v.get(i)?),
            Array::I32(v) => i128::from(*v.get(i)?),
            Array::U64(v) => i128::from(*v.get(i)?),
            Array::I64(v) => i128::from(*v.get(i)?),
            _ => return None,
        })
    }

    /// Bytes of memory behind it.
    pub fn heap_bytes(&self) -> u64 {
        each_array!(self, v => vec_bytes(v), strings => v.heap_bytes(),
            arrays => vec_bytes(v) + v.iter().map(Array::heap_bytes).sum::<u64>())
    }
}

impl Value {
    /// The type id of the file format.
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// The value as an integer; `None` for all that is not one.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => i128::from(v),
            Value::I8(v) => i128::from(v),
            Value::U16(v) => i128::from(v),
            Value::I16(v) => i128::from(v),
            Value::U32(v) => i128::from(v),
            Value::I32(v) => i128::from(v),
            Value::U64(v) => i128::from(v),
            Value::I64(v) => i128::from(v),
            _ => return None,
        })
    }

    /// Type and figure for messages: `u32 7`, `string`, `array of 32000 string`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let written = match self {
            Value::U8(v) => write!(text, "u8 {v}"),
            Value::I8(v) => write!(text, "i8 {v}"),
            Value::U16(v) => write!(text, "u16 {v}"),
            Value::I16(v) => write!(text, "i16 {v}"),
            Value::U32(v) => write!(text, "u32 {v}"),
            Value::I32(v) => write!(text, "i32 {v}"),
            Value::F32(v) => write!(text, "f32 {v}"),
            Value::Bool(v) => write!(text, "bool {v}"),
            Value::String(_) => write!(text, "string"),
            Value::Array(v) => write!(text, "array of {} {}", v.len(), v.element_type()),
            Value::U64(v) => write!(text, "u64 {v}"),
            Value::I64(v) => write!(text, "i64 {v}"),
            Value::F64(v) => write!(text, "f64 {v}"),
        };
        debug_assert!(written.is_ok(), "a String takes every write");
        text
    }

    /// Bytes of memory behind it, beside its own size.
    pub fn heap_bytes(&self) -> u64 {
        match self {
            Value::String(v) => v.len() as u64,
            Value::Array(v) => v.heap_bytes(),
            _ => 0,
        }
    }
}

/// Any scalar or string as text; `None` for arrays. Bytes of a string that are not UTF-8 become U+FFFD.
pub fn value_as_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::U8(v) => v.to_string(),
        Value::I8(v) => v.to_string(),
        Value::U16(v) => v.to_string(),
        Value::I16(v) => v.to_string(),
        Value::U32(v) => v.to_string(),
        Value::I32(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::String(v) => String::from_utf8_lossy(v).into_owned(),
        Value::Array(_) => return None,
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
    })
}

macro_rules! from_scalar {
    ($($type:ty => $variant:ident),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::$variant(value)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(values: Vec<$type>) -> Self {
                Value::Array(Array::$variant(values))
            }
        }
    )*};
}

from_scalar!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool,
    u64 => U64, i64 => I64, f64 => F64);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::String(value.as_bytes().into())
    }
}

impl From<Strings> for Value {
    fn from(value: Strings) -> Self {
        Value::Array(Array::String(value))
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Value::Array(value)
    }
}
