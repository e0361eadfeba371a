/* Batches: several sessions in the same sweeps, each with the bits it has alone and a status of its own. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <pthread.h>

#define COUNT 4u
#define TOKENS 20u

static settings small(void)
{
    settings s = { 0 };
    s.context = 64;
    s.chunk = 16;
    s.threads = 2;
    return s;
}

static layerline_batch_input input_of(layerline_session *session, const int32_t *tokens, size_t count)
{
    layerline_batch_input input;
    memset(&input, 0x55, sizeof input); /* what the call sets need not be set before */
    input.struct_size = (uint32_t)sizeof input;
    input.logits = LAYERLINE_LOGITS_LAST;
    input.embeddings = LAYERLINE_EMBEDDINGS_NONE;
    input.session = session;
    input.tokens = tokens;
    input.count = count;
    return input;
}

static void each_input_has_the_bits_it_has_alone(layerline_model *model)
{
    layerline_session *sessions[COUNT];
    layerline_batch_input inputs[COUNT];
    int32_t tokens[COUNT][TOKENS];
    float *want[COUNT];
    size_t vocab = 0, i;
    uint64_t passes;
    layerline_error *err;
    for (i = 0; i < COUNT; i++) {
        layerline_session *alone = new_session(model, 0);
        fill_tokens(tokens[i], TOKENS, TINY_VOCAB, (uint32_t)i);
        CHECK_OK(err, layerline_session_forward(alone, tokens[i], TOKENS - i, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        want[i] = copy_logits(alone, 0, &vocab);
        layerline_session_free(alone);
        sessions[i] = new_session(model, 0);
        inputs[i] = input_of(sessions[i], tokens[i], TOKENS - i);
    }
    passes = stats_of(model).passes;
    CHECK_OK(err, layerline_model_forward_batch(model, inputs, COUNT, &err));
    CHECK(stats_of(model).passes == passes + COUNT);
    for (i = 0; i < COUNT; i++) {
        CHECK(inputs[i].status == LAYERLINE_OK && inputs[i].error == NULL);
        CHECK(inputs[i].struct_size == sizeof inputs[i] && inputs[i].session == sessions[i]);
        CHECK(position_of(sessions[i]) == TOKENS - i);
        CHECK(same_logits(sessions[i], 0, want[i], vocab));
        free(want[i]);
        layerline_session_free(sessions[i]);
    }
}

/* The error of an input, which says `text`. */
static void check_refused(const layerline_batch_input *input, layerline_status status, const char *text)
{
    CHECK_STATUS(status, input->status);
    CHECK_STATUS(status, layerline_error_status(input->error));
    CHECK(strstr(layerline_error_message(input->error), text) != NULL);
    layerline_error_free(input->error);
}

static void an_input_that_cannot_run_fails_alone(layerline_model *model, layerline_model *other)
{
    layerline_session *good = new_session(model, 0), *full = new_session(model, 4), *bad = new_session(model, 0);
    layerline_session *foreign = new_session(other, 0), *interrupted = new_session(model, 0);
    int32_t tokens[8], unknown = (int32_t)TINY_VOCAB;
    layerline_batch_input inputs[9];
    layerline_error *err = NULL;
    fill_tokens(tokens, 8, TINY_VOCAB, 3);
    inputs[0] = input_of(full, tokens, 8);
    inputs[1] = input_of(good, tokens, 8);
    inputs[2] = input_of(good, tokens, 8);
    inputs[3] = input_of(bad, &unknown, 1);
    inputs[4] = input_of(bad, tokens, 0);
    inputs[5] = input_of(foreign, tokens, 8);
    inputs[6] = input_of(NULL, tokens, 8);
    inputs[7] = input_of(interrupted, tokens, 8);
    inputs[8] = input_of(new_session(model, 0), tokens, 8);
    inputs[8].logits = 17;
    layerline_session_interrupt(interrupted);
    CHECK_STATUS(LAYERLINE_ERROR_CONTEXT_FULL, layerline_model_forward_batch(model, inputs, 9, &err));
    CHECK(strncmp(layerline_error_message(err), "input 0: 8 tokens", 17) == 0);
    layerline_error_free(err);
    check_refused(&inputs[0], LAYERLINE_ERROR_CONTEXT_FULL, "8 tokens after 0 exceed the context of 4");
    CHECK(inputs[1].status == LAYERLINE_OK && inputs[1].error == NULL);
    check_refused(&inputs[2], LAYERLINE_ERROR_INVALID_ARGUMENT, "that of input 1 too");
    check_refused(&inputs[3], LAYERLINE_ERROR_INVALID_ARGUMENT, "320");
    check_refused(&inputs[4], LAYERLINE_ERROR_INVALID_ARGUMENT, "input 3");
    check_refused(&inputs[5], LAYERLINE_ERROR_INVALID_ARGUMENT, "another model");
    check_refused(&inputs[6], LAYERLINE_ERROR_INVALID_ARGUMENT, "session is NULL");
    check_refused(&inputs[7], LAYERLINE_ERROR_CANCELLED, "cancelled");
    check_refused(&inputs[8], LAYERLINE_ERROR_INVALID_ARGUMENT, "17");
    CHECK(position_of(good) == 8 && position_of(full) == 0 && position_of(bad) == 0 && position_of(interrupted) == 0);

    /* The array itself. */
    inputs[0] = input_of(good, tokens, 1);
    inputs[1] = input_of(bad, tokens, 1);
    inputs[1].struct_size -= 8;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_forward_batch(model, inputs, 2, NULL));
    inputs[0].struct_size = 4;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_forward_batch(model, inputs, 2, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_forward_batch(model, NULL, 1, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_model_forward_batch(model, NULL, 0, NULL));
    CHECK(position_of(good) == 8);
    layerline_session_free(inputs[8].session);
    layerline_session_free(good);
    layerline_session_free(full);
    layerline_session_free(bad);
    layerline_session_free(foreign);
    layerline_session_free(interrupted);
}

/* A host of a later version, whose struct is longer. */
static void a_longer_struct_is_stepped_over(layerline_model *model)
{
    struct { layerline_batch_input input; uint64_t later; } inputs[2];
    layerline_session *sessions[2];
    int32_t token = 5;
    size_t i;
    layerline_error *err;
    for (i = 0; i < 2; i++) {
        sessions[i] = new_session(model, 0);
        inputs[i].input = input_of(sessions[i], &token, 1);
        inputs[i].input.struct_size = (uint32_t)sizeof inputs[i];
        inputs[i].later = 77 + i;
    }
    CHECK_OK(err, layerline_model_forward_batch(model, &inputs[0].input, 2, &err));
    for (i = 0; i < 2; i++) {
        CHECK(inputs[i].input.status == LAYERLINE_OK && inputs[i].later == 77 + i && position_of(sessions[i]) == 1);
        layerline_session_free(sessions[i]);
    }
}

typedef struct runner {
    layerline_session *session;
    layerline_sampler *sampler;
    int32_t tokens[16];
    size_t count;
    layerline_status status;
} runner;

static bool keep(int32_t token, const char *piece, size_t length, void *user_data)
{
    runner *r = user_data;
    (void)piece;
    (void)length;
    if (r->count < 16) {
        r->tokens[r->count++] = token;
    }
    return true;
}

static void *run(void *of)
{
    runner *r = of;
    int32_t prompt[3] = { 1, 17, 42 };
    r->status = layerline_session_generate(r->session, r->sampler, prompt, 3, 16, keep, r, NULL);
    return NULL;
}

/* Threads that generate at once choose what each chooses alone, with shared sweeps and without. */
static void threads_that_share_sweeps_choose_the_same(layerline_model *model)
{
    runner runners[COUNT + 1];
    pthread_t threads[COUNT];
    size_t i;
    memset(runners, 0, sizeof runners);
    for (i = 0; i <= COUNT; i++) {
        runners[i].session = new_session(model, 0);
        runners[i].sampler = layerline_sampler_new();
        REQUIRE(runners[i].sampler != NULL);
    }
    run(&runners[COUNT]);
    for (i = 0; i < COUNT; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, run, &runners[i]) == 0);
    }
    for (i = 0; i < COUNT; i++) {
        pthread_join(threads[i], NULL);
    }
    for (i = 0; i <= COUNT; i++) {
        CHECK_STATUS(LAYERLINE_OK, runners[i].status);
        CHECK(runners[i].count == runners[COUNT].count);
        CHECK(memcmp(runners[i].tokens, runners[COUNT].tokens, sizeof runners[i].tokens) == 0);
        layerline_session_free(runners[i].session);
        layerline_sampler_free(runners[i].sampler);
    }
}

int main(void)
{
    const char *path = data_path(TINY_MODEL);
    settings s = small();
    layerline_model *model, *other, *apart = NULL;
    layerline_options *options = make_options(&s);
    layerline_error *err;
    model = open_model(path, &s);
    s.budget = plan_of(path, &s).floor_bytes;
    other = open_model(path, &s);
    each_input_has_the_bits_it_has_alone(model);
    an_input_that_cannot_run_fails_alone(model, other);
    a_longer_struct_is_stepped_over(model);
    threads_that_share_sweeps_choose_the_same(model);
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_share_sweeps(options, false));
    REQUIRE_OK(err, layerline_model_open(path, options, &apart, &err));
    threads_that_share_sweeps_choose_the_same(apart);
    each_input_has_the_bits_it_has_alone(apart);
    layerline_options_free(options);
    layerline_model_free(model);
    layerline_model_free(other);
    layerline_model_free(apart);
    return check_result();
}
