"""The Python binding against the small model of the tests: LAYERLINE_LIBRARY=... python3 -m unittest discover bindings/python"""

from __future__ import annotations

import array
import ctypes
import gc
import gzip
import math
import os
import pathlib
import re
import select
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
from typing import Any, List

import layerline
from layerline import BatchInput, Budget, Embeddings, Error, EventKind, Info, KvType, LayerState, Logits, Model, Options, Plan, Sampler, Session
from layerline import Stats, Status, Step

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/data/golden/arch/llama.gguf"
SMALL = Options(context_length=64, threads=2, memory_budget=1 << 30)
PROMPT = [1, 40, 50]


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'odd' %}{{ raise_exception('no ' + m.role) }}{% endif %}"
    "{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def with_template(template: str) -> bytes:
    """The small model with a chat template; a comment of Jinja's keeps its tensors aligned."""
    model, key = MODEL.read_bytes(), b"tokenizer.chat_template"
    pairs = struct.unpack_from("<Q", model, 16)[0]
    text = template.encode() + b"{##"
    text += b"#" * (-(len(key) + 20 + len(text) + 1) % 32) + b"}"
    pair = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(text)) + text
    return model[:16] + struct.pack("<Q", pairs + 1) + pair + model[24:]


class Case(unittest.TestCase):
    def refused(self, status: Status, call: Any, *arguments: Any, **named: Any) -> Error:
        with self.assertRaises(Error) as caught:
            call(*arguments, **named)
        self.assertEqual(caught.exception.status, status)
        self.assertEqual(str(caught.exception), caught.exception.message)
        self.assertTrue(caught.exception.message)
        return caught.exception


class Interface(Case):
    def test_structs_are_those_of_the_header(self) -> None:
        # What ctests/layout.c and src/ffi/layout.rs hold the C and the Rust side to.
        text = (ROOT / "ctests/layout.c").read_text()
        structs = (("plan", Plan), ("model_info", Info), ("stats", Stats), ("event", layerline._Event), ("generated", layerline._Generated),
                   ("token_logprob", layerline._TokenLogprob),
                   ("message", layerline._Message), ("session_info", layerline.SessionInfo),
                   ("progress", layerline.Progress))  # fmt: skip
        for name, layout in structs:
            size = re.search(rf"SIZE\(layerline_{name}, (\d+)\)", text)
            assert size is not None
            self.assertEqual(ctypes.sizeof(layout), int(size[1]), name)
            offsets = re.findall(rf"OFFSET\(layerline_{name}, (\w+), (\d+)\)", text)
            self.assertEqual([(field, getattr(layout, field).offset) for field, *_ in layout._fields_],
                             [(field, int(at)) for field, at in offsets])  # fmt: skip

    def test_constants_are_those_of_the_header(self) -> None:
        header = (ROOT / "include/layerline.h").read_text()
        defines = dict(re.findall(r"^#define LAYERLINE_(\w+) (-?\d+)$", header, re.M))
        for prefix, names in (("ERROR_", Status), ("IO_", layerline.Io), ("LOGITS_", Logits), ("LAYER_", LayerState),
                              ("EMBEDDINGS_", Embeddings), ("KV_", KvType), ("TOKEN_", layerline.TokenAttributes)):  # fmt: skip
            found = {name[len(prefix):]: int(value) for name, value in defines.items() if name.startswith(prefix)}
            unnamed = (Status.OK,) if prefix == "ERROR_" else ()
            self.assertEqual(found, {name.name: name.value for name in names if name not in unnamed})
        self.assertEqual(int(defines["EVENT_LAYER"]), EventKind.LAYER)
        self.assertEqual(int(defines["EVENT_DONE"]), EventKind.DONE)
        self.assertEqual(int(defines["TOKENIZE_SPECIAL"]), layerline._TOKENIZE_SPECIAL)
        self.assertEqual(int(defines["TOKENIZE_BOS"]), layerline._TOKENIZE_BOS)
        self.assertEqual(int(defines["TOKENIZE_EOS"]), layerline._TOKENIZE_EOS)

    def test_functions_have_as_many_parameters_as_in_the_header(self) -> None:
        header = re.sub(r"/\*.*?\*/", "", (ROOT / "include/layerline.h").read_text(), flags=re.S)
        for name, (_, parameters) in layerline._FUNCTIONS.items():
            declared = re.search(rf"\b{name}\((.*?)\);", header, re.S)
            assert declared is not None, name
            count = 0 if declared[1] == "void" else declared[1].count(",") + 1
            self.assertEqual(len(parameters), count, name)

    def test_version_is_the_packages(self) -> None:
        versions = {
            re.search(r'^version = "(.*)"', (ROOT / file).read_text(), re.M)[1]  # type: ignore[index]
            for file in ("Cargo.toml", "bindings/python/pyproject.toml")
        }
        self.assertEqual(versions, {layerline.version()})
        self.assertEqual(len(layerline.build_info().split("; ")), 4)

    def test_a_missing_or_wrong_library_is_named(self) -> None:
        for path, says in (("/no/such/liblayerline.so", "/no/such"), (self.other_library(), "it is no layerline")):
            environment = {**os.environ, "LAYERLINE_LIBRARY": path}
            done = subprocess.run([sys.executable, "-c", "import layerline; layerline.version()"], env=environment,
                                  cwd=ROOT / "bindings/python", stderr=subprocess.PIPE, text=True)  # fmt: skip
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("OSError", done.stderr)
            self.assertIn(says, done.stderr)

    def other_library(self) -> str:
        name = "/usr/lib/libSystem.B.dylib" if sys.platform == "darwin" else ctypes.util.find_library("c")
        assert name is not None
        return name


class Found(Case):
    def test_on_windows_the_library_beside_the_module_comes_first_and_elsewhere_it_is_not_looked_at(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with unittest.mock.patch.object(layerline, "__file__", os.path.join(folder, "layerline.py")):
                beside = os.path.join(folder, "layerline.dll")
                self.assertNotEqual(layerline._found("win32"), beside)
                pathlib.Path(beside).touch()
                self.assertEqual(layerline._found("win32"), beside)
                self.assertNotEqual(layerline._found("linux"), beside)


class WithModel(Case):
    def setUp(self) -> None:
        self.model = Model(MODEL, SMALL)
        self.addCleanup(self.model.close)

    def test_it_says_what_it_is(self) -> None:
        info = self.model.info()
        self.assertEqual((info.layer_count, info.vocab_size, info.context_length), (2, 320, 256))
        self.assertEqual(self.model.metadata("general.architecture"), "llama")
        self.refused(Status.NOT_FOUND, self.model.metadata, "no.such.key")
        self.assertRaises(ValueError, self.model.metadata, "a\0b")
        plan = layerline.plan(MODEL, SMALL)
        self.assertEqual(plan.layer_count, 2)
        self.assertLessEqual(plan.floor_bytes, plan.full_bytes)
        self.assertEqual(plan.file_bytes, MODEL.stat().st_size)

    def test_failures_carry_status_and_message(self) -> None:
        self.assertIn("/no/such/model", self.refused(Status.IO, Model, "/no/such/model").message)
        self.refused(Status.IO, layerline.plan, "/no/such/model")
        self.refused(Status.FORMAT, Model, __file__)
        self.refused(Status.MEMORY_BUDGET, Model, MODEL, Options(memory_budget=4096))
        self.refused(Status.INVALID_ARGUMENT, Model, MODEL, Options(io=17))  # type: ignore[arg-type]
        self.refused(Status.INVALID_ARGUMENT, Model.from_fd, -1)
        self.assertRaises(ValueError, Model, "a\0b")
        # ctypes alone would cut these to size.
        self.assertRaises(ValueError, Model, MODEL, Options(threads=2**32 + 1))
        self.assertRaises(ValueError, Model, MODEL, Options(memory_budget=-1))
        self.assertRaises(TypeError, Model, MODEL, Options(memory_budget=1.5))  # type: ignore[arg-type]
        self.assertRaises(TypeError, Model, 3.5)

    def test_a_descriptor_will_do(self) -> None:
        with open(MODEL, "rb") as file:
            model = Model.from_fd(file.fileno(), options=SMALL)
        with model:
            self.assertEqual(model.info().layer_count, 2)

    def test_text_goes_both_ways(self) -> None:
        text = "a-sea-of-words," * 300
        tokens = self.model.tokenize(text)
        self.assertIn(text, self.model.detokenize(tokens).decode())
        self.assertEqual((self.model.tokenize(""), self.model.detokenize([])), ([], b""))
        self.assertEqual(self.model.tokenize("a", bos=True)[0], self.model.info().bos_token)
        self.assertRaises(UnicodeEncodeError, self.model.tokenize, "\ud800")
        self.assertEqual(self.model.detokenize(self.model.tokenize(b"\xff\xfe", continues=True)), b"\xff\xfe")
        self.assertLess(len(self.model.tokenize("a", continues=True)), len(self.model.tokenize("a")))
        bos = self.model.info().bos_token
        self.assertEqual((self.model.detokenize([bos]), self.model.detokenize([bos], control=True)), (b"", b"<s>"))
        self.assertRaises(ValueError, self.model.detokenize, [2**40])
        self.assertRaises(TypeError, self.model.detokenize, [1.5])
        self.refused(Status.INVALID_ARGUMENT, self.model.detokenize, [100000])
        self.assertTrue(self.model.is_end(self.model.info().eos_token))
        self.assertFalse(self.model.is_end(40))

    def test_text_comes_in_whole_characters(self) -> None:
        text = "na\u00efve-\u65e5\U0001f600"
        tokens = self.model.tokenize(text, continues=True)
        with layerline.Detokenizer(self.model, continues=True) as detokenizer:
            self.assertEqual("".join(detokenizer.push([token]) for token in tokens), text)
            self.assertEqual(detokenizer.finish(), "")
            self.refused(Status.INVALID_ARGUMENT, detokenizer.push, [100000])
            self.assertEqual((detokenizer.push([3 + 0xC3]), detokenizer.finish()), ("", "\ufffd"))

    def test_a_text_goes_on_what_the_session_holds(self) -> None:
        session, other = Session(self.model), Session(self.model)
        session.generate("a", max_tokens=0)
        session.generate("b", max_tokens=0)
        tokens = self.model.tokenize("a", bos=True) + self.model.tokenize("b", continues=True)
        other.forward(tokens)
        self.assertEqual((session.position(), session.logits()), (len(tokens), other.logits()))

    def test_a_full_session_keeps_its_text(self) -> None:
        session = Session(self.model, 12)
        pieces: List[str] = []
        sampler = Sampler(temperature=5.0, seed=3)
        error = self.refused(
            Status.CONTEXT_FULL, session.generate, [1, 40, 50], max_tokens=100, sampler=sampler,
            on_token=lambda token, piece: pieces.append(piece),
        )  # fmt: skip
        self.assertTrue(pieces)
        self.assertEqual(error.text, "".join(pieces))

    def test_the_rest_of_the_chain_can_be_set(self) -> None:
        logits, never = [1.0, 3.0, 2.0, 0.0], float("-inf")
        self.assertEqual(Sampler(logit_bias={1: never, 0: 0.5}).sample_logits(logits), 2)
        self.assertEqual(Sampler(temperature=1.0, top_n_sigma=0.1).sample_logits(logits), 1)
        self.assertEqual(Sampler(xtc=(1.0, 0.2)).sample_logits(logits), 2)
        self.assertEqual(Sampler(xtc=(1.0, 0.2), steps=[Step.TOP_K]).sample_logits(logits), 1)
        self.assertEqual(Sampler(temperature=1e-6, mirostat=(1.0, 0.1)).sample_logits(logits), 1)
        for wrong in [{"typical_p": 2.0}, {"dry": (1.0, 0.5, 2, 64)}, {"steps": [9]}, {"dynamic_temperature": (-1.0, 1.0)},
                      {"frequency_penalty": float("nan")}, {"logit_bias": {-1: 0.0}}]:  # fmt: skip
            self.refused(Status.INVALID_ARGUMENT, lambda wrong=wrong: Sampler(**wrong))
        seen, row = [40, 41, 42, 50, 40, 41, 42], [0.0] * 64
        row[50], row[51] = 9.0, 1.0
        sampler = Sampler(dry=(100.0, 1.0, 3, 64))
        sampler.accept(seen)
        broken = sampler.copy()
        broken.add_dry_breaker(self.model, self.model.detokenize([42]).decode())
        self.assertEqual((sampler.sample_logits(row), broken.sample_logits(row)), (51, 50))
        broken.clear_dry_breakers()

    def test_adapters(self) -> None:
        with layerline.Session(self.model) as session, layerline.Session(self.model) as other:

            def last(of: layerline.Session) -> List[float]:
                of.truncate(0)
                of.forward(PROMPT)
                return list(of.logits())

            plain = last(session)
            with layerline.Adapter(self.model, ROOT / "tests/data/lora.gguf") as adapter:
                self.assertGreater(adapter.memory_bytes(), 768)
                session.set_adapters([(adapter, 0.5), (adapter, 0.5)])
                self.refused(Status.INVALID_ARGUMENT, session.set_adapters, [(adapter, float("nan"))])
            self.assertNotEqual(last(session), plain)
            self.assertEqual(last(other), plain)
            session.set_adapters([])
            self.assertEqual(last(session), plain)
        self.refused(Status.INVALID_ARGUMENT, layerline.Adapter, self.model, MODEL)

    def test_messages_are_parsed(self) -> None:
        tools = [{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}]
        said = "Hé.\n</think>\n\nSo:<tool_call><function=f><parameter=a>\n12\n</parameter></function></tool_call>"
        with layerline.MessageParser("qwen3-coder", tools) as parser:
            parser.begin("<think>\n")
            parts = [part for byte in said.encode() for part in parser.feed(bytes([byte]))] + parser.finish()
            joined = {kind: "".join(part.text for part in parts if part.kind == kind) for kind in layerline.PartKind}
            self.assertEqual(list(joined.values()), ["So:", "Hé.", "f", '{"a":"12"}', ""])
            self.assertEqual({len(part.id) for part in parts if part.kind >= layerline.PartKind.CALL}, {9})
            message = parser.message()
            self.assertEqual(message["reasoning_content"], "Hé.")
            self.assertEqual(message["tool_calls"][0]["function"]["arguments"], {"a": "12"})
            self.refused(Status.INVALID_ARGUMENT, parser.feed, "x")
        self.refused(Status.NOT_FOUND, layerline.MessageParser, "none such")
        self.refused(Status.NOT_FOUND, layerline.MessageParser, self.model)

    def test_conversations_become_text_and_tokens(self) -> None:
        self.refused(Status.NOT_FOUND, self.model.format_chat, [("user", "hi")])
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(with_template(TEMPLATE))
            file.flush()
            model = Model(file.name, SMALL)
        with model:
            said: List[layerline.Message] = [("system", "short"), ("user", "h\u00e9</s>")]
            text = "<s>system:short</s>user:h\u00e9</s></s>"
            self.assertEqual(model.format_chat(said), text + "assistant:")
            self.assertEqual(model.format_chat(said, add_assistant=False), text)
            said[0] = {"role": "system", "content": "short", "name": None}
            self.assertEqual(model.format_chat(said, tools=[{"name": "f"}], add_assistant=False), text + '[{"name": "f"}]')
            self.assertEqual(len(model.format_chat([("user", "a" * 5000)], add_assistant=False)), 5012)
            bos, eos = model.info().bos_token, model.info().eos_token
            for all_said in (said, said[1:], [("user", "</s>" * 3000)]):
                tokens = model.tokenize_chat(all_said)
                self.assertEqual((tokens[0], tokens.count(bos), tokens.count(eos)), (bos, 1, len(all_said)))
            self.assertEqual(model.tokenize(text, special=True).count(eos), 3)
            wrong = self.refused(Status.INVALID_ARGUMENT, model.format_chat, [("odd", "")])
            self.assertIn("no odd", wrong.message)
            self.refused(Status.INVALID_ARGUMENT, model.tokenize_chat, [], tools=3)
            self.assertRaises(ValueError, model.format_chat, [("user", "a\0b")])
            self.assertEqual(model.format_chat([{"role": "user", "content": "a\0b"}], add_assistant=False), "<s>user:a\0b</s>")

    def test_passes_leave_embeddings(self) -> None:
        with Session(self.model) as session:
            session.forward(PROMPT, Logits.NONE, Embeddings.ALL)
            rows = [session.embeddings(row) for row in range(3)]
            self.assertEqual(len(rows[0]), self.model.info().embedding_length)
            self.refused(Status.INVALID_ARGUMENT, session.embeddings, 3)
            self.refused(Status.INVALID_ARGUMENT, session.logits)
            for which, want in ((Embeddings.FIRST, rows[0]), (Embeddings.LAST, rows[2])):
                session.truncate(0)
                session.forward(PROMPT, embeddings=which)
                self.assertEqual(session.embeddings(), want)
                self.assertEqual(len(session.logits()), 320)
            session.truncate(0)
            session.submit(PROMPT, Logits.NONE, Embeddings.MEAN)
            while not self.model.wait():
                pass
            for got, of in zip(session.embeddings(), zip(*rows)):
                self.assertAlmostEqual(got, sum(of) / 3, places=5)
            session.truncate(0)
            self.refused(Status.INVALID_ARGUMENT, session.embeddings)

    def test_passes_leave_logits(self) -> None:
        with Session(self.model) as session:
            session.forward(PROMPT, Logits.ALL)
            last = session.logits(2)
            self.assertEqual((len(last), last.typecode, session.position()), (320, "f", 3))
            session.truncate(2)
            session.forward(array.array("i", PROMPT[2:]))
            self.assertEqual(session.logits(), last)  # bit for bit
            chosen = Sampler().sample(session)
            self.assertEqual(last[chosen], max(last))
            self.refused(Status.INVALID_ARGUMENT, session.logits, 1)
            self.refused(Status.INVALID_ARGUMENT, session.forward, [])
            self.refused(Status.CONTEXT_FULL, session.forward, [1] * 100)
            self.refused(Status.INVALID_ARGUMENT, session.truncate, 100)
            self.assertRaises(ValueError, session.truncate, -1)
            self.assertRaises(ValueError, session.forward, [2**31])

    def test_sessions_share_a_batch(self) -> None:
        first, second, alone = Session(self.model, 32), Session(self.model, 32), Session(self.model, 32)
        alone.forward(PROMPT)
        failed = self.model.forward_batch(
            [BatchInput(first, PROMPT, Logits.ALL), BatchInput(second, PROMPT), BatchInput(alone, [1] * 40)]
        )
        self.assertEqual(failed[:2], [None, None])
        assert failed[2] is not None
        self.assertEqual(failed[2].status, Status.CONTEXT_FULL)
        self.assertEqual((first.logits(len(PROMPT) - 1), second.logits()), (alone.logits(), alone.logits()))
        self.assertEqual((first.position(), alone.position()), (len(PROMPT), len(PROMPT)))
        self.assertEqual(self.model.forward_batch([]), [])

    def test_a_profile_of_use_is_of_a_model_with_experts_and_must_be_there(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "profile"
            self.refused(Status.UNSUPPORTED, self.model.save_profile, path)
            self.refused(Status.IO, Model, MODEL, Options(profile=path))
            self.assertRaises(ValueError, self.model.save_profile, "a\0b")

    def test_sessions_are_copied_saved_and_loaded(self) -> None:
        with tempfile.TemporaryDirectory() as folder, Session(self.model) as session:
            path = pathlib.Path(folder) / "state"
            session.forward(PROMPT)
            last = session.logits()
            copy, loaded = session.copy(32), Session(self.model, 16)
            session.save(path)
            loaded.load(os.fsencode(path))
            text = session.generate([], max_tokens=8)
            for other in (copy, loaded):
                self.assertEqual((other.position(), other.logits(), other.model), (3, last, self.model))
                self.assertEqual(other.generate([], max_tokens=8), text)
            path.write_bytes(path.read_bytes()[:-1])
            self.assertIn(str(path), self.refused(Status.FORMAT, loaded.load, path).message)
            self.refused(Status.IO, session.save, pathlib.Path(folder) / "none" / "state")
            self.refused(Status.CONTEXT_FULL, session.copy, 2)
            self.assertRaises(ValueError, session.save, "a\0b")
            self.assertRaises(ValueError, session.copy, -1)
            self.assertEqual(os.listdir(folder), ["state"])
            copy.close()
            self.assertRaises(ValueError, copy.load, path)

    def test_states_go_to_memory_and_back(self) -> None:
        with Session(self.model) as session, Session(self.model, 16) as other, Session(self.model, 2) as tight:
            session.forward(PROMPT)
            last, state = session.logits(), session.save_state()
            other.load_state(state)
            self.assertEqual((other.position(), other.logits()), (3, last))
            self.assertEqual(other.save_state(), state)
            self.refused(Status.FORMAT, other.load_state, state[:-1])
            self.refused(Status.FORMAT, other.load_state, b"")
            self.refused(Status.CONTEXT_FULL, tight.load_state, state)
            self.assertEqual(other.position(), 3)

    def test_a_session_goes_back_to_a_checkpoint(self) -> None:
        with Session(self.model) as session, Session(self.model) as other:
            session.forward(PROMPT)
            used = self.model.stats().used_bytes
            with session.checkpoint() as checkpoint:
                self.assertEqual(checkpoint.position(), 3)
                self.assertEqual(self.model.stats().used_bytes, used + checkpoint.memory_bytes())
                session.forward(PROMPT)
                after = session.logits()
                for _ in range(2):
                    session.restore(checkpoint)
                    self.assertEqual(session.position(), 3)
                    session.forward(PROMPT)
                    self.assertEqual(session.logits(), after)
                self.refused(Status.INVALID_ARGUMENT, other.restore, checkpoint)
                session.truncate(1)
                self.refused(Status.INVALID_ARGUMENT, session.restore, checkpoint)
            self.assertEqual(self.model.stats().used_bytes, used)
            self.assertRaises(ValueError, session.restore, checkpoint)

    def test_keys_and_values_are_kept_as_the_options_say(self) -> None:
        # Its weights are not the model's, but its heads are wide enough.
        packed = (ROOT / "tests/data/golden/quant2/Q1_0.gguf.gz").read_bytes()
        infos = []
        with tempfile.NamedTemporaryFile() as wide:
            wide.write(gzip.decompress(packed))
            wide.flush()
            for kv_type in KvType:
                with Model(wide.name, Options(context_length=64, kv_type=kv_type)) as model, Session(model) as session:
                    infos.append(session.info())
            self.assertEqual(layerline.plan(wide.name).unread_tensors, 0)
        halves, blocks = infos
        self.assertEqual((halves.kv_type, blocks.kv_type), (KvType.F16, KvType.Q8_0))
        self.assertEqual(blocks.cache_bytes * 32, halves.cache_bytes * 17)
        self.assertLess(halves.cache_bytes, halves.memory_bytes)
        self.assertEqual(halves.fewest_tokens, 1)
        self.refused(Status.UNSUPPORTED, Model, MODEL, Options(kv_type=KvType.Q8_0))

    def test_generations_draft_and_stop(self) -> None:
        text = Session(self.model).generate(PROMPT, max_tokens=12)
        for drafts in ({}, {"draft_text": 4}, {"draft_model": self.model, "draft_context": 64, "max_drafts": 4}):
            with layerline.Generation(max_tokens=12, **drafts) as generation:
                self.assertEqual(Session(self.model).generate(PROMPT, generation=generation), text)
                stats = generation.stats()
                self.assertEqual((stats.end, stats.tokens), (layerline.GenerationEnd.LENGTH, 12))
                self.assertLessEqual(stats.accepted, stats.drafted)
        stop = text[len(text) // 2 :][:2]
        generation = layerline.Generation(max_tokens=12, stop=[stop])
        self.assertEqual(Session(self.model).generate(PROMPT, generation=generation), text[: text.index(stop)])
        self.assertEqual(generation.stats().end, layerline.GenerationEnd.STOP)
        generation.clear_stops()
        self.assertEqual(Session(self.model).generate(PROMPT, generation=generation), text)
        self.refused(Status.INVALID_ARGUMENT, layerline.Generation, draft_text=1000)
        self.refused(Status.INVALID_ARGUMENT, generation.add_stop, "")
        self.assertRaises(TypeError, Session(self.model).generate, PROMPT)

    def test_the_models_own_layer_drafts(self) -> None:
        own = Options(context_length=64, predictor=True)
        self.assertIn("nextn_predict_layers", self.refused(Status.UNSUPPORTED, Model, MODEL, own).message)
        # Its weights are not the model's, but it has such a layer.
        packed = (ROOT / "tests/data/golden/arch2/glm4moe.gguf.gz").read_bytes()
        with tempfile.NamedTemporaryFile() as file:
            file.write(gzip.decompress(packed))
            file.flush()
            with Model(file.name, Options(context_length=64)) as model, Model(file.name, own) as layer:
                text = Session(model).generate(PROMPT, max_tokens=12)
                with layerline.Generation(max_tokens=12, draft_model=layer, max_drafts=4) as generation:
                    self.assertEqual(Session(model).generate(PROMPT, generation=generation), text)
                    self.assertEqual(generation.stats().tokens, 12)
                self.refused(Status.UNSUPPORTED, Session(layer).forward, [1])

    def test_log_probabilities_come_where_they_are_asked_for(self) -> None:
        made: List[layerline.Generated] = []
        plain = layerline.Generation(max_tokens=6)
        text = Session(self.model).generate(PROMPT, generation=plain, on_generated=made.append)
        self.assertTrue(all(math.isnan(g.logprob) and not g.top for g in made))
        self.assertEqual(text, "".join(g.piece for g in made))
        asked: List[layerline.Generated] = []
        session = Session(self.model)
        session.generate(PROMPT, generation=layerline.Generation(max_tokens=6, logprobs=3), on_generated=asked.append)
        self.assertEqual([g.token for g in asked], [g.token for g in made])
        for g in asked:
            self.assertEqual((g.top[0], len(g.top), g.sampled_logprob), ((g.token, g.logprob), 3, 0.0))
        # The last one, which was not fed, by the logits of the last pass.
        logits = session.logits()
        total = sum(math.exp(logit) for logit in logits)
        self.assertAlmostEqual(asked[-1].logprob, math.log(math.exp(logits[asked[-1].token]) / total), places=5)
        self.refused(Status.INVALID_ARGUMENT, layerline.Generation, logprobs=1000)
        self.assertRaises(TypeError, Session(self.model).generate, PROMPT, max_tokens=1, on_generated=made.append)

    def test_a_turn_reuses_what_is_common_and_a_full_context_drops_what_is_oldest(self) -> None:
        session = Session(self.model, 16)
        full = layerline.Generation(max_tokens=40)
        self.refused(Status.CONTEXT_FULL, session.generate, PROMPT, generation=full)
        self.assertEqual(full.stats().end, layerline.GenerationEnd.CONTEXT)
        turn = [*PROMPT[:-1], 77, 78]
        self.assertEqual(session.common_prefix(turn), len(PROMPT) - 1)
        self.assertEqual(session.reuse_prefix(turn), len(PROMPT) - 1)
        self.assertEqual(session.position(), len(PROMPT) - 1)
        dropping = layerline.Generation(max_tokens=40, kept_first=2)
        session.generate(turn[len(PROMPT) - 1 :], generation=dropping)
        self.assertEqual(dropping.stats().tokens, 40)
        self.assertGreater(dropping.stats().dropped, 0)

    def test_texts_follow_constraints(self) -> None:
        constraint = layerline.Constraint(self.model, layerline.ConstraintKind.REGEX, "ab[0-9]{2,3}c")
        with layerline.Generation(constraint=constraint) as generation:
            self.assertRegex(Session(self.model).generate(PROMPT, generation=generation), r"^ab[0-9]{2,3}c$")
            self.assertEqual(generation.stats().end, layerline.GenerationEnd.CONSTRAINT)
            generation.set_constraint(None)
        copy = constraint.copy()
        forced = copy.forced()
        self.assertEqual([token for token, allowed in enumerate(copy.mask()) if allowed], forced[:1])
        copy.accept(forced)
        self.assertEqual(copy.state(), layerline.ConstraintState.OPEN)
        self.refused(Status.INVALID_ARGUMENT, copy.accept, forced)
        self.assertEqual(constraint.forced(), forced)
        self.refused(
            Status.INVALID_ARGUMENT, layerline.Constraint, self.model, layerline.ConstraintKind.JSON_SCHEMA, "{"
        )

    def test_generation_gives_the_same_text_each_way(self) -> None:
        whole: List[int] = []
        text = Session(self.model).generate(PROMPT, max_tokens=8, on_token=lambda token, piece: whole.append(token))
        self.assertEqual(Session(self.model).generate(PROMPT, max_tokens=8), text)
        self.assertGreater(len(whole), 2)
        part: List[int] = []

        def two(token: int, _: str) -> bool:
            part.append(token)
            return len(part) < 2

        Session(self.model).generate(PROMPT, max_tokens=8, on_token=two)
        self.assertEqual(part, whole[:2])
        chance = [
            Session(self.model).generate("a", max_tokens=8, sampler=Sampler(temperature=0.9, top_k=40, seed=seed))
            for seed in (5, 5)
        ]
        self.assertEqual(chance[0], chance[1])
        self.refused(Status.INVALID_ARGUMENT, Sampler, temperature=-1.0)
        self.refused(Status.INVALID_ARGUMENT, Sampler, top_p=1.5)

    def test_what_a_callback_raises_comes_out(self) -> None:
        session = Session(self.model)

        def raises(_: int, __: str) -> bool:
            raise KeyboardInterrupt

        def closes(_: int, __: str) -> bool:
            self.refused(Status.BUSY, session.close)
            self.refused(Status.BUSY, session.position)
            session.interrupt()
            return True

        self.assertRaises(KeyboardInterrupt, session.generate, PROMPT, max_tokens=8, on_token=raises)
        session.truncate(0)
        self.refused(Status.CANCELLED, session.generate, PROMPT, max_tokens=8, on_token=closes)

    def test_events_come(self) -> None:
        ticket = self.model.prefetch(0, 2)
        events: List[layerline.Event] = []
        while not any(event.kind == EventKind.DONE for event in events):
            events += self.model.wait(timeout=60)
        self.assertEqual({event.ticket for event in events}, {ticket})
        self.assertEqual({event.status for event in events}, {Status.OK})
        self.assertIn(self.model.layer_state(1), (LayerState.READY, LayerState.PINNED))
        self.assertEqual((self.model.poll(), self.model.wait(0), self.model.wait(0.01)), ([], [], []))
        self.model.cancel(ticket)
        self.refused(Status.NOT_FOUND, self.model.cancel, 999999)
        self.refused(Status.INVALID_ARGUMENT, self.model.prefetch, 2, 1)
        self.refused(Status.INVALID_ARGUMENT, self.model.poll, 0)
        self.assertRaises(ValueError, self.model.wait, -1)
        self.assertRaises(ValueError, self.model.wait, float("nan"))
        self.assertRaises(ValueError, self.model.poll, 1 << 40)

    def test_a_loop_can_watch_a_submitted_pass(self) -> None:
        session = Session(self.model)
        ticket = session.submit(PROMPT)
        readable, _, _ = select.select([self.model.event_handle()], [], [], 60)
        self.assertTrue(readable)
        (event,) = self.model.poll()
        self.assertEqual((event.ticket, event.kind, event.status), (ticket, EventKind.DONE, Status.OK))
        self.assertEqual(len(session.logits()), 320)

    def test_the_budget_moves(self) -> None:
        plan = layerline.plan(MODEL, SMALL)
        self.model.set_memory_budget(plan.floor_bytes)
        self.assertEqual(self.model.stats().budget_bytes, plan.floor_bytes)
        self.assertIn(f"budget_bytes={plan.floor_bytes}, used_bytes=", repr(self.model.stats()))
        self.refused(Status.MEMORY_BUDGET, self.model.set_memory_budget, 4096)
        with Budget(4 * plan.full_bytes) as shared:
            models = [Model(MODEL, Options(context_length=64, shared_budget=shared)) for _ in range(2)]
            shared.set_bytes(3 * plan.full_bytes)
            self.refused(Status.MEMORY_BUDGET, shared.set_bytes, 4096)
        self.assertLessEqual(sum(model.stats().budget_bytes for model in models), 3 * plan.full_bytes)
        self.assertRaises(ValueError, Model, MODEL, Options(shared_budget=shared))  # closed

    def test_closed_is_closed(self) -> None:
        session = Session(self.model)
        self.model.close()
        self.model.close()
        self.assertRaises(ValueError, self.model.info)
        self.assertRaises(ValueError, Session, self.model)
        session.forward(PROMPT)  # sessions go on
        session.close()
        self.assertRaises(ValueError, session.forward, PROMPT)
        self.assertRaises(ValueError, session.interrupt)

    def test_what_is_forgotten_is_freed(self) -> None:
        # Without prefetching nothing is loaded before the first pass.
        model = Model(MODEL, Options(context_length=64, prefetch=False))
        before = model.stats().used_bytes
        sessions = [Session(model, 256) for _ in range(4)]
        self.assertGreater(model.stats().used_bytes, before)
        del sessions
        gc.collect()
        self.assertEqual(model.stats().used_bytes, before)

    def test_threads_share_a_model(self) -> None:
        expected = Session(self.model).generate(PROMPT, max_tokens=16)
        texts: List[str] = []
        threads = [
            threading.Thread(target=lambda: texts.append(Session(self.model).generate(PROMPT, max_tokens=16)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(texts, [expected] * 4)


if __name__ == "__main__":
    unittest.main()
