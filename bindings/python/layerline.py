"""layerline from Python: GGUF language models inside a memory budget, to script measurements and to try things out.

    import layerline

    with layerline.Model("model.gguf", layerline.Options(memory_budget=64 << 20, context_length=512)) as model:
        with layerline.Session(model) as session:
            print(session.generate("The sea is", max_tokens=64))
        print(model.stats().read_bytes)

The module is one file over the C interface, by ctypes; nothing is compiled. It looks for the shared library at the path
given to `load`, else in the environment variable LAYERLINE_LIBRARY, else where the system's loader looks.

Conventions. Sizes are in bytes, times in seconds unless the name says otherwise, layers and rows are counted from 0.
What the library refuses raises `Error`, with its status and message; what cannot be given to it at all (a negative size,
a path with a NUL) raises ValueError or TypeError before. Handles free what they hold when they are closed, leave a `with`
block or are collected. Calls let other Python threads run; a `Model` and a `Budget` may be used by any thread at any
time, a `Session` and a `Sampler` by one at a time, but for `Session.interrupt`.
"""

from __future__ import annotations

import array
import ctypes
import ctypes.util
import enum
import json
import math
import operator
import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Type, TypeVar, Union

__all__ = [
    "Budget", "Embeddings", "Error", "Event", "EventKind", "Info", "Io", "LayerState", "Logits", "Message", "Model", "Options",
    "Plan", "Sampler", "Session", "Stats", "Status", "build_info", "load", "plan", "version",
]  # fmt: skip


def _named(names: Type[enum.IntEnum], number: int) -> int:
    """The number by its name, where it has one: a newer library may have more of them."""
    try:
        return names(number)
    except ValueError:
        return number


class Status(enum.IntEnum):
    """How a call ended. The numbers never change; a newer library may add some."""

    OK = 0
    INVALID_ARGUMENT = -1
    IO = -2
    FORMAT = -3
    UNSUPPORTED = -4
    MEMORY_BUDGET = -5
    OUT_OF_MEMORY = -6
    CANCELLED = -7
    CONTEXT_FULL = -8
    BUFFER_TOO_SMALL = -9
    BUSY = -10
    INTERNAL = -11


class Io(enum.IntEnum):
    """How weights are read from storage."""

    AUTO = 0
    DIRECT = 1
    BUFFERED = 2
    MMAP = 3


class Logits(enum.IntEnum):
    """Which tokens of a pass get logits."""

    LAST = 0
    ALL = 1
    NONE = 2


class Embeddings(enum.IntEnum):
    """Which embeddings a pass leaves beside logits: hidden states after the final norm, not normalised."""

    NONE = 0
    ALL = 16
    LAST = 32
    MEAN = 48
    FIRST = 64


class LayerState(enum.IntEnum):
    """Where a layer is; PINNED is ready, and stays."""

    ABSENT = 0
    LOADING = 1
    READY = 2
    PINNED = 3


class EventKind(enum.IntEnum):
    """LAYER: one layer of a prefetch is ready, or failed. DONE: a ticket is finished."""

    LAYER = 1
    DONE = 2


class Error(Exception):
    """What the library refused or could not do.

    `status` is a `Status`, or a plain number that a newer library has added; `message` names the file, the tensor, the
    figures concerned.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = _named(Status, status)
        self.message = message


@dataclass(frozen=True)
class Options:
    """Settings for opening a model; zeros are the library's defaults.

    memory_budget: bytes for the model and all its sessions; 0: what this process may use.
    context_length: tokens of a new session; 0: 4096 or what the model was trained for, the lesser.
    chunk_length: tokens of a prompt that share one sweep over the weights; 0: 256.
    threads: that compute; 0: the CPUs this process may use.
    prefetch: whether a loader reads ahead; without it the results are the same.
    prefetch_distance: layers that are read ahead; 0: as far as the budget allows.
    cache_layers: layers held at most; 0: by budget alone.
    io: how weights are read.
    shared_budget: a budget that several models live on, in place of memory_budget.
    """

    memory_budget: int = 0
    context_length: int = 0
    chunk_length: int = 0
    threads: int = 0
    prefetch: bool = True
    prefetch_distance: int = 0
    cache_layers: int = 0
    io: Io = Io.AUTO
    shared_budget: Optional[Budget] = None


# -- the C interface ------------------------------------------------------------------------------------------------


class _Versioned(ctypes.Structure):
    """A struct that begins with its own size, so that the library knows how much of it there is."""

    def __init__(self) -> None:
        super().__init__(struct_size=ctypes.sizeof(self))

    def __repr__(self) -> str:
        fields = (name for name, *_ in self._fields_ if name != "struct_size")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"


class Plan(_Versioned):
    """What a model needs at given options, in bytes but for layer_count.

    floor_bytes is the least budget that works, full_bytes the one at which nothing is streamed; kv_bytes (one session's
    cache), scratch_bytes and tables_bytes are parts of both. pinned_bytes of weights stay at these options, and
    streamed_bytes are read in each pass.
    """

    _fields_ = [("struct_size", ctypes.c_uint32), ("layer_count", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64)
        for name in (
            "file_bytes weight_bytes floor_bytes full_bytes kv_bytes scratch_bytes tables_bytes pinned_bytes streamed_bytes"
        ).split()
    ]


class Info(_Versioned):
    """Facts of a model. bos_token and eos_token are -1 where there is none; context_length is what it was trained for."""

    _fields_ = (
        [
            (name, ctypes.c_uint32)
            for name in (
                "struct_size layer_count embedding_length head_count head_count_kv vocab_size context_length "
                "expert_count expert_used_count"
            ).split()
        ]
        + [("bos_token", ctypes.c_int32), ("eos_token", ctypes.c_int32)]
        + [("parameter_count", ctypes.c_uint64)]
    )


class Stats(_Versioned):
    """Counters since the model was opened; times in nanoseconds.

    layers_resident, layers_prefetched and layers_stalled count layer visits: with every page pinned, with streamed pages
    all there in time, and those that had to wait. read_ns is summed over reads that overlap.
    """

    _fields_ = [("struct_size", ctypes.c_uint32), ("io", ctypes.c_int32)] + [
        (name, ctypes.c_uint64)
        for name in (
            "budget_bytes used_bytes peak_bytes pinned_bytes passes tokens layers_resident layers_prefetched "
            "layers_stalled stall_ns compute_ns read_ns read_bytes prefetch_requests prefetch_failures evictions"
        ).split()
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("ticket", ctypes.c_uint64),
        ("kind", ctypes.c_uint32),
        ("status", ctypes.c_int32),
        ("layer", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("bytes", ctypes.c_uint64),
        ("elapsed_ns", ctypes.c_uint64),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


@dataclass(frozen=True)
class Event:
    """A completion. kind is an EventKind; status is a Status, layer is for EventKind.LAYER, read_bytes what storage gave for it."""

    ticket: int
    kind: int
    status: int
    layer: int
    read_bytes: int
    elapsed_ns: int


_STATUS, _HANDLE, _OUT, _TEXT = ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
_I32, _U32, _U64, _SIZE, _FLOAT = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_float
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_bool, _I32, ctypes.c_void_p, _SIZE, ctypes.c_void_p)

# Result and parameters of every function, as layerline.h declares them.
_FUNCTIONS: Dict[str, Tuple[Any, List[Any]]] = {
    "layerline_version_number": (_U32, []),
    "layerline_version": (_TEXT, []),
    "layerline_build_info": (_TEXT, []),
    "layerline_status_string": (_TEXT, [_STATUS]),
    "layerline_error_status": (_STATUS, [_HANDLE]),
    "layerline_error_message": (_TEXT, [_HANDLE]),
    "layerline_error_free": (None, [_HANDLE]),
    "layerline_options_new": (_HANDLE, []),
    "layerline_options_free": (None, [_HANDLE]),
    "layerline_options_set_memory_budget": (_STATUS, [_HANDLE, _U64]),
    "layerline_options_set_context_length": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_chunk_length": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_threads": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_prefetch": (_STATUS, [_HANDLE, ctypes.c_bool]),
    "layerline_options_set_prefetch_distance": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_cache_layers": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_io": (_STATUS, [_HANDLE, _I32]),
    "layerline_options_set_shared_budget": (_STATUS, [_HANDLE, _HANDLE]),
    "layerline_budget_new": (_HANDLE, [_U64]),
    "layerline_budget_free": (None, [_HANDLE]),
    "layerline_budget_set_bytes": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_plan_memory": (_STATUS, [_TEXT, _HANDLE, _OUT, _OUT]),
    "layerline_model_open": (_STATUS, [_TEXT, _HANDLE, _OUT, _OUT]),
    "layerline_model_open_fd": (_STATUS, [ctypes.c_int, _U64, _U64, _HANDLE, _OUT, _OUT]),
    "layerline_model_free": (None, [_HANDLE]),
    "layerline_model_get_info": (_STATUS, [_HANDLE, _OUT]),
    "layerline_model_get_stats": (_STATUS, [_HANDLE, _OUT]),
    "layerline_model_metadata": (_STATUS, [_HANDLE, _TEXT, _OUT, _SIZE, _OUT]),
    "layerline_model_set_memory_budget": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_prefetch": (_STATUS, [_HANDLE, _U32, _U32, _OUT, _OUT]),
    "layerline_cancel": (_STATUS, [_HANDLE, _U64]),
    "layerline_poll": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT]),
    "layerline_wait": (_STATUS, [_HANDLE, _I32, _OUT, _SIZE, _OUT]),
    "layerline_event_fd": (ctypes.c_int, [_HANDLE]),
    "layerline_layer_state": (_STATUS, [_HANDLE, _U32, _OUT]),
    "layerline_session_new": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_session_free": (None, [_HANDLE]),
    "layerline_forward": (_STATUS, [_HANDLE, _OUT, _SIZE, _I32, _OUT]),
    "layerline_forward_submit": (_STATUS, [_HANDLE, _OUT, _SIZE, _I32, _OUT, _OUT]),
    "layerline_session_copy": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_session_save": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_session_load": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_session_interrupt": (None, [_HANDLE]),
    "layerline_logits": (_STATUS, [_HANDLE, _SIZE, _OUT, _OUT]),
    "layerline_embeddings": (_STATUS, [_HANDLE, _SIZE, _OUT, _OUT]),
    "layerline_session_position": (_STATUS, [_HANDLE, _OUT]),
    "layerline_session_truncate": (_STATUS, [_HANDLE, _SIZE]),
    "layerline_tokenize": (_STATUS, [_HANDLE, _TEXT, _SIZE, _U32, _OUT, _SIZE, _OUT]),
    "layerline_detokenize": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _SIZE, _OUT]),
    "layerline_token_is_end": (_STATUS, [_HANDLE, _I32, _OUT]),
    "layerline_chat_format": (_STATUS, [_HANDLE, _OUT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_chat_format_json": (_STATUS, [_HANDLE, _TEXT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_chat_tokenize": (_STATUS, [_HANDLE, _OUT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_chat_tokenize_json": (_STATUS, [_HANDLE, _TEXT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_sampler_new": (_HANDLE, []),
    "layerline_sampler_free": (None, [_HANDLE]),
    "layerline_sampler_set_temperature": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_top_k": (_STATUS, [_HANDLE, _U32]),
    "layerline_sampler_set_top_p": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_min_p": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_repeat_penalty": (_STATUS, [_HANDLE, _FLOAT, _U32]),
    "layerline_sampler_set_seed": (_STATUS, [_HANDLE, _U64]),
    "layerline_sampler_sample": (_STATUS, [_HANDLE, _HANDLE, _OUT]),
    "layerline_generate": (_STATUS, [_HANDLE, _HANDLE, _OUT, _SIZE, _SIZE, _CALLBACK, ctypes.c_void_p, _OUT]),
}
_MAJOR = 0  # of the interface that this file is written for
_TOKENIZE_SPECIAL, _TOKENIZE_BOS, _TOKENIZE_EOS = 1, 2, 4

_library: Optional[ctypes.CDLL] = None
_library_lock = threading.Lock()


def load(path: Union[str, "os.PathLike[str]", None] = None) -> None:
    """Loads the shared library, from `path` or where the module's description says. Once; later calls do nothing.

    Without it the first use does the same. Raises OSError where the library is not found or not the right one.
    """
    global _library
    with _library_lock:
        if _library is not None:
            return
        name = os.fspath(path) if path is not None else os.environ.get("LAYERLINE_LIBRARY")
        name = name or ctypes.util.find_library("layerline")
        if not name:
            raise OSError("liblayerline is not installed: set LAYERLINE_LIBRARY to its path, or call layerline.load(path)")
        library = ctypes.CDLL(name)
        for function, (result, parameters) in _FUNCTIONS.items():
            try:
                entry = getattr(library, function)
            except AttributeError:
                raise OSError(f"{name} has no {function}: it is no layerline, or older than this module") from None
            entry.restype, entry.argtypes = result, parameters
        number = library.layerline_version_number()
        if number // 1_000_000 != _MAJOR:
            raise OSError(f"{name} is layerline {library.layerline_version().decode()}: this module is for {_MAJOR}.x")
        _library = library


def _c() -> ctypes.CDLL:
    if _library is None:
        load()
    assert _library is not None
    return _library


def version() -> str:
    """The version of the library, "MAJOR.MINOR.PATCH"."""
    text: bytes = _c().layerline_version()
    return text.decode()


def build_info() -> str:
    """Target, instruction set and features of the library; for logs."""
    text: bytes = _c().layerline_build_info()
    return text.decode()


def _check(status: int, error: Optional[ctypes.c_void_p] = None) -> None:
    """Raises what went wrong, if anything did, and frees the error."""
    if status == Status.OK:
        return
    text: bytes = _c().layerline_error_message(error) if error else _c().layerline_status_string(status)
    _c().layerline_error_free(error)
    raise Error(status, text.decode("utf-8", "replace"))


def _whole(value: int, name: str, most: int) -> int:
    """ctypes would cut a number to size without a word."""
    number = operator.index(value)
    if not 0 <= number <= most:
        raise ValueError(f"{name} is {number}: it must be from 0 to {most}")
    return number


def _u32(value: int, name: str) -> int:
    return _whole(value, name, 2**32 - 1)


def _u64(value: int, name: str) -> int:
    return _whole(value, name, 2**64 - 1)


def _size(value: int, name: str) -> int:
    return _whole(value, name, 2 ** (8 * ctypes.sizeof(ctypes.c_size_t)) - 1)


def _i32(value: int, name: str) -> int:
    number = operator.index(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"{name} is {number}: it must fit into 32 bits")
    return number


def _path(path: Union[str, bytes, "os.PathLike[str]"]) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("a path holds a NUL")
    return encoded


def _tokens(tokens: Iterable[int]) -> Tuple[Any, int]:
    try:
        values = array.array("i", tokens)
    except OverflowError:
        raise ValueError("a token must fit into 32 bits") from None
    count = len(values)
    return ((ctypes.c_int32 * count).from_buffer(values) if count else None), count


def _text(call: Callable[[Any, int, Any], int], error: Optional[ctypes.c_void_p] = None) -> bytes:
    """What a function writes into a buffer, of any length."""
    room = 256
    needed = ctypes.c_size_t()
    while True:
        buffer = ctypes.create_string_buffer(room)
        status = call(buffer, room, ctypes.byref(needed))
        if status != Status.BUFFER_TOO_SMALL:
            _check(status, error)
            return buffer.raw[: needed.value]
        if error:
            _c().layerline_error_free(error)
        room = needed.value + 1


def _filled(room: int, call: Callable[[Any, int, Any], int], error: Optional[ctypes.c_void_p] = None) -> List[int]:
    """The tokens that a function writes, `room` of them or more."""
    needed = ctypes.c_size_t()
    while True:
        tokens = (ctypes.c_int32 * room)()
        status = call(tokens, room, ctypes.byref(needed))
        if status != Status.BUFFER_TOO_SMALL:
            _check(status, error)
            return tokens[: needed.value]
        if error:
            _c().layerline_error_free(error)
        room = needed.value


# A message: role and content, or a mapping of all it has.
Message = Union[Tuple[str, str], Mapping[str, Any]]


def _conversation(messages: Iterable[Message], variables: Mapping[str, Any]) -> Tuple[Any, int, bool]:
    """Arguments for a function that takes messages, or for the one that takes JSON: then the last is true."""
    said = list(messages)
    if not variables and all(isinstance(one, tuple) for one in said):
        pairs = [(role.encode(), content.encode()) for role, content in said]
        if any(b"\0" in text for pair in pairs for text in pair):
            raise ValueError("a message holds a NUL")
        return (_Message * len(pairs))(*[_Message(*pair) for pair in pairs]), len(pairs), False
    whole = [{"role": one[0], "content": one[1]} if isinstance(one, tuple) else dict(one) for one in said]
    text = json.dumps({**variables, "messages": whole}).encode()
    return text, len(text), True


_Self = TypeVar("_Self", bound="_Handle")


class _Handle:
    """Owns what the library gave, and frees it while no call uses it."""

    _pointer: Optional[int] = None

    def _own(self, pointer: Optional[int], free: Callable[[int], None]) -> None:
        if not pointer:
            raise Error(Status.OUT_OF_MEMORY, "the system gave no memory")
        self._pointer, self._free = pointer, free
        self._lock, self._calls = threading.Lock(), 0

    def _use(self) -> "_Use":
        return _Use(self)

    def close(self) -> None:
        """Frees it; a second time does nothing. Raises Error with Status.BUSY while another thread's call uses it."""
        if self._pointer is None:
            return
        with self._lock:
            if self._calls:
                raise Error(Status.BUSY, f"a call on this {type(self).__name__} is running: it cannot be closed")
            pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._free(pointer)

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class _Use:
    """The time of one call: what it uses is not freed meanwhile."""

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle

    def __enter__(self) -> int:
        handle = self._handle
        if handle._pointer is not None:
            with handle._lock:
                if handle._pointer is not None:
                    handle._calls += 1
                    return handle._pointer
        raise ValueError(f"this {type(handle).__name__} is closed")

    def __exit__(self, *_: object) -> None:
        with self._handle._lock:
            self._handle._calls -= 1


class Budget(_Handle):
    """A memory budget of `bytes` that several models share: give it to their `Options`. They keep it alive."""

    def __init__(self, bytes: int) -> None:
        self._own(_c().layerline_budget_new(_u64(bytes, "bytes")), _c().layerline_budget_free)

    def set_bytes(self, bytes: int) -> None:
        """Changes the total, while passes run. Raises Error with Status.MEMORY_BUDGET when the models need more."""
        error = ctypes.c_void_p()
        with self._use() as own:
            _check(_c().layerline_budget_set_bytes(own, _u64(bytes, "bytes"), ctypes.byref(error)), error)


class _OptionsHandle(_Handle):
    def __init__(self, options: Options) -> None:
        c = _c()
        self._own(c.layerline_options_new(), c.layerline_options_free)
        own = self._pointer
        for name in ("context_length", "chunk_length", "threads", "prefetch_distance", "cache_layers"):
            _check(getattr(c, "layerline_options_set_" + name)(own, _u32(getattr(options, name), name)))
        _check(c.layerline_options_set_memory_budget(own, _u64(options.memory_budget, "memory_budget")))
        _check(c.layerline_options_set_prefetch(own, bool(options.prefetch)))
        _check(c.layerline_options_set_io(own, _i32(options.io, "io")))
        if options.shared_budget is not None:
            with options.shared_budget._use() as shared:
                _check(c.layerline_options_set_shared_budget(own, shared))


def plan(path: Union[str, bytes, "os.PathLike[str]"], options: Options = Options()) -> Plan:
    """What the model at `path` would need at these options; reads the file's directory, no weights. Any thread."""
    filled, error = Plan(), ctypes.c_void_p()
    with _OptionsHandle(options)._use() as own:
        status = _c().layerline_plan_memory(_path(path), own, ctypes.byref(filled), ctypes.byref(error))
    _check(status, error)
    return filled


class Model(_Handle):
    """An open model: weights arrive in the background. Any thread may use it at any time.

    `path` is a file, the first one of a model in several. Sessions go on when it is closed.
    """

    def __init__(self, path: Union[str, bytes, "os.PathLike[str]"], options: Options = Options()) -> None:
        name = _path(path)
        self._open(lambda own, *out: _c().layerline_model_open(name, own, *out), options)

    @classmethod
    def from_fd(cls, fd: int, offset: int = 0, length: int = 0, options: Options = Options()) -> Model:
        """Opens `length` bytes from `offset` of an open file; 0: to its end. The descriptor stays the caller's."""
        model, number = cls.__new__(cls), _i32(fd, "fd")
        place = (_u64(offset, "offset"), _u64(length, "length"))
        model._open(lambda own, *out: _c().layerline_model_open_fd(number, *place, own, *out), options)
        return model

    def _open(self, call: Callable[..., int], options: Options) -> None:
        opened, error = ctypes.c_void_p(), ctypes.c_void_p()
        with _OptionsHandle(options)._use() as own:
            status = call(own, ctypes.byref(opened), ctypes.byref(error))
        _check(status, error)
        self._own(opened.value, _c().layerline_model_free)

    def info(self) -> Info:
        """Facts of the model."""
        filled = Info()
        with self._use() as own:
            _check(_c().layerline_model_get_info(own, ctypes.byref(filled)))
        return filled

    def stats(self) -> Stats:
        """Counters so far, also while passes run."""
        filled = Stats()
        with self._use() as own:
            _check(_c().layerline_model_get_stats(own, ctypes.byref(filled)))
        return filled

    def metadata(self, key: str) -> str:
        """A scalar or string of the file's metadata, as text. Raises Error for a key that is not there."""
        name = key.encode()
        if b"\0" in name:
            raise ValueError("a key holds a NUL")
        with self._use() as own:
            text = _text(lambda *out: _c().layerline_model_metadata(own, name, *out))
        return text.decode("utf-8", "replace")

    def set_memory_budget(self, bytes: int) -> None:
        """Changes the budget while passes run; 0: what this process may use."""
        error = ctypes.c_void_p()
        with self._use() as own:
            _check(_c().layerline_model_set_memory_budget(own, _u64(bytes, "bytes"), ctypes.byref(error)), error)

    def prefetch(self, first_layer: int, count: int) -> int:
        """Asks for layers ahead of their use and returns a ticket at once; events tell when they are there."""
        ticket, error = ctypes.c_uint64(), ctypes.c_void_p()
        layers = (_u32(first_layer, "first_layer"), _u32(count, "count"))
        with self._use() as own:
            _check(_c().layerline_prefetch(own, *layers, ctypes.byref(ticket), ctypes.byref(error)), error)
        return ticket.value

    def cancel(self, ticket: int) -> None:
        """Gives up a prefetch or a submitted pass; one that is finished is no error."""
        with self._use() as own:
            _check(_c().layerline_cancel(own, _u64(ticket, "ticket")))

    def poll(self, most: int = 64) -> List[Event]:
        """Takes up to `most` events that wait, oldest first. Each is given out once."""
        return self._events(most, lambda own, *out: _c().layerline_poll(own, *out))

    def wait(self, timeout: Optional[float] = None, most: int = 64) -> List[Event]:
        """As `poll`, but waits for the first event, at most `timeout` seconds; None: without a limit."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout}: it must be 0 or more, or None")
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            # In turns, so that Python sees Ctrl-C between them.
            turn = math.ceil(1000 * min(0.1, max(0.0, end - time.monotonic())))
            events = self._events(most, lambda own, *out: _c().layerline_wait(own, turn, *out))
            if events or time.monotonic() >= end:
                return events

    def _events(self, most: int, call: Callable[..., int]) -> List[Event]:
        # More than a million at once nobody has: a slip must not take all memory.
        room = (_Event * _whole(most, "most", 1 << 20))()
        count = ctypes.c_size_t()
        with self._use() as own:
            _check(call(own, room if most else None, len(room), ctypes.byref(count)))
        taken = room[: count.value]
        return [Event(e.ticket, _named(EventKind, e.kind), _named(Status, e.status), e.layer, e.bytes, e.elapsed_ns) for e in taken]

    def event_fd(self) -> int:
        """Readable while events wait, for select and event loops; -1 where there is none. Neither read nor close it."""
        with self._use() as own:
            return int(_c().layerline_event_fd(own))

    def layer_state(self, layer: int) -> int:
        """Where a layer is: a LayerState."""
        state = ctypes.c_int32()
        with self._use() as own:
            _check(_c().layerline_layer_state(own, _u32(layer, "layer"), ctypes.byref(state)))
        return _named(LayerState, state.value)

    def tokenize(self, text: str, *, special: bool = False, bos: bool = False, eos: bool = False) -> List[int]:
        """The tokens of a text. `special`: recognise control tokens, for templates, never for users' text. `bos`, `eos`:
        begin with the beginning token, end with the ending one, where the model wants one."""
        data = text.encode()
        flags = special * _TOKENIZE_SPECIAL | bos * _TOKENIZE_BOS | eos * _TOKENIZE_EOS
        with self._use() as own:
            return _filled(len(data) + 8, lambda *out: _c().layerline_tokenize(own, data, len(data), flags, *out))

    def detokenize(self, tokens: Iterable[int]) -> bytes:
        """The text of a whole sequence, UTF-8 but for a character that its end may cut."""
        values, count = _tokens(tokens)
        with self._use() as own:
            return _text(lambda *out: _c().layerline_detokenize(own, values, count, *out))

    def chat_format(self, messages: Iterable[Message], *, add_assistant: bool = True, **variables: Any) -> str:
        """The text of a conversation by the model's template, to be tokenised with `special`, without `bos`.

        messages: each a tuple of role and content, or a mapping of all it has, such as tool_calls. variables: what else
        the template knows, such as tools. add_assistant: end where the answer begins. For text from outside use
        `chat_tokenize`: here control tokens that a message spells become such.
        """
        said, count, as_json = _conversation(messages, variables)
        error = ctypes.c_void_p()
        with self._use() as own:
            call = _c().layerline_chat_format_json if as_json else _c().layerline_chat_format
            text = _text(lambda *out: call(own, said, count, add_assistant, *out, ctypes.byref(error)), error)
        return text.decode()

    def chat_tokenize(self, messages: Iterable[Message], *, add_assistant: bool = True, **variables: Any) -> List[int]:
        """The tokens of the same, in which control tokens are the template's alone: what messages say stays text."""
        said, count, as_json = _conversation(messages, variables)
        error = ctypes.c_void_p()
        with self._use() as own:
            call = _c().layerline_chat_tokenize_json if as_json else _c().layerline_chat_tokenize
            return _filled(1024, lambda *out: call(own, said, count, add_assistant, *out, ctypes.byref(error)), error)

    def is_end(self, token: int) -> bool:
        """Whether a token ends a text or a turn."""
        end = ctypes.c_bool()
        with self._use() as own:
            _check(_c().layerline_token_is_end(own, _i32(token, "token"), ctypes.byref(end)))
        return end.value


class Sampler(_Handle):
    """Chooses tokens for one sequence; greedy unless told otherwise. One thread at a time.

    temperature: what logits are divided by; 0: greedy. top_k: only the k likeliest stay; 0: all. top_p: only the likeliest
    that sum to p stay; 1: all. min_p: only those at least p times as probable as the likeliest stay; 0: all.
    repeat_penalty, last_n: makes the last last_n tokens less likely; 1: not. seed: of the random sequence.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        last_n: int = 64,
        seed: int = 0,
    ) -> None:
        c = _c()
        self._own(c.layerline_sampler_new(), c.layerline_sampler_free)
        own = self._pointer
        _check(c.layerline_sampler_set_temperature(own, temperature))
        _check(c.layerline_sampler_set_top_k(own, _u32(top_k, "top_k")))
        _check(c.layerline_sampler_set_top_p(own, top_p))
        _check(c.layerline_sampler_set_min_p(own, min_p))
        _check(c.layerline_sampler_set_repeat_penalty(own, repeat_penalty, _u32(last_n, "last_n")))
        _check(c.layerline_sampler_set_seed(own, _u64(seed, "seed")))

    def sample(self, session: Session) -> int:
        """A token by the logits of the session's last pass. It is not fed to the session: give it to `forward`."""
        token = ctypes.c_int32()
        with self._use() as own, session._use() as of:
            _check(_c().layerline_sampler_sample(own, of, ctypes.byref(token)))
        return token.value


class Session(_Handle):
    """One sequence of tokens on a model, with room for `context_length` of them; 0: what the model's options say.

    One thread at a time, but for `interrupt`. `model` is the model it was made on.
    """

    def __init__(self, model: Model, context_length: int = 0) -> None:
        made, error = ctypes.c_void_p(), ctypes.c_void_p()
        length = _u32(context_length, "context_length")
        with model._use() as on:
            _check(_c().layerline_session_new(on, length, ctypes.byref(made), ctypes.byref(error)), error)
        self._own(made.value, _c().layerline_session_free)
        self.model = model

    def copy(self, context_length: int = 0) -> Session:
        """A second session with the tokens of this one and its last logits, so that a prompt is run once and continued
        in many ways; 0: with room for as many as this one."""
        made, error = ctypes.c_void_p(), ctypes.c_void_p()
        length = _u32(context_length, "context_length")
        with self._use() as own:
            _check(_c().layerline_session_copy(own, length, ctypes.byref(made), ctypes.byref(error)), error)
        session = type(self).__new__(type(self))
        session._own(made.value, _c().layerline_session_free)
        session.model = self.model
        return session

    def save(self, path: Union[str, bytes, "os.PathLike[str]"]) -> None:
        """Writes what the session holds to a file, which replaces another of that name when it is complete: what `load`
        needs to go on from here with the same bits. The tokens themselves are not in it."""
        name, error = _path(path), ctypes.c_void_p()
        with self._use() as own:
            _check(_c().layerline_session_save(own, name, ctypes.byref(error)), error)

    def load(self, path: Union[str, bytes, "os.PathLike[str]"]) -> None:
        """Takes what `save` wrote on a session of the same model in place of what the session holds. After an error it is
        as it was before, unless the file was changed meanwhile, which leaves it without tokens."""
        name, error = _path(path), ctypes.c_void_p()
        with self._use() as own:
            _check(_c().layerline_session_load(own, name, ctypes.byref(error)), error)

    def forward(
        self, tokens: Iterable[int], logits: Logits = Logits.LAST, embeddings: Embeddings = Embeddings.NONE
    ) -> None:
        """Runs tokens through the model, after those the session holds. After an error it is as it was before."""
        values, count = _tokens(tokens)
        error, mode = ctypes.c_void_p(), _i32(logits, "logits") | _i32(embeddings, "embeddings")
        with self._use() as own:
            _check(_c().layerline_forward(own, values, count, mode, ctypes.byref(error)), error)

    def forward_submit(
        self, tokens: Iterable[int], logits: Logits = Logits.LAST, embeddings: Embeddings = Embeddings.NONE
    ) -> int:
        """Begins the same in the background and returns its ticket; an EventKind.DONE of the model tells how it ended.
        Until then calls on the session raise Error with Status.BUSY, but for `interrupt` and `close`."""
        values, count = _tokens(tokens)
        ticket, error = ctypes.c_uint64(), ctypes.c_void_p()
        mode = _i32(logits, "logits") | _i32(embeddings, "embeddings")
        with self._use() as own:
            out = (ctypes.byref(ticket), ctypes.byref(error))
            _check(_c().layerline_forward_submit(own, values, count, mode, *out), error)
        return ticket.value

    def interrupt(self) -> None:
        """Ends the running or submitted pass with Status.CANCELLED. Any thread, and from `on_token`."""
        with self._use() as own:
            _c().layerline_session_interrupt(own)

    def logits(self, row: int = 0) -> "array.array[float]":
        """One row of the last pass, before any softmax: a copy, which numpy.frombuffer takes too."""
        return self._row(_c().layerline_logits, row)

    def embeddings(self, row: int = 0) -> "array.array[float]":
        """An embedding that the last pass left, not normalised: a copy, which numpy.frombuffer takes too."""
        return self._row(_c().layerline_embeddings, row)

    def _row(self, function: Callable[..., int], row: int) -> "array.array[float]":
        values, count = ctypes.c_void_p(), ctypes.c_size_t()
        copy = array.array("f")
        with self._use() as own:
            _check(function(own, _size(row, "row"), ctypes.byref(values), ctypes.byref(count)))
            copy.frombytes(ctypes.string_at(values.value or 0, count.value * copy.itemsize))
        return copy

    def position(self) -> int:
        """How many tokens the session holds."""
        tokens = ctypes.c_size_t()
        with self._use() as own:
            _check(_c().layerline_session_position(own, ctypes.byref(tokens)))
        return tokens.value

    def truncate(self, tokens: int) -> None:
        """Forgets all tokens after the first `tokens`."""
        with self._use() as own:
            _check(_c().layerline_session_truncate(own, _size(tokens, "tokens")))

    def generate(
        self,
        prompt: Union[str, Iterable[int]],
        *,
        max_tokens: int,
        sampler: Optional[Sampler] = None,
        on_token: Optional[Callable[[int, str], Optional[bool]]] = None,
    ) -> str:
        """Runs a prompt, text or tokens, generates up to `max_tokens` and returns their text. An empty prompt goes on
        from the last pass.

        `on_token(token, piece)` gets each as it comes, on this thread; it may return False to stop. What it raises,
        KeyboardInterrupt too, ends the generation and comes out of here. Without a sampler the choice is greedy. The last
        token is not fed to the session: to go on later, begin the next prompt with it.
        """
        values, count = _tokens(self.model.tokenize(prompt, bos=True) if isinstance(prompt, str) else prompt)
        pieces: List[str] = []
        raised: List[BaseException] = []

        def called(token: int, piece: Optional[int], length: int, _: Optional[int]) -> bool:
            try:
                text = ctypes.string_at(piece, length).decode() if piece and length else ""
                pieces.append(text)
                return on_token is None or on_token(token, text) is not False
            except BaseException as error:
                raised.append(error)
                return False

        error = ctypes.c_void_p()
        most = _size(max_tokens, "max_tokens")
        with self._use() as own, (sampler or Sampler())._use() as chooser:
            out = (_CALLBACK(called), None, ctypes.byref(error))
            status = _c().layerline_generate(own, chooser, values, count, most, *out)
        if raised:
            _c().layerline_error_free(error)
            raise raised[0]
        _check(status, error)
        return "".join(pieces)
