/* The result is the same bit for bit, whatever the budget, the way of reading, prefetch or the number of threads. */
#include "support.h"

#define PROMPT 9
#define STEPS 4

typedef struct result {
    float *rows[PROMPT + STEPS];
    size_t vocab;
} result;

/* At the floor itself there is room for the logits of one position: `last_only` asks for no more of the prompt, and
 * leaves the other rows NULL. */
static bool run(const char *path, const settings *s, bool last_only, result *r)
{
    layerline_model *model = NULL;
    layerline_session *session;
    layerline_error *err = NULL;
    layerline_status status = try_open(path, s, &model, &err);
    layerline_stats stats;
    int32_t tokens[PROMPT + STEPS];
    size_t i;
    if (status != LAYERLINE_OK && s->io == LAYERLINE_IO_DIRECT) {
        /* A file system may have no direct reads (tmpfs): it says so, and the mode is left out here. */
        CHECK(status == LAYERLINE_ERROR_IO || status == LAYERLINE_ERROR_UNSUPPORTED);
        CHECK(err != NULL);
        layerline_error_free(err);
        return false;
    }
    if (status != LAYERLINE_OK) {
        fprintf(stderr, "%s, budget %lu: %s\n", path, (unsigned long)s->budget,
                err == NULL ? "" : layerline_error_message(err));
    }
    REQUIRE(status == LAYERLINE_OK);
    session = new_session(model, 0);
    fill_tokens(tokens, PROMPT + STEPS, TINY_VOCAB, 21);
    REQUIRE_OK(err,
               layerline_session_forward(session, tokens, PROMPT,
                                         last_only ? LAYERLINE_LOGITS_LAST : LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE,
                                      &err));
    for (i = 0; i < PROMPT; i++) {
        r->rows[i] = last_only && i < PROMPT - 1 ? NULL : copy_logits(session, last_only ? 0 : i, &r->vocab);
    }
    for (i = PROMPT; i < PROMPT + STEPS; i++) {
        REQUIRE_OK(err, layerline_session_forward(session, tokens + i, 1, LAYERLINE_LOGITS_LAST,
                                                  LAYERLINE_EMBEDDINGS_NONE, &err));
        r->rows[i] = copy_logits(session, 0, &r->vocab);
    }
    stats = stats_of(model);
    CHECK(stats.peak_bytes <= stats.budget_bytes);
    CHECK(s->io == LAYERLINE_IO_AUTO || stats.io == s->io);
    layerline_session_free(session);
    layerline_model_free(model);
    return true;
}

static void drop(result *r)
{
    size_t i;
    for (i = 0; i < PROMPT + STEPS; i++) {
        free(r->rows[i]);
    }
}

static void compare(const char *path, const settings *s, bool last_only, const result *expected)
{
    result r;
    char text[512];
    size_t i, different = 0;
    if (!run(path, s, last_only, &r)) {
        return;
    }
    for (i = 0; i < PROMPT + STEPS; i++) {
        different += r.rows[i] != NULL && memcmp(r.rows[i], expected->rows[i], r.vocab * sizeof(float)) != 0;
    }
    if (r.vocab != expected->vocab || different > 0) {
        snprintf(text, sizeof text, "%.200s: %lu rows differ at budget %lu, io %d, prefetch %s, %u threads", path,
                 (unsigned long)different, (unsigned long)s->budget, (int)s->io, s->prefetch_off ? "off" : "on",
                 (unsigned)s->threads);
        check_failed(__FILE__, __LINE__, text);
    }
    drop(&r);
}

static void all_ways(const char *path)
{
    settings s = { 0 };
    layerline_plan plan;
    result expected;
    uint64_t budgets[5], rows;
    const unsigned step = quick() ? 2 : 1;
    size_t b;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(path, &s);
    s.budget = plan.full_bytes * 2;
    s.threads = 1;
    s.io = LAYERLINE_IO_BUFFERED;
    REQUIRE(run(path, &s, false, &expected));

    rows = (PROMPT - 1) * expected.vocab * sizeof(float);
    for (b = 0; b < sizeof budgets / sizeof budgets[0]; b += step) {
        for (s.threads = 1; s.threads <= 3; s.threads += step) {
            for (s.io = LAYERLINE_IO_AUTO; s.io <= LAYERLINE_IO_MMAP; s.io++) {
                int off;
                for (off = 0; off <= 1; off++) {
                    /* Threads have stacks and scratch of their own, so the floor moves with their number. */
                    s.prefetch_off = off != 0;
                    s.budget = UINT64_C(1) << 32;
                    plan = plan_of(path, &s);
                    budgets[0] = plan.floor_bytes;
                    budgets[1] = plan.floor_bytes + rows;
                    budgets[2] = plan.floor_bytes + rows + (plan.full_bytes - plan.floor_bytes) / 3;
                    budgets[3] = plan.full_bytes + rows;
                    budgets[4] = UINT64_C(1) << 30;
                    s.budget = budgets[b];
                    compare(path, &s, b == 0, &expected);
                }
            }
        }
    }
    /* What bounds the cache bounds nothing else. */
    s.threads = 2;
    s.io = LAYERLINE_IO_AUTO;
    s.prefetch_off = false;
    s.budget = UINT64_C(1) << 30;
    s.cache_layers = 1;
    compare(path, &s, false, &expected);
    s.cache_layers = 0;
    s.distance = 1;
    compare(path, &s, false, &expected);
    drop(&expected);
}

/* The same of quantised weights in pages of many rows: at the floor and at a third of the way, with and without
 * prefetch. */
static void a_real_model(const char *path)
{
    settings s = { 0 };
    result expected;
    int round;
    s.context = 64;
    s.threads = 1;
    REQUIRE(run(path, &s, false, &expected));
    s.threads = 2;
    for (round = 0; round < 4; round++) {
        layerline_plan plan;
        s.prefetch_off = round % 2 != 0;
        s.budget = UINT64_C(1) << 32;
        plan = plan_of(path, &s);
        s.budget = plan.floor_bytes + (round < 2 ? 0 : (plan.full_bytes - plan.floor_bytes) / 3);
        compare(path, &s, round < 2, &expected);
    }
    drop(&expected);
}

int main(void)
{
    const char *real = real_model();
    all_ways(data_path(TINY_MODEL));
    /* There the first model stands for the others. */
    if (quick()) {
        return check_result();
    }
    all_ways(data_path("arch/llama-mha-tied.gguf"));
    if (real == NULL) {
        fprintf(stderr, "skipped: the real model (it is not fetched)\n");
        return check_result() == EXIT_SUCCESS ? CHECK_SKIP : check_result();
    }
    a_real_model(real);
    return check_result();
}
