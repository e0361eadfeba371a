//! The public structs and numbers as callers have compiled them: what is here and in ctests/layout.c must be the same, and
//! may only grow at the end.

// Elsewhere 64-bit numbers may be aligned to 32 bits, and offsets are others.
#![cfg_attr(not(target_pointer_width = "64"), allow(unused_imports, unused_macros))]

use std::mem::offset_of;

use super::batch::*;
use super::chain::*;
use super::chat::*;
use super::constraint::*;
use super::error::*;
use super::generation::*;
use super::message::*;
use super::model::*;
use super::options::*;
use super::plan::*;
use super::prefetch::*;
use super::session::*;
use super::text::*;

macro_rules! layout {
    ($type:ident: $size:literal { $($field:ident: $at:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$type>() == $size, concat!(stringify!($type), " is of another size"));
            $(assert!(offset_of!($type, $field) == $at, concat!(stringify!($type), ".", stringify!($field), " has moved"));)+
            // Every field stands in the list: a pattern without `..` must name them all.
            let _ = |value: $type| {
                let $type { $($field: _),+ } = value;
            };
        };
    };
}

macro_rules! numbers {
    ($($name:ident = $value:literal),+ $(,)?) => {
        const _: () = {
            $(assert!($name as i64 == $value, concat!(stringify!($name), " has another number"));)+
        };
    };
}

#[cfg(target_pointer_width = "64")]
layout!(layerline_plan: 104 {
    struct_size: 0,
    layer_count: 4,
    file_bytes: 8,
    weight_bytes: 16,
    floor_bytes: 24,
    full_bytes: 32,
    kv_bytes: 40,
    scratch_bytes: 48,
    tables_bytes: 56,
    pinned_bytes: 64,
    streamed_bytes: 72,
    unread_tensors: 80,
    unread_bytes: 88,
    expert_working_set_bytes: 96,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_message_part: 48 {
    struct_size: 0,
    kind: 4,
    call: 8,
    reserved: 12,
    text: 16,
    length: 24,
    id: 32,
    id_length: 40,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_generation_stats: 56 {
    struct_size: 0,
    end: 4,
    tokens: 8,
    passes: 16,
    drafted: 24,
    accepted: 32,
    gained_ns: 40,
    dropped: 48,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_token_logprob: 8 {
    token: 0,
    logprob: 4,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_generated: 64 {
    struct_size: 0,
    token: 4,
    piece: 8,
    length: 16,
    logprob: 24,
    sampled_logprob: 28,
    top: 32,
    top_count: 40,
    sampled_top: 48,
    sampled_top_count: 56,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_model_info: 56 {
    struct_size: 0,
    layer_count: 4,
    embedding_length: 8,
    head_count: 12,
    head_count_kv: 16,
    vocab_size: 20,
    context_length: 24,
    expert_count: 28,
    expert_used_count: 32,
    bos_token: 36,
    eos_token: 40,
    has_head: 44,
    causal: 45,
    has_chat_template: 46,
    has_recurrent_memory: 47,
    parameter_count: 48,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_progress: 40 {
    struct_size: 0,
    reserved: 4,
    bytes_done: 8,
    bytes: 16,
    tokens_done: 24,
    tokens: 32,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_session_info: 40 {
    struct_size: 0,
    context_length: 4,
    position: 8,
    memory_bytes: 16,
    cache_bytes: 24,
    kv_type: 32,
    fewest_tokens: 36,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_batch_input: 48 {
    struct_size: 0,
    logits: 4,
    embeddings: 8,
    status: 12,
    session: 16,
    tokens: 24,
    count: 32,
    error: 40,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_event: 40 {
    ticket: 0,
    kind: 8,
    status: 12,
    layer: 16,
    reserved: 20,
    bytes: 24,
    elapsed_ns: 32,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_stats: 176 {
    struct_size: 0,
    io: 4,
    budget_bytes: 8,
    used_bytes: 16,
    peak_bytes: 24,
    pinned_bytes: 32,
    passes: 40,
    tokens: 48,
    layers_resident: 56,
    layers_prefetched: 64,
    layers_stalled: 72,
    stall_ns: 80,
    compute_ns: 88,
    read_ns: 96,
    read_bytes: 104,
    prefetch_requests: 112,
    prefetch_failures: 120,
    evictions: 128,
    expert_hits: 136,
    expert_misses: 144,
    expert_missed_bytes: 152,
    expert_evictions: 160,
    expert_working_set_bytes: 168,
});

#[cfg(target_pointer_width = "64")]
layout!(layerline_message: 16 {
    role: 0,
    content: 8,
});

numbers!(
    LAYERLINE_OK = 0,
    LAYERLINE_ERROR_INVALID_ARGUMENT = -1,
    LAYERLINE_ERROR_IO = -2,
    LAYERLINE_ERROR_FORMAT = -3,
    LAYERLINE_ERROR_UNSUPPORTED = -4,
    LAYERLINE_ERROR_MEMORY_BUDGET = -5,
    LAYERLINE_ERROR_OUT_OF_MEMORY = -6,
    LAYERLINE_ERROR_CANCELLED = -7,
    LAYERLINE_ERROR_CONTEXT_FULL = -8,
    LAYERLINE_ERROR_BUFFER_TOO_SMALL = -9,
    LAYERLINE_ERROR_BUSY = -10,
    LAYERLINE_ERROR_INTERNAL = -11,
    LAYERLINE_ERROR_NOT_FOUND = -12,
    LAYERLINE_IO_AUTO = 0,
    LAYERLINE_IO_DIRECT = 1,
    LAYERLINE_IO_BUFFERED = 2,
    LAYERLINE_IO_MMAP = 3,
    LAYERLINE_IO_SOURCE = 4,
    LAYERLINE_KV_F16 = 0,
    LAYERLINE_KV_Q8_0 = 1,
    LAYERLINE_EVENT_LAYER = 1,
    LAYERLINE_EVENT_DONE = 2,
    LAYERLINE_LAYER_ABSENT = 0,
    LAYERLINE_LAYER_LOADING = 1,
    LAYERLINE_LAYER_READY = 2,
    LAYERLINE_LAYER_PINNED = 3,
    LAYERLINE_LOGITS_LAST = 0,
    LAYERLINE_LOGITS_ALL = 1,
    LAYERLINE_LOGITS_NONE = 2,
    LAYERLINE_EMBEDDINGS_NONE = 0,
    LAYERLINE_EMBEDDINGS_ALL = 1,
    LAYERLINE_EMBEDDINGS_LAST = 2,
    LAYERLINE_EMBEDDINGS_MEAN = 3,
    LAYERLINE_EMBEDDINGS_FIRST = 4,
    LAYERLINE_EMBEDDINGS_SCORE = 5,
    LAYERLINE_STEP_PENALTIES = 0,
    LAYERLINE_STEP_DRY = 1,
    LAYERLINE_STEP_TOP_N_SIGMA = 2,
    LAYERLINE_STEP_TOP_K = 3,
    LAYERLINE_STEP_TYPICAL_P = 4,
    LAYERLINE_STEP_TOP_P = 5,
    LAYERLINE_STEP_MIN_P = 6,
    LAYERLINE_STEP_XTC = 7,
    LAYERLINE_STEP_TEMPERATURE = 8,
    LAYERLINE_TOKENIZE_SPECIAL = 1,
    LAYERLINE_TOKENIZE_BOS = 2,
    LAYERLINE_TOKENIZE_EOS = 4,
    LAYERLINE_TOKENIZE_CONTINUE = 8,
    LAYERLINE_DETOKENIZE_CONTROL = 1,
    LAYERLINE_DETOKENIZE_CONTINUE = 2,
    LAYERLINE_PART_CONTENT = 0,
    LAYERLINE_PART_REASONING = 1,
    LAYERLINE_PART_CALL = 2,
    LAYERLINE_PART_ARGUMENTS = 3,
    LAYERLINE_PART_CALL_END = 4,
    LAYERLINE_TOKEN_CONTROL = 1,
    LAYERLINE_TOKEN_END = 2,
    LAYERLINE_TOKEN_BYTE = 4,
    LAYERLINE_TOKEN_USER_DEFINED = 8,
    LAYERLINE_TOKEN_UNKNOWN = 16,
    LAYERLINE_TOKEN_UNUSED = 32,
    LAYERLINE_END_NONE = 0,
    LAYERLINE_END_TOKEN = 1,
    LAYERLINE_END_LENGTH = 2,
    LAYERLINE_END_STOP = 3,
    LAYERLINE_END_CALLBACK = 4,
    LAYERLINE_END_CONSTRAINT = 5,
    LAYERLINE_CONSTRAINT_JSON_SCHEMA = 0,
    LAYERLINE_CONSTRAINT_GBNF = 1,
    LAYERLINE_CONSTRAINT_LARK = 2,
    LAYERLINE_CONSTRAINT_REGEX = 3,
    LAYERLINE_CONSTRAINT_OPEN = 0,
    LAYERLINE_CONSTRAINT_MAY_END = 1,
    LAYERLINE_CONSTRAINT_COMPLETE = 2,
    LAYERLINE_END_CONTEXT = 6,
    LAYERLINE_CONTEXT_STOP = 0,
    LAYERLINE_CONTEXT_DROP_OLDEST = 1,
);
