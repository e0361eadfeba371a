"""Runs the WebAssembly module of the library in wasmtime, as a host would, and holds it against the native library.

    wasm_host.py MODULE MODELS
    wasm_host.py --program MODULE FOLDER ARGUMENTS...    a program of WASI, which sees FOLDER as /models

MODULE is the library as a module with WASI (wasm32-wasip1), MODELS the folder of the golden models. LAYERLINE_LIBRARY names
the native library. The module has no files of models: this program reads them for it, by a function that it puts into the
module's table, where `layerline_read_callback` finds it. What must hold:

- the logits of every golden model with an output head are those of the native library, byte for byte;
- text is generated, and is the native library's;
- what is held stays below the budget;
- models beyond 4 GiB are read where they are, and what does not fit into the address space is refused;
- a source that fails ends its pass, and the next one goes well;
- a file of a folder that the module may open gives the same as the source.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

import wasmtime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bindings" / "python"))
import layerline  # noqa: E402

CONTEXT = 64
TOKENS = (1, 17, 30, 42, 7)
MIB = 1 << 20
INT = {"i32": wasmtime.ValType.i32, "i64": wasmtime.ValType.i64}


class Failed(Exception):
    """A call of the module returned a status."""


class Host:
    """The module, instantiated, and C's ways of giving it strings and structs."""

    def __init__(self, path: str, folder: str) -> None:
        self.store = wasmtime.Store()
        wasi = wasmtime.WasiConfig()
        wasi.inherit_stderr()
        wasi.preopen_dir(folder, "/models")
        self.store.set_wasi(wasi)
        linker = wasmtime.Linker(self.store.engine)
        linker.define_wasi()
        module = wasmtime.Module.from_file(self.store.engine, path)
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.memory, self.table = self.exports["memory"], self.exports["__indirect_function_table"]
        if "_initialize" in self.exports:
            self.exports["_initialize"](self.store)
        # What the host's reads do: (offset, length) -> bytes, or a negative number.
        self.reads = {}
        self.read = self.function(self._read, "i64 i32 i32 i32", "i64")

    def call(self, name, *arguments):
        return self.exports[name](self.store, *arguments)

    def function(self, body, parameters, result):
        """A function of the host as C has it: its place in the table."""
        kind = wasmtime.FuncType([INT[p]() for p in parameters.split()], [INT[result]()])
        return self.table.grow(self.store, 1, wasmtime.Func(self.store, kind, body))

    def _read(self, offset, to, length, number):
        data = self.reads[number](offset & (2**64 - 1), length & (2**32 - 1))
        if isinstance(data, int):
            return data
        self.memory.write(self.store, data, to & (2**32 - 1))
        return len(data)

    def bytes_at(self, at, length):
        at &= 2**32 - 1
        return bytes(self.memory.read(self.store, at, at + length))

    def word(self, at):
        return struct.unpack("<I", self.bytes_at(at, 4))[0]

    def put(self, data):
        at = self.call("malloc", max(len(data), 8)) & (2**32 - 1)
        self.memory.write(self.store, data, at)
        return at

    def text(self, at):
        end = at
        while self.bytes_at(end, 1) != b"\0":
            end += 1
        return self.bytes_at(at, end - at).decode()

    def checked(self, name, *arguments):
        """Calls a function with an error last, and raises what it says."""
        err = self.put(bytes(4))
        status = self.call(name, *arguments, err)
        said, message = self.word(err), ""
        if said:
            message = self.text(self.call("layerline_error_message", said) & (2**32 - 1))
            self.call("layerline_error_free", said)
        self.call("free", err)
        if status != 0:
            raise Failed(status, message)

    def made(self, name, *arguments):
        """Calls a function that sets a handle, the last but its error."""
        out = self.put(bytes(4))
        self.checked(name, *arguments, out)
        handle = self.word(out)
        self.call("free", out)
        return handle

    def held(self):
        return self.memory.data_len(self.store)

    def options(self, budget):
        options = self.call("layerline_options_new")
        self.call("layerline_options_set_memory_budget", options, budget)
        self.call("layerline_options_set_context_length", options, CONTEXT)
        return options

    def source(self, name, size, read):
        number = len(self.reads) + 1
        self.reads[number] = read
        source = self.made("layerline_source_new", size, self.read, 0, number)
        self.checked("layerline_source_set_name", source, self.put(name.encode() + b"\0"))
        return source

    def plan(self, source):
        options, out = self.options(1), self.put(struct.pack("<I", 104) + bytes(100))
        self.checked("layerline_options_plan_source", options, source, out)
        self.call("layerline_options_free", options)
        _, _, file, weights, floor, full, kv = struct.unpack("<IIQQQQQ", self.bytes_at(out, 48))
        return {"file": file, "weights": weights, "floor": floor, "full": full, "kv": kv}

    def open(self, source, budget):
        options = self.options(budget)
        try:
            return self.made("layerline_model_open_source", source, options)
        finally:
            self.call("layerline_options_free", options)

    def forward(self, session, tokens):
        array = self.put(struct.pack(f"<{len(tokens)}i", *tokens))
        try:
            self.checked("layerline_session_forward", session, array, len(tokens), 1, 0)
        finally:
            self.call("free", array)

    def logits(self, session, rows):
        """All rows, end to end, as bytes."""
        out, count = self.put(bytes(4)), self.put(bytes(4))
        found = b""
        for row in range(rows):
            self.checked("layerline_session_logits", session, row, out, count)
            found += self.bytes_at(self.word(out), 4 * self.word(count))
        return found


def of_file(path):
    """A read of a file, with as few as 1,000 bytes at a time where it is small."""
    data = Path(path).read_bytes()
    return len(data), lambda offset, length: data[offset : offset + min(length, 1000 + len(data) // 8)]


def native_options(budget=0):
    return layerline.Options(memory_budget=budget, context_length=CONTEXT, threads=1, prefetch=False)


def native_logits(path):
    """Of the tokens, or None where the model has no output head."""
    model = layerline.Model(path, native_options())
    if not model.info().has_head:
        return None
    session = layerline.Session(model, CONTEXT)
    tokens = [token % model.info().vocab_size for token in TOKENS]
    session.forward(tokens, layerline.Logits.ALL)
    return tokens, b"".join(session.logits(row).tobytes() for row in range(len(tokens)))


def golden_models_have_the_same_bits(host, folder):
    compared = 0
    for path in sorted(folder.rglob("*.gguf")):
        if path.stat().st_size > 16 * MIB:
            continue
        try:
            expected = native_logits(path)
        except layerline.Error:
            continue  # parts of a model, layers that predict
        if expected is None:
            continue
        source = host.source(path.name, *of_file(path))
        plan = host.plan(source)
        model = host.open(source, plan["floor"] + plan["kv"])
        session = host.made("layerline_session_new", model, CONTEXT)
        host.forward(session, expected[0])
        assert host.logits(session, len(expected[0])) == expected[1], f"{path}: other bits than the native library's"
        host.call("layerline_session_free", session)
        host.call("layerline_model_free", model)
        host.call("layerline_source_free", source)
        compared += 1
    assert compared > 20, f"only {compared} models"
    print(f"{compared} golden models have the native library's logits")


def text_is_generated(host, path):
    wanted = layerline.Session(layerline.Model(path, native_options()), CONTEXT).generate([1, 40, 50], max_tokens=24)
    source = host.source(path.name, *of_file(path))
    model = host.open(source, 64 * MIB)
    session = host.made("layerline_session_new", model, CONTEXT)
    sampler, pieces = host.call("layerline_sampler_new"), []

    def see(_token, piece, length, _user_data):
        pieces.append(host.bytes_at(piece, length))
        return 1

    callback = host.function(see, "i32 i32 i32 i32", "i32")
    prompt = host.put(struct.pack("<3i", 1, 40, 50))
    host.checked("layerline_session_generate", session, sampler, prompt, 3, 24, callback, 0)
    text = b"".join(pieces).decode()
    assert text == wanted and text, f"{text!r}, natively {wanted!r}"
    for name, handle in (("session", session), ("sampler", sampler), ("model", model), ("source", source)):
        host.call(f"layerline_{name}_free", handle)
    print(f"text: {text!r}")


def what_is_held_stays_below_the_budget(module, path):
    """In an instance of its own, as memory only grows."""
    host = Host(module, str(path.parent))
    source = host.source(path.name, *of_file(path))
    plan = host.plan(source)
    for name in ("floor", "full"):
        before, budget = host.held(), plan[name] + plan["kv"]
        model = host.open(source, budget)
        session = host.made("layerline_session_new", model, CONTEXT)
        for _ in range(3):
            host.forward(session, TOKENS)
            host.checked("layerline_session_truncate", session, 0)
        grown = host.held() - before
        # Beside the budget: the heap's own bytes, and whole pages of 64 KiB.
        assert grown <= budget + budget // 8 + MIB, f"{name}: {grown} bytes more for a budget of {budget}"
        print(f"{name}: {grown} bytes more for a budget of {budget}")
        host.call("layerline_session_free", session)
        host.call("layerline_model_free", model)


def beyond_4_gib(path, gap):
    """The model with a tensor of `gap` bytes that nobody reads before all others: its head, and what follows the gap."""
    data = path.read_bytes()
    at = 24
    (tensors, entries) = struct.unpack_from("<QQ", data, 8)
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def string(at):
        return at + 8 + struct.unpack_from("<Q", data, at)[0]

    def value(at, kind):
        if kind == 8:
            return string(at)
        if kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                at = value(at, inner)
            return at
        return at + sizes[kind]

    for _ in range(entries):
        at = string(at)
        at = value(at + 4, struct.unpack_from("<I", data, at)[0])
    name = b"v.unread.weight"
    head = data[:8] + struct.pack("<QQ", tensors + 1, entries) + data[24:at]
    head += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, gap // 4, 0, 0)
    for _ in range(tensors):
        start, at = at, string(at)
        dimensions = struct.unpack_from("<I", data, at)[0]
        at += 4 + 8 * dimensions + 4
        head += data[start:at] + struct.pack("<Q", struct.unpack_from("<Q", data, at)[0] + gap)
        at += 8
    head += bytes(-len(head) % 32)
    return head, data[at + -at % 32 :]


def models_beyond_4_gib_are_read_where_they_are(host, path):
    gap = 5 << 30
    head, tail = beyond_4_gib(path, gap)
    far = []

    def read(offset, length):
        if offset < len(head):
            return head[offset : offset + length]
        if offset < len(head) + gap:
            return bytes(min(length, len(head) + gap - offset))
        far.append(offset)
        return tail[offset - len(head) - gap :][:length]

    source = host.source("far.gguf", len(head) + gap + len(tail), read)
    assert host.plan(source)["file"] == len(head) + gap + len(tail)
    model = host.open(source, 64 * MIB)
    session = host.made("layerline_session_new", model, CONTEXT)
    tokens, expected = native_logits(path)
    host.forward(session, tokens)
    assert host.logits(session, len(tokens)) == expected and min(far) > 1 << 32
    print(f"a model at {min(far)} bytes has the same logits")
    # More than there are addresses.
    for tokens in (1 << 28, (1 << 32) - 1):
        try:
            host.made("layerline_session_new", model, tokens - (1 << 32) if tokens >= 1 << 31 else tokens)
            raise AssertionError(f"{tokens} tokens of context")
        except Failed as failure:
            assert failure.args[0] in (-1, -5, -6), failure
    options = host.options(-1)  # 2^64 - 1 bytes
    larger = host.made("layerline_model_open_source", source, options)
    try:
        host.made("layerline_session_new", larger, 1 << 26)
        raise AssertionError("a session larger than memory")
    except Failed as failure:
        assert failure.args[0] in (-1, -5, -6), failure
        print(f"refused: {failure.args[1]}")
    host.forward(session, [3])
    for name, handle in (("session", session), ("model", larger), ("model", model), ("source", source)):
        host.call(f"layerline_{name}_free", handle)


def a_source_that_fails_ends_its_pass(host, path):
    size, read = of_file(path)
    failing = [False]
    source = host.source("failing.gguf", size, lambda offset, length: -9 if failing[0] else read(offset, length))
    plan = host.plan(source)
    model = host.open(source, plan["floor"] + plan["kv"])
    session = host.made("layerline_session_new", model, CONTEXT)
    tokens, expected = native_logits(path)
    failing[0] = True
    try:
        host.forward(session, tokens)
        raise AssertionError("the pass did not fail")
    except Failed as failure:
        assert failure.args[0] == -2 and "failing.gguf" in failure.args[1] and "-9" in failure.args[1], failure
    failing[0] = False
    host.forward(session, tokens)
    assert host.logits(session, len(tokens)) == expected
    for name, handle in (("session", session), ("model", model), ("source", source)):
        host.call(f"layerline_{name}_free", handle)
    print("a source that fails ends its pass alone")


def files_of_a_folder_are_read(host, path):
    options = host.options(64 * MIB)
    model = host.made("layerline_model_open", host.put(f"/models/{path.name}".encode() + b"\0"), options)
    session = host.made("layerline_session_new", model, CONTEXT)
    tokens, expected = native_logits(path)
    host.forward(session, tokens)
    assert host.logits(session, len(tokens)) == expected
    for name, handle in (("session", session), ("model", model), ("options", options)):
        host.call(f"layerline_{name}_free", handle)
    print("a file of a folder gives the same")


def program(path, folder, arguments) -> int:
    """Runs a program, and returns what it ends with."""
    store = wasmtime.Store()
    wasi = wasmtime.WasiConfig()
    wasi.argv = [Path(path).name, *arguments]
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    wasi.preopen_dir(folder, "/models")
    store.set_wasi(wasi)
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    module = wasmtime.Module.from_file(store.engine, path)
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)
    except wasmtime.ExitTrap as end:
        return end.code
    return 0


def main() -> None:
    module, folder = sys.argv[1], Path(sys.argv[2])
    tiny = Path(__file__).resolve().parent.parent / "tests" / "data" / "golden" / "arch" / "llama.gguf"
    host = Host(module, str(tiny.parent))
    print(host.text(host.call("layerline_build_info") & (2**32 - 1)))
    text_is_generated(host, tiny)
    files_of_a_folder_are_read(host, tiny)
    a_source_that_fails_ends_its_pass(host, tiny)
    what_is_held_stays_below_the_budget(module, tiny)
    models_beyond_4_gib_are_read_where_they_are(host, tiny)
    golden_models_have_the_same_bits(host, folder)


if __name__ == "__main__":
    if sys.argv[1] == "--program":
        sys.exit(program(sys.argv[2], sys.argv[3], sys.argv[4:]))
    assert ctypes.sizeof(ctypes.c_void_p) == 8 and "LAYERLINE_LIBRARY" in os.environ
    main()
