/* What the example programs need beside the library: sizes as people write them, a clock, words for errors. */
#ifndef LAYERLINE_EXAMPLES_COMMON_H
#define LAYERLINE_EXAMPLES_COMMON_H

#include "layerline.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static inline double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline double mebibytes(uint64_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

/* Says what went wrong on stderr and frees the error. Always returns false, to end the caller with. */
static inline bool report(const char *what, layerline_status status, layerline_error *error)
{
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", what, layerline_error_message(error));
        layerline_error_free(error);
    } else {
        fprintf(stderr, "%s: %s\n", what, layerline_status_string(status));
    }
    return false;
}

/* A whole number in [least, most]. */
static inline bool parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *value)
{
    char *end = NULL;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *value >= least && *value <= most;
}

static inline bool parse_float(const char *text, float *value)
{
    char *end = NULL;
    *value = strtof(text, &end);
    return end != text && *end == '\0';
}

/* Bytes, KiB, MiB, GiB, or a percentage of `whole`: 400000000, 512MiB, 1.5GiB, 33%. */
static inline bool parse_bytes(const char *text, uint64_t whole, uint64_t *bytes)
{
    char *end = NULL;
    double value, unit;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    value = strtod(text, &end);
    if (errno != 0) {
        return false;
    }
    if (*end == '\0' || strcasecmp(end, "B") == 0) {
        unit = 1;
    } else if (strcmp(end, "%") == 0) {
        unit = (double)whole / 100.0;
    } else if (strcasecmp(end, "KiB") == 0) {
        unit = 1024.0;
    } else if (strcasecmp(end, "MiB") == 0) {
        unit = 1024.0 * 1024.0;
    } else if (strcasecmp(end, "GiB") == 0) {
        unit = 1024.0 * 1024.0 * 1024.0;
    } else {
        return false;
    }
    value *= unit;
    if (!(value < 9e18)) {
        return false;
    }
    *bytes = (uint64_t)value;
    return true;
}

/* A context that holds the prompt and what follows it: no token is shorter than a byte, and a few may be added. The KV
 * cache is paid from the budget, so a program that knows how much text it wants asks for no more than that. */
static inline uint32_t context_for(const char *prompt, uint64_t tokens)
{
    uint64_t context = (uint64_t)strlen(prompt) + 8 + tokens;
    return context > UINT32_MAX ? UINT32_MAX : (uint32_t)context;
}

static inline bool parse_io(const char *text, int32_t *io)
{
    static const struct { const char *name; int32_t value; } modes[] = {
        { "auto", LAYERLINE_IO_AUTO },
        { "direct", LAYERLINE_IO_DIRECT },
        { "buffered", LAYERLINE_IO_BUFFERED },
        { "mmap", LAYERLINE_IO_MMAP },
    };
    size_t i;
    for (i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(text, modes[i].name) == 0) {
            *io = modes[i].value;
            return true;
        }
    }
    return false;
}

static inline const char *io_name(int32_t io)
{
    switch (io) {
    case LAYERLINE_IO_DIRECT: return "direct";
    case LAYERLINE_IO_BUFFERED: return "buffered";
    case LAYERLINE_IO_MMAP: return "mmap";
    default: return "auto";
    }
}

/* The options that these programs have; 0 of a number is the library's default. The caller frees them; NULL: failed, and
 * said why. */
static inline layerline_options *make_options(uint64_t budget, uint32_t context, uint32_t threads, bool prefetch, int32_t io)
{
    layerline_options *options = layerline_options_new();
    if (options == NULL) {
        fprintf(stderr, "out of memory\n");
        return NULL;
    }
    if (layerline_options_set_memory_budget(options, budget) != LAYERLINE_OK ||
        layerline_options_set_context_length(options, context) != LAYERLINE_OK ||
        layerline_options_set_threads(options, threads) != LAYERLINE_OK ||
        layerline_options_set_prefetch(options, prefetch) != LAYERLINE_OK ||
        layerline_options_set_io(options, io) != LAYERLINE_OK) {
        fprintf(stderr, "the library refuses one of the options\n");
        layerline_options_free(options);
        return NULL;
    }
    return options;
}

/* The plan at these options, which it frees; NULL fails. False: failed, and said why. */
static inline bool plan_with(const char *model, layerline_options *options, layerline_plan *plan)
{
    layerline_error *error = NULL;
    layerline_status status;
    if (options == NULL) {
        return false;
    }
    memset(plan, 0, sizeof *plan);
    plan->struct_size = (uint32_t)sizeof *plan;
    status = layerline_options_plan(options, model, plan, &error);
    layerline_options_free(options);
    return status == LAYERLINE_OK || report("cannot plan", status, error);
}

/* A budget as people write it, of a file of `file_bytes`. */
static inline bool parse_budget(const char *text, uint64_t file_bytes, uint64_t *budget)
{
    if (!parse_bytes(text, file_bytes, budget) || *budget == 0) {
        fprintf(stderr, "--budget: cannot use \"%s\"\n", text);
        return false;
    }
    return true;
}

/* The tokens of a prompt, with the beginning token where the model wants one. The caller frees them; NULL: failed, and said why. */
static inline int32_t *tokenize_prompt(const layerline_model *model, const char *prompt, size_t *count)
{
    size_t length = strlen(prompt), needed = 0;
    int32_t *tokens = NULL;
    layerline_status status = layerline_model_tokenize(model, prompt, length, LAYERLINE_TOKENIZE_BOS, NULL, 0, &needed, NULL);
    if (status == LAYERLINE_OK || status == LAYERLINE_ERROR_BUFFER_TOO_SMALL) {
        if (needed == 0) {
            fprintf(stderr, "the prompt has no tokens\n");
            return NULL;
        }
        tokens = malloc(needed * sizeof *tokens);
        if (tokens == NULL) {
            fprintf(stderr, "out of memory\n");
            return NULL;
        }
        status = layerline_model_tokenize(model, prompt, length, LAYERLINE_TOKENIZE_BOS, tokens, needed, count, NULL);
    }
    if (status != LAYERLINE_OK) {
        report("cannot tokenise the prompt", status, NULL);
        free(tokens);
        return NULL;
    }
    return tokens;
}

#endif
