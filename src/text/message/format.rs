//! The formats in which models write tool calls and reasoning: a table.

use std::ffi::CStr;

/// How a family of models writes.
pub(super) struct Format {
    pub name: &'static CStr,
    /// What a chat template of the family has, all of it.
    pub template: &'static [&'static str],
    /// What begins and ends reasoning.
    pub reasoning: (&'static str, &'static str),
    pub calls: Calls,
}

/// How calls are written.
#[derive(Clone, Copy)]
pub(super) enum Calls {
    None,
    /// JSON objects with the name and the arguments between two marks.
    Objects {
        open: &'static str,
        close: &'static str,
    },
    /// JSON objects that are the whole answer, or follow a mark.
    Bare {
        mark: &'static str,
        ends: &'static [&'static str],
    },
    /// After a mark a JSON array of objects, or a name, another mark and the arguments.
    List {
        open: &'static str,
        arguments: &'static str,
        id: &'static str,
    },
    /// Name and arguments with marks between them, in a section of their own.
    Named {
        section: (&'static str, &'static str),
        call: (&'static str, &'static str),
        arguments: &'static str,
    },
    /// Each argument between marks of its own.
    Tagged(Tags),
    /// Messages with a header that says who is spoken to, and on which channel.
    Channels,
}

/// The marks around the parts of a call whose arguments have marks of their own.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    pub open: &'static str,
    pub close: &'static str,
    pub name: (&'static str, &'static str),
    pub key: (&'static str, &'static str),
    pub value: (&'static str, &'static str),
    /// Ends one call; empty where `close` does.
    pub end: &'static str,
    /// Lines around a value that are not part of it.
    pub lines: bool,
}

const THINK: (&str, &str) = ("<think>", "</think>");

/// In the order in which templates are compared: a template that has the marks of several is of the first.
pub(super) const FORMATS: &[Format] = &[
    Format { name: c"harmony", template: &["<|channel|>", "<|message|>"], reasoning: THINK, calls: Calls::Channels },
    Format {
        name: c"minimax",
        template: &["<minimax:tool_call>", "<invoke name="],
        reasoning: THINK,
        calls: Calls::Tagged(Tags {
            open: "<minimax:tool_call>",
            close: "</minimax:tool_call>",
            name: ("<invoke name=\"", "\">"),
            key: ("<parameter name=\"", "\">"),
            value: ("", "</parameter>"),
            end: "</invoke>",
            lines: false,
        }),
    },
    Format {
        name: c"kimi",
        template: &["<|tool_calls_section_begin|>"],
        reasoning: THINK,
        calls: Calls::Named {
            section: ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            call: ("<|tool_call_begin|>", "<|tool_call_end|>"),
            arguments: "<|tool_call_argument_begin|>",
        },
    },
    Format {
        name: c"deepseek",
        template: &["<｜tool▁calls▁begin｜>"],
        reasoning: THINK,
        calls: Calls::Named {
            section: ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
            call: ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
            arguments: "<｜tool▁sep｜>",
        },
    },
    Format {
        name: c"mistral",
        template: &["[TOOL_CALLS]"],
        reasoning: ("[THINK]", "[/THINK]"),
        calls: Calls::List { open: "[TOOL_CALLS]", arguments: "[ARGS]", id: "[CALL_ID]" },
    },
    Format {
        name: c"glm",
        template: &["<arg_key>", "<tool_call>"],
        reasoning: THINK,
        calls: Calls::Tagged(Tags {
            open: "<tool_call>",
            close: "</tool_call>",
            name: ("", ""),
            key: ("<arg_key>", "</arg_key>"),
            value: ("<arg_value>", "</arg_value>"),
            end: "",
            lines: false,
        }),
    },
    Format {
        name: c"qwen3-coder",
        template: &["<tool_call>", "<function=", "<parameter="],
        reasoning: THINK,
        calls: Calls::Tagged(Tags {
            open: "<tool_call>",
            close: "</tool_call>",
            name: ("<function=", ">"),
            key: ("<parameter=", ">"),
            value: ("", "</parameter>"),
            end: "</function>",
            lines: true,
        }),
    },
    Format {
        name: c"hermes",
        template: &["<tool_call>", "</tool_call>"],
        reasoning: THINK,
        calls: Calls::Objects { open: "<tool_call>", close: "</tool_call>" },
    },
    Format {
        name: c"llama3",
        template: &["<|start_header_id|>", "\"parameters\": "],
        reasoning: THINK,
        calls: Calls::Bare { mark: "<|python_tag|>", ends: &["<|eom_id|>", "<|eot_id|>"] },
    },
    Format { name: c"plain", template: &[], reasoning: THINK, calls: Calls::None },
];

impl Format {
    pub fn name(&self) -> &'static str {
        self.name.to_str().unwrap_or_default()
    }
}

/// The format of a name.
pub(super) fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name() == name)
}

/// The format of the models that a chat template is made for.
pub(super) fn of_template(template: &str) -> &'static Format {
    let fits = |format: &&Format| format.template.iter().all(|mark| template.contains(mark));
    FORMATS.iter().find(fits).unwrap_or(&FORMATS[FORMATS.len() - 1])
}
