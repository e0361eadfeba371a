//! A template, rendered as transformers' `apply_chat_template` does it, within bounds.

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::formatting::{FormatStyle, format};
use minijinja::machinery::{CodeGenerator, eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Tuple, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State};

use super::provenance::Tagger;
use super::{bounds, clock, guard, methods, python};
use crate::error::{Error, Result, Status};

/// Templates of models have up to 40 KiB.
const LONGEST_TEMPLATE: usize = 256 << 10;
/// What a template may do, in the engine's fuel: an instruction each, or 64 bytes of data made. So it is also the bound
/// of memory, 64 MiB beside the conversation's own.
const FUEL: u64 = 1_000_000;
/// More for longer conversations: this much for each of their bytes.
const FUEL_PER_BYTE: u64 = 1;
/// What a template may make of no conversation at all, in bytes: what comes after it, tokenising above all, takes time too.
const LONGEST_TEXT: usize = 2 << 20;
/// More for longer conversations: this many bytes for each of theirs.
const TEXT_PER_BYTE: usize = 16;
/// Bytes of a message of a template's own that an error tells.
const LONGEST_MESSAGE: usize = 4 << 10;
/// What messages about a place in the template call it.
const NAME: &str = "chat template";

type Fallible<T> = std::result::Result<T, minijinja::Error>;

/// Renders a template, with one part in `share` of what it may do.
pub(super) fn render(
    template: &str,
    variables: serde_json::Map<String, serde_json::Value>,
    conversation_bytes: usize,
    tagger: Option<&Tagger>,
    share: u64,
) -> Result<String> {
    if template.len() > LONGEST_TEMPLATE {
        let length = template.len();
        return Err(Error::format(format!("the chat template has {length} bytes, more than {LONGEST_TEMPLATE}")));
    }
    let source = with_blocks_for_generation(template);
    let mut environment = environment();
    add_marks(&mut environment, tagger.cloned());
    let fuel = (FUEL + conversation_bytes as u64 * FUEL_PER_BYTE) / share;
    environment.set_fuel(Some(fuel));
    let statements = guard::parse_guarded(&source, environment.syntax())
        .map_err(|e| Error::format(format!("the chat template cannot be parsed: {e}")))?;
    let mut generator = CodeGenerator::new(NAME, &source);
    generator.compile_stmt(&statements);
    let (instructions, blocks) = generator.finish();
    let context = Value::from_pairs(variables.into_iter().map(|(name, value)| (name, python::from_json(value))));
    let mut text = String::new();
    let out = &mut make_string_output(&mut text);
    let rendered = eval(&environment, &instructions, context, &blocks, out, AutoEscape::None).map(|_| ());
    rendered.map_err(|e| failure(&e, fuel))?;
    let longest = LONGEST_TEXT + conversation_bytes.saturating_mul(TEXT_PER_BYTE);
    if text.len() > longest {
        let length = text.len();
        return Err(Error::format(format!("the chat template makes {length} bytes of text, more than {longest}")));
    }
    Ok(text)
}

/// A message with what a template or a conversation put into it cut to a length that can be read.
fn readable(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let end = (0..=LONGEST_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
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
        return Error::invalid(readable(format!("the chat template refuses the messages: {raised}")));
    }
    let kinds = || causes.clone().filter_map(|e| e.downcast_ref::<minijinja::Error>()).map(minijinja::Error::kind);
    if kinds().any(|kind| kind == ErrorKind::OutOfFuel) {
        return Error::format(format!("the chat template goes beyond its bound of {fuel} steps"));
    }
    let deep = |e: &minijinja::Error| e.detail() == Some("recursion limit exceeded");
    if causes.clone().filter_map(|e| e.downcast_ref::<minijinja::Error>()).any(deep) {
        return Error::format("the chat template goes beyond its bounds: its macros and loops are nested too deep");
    }
    if let Some(bound) = causes.clone().find_map(|e| e.downcast_ref::<bounds::Bound>()) {
        return Error::format(format!("the chat template goes beyond its bounds: {bound}"));
    }
    let unknown = |kind| {
        use ErrorKind::{UnknownFilter, UnknownFunction, UnknownMethod, UnknownTest};
        matches!(kind, UnknownFilter | UnknownTest | UnknownFunction | UnknownMethod)
    };
    let status = if kinds().any(unknown) { Status::Unsupported } else { Status::InvalidArgument };
    let messages: Vec<String> = causes.map(ToString::to_string).collect();
    Error::new(status, readable(format!("the chat template fails on these messages: {}", messages.join(": "))))
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_unknown_method_callback(methods::call);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_formatter(|out: &mut Output, state: &mut State, value: &Value| {
        match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python::text(state, value)?),
        }
        .map_err(minijinja::Error::from)
    });
    bounds::add_filters(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |state: &State, format: &str| {
        state.consume_fuel(format.len() as u64 / 8)?;
        strftime_now(format)
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", methods::trim);
    environment.add_filter("string", |state: &State, value: &Value| python::text(state, value));
    add_guards(&mut environment);
    // Python's strings and dicts are sequences too, and what is undefined is an empty one.
    let is_sequence = |value: &Value| {
        matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
    };
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", move |value: &Value| is_sequence(value) || value.kind() == ValueKind::Iterable);
    environment
}

/// The functions that a rewritten template calls.
fn add_guards(environment: &mut Environment) {
    environment.add_function(guard::CHECK, |state: &State, value: Value| {
        bounds::measure(state, &value)?;
        Ok::<_, minijinja::Error>(value)
    });
    environment.add_function(guard::CHECK_PART, |state: &State, value: Value| {
        bounds::check_part(&value)?;
        bounds::measure(state, &value)?;
        Ok::<_, minijinja::Error>(value)
    });
    environment.add_function(guard::TEXT, |state: &State, value: Value| match value.as_str() {
        Some(_) => Ok(value),
        None => python::text(state, &value).map(Value::from),
    });
    environment.add_function(guard::REMAINDER, remainder);
    environment.add_function(guard::LENGTH, |state: &State, value: Value| {
        bounds::pay_length(state, &value)?;
        Ok::<_, minijinja::Error>(value)
    });
    environment.add_function(guard::MADE, |state: &State, value: Value| bounds::made(state, value));
    let plain = environment.globals().find(|(name, _)| *name == "namespace").map(|(_, function)| function);
    environment.add_function("namespace", move |state: &mut State, mapping: Option<Value>, attributes: Kwargs| {
        let mut pairs = vec![(Value::from(guard::NAMESPACE), Value::from(true))];
        for given in mapping.into_iter().chain([Value::from(attributes)]) {
            for key in given.try_iter()? {
                pairs.push((key.clone(), given.get_item(&key)?));
            }
        }
        let function = plain.as_ref().ok_or_else(|| minijinja::Error::from(ErrorKind::UnknownFunction))?;
        function.call(state, &[Value::from_pairs(pairs)])
    });
}

/// The functions that mark what is the template's own; without a tagger nothing is marked.
fn add_marks(environment: &mut Environment, tagger: Option<Tagger>) {
    let tagger = std::sync::Arc::new(tagger);
    let literals = tagger.clone();
    environment.add_function(guard::OWN, move |state: &State, value: Value| {
        let Some((tagger, text)) = literals.as_ref().as_ref().zip(value.as_str()) else { return Ok(value) };
        state.consume_fuel(text.len() as u64 / 4)?;
        Ok::<_, minijinja::Error>(tagger.literal(text).into())
    });
    environment.add_function(guard::ROLE, move |value: Value| {
        let (tagger, role) = (tagger.as_ref().as_ref(), value.as_str());
        tagger.zip(role).and_then(|(tagger, role)| tagger.role(role)).map_or(value.clone(), Value::from)
    });
}

/// `%`, which formats where there is a string on its left.
fn remainder(state: &State, left: Value, right: Value) -> Fallible<Value> {
    if let Some(text) = left.as_str() {
        let tuple = right.downcast_object_ref::<Tuple>().map(|tuple| tuple.iter().cloned().collect::<Vec<_>>());
        let given = tuple.unwrap_or_else(|| vec![right]);
        bounds::pay_format(state, text, '%', &given)?;
        return format(FormatStyle::Printf, text, &given).map(Value::from);
    }
    let cannot = || minijinja::Error::new(ErrorKind::InvalidOperation, "% of what is neither number nor string");
    if left.is_integer() && right.is_integer() {
        let (left, right) = (i128::try_from(left)?, i128::try_from(right)?);
        let modulus = left.checked_rem_euclid(right).ok_or_else(cannot)?;
        return Ok(Value::from(if right < 0 && modulus != 0 { modulus + right } else { modulus }));
    }
    let (left, right) = (f64::try_from(left).map_err(|_| cannot())?, f64::try_from(right).map_err(|_| cannot())?);
    Ok(Value::from(left - right * (left / right).floor()))
}

fn raise_exception(message: String) -> Fallible<Value> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The one thing in a text that is not the conversation's: the day.
fn strftime_now(format: &str) -> Fallible<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    clock::strftime(format, now).map_err(|e| minijinja::Error::new(ErrorKind::UnknownFunction, e.message().to_string()))
}

fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> Fallible<String> {
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
        let mut parts = String::new();
        let mut copied = 0;
        for (found, _) in out.match_indices(tag) {
            let before = out[..found].trim_end().trim_end_matches(['-', '+']);
            let after = out[found + tag.len()..].trim_start().trim_start_matches(['-', '+']);
            if before.ends_with("{%") && after.starts_with("%}") {
                parts.push_str(&out[copied..found]);
                parts.push_str(block);
                copied = found + tag.len();
            }
        }
        if copied > 0 {
            parts.push_str(&out[copied..]);
            out = Cow::Owned(parts);
        }
    }
    out
}
