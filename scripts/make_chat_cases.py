#!/usr/bin/env python3
"""Makes tests/data/chat.json: conversations as transformers renders them, which is what models were trained with.

    make_chat_cases.py                        writes tests/data/chat.json; needs `pip install transformers jinja2`
    make_chat_cases.py TEMPLATE… > cases.json  the same conversations by other templates: files of Jinja, or GGUF models
                                               (needs `pip install gguf`); LAYERLINE_CHAT_CASES=cases.json cargo test --test chat

The templates are in tests/data/chat: written for this test, each in the manner of a family of models, so that together
they have every construct that the families' own templates have.
"""

import json
import pathlib
import sys

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

SYSTEM = {"role": "system", "content": "You are terse."}
HELLO = {"role": "user", "content": "Hello, who are you?"}
ANSWER = {"role": "assistant", "content": "A model."}
AGAIN = {"role": "user", "content": "  What is 2 + 2?\n\n"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a <city> & \"region\" — now.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City's name"},
                "days": {"type": "array", "items": {"type": "integer"}, "description": "Which days"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2], "exact": True, "limit": None, "x": 1.0}},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call00001", "name": "get_weather", "content": "{\"sky\": \"☀\"}"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour.", "reasoning": "hm"}
REASONED = {"role": "assistant", "reasoning_content": "First,\n2 + 2.", "content": "Four."}
TWO_CALLS = {
    **CALL,
    "reasoning_content": "Both.",
    "tool_calls": [*CALL["tool_calls"], {"id": "call00002", "type": "function", "function": {"name": "now", "arguments": {}}}],
}
TIME = {"role": "tool", "tool_call_id": "call00002", "name": "now", "content": "12:00"}

# Messages and other variables of each conversation.
CONVERSATIONS = {
    "one": ([HELLO], {}),
    "system": ([SYSTEM, HELLO], {}),
    "turns": ([SYSTEM, HELLO, ANSWER, AGAIN], {}),
    "unicode": ([{"role": "user", "content": "naïve 日本語 😀 e\u0301 \u00a0'\"\\ \t<b>&amp;</b>\x1c\u2028\x85"}, ANSWER, HELLO], {}),
    "empty": ([{"role": "system", "content": ""}, {"role": "user", "content": ""}], {}),
    "thought": ([HELLO, THOUGHT, AGAIN], {"enable_thinking": False}),
    "tools": ([SYSTEM, HELLO], {"tools": [WEATHER, CLOCK]}),
    "called": ([HELLO, CALL, RESULT, {"role": "assistant", "content": "Sunny."}, AGAIN], {"tools": [WEATHER]}),
    "calling": ([SYSTEM, HELLO, {**CALL, "content": None}, RESULT, RESULT], {"tools": [WEATHER, CLOCK]}),
    "reasoned": ([SYSTEM, HELLO, REASONED, AGAIN], {"enable_thinking": True, "thinking": True}),
    "reasoning": ([HELLO, REASONED, AGAIN, TWO_CALLS, RESULT, TIME], {"tools": [WEATHER, CLOCK], "enable_thinking": True}),
    "results": ([HELLO, TWO_CALLS, RESULT, TIME, REASONED, AGAIN], {"tools": [WEATHER, CLOCK], "enable_thinking": False, "thinking": False}),
    "strange": ([ANSWER, ANSWER, {"role": "critic", "content": "Bad."}], {}),
    "documents": ([HELLO], {"documents": [{"title": "A", "text": "a"}, {"title": "B", "text": "b"}]}),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "See:"}, {"type": "image"}, {"type": "text", "text": " this"}]}], {}),
}


def template_of(path: pathlib.Path) -> str:
    if path.suffix != ".gguf":
        return path.read_text(encoding="utf-8")
    import gguf

    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    return bytes(field.parts[field.data[0]]).decode()


def cases(template: str, conversations):
    for name, (messages, variables) in conversations:
        for add in (False, True):
            # As apply_chat_template prepares them.
            said = [{key: value for key, value in message.items() if value is not None} for message in messages]
            given = {**TOKENS, **{key: value for key, value in variables.items() if key not in ("tools", "documents")}}
            tools, documents = variables.get("tools"), variables.get("documents")
            try:
                texts, _ = render_jinja_template([said], tools=tools, documents=documents, chat_template=template,
                                                 add_generation_prompt=add, **given)
                expected = {"text": texts[0]}
            except (jinja2.exceptions.TemplateError, TypeError, ValueError) as error:
                raised = type(error) is jinja2.exceptions.TemplateError
                expected = {"error": str(error) if raised else None}
            yield {"conversation": name, "add": add, **expected}


def main() -> None:
    named = [pathlib.Path(name) for name in sys.argv[1:]]
    files = named or sorted((ROOT / "tests/data/chat").glob("*.jinja"))
    made = {
        "conversations": {name: {"messages": messages, **variables, **TOKENS} for name, (messages, variables) in CONVERSATIONS.items()},
        "templates": [
            {"name": path.name, **({"template": template_of(path)} if named else {}),
             "cases": list(cases(template_of(path), CONVERSATIONS.items()))}
            for path in files
        ],
    }  # fmt: skip
    text = json.dumps(made, ensure_ascii=True, indent=1) + "\n"
    if named:
        sys.stdout.write(text)
    else:
        (ROOT / "tests/data/chat.json").write_text(text)


if __name__ == "__main__":
    main()
