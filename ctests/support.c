#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <ctype.h>
#include <pthread.h>
#include <unistd.h>
#ifdef _WIN32
#include <fcntl.h>
#include <windows.h>
#else
#include <poll.h>
#endif

#ifndef LAYERLINE_TEST_DATA
#error "LAYERLINE_TEST_DATA names the folder of the golden models"
#endif

/* -- checks ---------------------------------------------------------------------------------------------------------- */

static pthread_mutex_t failures_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned failures = 0;

void check_failed(const char *file, int line, const char *text)
{
    pthread_mutex_lock(&failures_lock);
    failures++;
    fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
    pthread_mutex_unlock(&failures_lock);
}

int check_result(void)
{
    unsigned count;
    pthread_mutex_lock(&failures_lock);
    count = failures;
    pthread_mutex_unlock(&failures_lock);
    if (count > 0) {
        fprintf(stderr, "%u checks failed\n", count);
    }
    return count == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

bool check_status(const char *file, int line, const char *text, layerline_status expected, layerline_status found)
{
    char message[1024];
    if (found == expected) {
        return true;
    }
    snprintf(message, sizeof message, "%s: expected %s (%d), found %s (%d)", text, layerline_status_string(expected),
             (int)expected, layerline_status_string(found), (int)found);
    check_failed(file, line, message);
    return false;
}

/* Stands in an error variable before a call, so that one the library never wrote can be told from one it set. */
static char unwritten;

layerline_error *check_unwritten(void)
{
    return (layerline_error *)(void *)&unwritten;
}

static bool take_error(const char *file, int line, const char *text, layerline_status expected, layerline_status found,
                       layerline_error **err, int min_figures)
{
    char message[2048];
    layerline_error *error = *err;
    bool good = true;
    *err = NULL;
    if (error == check_unwritten()) {
        snprintf(message, sizeof message, "%s: the error was not written (status %d)", text, (int)found);
        check_failed(file, line, message);
        return false;
    }
    if (found != expected) {
        snprintf(message, sizeof message, "%s: expected %s (%d), found %s (%d): %s", text,
                 layerline_status_string(expected), (int)expected, layerline_status_string(found), (int)found,
                 error != NULL ? layerline_error_message(error) : "(no error)");
        check_failed(file, line, message);
        good = false;
    }
    if ((found == LAYERLINE_OK) != (error == NULL)) {
        snprintf(message, sizeof message, "%s: status %d, but the error is %s", text, (int)found,
                 error == NULL ? "NULL" : "set");
        check_failed(file, line, message);
        good = false;
    }
    if (error != NULL) {
        const char *said = layerline_error_message(error);
        int figures = 0;
        size_t i;
        if (layerline_error_status(error) != found) {
            snprintf(message, sizeof message, "%s: returned %d, but the error has status %d", text, (int)found,
                     (int)layerline_error_status(error));
            check_failed(file, line, message);
            good = false;
        }
        if (said == NULL || said[0] == '\0') {
            snprintf(message, sizeof message, "%s: the error says nothing", text);
            check_failed(file, line, message);
            good = false;
        } else {
            for (i = 0; said[i] != '\0'; i++) {
                bool digit = isdigit((unsigned char)said[i]) != 0;
                bool before = i > 0 && (isdigit((unsigned char)said[i - 1]) != 0 || said[i - 1] == '.');
                figures += digit && !before;
            }
            if (figures < min_figures) {
                snprintf(message, sizeof message, "%s: both figures are missed in: %s", text, said);
                check_failed(file, line, message);
                good = false;
            }
        }
        layerline_error_free(error);
    }
    return good;
}

bool check_error(const char *file, int line, const char *text, layerline_status expected, layerline_status found,
                 layerline_error **err)
{
    return take_error(file, line, text, expected, found, err, 0);
}

bool check_budget_error(const char *file, int line, const char *text, layerline_status found, layerline_error **err)
{
    return take_error(file, line, text, LAYERLINE_ERROR_MEMORY_BUDGET, found, err, 2);
}

/* -- models ---------------------------------------------------------------------------------------------------------- */

const char *data_path(const char *name)
{
    static char paths[16][PATH_SIZE];
    static unsigned next = 0;
    char *path = paths[next++ % 16];
    snprintf(path, PATH_SIZE, "%s/%s", LAYERLINE_TEST_DATA, name);
    return path;
}

const char *real_model(void)
{
#ifdef LAYERLINE_REAL_MODEL
    if (access(LAYERLINE_REAL_MODEL, R_OK) == 0) {
        return LAYERLINE_REAL_MODEL;
    }
#endif
    return NULL;
}

bool quick(void)
{
    return getenv("LAYERLINE_QUICK") != NULL;
}

layerline_options *make_options(const settings *s)
{
    layerline_options *options = layerline_options_new();
    REQUIRE(options != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_memory_budget(options, s->budget));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_context_length(options, s->context));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_chunk_length(options, s->chunk));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_threads(options, s->threads));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch(options, !s->prefetch_off));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch_distance(options, s->distance));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_cache_layers(options, s->cache_layers));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_io(options, s->io));
    return options;
}

layerline_status try_open(const char *path, const settings *s, layerline_model **model, layerline_error **err)
{
    layerline_options *options = make_options(s);
    layerline_status status = layerline_model_open(path, options, model, err);
    layerline_options_free(options);
    return status;
}

layerline_model *open_model(const char *path, const settings *s)
{
    layerline_model *model = NULL;
    layerline_error *err;
    REQUIRE_OK(err, try_open(path, s, &model, &err));
    REQUIRE(model != NULL);
    return model;
}

layerline_session *new_session(layerline_model *model, uint32_t context)
{
    layerline_session *session = NULL;
    layerline_error *err;
    REQUIRE_OK(err, layerline_session_new(model, context, &session, &err));
    REQUIRE(session != NULL);
    return session;
}

layerline_plan plan_of(const char *path, const settings *s)
{
    layerline_plan plan;
    layerline_error *err;
    layerline_options *options = make_options(s);
    bool good;
    memset(&plan, 0, sizeof plan);
    plan.struct_size = (uint32_t)sizeof plan;
    good = CHECK_OK(err, layerline_options_plan(options, path, &plan, &err));
    layerline_options_free(options); /* before the test may end: it is to fail for one reason */
    REQUIRE(good);
    return plan;
}

layerline_stats stats_of(const layerline_model *model)
{
    layerline_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_get_stats(model, &stats, NULL));
    return stats;
}

layerline_model_info info_of(const layerline_model *model)
{
    layerline_model_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = (uint32_t)sizeof info;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_get_info(model, &info, NULL));
    return info;
}

layerline_session_info session_info_of(const layerline_session *session)
{
    layerline_session_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = (uint32_t)sizeof info;
    info.position = UINT64_MAX;
    CHECK_STATUS(LAYERLINE_OK, layerline_session_get_info(session, &info, NULL));
    return info;
}

size_t position_of(const layerline_session *session)
{
    return (size_t)session_info_of(session).position;
}

void fill_tokens(int32_t *tokens, size_t count, uint32_t vocab, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 12345u;
    size_t i;
    for (i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        tokens[i] = (int32_t)((state >> 8) % vocab);
    }
}

float *copy_logits(const layerline_session *session, size_t row, size_t *vocab)
{
    const float *logits = NULL;
    float *copy;
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_session_logits(session, row, &logits, vocab, NULL)));
    REQUIRE(logits != NULL && *vocab > 0);
    copy = malloc(*vocab * sizeof *copy);
    REQUIRE(copy != NULL);
    memcpy(copy, logits, *vocab * sizeof *copy);
    return copy;
}

bool same_logits(const layerline_session *session, size_t row, const float *expected, size_t vocab)
{
    const float *logits = NULL;
    size_t found = 0;
    if (layerline_session_logits(session, row, &logits, &found, NULL) != LAYERLINE_OK || found != vocab) {
        return false;
    }
    return memcmp(logits, expected, vocab * sizeof *expected) == 0;
}

/* -- files and text -------------------------------------------------------------------------------------------------- */

unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes;
    long length;
    if (file == NULL) {
        fprintf(stderr, "cannot open %s\n", path);
    }
    REQUIRE(file != NULL);
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    length = ftell(file);
    REQUIRE(length > 0);
    rewind(file);
    bytes = malloc((size_t)length);
    REQUIRE(bytes != NULL);
    REQUIRE(fread(bytes, 1, (size_t)length, file) == (size_t)length);
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

int make_file(char path[PATH_SIZE], const void *bytes, size_t size)
{
#ifdef _WIN32
    const char *folder = getenv("TEMP");
#else
    const char *folder = getenv("TMPDIR");
#endif
    size_t done = 0;
    int fd;
    snprintf(path, PATH_SIZE, "%s/layerline-ctest-XXXXXX", folder != NULL && folder[0] != '\0' ? folder : "/tmp");
    fd = mkstemp(path);
    REQUIRE(fd >= 0);
#ifdef _WIN32 /* where it is opened for nobody else */
    close(fd);
    fd = open(path, O_RDWR | O_BINARY);
    REQUIRE(fd >= 0);
#endif
    while (done < size) {
        ssize_t count = write(fd, (const char *)bytes + done, size - done);
        REQUIRE(count > 0);
        done += (size_t)count;
    }
    return fd;
}

bool is_ready(intptr_t handle, int milliseconds)
{
#ifdef _WIN32
    return WaitForSingleObject((HANDLE)handle, (DWORD)milliseconds) == WAIT_OBJECT_0;
#else
    struct pollfd p = { 0 };
    p.fd = (int)handle;
    p.events = POLLIN;
    return poll(&p, 1, milliseconds) == 1 && (p.revents & POLLIN) != 0;
#endif
}

static unsigned char *put(unsigned char *to, uint64_t value, size_t size)
{
    size_t i;
    for (i = 0; i < size; i++) {
        *to++ = (unsigned char)(value >> (8 * i));
    }
    return to;
}

void make_chat_model(char path[PATH_SIZE], const char *chat_template)
{
    static const char key[] = "tokenizer.chat_template";
    enum { HEADER = 24, PAIRS_AT = 16, STRING = 8, ALIGNMENT = 32, LEAST_COMMENT = 4 };
    size_t size = 0, length = chat_template == NULL ? 0 : strlen(chat_template), pair, comment, i;
    unsigned char *model = read_file(data_path(TINY_MODEL), &size), *made, *to;
    uint64_t pairs = 0;
    if (chat_template == NULL) {
        close(make_file(path, model, size));
        free(model);
        return;
    }
    /* The tensors stay where they are aligned: a comment of Jinja's fills the pair up. */
    pair = 8 + (sizeof key - 1) + 4 + 8 + length;
    for (comment = LEAST_COMMENT; (pair + comment) % ALIGNMENT != 0; comment++) {
    }
    pair += comment;
    made = malloc(size + pair);
    REQUIRE(made != NULL && size > HEADER);
    for (i = 0; i < 8; i++) {
        pairs |= (uint64_t)model[PAIRS_AT + i] << (8 * i);
    }
    memcpy(made, model, PAIRS_AT);
    to = put(made + PAIRS_AT, pairs + 1, 8);
    to = put(to, sizeof key - 1, 8);
    memcpy(to, key, sizeof key - 1);
    to = put(to + sizeof key - 1, STRING, 4);
    to = put(to, length + comment, 8);
    memcpy(to, chat_template, length);
    to += length;
    memset(to, '#', comment);
    to[0] = '{';
    to[comment - 1] = '}';
    memcpy(to + comment, model + HEADER, size - HEADER);
    close(make_file(path, made, size + pair));
    free(made);
    free(model);
}

bool go_on(int32_t token, const char *piece, size_t length, void *user_data)
{
    (void)token;
    (void)piece;
    (void)length;
    (void)user_data;
    return true;
}

bool is_utf8(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;
    while (i < length) {
        unsigned char lead = s[i];
        unsigned char low = 0x80, high = 0xBF;
        size_t more, k;
        if (lead < 0x80) {
            i++;
            continue;
        }
        if (lead >= 0xC2 && lead <= 0xDF) {
            more = 1;
        } else if (lead >= 0xE0 && lead <= 0xEF) {
            more = 2;
            low = lead == 0xE0 ? 0xA0 : low;
            high = lead == 0xED ? 0x9F : high;
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            more = 3;
            low = lead == 0xF0 ? 0x90 : low;
            high = lead == 0xF4 ? 0x8F : high;
        } else {
            return false;
        }
        if (length - i <= more || s[i + 1] < low || s[i + 1] > high) {
            return false;
        }
        for (k = 2; k <= more; k++) {
            if (s[i + k] < 0x80 || s[i + k] > 0xBF) {
                return false;
            }
        }
        i += more + 1;
    }
    return true;
}
