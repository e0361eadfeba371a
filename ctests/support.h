/* Models, files and options as the tests want them. */
#ifndef LAYERLINE_CTESTS_SUPPORT_H
#define LAYERLINE_CTESTS_SUPPORT_H

#include "check.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A two-layer model of 320 tokens with a byte vocabulary: blk 2, width 64, trained for 256 positions. */
#define TINY_MODEL "arch/llama.gguf"
#define TINY_LAYERS 2u
#define TINY_VOCAB 320u
#define TINY_CONTEXT 256u

#define PATH_SIZE 4096

/* tests/data/golden/NAME. The pointer is good until sixteen more are asked for. */
const char *data_path(const char *name);

/* The small real model, or NULL where it has not been fetched. */
const char *real_model(void);

/* All zero is the library's defaults, but for `prefetch_off`. */
typedef struct settings {
    uint64_t budget;
    uint32_t context, chunk, threads, distance, cache_layers;
    bool prefetch_off;
    int32_t io;
} settings;

layerline_options *make_options(const settings *s);
layerline_status try_open(const char *path, const settings *s, layerline_model **model, layerline_error **err);
layerline_model *open_model(const char *path, const settings *s);        /* or the test ends */
layerline_session *new_session(layerline_model *model, uint32_t context); /* or the test ends */
layerline_plan plan_of(const char *path, const settings *s);             /* or the test ends */
layerline_stats stats_of(const layerline_model *model);
layerline_model_info info_of(const layerline_model *model);
layerline_session_info session_info_of(const layerline_session *session);
size_t position_of(const layerline_session *session);

/* Whether every instruction is interpreted, by valgrind or an emulator: what is run many times, or on much, is run less. */
bool quick(void);

/* Valid token ids below `vocab`, the same for the same seed. */
void fill_tokens(int32_t *tokens, size_t count, uint32_t vocab, uint32_t seed);

/* A copy of the logits of one row, to be freed. */
float *copy_logits(const layerline_session *session, size_t row, size_t *vocab);

/* Whether the row's logits are the `vocab` floats given, bit for bit. */
bool same_logits(const layerline_session *session, size_t row, const float *expected, size_t vocab);

unsigned char *read_file(const char *path, size_t *size); /* to be freed; or the test ends */
/* A temporary file with these bytes; its path is written to `path`, its descriptor (read and write) returned. */
int make_file(char path[PATH_SIZE], const void *bytes, size_t size);

/* Whether the handle of an event loop is ready, or becomes ready within so many milliseconds. */
bool is_ready(intptr_t handle, int milliseconds);

/* A copy of the tiny model with this chat template, or none for NULL; its path is written to `path`. Or the test ends. */
void make_chat_model(char path[PATH_SIZE], const char *chat_template);

/* A token callback that lets everything go on. */
bool go_on(int32_t token, const char *piece, size_t length, void *user_data);

bool is_utf8(const char *text, size_t length);

#ifdef __cplusplus
}
#endif

#endif
