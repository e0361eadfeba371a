//! What a template's operations cost, paid before they run.
//!
//! The engine's fuel pays for instructions and for what they make, mostly once it is made. Here each filter, test, method
//! and operator pays first, by what it will read and make. No value is lazy: what the engine would compute at each look
//! becomes a list at once, so that reading it costs what its length says and nothing nests out of sight.

use std::sync::LazyLock;

use minijinja::value::{Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::guard::NAMESPACE;
use super::python::DEEPEST;

/// A bound that the engine does not know.
#[derive(Debug)]
pub(super) struct Bound(String);

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Bound {}

pub(super) fn beyond(bound: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, "bound").with_source(Bound(bound.into()))
}

/// What a walk through a value meets.
#[derive(Clone, Copy, Default)]
pub(super) struct Size {
    /// Values, those inside others too.
    pub parts: u64,
    /// Bytes of all strings.
    pub bytes: u64,
}

impl Size {
    /// Fuel for a walk.
    pub fn cost(self) -> u64 {
        self.parts.saturating_add(self.bytes / 64)
    }

    /// At least the bytes of the value's text, escapes and separators included.
    pub fn text(self) -> u64 {
        self.parts.saturating_mul(48).saturating_add(self.bytes.saturating_mul(6))
    }
}

/// Pays for `bytes` to be read or made.
pub(super) fn pay_bytes(state: &State, bytes: u64) -> Result<(), Error> {
    state.consume_fuel(bytes / 64)
}

/// Pays for a walk through a value. Fails where it has too many levels, or a part that can come to hold the value again.
pub(super) fn measure(state: &State, value: &Value) -> Result<Size, Error> {
    let mut size = Size { parts: 1, bytes: value.as_str().map_or(0, str::len) as u64 };
    pay_bytes(state, size.bytes)?;
    let Some(parts) = parts(value) else { return Ok(size) };
    let mut levels = vec![parts];
    while let Some(level) = levels.last_mut() {
        let Some(part) = level.next() else {
            levels.pop();
            continue;
        };
        let bytes = part.as_str().map_or(0, str::len) as u64;
        state.consume_fuel(1 + bytes / 64)?;
        size.parts += 1;
        size.bytes = size.bytes.saturating_add(bytes);
        check_part(&part)?;
        if let Some(parts) = self::parts(&part) {
            if levels.len() >= DEEPEST {
                return Err(beyond(format!("a value has more than {DEEPEST} levels")));
            }
            levels.push(parts);
        }
    }
    Ok(size)
}

/// Keys and values, or items. `None` of what has no parts.
fn parts(value: &Value) -> Option<Box<dyn Iterator<Item = Value>>> {
    let object = value.as_object()?;
    match value.kind() {
        ValueKind::Map => Some(Box::new(object.try_iter_pairs()?.flat_map(|(key, value)| [key, value]))),
        ValueKind::Seq | ValueKind::Iterable => Some(Box::new(object.try_iter()?)),
        _ => None,
    }
}

/// A namespace changes: inside another value it could close a circle, which would have no end and never be freed.
pub(super) fn check_part(part: &Value) -> Result<(), Error> {
    if part.kind() == ValueKind::Map && part.get_attr(NAMESPACE).is_ok_and(|mark| mark.is_true()) {
        return Err(beyond("a namespace is kept inside another value"));
    }
    Ok(())
}

/// Pays for a look at each character of a string, or at each item of a list.
pub(super) fn pay_length(state: &State, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => state.consume_fuel(text.len() as u64 / 16),
        None => state.consume_fuel(items(value) / 4),
    }
}

/// Items of a list or keys of a map; at least the characters of a string.
fn items(value: &Value) -> u64 {
    value.as_str().map_or_else(|| value.as_object().and_then(|_| value.len()).unwrap_or(0), str::len) as u64
}

/// The value with its items made and paid for, where the engine would make them at each look.
pub(super) fn made(state: &State, value: Value) -> Result<Value, Error> {
    let listed = |value: &Value| {
        value.downcast_object_ref::<Vec<Value>>().is_some() || value.downcast_object_ref::<Tuple>().is_some()
    };
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) || listed(&value) {
        return Ok(value);
    }
    let mut list = Vec::new();
    for (i, item) in value.try_iter()?.checked().enumerate() {
        state.consume_fuel(i as u64 & 1)?;
        list.push(item?);
    }
    Ok(list.into())
}

/// Refuses widths that would be paid for only when there is a text of them: of more than three digits, or given by an
/// argument; and pays for the text.
pub(super) fn pay_format(state: &State, text: &str, opening: char, arguments: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    for argument in arguments {
        longest = measure(state, argument)?.text().max(longest);
    }
    let mut fields = 0u64;
    let mut rest = text;
    while let Some(at) = rest.find(opening) {
        rest = &rest[at + 1..];
        if rest.starts_with(opening) {
            rest = &rest[1..];
            continue;
        }
        let ends = |c: char| c == '}' || c == opening || opening == '%' && c.is_alphabetic();
        let end = rest.find(ends).unwrap_or(rest.len());
        let (field, tail) = rest.split_at(end);
        let digits = field.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
        if digits > 3 || opening == '%' && field.contains('*') || opening == '{' && tail.starts_with(opening) {
            return Err(beyond("a format has a width of more than 999, or one from an argument"));
        }
        fields += 1;
        rest = tail;
    }
    pay_bytes(state, fields.saturating_mul(longest.saturating_add(1_000)).saturating_add(text.len() as u64))
}

/// Pays for a text with each `from` replaced by `to`.
pub(super) fn pay_replace(state: &State, text: &str, from: &str, to: &str) -> Result<(), Error> {
    pay_bytes(state, text.len() as u64)?;
    let more = to.len().saturating_sub(from.len()) as u64;
    let places = if more > 0 { text.matches(from).count() as u64 } else { 0 };
    pay_bytes(state, places.saturating_mul(more))
}

/// Pays for the parts of a text, which are white space apart without a separator.
pub(super) fn pay_split(state: &State, text: &str, separator: Option<&str>) -> Result<(), Error> {
    state.consume_fuel(text.len() as u64 / 16)?;
    let parts = match separator {
        Some(separator) => text.matches(separator).count(),
        None => text.split_whitespace().count(),
    };
    state.consume_fuel(parts as u64)
}

/// Pays for taking characters off the ends of a text, each looked for among the given.
pub(super) fn pay_trim(state: &State, text: &str, given: &str) -> Result<(), Error> {
    state.consume_fuel((text.len() as u64).saturating_mul(1 + given.len() as u64) / 64)
}

/// What a filter reads of its first argument.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    /// Its characters, or its items without what is in them.
    Length,
    /// All of it.
    Parts,
    /// All of it, several times: it sorts, or looks things up in order.
    Sorted,
    /// All of it, and writes it as text.
    Text,
}

/// The engine's filters. Those of the same names in `template` replace some.
const FILTERS: &[(&str, Reads)] = &[
    ("abs", Reads::Length),
    ("attr", Reads::Length),
    ("batch", Reads::Parts),
    ("bool", Reads::Length),
    ("capitalize", Reads::Text),
    ("chain", Reads::Length),
    ("count", Reads::Length),
    ("d", Reads::Length),
    ("default", Reads::Length),
    ("dictsort", Reads::Sorted),
    ("e", Reads::Text),
    ("escape", Reads::Text),
    ("first", Reads::Length),
    ("float", Reads::Length),
    ("format", Reads::Length),
    ("groupby", Reads::Sorted),
    ("indent", Reads::Text),
    ("int", Reads::Length),
    ("items", Reads::Length),
    ("join", Reads::Text),
    ("last", Reads::Length),
    ("length", Reads::Length),
    ("lines", Reads::Length),
    ("list", Reads::Length),
    ("lower", Reads::Text),
    ("map", Reads::Length),
    ("max", Reads::Parts),
    ("min", Reads::Parts),
    ("pprint", Reads::Text),
    ("reject", Reads::Length),
    ("rejectattr", Reads::Length),
    ("replace", Reads::Length),
    ("reverse", Reads::Length),
    ("round", Reads::Length),
    ("safe", Reads::Text),
    ("select", Reads::Length),
    ("selectattr", Reads::Length),
    ("slice", Reads::Parts),
    ("sort", Reads::Sorted),
    ("split", Reads::Length),
    ("sum", Reads::Parts),
    ("title", Reads::Text),
    ("unique", Reads::Sorted),
    ("upper", Reads::Text),
    ("zip", Reads::Length),
];

/// Filters that call others by name. The engine's own stand behind names that no template can spell.
const CALLERS: &[(&str, &str)] = &[
    ("map", " map"),
    ("reject", " reject"),
    ("rejectattr", " rejectattr"),
    ("select", " select"),
    ("selectattr", " selectattr"),
];

/// Tests that read more than what kind of value it is.
const TESTS: &[&str] = &[
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "endingwith",
    "eq",
    "equalto",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "le",
    "lessthan",
    "lower",
    "lt",
    "ne",
    "sameas",
    "startingwith",
    "upper",
];

/// Numbers of a `range`, as many as the engine's own allows.
const LONGEST_RANGE: i128 = 100_000;

/// The engine's own filters and tests.
static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);

/// Puts what pays before what does it.
pub(super) fn add_filters(environment: &mut Environment) {
    environment.add_filter(" map", filters::map);
    environment.add_filter(" reject", filters::reject);
    environment.add_filter(" rejectattr", filters::rejectattr);
    environment.add_filter(" select", filters::select);
    environment.add_filter(" selectattr", filters::selectattr);
    for &(name, reads) in FILTERS {
        environment.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            filter(state, name, reads, &args.into_values())
        });
    }
    for &name in TESTS {
        environment.add_test(name, move |state: &mut State, args: Rest<Value>| {
            for argument in args.iter() {
                measure(state, argument)?;
            }
            PLAIN.empty_state().perform_test(name, &args)
        });
    }
    // It shows all that the engine holds.
    environment.remove_global("debug");
    environment.add_function("range", range);
}

/// `range` as a list. The engine's own overflows at the ends of what a number can be.
fn range(state: &State, first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    let (start, end) = second.map_or((0, first), |end| (first, end));
    let step = i128::from(step.unwrap_or(1));
    let wrong = |what: &'static str| Error::new(ErrorKind::InvalidOperation, what);
    let way = i128::from(end) - i128::from(start);
    let count = match step {
        0 => return Err(wrong("a range has a step of 0")),
        _ if (way < 0) != (step < 0) => 0,
        _ => (way.abs() + step.abs() - 1) / step.abs(),
    };
    if count > LONGEST_RANGE {
        return Err(wrong("a range has too many elements"));
    }
    state.consume_fuel(count as u64 / 2)?;
    Ok((0..count).map(|i| Value::from((i128::from(start) + i * step) as i64)).collect())
}

fn filter(state: &mut State, name: &str, reads: Reads, args: &[Value]) -> Result<Value, Error> {
    let Some((value, given)) = args.split_first() else {
        return PLAIN.empty_state().apply_filter(name, args);
    };
    let mut rest = Size::default();
    for argument in given {
        let size = measure(state, argument)?;
        rest = Size { parts: rest.parts + size.parts, bytes: rest.bytes.saturating_add(size.bytes) };
    }
    let count = items(value);
    pay_length(state, value)?;
    match reads {
        Reads::Length => {}
        Reads::Parts => drop(measure(state, value)?),
        Reads::Sorted => {
            let rounds = u64::from(64 - count.leading_zeros());
            let size = measure(state, value)?;
            state.consume_fuel(size.cost().saturating_mul(rounds))?;
        }
        Reads::Text => {
            let size = measure(state, value)?;
            pay_bytes(state, size.text())?;
        }
    }
    let by_item = CALLERS.iter().any(|(caller, _)| *caller == name)
        || matches!(name, "groupby" | "join" | "max" | "min" | "sort" | "sum" | "unique" | "zip");
    if by_item {
        // Each item meets every argument: a separator, the name of an attribute.
        pay_bytes(state, count.saturating_mul(rest.bytes))?;
    }
    let text = value.as_str().unwrap_or_default();
    let string = |at: usize| given.get(at).and_then(Value::as_str);
    match name {
        "batch" | "slice" => state.consume_fuel(largest(given).saturating_add(count))?,
        "indent" => {
            let lines = text.bytes().filter(|&byte| byte == b'\n').count() as u64 + 1;
            pay_bytes(state, lines.saturating_mul(largest(given)))?;
        }
        "format" => pay_format(state, text, '%', given)?,
        "replace" => match (value.as_str(), string(0), string(1)) {
            (Some(text), Some(from), Some(to)) => pay_replace(state, text, from, to)?,
            _ => pay_bytes(state, measure(state, value)?.text().saturating_mul(1 + rest.text()))?,
        },
        "split" => pay_split(state, text, string(0))?,
        "lines" => pay_split(state, text, Some("\n"))?,
        "list" => state.consume_fuel(count / 2)?,
        "round" => state.consume_fuel(20)?,
        // It adds a string to a string, or a list to a list, again and again.
        "sum" if !given.is_empty() => {
            let size = measure(state, value)?;
            state.consume_fuel(count.saturating_mul(size.cost().saturating_add(rest.bytes / 64)))?;
        }
        _ => {}
    }
    let called = CALLERS.iter().find(|(caller, _)| *caller == name);
    let result = match called {
        Some((_, own)) => {
            if given.iter().filter_map(Value::as_str).any(|named| named.starts_with(' ')) {
                return Err(Error::from(ErrorKind::UnknownFilter));
            }
            state.apply_filter(own, args)?
        }
        None => PLAIN.empty_state().apply_filter(name, args)?,
    };
    match result.kind() {
        ValueKind::Map if name == "chain" => {
            let mut pairs = Vec::new();
            for key in result.try_iter()?.checked() {
                let key = key?;
                state.consume_fuel(2 + given.len() as u64)?;
                pairs.push((key.clone(), result.get_item(&key)?));
            }
            Ok(Value::from_pairs(pairs))
        }
        _ if matches!(name, "chain" | "zip" | "items" | "reverse") => made(state, result),
        _ => Ok(result),
    }
}

/// The largest number among arguments, named ones included.
fn largest(given: &[Value]) -> u64 {
    let number = |value: &Value| u64::try_from(value.clone()).ok();
    let named = |value: &Value| {
        let pairs = value.as_object().filter(|_| value.kind() == ValueKind::Map)?.try_iter_pairs()?;
        pairs.filter_map(|(_, value)| number(&value)).max()
    };
    given.iter().filter_map(|value| number(value).or_else(|| named(value))).max().unwrap_or(0)
}
