//! A template, rendered as transformers' `apply_chat_template` does it, within bounds.

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State};
use minijinja_contrib::pycompat;

use super::{clock, python};
use crate::error::{Error, Result, Status};

/// Templates of models have up to 40 KiB.
const LONGEST_TEMPLATE: usize = 256 << 10;
/// What a template may do, in the engine's fuel: an instruction each, or 64 bytes of data made. So it is also the bound
/// of memory, 64 MiB beside the conversation's own.
const FUEL: u64 = 1_000_000;
/// More for longer conversations: this much for each of their bytes.
const FUEL_PER_BYTE: u64 = 1;

pub(super) fn render(
    template: &str,
    variables: serde_json::Map<String, serde_json::Value>,
    conversation_bytes: usize,
) -> Result<String> {
    if template.len() > LONGEST_TEMPLATE {
        let length = template.len();
        return Err(Error::format(format!("the chat template has {length} bytes, more than {LONGEST_TEMPLATE}")));
    }
    let source = with_blocks_for_generation(template);
    let mut environment = environment();
    let fuel = FUEL + conversation_bytes as u64 * FUEL_PER_BYTE;
    environment.set_fuel(Some(fuel));
    let parsed = environment
        .template_from_named_str("chat template", &source)
        .map_err(|e| Error::format(format!("the chat template cannot be parsed: {e}")))?;
    let context: Value = variables.into_iter().map(|(name, value)| (name, python::from_json(value))).collect();
    parsed.render(context).map_err(|e| failure(&e, fuel))
}

/// What a template raised by `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn failure(error: &minijinja::Error, fuel: u64) -> Error {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source());
    if let Some(raised) = causes.clone().find_map(|e| e.downcast_ref::<Raised>()) {
        return Error::invalid(format!("the chat template refuses the messages: {raised}"));
    }
    let kinds = || causes.clone().filter_map(|e| e.downcast_ref::<minijinja::Error>()).map(minijinja::Error::kind);
    if kinds().any(|kind| kind == ErrorKind::OutOfFuel) {
        return Error::format(format!("the chat template goes beyond its bound of {fuel} steps"));
    }
    let unknown = |kind| {
        use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
        matches!(kind, UnknownFilter | UnknownTest | UnknownFunction | UnknownMethod)
    };
    let status = if kinds().any(unknown) { Status::Unsupported } else { Status::InvalidArgument };
    let messages: Vec<String> = causes.map(ToString::to_string).collect();
    Error::new(status, format!("the chat template fails on these messages: {}", messages.join(": ")))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_formatter(|out: &mut Output, state: &mut State, value: &Value| {
        match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python::text(state, value)?),
        }
        .map_err(minijinja::Error::from)
    });
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |state: &State, value: &Value| python::text(state, value));
    environment.add_test("sequence", |value: &Value| is_container(value));
    environment.add_test("iterable", |value: &Value| is_container(value) || value.kind() == ValueKind::Iterable);
    environment
}

fn is_container(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The one thing in a text that is not the conversation's: the day.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    clock::strftime(format, now).map_err(|e| minijinja::Error::new(ErrorKind::UnknownFunction, e.message().to_string()))
}

fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> std::result::Result<String, minijinja::Error> {
    let ensure_ascii = ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false);
    let indent = indent.or(options.get("indent")?).filter(|indent| !indent.is_none());
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let indent = match indent {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_string(),
            None => {
                let count = usize::try_from(indent)?;
                state.consume_fuel(count as u64 / 64)?;
                " ".repeat(count)
            }
        }),
    };
    let separators = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "separators are two")),
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
    };
    python::json(state, value, &python::JsonStyle { ensure_ascii, indent, separators, sort_keys })
}

/// `{% generation %}` marks what an assistant wrote, for training: here it is a block of its own, and no more.
fn with_blocks_for_generation(template: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(template);
    for (tag, block) in [("generation", "with"), ("endgeneration", "endwith")] {
        let mut from = 0;
        while let Some(found) = out[from..].find(tag).map(|at| at + from) {
            let before = out[..found].trim_end().trim_end_matches(['-', '+']);
            let after = out[found + tag.len()..].trim_start().trim_start_matches(['-', '+']);
            from = found + tag.len();
            if before.ends_with("{%") && after.starts_with("%}") {
                out.to_mut().replace_range(found..found + tag.len(), block);
                from = found + block.len();
            }
        }
    }
    out
}
