"""Models out of sources of the program's own: LAYERLINE_LIBRARY=... python3 -m unittest discover bindings/python"""

from __future__ import annotations

import gc
import io
import threading
import unittest
import weakref
import zipfile
from dataclasses import replace
from typing import List

from layerline import Adapter, Error, Io, Logits, Model, Options, Session, Source, Status, plan, plan_source
from test_layerline import MODEL, PROMPT, ROOT, SMALL, Case

BYTES = MODEL.read_bytes()


def logits(session: Session) -> List[float]:
    session.truncate(0)
    session.forward(PROMPT, Logits.LAST)
    return session.logits().tolist()


class Sources(Case):
    def test_a_source_gives_what_the_file_gives(self) -> None:
        expected = logits(Session(Model(MODEL, SMALL)))
        needs = plan(MODEL, SMALL)
        asked: List[int] = []

        def read(offset: int, length: int) -> memoryview:
            asked.append(offset)
            return memoryview(BYTES)[offset : offset + min(length, 5000)]

        with Source(read, len(BYTES), "tiny.gguf") as source:
            self.assertEqual(plan_source(source, SMALL).floor_bytes, needs.floor_bytes)
            for prefetch in (True, False):
                for budget in (needs.floor_bytes + 2 * needs.kv_bytes, needs.full_bytes + 2 * needs.kv_bytes):
                    options = replace(SMALL, prefetch=prefetch, memory_budget=budget)
                    with Model.from_source(source, options) as model:
                        self.assertEqual(logits(Session(model)), expected)
                        self.assertEqual(model.stats().io, Io.SOURCE)
        self.assertTrue(asked)

    def test_files_and_members_of_archives_are_sources(self) -> None:
        expected = logits(Session(Model(MODEL, SMALL)))
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as new:
            new.write(MODEL, "tiny.gguf")
        with zipfile.ZipFile(archive) as opened, opened.open("tiny.gguf") as member, open(MODEL, "rb") as file:
            for one in (member, file, io.BytesIO(BYTES)):
                with Source(one) as source, Model.from_source(source, SMALL) as model, Session(model) as session:
                    self.assertEqual(logits(session), expected)

    def test_what_a_read_raises_ends_its_pass(self) -> None:
        failing = threading.Event()

        def read(offset: int, length: int) -> bytes:
            if failing.is_set():
                raise ConnectionError("the network is gone")
            return BYTES[offset : offset + length]

        source = Source(read, len(BYTES), "tiny.gguf")
        model = Model.from_source(source, replace(SMALL, prefetch=False, memory_budget=0))
        session = Session(model)
        expected = logits(Session(Model(MODEL, SMALL)))
        failing.set()
        error = self.refused(Status.IO, session.forward, PROMPT)
        self.assertIn("tiny.gguf", error.message)
        self.assertIsInstance(source.failure, ConnectionError)
        failing.clear()
        self.assertEqual(logits(session), expected)

    def test_a_source_is_let_go_of_with_what_was_opened_from_it(self) -> None:
        class Storage:
            def __call__(self, offset: int, length: int) -> bytes:
                return BYTES[offset : offset + length]

        gone = threading.Event()
        storage = Storage()
        weakref.finalize(storage, gone.set)
        source = Source(storage, len(BYTES))
        del storage
        model = Model.from_source(source, SMALL)
        source.close()
        del source
        gc.collect()
        session = Session(model)
        model.close()
        self.assertEqual(len(logits(session)), 320)
        self.assertFalse(gone.is_set())
        session.close()
        gc.collect()
        self.assertTrue(gone.wait(60))

    def test_what_is_wrong_is_refused(self) -> None:
        source = Source(io.BytesIO(BYTES), name="tiny.gguf")
        lora = Source(io.BytesIO((ROOT / "tests/data/lora.gguf").read_bytes()), name="lora.gguf")
        self.refused(Status.UNSUPPORTED, Model.from_source, source, replace(SMALL, io=Io.MMAP))
        model = Model(MODEL, SMALL)
        self.assertGreater(Adapter(model, lora).memory_bytes(), 768)
        self.refused(Status.INVALID_ARGUMENT, Adapter, model, source)
        two = Source(io.BytesIO(BYTES), name="tiny.gguf", files=[lora])
        self.refused(Status.INVALID_ARGUMENT, Model.from_source, two, SMALL)
        self.refused(Status.IO, Model.from_source, Source(lambda offset, length: b"", 9), SMALL)
        error = self.refused(Status.IO, Model.from_source, Source(lambda offset, length: bytes(length + 1), 99), SMALL)
        self.assertIn("were asked for", error.message)
        self.assertRaises(ValueError, Source, lambda offset, length: b"")
        self.assertRaises(ValueError, Source, io.BytesIO(BYTES), name="a\0b")
        lora.close()
        self.assertRaises(ValueError, Model.from_source, lora, Options())
        with self.assertRaises(Error):
            Model.from_source(Source(lambda offset, length: 7, 9))


if __name__ == "__main__":
    unittest.main()
