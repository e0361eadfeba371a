//! A chat template and a conversation, both hostile: the first line is the conversation, the rest the template. Whatever
//! they are, the call ends, and memory stays within what the fuzzer allows.
#![no_main]

use layerline::gguf::Metadata;
use layerline::{Chat, Conversation, Error};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let (json, template) = data.split_once('\n').unwrap_or((r#"{"messages": [{"role": "user", "content": "hi"}]}"#, data));
    let Ok(conversation) = Conversation::from_json(json, true) else { return };
    let metadata = Metadata { entries: vec![("tokenizer.chat_template".into(), template.into())] };
    let none = Err(Error::unsupported("no tokenizer"));
    let _ = Chat::new(&metadata, &none).format(&conversation);
});
