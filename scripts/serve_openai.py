#!/usr/bin/env python3
"""The example server of the Go binding, asked by the `openai` package: every path, whole and streamed, eight clients at
once, clients that go away, answers by a schema, tool calls; the server runs in a third of the model's file.

  serve_openai.py SERVE MODEL              SERVE: the built program of bindings/go/examples/serve
  serve_openai.py SERVE MODEL --measure    tokens per second of 1, 2, 4 and 8 clients, medians of 5
  serve_openai.py SERVE MODEL --random S   random clients for S seconds, and what is left of memory and descriptors
"""
import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import typing

import openai
import pydantic

SESSIONS = 8
QUESTION = [{"role": "user", "content": "Name three colours."}]


class Server:
    """A running server, on a port of its own."""

    def __init__(self, program, model, context, sessions=SESSIONS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        listen = f"127.0.0.1:{port}"
        options = ["-listen", listen, "-sessions", str(sessions), "-context", str(context)]
        self.process = subprocess.Popen([program, *options, model])
        self.url = f"http://{listen}/v1"
        self.connect()
        for _ in range(200):
            try:
                self.name = self.client.models.list().data[0].id
                return
            except openai.APIConnectionError:
                if self.process.poll() is not None:
                    raise SystemExit("the server has ended") from None
                time.sleep(0.05)
        raise SystemExit("the server does not answer")

    def connect(self):
        """Begins with new connections."""
        self.client = openai.OpenAI(base_url=self.url, api_key="none", max_retries=0, timeout=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(2)
        assert self.process.wait(20) == 0, "the server did not end well"

    def chat(self, **named):
        named = {"max_tokens": 16, "temperature": 0, "messages": QUESTION, **named}
        return self.client.chat.completions.create(model=self.name, **named)

    def streamed(self, **named):
        return "".join(c.choices[0].delta.content or "" for c in self.chat(stream=True, **named) if c.choices)

    def left(self):
        """Descriptors, and KiB of memory."""
        status = open(f"/proc/{self.process.pid}/status").read()
        return len(os.listdir(f"/proc/{self.process.pid}/fd")), int(status.split("VmRSS:")[1].split()[0])


def at_once(count, call):
    """What `count` calls in threads give."""
    results, failures = [None] * count, []

    def run(i):
        try:
            results[i] = call(i)
        except Exception as error:  # told by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if failures:
        raise failures[0]
    return results


def check(server):
    client, name = server.client, server.name
    assert client.models.retrieve(name).id == name
    whole = server.chat(logprobs=True, top_logprobs=3)
    text, usage = whole.choices[0].message.content, whole.usage
    assert text and whole.choices[0].finish_reason in ("stop", "length") and usage.completion_tokens <= 16
    likely = whole.choices[0].logprobs.content
    assert all(one.logprob <= 0 and one.top_logprobs[0].token == one.token and len(one.top_logprobs) == 3 for one in likely)
    assert server.streamed() == text
    parts = list(server.chat(stream=True, logprobs=True, stream_options={"include_usage": True}))
    assert parts[-1].usage == usage and parts[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert [p.choices[0].logprobs.content[0].logprob for p in parts if p.choices and p.choices[0].logprobs]
    stop = text[len(text) // 2 :][:3]
    cut = server.chat(stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"
    # The next turn of the conversation.
    turn = [*QUESTION, {"role": "assistant", "content": text}, {"role": "user", "content": "More."}]
    assert server.streamed(messages=turn) == server.chat(messages=turn).choices[0].message.content
    one = client.completions.create(model=name, prompt="The sea is", max_tokens=8, seed=3, logprobs=2)
    two = client.completions.create(model=name, prompt="The sea is", max_tokens=8, seed=3)
    assert one.choices[0].text == two.choices[0].text and len(one.choices[0].logprobs.token_logprobs) >= 8
    rows = client.embeddings.create(model=name, input=["a cat", "a dog"]).data
    assert len(rows) == 2 and abs(sum(x * x for x in rows[0].embedding) - 1) < 1e-3
    plain = client.embeddings.create(model=name, input="a cat", encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(plain, rows[0].embedding)) < 1e-6
    for wrong in ({"temperature": -1}, {"n": 2}, {"messages": [{"role": "user", "content": "x " * 5000}]}):
        try:
            server.chat(**wrong)
        except openai.BadRequestError:
            continue
        raise AssertionError(wrong)
    assert at_once(SESSIONS, lambda i: server.streamed()) == [text] * SESSIONS
    # A client that goes away frees its session: more of them than there are sessions leave room for another one.
    for _ in range(3 * SESSIONS):
        stream = server.chat(stream=True, max_tokens=90, logit_bias={"2": -100})
        next(iter(stream))
        stream.close()
    assert server.streamed() == text


class Animal(pydantic.BaseModel, extra="forbid"):
    name: typing.Literal["Rex", "Tom", "Polly"]
    kind: typing.Literal["cat", "dog"]
    legs: int = pydantic.Field(ge=0, le=8)
    wild: bool


class weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str


def check_schemas(server):
    """Answers that follow a schema: the package makes one of a class, and the class checks the answer."""
    ask = [{"role": "user", "content": "Describe a cat in JSON."}]
    for seed in range(4):
        parsed = server.client.chat.completions.parse(
            model=server.name, messages=ask, response_format=Animal, seed=seed, max_tokens=100
        )
        assert isinstance(parsed.choices[0].message.parsed, Animal) and parsed.choices[0].finish_reason == "stop"
    schema = {"type": "json_schema", "json_schema": {"name": "animal", "schema": Animal.model_json_schema()}}
    text = server.chat(messages=ask, response_format=schema, max_tokens=100).choices[0].message.content
    assert Animal.model_validate_json(text)
    streamed = at_once(SESSIONS, lambda i: server.streamed(messages=ask, response_format=schema, max_tokens=100))
    assert streamed == [text] * SESSIONS
    assert server.chat(messages=ask, response_format={"type": "json_object"}).choices[0].message.content.startswith("{")
    schema["json_schema"]["schema"] = {"type": "animal"}
    try:
        server.chat(response_format=schema)
        raise AssertionError("a schema that is none was taken")
    except openai.BadRequestError as error:
        assert "animal" in error.message, error.message


def with_tools(model, path):
    """A copy of the model with a template that knows tools, of the same length."""
    marks = b"{# <tool_call></tool_call> #}"
    template = (
        b"{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or m.tool_calls | tojson }}<|im_end|>\n"
        b"{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}<|im_start|>assistant\n" + marks
    )
    with open(model, "rb") as file:
        data = bytearray(file.read())
    key = b"tokenizer.chat_template"
    at = data.index(key) + len(key) + 4
    length = int.from_bytes(data[at : at + 8], "little")
    assert len(template) <= length
    data[at + 8 : at + 8 + length] = template.replace(marks, marks[:-2] + b" " * (length - len(template)) + b"#}")
    with open(path, "wb") as file:
        file.write(data)


def check_tools(server):
    """The model is too small to call a tool by itself: a grammar makes it do so, and leaves it the city."""
    call = r'"<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"" [A-Z] [a-z]{2,8} "\"}}\n</tool_call>"'
    named = {
        "model": server.name, "tools": [openai.pydantic_function_tool(weather)], "temperature": 0, "max_tokens": 90,
        "messages": [{"role": "user", "content": "How is the weather in Rome?"}],
        "extra_body": {"grammar": f'root ::= "<think>A tool.</think>" {call}'},
    }  # fmt: skip
    whole = server.client.chat.completions.parse(**named)
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls" and not message.content, whole
    assert message.reasoning_content == "A tool." and isinstance(message.tool_calls[0].function.parsed_arguments, weather)
    with server.client.chat.completions.stream(**named, stream_options={"include_usage": True}) as stream:
        events = [event.type for event in stream]
        end = stream.get_final_completion()
    streamed = end.choices[0].message
    assert "tool_calls.function.arguments.delta" in events and end.choices[0].finish_reason == "tool_calls"
    assert streamed.tool_calls[0].function.arguments == message.tool_calls[0].function.arguments
    assert streamed.role == "assistant" and end.usage == whole.usage and streamed.tool_calls[0].id
    # The tool's result goes back, and the model says something.
    answer = message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    answer["tool_calls"] = [{k: v for k, v in one.items() if k != "index"} for one in answer["tool_calls"]]
    del answer["tool_calls"][0]["function"]["parsed_arguments"]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": json.dumps({"sky": "clear"})}
    turn = server.chat(messages=[*named["messages"], answer, result], tools=named["tools"])
    without = server.chat(messages=[*named["messages"], answer, result], tools=named["tools"], tool_choice="none")
    assert turn.choices[0].message.content and turn.usage.prompt_tokens > without.usage.prompt_tokens


def measure_leaving(server):
    """How soon the only session serves another client, after the one that had it has gone away."""

    def token():
        prompt = [random.randrange(1000, 40000)]  # one that the session does not hold
        began = time.monotonic()
        server.client.completions.create(model=server.name, prompt=prompt, max_tokens=1)
        return 1000 * (time.monotonic() - began)

    alone = statistics.median(token() for _ in range(9))
    times = []
    for _ in range(9):
        stream = server.chat(stream=True, max_tokens=200, logit_bias={"2": -100})
        next(iter(stream))
        stream.close()
        times.append(token())
    print(f"one token of another client: {alone:.1f} ms, after one that went away {statistics.median(times):.1f} ms, "
          f"at most {max(times):.1f} ms")  # fmt: skip
    assert max(times) < 10000


def measure(server):
    server.streamed()
    one = 0.0
    for clients in (1, 2, 4, 8):
        rates = []
        for _ in range(5):
            began = time.monotonic()
            at_once(clients, lambda i: server.streamed(max_tokens=48, logit_bias={"2": -100}))
            rates.append(48 * clients / (time.monotonic() - began))
        rate = statistics.median(rates)
        one = one or rate
        print(f"{clients} clients: {rate:.1f} tokens/s, {rate / one:.2f} times one", flush=True)


def random_clients(server, seconds):
    def run(i, end):
        own = random.Random(i)
        while time.monotonic() < end:
            named = {"max_tokens": own.randrange(1, 60), "temperature": own.random(), "logprobs": own.random() < 0.3}
            try:
                if own.random() < 0.2:
                    server.client.embeddings.create(model=server.name, input="words " * own.randrange(1, 20))
                elif own.random() < 0.5:
                    server.chat(timeout=0.05 + own.random(), **named)
                else:
                    stream = server.chat(stream=True, **named)
                    for _ in zip(range(own.randrange(20)), stream):
                        pass
                    stream.close()
            except openai.APITimeoutError:
                pass

    at_once(SESSIONS, lambda i: run(i, time.monotonic() + max(10.0, seconds / 4)))
    server.client.close()
    server.connect()
    time.sleep(1)
    before = server.left()
    at_once(SESSIONS, lambda i: run(i, time.monotonic() + seconds))
    server.client.close()
    server.connect()
    server.streamed()
    time.sleep(1)
    after = server.left()
    print(f"descriptors {before[0]}, then {after[0]}; KiB of memory {before[1]}, then {after[1]}")
    assert after[0] <= before[0] + 2 and after[1] <= before[1] * 1.1 + 4096


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--random", type=float, metavar="S")
    arguments = parser.parse_args()
    # A third of the model's file has room for as many sessions as there are clients where they are short.
    with Server(arguments.serve, arguments.model, 96 if arguments.measure else 128) as server:
        if arguments.measure:
            measure(server)
        elif arguments.random:
            random_clients(server, arguments.random)
        else:
            check(server)
            check_schemas(server)
    if not arguments.measure and not arguments.random:
        with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(arguments.serve))) as folder:
            copy = os.path.join(folder, "tools.gguf")
            with_tools(arguments.model, copy)
            with Server(arguments.serve, copy, 512, 1) as server:
                check_tools(server)
                measure_leaving(server)
        print("all answers are as they should be")


main()
