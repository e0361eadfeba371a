/* Sessions saved, loaded and copied: the same bits afterwards, and nothing lost where storage, memory or a file fail. */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef _WIN32
#include <direct.h>
#include <process.h>
#else
#include <signal.h>
#include <sys/resource.h>
#endif

#define PROMPT 20
#define NEXT 6

static settings small(void)
{
    settings s = { 0 };
    s.context = 64;
    s.threads = 2;
    return s;
}

/* A folder of our own for the files; room for their names. */
static char folder[PATH_SIZE / 4];
static char path[PATH_SIZE / 2];

static int32_t tokens[PROMPT + NEXT];

static void make_folder(void)
{
#ifdef _WIN32
    snprintf(folder, sizeof folder, "%.500s/layerline-state-%d", getenv("TEMP"), _getpid());
    REQUIRE(_mkdir(folder) == 0);
#else
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%.500s/layerline-state-XXXXXX",
             parent != NULL && parent[0] != '\0' ? parent : "/tmp");
    REQUIRE(mkdtemp(folder) != NULL);
#endif
    snprintf(path, sizeof path, "%s/state", folder);
}

/* How many files the folder has. */
static unsigned files(void)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    unsigned count = 0;
    REQUIRE(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    }
    closedir(dir);
    return count;
}

static layerline_session *prompted(layerline_model *model, uint32_t context, size_t count)
{
    layerline_session *session = new_session(model, context);
    layerline_error *err;
    REQUIRE_OK(err, layerline_session_forward(session, tokens, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &err));
    return session;
}

static layerline_session *copy_of(const layerline_session *session, uint32_t context)
{
    layerline_session *copy = NULL;
    layerline_error *err;
    REQUIRE_OK(err, layerline_session_copy(session, context, &copy, &err));
    REQUIRE(copy != NULL && copy != session);
    return copy;
}

static void save(const layerline_session *session)
{
    layerline_error *err;
    CHECK_OK(err, layerline_session_save(session, path, &err));
}

/* The session stands after the prompt, with its logits, and goes on with the bits of one that was never disturbed. */
static void goes_on_as_expected(layerline_session *session)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *expected = prompted(model, 0, PROMPT);
    layerline_error *err;
    size_t vocab, i;
    float *logits = copy_logits(expected, 0, &vocab);
    CHECK(position_of(session) == PROMPT && same_logits(session, 0, logits, vocab));
    for (i = 0; i < NEXT; i++) {
        free(logits);
        CHECK_OK(err, layerline_session_forward(expected, tokens + PROMPT + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        CHECK_OK(err, layerline_session_forward(session, tokens + PROMPT + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        logits = copy_logits(expected, 0, &vocab);
        CHECK(same_logits(session, 0, logits, vocab));
    }
    free(logits);
    layerline_session_free(expected);
    layerline_model_free(model);
}

static void a_saved_session_goes_on_in_another_model_object_and_context(void)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *session = prompted(model, 32, PROMPT);
    layerline_error *err;
    struct stat facts;
    save(session);
    layerline_session_free(session);
    layerline_model_free(model);

    s.threads = 1;
    s.chunk = 4;
    s.prefetch_off = true;
    model = open_model(data_path(TINY_MODEL), &s);
    session = prompted(model, 0, 3);
    CHECK_OK(err, layerline_session_load(session, path, &err));
    goes_on_as_expected(session);
    CHECK(stat(path, &facts) == 0 && files() == 1);
#ifndef _WIN32 /* where folders, not files, say who may read */
    CHECK((facts.st_mode & 0777) == 0600);
#endif
    /* The same file again, over what has come since. */
    CHECK_OK(err, layerline_session_load(session, path, &err));
    goes_on_as_expected(session);
    layerline_session_free(session);
    layerline_model_free(model);
}

static void copies_outlive_what_they_were_made_of(void)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *first = prompted(model, 32, PROMPT), *second = copy_of(first, 0), *third = copy_of(second, 64);
    layerline_error *err;
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(first, 2, NULL));
    CHECK_OK(err, layerline_session_forward(first, tokens, 8, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    layerline_model_free(model);
    layerline_session_free(first);
    goes_on_as_expected(second);
    layerline_session_free(second);
    goes_on_as_expected(third);
    layerline_session_free(third);
}

static void a_copy_pays_from_the_budget_and_gives_it_back(void)
{
    settings s = small();
    layerline_model *model;
    layerline_session *session, *copy = NULL;
    layerline_error *err;
    layerline_plan plan;
    unsigned i;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(data_path(TINY_MODEL), &s);
    s.budget = plan.floor_bytes;
    model = open_model(data_path(TINY_MODEL), &s);
    session = prompted(model, 0, PROMPT);
    CHECK_BUDGET_ERROR(err, layerline_session_copy(session, 0, &copy, &err));
    CHECK(copy == NULL);
    CHECK_OK(err, layerline_model_set_memory_budget(model, plan.floor_bytes + plan.kv_bytes, &err));
    for (i = 0; i < 20; i++) {
        layerline_session_free(copy_of(session, 0));
    }
    CHECK_OK(err, layerline_model_set_memory_budget(model, plan.floor_bytes, &err));
    CHECK_BUDGET_ERROR(err, layerline_session_copy(session, 0, &copy, &err));
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_copy(session, PROMPT - 1, &copy, &err));
    CHECK(copy == NULL);
    goes_on_as_expected(session);
    layerline_session_free(session);
    layerline_model_free(model);
}

static void what_does_not_fit_or_is_of_another_model_changes_nothing(layerline_model *model)
{
    settings s = small();
    layerline_session *session = prompted(model, 0, PROMPT), *tight = prompted(model, 8, 5), *other;
    layerline_model *another = open_model(data_path("arch/qwen3.gguf"), &s);
    layerline_error *err;
    save(session);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_load(tight, path, &err));
    CHECK(position_of(tight) == 5);
    other = new_session(another, 0);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_load(other, path, &err));
    CHECK(position_of(other) == 0);
    CHECK_ERROR(LAYERLINE_ERROR_FORMAT, err, layerline_session_load(session, data_path(TINY_MODEL), &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_load(session, folder, &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(session, folder, &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(session, "", &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_load(session, "", &err));
    goes_on_as_expected(session);
    layerline_session_free(session);
    layerline_session_free(tight);
    layerline_session_free(other);
    layerline_model_free(another);
}

static void a_state_goes_to_memory_and_back(layerline_model *model)
{
    layerline_session *session = prompted(model, 0, PROMPT), *other = new_session(model, 32);
    layerline_error *err;
    unsigned char *state, *file;
    size_t needed = 0, size = 0;
    CHECK_ERROR(LAYERLINE_ERROR_BUFFER_TOO_SMALL, err, layerline_session_save_buffer(session, NULL, 0, &needed, &err));
    REQUIRE(needed > 0);
    state = malloc(needed + 1);
    REQUIRE(state != NULL);
    memset(state, 0xEE, needed + 1);
    size = needed;
    CHECK_ERROR(LAYERLINE_ERROR_BUFFER_TOO_SMALL, err, layerline_session_save_buffer(session, state, size - 1, &needed,
                                                                                     &err));
    CHECK(needed == size && state[0] == 0xEE);
    CHECK_OK(err, layerline_session_save_buffer(session, state, size + 1, &needed, &err));
    CHECK(needed == size && state[size] == 0xEE);
    /* It is what a file has, and either goes both ways. */
    save(session);
    file = read_file(path, &size);
    CHECK(size == needed && memcmp(file, state, size) == 0);
    free(file);
    CHECK_OK(err, layerline_session_load(other, path, &err));
    CHECK_OK(err, layerline_session_truncate(other, 2, &err));
    state[size / 2] ^= 1;
    CHECK_ERROR(LAYERLINE_ERROR_FORMAT, err, layerline_session_load_buffer(other, state, size, &err));
    state[size / 2] ^= 1;
    CHECK_ERROR(LAYERLINE_ERROR_FORMAT, err, layerline_session_load_buffer(other, state, size - 1, &err));
    CHECK_ERROR(LAYERLINE_ERROR_FORMAT, err, layerline_session_load_buffer(other, NULL, 0, &err));
    CHECK(position_of(other) == 2);
    CHECK_OK(err, layerline_session_load_buffer(other, state, size, &err));
    goes_on_as_expected(other);
    free(state);
    layerline_session_free(session);
    layerline_session_free(other);
}

#ifndef _WIN32 /* which knows neither such limits nor such folders */
/* A limit on the size of files stands for storage without room: a write ends short, the next one fails. */
static void a_full_disk_leaves_the_file_that_was_there(layerline_model *model)
{
    layerline_session *longer = prompted(model, 0, PROMPT + NEXT), *session = prompted(model, 0, PROMPT);
    layerline_error *err;
    struct rlimit before, limit;
    rlim_t room[] = { 0, 100, 5000 };
    size_t i;
    save(session);
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    for (i = 0; i < sizeof room / sizeof room[0]; i++) {
        limit = before;
        limit.rlim_cur = room[i];
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(longer, path, &err));
        REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
        CHECK(files() == 1);
    }
    CHECK_OK(err, layerline_session_load(longer, path, &err));
    goes_on_as_expected(longer);
    layerline_session_free(longer);
    layerline_session_free(session);
}

static void a_folder_that_cannot_be_written_is_said(layerline_model *model)
{
    layerline_session *session = prompted(model, 0, PROMPT);
    layerline_error *err;
    char inside[PATH_SIZE];
    snprintf(inside, sizeof inside, "%s/closed", folder);
    REQUIRE(mkdir(inside, 0500) == 0);
    strcat(inside, "/state");
    if (geteuid() == 0) { /* who may write everywhere is refused elsewhere */
        snprintf(inside, sizeof inside, "/proc/self/state");
    }
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(session, inside, &err));
    snprintf(inside, sizeof inside, "%s/closed", folder);
    CHECK(rmdir(inside) == 0);
    layerline_session_free(session);
}
#endif

static void a_session_in_a_pass_is_busy(layerline_model *model)
{
    layerline_session *session = new_session(model, 0), *copy = NULL;
    layerline_error *err;
    layerline_event event;
    uint64_t ticket = 0;
    size_t count = 0;
    unsigned seen;
    save(session); /* nothing is a state too */
    /* The pass may be over before anybody asks: then it is not busy, but free. */
    for (seen = 0; seen < 2; seen++) {
        layerline_status status;
        CHECK_OK(err, layerline_session_submit(session, tokens, PROMPT, LAYERLINE_LOGITS_LAST,
                                               LAYERLINE_EMBEDDINGS_NONE, &ticket, &err));
        err = NULL;
        status = layerline_session_copy(session, 0, &copy, &err);
        CHECK(status == LAYERLINE_ERROR_BUSY ? copy == NULL : status == LAYERLINE_OK);
        layerline_error_free(err);
        err = NULL;
        status = layerline_session_save(session, path, &err);
        CHECK(status == LAYERLINE_ERROR_BUSY || status == LAYERLINE_OK);
        layerline_error_free(err);
        CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, &event, 1, &count, NULL));
        CHECK(count == 1 && event.ticket == ticket && event.status == LAYERLINE_OK);
        layerline_session_free(copy);
        copy = NULL;
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    }
    CHECK_OK(err, layerline_session_forward(session, tokens, PROMPT, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    goes_on_as_expected(session);
    layerline_session_free(session);
}

typedef struct poller {
    layerline_model *model;
    pthread_mutex_t lock;
    bool stop;
} poller;

static void *poll_until_told(void *data)
{
    poller *self = data;
    bool stop = false;
    while (!stop) {
        layerline_event events[4];
        size_t count = 0;
        CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(self->model, events, 4, &count, NULL));
        stats_of(self->model);
        pthread_mutex_lock(&self->lock);
        stop = self->stop;
        pthread_mutex_unlock(&self->lock);
    }
    return NULL;
}

typedef struct saver {
    const layerline_session *session;
} saver;

static void *save_often(void *data)
{
    unsigned i;
    for (i = 0; i < 20; i++) {
        save(((saver *)data)->session);
    }
    return NULL;
}

/* Several threads write one name while another polls and this one reads it: what is read is always whole. */
static void a_name_that_many_write_is_always_whole(layerline_model *model)
{
    layerline_session *session = prompted(model, 0, PROMPT), *reader = new_session(model, 0);
    layerline_error *err;
    poller watch;
    saver write;
    pthread_t threads[4];
    size_t i;
    watch.model = model;
    watch.stop = false;
    write.session = session;
    save(session);
    pthread_mutex_init(&watch.lock, NULL);
    REQUIRE(pthread_create(&threads[0], NULL, poll_until_told, &watch) == 0);
    for (i = 1; i < 4; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, save_often, &write) == 0);
    }
    for (i = 0; i < 20; i++) {
        CHECK_OK(err, layerline_session_load(reader, path, &err));
        CHECK(position_of(reader) == PROMPT);
    }
    for (i = 1; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_mutex_lock(&watch.lock);
    watch.stop = true;
    pthread_mutex_unlock(&watch.lock);
    pthread_join(threads[0], NULL);
    pthread_mutex_destroy(&watch.lock);
    CHECK(files() == 1);
    goes_on_as_expected(reader);
    layerline_session_free(session);
    layerline_session_free(reader);
}

int main(void)
{
    settings s = small();
    layerline_model *model;
    fill_tokens(tokens, PROMPT + NEXT, TINY_VOCAB, 9);
    make_folder();
    a_saved_session_goes_on_in_another_model_object_and_context();
    copies_outlive_what_they_were_made_of();
    a_copy_pays_from_the_budget_and_gives_it_back();
    model = open_model(data_path(TINY_MODEL), &s);
    what_does_not_fit_or_is_of_another_model_changes_nothing(model);
    a_state_goes_to_memory_and_back(model);
#ifndef _WIN32
    a_full_disk_leaves_the_file_that_was_there(model);
    a_folder_that_cannot_be_written_is_said(model);
#endif
    a_session_in_a_pass_is_busy(model);
    a_name_that_many_write_is_always_whole(model);
    layerline_model_free(model);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    return check_result();
}
