//! Follows a text by the parser of llguidance.

use std::fmt::Display;
use std::sync::Arc;

use llguidance::Matcher;
use llguidance::api::{StopReason, TopLevelGrammar};
use serde_json::{Value, json};

use super::{ConstraintKind, ConstraintState};
use crate::error::{Error, Result, Status};
use crate::generate::gbnf;
use crate::model::Model;
use crate::text::plain;

/// A longer text is refused.
const MAX_TEXT: usize = 1 << 20;

/// Schemas in schemas, at most.
const MAX_DEPTH: usize = 100;

/// Rules of a grammar, and references of a schema, at most: each may lead to the next one, and the parser takes 2 to 5 KiB of
/// stack for each.
const MAX_REFERENCES: usize = if cfg!(feature = "prefetch") { 4000 } else { 64 };

/// The stack of the thread that reads a text. Memory comes as it is used.
const STACK_BYTES: usize = 64 << 20;

pub struct Follower {
    matcher: Matcher,
    ends: Arc<[i32]>,
    /// Words of a mask.
    words: usize,
}

impl Follower {
    pub fn new(model: &Arc<Model>, kind: ConstraintKind, text: &str) -> Result<Follower> {
        let tokenizer = model.tokenizer()?;
        if text.len() > MAX_TEXT {
            let message = format!("a constraint of {} bytes: it may have {MAX_TEXT}", text.len());
            return Err(Error::invalid(message));
        }
        let grammar = match kind {
            ConstraintKind::JsonSchema => TopLevelGrammar::from_json_schema(schema(text)?),
            ConstraintKind::Gbnf => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
            ConstraintKind::Lark => TopLevelGrammar::from_lark(text.to_string()),
            ConstraintKind::Regex => TopLevelGrammar::from_regex(text),
        };
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
        let guide = model.guide()?;
        let parser = on_large_stack(|| guide.parser(grammar))?;
        let ends = (0..tokenizer.vocab_size() as i32).filter(|&token| tokenizer.is_end(token).unwrap_or(false));
        Ok(Follower {
            matcher: Matcher::new(Ok(parser)),
            ends: ends.collect(),
            words: tokenizer.vocab_size().div_ceil(32),
        })
    }

    pub fn mask(&mut self) -> Result<Vec<u32>> {
        let mask = self.run(|matcher| matcher.compute_mask_or_eos())?;
        let mut words: Vec<u32> = mask.into();
        words.resize(self.words, 0);
        Ok(words)
    }

    pub fn accept(&mut self, token: i32) -> Result<()> {
        if self.allowed(&[token])? == 0 {
            return Err(Error::invalid(format!("token {token} does not follow the constraint")));
        }
        if self.is_stopped() {
            // An end token after a complete text.
            return Ok(());
        }
        self.run(|matcher| matcher.consume_token(token as u32))
    }

    pub fn allowed(&mut self, tokens: &[i32]) -> Result<usize> {
        let is_end = |token: &i32| self.ends.binary_search(token).is_ok();
        if self.is_stopped() {
            return Ok(tokens.first().filter(|token| is_end(token)).map_or(0, |_| 1));
        }
        let text: Vec<u32> =
            tokens.iter().take_while(|token| !is_end(token)).map_while(|&t| t.try_into().ok()).collect();
        match tokens.first() {
            Some(first) if is_end(first) => Ok(usize::from(self.progress()? != ConstraintState::Open)),
            _ if text.iter().any(|&token| token as usize >= self.words * 32) => Ok(0),
            _ => self.run(|matcher| matcher.validate_tokens(&text)),
        }
    }

    pub fn forced(&mut self) -> Result<Vec<i32>> {
        if self.is_stopped() {
            return Ok(Vec::new());
        }
        let tokens = self.run(|matcher| Ok::<_, Error>(matcher.compute_ff_tokens()))?;
        Ok(tokens.into_iter().map(|token| token as i32).collect())
    }

    pub fn progress(&mut self) -> Result<ConstraintState> {
        if self.is_stopped() {
            return Ok(ConstraintState::Complete);
        }
        let may_end = self.run(|matcher| matcher.is_accepting())?;
        Ok(if may_end { ConstraintState::MayEnd } else { ConstraintState::Open })
    }

    pub fn copy(&self) -> Follower {
        Follower { matcher: self.matcher.deep_clone(), ends: self.ends.clone(), words: self.words }
    }

    pub fn fork(&self) -> Follower {
        Follower { matcher: self.matcher.clone(), ends: self.ends.clone(), words: self.words }
    }

    /// Whether the text is complete.
    fn is_stopped(&self) -> bool {
        self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
    }

    /// Asks the parser; its errors are final.
    fn run<T, E: Display>(&mut self, ask: impl FnOnce(&mut Matcher) -> std::result::Result<T, E>) -> Result<T> {
        let result = ask(&mut self.matcher);
        if let Some(message) = self.matcher.get_error() {
            return Err(fault(&message, self.matcher.stop_reason()));
        }
        result.map_err(|e| fault(&format!("{e:#}"), self.matcher.stop_reason()))
    }
}

fn fault(message: &str, reason: StopReason) -> Error {
    let message = plain(message);
    match reason {
        _ if message.contains(&StopReason::NoExtensionBias.to_string()) => {
            Error::unsupported("no token of the vocabulary goes on as the constraint asks")
        }
        _ if message.starts_with("panic") => Error::new(Status::Internal, format!("a constraint: {message}")),
        _ => Error::unsupported(format!("the constraint became too complex: {message}")),
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

/// A schema, with the spaces between members that models know best.
fn schema(text: &str) -> Result<Value> {
    let mut schema: Value =
        serde_json::from_str(text).map_err(|e| Error::invalid(format!("the schema is not JSON: {e}")))?;
    let depth = depth(&schema);
    if depth > MAX_DEPTH {
        return Err(Error::invalid(format!("the schema is {depth} levels deep: it may be {MAX_DEPTH}")));
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
