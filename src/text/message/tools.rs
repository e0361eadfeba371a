//! What the tools of a conversation say about the types of their arguments.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct Tools(Vec<Value>);

impl Tools {
    pub fn new(json: &str) -> Result<Tools> {
        if json.trim().is_empty() {
            return Ok(Tools::default());
        }
        match serde_json::from_str(json) {
            Ok(Value::Array(tools)) => Ok(Tools(tools)),
            Ok(Value::Null) => Ok(Tools::default()),
            Ok(_) => Err(Error::invalid("the tools are not a JSON array")),
            Err(e) => Err(Error::invalid(format!("the tools are not JSON: {e}"))),
        }
    }

    /// The schema of an argument.
    fn schema(&self, function: &str, argument: &str) -> Option<&Map<String, Value>> {
        let own = |tool: &'_ Value| -> Option<bool> {
            let tool = tool.get("function").unwrap_or(tool);
            Some(tool.get("name")?.as_str()? == function)
        };
        let tool = self.0.iter().find(|tool| own(tool) == Some(true))?;
        let tool = tool.get("function").unwrap_or(tool);
        tool.get("parameters")?.get("properties")?.get(argument)?.as_object()
    }

    /// The member of an object that says that an argument has a value, which is written without quotes.
    pub fn written(&self, function: &str, argument: &str, value: &str) -> Result<String> {
        let schema = self.schema(function, argument);
        let types: Vec<&str> = match schema.and_then(|schema| schema.get("type")) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let bare = value.trim();
        let python = match bare {
            "True" => Some("true"),
            "False" => Some("false"),
            "None" => Some("null"),
            _ => None,
        };
        let python = python.filter(|_| schema.is_some() && !types.contains(&"string"));
        let text = types == ["string"];
        let json = python.or(Some(bare)).filter(|json| !text && serde_json::from_str::<Value>(json).is_ok());
        let quoted = |text: &str| {
            serde_json::to_string(text).map_err(|e| Error::invalid(format!("an argument cannot be written: {e}")))
        };
        let value = json.map_or_else(|| quoted(value), |json| Ok(json.to_string()))?;
        Ok(format!("{}:{value}", quoted(argument)?))
    }
}
