/* The public structs as every caller has compiled them, and the numbers that never change: what is here and in
 * src/ffi/layout.rs must be the same, and may only grow at the end. */
#include "layerline.h"

#include <stddef.h>

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type " is of another size")
#define OFFSET(type, field, at) _Static_assert(offsetof(type, field) == (at), #type "." #field " has moved")
#define NUMBER(name, value) _Static_assert((name) == (value), #name " has another number")

/* Where 64-bit numbers are aligned to 32 bits, as on i386, offsets are others. */
#if UINTPTR_MAX > 0xFFFFFFFF
SIZE(layerline_plan, 104);
OFFSET(layerline_plan, struct_size, 0);
OFFSET(layerline_plan, layer_count, 4);
OFFSET(layerline_plan, file_bytes, 8);
OFFSET(layerline_plan, weight_bytes, 16);
OFFSET(layerline_plan, floor_bytes, 24);
OFFSET(layerline_plan, full_bytes, 32);
OFFSET(layerline_plan, kv_bytes, 40);
OFFSET(layerline_plan, scratch_bytes, 48);
OFFSET(layerline_plan, tables_bytes, 56);
OFFSET(layerline_plan, pinned_bytes, 64);
OFFSET(layerline_plan, streamed_bytes, 72);
OFFSET(layerline_plan, unread_tensors, 80);
OFFSET(layerline_plan, unread_bytes, 88);
OFFSET(layerline_plan, expert_working_set_bytes, 96);

SIZE(layerline_message_part, 48);
OFFSET(layerline_message_part, struct_size, 0);
OFFSET(layerline_message_part, kind, 4);
OFFSET(layerline_message_part, call, 8);
OFFSET(layerline_message_part, reserved, 12);
OFFSET(layerline_message_part, text, 16);
OFFSET(layerline_message_part, length, 24);
OFFSET(layerline_message_part, id, 32);
OFFSET(layerline_message_part, id_length, 40);

SIZE(layerline_generation_stats, 56);
OFFSET(layerline_generation_stats, struct_size, 0);
OFFSET(layerline_generation_stats, end, 4);
OFFSET(layerline_generation_stats, tokens, 8);
OFFSET(layerline_generation_stats, passes, 16);
OFFSET(layerline_generation_stats, drafted, 24);
OFFSET(layerline_generation_stats, accepted, 32);
OFFSET(layerline_generation_stats, gained_ns, 40);
OFFSET(layerline_generation_stats, dropped, 48);

SIZE(layerline_token_logprob, 8);
OFFSET(layerline_token_logprob, token, 0);
OFFSET(layerline_token_logprob, logprob, 4);

SIZE(layerline_generated, 64);
OFFSET(layerline_generated, struct_size, 0);
OFFSET(layerline_generated, token, 4);
OFFSET(layerline_generated, piece, 8);
OFFSET(layerline_generated, length, 16);
OFFSET(layerline_generated, logprob, 24);
OFFSET(layerline_generated, sampled_logprob, 28);
OFFSET(layerline_generated, top, 32);
OFFSET(layerline_generated, top_count, 40);
OFFSET(layerline_generated, sampled_top, 48);
OFFSET(layerline_generated, sampled_top_count, 56);

SIZE(layerline_model_info, 56);
OFFSET(layerline_model_info, struct_size, 0);
OFFSET(layerline_model_info, layer_count, 4);
OFFSET(layerline_model_info, embedding_length, 8);
OFFSET(layerline_model_info, head_count, 12);
OFFSET(layerline_model_info, head_count_kv, 16);
OFFSET(layerline_model_info, vocab_size, 20);
OFFSET(layerline_model_info, context_length, 24);
OFFSET(layerline_model_info, expert_count, 28);
OFFSET(layerline_model_info, expert_used_count, 32);
OFFSET(layerline_model_info, bos_token, 36);
OFFSET(layerline_model_info, eos_token, 40);
OFFSET(layerline_model_info, has_head, 44);
OFFSET(layerline_model_info, causal, 45);
OFFSET(layerline_model_info, has_chat_template, 46);
OFFSET(layerline_model_info, has_recurrent_memory, 47);
OFFSET(layerline_model_info, parameter_count, 48);

SIZE(layerline_progress, 40);
OFFSET(layerline_progress, struct_size, 0);
OFFSET(layerline_progress, reserved, 4);
OFFSET(layerline_progress, bytes_done, 8);
OFFSET(layerline_progress, bytes, 16);
OFFSET(layerline_progress, tokens_done, 24);
OFFSET(layerline_progress, tokens, 32);

SIZE(layerline_session_info, 40);
OFFSET(layerline_session_info, struct_size, 0);
OFFSET(layerline_session_info, context_length, 4);
OFFSET(layerline_session_info, position, 8);
OFFSET(layerline_session_info, memory_bytes, 16);
OFFSET(layerline_session_info, cache_bytes, 24);
OFFSET(layerline_session_info, kv_type, 32);
OFFSET(layerline_session_info, fewest_tokens, 36);

SIZE(layerline_batch_input, 48);
OFFSET(layerline_batch_input, struct_size, 0);
OFFSET(layerline_batch_input, logits, 4);
OFFSET(layerline_batch_input, embeddings, 8);
OFFSET(layerline_batch_input, status, 12);
OFFSET(layerline_batch_input, session, 16);
OFFSET(layerline_batch_input, tokens, 24);
OFFSET(layerline_batch_input, count, 32);
OFFSET(layerline_batch_input, error, 40);

SIZE(layerline_event, 40);
OFFSET(layerline_event, ticket, 0);
OFFSET(layerline_event, kind, 8);
OFFSET(layerline_event, status, 12);
OFFSET(layerline_event, layer, 16);
OFFSET(layerline_event, reserved, 20);
OFFSET(layerline_event, bytes, 24);
OFFSET(layerline_event, elapsed_ns, 32);

SIZE(layerline_message, 16);
OFFSET(layerline_message, role, 0);
OFFSET(layerline_message, content, 8);

SIZE(layerline_stats, 176);
OFFSET(layerline_stats, struct_size, 0);
OFFSET(layerline_stats, io, 4);
OFFSET(layerline_stats, budget_bytes, 8);
OFFSET(layerline_stats, used_bytes, 16);
OFFSET(layerline_stats, peak_bytes, 24);
OFFSET(layerline_stats, pinned_bytes, 32);
OFFSET(layerline_stats, passes, 40);
OFFSET(layerline_stats, tokens, 48);
OFFSET(layerline_stats, layers_resident, 56);
OFFSET(layerline_stats, layers_prefetched, 64);
OFFSET(layerline_stats, layers_stalled, 72);
OFFSET(layerline_stats, stall_ns, 80);
OFFSET(layerline_stats, compute_ns, 88);
OFFSET(layerline_stats, read_ns, 96);
OFFSET(layerline_stats, read_bytes, 104);
OFFSET(layerline_stats, prefetch_requests, 112);
OFFSET(layerline_stats, prefetch_failures, 120);
OFFSET(layerline_stats, evictions, 128);
OFFSET(layerline_stats, expert_hits, 136);
OFFSET(layerline_stats, expert_misses, 144);
OFFSET(layerline_stats, expert_missed_bytes, 152);
OFFSET(layerline_stats, expert_evictions, 160);
OFFSET(layerline_stats, expert_working_set_bytes, 168);
#endif

SIZE(layerline_status, 4);
NUMBER(LAYERLINE_OK, 0);
NUMBER(LAYERLINE_ERROR_INVALID_ARGUMENT, -1);
NUMBER(LAYERLINE_ERROR_IO, -2);
NUMBER(LAYERLINE_ERROR_FORMAT, -3);
NUMBER(LAYERLINE_ERROR_UNSUPPORTED, -4);
NUMBER(LAYERLINE_ERROR_MEMORY_BUDGET, -5);
NUMBER(LAYERLINE_ERROR_OUT_OF_MEMORY, -6);
NUMBER(LAYERLINE_ERROR_CANCELLED, -7);
NUMBER(LAYERLINE_ERROR_CONTEXT_FULL, -8);
NUMBER(LAYERLINE_ERROR_BUFFER_TOO_SMALL, -9);
NUMBER(LAYERLINE_ERROR_BUSY, -10);
NUMBER(LAYERLINE_ERROR_INTERNAL, -11);
NUMBER(LAYERLINE_ERROR_NOT_FOUND, -12);
NUMBER(LAYERLINE_IO_AUTO, 0);
NUMBER(LAYERLINE_IO_DIRECT, 1);
NUMBER(LAYERLINE_IO_BUFFERED, 2);
NUMBER(LAYERLINE_IO_MMAP, 3);
NUMBER(LAYERLINE_IO_SOURCE, 4);
NUMBER(LAYERLINE_KV_F16, 0);
NUMBER(LAYERLINE_KV_Q8_0, 1);
NUMBER(LAYERLINE_EVENT_LAYER, 1);
NUMBER(LAYERLINE_EVENT_DONE, 2);
NUMBER(LAYERLINE_LAYER_ABSENT, 0);
NUMBER(LAYERLINE_LAYER_LOADING, 1);
NUMBER(LAYERLINE_LAYER_READY, 2);
NUMBER(LAYERLINE_LAYER_PINNED, 3);
NUMBER(LAYERLINE_LOGITS_LAST, 0);
NUMBER(LAYERLINE_LOGITS_ALL, 1);
NUMBER(LAYERLINE_LOGITS_NONE, 2);
NUMBER(LAYERLINE_EMBEDDINGS_NONE, 0);
NUMBER(LAYERLINE_EMBEDDINGS_ALL, 1);
NUMBER(LAYERLINE_EMBEDDINGS_LAST, 2);
NUMBER(LAYERLINE_EMBEDDINGS_MEAN, 3);
NUMBER(LAYERLINE_EMBEDDINGS_FIRST, 4);
NUMBER(LAYERLINE_EMBEDDINGS_SCORE, 5);
NUMBER(LAYERLINE_STEP_PENALTIES, 0);
NUMBER(LAYERLINE_STEP_DRY, 1);
NUMBER(LAYERLINE_STEP_TOP_N_SIGMA, 2);
NUMBER(LAYERLINE_STEP_TOP_K, 3);
NUMBER(LAYERLINE_STEP_TYPICAL_P, 4);
NUMBER(LAYERLINE_STEP_TOP_P, 5);
NUMBER(LAYERLINE_STEP_MIN_P, 6);
NUMBER(LAYERLINE_STEP_XTC, 7);
NUMBER(LAYERLINE_STEP_TEMPERATURE, 8);
NUMBER(LAYERLINE_TOKENIZE_SPECIAL, 1);
NUMBER(LAYERLINE_TOKENIZE_BOS, 2);
NUMBER(LAYERLINE_TOKENIZE_EOS, 4);
NUMBER(LAYERLINE_TOKENIZE_CONTINUE, 8);
NUMBER(LAYERLINE_DETOKENIZE_CONTROL, 1);
NUMBER(LAYERLINE_DETOKENIZE_CONTINUE, 2);
NUMBER(LAYERLINE_PART_CONTENT, 0);
NUMBER(LAYERLINE_PART_REASONING, 1);
NUMBER(LAYERLINE_PART_CALL, 2);
NUMBER(LAYERLINE_PART_ARGUMENTS, 3);
NUMBER(LAYERLINE_PART_CALL_END, 4);
NUMBER(LAYERLINE_TOKEN_CONTROL, 1);
NUMBER(LAYERLINE_TOKEN_END, 2);
NUMBER(LAYERLINE_TOKEN_BYTE, 4);
NUMBER(LAYERLINE_TOKEN_USER_DEFINED, 8);
NUMBER(LAYERLINE_TOKEN_UNKNOWN, 16);
NUMBER(LAYERLINE_TOKEN_UNUSED, 32);
NUMBER(LAYERLINE_END_NONE, 0);
NUMBER(LAYERLINE_END_TOKEN, 1);
NUMBER(LAYERLINE_END_LENGTH, 2);
NUMBER(LAYERLINE_END_STOP, 3);
NUMBER(LAYERLINE_END_CALLBACK, 4);
NUMBER(LAYERLINE_END_CONSTRAINT, 5);
NUMBER(LAYERLINE_CONSTRAINT_JSON_SCHEMA, 0);
NUMBER(LAYERLINE_CONSTRAINT_GBNF, 1);
NUMBER(LAYERLINE_CONSTRAINT_LARK, 2);
NUMBER(LAYERLINE_CONSTRAINT_REGEX, 3);
NUMBER(LAYERLINE_CONSTRAINT_OPEN, 0);
NUMBER(LAYERLINE_CONSTRAINT_MAY_END, 1);
NUMBER(LAYERLINE_CONSTRAINT_COMPLETE, 2);
NUMBER(LAYERLINE_END_CONTEXT, 6);
NUMBER(LAYERLINE_CONTEXT_STOP, 0);
NUMBER(LAYERLINE_CONTEXT_DROP_OLDEST, 1);

int main(void)
{
    return 0; /* compiled is passed */
}
