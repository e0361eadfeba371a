//! Values as Python writes them: templates are written for it, down to the space behind a comma.

use std::fmt::Write;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::bounds;
use crate::order;

/// Levels of lists and maps inside each other. JSON of the conversation has at most 128.
pub(super) const DEEPEST: usize = 160;

pub(super) fn from_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => value.into(),
        Json::Number(number) => number_from(&number),
        Json::String(text) => text.into(),
        Json::Array(items) => items.into_iter().map(from_json).collect::<Vec<Value>>().into(),
        Json::Object(members) => Value::from_pairs(members.into_iter().map(|(key, value)| (key, from_json(value)))),
    }
}

/// An integer of more than 128 bits, which the engine cannot compute with: it is written as it was.
#[derive(Debug)]
struct LongInteger(String);

impl Object for LongInteger {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn number_from(number: &serde_json::Number) -> Value {
    if let Some(value) = number.as_i64() {
        return value.into();
    }
    if let Some(value) = number.as_i128() {
        return value.into();
    }
    let written = number.to_string();
    if written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Value::from_object(LongInteger(written));
    }
    written.parse().unwrap_or(f64::NAN).into()
}

/// `str(value)`; what is undefined has no text.
pub(super) fn text(state: &State, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_string());
    }
    if value.is_undefined() {
        return Ok(String::new());
    }
    let mut writer = Writer { state, out: String::new(), depth: 0 };
    writer.repr(value)?;
    Ok(writer.out)
}

/// How `json.dumps` is asked to write.
pub(super) struct JsonStyle {
    pub ensure_ascii: bool,
    pub indent: Option<String>,
    pub separators: (String, String),
    pub sort_keys: bool,
}

/// `json.dumps(value)`.
pub(super) fn json(state: &State, value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut writer = Writer { state, out: String::new(), depth: 0 };
    writer.json(value, style)?;
    Ok(writer.out)
}

/// Writes values that may share parts or hold themselves: each part that is written costs fuel.
struct Writer<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    out: String,
    depth: usize,
}

impl Writer<'_, '_, '_> {
    /// Writes an integer that is too long to be a number; false if the value is none.
    fn long_integer(&mut self, value: &Value) -> Result<bool, Error> {
        let Some(LongInteger(digits)) = value.downcast_object_ref() else { return Ok(false) };
        self.state.consume_fuel(digits.len() as u64 / 16)?;
        self.out.push_str(digits);
        Ok(true)
    }

    fn pay(&self, value: &Value) -> Result<(), Error> {
        self.state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 16)
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(bounds::beyond(format!("a value has more than {DEEPEST} levels")));
        }
        Ok(())
    }

    fn repr(&mut self, value: &Value) -> Result<(), Error> {
        self.pay(value)?;
        match value.kind() {
            ValueKind::Undefined => self.out.push_str("Undefined"),
            ValueKind::None => self.out.push_str("None"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number if value.is_integer() => push(&mut self.out, value),
            ValueKind::Number => push_float(&mut self.out, value, ["nan", "inf", "-inf"]),
            ValueKind::String => push_repr(&mut self.out, value.as_str().unwrap_or_default()),
            ValueKind::Map => {
                self.deeper()?;
                self.out.push('{');
                for (i, key) in value.try_iter()?.enumerate() {
                    self.out.push_str(if i > 0 { ", " } else { "" });
                    self.repr(&key)?;
                    self.out.push_str(": ");
                    self.repr(&value.get_item(&key)?)?;
                }
                self.out.push('}');
                self.depth -= 1;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.deeper()?;
                let tuple = value.downcast_object_ref::<Tuple>().map(|tuple| tuple.len());
                self.out.push(if tuple.is_some() { '(' } else { '[' });
                for (i, item) in value.try_iter()?.enumerate() {
                    self.out.push_str(if i > 0 { ", " } else { "" });
                    self.repr(&item)?;
                }
                self.out.push_str(match tuple {
                    None => "]",
                    Some(1) => ",)",
                    Some(_) => ")",
                });
                self.depth -= 1;
            }
            _ if self.long_integer(value)? => {}
            kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("{kind} has no text"))),
        }
        Ok(())
    }

    fn json(&mut self, value: &Value, style: &JsonStyle) -> Result<(), Error> {
        self.pay(value)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => push(&mut self.out, value),
            ValueKind::Number => push_float(&mut self.out, value, ["NaN", "Infinity", "-Infinity"]),
            ValueKind::String => push_json(&mut self.out, value.as_str().unwrap_or_default(), style.ensure_ascii),
            ValueKind::Map => {
                let keys: Vec<Value> = value.try_iter()?.collect();
                let mut order: Vec<u32> = (0..keys.len() as u32).collect();
                let rounds =
                    if style.sort_keys { u64::from(u64::BITS - (keys.len() as u64).leading_zeros()) } else { 1 };
                self.state.consume_fuel(keys.len() as u64 * rounds)?;
                if style.sort_keys {
                    order::sort(&mut order, &mut |a, b| keys[a as usize].cmp(&keys[b as usize]));
                }
                self.deeper()?;
                self.out.push('{');
                for (i, key) in order.iter().map(|&i| &keys[i as usize]).enumerate() {
                    self.begin_item(i, style)?;
                    self.key(key, style)?;
                    self.out.push_str(&style.separators.1);
                    self.json(&value.get_item(key)?, style)?;
                }
                self.end_items('}', keys.is_empty(), style)?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.deeper()?;
                self.out.push('[');
                let mut empty = true;
                for (i, item) in value.try_iter()?.enumerate() {
                    empty = false;
                    self.begin_item(i, style)?;
                    self.json(&item, style)?;
                }
                self.end_items(']', empty, style)?;
            }
            _ if self.long_integer(value)? => {}
            kind => {
                return Err(Error::new(ErrorKind::BadSerialization, format!("{kind} is not JSON serializable")));
            }
        }
        Ok(())
    }

    /// Keys are strings in JSON, whatever they were.
    fn key(&mut self, key: &Value, style: &JsonStyle) -> Result<(), Error> {
        if key.as_str().is_some() {
            return self.json(key, style);
        }
        if !matches!(key.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number) {
            let kind = key.kind();
            return Err(Error::new(
                ErrorKind::BadSerialization,
                format!("keys must be strings or numbers, not {kind}"),
            ));
        }
        self.out.push('"');
        self.json(key, style)?;
        self.out.push('"');
        Ok(())
    }

    fn begin_item(&mut self, i: usize, style: &JsonStyle) -> Result<(), Error> {
        bounds::pay_bytes(self.state, (style.separators.0.len() + style.separators.1.len()) as u64)?;
        self.out.push_str(if i > 0 { &style.separators.0 } else { "" });
        self.new_line(style)
    }

    fn end_items(&mut self, close: char, empty: bool, style: &JsonStyle) -> Result<(), Error> {
        self.depth -= 1;
        if !empty {
            self.new_line(style)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, style: &JsonStyle) -> Result<(), Error> {
        let Some(indent) = &style.indent else { return Ok(()) };
        self.state.consume_fuel((indent.len() * self.depth) as u64 / 64)?;
        self.out.push('\n');
        (0..self.depth).for_each(|_| self.out.push_str(indent));
        Ok(())
    }
}

fn push(out: &mut String, value: impl std::fmt::Display) {
    let written = write!(out, "{value}");
    debug_assert!(written.is_ok(), "a String takes every write");
}

/// The shortest digits that read back the same, with an exponent where Python has one.
fn push_float(out: &mut String, value: &Value, special: [&str; 3]) {
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if !float.is_finite() {
        let which = if float.is_nan() { 0 } else { 1 + usize::from(float < 0.0) };
        return out.push_str(special[which]);
    }
    let digits = format!("{float:?}");
    match digits.split_once('e') {
        None => out.push_str(&digits),
        Some((mantissa, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            push(out, format_args!("{mantissa}e{sign}{exponent:0>2}"));
        }
    }
}

/// `repr` of a string.
fn push_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c if c < '\u{100}' => push(out, format_args!("\\x{:02x}", c as u32)),
            c if c < '\u{10000}' => push(out, format_args!("\\u{:04x}", c as u32)),
            c => push(out, format_args!("\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

fn is_printable(c: char) -> bool {
    use GeneralCategoryGroup::{Other, Separator};
    c == ' ' || !matches!(c.general_category_group(), Other | Separator)
}

fn push_json(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || ensure_ascii && !c.is_ascii() => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    push(out, format_args!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
