//! Chat templates: from messages to the text or the tokens that a model was trained to answer.
//!
//! The template comes with the model and is as hostile as the rest of its file. It is parsed for each call and freed with
//! it: parsing takes less than a millisecond, and a model that nobody chats with pays nothing.

mod bounds;
mod clock;
mod conversation;
mod guard;
mod methods;
mod provenance;
mod python;
mod template;
mod written;

use std::borrow::Borrow;
use std::ops::Range;

use super::message::MessageParser;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result, Status};
use crate::gguf::Metadata;

pub use conversation::Conversation;
use provenance::Tagger;
use serde_json::Value;

const TEMPLATE: &str = "tokenizer.chat_template";

/// Tokens that templates know by name, and the keys that say which they are. `bos` and `eos` are the tokeniser's.
const NAMED_TOKENS: &[(&str, &str)] = &[
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// The chat template of a model, with its tokeniser.
pub struct Chat<'a> {
    metadata: &'a Metadata,
    tokenizer: std::result::Result<&'a Tokenizer, &'a Error>,
}

impl<'a> Chat<'a> {
    #[doc(hidden)]
    pub fn new<T: Borrow<Tokenizer>>(metadata: &'a Metadata, tokenizer: &'a std::result::Result<T, Error>) -> Chat<'a> {
        Chat { metadata, tokenizer: tokenizer.as_ref().map(Borrow::borrow) }
    }

    /// The text of a conversation, to be made tokens with special tokens and without a beginning token: templates spell
    /// that themselves.
    ///
    /// # Errors
    /// `NOT_FOUND`: the model has no template; `UNSUPPORTED`: it uses what is not built in. `INVALID_ARGUMENT`: the template
    /// refuses these messages, or fails on them. `FORMAT`: it cannot be parsed, or goes beyond its bounds.
    pub fn format(&self, conversation: &Conversation) -> Result<String> {
        let template = self.template(conversation.has_tools())?;
        first_rendered(conversation, |conversation, share| {
            let mut variables = conversation.variables.clone();
            self.name_tokens(&mut variables);
            template::render(template, variables, conversation.text_bytes(), None, share)
        })
    }

    /// The tokens of a conversation. A control token is one only where the template spells it: in what the messages say
    /// it stays text.
    ///
    /// # Errors
    /// Those of [`Chat::format`] and of a missing tokeniser.
    pub fn tokenize(&self, conversation: &Conversation) -> Result<Vec<i32>> {
        let tokenizer = self.tokenizer.map_err(Clone::clone)?;
        let template = self.template(conversation.has_tools())?;
        let rendered =
            |conversation: &Conversation, share| self.render_tagged(tokenizer, template, conversation, share);
        let (text, own) = first_rendered(conversation, rendered)?;
        Ok(tokenizer.encode_own(&text, &own))
    }

    /// A parser for what the model answers to conversations of this template: that for tools, where there is one.
    ///
    /// `tools`: the tools of the conversation as JSON, or empty.
    ///
    /// # Errors
    /// `NOT_FOUND`: the model has no template. `INVALID_ARGUMENT`: the tools are not a JSON array.
    pub fn message_parser(&self, tools: &str) -> Result<MessageParser> {
        MessageParser::for_template(self.template(true)?, tools)
    }

    /// The text of a conversation, and which bytes of it are the template's own.
    fn render_tagged(
        &self,
        tokenizer: &Tokenizer,
        template: &str,
        conversation: &Conversation,
        share: u64,
    ) -> Result<(String, Vec<Range<usize>>)> {
        let mut variables = conversation.variables.clone();
        let tagger = Tagger::new(tokenizer.control_texts(), |see| {
            see(template);
            conversation.clone().each_string(&mut |text| see(text));
        });
        let tagger = tagger.ok_or_else(|| {
            Error::invalid(
                "the conversation has characters of both planes of private use, U+F0000 and U+100000: \
                 none is left to tell the template's control tokens from its own",
            )
        })?;
        let given: Vec<String> = variables.keys().cloned().collect();
        self.name_tokens(&mut variables);
        for (name, value) in &mut variables {
            if let Value::String(text) = value
                && !given.contains(name)
            {
                *text = tagger.whole(text);
            }
        }
        let text = template::render(template, variables, conversation.text_bytes(), Some(&tagger), share)?;
        Ok(tagger.restore(&text))
    }

    /// The template for conversations with or without tools.
    fn template(&self, tools: bool) -> Result<&'a str> {
        let named = if tools { self.metadata.get_str(&format!("{TEMPLATE}.tool_use"))? } else { None };
        let default = || self.metadata.get_str(TEMPLATE);
        let found = named.map_or_else(default, |named| Ok(Some(named)))?;
        found.ok_or_else(|| Error::not_found(format!("the model has no chat template ({TEMPLATE})")))
    }

    /// Adds the texts of special tokens, where the conversation does not give its own.
    fn name_tokens(&self, variables: &mut serde_json::Map<String, serde_json::Value>) {
        let Ok(tokenizer) = self.tokenizer else { return };
        let by_key = |key: &str| self.metadata.get_u32(key).ok().flatten().and_then(|id| i32::try_from(id).ok());
        let others = NAMED_TOKENS.iter().map(|&(name, key)| (name, by_key(key)));
        for (name, token) in [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos())].into_iter().chain(others)
        {
            let mut text = Vec::new();
            let Some(token) = token.filter(|_| !variables.contains_key(name)) else { continue };
            if tokenizer.piece(token, true, &mut text).is_ok() {
                variables.insert(name.into(), String::from_utf8_lossy(&text).into());
            }
        }
    }
}

/// What comes of the first form of a conversation that the template takes; where it takes none, the error of the first.
/// Of what a template may do the first form has all, each other a quarter.
fn first_rendered<T>(conversation: &Conversation, render: impl Fn(&Conversation, u64) -> Result<T>) -> Result<T> {
    let mut first = None;
    for (form, share) in conversation.forms().iter().zip([1, 4, 4, 4]) {
        match render(form, share) {
            Err(e) if matches!(e.status(), Status::InvalidArgument | Status::Unsupported) => first = first.or(Some(e)),
            other if first.is_none() || other.is_ok() => return other,
            _ => {}
        }
    }
    Err(first.unwrap_or_else(|| Error::invalid("the conversation has no form")))
}
