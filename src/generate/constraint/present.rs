//! Reads what a text must be like, for the reader that follows it.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

use super::{ConstraintKind, ConstraintState};
use crate::error::{Error, Result, Status};
use crate::generate::gbnf;
use crate::model::Model;
use crate::text::Reader;

/// A longer text is refused.
const MAX_TEXT: usize = 1 << 20;

/// Schemas in schemas, at most.
const MAX_DEPTH: usize = 100;

/// Rules of a grammar, and references of a schema, at most: each may lead to the next one, and the parser takes 2 to 5 KiB of
/// stack for each, and time that grows faster than their number.
const MAX_REFERENCES: usize = if cfg!(feature = "prefetch") { 1000 } else { 64 };

/// The members of an object of a schema's "properties", at most, if there is one such object: time grows with their square.
const MAX_MEMBERS: usize = 2000;

/// The stack of the thread that reads a text. Memory comes as it is used.
const STACK_BYTES: usize = 64 << 20;

pub struct Follower(Reader);

impl Follower {
    pub fn new(model: &Arc<Model>, kind: ConstraintKind, text: &str) -> Result<Follower> {
        if text.len() > MAX_TEXT {
            let message = format!("a constraint of {} bytes: it may have {MAX_TEXT}", text.len());
            return Err(Error::invalid(message));
        }
        let references = match kind {
            ConstraintKind::JsonSchema => text.matches("Ref\"").count() + text.matches("$ref").count(),
            ConstraintKind::Gbnf => text.matches("::=").count(),
            ConstraintKind::Lark => text.matches(':').count(),
            ConstraintKind::Regex => 0,
        };
        if references > MAX_REFERENCES {
            let message = format!("{references} rules or references: a constraint may have {MAX_REFERENCES}");
            return Err(Error::invalid(message));
        }
        let grammar = match kind {
            ConstraintKind::JsonSchema => TopLevelGrammar::from_json_schema(schema(text)?),
            ConstraintKind::Gbnf => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            ConstraintKind::Lark => TopLevelGrammar::from_lark(text.to_string()),
            ConstraintKind::Regex => TopLevelGrammar::from_regex(text),
        };
        let guide = model.guide()?;
        Ok(Follower(on_large_stack(|| Reader::new(&guide, grammar))?))
    }

    pub fn mask(&mut self) -> Result<Vec<u32>> {
        self.0.mask()
    }

    pub fn accept(&mut self, token: i32) -> Result<()> {
        if self.0.accept(token)? {
            return Ok(());
        }
        Err(Error::invalid(format!("token {token} does not follow the constraint")))
    }

    pub fn allowed(&mut self, tokens: &[i32]) -> Result<usize> {
        self.0.allowed(tokens)
    }

    pub fn forced(&mut self) -> Result<Vec<i32>> {
        self.0.forced()
    }

    pub fn progress(&mut self) -> Result<ConstraintState> {
        let may_end = self.0.may_end()?;
        Ok(match (self.0.is_complete(), may_end) {
            (true, _) => ConstraintState::Complete,
            (false, true) => ConstraintState::MayEnd,
            (false, false) => ConstraintState::Open,
        })
    }

    pub fn copy(&self) -> Follower {
        Follower(self.0.copy())
    }

    pub fn fork(&self) -> Follower {
        Follower(self.0.fork())
    }
}

/// Runs on a thread with a large stack, where the library may start threads.
fn on_large_stack<T: Send>(task: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if !cfg!(feature = "prefetch") {
        return task();
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("layerline-grammar".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, task);
        let thread = thread.map_err(|e| Error::out_of_memory(format!("a thread to read a constraint on: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::new(Status::Internal, "a fault while a constraint was read")))
    })
}

/// How deep values lie in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The squares of the numbers of members of all "properties", which reading takes time for.
fn members(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(members).sum(),
        Value::Object(objects) => {
            let own = |(name, value): (&String, &Value)| match value {
                Value::Object(own) if name.ends_with("roperties") => own.len() * own.len() + members(value),
                _ => members(value),
            };
            objects.iter().map(own).sum()
        }
        _ => 0,
    }
}

/// A schema, with the spaces between members that models know best.
fn schema(text: &str) -> Result<Value> {
    let mut schema: Value =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("the schema is not JSON: {e}")))?;
    let depth = depth(&schema);
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!("the schema is {depth} levels deep: it may be {MAX_DEPTH}")));
    }
    if members(&schema) > MAX_MEMBERS * MAX_MEMBERS {
        return Err(Error::invalid(format!("the schema has too many properties: an object may have {MAX_MEMBERS}")));
    }
    if let Value::Object(members) = &mut schema {
        members
            .entry("x-guidance")
            .or_insert_with(|| json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "}));
    }
    Ok(schema)
}

#[cfg(test)]
mod tests;
