"""layerline from Python: GGUF language models inside a memory budget, to script measurements and to try things out.

    import layerline

    with layerline.Model("model.gguf", layerline.Options(memory_budget=64 << 20, context_length=512)) as model:
        with layerline.Session(model) as session:
            print(session.generate("The sea is", max_tokens=64))
        print(model.stats().read_bytes)

The module is one file over the C interface, by ctypes; nothing is compiled. It looks for the shared library at the path
given to `load`, else in the environment variable LAYERLINE_LIBRARY, else where the system's loader looks; on Windows
first as layerline.dll beside this file.

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
import itertools
import json
import math
import operator
import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Callable, ClassVar, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union

__all__ = [
    "Adapter", "BatchInput", "Budget", "Checkpoint", "Constraint", "ConstraintKind", "ConstraintState", "Detokenizer", "Embeddings", "Error", "Event", "EventKind", "Generated", "Generation", "GenerationEnd", "GenerationStats", "Info", "Io", "KvType", "LayerState", "Logits",
    "Message", "MessageParser", "MessagePart", "Model", "Options", "PartKind", "Plan", "Progress", "Sampler", "Session", "SessionInfo", "Source", "Stats", "Status", "TokenAttributes", "build_info", "load", "plan", "plan_source", "version",
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
    NOT_FOUND = -12


class Io(enum.IntEnum):
    """How weights are read from storage."""

    AUTO = 0
    DIRECT = 1
    BUFFERED = 2
    MMAP = 3
    SOURCE = 4  # by a Source: what stats say of it; it cannot be set


class KvType(enum.IntEnum):
    """How sessions keep keys and values: F16 as half floats, Q8_0 as signed bytes with a scale for every 32 of them, which
    takes 17/32 of the memory and changes results a little."""

    F16 = 0
    Q8_0 = 1


class Logits(enum.IntEnum):
    """Which tokens of a pass get logits."""

    LAST = 0
    ALL = 1
    NONE = 2


class Embeddings(enum.IntEnum):
    """Which embeddings a pass leaves beside logits: hidden states after the final norm, not normalised."""

    NONE = 0
    ALL = 1
    LAST = 2
    MEAN = 3
    FIRST = 4
    SCORE = 5


class TokenAttributes(enum.IntFlag):
    """What a token is. CONTROL: it steers the model and has no text in an answer. END: it ends a text or a turn. BYTE: it
    stands for one byte. USER_DEFINED: it is recognised in any text. UNKNOWN: it stands for text that the vocabulary does
    not have. UNUSED: the vocabulary marks it so."""

    CONTROL = 1
    END = 2
    BYTE = 4
    USER_DEFINED = 8
    UNKNOWN = 16
    UNUSED = 32


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


class GenerationEnd(enum.IntEnum):
    """Why a generation ended. NONE: it has not, or by an error. TOKEN: by a token that ends the text. LENGTH: the most tokens
    asked for are there. STOP: a stop string came. CALLBACK: `on_token` returned False, or raised. CONSTRAINT: the text is
    complete by its constraint. CONTEXT: the context was full."""

    NONE = 0
    TOKEN = 1
    LENGTH = 2
    STOP = 3
    CALLBACK = 4
    CONSTRAINT = 5
    CONTEXT = 6


class ConstraintKind(enum.IntEnum):
    """How a constraint is written. JSON_SCHEMA: JSON that it describes. GBNF: a grammar of llama.cpp's, from its rule root.
    LARK: a grammar of llguidance's, from its rule start. REGEX: an expression that the whole text matches."""

    JSON_SCHEMA = 0
    GBNF = 1
    LARK = 2
    REGEX = 3


class ConstraintState(enum.IntEnum):
    """How far the text of a constraint is. OPEN: it goes on. MAY_END: it may end here, or go on. COMPLETE: nothing can
    follow."""

    OPEN = 0
    MAY_END = 1
    COMPLETE = 2


class Error(Exception):
    """What the library refused or could not do.

    `status` is a `Status`, or a plain number that a newer library has added; `message` names the file, the tensor, the
    figures concerned. `text` is what `Session.generate` had made before the error.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = _named(Status, status)
        self.message = message
        self.text = ""


@dataclass(frozen=True)
class Options:
    """Settings for opening a model; zeros are the library's defaults.

    memory_budget: bytes for the model and all its sessions; 0: what this process may use.
    context_length: tokens of a new session; 0: 4096 or what the model was trained for, the lesser.
    chunk_length: tokens of a prompt that share one sweep over the weights; 0: 256.
    threads: that compute; 0: the CPUs this process may use.
    share_sweeps: whether passes of several sessions that wait share a sweep over the weights; the results are the same.
    predictor: opens the layer of the file that predicts further tokens in place of the model; it drafts for the model, see
        `Generation`.
    prefetch: whether a loader reads ahead; without it the results are the same.
    prefetch_distance: layers that are read ahead; 0: as far as the budget allows.
    cache_layers: layers held at most; 0: by budget alone.
    io: how weights are read.
    kv_type: how sessions keep keys and values.
    profile: a file of `Model.save_profile`; the likeliest experts are then read before passes use them.
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
    kv_type: KvType = KvType.F16
    profile: Union[str, bytes, "os.PathLike[str]", None] = None
    shared_budget: Optional[Budget] = None
    share_sweeps: bool = True
    predictor: bool = False


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
    memory), scratch_bytes and tables_bytes are parts of both. pinned_bytes of weights stay at these options, and
    streamed_bytes are read in each pass, less where experts come again. unread_tensors of the file, of unread_bytes, are
    never read. expert_working_set_bytes is what the experts of one token take.
    """

    _fields_ = [("struct_size", ctypes.c_uint32), ("layer_count", ctypes.c_uint32)] + [
        (name, ctypes.c_uint64)
        for name in (
            "file_bytes weight_bytes floor_bytes full_bytes kv_bytes scratch_bytes tables_bytes pinned_bytes "
            "streamed_bytes unread_tensors unread_bytes expert_working_set_bytes"
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
        + [
            (name, ctypes.c_bool)
            for name in "has_head causal has_chat_template has_recurrent_memory".split()
        ]
        + [("parameter_count", ctypes.c_uint64)]
    )


class Progress(_Versioned):
    """How far a pass has come: bytes of weights it has gone past, from memory or from storage, of how many; tokens whose
    chunk is done, of how many."""

    _fields_ = [(name, ctypes.c_uint32) for name in "struct_size reserved".split()] + [
        (name, ctypes.c_uint64) for name in "bytes_done bytes tokens_done tokens".split()
    ]


class SessionInfo(_Versioned):
    """Facts of a session: tokens it can hold, tokens it holds, bytes it takes from the model's budget, and those of them
    that keys and values take. kv_type is a KvType; fewest_tokens is how far back `truncate` can go now, beside 0."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("context_length", ctypes.c_uint32),
        ("position", ctypes.c_uint64),
        ("memory_bytes", ctypes.c_uint64),
        ("cache_bytes", ctypes.c_uint64),
        ("kv_type", ctypes.c_int32),
        ("fewest_tokens", ctypes.c_uint32),
    ]


class Stats(_Versioned):
    """Counters since the model was opened; times in nanoseconds.

    layers_resident, layers_prefetched and layers_stalled count accesses of layers: with every page pinned, with streamed pages
    all there in time, and those that had to wait. read_ns is summed over reads that overlap.
    """

    _fields_ = [("struct_size", ctypes.c_uint32), ("io", ctypes.c_int32)] + [
        (name, ctypes.c_uint64)
        for name in (
            "budget_bytes used_bytes peak_bytes pinned_bytes passes tokens layers_resident layers_prefetched "
            "layers_stalled stall_ns compute_ns read_ns read_bytes prefetch_requests prefetch_failures evictions "
            "expert_hits expert_misses expert_missed_bytes expert_evictions expert_working_set_bytes"
        ).split()
    ]


class GenerationStats(_Versioned):
    """What the last generation was. tokens: chosen. passes: after those of the prompt. drafted, accepted: tokens drafted,
    and those of them that the sampler chose. gained_ns: nanoseconds that drafts have saved by estimate, less their cost.
    dropped: tokens of the session that made room.
    `end` is one of `GenerationEnd`."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("end", ctypes.c_int32),
        ("tokens", ctypes.c_uint64),
        ("passes", ctypes.c_uint64),
        ("drafted", ctypes.c_uint64),
        ("accepted", ctypes.c_uint64),
        ("gained_ns", ctypes.c_int64),
        ("dropped", ctypes.c_uint64),
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


class _BatchInput(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("logits", ctypes.c_int32),
        ("embeddings", ctypes.c_int32),
        ("status", ctypes.c_int32),
        ("session", ctypes.c_void_p),
        ("tokens", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("error", ctypes.c_void_p),
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


@dataclass(frozen=True)
class BatchInput:
    """What a session takes in within `Model.forward_batch`: at least one token."""

    session: Session
    tokens: Iterable[int]
    logits: Logits = Logits.LAST
    embeddings: Embeddings = Embeddings.NONE


_STATUS, _HANDLE, _OUT, _TEXT = ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p
_I32, _U32, _U64, _SIZE, _FLOAT = ctypes.c_int32, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_float
class _TokenLogprob(ctypes.Structure):
    _fields_ = [("token", ctypes.c_int32), ("logprob", ctypes.c_float)]


class _Generated(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("token", ctypes.c_int32),
        ("piece", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("logprob", ctypes.c_float),
        ("sampled_logprob", ctypes.c_float),
        ("top", ctypes.POINTER(_TokenLogprob)),
        ("top_count", ctypes.c_size_t),
        ("sampled_top", ctypes.POINTER(_TokenLogprob)),
        ("sampled_top_count", ctypes.c_size_t),
    ]


@dataclass(frozen=True)
class Generated:
    """A token that was generated, and how likely it was, as natural logarithms: logprob by the softmax of the model's
    logits, sampled_logprob by what it was drawn from, where a greedy choice is certain; NaN unless the generation has
    `logprobs`. top and sampled_top are the likeliest tokens of both with theirs, the likeliest first."""

    token: int
    piece: str
    logprob: float = math.nan
    sampled_logprob: float = math.nan
    top: Tuple[Tuple[int, float], ...] = ()
    sampled_top: Tuple[Tuple[int, float], ...] = ()


_DETAILED = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(_Generated), ctypes.c_void_p)
_READ = ctypes.CFUNCTYPE(ctypes.c_int64, _U64, ctypes.c_void_p, _SIZE, ctypes.c_void_p)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
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
    "layerline_options_set_share_sweeps": (_STATUS, [_HANDLE, ctypes.c_bool]),
    "layerline_options_set_predictor": (_STATUS, [_HANDLE, ctypes.c_bool]),
    "layerline_options_set_prefetch": (_STATUS, [_HANDLE, ctypes.c_bool]),
    "layerline_options_set_prefetch_distance": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_cache_layers": (_STATUS, [_HANDLE, _U32]),
    "layerline_options_set_io": (_STATUS, [_HANDLE, _I32]),
    "layerline_options_set_kv_type": (_STATUS, [_HANDLE, _I32]),
    "layerline_options_set_profile": (_STATUS, [_HANDLE, _TEXT]),
    "layerline_options_set_shared_budget": (_STATUS, [_HANDLE, _HANDLE]),
    "layerline_budget_new": (_HANDLE, [_U64]),
    "layerline_budget_free": (None, [_HANDLE]),
    "layerline_budget_set_bytes": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_source_new": (_STATUS, [_U64, _READ, _RELEASE, ctypes.c_void_p, _OUT, _OUT]),
    "layerline_source_free": (None, [_HANDLE]),
    "layerline_source_set_name": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_source_set_concurrent": (_STATUS, [_HANDLE, ctypes.c_bool, _OUT]),
    "layerline_source_add_file": (_STATUS, [_HANDLE, _HANDLE, _OUT]),
    "layerline_options_plan_source": (_STATUS, [_HANDLE, _HANDLE, _OUT, _OUT]),
    "layerline_model_open_source": (_STATUS, [_HANDLE, _HANDLE, _OUT, _OUT]),
    "layerline_adapter_open_source": (_STATUS, [_HANDLE, _HANDLE, _OUT, _OUT]),
    "layerline_options_plan": (_STATUS, [_HANDLE, _TEXT, _OUT, _OUT]),
    "layerline_model_open": (_STATUS, [_TEXT, _HANDLE, _OUT, _OUT]),
    "layerline_model_open_fd": (_STATUS, [ctypes.c_int, _U64, _U64, _HANDLE, _OUT, _OUT]),
    "layerline_model_free": (None, [_HANDLE]),
    "layerline_model_get_info": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_model_get_stats": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_model_metadata": (_STATUS, [_HANDLE, _TEXT, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_metadata_count": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_model_metadata_key_at": (_STATUS, [_HANDLE, _SIZE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_set_memory_budget": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_model_profile_save": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_model_prefetch": (_STATUS, [_HANDLE, _U32, _U32, _OUT, _OUT]),
    "layerline_model_cancel": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_model_ticket_error": (_STATUS, [_HANDLE, _U64, _OUT]),
    "layerline_model_poll": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_wait": (_STATUS, [_HANDLE, _I32, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_event_handle": (ctypes.c_ssize_t, [_HANDLE]),
    "layerline_model_layer_state": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_session_new": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_session_free": (None, [_HANDLE]),
    "layerline_model_forward_batch": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT]),
    "layerline_session_forward": (_STATUS, [_HANDLE, _OUT, _SIZE, _I32, _I32, _OUT]),
    "layerline_session_submit": (_STATUS, [_HANDLE, _OUT, _SIZE, _I32, _I32, _OUT, _OUT]),
    "layerline_session_copy": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_session_save": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_session_load": (_STATUS, [_HANDLE, _TEXT, _OUT]),
    "layerline_session_save_buffer": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_session_load_buffer": (_STATUS, [_HANDLE, _TEXT, _SIZE, _OUT]),
    "layerline_session_checkpoint": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_session_restore": (_STATUS, [_HANDLE, _HANDLE, _OUT]),
    "layerline_checkpoint_free": (None, [_HANDLE]),
    "layerline_checkpoint_position": (_U64, [_HANDLE]),
    "layerline_checkpoint_memory_bytes": (_U64, [_HANDLE]),
    "layerline_session_interrupt": (None, [_HANDLE]),
    "layerline_session_logits": (_STATUS, [_HANDLE, _SIZE, _OUT, _OUT, _OUT]),
    "layerline_session_embeddings": (_STATUS, [_HANDLE, _SIZE, _OUT, _OUT, _OUT]),
    "layerline_session_get_info": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_session_get_progress": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_session_clear_interrupt": (None, [_HANDLE]),
    "layerline_session_truncate": (_STATUS, [_HANDLE, _SIZE, _OUT]),
    "layerline_model_tokenize": (_STATUS, [_HANDLE, _TEXT, _SIZE, _U32, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_detokenize": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_detokenize_with": (_STATUS, [_HANDLE, _OUT, _SIZE, _U32, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_detokenizer_new": (_STATUS, [_HANDLE, _U32, _OUT, _OUT]),
    "layerline_detokenizer_free": (None, [_HANDLE]),
    "layerline_detokenizer_push": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_detokenizer_finish": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_token_text": (_STATUS, [_HANDLE, _I32, _OUT, _SIZE, _OUT, _OUT, _OUT]),
    "layerline_model_token_is_end": (_STATUS, [_HANDLE, _I32, _OUT, _OUT]),
    "layerline_model_format_chat": (_STATUS, [_HANDLE, _OUT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_format_chat_json": (_STATUS, [_HANDLE, _TEXT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_tokenize_chat": (_STATUS, [_HANDLE, _OUT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_model_tokenize_chat_json": (_STATUS, [_HANDLE, _TEXT, _SIZE, ctypes.c_bool, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_adapter_open": (_STATUS, [_HANDLE, _TEXT, _OUT, _OUT]),
    "layerline_adapter_free": (None, [_HANDLE]),
    "layerline_adapter_memory_bytes": (_U64, [_HANDLE]),
    "layerline_session_set_adapters": (_STATUS, [_HANDLE, _OUT, _OUT, _SIZE, _OUT]),
    "layerline_message_parser_new": (_STATUS, [_HANDLE, _TEXT, _TEXT, _SIZE, _OUT, _OUT]),
    "layerline_message_parser_free": (None, [_HANDLE]),
    "layerline_message_parser_format": (_TEXT, [_HANDLE]),
    "layerline_message_parser_begin": (_STATUS, [_HANDLE, _TEXT, _SIZE, _OUT]),
    "layerline_message_parser_feed": (_STATUS, [_HANDLE, _TEXT, _SIZE, _OUT]),
    "layerline_message_parser_finish": (_STATUS, [_HANDLE, _OUT]),
    "layerline_message_parser_next": (ctypes.c_bool, [_HANDLE, _OUT]),
    "layerline_message_parser_message": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_sampler_new": (_HANDLE, []),
    "layerline_sampler_free": (None, [_HANDLE]),
    "layerline_sampler_set_temperature": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_top_k": (_STATUS, [_HANDLE, _U32]),
    "layerline_sampler_set_top_p": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_min_p": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_repeat_penalty": (_STATUS, [_HANDLE, _FLOAT, _U32]),
    "layerline_sampler_set_seed": (_STATUS, [_HANDLE, _U64]),
    "layerline_sampler_set_show_control": (_STATUS, [_HANDLE, ctypes.c_bool]),
    "layerline_sampler_set_typical_p": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_top_n_sigma": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_xtc": (_STATUS, [_HANDLE, _FLOAT, _FLOAT]),
    "layerline_sampler_set_dynamic_temperature": (_STATUS, [_HANDLE, _FLOAT, _FLOAT]),
    "layerline_sampler_set_mirostat": (_STATUS, [_HANDLE, _FLOAT, _FLOAT]),
    "layerline_sampler_set_frequency_penalty": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_presence_penalty": (_STATUS, [_HANDLE, _FLOAT]),
    "layerline_sampler_set_dry": (_STATUS, [_HANDLE, _FLOAT, _FLOAT, _U32, _U32]),
    "layerline_sampler_add_dry_breaker": (_STATUS, [_HANDLE, _HANDLE, _TEXT, _SIZE, _OUT]),
    "layerline_sampler_clear_dry_breakers": (_STATUS, [_HANDLE, _OUT]),
    "layerline_sampler_set_logit_biases": (_STATUS, [_HANDLE, _OUT, _OUT, _SIZE, _OUT]),
    "layerline_sampler_set_steps": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT]),
    "layerline_sampler_copy": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_sampler_reset": (_STATUS, [_HANDLE, _OUT]),
    "layerline_sampler_accept": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT]),
    "layerline_sampler_sample_logits": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_sampler_sample": (_STATUS, [_HANDLE, _HANDLE, _OUT, _OUT]),
    "layerline_constraint_new": (_STATUS, [_HANDLE, _I32, _TEXT, _SIZE, _OUT, _OUT]),
    "layerline_constraint_free": (None, [_HANDLE]),
    "layerline_constraint_copy": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_constraint_mask": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_constraint_accept": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT]),
    "layerline_constraint_forced": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_constraint_get_state": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_generation_set_constraint": (_STATUS, [_HANDLE, _HANDLE, _OUT]),
    "layerline_generation_new": (_HANDLE, []),
    "layerline_generation_free": (None, [_HANDLE]),
    "layerline_generation_set_max_tokens": (_STATUS, [_HANDLE, _SIZE]),
    "layerline_generation_add_stop": (_STATUS, [_HANDLE, _TEXT, _SIZE, _OUT]),
    "layerline_generation_clear_stops": (_STATUS, [_HANDLE, _OUT]),
    "layerline_generation_set_draft_text": (_STATUS, [_HANDLE, _U32]),
    "layerline_generation_set_draft_model": (_STATUS, [_HANDLE, _HANDLE, _U32, _U32, _OUT]),
    "layerline_generation_set_context_policy": (_STATUS, [_HANDLE, _I32, _SIZE]),
    "layerline_session_reuse_prefix": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_session_common_prefix": (_STATUS, [_HANDLE, _OUT, _SIZE, _OUT, _OUT]),
    "layerline_generation_set_logprobs": (_STATUS, [_HANDLE, ctypes.c_bool, _U32]),
    "layerline_session_generate_detailed": (
        _STATUS,
        [_HANDLE, _HANDLE, _HANDLE, _OUT, _SIZE, _DETAILED, ctypes.c_void_p, _OUT],
    ),
    "layerline_generation_get_stats": (_STATUS, [_HANDLE, _OUT, _OUT]),
    "layerline_session_generate_with": (
        _STATUS,
        [_HANDLE, _HANDLE, _HANDLE, _OUT, _SIZE, _CALLBACK, ctypes.c_void_p, _OUT],
    ),
    "layerline_session_generate": (_STATUS, [_HANDLE, _HANDLE, _OUT, _SIZE, _SIZE, _CALLBACK, ctypes.c_void_p, _OUT]),
}
_MAJOR = 0  # of the interface that this file is written for
_TOKENIZE_SPECIAL, _TOKENIZE_BOS, _TOKENIZE_EOS, _TOKENIZE_CONTINUE = 1, 2, 4, 8
_DETOKENIZE_CONTROL, _DETOKENIZE_CONTINUE = 1, 2

_library: Optional[ctypes.CDLL] = None
_library_lock = threading.Lock()


def _found(system: str = sys.platform) -> Optional[str]:
    """The library beside this module on Windows, where programs keep theirs; else where the system's loader looks."""
    if system == "win32":
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layerline.dll")
        if os.path.isfile(beside):
            return beside
    return ctypes.util.find_library("layerline")


def load(path: Union[str, "os.PathLike[str]", None] = None) -> None:
    """Loads the shared library, from `path` or where the module's description says. Once; later calls do nothing.

    Without it the first use does the same. Raises OSError where the library is not found or not the right one.
    """
    global _library
    with _library_lock:
        if _library is not None:
            return
        name = os.fspath(path) if path is not None else os.environ.get("LAYERLINE_LIBRARY")
        name = name or _found()
        if not name:
            raise OSError("layerline is not installed: set LAYERLINE_LIBRARY to its path, or call layerline.load(path)")
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


def _failure(status: int, error: Optional[ctypes.c_void_p]) -> Optional[Error]:
    """As `_check`, with what went wrong as a value."""
    try:
        _check(status, error)
    except Error as failure:
        return failure
    return None


def _call(function: Callable[..., int], *values: Any) -> None:
    """Calls a function that takes an error last."""
    error = ctypes.c_void_p()
    _check(function(*values, ctypes.byref(error)), error)


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


def _text(call: Callable[..., int]) -> bytes:
    """What a function writes into a buffer, of any length. The function takes an error last."""
    room = 256
    needed = ctypes.c_size_t()
    while True:
        buffer, error = ctypes.create_string_buffer(room), ctypes.c_void_p()
        status = call(buffer, room, ctypes.byref(needed), ctypes.byref(error))
        if status != Status.BUFFER_TOO_SMALL:
            _check(status, error)
            return buffer.raw[: needed.value]
        _c().layerline_error_free(error)
        room = needed.value + 1


def _filled(room: int, call: Callable[..., int]) -> List[int]:
    """The tokens that a function writes, `room` of them or more. The function takes an error last."""
    needed = ctypes.c_size_t()
    while True:
        tokens, error = (ctypes.c_int32 * room)(), ctypes.c_void_p()
        status = call(tokens, room, ctypes.byref(needed), ctypes.byref(error))
        if status != Status.BUFFER_TOO_SMALL:
            _check(status, error)
            return tokens[: needed.value]
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
        with self._use() as own:
            _call(_c().layerline_budget_set_bytes, own, _u64(bytes, "bytes"))


class _OptionsHandle(_Handle):
    def __init__(self, options: Options) -> None:
        c = _c()
        self._own(c.layerline_options_new(), c.layerline_options_free)
        own = self._pointer
        for name in ("context_length", "chunk_length", "threads", "prefetch_distance", "cache_layers"):
            _check(getattr(c, "layerline_options_set_" + name)(own, _u32(getattr(options, name), name)))
        _check(c.layerline_options_set_memory_budget(own, _u64(options.memory_budget, "memory_budget")))
        _check(c.layerline_options_set_prefetch(own, bool(options.prefetch)))
        _check(c.layerline_options_set_share_sweeps(own, bool(options.share_sweeps)))
        _check(c.layerline_options_set_predictor(own, bool(options.predictor)))
        _check(c.layerline_options_set_io(own, _i32(options.io, "io")))
        _check(c.layerline_options_set_kv_type(own, _i32(options.kv_type, "kv_type")))
        if options.profile is not None:
            _check(c.layerline_options_set_profile(own, _path(options.profile)))
        if options.shared_budget is not None:
            with options.shared_budget._use() as shared:
                _check(c.layerline_options_set_shared_budget(own, shared))


class _Reader:
    """What a source reads by, kept as long as the library may call it."""

    _all: ClassVar[Dict[int, _Reader]] = {}
    _numbers: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self, read: Callable[[int, int], Any]) -> None:
        self.read, self.number = read, next(_Reader._numbers)
        self.failure: Optional[BaseException] = None
        _Reader._all[self.number] = self

    @staticmethod
    def call(offset: int, buffer: int, length: int, number: int) -> int:
        reader = _Reader._all[number]
        try:
            data = memoryview(reader.read(offset, length)).cast("B")
            if data.nbytes <= length:
                ctypes.memmove(buffer, bytes(data), data.nbytes)
            return data.nbytes
        except BaseException as failure:  # nothing may leave this
            reader.failure = failure
            return -1

    @staticmethod
    def release(number: int) -> None:
        _Reader._all.pop(number, None)


_READ_ANY, _RELEASE_ANY = _READ(_Reader.call), _RELEASE(_Reader.release)


class Source(_Handle):
    """Storage of the program's own that models and adapters are read from in place of a file: an archive, memory, a network.

    `read` is a function of an offset and a length, which returns some bytes from there on, at most so many; or an object with
    `seek` and `read`, as `open(path, "rb")` gives it, which nothing else may use meanwhile. `size` is how many bytes there
    are; of an object it need not be given. A function is called on several threads at once, unless `concurrent` is false.
    Fewer bytes than asked for are read on from there; none are an error. What raises is tried a second time, then it ends its
    pass with an Error of Status.IO, and `failure` has the exception. It must not use the models that it serves.

    Models in several files need a source for each, with the names of the files, in `files` of the first one's source. A
    source may be closed when everything is opened from it.
    """

    def __init__(
        self,
        read: Any,
        size: Optional[int] = None,
        name: str = "the source",
        concurrent: bool = True,
        files: Iterable[Source] = (),
    ) -> None:
        if not callable(read):
            read, concurrent = _InTurn(read), False
        if size is None:
            if not isinstance(read, _InTurn):
                raise ValueError("a function's source needs a size")
            size = read.size()
        encoded = name.encode()
        if b"\0" in encoded:
            raise ValueError("a name holds a NUL")
        self._reader = _Reader(read)
        made = ctypes.c_void_p()
        try:
            number = _u64(size, "size")
            _call(_c().layerline_source_new, number, _READ_ANY, _RELEASE_ANY, self._reader.number, ctypes.byref(made))
        except BaseException:
            _Reader.release(self._reader.number)
            raise
        self._own(made.value, _c().layerline_source_free)
        with self._use() as own:
            _call(_c().layerline_source_set_name, own, encoded)
            _call(_c().layerline_source_set_concurrent, own, concurrent)
            for file in files:
                with file._use() as further:
                    _call(_c().layerline_source_add_file, own, further)

    @property
    def failure(self) -> Optional[BaseException]:
        """The last exception that a read raised."""
        return self._reader.failure


class _InTurn:
    """Reads at an offset of an object that has a position: one read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def size(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def __call__(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)


def plan_source(source: Source, options: Options = Options()) -> Plan:
    """What the model in a source would need at these options, as `plan` says it of a file."""
    filled = Plan()
    with _OptionsHandle(options)._use() as own, source._use() as of:
        _call(_c().layerline_options_plan_source, own, of, ctypes.byref(filled))
    return filled


def plan(path: Union[str, bytes, "os.PathLike[str]"], options: Options = Options()) -> Plan:
    """What the model at `path` would need at these options; reads the file's directory, no weights. Any thread."""
    filled = Plan()
    with _OptionsHandle(options)._use() as own:
        _call(_c().layerline_options_plan, own, _path(path), ctypes.byref(filled))
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

    @classmethod
    def from_source(cls, source: Source, options: Options = Options()) -> Model:
        """Opens a model out of a source. `options.io` must be AUTO or BUFFERED."""
        model = cls.__new__(cls)
        with source._use() as of:
            model._open(lambda own, *out: _c().layerline_model_open_source(of, own, *out), options)
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
            _call(_c().layerline_model_get_info, own, ctypes.byref(filled))
        return filled

    def stats(self) -> Stats:
        """Counters so far, also while passes run."""
        filled = Stats()
        with self._use() as own:
            _call(_c().layerline_model_get_stats, own, ctypes.byref(filled))
        return filled

    def metadata(self, key: str) -> str:
        """A scalar or string of the file's metadata, as text. Raises Error for a key that is not there."""
        name = key.encode()
        if b"\0" in name:
            raise ValueError("a key holds a NUL")
        with self._use() as own:
            text = _text(lambda *out: _c().layerline_model_metadata(own, name, *out))
        return text.decode("utf-8", "replace")

    def metadata_keys(self) -> List[str]:
        """The keys of the file's metadata, but for the vocabulary's arrays."""
        count = ctypes.c_size_t()
        with self._use() as own:
            _call(_c().layerline_model_metadata_count, own, ctypes.byref(count))
            keys = [
                _text(lambda *out, at=at: _c().layerline_model_metadata_key_at(own, at, *out))
                for at in range(count.value)
            ]
        return [key.decode("utf-8", "replace") for key in keys]

    def set_memory_budget(self, bytes: int) -> None:
        """Changes the budget while passes run; 0: what this process may use."""
        with self._use() as own:
            _call(_c().layerline_model_set_memory_budget, own, _u64(bytes, "bytes"))

    def forward_batch(self, inputs: Sequence[BatchInput]) -> List[Optional[Error]]:
        """Runs a pass of several sessions, with the weights read once for all of them. For each input None, or what went
        wrong: its session is then as it was before. Each session has the results that `Session.forward` gives."""
        with ExitStack() as held:
            own = held.enter_context(self._use())
            batch = (_BatchInput * len(inputs))()
            tokens = []
            for to, given in zip(batch, inputs):
                values, count = _tokens(given.tokens)
                tokens.append(values)
                to.struct_size = ctypes.sizeof(_BatchInput)
                to.logits, to.embeddings = _i32(given.logits, "logits"), _i32(given.embeddings, "embeddings")
                to.session = held.enter_context(given.session._use())
                to.tokens, to.count = ctypes.cast(values, ctypes.c_void_p) if count else None, count
            error = ctypes.c_void_p()
            status = _c().layerline_model_forward_batch(own, batch, len(inputs), ctypes.byref(error))
            failed = [_failure(ended.status, ended.error) for ended in batch]
            if any(failed):
                _c().layerline_error_free(error)
            else:
                _check(status, error)
            return failed

    def save_profile(self, path: Union[str, bytes, "os.PathLike[str]"]) -> None:
        """Writes how likely each expert is to be used, by all passes so far, to a file for `Options.profile`, which replaces
        another of that name when it is complete."""
        name = _path(path)
        with self._use() as own:
            _call(_c().layerline_model_profile_save, own, name)

    def prefetch(self, first_layer: int, count: int) -> int:
        """Asks for layers ahead of their use and returns a ticket at once; events tell when they are there."""
        ticket = ctypes.c_uint64()
        layers = (_u32(first_layer, "first_layer"), _u32(count, "count"))
        with self._use() as own:
            _call(_c().layerline_model_prefetch, own, *layers, ctypes.byref(ticket))
        return ticket.value

    def cancel(self, ticket: int) -> None:
        """Ends a prefetch or a submitted pass; one that is finished is not an error."""
        with self._use() as own:
            _call(_c().layerline_model_cancel, own, _u64(ticket, "ticket"))

    def check(self, ticket: int) -> None:
        """Raises the Error of a background request that failed; returns where it has succeeded or is under way."""
        with self._use() as own:
            _call(_c().layerline_model_ticket_error, own, _u64(ticket, "ticket"))

    def poll(self, most: int = 64) -> List[Event]:
        """Takes up to `most` events that wait, oldest first. Each is given out once."""
        return self._events(most, lambda own, *out: _c().layerline_model_poll(own, *out))

    def wait(self, timeout: Optional[float] = None, most: int = 64) -> List[Event]:
        """As `poll`, but waits for the first event, at most `timeout` seconds; None: without a limit."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is {timeout}: it must be 0 or more, or None")
        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            # In turns, so that Python sees Ctrl-C between them.
            turn = math.ceil(1000 * min(0.1, max(0.0, end - time.monotonic())))
            events = self._events(most, lambda own, *out: _c().layerline_model_wait(own, turn, *out))
            if events or time.monotonic() >= end:
                return events

    def _events(self, most: int, call: Callable[..., int]) -> List[Event]:
        # More than a million at once nobody has: a slip must not take all memory.
        room = (_Event * _whole(most, "most", 1 << 20))()
        count = ctypes.c_size_t()
        with self._use() as own:
            _call(call, own, room if most else None, len(room), ctypes.byref(count))
        taken = room[: count.value]
        return [Event(e.ticket, _named(EventKind, e.kind), _named(Status, e.status), e.layer, e.bytes, e.elapsed_ns) for e in taken]

    def event_handle(self) -> int:
        """Readable while events wait, for select and event loops; on Windows the HANDLE of an event that is signalled
        meanwhile; -1 where there is none. Neither read, reset nor close it."""
        with self._use() as own:
            return int(_c().layerline_model_event_handle(own))

    def layer_state(self, layer: int) -> int:
        """Where a layer is: a LayerState."""
        state = ctypes.c_int32()
        with self._use() as own:
            _call(_c().layerline_model_layer_state, own, _u32(layer, "layer"), ctypes.byref(state))
        return _named(LayerState, state.value)

    def tokenize(
        self,
        text: Union[str, bytes],
        *,
        special: bool = False,
        bos: bool = False,
        eos: bool = False,
        continues: bool = False,
    ) -> List[int]:
        """The tokens of a text, or of bytes that need not be UTF-8 where the vocabulary has tokens for them. `special`:
        recognise control tokens, for templates, never for users' text. `bos`, `eos`: begin with the beginning token, end
        with the ending one, where the model wants one. `continues`: it goes on a text, so no space is put before it."""
        data = text.encode() if isinstance(text, str) else text
        flags = special * _TOKENIZE_SPECIAL | bos * _TOKENIZE_BOS | eos * _TOKENIZE_EOS | continues * _TOKENIZE_CONTINUE
        with self._use() as own:
            return _filled(len(data) + 8, lambda *out: _c().layerline_model_tokenize(own, data, len(data), flags, *out))

    def detokenize(self, tokens: Iterable[int], *, control: bool = False, continues: bool = False) -> bytes:
        """The text of a whole sequence, UTF-8 but for a character that its end may cut. `control`: control tokens have the
        text of their names. `continues`: the tokens go on a text, so its first space stays."""
        values, count = _tokens(tokens)
        flags = control * _DETOKENIZE_CONTROL | continues * _DETOKENIZE_CONTINUE
        with self._use() as own:
            return _text(lambda *out: _c().layerline_model_detokenize_with(own, values, count, flags, *out))

    def format_chat(self, messages: Iterable[Message], *, add_assistant: bool = True, **variables: Any) -> str:
        """The text of a conversation by the model's template, to be tokenised with `special`, without `bos`.

        messages: each a tuple of role and content, or a mapping of all it has, such as tool_calls. variables: what else
        the template knows, such as tools. add_assistant: end where the answer begins. For text from outside use
        `tokenize_chat`: here control tokens that a message spells become such.
        """
        said, count, as_json = _conversation(messages, variables)
        with self._use() as own:
            call = _c().layerline_model_format_chat_json if as_json else _c().layerline_model_format_chat
            text = _text(lambda *out: call(own, said, count, add_assistant, *out))
        return text.decode()

    def tokenize_chat(self, messages: Iterable[Message], *, add_assistant: bool = True, **variables: Any) -> List[int]:
        """The tokens of the same, in which control tokens are the template's alone: what messages say stays text."""
        said, count, as_json = _conversation(messages, variables)
        with self._use() as own:
            call = _c().layerline_model_tokenize_chat_json if as_json else _c().layerline_model_tokenize_chat
            return _filled(1024, lambda *out: call(own, said, count, add_assistant, *out))

    def token_text(self, token: int) -> Tuple[bytes, TokenAttributes]:
        """The bytes that a token adds to a text that goes on, which may be part of a character, and what it is. A control
        token has the bytes of its name."""
        number, attributes = _i32(token, "token"), ctypes.c_uint32()
        with self._use() as own:
            function = _c().layerline_model_token_text

            def call(buffer: Any, room: int, needed: Any, error: Any) -> int:
                return int(function(own, number, buffer, room, needed, ctypes.byref(attributes), error))

            text = _text(call)
        return text, TokenAttributes(attributes.value)

    def is_end(self, token: int) -> bool:
        """Whether a token ends a text or a turn."""
        end = ctypes.c_bool()
        with self._use() as own:
            _call(_c().layerline_model_token_is_end, own, _i32(token, "token"), ctypes.byref(end))
        return end.value


class Detokenizer(_Handle):
    """Turns tokens into text as they come, for programs with a loop of their own: what it hands out is whole characters.
    One thread at a time.

    control: control tokens have the text of their names. continues: the tokens go on a text, such as a prompt.
    """

    def __init__(self, model: Model, *, control: bool = False, continues: bool = False) -> None:
        made = ctypes.c_void_p()
        flags = control * _DETOKENIZE_CONTROL | continues * _DETOKENIZE_CONTINUE
        with model._use() as of:
            _call(_c().layerline_detokenizer_new, of, flags, ctypes.byref(made))
        self._own(made.value, _c().layerline_detokenizer_free)

    def push(self, tokens: Iterable[int]) -> str:
        """Takes tokens and returns the text that became whole with them."""
        values, count = _tokens(tokens)
        with self._use() as own:
            return _text(lambda *out: _c().layerline_detokenizer_push(own, values, count, *out)).decode()

    def finish(self) -> str:
        """Ends the text: U+FFFD where it ends inside a character. The next token begins another text."""
        with self._use() as own:
            return _text(lambda *out: _c().layerline_detokenizer_finish(own, *out)).decode()


class PartKind(enum.IntEnum):
    """What a part of a message is: more of the answer, more of what the model thinks before it, the beginning of a tool
    call with its name, more of a call's arguments, and its end."""

    CONTENT = 0
    REASONING = 1
    CALL = 2
    ARGUMENTS = 3
    CALL_END = 4


@dataclass(frozen=True)
class MessagePart:
    """A part of a message. call: which call of the message, from 0; id: what the result of a call names it by."""

    kind: Union[PartKind, int]
    text: str
    call: int = 0
    id: str = ""


class _Part(_Versioned):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("call", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("text", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("id", ctypes.c_void_p),
        ("id_length", ctypes.c_size_t),
    ]


class MessageParser(_Handle):
    """Turns what a model writes into messages: what it says, what it thinks, and the tools it calls. The text may be cut
    anywhere, and nothing of it is refused. One thread at a time.

    of: a model, whose chat template tells the format, or the name of one: "hermes" (also Qwen 2.5 and 3), "qwen3-coder"
    (also Qwen 3.5), "llama3", "mistral", "deepseek", "harmony" (gpt-oss), "glm", "kimi", "minimax", or "plain", which has
    reasoning alone. tools: the tools of the conversation: "qwen3-coder", "glm" and "minimax" write strings without quotes,
    and the schemas say which are some.

    The formats deepseek, harmony, kimi and mistral, and llama3 in part, mark calls by control tokens: the text must have
    them, by `show_control` of the sampler or `control` of the detokenizer.
    """

    def __init__(self, of: Union[Model, str], tools: Optional[Sequence[Mapping[str, Any]]] = None) -> None:
        made = ctypes.c_void_p()
        said = json.dumps(tools).encode() if tools is not None else b""
        new = _c().layerline_message_parser_new
        if isinstance(of, str):
            _call(new, None, of.encode(), said, len(said), ctypes.byref(made))
        else:
            with of._use() as model:
                _call(new, model, None, said, len(said), ctypes.byref(made))
        self._own(made.value, _c().layerline_message_parser_free)

    @property
    def format(self) -> str:
        """The name of the format."""
        with self._use() as own:
            return str(_c().layerline_message_parser_format(own).decode())

    def begin(self, prompt: str = "") -> None:
        """Begins another message, and forgets the last. prompt: the text that it answers, as `format_chat` gives it, or
        its end: some templates end it inside the reasoning."""
        said = prompt.encode()
        with self._use() as own:
            _call(_c().layerline_message_parser_begin, own, said, len(said))

    def feed(self, text: Union[str, bytes]) -> List[MessagePart]:
        """Takes more of the text and returns the parts that it makes. Bytes may end inside a character."""
        said = text.encode() if isinstance(text, str) else text
        with self._use() as own:
            _call(_c().layerline_message_parser_feed, own, said, len(said))
            return self._parts(own)

    def finish(self) -> List[MessagePart]:
        """Ends the message and returns the parts of what was kept back."""
        with self._use() as own:
            _call(_c().layerline_message_parser_finish, own)
            return self._parts(own)

    def message(self) -> Dict[str, Any]:
        """The message so far, to go on the messages of a conversation: role, content, and where there are any
        reasoning_content and tool_calls, whose arguments are a dict, or text where they are not one."""
        with self._use() as own:
            said = _text(lambda *out: _c().layerline_message_parser_message(own, *out))
        return dict(json.loads(said))

    @staticmethod
    def _parts(own: int) -> List[MessagePart]:
        parts, part = [], _Part()
        while _c().layerline_message_parser_next(own, ctypes.byref(part)):
            text, name = (ctypes.string_at(at, length).decode() for at, length in ((part.text, part.length), (part.id, part.id_length)))
            parts.append(MessagePart(_named(PartKind, part.kind), text, part.call, name))
        return parts


class Step(enum.IntEnum):
    """Steps of a sampler's chain, in their default order."""

    PENALTIES = 0
    DRY = 1
    TOP_N_SIGMA = 2
    TOP_K = 3
    TYPICAL_P = 4
    TOP_P = 5
    MIN_P = 6
    XTC = 7
    TEMPERATURE = 8


class Sampler(_Handle):
    """Chooses tokens for one sequence; greedy unless told otherwise. One thread at a time.

    temperature: what logits are divided by; 0: greedy. top_k: only the k likeliest stay; 0: all. top_p: only the likeliest
    that sum to p stay; 1: all. min_p: only those at least p times as probable as the likeliest stay; 0: all.
    repeat_penalty, last_n: makes the last last_n tokens less likely; 1: not. seed: of the random sequence. show_control:
    `Session.generate` gives the text of control tokens, which else have none.

    As in llama.cpp: frequency_penalty, presence_penalty: off the logits of the last last_n tokens, for each time and once.
    typical_p, top_n_sigma, xtc: (probability, threshold), dynamic_temperature: (range, exponent), mirostat: (tau, eta).
    dry: (multiplier, base, allowed length, last n); its breakers come by `add_dry_breaker`. logit_bias: by token; minus
    infinity bans it. steps: which the chain has, and their order; members of `Step`.
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
        show_control: bool = False,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        typical_p: float = 1.0,
        top_n_sigma: float = 0.0,
        xtc: Tuple[float, float] = (0.0, 0.1),
        dynamic_temperature: Tuple[float, float] = (0.0, 1.0),
        mirostat: Tuple[float, float] = (0.0, 0.1),
        dry: Optional[Tuple[float, float, int, int]] = None,
        logit_bias: Optional[Mapping[int, float]] = None,
        steps: Optional[Iterable[Step]] = None,
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
        _check(c.layerline_sampler_set_show_control(own, show_control))
        _check(c.layerline_sampler_set_frequency_penalty(own, frequency_penalty))
        _check(c.layerline_sampler_set_presence_penalty(own, presence_penalty))
        _check(c.layerline_sampler_set_typical_p(own, typical_p))
        _check(c.layerline_sampler_set_top_n_sigma(own, top_n_sigma))
        _check(c.layerline_sampler_set_xtc(own, *xtc))
        _check(c.layerline_sampler_set_dynamic_temperature(own, *dynamic_temperature))
        _check(c.layerline_sampler_set_mirostat(own, *mirostat))
        if dry is not None:
            multiplier, base, allowed, last = dry
            _check(c.layerline_sampler_set_dry(own, multiplier, base, _u32(allowed, "allowed length"), _u32(last, "last n")))
        if logit_bias:
            tokens, count = _tokens(logit_bias.keys())
            biases = (ctypes.c_float * count)(*logit_bias.values())
            _call(c.layerline_sampler_set_logit_biases, own, tokens, biases, count)
        if steps is not None:
            chain, count = _tokens(int(step) for step in steps)
            _call(c.layerline_sampler_set_steps, own, chain, count)

    def add_dry_breaker(self, model: Model, text: str) -> None:
        """Adds a text that no sequence that DRY looks for goes across, in tokens of the model."""
        encoded = text.encode()
        with self._use() as own, model._use() as of:
            _call(_c().layerline_sampler_add_dry_breaker, own, of, encoded, len(encoded))

    def clear_dry_breakers(self) -> None:
        """Removes all of these texts."""
        with self._use() as own:
            _call(_c().layerline_sampler_clear_dry_breakers, own)

    def copy(self) -> Sampler:
        """A second sampler with the settings of this one and all that it has seen."""
        made = ctypes.c_void_p()
        with self._use() as own:
            _call(_c().layerline_sampler_copy, own, ctypes.byref(made))
        sampler = type(self).__new__(type(self))
        sampler._own(made.value, _c().layerline_sampler_free)
        return sampler

    def reset(self) -> None:
        """Forgets the tokens seen and starts the random sequence anew. Settings stay."""
        with self._use() as own:
            _call(_c().layerline_sampler_reset, own)

    def accept(self, tokens: Iterable[int]) -> None:
        """Shows the sampler tokens of its sequence that it did not choose, for penalties."""
        values, count = _tokens(tokens)
        with self._use() as own:
            _call(_c().layerline_sampler_accept, own, values, count)

    def sample_logits(self, logits: Iterable[float]) -> int:
        """A token by given logits, one for each token of the vocabulary."""
        values, token = array.array("f", logits), ctypes.c_int32()
        row = (ctypes.c_float * len(values)).from_buffer(values) if values else None
        with self._use() as own:
            _call(_c().layerline_sampler_sample_logits, own, row, len(values), ctypes.byref(token))
        return token.value

    def sample(self, session: Session) -> int:
        """A token by the logits of the session's last pass. It is not fed to the session: give it to `forward`."""
        token = ctypes.c_int32()
        with self._use() as own, session._use() as of:
            _call(_c().layerline_sampler_sample, own, of, ctypes.byref(token))
        return token.value


class Constraint(_Handle):
    """What a text must be like, and how far it is: for a `Generation`, and for programs that sample themselves. It is about
    the tokens of one model. One thread at a time.

    kind, text: how it is written, and a schema, grammar or expression.
    """

    def __init__(self, model: Model, kind: ConstraintKind, text: str) -> None:
        made, encoded = ctypes.c_void_p(), text.encode()
        with model._use() as of:
            _call(_c().layerline_constraint_new, of, int(kind), encoded, len(encoded), ctypes.byref(made))
        self._own(made.value, _c().layerline_constraint_free)

    def copy(self) -> Constraint:
        """A constraint that is as far as this one, and has nothing in common with it."""
        made = ctypes.c_void_p()
        with self._use() as own:
            _call(_c().layerline_constraint_copy, own, ctypes.byref(made))
        constraint = type(self).__new__(type(self))
        constraint._own(made.value, _c().layerline_constraint_free)
        return constraint

    def mask(self) -> List[bool]:
        """For each token of the vocabulary, rounded up to a multiple of 32, whether it may come next."""
        needed = ctypes.c_size_t()
        with self._use() as own:
            status = _c().layerline_constraint_mask(own, None, 0, ctypes.byref(needed), None)
            if status != Status.BUFFER_TOO_SMALL:
                _check(status)
            words = (ctypes.c_uint32 * needed.value)()
            _call(_c().layerline_constraint_mask, own, words, needed.value, ctypes.byref(needed))
        return [word >> bit & 1 == 1 for word in words for bit in range(32)]

    def accept(self, tokens: Iterable[int]) -> None:
        """How the text goes on. Where one of the tokens may not come there, none is taken."""
        values, count = _tokens(tokens)
        with self._use() as own:
            _call(_c().layerline_constraint_accept, own, values, count)

    def forced(self) -> List[int]:
        """The tokens that the text goes on with in any case. They are not accepted."""
        with self._use() as own:
            return _filled(64, lambda *out: _c().layerline_constraint_forced(own, *out))

    def state(self) -> ConstraintState:
        """How far the text is."""
        state = ctypes.c_int32()
        with self._use() as own:
            _call(_c().layerline_constraint_get_state, own, ctypes.byref(state))
        return ConstraintState(state.value)


class Generation(_Handle):
    """Settings of generations: limits, stop strings, drafts. It can be used for many, one after the other.

    max_tokens: at most so many tokens; None: until the text ends or the session is full. stop: texts that end it where they
    come, and are not given out. Drafts change no token and save readings of the weights where these are streamed:
    draft_text: up to so many tokens for a pass that followed the same tokens before, in prompts and texts; 0: none.
    draft_model: a smaller open model with the same tokens, or one opened with `Options(predictor=True)`, drafts up to
    `max_drafts` tokens for a pass, in a session of its own with room for `draft_context` tokens; 0: what its options say.
    logprobs: `on_generated` of `Session.generate` gets the log-probabilities of each token, and of so many of the likeliest;
    None: it does not. kept_first: where the context is full, tokens after the first so many are dropped, the oldest first,
    and the rest is taken in again; None: it ends with Status.CONTEXT_FULL. constraint: texts
    follow a copy of it.
    """

    def __init__(
        self,
        *,
        max_tokens: Optional[int] = None,
        stop: Iterable[str] = (),
        draft_text: int = 0,
        draft_model: Optional[Model] = None,
        draft_context: int = 0,
        max_drafts: int = 8,
        logprobs: Optional[int] = None,
        kept_first: Optional[int] = None,
        constraint: Optional[Constraint] = None,
    ) -> None:
        c = _c()
        self._own(c.layerline_generation_new(), c.layerline_generation_free)
        if kept_first is not None:
            kept = _size(kept_first, "kept_first")
            _check(c.layerline_generation_set_context_policy(self._pointer, 1, kept))
        if logprobs is not None:
            _check(c.layerline_generation_set_logprobs(self._pointer, True, _u32(logprobs, "logprobs")))
        if max_tokens is not None:
            _check(c.layerline_generation_set_max_tokens(self._pointer, _size(max_tokens, "max_tokens")))
        for text in stop:
            self.add_stop(text)
        if draft_text:
            _check(c.layerline_generation_set_draft_text(self._pointer, _u32(draft_text, "draft_text")))
        if draft_model is not None:
            context, most = _u32(draft_context, "draft_context"), _u32(max_drafts, "max_drafts")
            with draft_model._use() as model:
                _call(c.layerline_generation_set_draft_model, self._pointer, model, context, most)
        if constraint is not None:
            self.set_constraint(constraint)

    def set_constraint(self, constraint: Optional[Constraint]) -> None:
        """Lets texts follow a copy of a constraint, from where it is now. None: they are free."""
        with self._use() as own, ExitStack() as uses:
            what = None if constraint is None else uses.enter_context(constraint._use())
            _call(_c().layerline_generation_set_constraint, own, what)

    def add_stop(self, text: str) -> None:
        """Adds a stop string."""
        encoded = text.encode()
        with self._use() as own:
            _call(_c().layerline_generation_add_stop, own, encoded, len(encoded))

    def clear_stops(self) -> None:
        """Removes all stop strings."""
        with self._use() as own:
            _call(_c().layerline_generation_clear_stops, own)

    def stats(self) -> GenerationStats:
        """What the last generation was."""
        stats = GenerationStats()
        with self._use() as own:
            _call(_c().layerline_generation_get_stats, own, ctypes.byref(stats))
        return stats


class Adapter(_Handle):
    """A low-rank adapter (LoRA) of a model, in memory: a GGUF file, as llama.cpp's convert_lora_to_gguf.py makes it. It keeps
    the model alive, takes its memory from the model's budget, and may be closed before the sessions that have it.

    `path` is a file, or a `Source` of one. Errors name the tensor that is not the model's, or that adapters cannot change
    here, such as experts.
    """

    def __init__(self, model: Model, path: Union[str, bytes, "os.PathLike[str]", Source]) -> None:
        made = ctypes.c_void_p()
        with model._use() as of:
            if isinstance(path, Source):
                with path._use() as source:
                    _call(_c().layerline_adapter_open_source, of, source, ctypes.byref(made))
            else:
                _call(_c().layerline_adapter_open, of, os.fsencode(path), ctypes.byref(made))
        self._own(made.value, _c().layerline_adapter_free)

    def memory_bytes(self) -> int:
        """What it takes from the model's budget."""
        with self._use() as own:
            return int(_c().layerline_adapter_memory_bytes(own))


class Checkpoint(_Handle):
    """A point of a session that it can go back to: `Session.checkpoint` makes one. It keeps the model alive, not the
    session, and gives its memory back to the model's budget when it is closed."""

    def position(self) -> int:
        """How many tokens the session held."""
        with self._use() as own:
            return int(_c().layerline_checkpoint_position(own))

    def memory_bytes(self) -> int:
        """What it takes from the model's budget."""
        with self._use() as own:
            return int(_c().layerline_checkpoint_memory_bytes(own))


class Session(_Handle):
    """One sequence of tokens on a model, with room for `context_length` of them; 0: what the model's options say.

    One thread at a time, but for `interrupt`. `model` is the model it was made on.
    """

    def __init__(self, model: Model, context_length: int = 0) -> None:
        made = ctypes.c_void_p()
        length = _u32(context_length, "context_length")
        with model._use() as on:
            _call(_c().layerline_session_new, on, length, ctypes.byref(made))
        self._own(made.value, _c().layerline_session_free)
        self.model = model

    def copy(self, context_length: int = 0) -> Session:
        """A second session with the tokens of this one and its last logits, so that a prompt is run once and continued
        in many ways; 0: with room for as many as this one."""
        made = ctypes.c_void_p()
        length = _u32(context_length, "context_length")
        with self._use() as own:
            _call(_c().layerline_session_copy, own, length, ctypes.byref(made))
        session = type(self).__new__(type(self))
        session._own(made.value, _c().layerline_session_free)
        session.model = self.model
        return session

    def save(self, path: Union[str, bytes, "os.PathLike[str]"]) -> None:
        """Writes what the session holds to a file, which replaces another of that name when it is complete: what `load`
        needs to go on from here with the same bits, the tokens among it."""
        name = _path(path)
        with self._use() as own:
            _call(_c().layerline_session_save, own, name)

    def load(self, path: Union[str, bytes, "os.PathLike[str]"]) -> None:
        """Takes what `save` wrote on a session of the same model in place of what the session holds. After an error it is
        as it was before. Checkpoints of what it held are lost."""
        name = _path(path)
        with self._use() as own:
            _call(_c().layerline_session_load, own, name)

    def save_state(self) -> bytes:
        """The bytes that `save` would write to a file."""
        needed, room = ctypes.c_size_t(), 0
        with self._use() as own:
            while True:
                state, error = bytearray(room), ctypes.c_void_p()
                place = (ctypes.c_uint8 * room).from_buffer(state) if room else None
                out = (place, room, ctypes.byref(needed), ctypes.byref(error))
                status = _c().layerline_session_save_buffer(own, *out)
                if status != Status.BUFFER_TOO_SMALL:
                    _check(status, error)
                    return bytes(state)
                _c().layerline_error_free(error)
                room = needed.value

    def load_state(self, state: bytes) -> None:
        """Takes what `save_state` gave, or `save` wrote, on a session of the same model in place of what the session holds.
        After an error it is as it was before."""
        with self._use() as own:
            _call(_c().layerline_session_load_buffer, own, state, len(state))

    def checkpoint(self) -> Checkpoint:
        """Keeps the point where the session is, so that `restore` can go back to it where `truncate` cannot."""
        made = ctypes.c_void_p()
        with self._use() as own:
            _call(_c().layerline_session_checkpoint, own, ctypes.byref(made))
        checkpoint = Checkpoint.__new__(Checkpoint)
        checkpoint._own(made.value, _c().layerline_checkpoint_free)
        return checkpoint

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes back to a checkpoint of this session, as often as wanted. Raises Error for one of another session, or where
        the session has gone back to fewer tokens or was loaded since."""
        with self._use() as own, checkpoint._use() as point:
            _call(_c().layerline_session_restore, own, point)

    def forward(
        self, tokens: Iterable[int], logits: Logits = Logits.LAST, embeddings: Embeddings = Embeddings.NONE
    ) -> None:
        """Runs tokens through the model, after those the session holds. After an error it is as it was before."""
        values, count = _tokens(tokens)
        wanted = (_i32(logits, "logits"), _i32(embeddings, "embeddings"))
        with self._use() as own:
            _call(_c().layerline_session_forward, own, values, count, *wanted)

    def submit(
        self, tokens: Iterable[int], logits: Logits = Logits.LAST, embeddings: Embeddings = Embeddings.NONE
    ) -> int:
        """Begins the same in the background and returns its ticket; an EventKind.DONE of the model tells how it ended.
        Until then calls on the session raise Error with Status.BUSY, but for `interrupt` and `close`."""
        values, count = _tokens(tokens)
        ticket = ctypes.c_uint64()
        wanted = (_i32(logits, "logits"), _i32(embeddings, "embeddings"))
        with self._use() as own:
            _call(_c().layerline_session_submit, own, values, count, *wanted, ctypes.byref(ticket))
        return ticket.value

    def interrupt(self) -> None:
        """Ends the running or submitted pass with Status.CANCELLED, or the next one where there is none. Any thread, and
        from `on_token`."""
        with self._use() as own:
            _c().layerline_session_interrupt(own)

    def progress(self) -> Progress:
        """How far the running pass has come, or the last one where none runs. Never waits; any thread."""
        filled = Progress()
        with self._use() as own:
            _call(_c().layerline_session_get_progress, own, ctypes.byref(filled))
        return filled

    def clear_interrupt(self) -> None:
        """Takes back an interrupt that no pass has seen."""
        with self._use() as own:
            _c().layerline_session_clear_interrupt(own)

    def logits(self, row: int = 0) -> "array.array[float]":
        """One row of the last pass, before any softmax: a copy, which numpy.frombuffer takes too."""
        return self._row(_c().layerline_session_logits, row)

    def embeddings(self, row: int = 0) -> "array.array[float]":
        """An embedding that the last pass left, not normalised: a copy, which numpy.frombuffer takes too."""
        return self._row(_c().layerline_session_embeddings, row)

    def _row(self, function: Callable[..., int], row: int) -> "array.array[float]":
        values, count = ctypes.c_void_p(), ctypes.c_size_t()
        copy = array.array("f")
        with self._use() as own:
            _call(function, own, _size(row, "row"), ctypes.byref(values), ctypes.byref(count))
            copy.frombytes(ctypes.string_at(values.value or 0, count.value * copy.itemsize))
        return copy

    def info(self) -> SessionInfo:
        """Facts of the session."""
        filled = SessionInfo()
        with self._use() as own:
            _call(_c().layerline_session_get_info, own, ctypes.byref(filled))
        return filled

    def position(self) -> int:
        """How many tokens the session holds."""
        return int(self.info().position)

    def reuse_prefix(self, tokens: Iterable[int]) -> int:
        """Keeps what the session has in common with the beginning of `tokens`, forgets the rest, and says how many stay: the
        next prompt is what follows them. That is less than all, unless the session holds just these and the logits of the
        last. Where it cannot go back to as many, none stay: with recurrent layers all that it holds stays, or nothing."""
        values, count = _tokens(tokens)
        kept = ctypes.c_size_t()
        with self._use() as own:
            _call(_c().layerline_session_reuse_prefix, own, values, count, ctypes.byref(kept))
        return kept.value

    def common_prefix(self, tokens: Iterable[int]) -> int:
        """How many of the first of `tokens` the session holds, whether or not it could go back to them."""
        values, count = _tokens(tokens)
        common = ctypes.c_size_t()
        with self._use() as own:
            _call(_c().layerline_session_common_prefix, own, values, count, ctypes.byref(common))
        return common.value

    def truncate(self, tokens: int) -> None:
        """Forgets all tokens after the first `tokens`. Raises Error where a layer with a sliding window has dropped what the
        next token would see: `info().fewest_tokens` says how far back it goes."""
        with self._use() as own:
            _call(_c().layerline_session_truncate, own, _size(tokens, "tokens"))

    def set_adapters(self, adapters: Iterable[Tuple[Adapter, float]]) -> None:
        """Sets the adapters with their scales, in place of those that the session has; none: the model alone. A scale of 1
        is what an adapter was trained for. What the session holds stays as it was computed. A copy has the same adapters, a
        state has none."""
        pairs = list(adapters)
        with ExitStack() as uses, self._use() as own:
            pointers = [uses.enter_context(adapter._use()) for adapter, _ in pairs]
            values = (ctypes.c_void_p * len(pairs))(*pointers)
            scales = (ctypes.c_float * len(pairs))(*(scale for _, scale in pairs))
            _call(_c().layerline_session_set_adapters, own, values, scales, len(pairs))

    def generate(
        self,
        prompt: Union[str, Iterable[int]],
        *,
        max_tokens: Optional[int] = None,
        generation: Optional[Generation] = None,
        sampler: Optional[Sampler] = None,
        on_token: Optional[Callable[[int, str], Optional[bool]]] = None,
        on_generated: Optional[Callable[[Generated], Optional[bool]]] = None,
    ) -> str:
        """Runs a prompt, text or tokens, generates up to `max_tokens` or as `generation` says, and returns their text. An empty prompt goes on
        from the last pass. A text begins with the beginning token where the session holds none yet, and else goes on
        what it holds. An Error, such as that of a session that is full, has the text made before it as its `text`.

        `on_token(token, piece)` gets each as it comes, on this thread; it may return False to stop. What it raises,
        KeyboardInterrupt too, ends the generation and comes out of here. Without a sampler the choice is greedy. The last
        token is not fed to the session: to go on later, begin the next prompt with it.

        `on_generated` is the same with a `Generated`, and needs a generation.
        """
        if isinstance(prompt, str):
            held = self.position()
            prompt = self.model.tokenize(prompt, bos=held == 0, continues=held > 0)
        values, count = _tokens(prompt)
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

        def detailed(made: Any, _: Optional[int]) -> bool:
            try:
                g = made.contents
                text = ctypes.string_at(g.piece, g.length).decode() if g.length else ""
                pieces.append(text)
                top = tuple((g.top[i].token, g.top[i].logprob) for i in range(g.top_count))
                sampled = tuple((g.sampled_top[i].token, g.sampled_top[i].logprob) for i in range(g.sampled_top_count))
                generated = Generated(g.token, text, g.logprob, g.sampled_logprob, top, sampled)
                wanted = on_token is None or on_token(g.token, text) is not False
                return (on_generated is None or on_generated(generated) is not False) and wanted
            except BaseException as error:
                raised.append(error)
                return False

        if (max_tokens is None) == (generation is None):
            raise TypeError("generate needs max_tokens or a generation")
        if on_generated is not None and generation is None:
            raise TypeError("on_generated needs a generation")
        error = ctypes.c_void_p()
        out: Tuple[Any, ...] = (_CALLBACK(called), None, ctypes.byref(error))
        with self._use() as own, (sampler or Sampler())._use() as chooser:
            if generation is None:
                most = _size(max_tokens or 0, "max_tokens")
                status = _c().layerline_session_generate(own, chooser, values, count, most, *out)
            else:
                with generation._use() as how:
                    if on_generated is None:
                        status = _c().layerline_session_generate_with(own, how, chooser, values, count, *out)
                    else:
                        out = (_DETAILED(detailed), *out[1:])
                        status = _c().layerline_session_generate_detailed(own, how, chooser, values, count, *out)
        if raised:
            _c().layerline_error_free(error)
            raise raised[0]
        text = "".join(pieces)
        try:
            _check(status, error)
        except Error as told:
            told.text = text
            raise
        return text
