/* One model, many threads: two sessions run, a third thread prefetches, a fourth moves the budget; the bits stay. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <pthread.h>

#define PASSES 40
#define LAYERS TINY_LAYERS

typedef struct shared {
    layerline_model *model;
    uint64_t least, most; /* budgets */
    pthread_mutex_t lock;
    bool stop;
} shared;

typedef struct runner {
    shared *all;
    layerline_session *session;
    uint32_t seed;
    float *expected;
    size_t vocab;
} runner;

static bool stopped(shared *all)
{
    bool stop;
    pthread_mutex_lock(&all->lock);
    stop = all->stop;
    pthread_mutex_unlock(&all->lock);
    return stop;
}

static void run_sequence(layerline_session *session, uint32_t seed)
{
    int32_t tokens[PASSES + 8];
    layerline_error *err;
    size_t i;
    fill_tokens(tokens, PASSES + 8, TINY_VOCAB, seed);
    CHECK_OK(err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    for (i = 0; i < PASSES; i++) {
        CHECK_OK(err, layerline_session_forward(session, tokens + 8 + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
    }
}

static void *run_main(void *data)
{
    runner *self = data;
    int round;
    for (round = 0; round < 3; round++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(self->session, 0, NULL));
        run_sequence(self->session, self->seed);
        CHECK(same_logits(self->session, 0, self->expected, self->vocab));
    }
    return NULL;
}

static void *prefetch_main(void *data)
{
    shared *all = data;
    uint32_t turn = 0;
    while (!stopped(all)) {
        layerline_event events[8];
        layerline_error *err;
        uint64_t ticket = 0;
        size_t count = 0;
        int32_t state = -1;
        CHECK_OK(err, layerline_model_prefetch(all->model, turn % LAYERS, 1, &ticket, &err));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(all->model, events, 8, &count, NULL));
        CHECK(count <= 8);
        CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(all->model, 1, events, 8, &count, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_layer_state(all->model, turn % LAYERS, &state, NULL));
        CHECK(state >= LAYERLINE_LAYER_ABSENT && state <= LAYERLINE_LAYER_PINNED);
        if (turn % 3 == 0) {
            CHECK_STATUS(LAYERLINE_OK, layerline_model_cancel(all->model, ticket, NULL));
        }
        turn++;
    }
    return NULL;
}

static void *budget_main(void *data)
{
    shared *all = data;
    uint64_t turn = 0;
    while (!stopped(all)) {
        layerline_error *err;
        layerline_stats stats;
        uint64_t budget = all->least + (all->most - all->least) * (turn % 4) / 3;
        CHECK_OK(err, layerline_model_set_memory_budget(all->model, budget, &err));
        /* Far below what two sessions need: refused, and the budget stays what it was. */
        CHECK_BUDGET_ERROR(err, layerline_model_set_memory_budget(all->model, 4096, &err));
        stats = stats_of(all->model);
        CHECK(stats.budget_bytes == budget);
        CHECK(stats.used_bytes <= stats.peak_bytes);
        turn++;
    }
    return NULL;
}

int main(void)
{
    settings s = { 0 };
    layerline_plan plan;
    shared all;
    runner runners[2];
    pthread_t threads[4];
    int i;

    s.context = 64;
    s.threads = 2;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(data_path(TINY_MODEL), &s);
    memset(&all, 0, sizeof all);
    pthread_mutex_init(&all.lock, NULL);
    /* Two sessions: one is in the floor, the other comes on top. */
    all.least = plan.floor_bytes + plan.kv_bytes + plan.scratch_bytes;
    all.most = plan.full_bytes + plan.kv_bytes + plan.scratch_bytes;
    s.budget = all.most;
    all.model = open_model(data_path(TINY_MODEL), &s);
    for (i = 0; i < 2; i++) {
        runners[i].all = &all;
        runners[i].seed = 100u + (uint32_t)i;
        runners[i].session = new_session(all.model, 0);
        run_sequence(runners[i].session, runners[i].seed); /* alone, undisturbed: what the threads must repeat */
        runners[i].expected = copy_logits(runners[i].session, 0, &runners[i].vocab);
    }
    REQUIRE(pthread_create(&threads[2], NULL, prefetch_main, &all) == 0);
    REQUIRE(pthread_create(&threads[3], NULL, budget_main, &all) == 0);
    for (i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, run_main, &runners[i]) == 0);
    }
    for (i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_mutex_lock(&all.lock);
    all.stop = true;
    pthread_mutex_unlock(&all.lock);
    pthread_join(threads[2], NULL);
    pthread_join(threads[3], NULL);
    for (i = 0; i < 2; i++) {
        free(runners[i].expected);
        layerline_session_free(runners[i].session);
    }
    layerline_model_free(all.model);
    pthread_mutex_destroy(&all.lock);
    return check_result();
}
