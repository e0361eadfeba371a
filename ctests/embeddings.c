/* Embeddings: which rows each mode leaves, what they are, what they cost, and how long they stay. */
#include "support.h"

#include <math.h>

#define COUNT 12u
#define WIDTH 64u

static const float *embedding(const layerline_session *session, size_t row)
{
    const float *values = NULL;
    size_t length = 0;
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_session_embeddings(session, row, &values, &length, NULL)));
    REQUIRE(values != NULL && length == WIDTH);
    return values;
}

static void no_embedding(const layerline_session *session, size_t row)
{
    const float *values = NULL;
    size_t length = 7;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_session_embeddings(session, row, &values, &length, NULL));
    CHECK(values == NULL && length == 7);
}

static bool same(const float *a, const float *b)
{
    return memcmp(a, b, WIDTH * sizeof *a) == 0;
}

/* The embeddings of all tokens, as one pass leaves them. */
static void all_of(layerline_model *model, const int32_t *tokens, float all[COUNT][WIDTH])
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    size_t row, i;
    REQUIRE_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_ALL,
                                              &err));
    for (row = 0; row < COUNT; row++) {
        memcpy(all[row], embedding(session, row), sizeof all[row]);
        for (i = 0; i < WIDTH; i++) {
            CHECK(isfinite(all[row][i]));
        }
    }
    no_embedding(session, COUNT);
    no_embedding(session, SIZE_MAX);
    CHECK(!same(all[0], all[1]));
    layerline_session_free(session);
}

static void each_mode_yields_its_rows(layerline_model *model, const int32_t *tokens, float all[COUNT][WIDTH])
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    float *logits;
    size_t vocab, row, i;
    no_embedding(session, 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    no_embedding(session, 0);
    logits = copy_logits(session, 0, &vocab);

    /* With logits beside them both are what they are alone. */
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_ALL,
                                            &err));
    CHECK(same_logits(session, 0, logits, vocab));
    for (row = 0; row < COUNT; row++) {
        CHECK(same(embedding(session, row), all[row]));
    }
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_FIRST,
                                            &err));
    CHECK(same_logits(session, COUNT - 1, logits, vocab) && same(embedding(session, 0), all[0]));
    no_embedding(session, 1);

    /* The pass's first and last tokens, not the sequence's. */
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, 5, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_LAST,
                                            &err));
    CHECK(same(embedding(session, 0), all[4]));
    CHECK_OK(err, layerline_session_forward(session, tokens + 5, 4, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_FIRST,
                                            &err));
    CHECK(same(embedding(session, 0), all[5]));
    CHECK_OK(err, layerline_session_forward(session, tokens + 9, 3, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    for (i = 0; i < WIDTH; i++) {
        CHECK(fabs(embedding(session, 0)[i] - (all[9][i] + all[10][i] + all[11][i]) / 3) < 1e-5);
    }
    free(logits);
    layerline_session_free(session);
}

static void they_stay_until_the_next_pass_or_truncation(layerline_model *model, const int32_t *tokens)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    const float *kept;
    float before[WIDTH];
    int32_t bad = -1;
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    kept = embedding(session, 0);
    memcpy(before, kept, sizeof before);
    /* What fails changes nothing. */
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_forward(session, &bad, 1, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, COUNT, NULL));
    CHECK(embedding(session, 0) == kept && same(kept, before));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, COUNT - 1, NULL));
    no_embedding(session, 0);
    /* The same again, in memory that was used before. */
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    CHECK(same(embedding(session, 0), before));
    CHECK_OK(err, layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    no_embedding(session, 0);
    layerline_session_free(session);
}

static void modes_that_are_none_are_refused(layerline_session *session)
{
    static const int32_t bad[] = { 6, 7, 16, 48, 1024 | LAYERLINE_EMBEDDINGS_ALL, -1, INT32_MIN, INT32_MAX };
    int32_t token = 5;
    uint64_t ticket = 0;
    layerline_error *err;
    size_t i;
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                    layerline_session_forward(session, &token, 1, bad[i], LAYERLINE_EMBEDDINGS_NONE, &err));
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                    layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, bad[i], &err));
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                    layerline_session_submit(session, &token, 1, bad[i], LAYERLINE_EMBEDDINGS_NONE, &ticket, &err));
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                    layerline_session_submit(session, &token, 1, LAYERLINE_LOGITS_NONE, bad[i], &ticket, &err));
    }
    CHECK(ticket == 0 && position_of(session) == 0);
}

static void a_submitted_pass_leaves_them_too(layerline_model *model, const int32_t *tokens, float all[COUNT][WIDTH])
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    layerline_event event;
    uint64_t ticket = 0;
    size_t count = 0;
    layerline_status status = layerline_session_submit(session, tokens, COUNT, LAYERLINE_LOGITS_NONE,
                                                       LAYERLINE_EMBEDDINGS_LAST, &ticket, &err);
    if (status == LAYERLINE_ERROR_UNSUPPORTED) {
        layerline_error_free(err); /* built without threads */
    } else {
        CHECK(status == LAYERLINE_OK && err == NULL);
        CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, -1, &event, 1, &count, NULL));
        CHECK(count == 1 && event.ticket == ticket && event.status == LAYERLINE_OK);
        CHECK(same(embedding(session, 0), all[COUNT - 1]));
    }
    layerline_session_free(session);
}

/* One row belongs to the session; those of all tokens are taken from the budget, and given back. */
static void rows_are_taken_from_the_budget(const char *path, settings s)
{
    layerline_plan plan = plan_of(path, &s);
    layerline_error *err;
    layerline_model *model;
    layerline_session *session;
    int32_t tokens[COUNT];
    uint64_t before;
    fill_tokens(tokens, COUNT, TINY_VOCAB, 3);
    s.budget = plan.floor_bytes;
    model = open_model(path, &s);
    session = new_session(model, 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    CHECK_BUDGET_ERROR(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE,
                                                      LAYERLINE_EMBEDDINGS_ALL, &err));
    CHECK(position_of(session) == COUNT);
    CHECK(stats_of(model).peak_bytes <= s.budget);
    layerline_session_free(session);
    layerline_model_free(model);

    s.budget = plan.full_bytes + (COUNT - 1) * WIDTH * sizeof(float);
    model = open_model(path, &s);
    session = new_session(model, 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_LAST,
                                            &err));
    before = stats_of(model).used_bytes;
    CHECK_OK(err, layerline_session_forward(session, tokens, COUNT, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_ALL,
                                            &err));
    CHECK(stats_of(model).used_bytes == before + (COUNT - 1) * WIDTH * sizeof(float));
    CHECK(stats_of(model).peak_bytes <= s.budget);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK(stats_of(model).used_bytes == before);
    layerline_session_free(session);
    layerline_model_free(model);
}

/* All of a pass is one sequence, of its own, and nothing but embeddings comes of it. */
static void an_encoder_leaves_nothing_else(settings s)
{
    layerline_model *model = open_model(data_path("encoder/bert.gguf"), &s);
    layerline_session *session = new_session(model, 0), *longer = NULL;
    layerline_error *err;
    int32_t tokens[65];
    const float *values = NULL;
    size_t length = 0;
    uint64_t ticket = 0;
    float first[32];
    char pooling[4];
    fill_tokens(tokens, 65, 160, 2);
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_LAST,
                                                                            LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_LAST,
                                                                            LAYERLINE_EMBEDDINGS_MEAN, &err));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err,
                layerline_session_submit(session, tokens, 8, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         &err));
    CHECK(ticket == 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, 64, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    REQUIRE(CHECK_STATUS(LAYERLINE_OK,
                         layerline_session_embeddings(session, 0, &values, &length, NULL)) && length == 32);
    memcpy(first, values, sizeof first);
    CHECK_OK(err, layerline_session_forward(session, tokens, 5, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    CHECK(position_of(session) == 5);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_forward(session, tokens, 65, LAYERLINE_LOGITS_NONE,
                                                                             LAYERLINE_EMBEDDINGS_MEAN, &err));
    CHECK(position_of(session) == 5);
    CHECK_OK(err, layerline_session_forward(session, tokens, 64, LAYERLINE_LOGITS_NONE, LAYERLINE_EMBEDDINGS_MEAN,
                                            &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_embeddings(session, 0, &values, &length, NULL));
    CHECK(memcmp(values, first, sizeof first) == 0);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_new(model, 65, &longer, &err));
    CHECK(longer == NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_metadata(model, "bert.pooling_type", pooling, sizeof pooling, &length,
                                                        NULL));
    CHECK(strcmp(pooling, "1") == 0);
    layerline_session_free(session);
    layerline_model_free(model);
}

int main(void)
{
    static float all[COUNT][WIDTH];
    settings s = { 0 };
    int32_t tokens[COUNT];
    layerline_model *model;
    layerline_session *session;
    s.context = 64;
    s.threads = 2;
    fill_tokens(tokens, COUNT, TINY_VOCAB, 1);
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK(info_of(model).embedding_length == WIDTH);
    all_of(model, tokens, all);
    each_mode_yields_its_rows(model, tokens, all);
    they_stay_until_the_next_pass_or_truncation(model, tokens);
    session = new_session(model, 0);
    modes_that_are_none_are_refused(session);
    layerline_session_free(session);
    a_submitted_pass_leaves_them_too(model, tokens, all);
    layerline_model_free(model);
    rows_are_taken_from_the_budget(data_path(TINY_MODEL), s);
    an_encoder_leaves_nothing_else(s);
    return check_result();
}
