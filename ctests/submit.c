/* Submitted passes: they return at once, end with one DONE, have the session to themselves until then, and give the
 * bits that layerline_session_forward gives. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <dirent.h>
#include <time.h>

#define LONGEST 200
#define NEXT 8

/* How often something is tried that may turn out this way or that. */
static unsigned rounds(void)
{
    return quick() ? 4 : 20;
}

/* Tokens of a pass that is not over at once. */
static size_t length(void)
{
    return quick() ? 64 : LONGEST;
}

static settings small(void)
{
    settings s = { 0 };
    s.context = 256;
    s.threads = 2;
    return s;
}

/* The smallest budget with room for two sessions, so that weights are read while passes run. */
static layerline_model *open_tight(void)
{
    settings s = small();
    layerline_plan plan;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(data_path(TINY_MODEL), &s);
    s.budget = plan.floor_bytes + plan.kv_bytes;
    return open_model(data_path(TINY_MODEL), &s);
}

static uint64_t submit(layerline_session *session, const int32_t *tokens, size_t count, int32_t logits)
{
    layerline_error *err;
    uint64_t ticket = 0;
    REQUIRE_OK(err, layerline_session_submit(session, tokens, count, logits, LAYERLINE_EMBEDDINGS_NONE, &ticket, &err));
    CHECK(ticket != 0);
    return ticket;
}

static layerline_event wait_for(layerline_model *model, uint64_t ticket)
{
    layerline_event event;
    size_t count = 0;
    memset(&event, 0, sizeof event);
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, &event, 1, &count, NULL)));
    REQUIRE(count == 1);
    CHECK(event.ticket == ticket && event.kind == LAYERLINE_EVENT_DONE);
    return event;
}

static void no_event_waits(layerline_model *model)
{
    layerline_event event;
    size_t count = 77;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(model, &event, 1, &count, NULL));
    CHECK(count == 0);
}

/* Logits of the prompt's last token on a session of its own. */
static float *expected_logits(layerline_model *model, const int32_t *tokens, size_t count, size_t *vocab)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    float *logits;
    CHECK_OK(err, layerline_session_forward(session, tokens, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    logits = copy_logits(session, 0, vocab);
    layerline_session_free(session);
    return logits;
}

/* A program that does nothing but wait for the handle: tokens come one by one, as by layerline_session_forward. */
static void an_event_loop_runs_a_sequence(void)
{
    layerline_model *model = open_tight();
    layerline_session *waiting = new_session(model, 0), *polling = new_session(model, 0);
    layerline_error *err;
    intptr_t handle;
    int32_t tokens[24];
    size_t vocab, i;
    fill_tokens(tokens, 24, TINY_VOCAB, 11);
    handle = layerline_model_event_handle(model);
    for (i = 0; i < 24; i++) {
        layerline_event event;
        float *expected;
        size_t count = 0;
        uint64_t ticket;
        CHECK_OK(err, layerline_session_forward(waiting, tokens + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        expected = copy_logits(waiting, 0, &vocab);
        ticket = submit(polling, tokens + i, 1, LAYERLINE_LOGITS_LAST);
        memset(&event, 0, sizeof event);
        if (handle != -1) {
            REQUIRE(is_ready(handle, 60000)); /* a minute only bounds a failure */
            REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_poll(model, &event, 1, &count, NULL)));
            REQUIRE(count == 1);
            CHECK(!is_ready(handle, 0));
        } else {
            event = wait_for(model, ticket);
        }
        CHECK(event.ticket == ticket && event.kind == LAYERLINE_EVENT_DONE && event.status == LAYERLINE_OK);
        CHECK(event.elapsed_ns > 0);
        CHECK(position_of(polling) == i + 1);
        CHECK(same_logits(polling, 0, expected, vocab));
        free(expected);
    }
    no_event_waits(model);
    layerline_session_free(polling);
    layerline_session_free(waiting);
    layerline_model_free(model);
}

static void what_cannot_begin_is_refused_without_a_ticket(layerline_model *model)
{
    layerline_session *session = new_session(model, 24);
    layerline_error *err;
    uint64_t ticket = 77;
    int32_t tokens[25];
    fill_tokens(tokens, 25, TINY_VOCAB, 5);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err,
                layerline_session_submit(session, tokens, 25, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_submit(session, tokens, 0, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_submit(session, tokens, 1, 3, LAYERLINE_EMBEDDINGS_NONE, &ticket, &err));
    tokens[1] = (int32_t)TINY_VOCAB;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_submit(session, tokens, 3, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         &err));
    CHECK(ticket == 77);
    no_event_waits(model);
    CHECK(position_of(session) == 0);
    layerline_session_free(session);
}

static void a_session_is_busy_until_its_pass_is_done(void)
{
    layerline_model *model = open_tight();
    layerline_session *session = new_session(model, 0);
    layerline_sampler *sampler = layerline_sampler_new();
    int32_t tokens[LONGEST], token = -1;
    unsigned busy = 0, attempts;
    REQUIRE(sampler != NULL);
    fill_tokens(tokens, length(), TINY_VOCAB, 3);
    /* A pass may be over before it is looked at; one of many is not. */
    for (attempts = 0; attempts < 1000 && busy < 3; attempts++) {
        const float *logits = NULL;
        size_t vocab = 0;
        layerline_session_info info;
        uint64_t other = 0, ticket = submit(session, tokens, length(), LAYERLINE_LOGITS_LAST);
        layerline_status found[7];
        size_t i;
        bool all = true;
        info.struct_size = (uint32_t)sizeof info;
        found[0] = layerline_session_get_info(session, &info, NULL);
        found[1] = layerline_session_logits(session, 0, &logits, &vocab, NULL);
        found[2] = layerline_sampler_sample(sampler, session, &token, NULL);
        found[3] = layerline_session_truncate(session, 0, NULL);
        if (found[3] == LAYERLINE_ERROR_BUSY) {
            found[4] = layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                 NULL);
            found[5] = layerline_session_generate(session, sampler, tokens, 1, 1, go_on, NULL, NULL);
            found[6] = layerline_session_submit(session, tokens, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                &other, NULL);
            if (found[6] == LAYERLINE_OK) {
                wait_for(model, ticket);
                ticket = other;
            }
        } else {
            found[4] = found[5] = found[6] = LAYERLINE_OK;
        }
        for (i = 0; i < 7; i++) {
            CHECK(found[i] == LAYERLINE_ERROR_BUSY || found[i] == LAYERLINE_OK);
            all = all && found[i] == LAYERLINE_ERROR_BUSY;
            /* Busy to the end, and then never again. */
            CHECK(i == 0 || found[i] == LAYERLINE_OK || found[i - 1] == LAYERLINE_ERROR_BUSY);
        }
        busy += all;
        CHECK(wait_for(model, ticket).status == LAYERLINE_OK);
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    }
    CHECK(busy > 0);
    no_event_waits(model);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
    layerline_model_free(model);
}

typedef enum ending { CANCEL, INTERRUPT } ending;

static void an_ended_pass_leaves_the_session_as_before(ending how)
{
    layerline_model *model = open_tight();
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t tokens[LONGEST + NEXT];
    unsigned cancelled = 0, attempts;
    size_t vocab, next_vocab;
    float *prompt, *next;
    fill_tokens(tokens, length() + NEXT, TINY_VOCAB, 3);
    prompt = expected_logits(model, tokens, NEXT, &vocab);
    next = expected_logits(model, tokens, NEXT + length(), &next_vocab);
    CHECK_OK(err, layerline_session_forward(session, tokens, NEXT, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    for (attempts = 0; attempts < 1000 && cancelled < 3; attempts++) {
        uint64_t ticket = submit(session, tokens + NEXT, length(), LAYERLINE_LOGITS_LAST);
        layerline_event event;
        if (how == CANCEL) {
            CHECK_STATUS(LAYERLINE_OK, layerline_model_cancel(model, ticket, NULL));
        } else {
            layerline_session_interrupt(session);
        }
        event = wait_for(model, ticket);
        if (event.status == LAYERLINE_ERROR_CANCELLED) {
            cancelled++;
            CHECK(position_of(session) == NEXT);
            CHECK(same_logits(session, 0, prompt, vocab));
        } else {
            CHECK_STATUS(LAYERLINE_OK, event.status);
            CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
            CHECK_OK(err, layerline_session_forward(session, tokens, NEXT, LAYERLINE_LOGITS_LAST,
                                                    LAYERLINE_EMBEDDINGS_NONE, &err));
        }
        CHECK_STATUS(LAYERLINE_OK,
                     layerline_model_cancel(model, ticket, NULL)); /* over already: no error, and no second event */
        no_event_waits(model);
    }
    CHECK(cancelled > 0);
    /* What ended a pass does not end the next one. */
    CHECK(wait_for(model, submit(session, tokens + NEXT, length(), LAYERLINE_LOGITS_LAST)).status == LAYERLINE_OK);
    CHECK(same_logits(session, 0, next, next_vocab));
    free(prompt);
    free(next);
    layerline_session_free(session);
    layerline_model_free(model);
}

/* Two sessions' passes are queued; those that wait for their turn end with one event too. */
static void a_waiting_pass_is_cancelled_with_one_event(void)
{
    layerline_model *model = open_tight();
    layerline_session *first = new_session(model, 0), *second = new_session(model, 0);
    int32_t tokens[LONGEST];
    unsigned i;
    fill_tokens(tokens, length(), TINY_VOCAB, 9);
    for (i = 0; i < rounds(); i++) {
        uint64_t a = submit(first, tokens, length(), LAYERLINE_LOGITS_LAST);
        uint64_t b = submit(second, tokens, length(), LAYERLINE_LOGITS_LAST);
        layerline_event events[4];
        unsigned of_a = 0, of_b = 0;
        size_t count, k;
        CHECK(a < b);
        CHECK_STATUS(LAYERLINE_OK, layerline_model_cancel(model, b, NULL));
        while (of_a + of_b < 2) {
            REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, events, 4, &count, NULL)));
            for (k = 0; k < count; k++) {
                of_a += events[k].ticket == a && events[k].status == LAYERLINE_OK;
                of_b += events[k].ticket == b &&
                        (events[k].status == LAYERLINE_ERROR_CANCELLED || events[k].status == LAYERLINE_OK);
                CHECK(events[k].kind == LAYERLINE_EVENT_DONE);
                REQUIRE(of_a <= 1 && of_b <= 1 && of_a + of_b > 0);
            }
        }
        CHECK(position_of(first) == length());
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(first, 0, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(second, 0, NULL));
        no_event_waits(model);
    }
    layerline_session_free(first);
    layerline_session_free(second);
    layerline_model_free(model);
}

static void a_session_may_be_freed_while_its_pass_runs(void)
{
    layerline_model *model = open_tight();
    int32_t tokens[LONGEST];
    unsigned i;
    fill_tokens(tokens, length(), TINY_VOCAB, 1);
    for (i = 0; i < rounds(); i++) {
        /* There is room for two sessions only: each is given back. */
        layerline_session *a = new_session(model, 0), *b = new_session(model, 0);
        uint64_t last = submit(a, tokens, length(), LAYERLINE_LOGITS_LAST);
        layerline_event event;
        size_t count, seen = 0;
        bool both = i % 2 == 0;
        if (both) {
            last = submit(b, tokens, length(), LAYERLINE_LOGITS_LAST);
        }
        layerline_session_free(a);
        layerline_session_free(b);
        while (seen < (both ? 2u : 1u)) {
            REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, &event, 1, &count, NULL)));
            REQUIRE(count == 1 && event.ticket <= last);
            CHECK(event.status == LAYERLINE_ERROR_CANCELLED || event.status == LAYERLINE_OK);
            seen++;
        }
        no_event_waits(model);
    }
    layerline_model_free(model);
}

/* How many threads this process has; 1 also where the system does not tell. */
static size_t threads_of_process(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    size_t count = 0;
    if (tasks == NULL) {
        return 1;
    }
    while ((entry = readdir(tasks)) != NULL) {
        count += entry->d_name[0] != '.';
    }
    closedir(tasks);
    return count;
}

/* `own`: threads that the process began with: an emulator has some. */
static void handles_may_be_freed_in_any_order_while_a_pass_runs(size_t own)
{
    struct timespec moment = { 0, 1000000 };
    unsigned left = 60000; /* a minute only bounds a failure */
    int32_t tokens[LONGEST];
    unsigned i;
    fill_tokens(tokens, length(), TINY_VOCAB, 1);
    for (i = 0; i < rounds(); i++) {
        layerline_model *model = open_tight();
        layerline_session *session = new_session(model, 0);
        submit(session, tokens, length(), LAYERLINE_LOGITS_LAST);
        if (i % 2 == 0) {
            layerline_model_free(model);
            layerline_session_free(session);
        } else {
            layerline_session_free(session);
            layerline_model_free(model);
        }
    }
    /* The last to use a model was its own thread, perhaps: it takes the model apart, and ends too. */
    while (threads_of_process() > own && left-- > 0) {
        nanosleep(&moment, NULL);
    }
    CHECK(threads_of_process() == own);
}

int main(void)
{
    const size_t own = threads_of_process();
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *session = new_session(model, 0);
    layerline_error *err = NULL;
    uint64_t ticket = 77;
    int32_t token = 5;
    layerline_status status = layerline_session_submit(session, &token, 1, LAYERLINE_LOGITS_NONE,
                                                       LAYERLINE_EMBEDDINGS_NONE, &ticket, &err);
    layerline_error_free(err);
    if (status == LAYERLINE_ERROR_UNSUPPORTED) { /* a library without threads of its own says so, and does nothing */
        CHECK(ticket == 77 && position_of(session) == 0);
        layerline_session_free(session);
        layerline_model_free(model);
        return check_result();
    }
    REQUIRE(status == LAYERLINE_OK);
    CHECK(wait_for(model, ticket).status == LAYERLINE_OK);
    CHECK(position_of(session) == 1);
    layerline_session_free(session);
    what_cannot_begin_is_refused_without_a_ticket(model);
    layerline_model_free(model);
    an_event_loop_runs_a_sequence();
    a_session_is_busy_until_its_pass_is_done();
    an_ended_pass_leaves_the_session_as_before(CANCEL);
    an_ended_pass_leaves_the_session_as_before(INTERRUPT);
    a_waiting_pass_is_cancelled_with_one_event();
    a_session_may_be_freed_while_its_pass_runs();
    handles_may_be_freed_in_any_order_while_a_pass_runs(own);
    return check_result();
}
