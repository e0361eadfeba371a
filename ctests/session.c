/* Sessions: passes, positions, logits, going back, being interrupted, and who outlives whom. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

static settings small(void)
{
    settings s = { 0 };
    s.context = 256;
    s.threads = 2;
    return s;
}

/* An interrupt that comes before its call ends that call and no other; it can be taken back. */
static void an_interrupt_before_a_call_is_not_lost(layerline_model *model)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t token = 5;
    layerline_session_interrupt(session);
    layerline_session_interrupt(session);
    CHECK_ERROR(LAYERLINE_ERROR_CANCELLED, err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST,
                                                                          LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 0);
    CHECK_OK(err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    layerline_session_interrupt(session);
    layerline_session_clear_interrupt(session);
    CHECK_OK(err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(position_of(session) == 2 && session_info_of(session).context_length == info_of(model).context_length);
    CHECK(session_info_of(session).memory_bytes > session_info_of(session).cache_bytes);
    CHECK(session_info_of(session).kv_type == LAYERLINE_KV_F16 && session_info_of(session).fewest_tokens == 1);
    layerline_session_free(session);
}

static void each_logits_mode_yields_its_rows(layerline_model *model)
{
    layerline_session *session = new_session(model, 0), *other = new_session(model, 0);
    layerline_error *err;
    const float *logits = NULL;
    size_t vocab = 0, row, i;
    int32_t tokens[12];
    float *last;
    fill_tokens(tokens, 12, TINY_VOCAB, 1);

    /* Before any pass there is nothing to see. */
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_logits(session, 0, &logits, &vocab, NULL));
    CHECK(logits == NULL && vocab == 0);

    CHECK_OK(err, layerline_session_forward(session, tokens, 12, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    for (row = 0; row < 12; row++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_session_logits(session, row, &logits, &vocab, NULL));
        REQUIRE(logits != NULL && vocab == TINY_VOCAB);
        for (i = 0; i < vocab; i++) {
            CHECK(isfinite(logits[i]));
        }
    }
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_logits(session, 12, &logits, &vocab, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_logits(session, SIZE_MAX, &logits, &vocab, NULL));
    last = copy_logits(session, 11, &vocab);

    CHECK_OK(err, layerline_session_forward(other, tokens, 12, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(same_logits(other, 0, last, vocab));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_logits(other, 1, &logits, &vocab, NULL));

    CHECK_OK(err, layerline_session_forward(other, tokens, 1, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_logits(other, 0, &logits, &vocab, NULL));
    CHECK(position_of(session) == 12 && position_of(other) == 13);
    free(last);
    layerline_session_free(session);
    layerline_session_free(other);
}

static void bad_tokens_and_modes_change_nothing(layerline_model *model)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t tokens[4] = { 1, 2, 3, 4 };
    size_t vocab;
    float *before;
    CHECK_OK(err, layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    before = copy_logits(session, 0, &vocab);
    tokens[2] = -1;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    tokens[2] = (int32_t)TINY_VOCAB;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    tokens[2] = INT32_MAX;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    tokens[2] = 3;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 4, 3, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 4, -1, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, tokens, 0, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 4);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(same_logits(session, 0, before, vocab));
    free(before);
    layerline_session_free(session);
}

static void truncate_forgets_all_after(layerline_model *model)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t tokens[16];
    size_t vocab;
    float *expected;
    fill_tokens(tokens, 16, TINY_VOCAB, 7);
    CHECK_OK(err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_OK(err, layerline_session_forward(session, tokens + 8, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    expected = copy_logits(session, 0, &vocab);
    /* Another continuation, then back: the same tokens give the same bits again. */
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 8, NULL));
    CHECK(position_of(session) == 8);
    CHECK_OK(err, layerline_session_forward(session, tokens + 12, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(!same_logits(session, 0, expected, vocab));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 8, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens + 8, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(same_logits(session, 0, expected, vocab));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_truncate(session, 13, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_truncate(session, SIZE_MAX, NULL));
    CHECK(position_of(session) == 12);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 12, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK(position_of(session) == 0);
    free(expected);
    layerline_session_free(session);
}

static void a_full_context_is_said_and_harms_nothing(layerline_model *model)
{
    layerline_session *session = new_session(model, 24);
    layerline_error *err;
    int32_t tokens[25];
    fill_tokens(tokens, 25, TINY_VOCAB, 5);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_forward(session, tokens, 25, LAYERLINE_LOGITS_LAST,
                                                                             LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, 20, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_forward(session, tokens, 5, LAYERLINE_LOGITS_LAST,
                                                                             LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 20);
    CHECK_OK(err, layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_LAST,
                                                                             LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 10, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, 14, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(position_of(session) == 24);
    layerline_session_free(session);
}

static void sessions_do_not_see_each_other(layerline_model *model)
{
    layerline_session *a = new_session(model, 64), *b = new_session(model, 128);
    layerline_error *err;
    int32_t tokens[10], others[10];
    size_t vocab, i;
    float *expected;
    fill_tokens(tokens, 10, TINY_VOCAB, 1);
    fill_tokens(others, 10, TINY_VOCAB, 2);
    for (i = 0; i < 10; i++) {
        CHECK_OK(err, layerline_session_forward(a, tokens + i, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                &err));
    }
    expected = copy_logits(a, 0, &vocab);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(a, 0, NULL));
    for (i = 0; i < 10; i++) { /* now in turns with another sequence */
        CHECK_OK(err, layerline_session_forward(a, tokens + i, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                &err));
        CHECK_OK(err, layerline_session_forward(b, others + i, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                &err));
    }
    CHECK(same_logits(a, 0, expected, vocab));
    free(expected);
    layerline_session_free(a);
    layerline_session_free(b);
}

typedef struct interrupter {
    const layerline_session *session;
    pthread_mutex_t lock;
    bool stop;
} interrupter;

static void *interrupt_until_told(void *data)
{
    interrupter *self = data;
    bool stop = false;
    while (!stop) {
        layerline_session_interrupt(self->session);
        pthread_mutex_lock(&self->lock);
        stop = self->stop;
        pthread_mutex_unlock(&self->lock);
    }
    return NULL;
}

static void an_interrupted_pass_leaves_the_session_as_before(layerline_model *model)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err = NULL;
    interrupter self;
    pthread_t thread;
    int32_t tokens[200];
    size_t vocab;
    unsigned cancelled = 0, attempts;
    float *expected;
    fill_tokens(tokens, 200, TINY_VOCAB, 3);
    CHECK_OK(err, layerline_session_forward(session, tokens, 10, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_OK(err, layerline_session_forward(session, tokens + 10, 190, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    expected = copy_logits(session, 0, &vocab);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 10, NULL));

    self.session = session;
    self.stop = false;
    pthread_mutex_init(&self.lock, NULL);
    REQUIRE(pthread_create(&thread, NULL, interrupt_until_told, &self) == 0);
    for (attempts = 0; attempts < 2000 && cancelled < 3; attempts++) {
        layerline_status status;
        err = NULL;
        status = layerline_session_forward(session, tokens + 10, 190, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                           &err);
        if (status == LAYERLINE_ERROR_CANCELLED) {
            cancelled++;
            CHECK(err != NULL && layerline_error_status(err) == LAYERLINE_ERROR_CANCELLED);
            CHECK(position_of(session) == 10);
        } else {
            CHECK_STATUS(LAYERLINE_OK, status);
            CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 10, NULL));
        }
        layerline_error_free(err);
    }
    CHECK(cancelled > 0);
    pthread_mutex_lock(&self.lock);
    self.stop = true;
    pthread_mutex_unlock(&self.lock);
    pthread_join(thread, NULL);
    layerline_session_clear_interrupt(session);
    pthread_mutex_destroy(&self.lock);

    /* The interrupts are over, and were for passes that ran then: this one runs to its end, with the same bits. */
    CHECK_OK(err, layerline_session_forward(session, tokens + 10, 190, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(same_logits(session, 0, expected, vocab));
    free(expected);
    layerline_session_free(session);
}

static void handles_may_be_freed_in_any_order(void)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *a = new_session(model, 32), *b = new_session(model, 32);
    layerline_sampler *sampler = layerline_sampler_new();
    layerline_error *err;
    int32_t tokens[4] = { 1, 9, 8, 7 }, token = -1;
    REQUIRE(sampler != NULL);
    layerline_model_free(model); /* the sessions keep it alive */
    CHECK_OK(err, layerline_session_forward(a, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_OK(err, layerline_session_forward(b, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    layerline_session_free(a);
    CHECK_OK(err, layerline_session_forward(b, tokens, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(sampler, b, &token, NULL));
    CHECK(token >= 0 && token < (int32_t)TINY_VOCAB);
    layerline_session_free(b);
    layerline_sampler_free(sampler);
    layerline_session_free(NULL);
}

static void a_session_pays_from_the_budget_and_gives_it_back(void)
{
    settings s = small();
    layerline_model *model;
    layerline_session *first, *second = NULL;
    layerline_error *err;
    layerline_plan plan;
    uint64_t used;
    struct timespec moment = { 0, 1000000 };
    unsigned left = 60000; /* a minute only bounds a failure */
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(data_path(TINY_MODEL), &s);
    s.budget = plan.floor_bytes;
    model = open_model(data_path(TINY_MODEL), &s);
    first = new_session(model, 0);
    CHECK_BUDGET_ERROR(err, layerline_session_new(model, 0, &second, &err));
    CHECK(second == NULL);
    layerline_session_free(first);
    first = new_session(model, 0);
    CHECK(stats_of(model).peak_bytes <= s.budget);
    /* More room, another session; it goes, and what it took is free again. */
    CHECK_OK(err, layerline_model_set_memory_budget(model, plan.floor_bytes + plan.kv_bytes + plan.scratch_bytes,
                                                    &err));
    used = stats_of(model).budget_bytes;
    CHECK(used == plan.floor_bytes + plan.kv_bytes + plan.scratch_bytes);
    CHECK_OK(err, layerline_session_new(model, 0, &second, &err));
    layerline_session_free(second);
    CHECK_OK(err, layerline_model_set_memory_budget(model, plan.floor_bytes, &err));
    CHECK_BUDGET_ERROR(err, layerline_model_set_memory_budget(model, plan.floor_bytes - 1, &err));
    CHECK(stats_of(model).budget_bytes == plan.floor_bytes);
    /* Frames that reads under way write to go when those end. */
    while (stats_of(model).used_bytes > plan.floor_bytes && left-- > 0) {
        nanosleep(&moment, NULL);
    }
    CHECK(stats_of(model).used_bytes <= plan.floor_bytes);
    layerline_session_free(first);
    layerline_model_free(model);
}

int main(void)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    an_interrupt_before_a_call_is_not_lost(model);
    each_logits_mode_yields_its_rows(model);
    bad_tokens_and_modes_change_nothing(model);
    truncate_forgets_all_after(model);
    a_full_context_is_said_and_harms_nothing(model);
    sessions_do_not_see_each_other(model);
    an_interrupted_pass_leaves_the_session_as_before(model);
    layerline_model_free(model);
    handles_may_be_freed_in_any_order();
    a_session_pays_from_the_budget_and_gives_it_back();
    return check_result();
}
