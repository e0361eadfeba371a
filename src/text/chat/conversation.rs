//! What a template is given: its variables, the messages among them.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The variables of a chat template.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub(super) variables: Map<String, Value>,
}

impl Conversation {
    /// Messages as pairs of role and content. With `add_assistant` the text ends where the assistant's answer begins.
    pub fn new<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>, add_assistant: bool) -> Conversation {
        let message = |(role, content): (&str, &str)| {
            Value::Object(Map::from_iter([("role".into(), role.into()), ("content".into(), content.into())]))
        };
        let messages = messages.into_iter().map(message).collect();
        let mut variables = Map::new();
        variables.insert("messages".into(), Value::Array(messages));
        Conversation { variables }.completed(add_assistant)
    }

    /// A JSON object whose members become the template's variables: `messages`, an array of objects, must be among them.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` says what is wrong with the JSON, and where.
    pub fn from_json(json: &str, add_assistant: bool) -> Result<Conversation> {
        let parsed =
            serde_json::from_str(json).map_err(|e| Error::invalid(format!("the conversation is no JSON: {e}")))?;
        let Value::Object(mut variables) = parsed else {
            return Err(Error::invalid("the conversation is no JSON object"));
        };
        let Some(Value::Array(messages)) = variables.get_mut("messages") else {
            return Err(Error::invalid("the conversation has no array \"messages\""));
        };
        for (i, message) in messages.iter_mut().enumerate() {
            let Value::Object(message) = message else {
                return Err(Error::invalid(format!("message {i} of the conversation is no JSON object")));
            };
            message.retain(|_, member| !member.is_null());
            name_reasoning(message);
        }
        if !matches!(variables.get("tools"), None | Some(Value::Null | Value::Array(_))) {
            return Err(Error::invalid("\"tools\" of the conversation is no array"));
        }
        Ok(Conversation { variables }.completed(add_assistant))
    }

    /// With what every template may count on.
    fn completed(mut self, add_assistant: bool) -> Conversation {
        self.variables.insert("add_generation_prompt".into(), add_assistant.into());
        for absent in ["tools", "documents"] {
            self.variables.entry(absent).or_insert(Value::Null);
        }
        self
    }

    pub(super) fn has_tools(&self) -> bool {
        !matches!(self.variables.get("tools"), None | Some(Value::Null))
    }

    /// Bytes of all strings.
    pub(super) fn text_bytes(&self) -> usize {
        fn bytes(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(items) => items.iter().map(bytes).sum(),
                Value::Object(members) => members.values().map(bytes).sum(),
                Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            }
        }
        self.variables.values().map(bytes).sum()
    }

    /// Every string, keys included, but for the names of the variables.
    pub(super) fn each_string(&mut self, change: &mut dyn FnMut(&mut String)) {
        fn walk(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
            match value {
                Value::String(text) => change(text),
                Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
                Value::Object(members) => {
                    for (mut key, mut member) in std::mem::take(members) {
                        change(&mut key);
                        walk(&mut member, change);
                        members.insert(key, member);
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        self.variables.values_mut().for_each(|value| walk(value, change));
    }
}

/// The three names under which templates look for what a model thought before its answer: whichever a message has, it has
/// the two that are read. As transformers does it.
fn name_reasoning(message: &mut Map<String, Value>) {
    let names = ["reasoning_content", "thinking", "reasoning"];
    let Some(reasoning) = names.iter().filter_map(|name| message.get(*name)).next().cloned() else {
        return;
    };
    if !message.contains_key("thinking") {
        message.shift_insert(0, "thinking".into(), reasoning.clone());
    }
    message.insert("reasoning_content".into(), reasoning);
}
