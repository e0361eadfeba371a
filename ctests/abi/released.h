/* The declarations of layerline.h as version 0.2.0 has them: what later ones are held to (scripts/abi.sh). */
#ifndef LAYERLINE_H
#define LAYERLINE_H 
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
#define LAYERLINE_VERSION_MAJOR 0
#define LAYERLINE_VERSION_MINOR 2
#define LAYERLINE_VERSION_PATCH 0
#define LAYERLINE_VERSION_NUMBER (((LAYERLINE_VERSION_MAJOR * 1000000) + (LAYERLINE_VERSION_MINOR * 1000)) + LAYERLINE_VERSION_PATCH)
uint32_t layerline_version_number(void);
const char *layerline_version(void);
const char *layerline_build_info(void);
typedef struct layerline_error layerline_error;
typedef int32_t layerline_status;
#define LAYERLINE_OK 0
#define LAYERLINE_ERROR_INVALID_ARGUMENT -1
#define LAYERLINE_ERROR_IO -2
#define LAYERLINE_ERROR_FORMAT -3
#define LAYERLINE_ERROR_UNSUPPORTED -4
#define LAYERLINE_ERROR_MEMORY_BUDGET -5
#define LAYERLINE_ERROR_OUT_OF_MEMORY -6
#define LAYERLINE_ERROR_CANCELLED -7
#define LAYERLINE_ERROR_CONTEXT_FULL -8
#define LAYERLINE_ERROR_BUFFER_TOO_SMALL -9
#define LAYERLINE_ERROR_BUSY -10
#define LAYERLINE_ERROR_INTERNAL -11
#define LAYERLINE_ERROR_NOT_FOUND -12
const char *layerline_status_string(layerline_status status);
layerline_status layerline_error_status(const layerline_error *error);
const char *layerline_error_message(const layerline_error *error);
void layerline_error_free(layerline_error *error);
#define LAYERLINE_IO_AUTO 0
#define LAYERLINE_IO_DIRECT 1
#define LAYERLINE_IO_BUFFERED 2
#define LAYERLINE_IO_MMAP 3
#define LAYERLINE_KV_F16 0
#define LAYERLINE_KV_Q8_0 1
typedef struct layerline_options layerline_options;
layerline_options *layerline_options_new(void);
void layerline_options_free(layerline_options *options);
layerline_status layerline_options_set_memory_budget(layerline_options *options,
                                                     uint64_t bytes);
layerline_status layerline_options_set_context_length(layerline_options *options, uint32_t tokens);
layerline_status layerline_options_set_chunk_length(layerline_options *options,
                                                    uint32_t tokens);
layerline_status layerline_options_set_threads(layerline_options *options, uint32_t threads);
layerline_status layerline_options_set_prefetch(layerline_options *options, bool enabled);
layerline_status layerline_options_set_prefetch_distance(layerline_options *options, uint32_t layers);
layerline_status layerline_options_set_cache_layers(layerline_options *options, uint32_t layers);
layerline_status layerline_options_set_io(layerline_options *options, int32_t io);
layerline_status layerline_options_set_kv_type(layerline_options *options,
                                               int32_t kv_type);
typedef struct layerline_budget layerline_budget;
layerline_budget *layerline_budget_new(uint64_t bytes);
void layerline_budget_free(layerline_budget *budget);
layerline_status layerline_budget_set_bytes(layerline_budget *budget, uint64_t bytes, layerline_error **err);
layerline_status layerline_options_set_shared_budget(layerline_options *options,
                                                     const layerline_budget *budget);
typedef struct layerline_plan {
    uint32_t struct_size;
    uint32_t layer_count;
    uint64_t file_bytes;
    uint64_t weight_bytes;
    uint64_t floor_bytes;
    uint64_t full_bytes;
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
    uint64_t tables_bytes;
    uint64_t pinned_bytes;
    uint64_t streamed_bytes;
    uint64_t unread_tensors;
    uint64_t unread_bytes;
} layerline_plan;
layerline_status layerline_options_plan(const layerline_options *options,
                                        const char *path,
                                        layerline_plan *plan,
                                        layerline_error **err);
typedef struct layerline_model layerline_model;
typedef struct layerline_model_info {
    uint32_t struct_size;
    uint32_t layer_count;
    uint32_t embedding_length;
    uint32_t head_count;
    uint32_t head_count_kv;
    uint32_t vocab_size;
    uint32_t context_length;
    uint32_t expert_count;
    uint32_t expert_used_count;
    int32_t bos_token;
    int32_t eos_token;
    bool has_head;
    bool causal;
    bool has_chat_template;
    bool has_recurrent_memory;
    uint64_t parameter_count;
} layerline_model_info;
layerline_status layerline_model_open(const char *path,
                                      const layerline_options *options,
                                      layerline_model **model,
                                      layerline_error **err);
layerline_status layerline_model_open_fd(int fd,
                                         uint64_t offset,
                                         uint64_t length,
                                         const layerline_options *options,
                                         layerline_model **model,
                                         layerline_error **err);
void layerline_model_free(layerline_model *model);
layerline_status layerline_model_get_info(const layerline_model *model,
                                          layerline_model_info *info,
                                          layerline_error **err);
layerline_status layerline_model_metadata(const layerline_model *model,
                                          const char *key,
                                          char *buf,
                                          size_t cap,
                                          size_t *needed,
                                          layerline_error **err);
layerline_status layerline_model_metadata_count(const layerline_model *model,
                                                size_t *count,
                                                layerline_error **err);
layerline_status layerline_model_metadata_key_at(const layerline_model *model,
                                                 size_t index,
                                                 char *buf,
                                                 size_t cap,
                                                 size_t *needed,
                                                 layerline_error **err);
layerline_status layerline_model_set_memory_budget(layerline_model *model,
                                                   uint64_t bytes,
                                                   layerline_error **err);
#define LAYERLINE_EVENT_LAYER 1
#define LAYERLINE_EVENT_DONE 2
#define LAYERLINE_LAYER_ABSENT 0
#define LAYERLINE_LAYER_LOADING 1
#define LAYERLINE_LAYER_READY 2
#define LAYERLINE_LAYER_PINNED 3
typedef struct layerline_event {
    uint64_t ticket;
    uint32_t kind;
    layerline_status status;
    uint32_t layer;
    uint32_t reserved;
    uint64_t bytes;
    uint64_t elapsed_ns;
} layerline_event;
typedef struct layerline_stats {
    uint32_t struct_size;
    int32_t io;
    uint64_t budget_bytes;
    uint64_t used_bytes;
    uint64_t peak_bytes;
    uint64_t pinned_bytes;
    uint64_t passes;
    uint64_t tokens;
    uint64_t layers_resident;
    uint64_t layers_prefetched;
    uint64_t layers_stalled;
    uint64_t stall_ns;
    uint64_t compute_ns;
    uint64_t read_ns;
    uint64_t read_bytes;
    uint64_t prefetch_requests;
    uint64_t prefetch_failures;
    uint64_t evictions;
} layerline_stats;
layerline_status layerline_model_prefetch(layerline_model *model,
                                          uint32_t first_layer,
                                          uint32_t count,
                                          uint64_t *ticket,
                                          layerline_error **err);
layerline_status layerline_model_cancel(layerline_model *model,
                                        uint64_t ticket,
                                        layerline_error **err);
layerline_status layerline_model_ticket_error(const layerline_model *model, uint64_t ticket, layerline_error **err);
layerline_status layerline_model_poll(layerline_model *model,
                                      layerline_event *events,
                                      size_t cap,
                                      size_t *count,
                                      layerline_error **err);
layerline_status layerline_model_wait(layerline_model *model,
                                      int32_t timeout_ms,
                                      layerline_event *events,
                                      size_t cap,
                                      size_t *count,
                                      layerline_error **err);
intptr_t layerline_model_event_handle(const layerline_model *model);
layerline_status layerline_model_layer_state(const layerline_model *model,
                                             uint32_t layer,
                                             int32_t *state,
                                             layerline_error **err);
layerline_status layerline_model_get_stats(const layerline_model *model,
                                           layerline_stats *stats,
                                           layerline_error **err);
#define LAYERLINE_LOGITS_LAST 0
#define LAYERLINE_LOGITS_ALL 1
#define LAYERLINE_LOGITS_NONE 2
#define LAYERLINE_EMBEDDINGS_NONE 0
#define LAYERLINE_EMBEDDINGS_ALL 1
#define LAYERLINE_EMBEDDINGS_LAST 2
#define LAYERLINE_EMBEDDINGS_MEAN 3
#define LAYERLINE_EMBEDDINGS_FIRST 4
typedef struct layerline_session layerline_session;
typedef struct layerline_session_info {
    uint32_t struct_size;
    uint32_t context_length;
    uint64_t position;
    uint64_t memory_bytes;
    uint64_t cache_bytes;
    int32_t kv_type;
    uint32_t fewest_tokens;
} layerline_session_info;
typedef struct layerline_progress {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t bytes_done;
    uint64_t bytes;
    uint64_t tokens_done;
    uint64_t tokens;
} layerline_progress;
layerline_status layerline_session_new(const layerline_model *model,
                                       uint32_t context_length,
                                       layerline_session **session,
                                       layerline_error **err);
void layerline_session_free(layerline_session *session);
layerline_status layerline_session_get_info(const layerline_session *session,
                                            layerline_session_info *info,
                                            layerline_error **err);
layerline_status layerline_session_forward(layerline_session *session,
                                           const int32_t *tokens,
                                           size_t count,
                                           int32_t logits,
                                           int32_t embeddings,
                                           layerline_error **err);
layerline_status layerline_session_submit(layerline_session *session,
                                          const int32_t *tokens,
                                          size_t count,
                                          int32_t logits,
                                          int32_t embeddings,
                                          uint64_t *ticket,
                                          layerline_error **err);
void layerline_session_interrupt(const layerline_session *session);
void layerline_session_clear_interrupt(const layerline_session *session);
layerline_status layerline_session_get_progress(const layerline_session *session,
                                                layerline_progress *progress,
                                                layerline_error **err);
layerline_status layerline_session_logits(const layerline_session *session,
                                          size_t row,
                                          const float **logits,
                                          size_t *vocab_size,
                                          layerline_error **err);
layerline_status layerline_session_embeddings(const layerline_session *session,
                                              size_t row,
                                              const float **embedding,
                                              size_t *length,
                                              layerline_error **err);
layerline_status layerline_session_truncate(layerline_session *session,
                                            size_t tokens,
                                            layerline_error **err);
layerline_status layerline_session_copy(const layerline_session *session,
                                        uint32_t context_length,
                                        layerline_session **copy,
                                        layerline_error **err);
layerline_status layerline_session_save(const layerline_session *session,
                                        const char *path,
                                        layerline_error **err);
layerline_status layerline_session_load(layerline_session *session,
                                        const char *path,
                                        layerline_error **err);
layerline_status layerline_session_save_buffer(const layerline_session *session,
                                               uint8_t *buf,
                                               size_t cap,
                                               size_t *needed,
                                               layerline_error **err);
layerline_status layerline_session_load_buffer(layerline_session *session,
                                               const uint8_t *state,
                                               size_t length,
                                               layerline_error **err);
typedef struct layerline_checkpoint layerline_checkpoint;
layerline_status layerline_session_checkpoint(layerline_session *session,
                                              layerline_checkpoint **checkpoint,
                                              layerline_error **err);
void layerline_checkpoint_free(layerline_checkpoint *checkpoint);
uint64_t layerline_checkpoint_position(const layerline_checkpoint *checkpoint);
uint64_t layerline_checkpoint_memory_bytes(const layerline_checkpoint *checkpoint);
layerline_status layerline_session_restore(layerline_session *session,
                                           const layerline_checkpoint *checkpoint,
                                           layerline_error **err);
#define LAYERLINE_TOKENIZE_SPECIAL 1
#define LAYERLINE_TOKENIZE_BOS 2
#define LAYERLINE_TOKENIZE_EOS 4
#define LAYERLINE_TOKEN_CONTROL 1
#define LAYERLINE_TOKEN_END 2
#define LAYERLINE_TOKEN_BYTE 4
#define LAYERLINE_TOKEN_USER_DEFINED 8
#define LAYERLINE_TOKEN_UNKNOWN 16
#define LAYERLINE_TOKEN_UNUSED 32
layerline_status layerline_model_tokenize(const layerline_model *model,
                                          const char *text,
                                          size_t length,
                                          uint32_t flags,
                                          int32_t *tokens,
                                          size_t cap,
                                          size_t *needed,
                                          layerline_error **err);
layerline_status layerline_model_detokenize(const layerline_model *model,
                                            const int32_t *tokens,
                                            size_t count,
                                            char *buf,
                                            size_t cap,
                                            size_t *needed,
                                            layerline_error **err);
layerline_status layerline_model_token_text(const layerline_model *model,
                                            int32_t token,
                                            char *buf,
                                            size_t cap,
                                            size_t *needed,
                                            uint32_t *attributes,
                                            layerline_error **err);
layerline_status layerline_model_token_is_end(const layerline_model *model,
                                              int32_t token,
                                              bool *end,
                                              layerline_error **err);
typedef struct layerline_message {
    const char *role;
    const char *content;
} layerline_message;
layerline_status layerline_model_format_chat(const layerline_model *model,
                                             const layerline_message *messages,
                                             size_t count,
                                             bool add_assistant,
                                             char *buf,
                                             size_t cap,
                                             size_t *needed,
                                             layerline_error **err);
layerline_status layerline_model_format_chat_json(const layerline_model *model,
                                                  const char *json,
                                                  size_t length,
                                                  bool add_assistant,
                                                  char *buf,
                                                  size_t cap,
                                                  size_t *needed,
                                                  layerline_error **err);
layerline_status layerline_model_tokenize_chat(const layerline_model *model,
                                               const layerline_message *messages,
                                               size_t count,
                                               bool add_assistant,
                                               int32_t *tokens,
                                               size_t cap,
                                               size_t *needed,
                                               layerline_error **err);
layerline_status layerline_model_tokenize_chat_json(const layerline_model *model,
                                                    const char *json,
                                                    size_t length,
                                                    bool add_assistant,
                                                    int32_t *tokens,
                                                    size_t cap,
                                                    size_t *needed,
                                                    layerline_error **err);
typedef struct layerline_sampler layerline_sampler;
typedef bool (*layerline_token_callback)(int32_t token, const char *piece, size_t length, void *user_data);
layerline_sampler *layerline_sampler_new(void);
void layerline_sampler_free(layerline_sampler *sampler);
layerline_status layerline_sampler_set_temperature(layerline_sampler *sampler, float temperature);
layerline_status layerline_sampler_set_top_k(layerline_sampler *sampler, uint32_t k);
layerline_status layerline_sampler_set_top_p(layerline_sampler *sampler, float p);
layerline_status layerline_sampler_set_min_p(layerline_sampler *sampler, float p);
layerline_status layerline_sampler_set_repeat_penalty(layerline_sampler *sampler,
                                                      float penalty,
                                                      uint32_t last_n);
layerline_status layerline_sampler_set_seed(layerline_sampler *sampler, uint64_t seed);
layerline_status layerline_sampler_copy(const layerline_sampler *sampler,
                                        layerline_sampler **copy,
                                        layerline_error **err);
layerline_status layerline_sampler_reset(layerline_sampler *sampler,
                                         layerline_error **err);
layerline_status layerline_sampler_accept(layerline_sampler *sampler,
                                          const int32_t *tokens,
                                          size_t count,
                                          layerline_error **err);
layerline_status layerline_sampler_sample(layerline_sampler *sampler,
                                          const layerline_session *session,
                                          int32_t *token,
                                          layerline_error **err);
layerline_status layerline_sampler_sample_logits(layerline_sampler *sampler,
                                                 const float *logits,
                                                 size_t count,
                                                 int32_t *token,
                                                 layerline_error **err);
layerline_status layerline_session_generate(layerline_session *session,
                                            layerline_sampler *sampler,
                                            const int32_t *prompt,
                                            size_t count,
                                            size_t max_tokens,
                                            layerline_token_callback callback,
                                            void *user_data,
                                            layerline_error **err);
#ifdef __cplusplus
}
#endif
#endif
