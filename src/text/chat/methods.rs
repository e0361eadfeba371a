//! Methods of Python's strings, where the shims of minijinja-contrib have none or do them otherwise.

use minijinja::value::{Rest, Value, from_args};
use minijinja::{Error, State};
use minijinja_contrib::pycompat;

use super::bounds::{self, made, measure, pay_bytes};
use super::python;

/// White space as Python's `str` has it: what Unicode calls so, and four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Where `splitlines` splits; `\r\n` is one.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\u{b}' | '\u{c}' | '\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// A method that the engine itself does not know.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        if method == "count" {
            measure(state, value)?;
        }
        let result = pycompat::unknown_method_callback(state, value, method, args)?;
        return if matches!(method, "keys" | "values" | "items") { made(state, result) } else { Ok(result) };
    };
    pay(state, text, method, args)?;
    let bare = args.iter().all(Value::is_none);
    match method {
        "strip" if bare => Ok(text.trim_matches(is_space).into()),
        "lstrip" if bare => Ok(text.trim_start_matches(is_space).into()),
        "rstrip" if bare => Ok(text.trim_end_matches(is_space).into()),
        "split" if bare => Ok(text.split(is_space).filter(|word| !word.is_empty()).collect()),
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            Ok(lines(text, keep.unwrap_or(false)).into_iter().collect())
        }
        "title" => {
            let () = from_args(args)?;
            Ok(title(text).into())
        }
        "isspace" => {
            let () = from_args(args)?;
            Ok((!text.is_empty() && text.chars().all(is_space)).into())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Pays for what a method reads and makes.
fn pay(state: &State, text: &str, method: &str, args: &[Value]) -> Result<(), Error> {
    let string = |at: usize| args.get(at).and_then(Value::as_str);
    let given: usize = args.iter().filter_map(Value::as_str).map(str::len).sum();
    state.consume_fuel((text.len() + given) as u64 / 32)?;
    match method {
        "replace" => bounds::pay_replace(state, text, string(0).unwrap_or_default(), string(1).unwrap_or_default()),
        "strip" | "lstrip" | "rstrip" => bounds::pay_trim(state, text, string(0).unwrap_or_default()),
        "split" => bounds::pay_split(state, text, string(0)),
        "splitlines" => state.consume_fuel(text.chars().filter(|&c| is_line_end(c)).count() as u64),
        "format" => bounds::pay_format(state, text, '{', args),
        "join" => {
            let Some(list) = args.first() else { return Ok(()) };
            let count = if list.as_object().is_some() { list.len().unwrap_or(0) } else { given };
            pay_bytes(state, (count as u64).saturating_mul(text.len() as u64))?;
            pay_bytes(state, measure(state, list)?.text())
        }
        _ => Ok(()),
    }
}

/// The filter of that name: `strip`, of anything that has a text.
pub(super) fn trim(state: &State, value: Value, characters: Rest<Value>) -> Result<Value, Error> {
    let text = match value.as_str() {
        Some(text) => text.to_string(),
        None => python::text(state, &value)?,
    };
    Ok(match characters.first().filter(|given| !given.is_none()) {
        Some(given) => {
            let given = given.as_str().unwrap_or_default();
            bounds::pay_trim(state, &text, given)?;
            let given: Vec<char> = given.chars().collect();
            text.trim_matches(&given[..]).into()
        }
        None => text.trim_matches(is_space).into(),
    })
}

fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_line_end) {
        let ending =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(&rest[..if keep { at + ending } else { at }]);
        rest = &rest[at + ending..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Every letter behind none in upper case, all others in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}
