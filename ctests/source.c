/* Models read by the host's own callback: out of memory, in pieces, failing and blocking on command. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <pthread.h>

/* A file in memory, and what its callback is to do. */
typedef struct storage {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned char *bytes;
    size_t size;
    size_t most;     /* bytes that a read gives; 0: all */
    unsigned fails;  /* so many reads fail */
    bool failing;    /* all fail */
    bool nothing;    /* all give nothing */
    bool too_many;   /* all claim one byte more than was asked for */
    bool blocked;    /* all wait */
    unsigned reads, now, most_at_once, waiting, released;
} storage;

static const int32_t prompt[] = { 1, 40, 50, 60 };
#define COUNT (sizeof prompt / sizeof prompt[0])

static int64_t read_storage(uint64_t offset, void *buf, size_t length, void *user_data)
{
    storage *s = (storage *)user_data;
    int64_t result;
    pthread_mutex_lock(&s->lock);
    s->reads++;
    s->now++;
    s->most_at_once = s->now > s->most_at_once ? s->now : s->most_at_once;
    while (s->blocked) {
        s->waiting++;
        pthread_cond_broadcast(&s->changed);
        pthread_cond_wait(&s->changed, &s->lock);
        s->waiting--;
    }
    CHECK(length > 0 && offset + length <= s->size && s->released == 0);
    if (s->failing || s->fails > 0) {
        s->fails -= s->fails > 0;
        result = -7001;
    } else if (s->nothing) {
        result = 0;
    } else {
        size_t n = s->most > 0 && s->most < length ? s->most : length;
        memcpy(buf, s->bytes + offset, n);
        result = s->too_many ? (int64_t)length + 1 : (int64_t)n;
    }
    s->now--;
    pthread_mutex_unlock(&s->lock);
    return result;
}

static void release_storage(void *user_data)
{
    storage *s = (storage *)user_data;
    pthread_mutex_lock(&s->lock);
    s->released++;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void change(storage *s, bool *what, bool to)
{
    pthread_mutex_lock(&s->lock);
    *what = to;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static layerline_source *make_source(storage *s, const char *path, const char *name)
{
    layerline_source *source = NULL;
    layerline_error *err;
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->bytes = read_file(path, &s->size);
    REQUIRE_OK(err, layerline_source_new(s->size, read_storage, release_storage, s, &source, &err));
    CHECK_OK(err, layerline_source_set_name(source, name, &err));
    return source;
}

/* Threads of a model that was freed let go of it a moment later. */
static void end_storage(storage *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->released == 0) {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    CHECK(s->released == 1);
    pthread_mutex_unlock(&s->lock);
    free(s->bytes);
}

static layerline_model *open_source(const layerline_source *source, const settings *s)
{
    layerline_options *options = make_options(s);
    layerline_model *model = NULL;
    layerline_error *err;
    REQUIRE_OK(err, layerline_model_open_source(source, options, &model, &err));
    layerline_options_free(options);
    return model;
}

static layerline_status run(layerline_session *session, layerline_error **err)
{
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    return layerline_session_forward(session, prompt, COUNT, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, err);
}

static bool same_rows(const layerline_session *session, float *const rows[COUNT], size_t vocab)
{
    size_t i;
    for (i = 0; i < COUNT; i++) {
        if (!same_logits(session, i, rows[i], vocab)) {
            return false;
        }
    }
    return true;
}

/* Settings at which most is read again in each pass, and what the file gives. */
static settings expected(float *rows[COUNT], size_t *vocab)
{
    settings s = { 0 };
    layerline_plan plan;
    layerline_model *model;
    layerline_session *session;
    layerline_error *err;
    size_t i;
    s.context = 64;
    s.threads = 2;
    s.budget = 1;
    plan = plan_of(data_path(TINY_MODEL), &s);
    s.budget = plan.floor_bytes + 2 * plan.kv_bytes;
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 64);
    CHECK_OK(err, run(session, &err));
    for (i = 0; i < COUNT; i++) {
        rows[i] = copy_logits(session, i, vocab);
    }
    layerline_session_free(session);
    layerline_model_free(model);
    return s;
}

static void a_source_gives_what_the_file_gives(settings s, float *const rows[COUNT], size_t vocab)
{
    const layerline_plan plan = plan_of(data_path(TINY_MODEL), &s);
    const uint64_t budgets[] = { plan.floor_bytes + 2 * plan.kv_bytes,
                                 (plan.floor_bytes + plan.full_bytes) / 2 + 2 * plan.kv_bytes,
                                 plan.full_bytes + 2 * plan.kv_bytes };
    const size_t pieces[] = { 0, 1000, 17 };
    storage storage;
    layerline_source *source = make_source(&storage, data_path(TINY_MODEL), "tiny.gguf");
    layerline_options *options = make_options(&s);
    layerline_plan own;
    layerline_error *err;
    size_t i;
    memset(&own, 0, sizeof own);
    own.struct_size = (uint32_t)sizeof own;
    CHECK_OK(err, layerline_options_plan_source(options, source, &own, &err));
    CHECK(memcmp(&own, &plan, sizeof own) == 0);
    layerline_options_free(options);
    for (i = 0; i < 12; i++) {
        layerline_model *model;
        layerline_session *session;
        layerline_stats stats;
        s.budget = budgets[i % 3];
        s.prefetch_off = i / 3 == 1;
        storage.most = pieces[i / 3 % 3];
        CHECK_OK(err, layerline_source_set_concurrent(source, i < 9, &err));
        storage.most_at_once = 0;
        model = open_source(source, &s);
        session = new_session(model, 64);
        CHECK_OK(err, run(session, &err));
        CHECK(same_rows(session, rows, vocab));
        CHECK_OK(err, run(session, &err));
        CHECK(same_rows(session, rows, vocab));
        stats = stats_of(model);
        CHECK(stats.io == LAYERLINE_IO_SOURCE && stats.peak_bytes <= s.budget && stats.read_bytes > 0);
        layerline_session_free(session);
        layerline_model_free(model);
        CHECK(i < 9 || storage.most_at_once == 1);
    }
    CHECK(storage.released == 0);
    layerline_source_free(source);
    end_storage(&storage);
}

/* The message has all of these. */
static void check_message(layerline_error *err, const char *first, const char *second, const char *third)
{
    const char *text = layerline_error_message(err);
    const bool good = strstr(text, first) != NULL && strstr(text, second) != NULL && strstr(text, third) != NULL;
    if (!good) {
        fprintf(stderr, "message: %s\n", text);
    }
    CHECK(good);
    layerline_error_free(err);
}

static void what_fails_ends_its_pass_alone(settings s, float *const rows[COUNT], size_t vocab)
{
    storage storage;
    layerline_source *source = make_source(&storage, data_path(TINY_MODEL), "tiny.gguf");
    layerline_model *model;
    layerline_session *session;
    layerline_error *err = NULL;
    s.prefetch_off = true;
    model = open_source(source, &s);
    /* The model has what it needs of it. */
    layerline_source_free(source);
    session = new_session(model, 64);

    storage.fails = 1;
    CHECK_OK(err, run(session, &err));
    CHECK(storage.fails == 0 && same_rows(session, rows, vocab));

    storage.failing = true;
    CHECK_STATUS(LAYERLINE_ERROR_IO, run(session, &err));
    check_message(err, "tiny.gguf", ".weight", "-7001");
    storage.failing = false;
    CHECK_OK(err, run(session, &err));
    CHECK(same_rows(session, rows, vocab));

    storage.nothing = true;
    CHECK_STATUS(LAYERLINE_ERROR_IO, run(session, &err));
    check_message(err, "tiny.gguf", ".weight", "gives nothing at");
    storage.nothing = false;

    storage.too_many = true;
    CHECK_STATUS(LAYERLINE_ERROR_IO, run(session, &err));
    check_message(err, "tiny.gguf", ".weight", "were asked for");
    storage.too_many = false;

    CHECK_OK(err, run(session, &err));
    CHECK(same_rows(session, rows, vocab));
    /* The session keeps it for as long as it needs it. */
    layerline_model_free(model);
    CHECK(storage.released == 0);
    CHECK_OK(err, run(session, &err));
    CHECK(same_rows(session, rows, vocab));
    layerline_session_free(session);
    end_storage(&storage);
}

typedef struct pass {
    layerline_session *session;
    layerline_status status;
} pass;

static void *run_pass(void *data)
{
    pass *p = (pass *)data;
    p->status = layerline_session_forward(p->session, prompt, COUNT, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, NULL);
    return NULL;
}

static void a_source_that_blocks_holds_up_what_waits_for_it_alone(settings s, float *const rows[COUNT], size_t vocab)
{
    storage storage;
    layerline_source *source = make_source(&storage, data_path(TINY_MODEL), "tiny.gguf");
    layerline_model *model = open_source(source, &s);
    layerline_session *session = new_session(model, 64);
    layerline_error *err;
    pthread_t thread;
    pass p;
    CHECK_OK(err, run(session, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    p.session = session;
    change(&storage, &storage.blocked, true);
    REQUIRE(pthread_create(&thread, NULL, run_pass, &p) == 0);
    pthread_mutex_lock(&storage.lock);
    while (storage.waiting == 0) {
        pthread_cond_wait(&storage.changed, &storage.lock);
    }
    pthread_mutex_unlock(&storage.lock);
    layerline_session_interrupt(session);
    /* A row of the embeddings is read on the pass's own thread, which the callback has to let go. */
    change(&storage, &storage.blocked, false);
    pthread_join(thread, NULL);
    CHECK(p.status == LAYERLINE_ERROR_CANCELLED || p.status == LAYERLINE_OK);
    layerline_session_clear_interrupt(session);
    CHECK_OK(err, run(session, &err));
    CHECK(same_rows(session, rows, vocab));
    layerline_session_free(session);
    layerline_model_free(model);

    /* Freed while its first reads stand: it leaves them behind. */
    s.budget = 0;
    model = open_source(source, &s);
    pthread_mutex_lock(&storage.lock);
    storage.blocked = true;
    pthread_mutex_unlock(&storage.lock);
    layerline_source_free(source);
    layerline_model_free(model);
    change(&storage, &storage.blocked, false);
    end_storage(&storage);
}

static void what_is_wrong_is_refused(settings s)
{
    static const int32_t modes[] = { LAYERLINE_IO_DIRECT, LAYERLINE_IO_MMAP };
    storage storage, lora;
    layerline_source *source = make_source(&storage, data_path(TINY_MODEL), "tiny.gguf"), *other = NULL, *none = NULL;
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_adapter *adapter = NULL;
    layerline_error *err = NULL;
    size_t i;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_new(9, NULL, release_storage, &storage, &other, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_new(9, read_storage, NULL, NULL, NULL, &err));
    CHECK(storage.released == 0);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_set_name(source, "\xff", &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_add_file(source, source, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_add_file(source, NULL, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_open_source(none, options, &model, &err));
    for (i = 0; i < 2; i++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_options_set_io(options, modes[i]));
        CHECK_STATUS(LAYERLINE_ERROR_UNSUPPORTED, layerline_model_open_source(source, options, &model, &err));
        check_message(err, "tiny.gguf", "host's source", "buffered");
    }
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_io(options, LAYERLINE_IO_SOURCE));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_io(options, LAYERLINE_IO_BUFFERED));

    /* Two files where the model is one. */
    other = make_source(&lora, LAYERLINE_ADAPTER, "lora.gguf");
    CHECK_OK(err, layerline_source_add_file(source, other, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_source_add_file(other, source, &err));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_open_source(source, options, &model, &err));
    check_message(err, "tiny.gguf", "in 1 files", "2 sources");
    CHECK(model == NULL);

    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_memory_budget(options, 0));
    REQUIRE_OK(err, layerline_model_open(data_path(TINY_MODEL), options, &model, &err));
    CHECK_OK(err, layerline_adapter_open_source(model, other, &adapter, &err));
    CHECK(layerline_adapter_memory_bytes(adapter) > 768);
    layerline_adapter_free(adapter);
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_adapter_open_source(model, source, &adapter, &err));
    lora.failing = true;
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_adapter_open_source(model, other, &adapter, &err));
    check_message(err, "lora.gguf", "at offset 0", "-7001");
    layerline_model_free(model);
    layerline_options_free(options);
    layerline_source_free(source);
    layerline_source_free(other);
    end_storage(&storage);
    end_storage(&lora);
}

int main(void)
{
    float *rows[COUNT];
    size_t vocab = 0, i;
    const settings s = expected(rows, &vocab);
    a_source_gives_what_the_file_gives(s, rows, vocab);
    what_fails_ends_its_pass_alone(s, rows, vocab);
    a_source_that_blocks_holds_up_what_waits_for_it_alone(s, rows, vocab);
    what_is_wrong_is_refused(s);
    for (i = 0; i < COUNT; i++) {
        free(rows[i]);
    }
    return check_result();
}
