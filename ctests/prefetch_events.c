/* Prefetch, completion and cancellation: nothing waits but layerline_model_wait, and every ticket ends with one DONE. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"


#define EVENTS 64

typedef struct ending {
    unsigned layers, dones;
    layerline_status status; /* of DONE */
    uint32_t seen;           /* a bit for each layer */
    uint64_t bytes;
} ending;

/* Takes events of one ticket until it is done. */
static ending wait_for(layerline_model *model, uint64_t ticket, size_t cap)
{
    ending e = { 0, 0, LAYERLINE_OK, 0, 0 };
    layerline_event events[EVENTS];
    size_t count, i;
    while (e.dones == 0) {
        count = SIZE_MAX;
        REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, events, cap, &count, NULL)));
        REQUIRE(count >= 1 && count <= cap);
        for (i = 0; i < count; i++) {
            CHECK(events[i].ticket == ticket);
            if (events[i].kind == LAYERLINE_EVENT_LAYER) {
                CHECK(e.dones == 0); /* DONE comes last */
                CHECK(events[i].layer < 32 && (e.seen >> events[i].layer & 1u) == 0);
                e.seen |= 1u << (events[i].layer & 31u);
                e.bytes += events[i].bytes;
                e.layers++;
            } else {
                CHECK(events[i].kind == LAYERLINE_EVENT_DONE);
                e.status = events[i].status;
                e.dones++;
            }
        }
    }
    CHECK(e.dones == 1);
    return e;
}

static void every_layer_is_told_once_and_done_comes_last(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_error *err;
    uint64_t ticket = 0, second = 0;
    uint32_t layer;
    ending e;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK_OK(err, layerline_model_prefetch(model, 0, TINY_LAYERS, &ticket, &err));
    CHECK(ticket != 0);
    e = wait_for(model, ticket, EVENTS);
    CHECK(e.layers == TINY_LAYERS && e.seen == 0x3u && e.status == LAYERLINE_OK);
    for (layer = 0; layer < TINY_LAYERS; layer++) {
        int32_t state = -1;
        CHECK_STATUS(LAYERLINE_OK, layerline_model_layer_state(model, layer, &state, NULL));
        CHECK(state == LAYERLINE_LAYER_READY || state == LAYERLINE_LAYER_PINNED);
    }
    /* What is there already is told as well, and read from nowhere. */
    CHECK_OK(err, layerline_model_prefetch(model, 1, 1, &second, &err));
    CHECK(second != ticket);
    e = wait_for(model, second, 1);
    CHECK(e.layers == 1 && e.seen == 0x2u && e.bytes == 0 && e.status == LAYERLINE_OK);
    CHECK(stats_of(model).prefetch_requests >= 2);
    CHECK(stats_of(model).prefetch_failures == 0);
    layerline_model_free(model);
}

static void layers_that_are_not_there_are_refused(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_error *err;
    uint64_t ticket = 77;
    int32_t state = 77;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_prefetch(model, TINY_LAYERS, 1, &ticket, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_prefetch(model, 0, TINY_LAYERS + 1, &ticket,
                                                                                &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_prefetch(model, 1, UINT32_MAX, &ticket, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_prefetch(model, UINT32_MAX, 2, &ticket, &err));
    CHECK(ticket == 77);
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_layer_state(model, TINY_LAYERS, &state, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_layer_state(model, UINT32_MAX, &state, NULL));
    CHECK(state == 77);
    layerline_model_free(model);
}

static void nothing_to_tell_is_no_error(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_event events[4];
    size_t count = 77;
    intptr_t handle;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(model, events, 4, &count, NULL));
    CHECK(count == 0);
    count = 77;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_poll(model, events, 0, &count, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_wait(model, 0, events, 0, &count, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_wait(model, -2, events, 4, &count, NULL));
    CHECK(count == 77);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, 0, events, 4, &count, NULL));
    CHECK(count == 0);
    count = 77;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, 20, events, 4, &count, NULL));
    CHECK(count == 0);
    handle = layerline_model_event_handle(model);
    CHECK(handle == layerline_model_event_handle(model));
    CHECK(handle == -1 || !is_ready(handle, 0));
    layerline_model_free(model);
}

static void the_handle_is_ready_while_events_wait(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_error *err;
    layerline_event event;
    uint64_t ticket = 0;
    size_t count = 0, taken = 0;
    intptr_t handle;
    bool done = false;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    handle = layerline_model_event_handle(model);
    if (handle == -1) { /* a system that has none */
        layerline_model_free(model);
        return;
    }
    CHECK_OK(err, layerline_model_prefetch(model, 0, TINY_LAYERS, &ticket, &err));
    while (!done) {
        REQUIRE(is_ready(handle, 60000)); /* a minute only bounds a failure */
        REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(model, &event, 1, &count, NULL)));
        REQUIRE(count <= 1);
        taken += count;
        done = count == 1 && event.kind == LAYERLINE_EVENT_DONE;
    }
    CHECK(taken == TINY_LAYERS + 1);
    CHECK(!is_ready(handle, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(model, &event, 1, &count, NULL));
    CHECK(count == 0);
    layerline_model_free(model);
}

static layerline_model *open_at_floor(void)
{
    settings s = { 0 };
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    s.budget = plan_of(data_path(TINY_MODEL), &s).floor_bytes;
    return open_model(data_path(TINY_MODEL), &s);
}

static void a_cancelled_ticket_ends_too(void)
{
    layerline_model *model;
    layerline_session *session;
    layerline_error *err;
    int32_t token = 5;
    int i;
    model = open_at_floor();
    session = new_session(model, 0);
    for (i = 0; i < 50; i++) {
        uint64_t ticket = 0;
        ending e;
        CHECK_OK(err, layerline_model_prefetch(model, 0, TINY_LAYERS, &ticket, &err));
        /* It may have ended already; then there was nothing left to cancel, and that is no error. */
        CHECK_STATUS(LAYERLINE_OK, layerline_model_cancel(model, ticket, NULL));
        e = wait_for(model, ticket, EVENTS);
        /* At the floor there are no frames but those that passes need: where that is found out first, it is the ending. */
        CHECK(e.status == LAYERLINE_ERROR_CANCELLED || e.status == LAYERLINE_ERROR_MEMORY_BUDGET || e.status == LAYERLINE_OK);
        CHECK(e.layers <= TINY_LAYERS);
        CHECK(e.status == LAYERLINE_ERROR_CANCELLED || e.layers == TINY_LAYERS);
    }
    /* Its frames are given back: a pass runs after it. */
    CHECK_OK(err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_STATUS(LAYERLINE_ERROR_NOT_FOUND, layerline_model_cancel(model, UINT64_MAX, NULL));
    layerline_session_free(session);
    layerline_model_free(model);
}

static void a_prefetch_never_starves_a_pass(void)
{
    layerline_model *model;
    layerline_session *session;
    layerline_error *err;
    int32_t tokens[8];
    int i;
    model = open_at_floor();
    session = new_session(model, 0);
    fill_tokens(tokens, 8, TINY_VOCAB, 2);
    for (i = 0; i < 8; i++) {
        uint64_t ticket = 0;
        /* The layer that the pass comes to last, never waited for, at the least budget that works. */
        CHECK_OK(err, layerline_model_prefetch(model, TINY_LAYERS - 1, 1, &ticket, &err));
        CHECK_OK(err, layerline_session_forward(session, tokens + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
    }
    CHECK(position_of(session) == 8);
    layerline_session_free(session);
    layerline_model_free(model);
}

static void a_model_may_be_freed_with_work_in_flight(void)
{
    settings s = { 0 };
    int i;
    s.context = 64;
    for (i = 0; i < 20; i++) {
        layerline_model *model = open_model(data_path(TINY_MODEL), &s);
        layerline_error *err;
        uint64_t ticket = 0;
        CHECK_OK(err, layerline_model_prefetch(model, 0, TINY_LAYERS, &ticket, &err));
        layerline_model_free(model);
    }
}

static void statistics_count_what_happened(void)
{
    struct { layerline_stats known; unsigned char later[32]; } larger;
    settings s = { 0 };
    layerline_model *model;
    layerline_session *session;
    layerline_error *err;
    layerline_stats before, after;
    int32_t tokens[5];
    size_t i;
    s.context = 64;
    s.budget = UINT64_C(64) << 20;
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 0);
    fill_tokens(tokens, 5, TINY_VOCAB, 4);
    before = stats_of(model);
    CHECK(before.budget_bytes == s.budget);
    CHECK(before.io == LAYERLINE_IO_DIRECT || before.io == LAYERLINE_IO_BUFFERED || before.io == LAYERLINE_IO_MMAP);
    CHECK(before.passes == 0 && before.tokens == 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, 5, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK_OK(err, layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    after = stats_of(model);
    CHECK(after.passes == 2 && after.tokens == 6);
    CHECK(after.layers_resident + after.layers_prefetched + after.layers_stalled >= 2 * TINY_LAYERS);
    CHECK(after.compute_ns > 0);
    CHECK(after.read_bytes > 0);
    CHECK(after.used_bytes <= after.peak_bytes && after.peak_bytes <= after.budget_bytes);

    memset(&larger, 0xCD, sizeof larger);
    larger.known.struct_size = 8;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_get_stats(model, &larger.known, NULL));
    larger.known.struct_size = (uint32_t)sizeof larger;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_get_stats(model, &larger.known, NULL));
    CHECK(larger.known.passes == 2 && larger.known.struct_size == sizeof larger);
    for (i = 0; i < sizeof larger.later; i++) {
        CHECK(larger.later[i] == 0xCD);
    }
    layerline_session_free(session);
    layerline_model_free(model);
}

int main(void)
{
    every_layer_is_told_once_and_done_comes_last();
    layers_that_are_not_there_are_refused();
    nothing_to_tell_is_no_error();
    the_handle_is_ready_while_events_wait();
    a_cancelled_ticket_ends_too();
    a_prefetch_never_starves_a_pass();
    a_model_may_be_freed_with_work_in_flight();
    statistics_count_what_happened();
    return check_result();
}
