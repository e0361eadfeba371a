//! Methods of Python's strings, where the shims of minijinja-contrib have none or do them otherwise.

use minijinja::value::{Rest, Value, from_args};
use minijinja::{Error, State};
use minijinja_contrib::pycompat;

use super::guard;

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
    let Some(text) = value.as_str() else { return pycompat::unknown_method_callback(state, value, method, args) };
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
        "format" => {
            guard::check_format(text, '{')?;
            pycompat::unknown_method_callback(state, value, method, args)
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The filter of that name: `strip`, of anything that has a text.
pub(super) fn trim(value: Value, characters: Rest<Value>) -> Result<Value, Error> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    Ok(match characters.first().filter(|given| !given.is_none()) {
        Some(given) => {
            let given: Vec<char> = given.as_str().unwrap_or_default().chars().collect();
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
