/* Threads that the host cancels in the middle of calls: a call returns as ever, and its thread ends after it. */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define TOKENS 24
#define ROUNDS 40

static layerline_model *model;
static layerline_session *session;
static int32_t tokens[TOKENS];
static char path[PATH_SIZE];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned calls;
static bool callback_returned;

static void count_call(void)
{
    pthread_mutex_lock(&lock);
    calls++;
    pthread_mutex_unlock(&lock);
}

static unsigned calls_now(void)
{
    unsigned now;
    pthread_mutex_lock(&lock);
    now = calls;
    pthread_mutex_unlock(&lock);
    return now;
}

/* Calls that read, write, wait and compute, with no cancellation point between them. */
static void *call_main(void *data)
{
    (void)data;
    for (;;) {
        layerline_event events[4];
        size_t count = 0;
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                             LAYERLINE_EMBEDDINGS_NONE, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_session_save(session, path, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_session_load(session, path, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, 1, events, 4, &count, NULL));
        count_call();
        pthread_testcancel();
    }
    return NULL;
}

/* Cancelled before it calls: what it called is whole, and it ends at its own point. */
static void *cancelled_main(void *data)
{
    (void)data;
    CHECK(pthread_cancel(pthread_self()) == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                         LAYERLINE_EMBEDDINGS_NONE, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_save(session, path, NULL));
    count_call();
    pthread_testcancel();
    CHECK(!"a thread that is cancelled goes on");
    return NULL;
}

/* The request waits here too: to leave a callback by ending its thread would go through the library's frames. */
static bool in_callback(int32_t token, const char *piece, size_t length, void *user_data)
{
    struct timespec moment = { 0, 1000000 };
    (void)token;
    (void)piece;
    (void)length;
    (void)user_data;
    nanosleep(&moment, NULL);
    callback_returned = true;
    return true;
}

static void *generate_main(void *data)
{
    layerline_sampler *sampler = data;
    CHECK(pthread_cancel(pthread_self()) == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_STATUS(LAYERLINE_OK,
                 layerline_session_generate(session, sampler, tokens, TOKENS, 3, in_callback, NULL, NULL));
    count_call();
    pthread_testcancel();
    CHECK(!"a thread that is cancelled goes on");
    return NULL;
}

/* Its thread must have been cancelled, and not have come to its end. */
static void join_cancelled(pthread_t thread)
{
    void *result = NULL;
    REQUIRE(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED);
}

int main(void)
{
    const char *parent = getenv("TMPDIR");
    settings s = { 0 };
    layerline_sampler *sampler = layerline_sampler_new();
    float *expected;
    size_t vocab = 0;
    pthread_t thread;
    unsigned round;
    int state = -1;

    snprintf(path, sizeof path, "%.500s/layerline-cancel-%ld", parent != NULL && parent[0] != '\0' ? parent : "/tmp",
             (long)getpid());
    fill_tokens(tokens, TOKENS, TINY_VOCAB, 5);
    s.context = 64;
    s.threads = 2;
    {
        /* Weights are read while passes run, and there is room to load a state. */
        const layerline_plan plan = plan_of(data_path(TINY_MODEL), &s);
        s.budget = plan.floor_bytes + plan.kv_bytes;
    }
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                         LAYERLINE_EMBEDDINGS_NONE, NULL));
    expected = copy_logits(session, 0, &vocab);

    for (round = 0; round < ROUNDS; round++) {
        const unsigned before = calls_now();
        struct timespec moment = { 0, 0 };
        moment.tv_nsec = (long)(round * 137 % 50) * 100000;
        REQUIRE(pthread_create(&thread, NULL, call_main, NULL) == 0);
        nanosleep(&moment, NULL);
        CHECK(pthread_cancel(thread) == 0);
        join_cancelled(thread);
        CHECK(calls_now() > before);
    }
    REQUIRE(pthread_create(&thread, NULL, cancelled_main, NULL) == 0);
    join_cancelled(thread);
    CHECK(same_logits(session, 0, expected, vocab));
    REQUIRE(sampler != NULL && pthread_create(&thread, NULL, generate_main, sampler) == 0);
    join_cancelled(thread);
    CHECK(callback_returned);

    /* A thread's own setting is as it was. */
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0 && state == PTHREAD_CANCEL_ENABLE);
    CHECK(position_of(session) > 0);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0 && state == PTHREAD_CANCEL_DISABLE);

    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                         LAYERLINE_EMBEDDINGS_NONE, NULL));
    CHECK(same_logits(session, 0, expected, vocab));
    free(expected);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
    layerline_model_free(model);
    remove(path);
    return check_result();
}
