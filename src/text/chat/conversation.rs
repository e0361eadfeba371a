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
    /// Integers stay as they are written, however long.
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

    /// The conversation in the forms in which templates may want it, the likeliest first: members of messages that are
    /// null left out or kept, and arguments of tool calls as they are or, where they are JSON text, as what it says. As
    /// transformers does it null members are left out; but some templates compare a member with none, and many take
    /// arguments for an object.
    pub(super) fn forms(&self) -> Vec<Conversation> {
        let messages = |c: &mut Conversation, change: &mut dyn FnMut(&mut Map<String, Value>)| {
            let list = c.variables.get_mut("messages").and_then(Value::as_array_mut);
            list.into_iter().flatten().filter_map(Value::as_object_mut).for_each(change);
        };
        let without_nulls = |c: &mut Conversation| {
            let mut found = false;
            messages(c, &mut |message| {
                let before = message.len();
                message.retain(|_, member| !member.is_null());
                found |= message.len() < before;
            });
            found
        };
        let mut bare = self.clone();
        let nulls = without_nulls(&mut bare);
        let mut read = self.clone();
        let mut texts = false;
        messages(&mut read, &mut |message| texts |= read_arguments(message));
        let mut forms = vec![bare];
        forms.extend(nulls.then(|| self.clone()));
        if texts {
            let mut bare = read.clone();
            without_nulls(&mut bare);
            forms.push(bare);
            forms.extend(nulls.then_some(read));
        }
        forms
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
    let given = |name: &&str| message.get(*name).filter(|member| !member.is_null());
    let Some(reasoning) = names.iter().find_map(given).cloned() else { return };
    if message.get("thinking").is_none_or(Value::is_null) {
        message.shift_remove("thinking");
        message.shift_insert(0, "thinking".into(), reasoning.clone());
    }
    message.insert("reasoning_content".into(), reasoning);
}

/// Puts what they say in the place of arguments that are given as JSON text, as programs do that pass them on as a model
/// wrote them; false where there are none. Text that is not a JSON object stays text.
fn read_arguments(message: &mut Map<String, Value>) -> bool {
    let mut found = false;
    let mut read = |call: &mut Map<String, Value>| {
        let Some(arguments) = call.get_mut("arguments") else { return };
        let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        if let Some(parsed) = parsed {
            *arguments = Value::Object(parsed);
            found = true;
        }
    };
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    for call in calls.into_iter().flatten().filter_map(Value::as_object_mut) {
        match call.get_mut("function").and_then(Value::as_object_mut) {
            Some(function) => read(function),
            None => read(call),
        }
    }
    found
}
