/* The result is the same bit for bit, whatever the budget, the way of reading, prefetch or the number of threads. */
#include "support.h"

#define PROMPT 9
#define STEPS 4

typedef struct result {
    float *rows[PROMPT + STEPS];
    size_t vocab;
} result;

static bool run(const char *path, const settings *s, result *r)
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
    REQUIRE_OK(err, layerline_forward(session, tokens, PROMPT, LAYERLINE_LOGITS_ALL, &err));
    for (i = 0; i < PROMPT; i++) {
        r->rows[i] = copy_logits(session, i, &r->vocab);
    }
    for (i = PROMPT; i < PROMPT + STEPS; i++) {
        REQUIRE_OK(err, layerline_forward(session, tokens + i, 1, LAYERLINE_LOGITS_LAST, &err));
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

static void compare(const char *path, const settings *s, const result *expected)
{
    result r;
    char text[512];
    size_t i, different = 0;
    if (!run(path, s, &r)) {
        return;
    }
    for (i = 0; i < PROMPT + STEPS; i++) {
        different += memcmp(r.rows[i], expected->rows[i], r.vocab * sizeof(float)) != 0;
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
    uint64_t budgets[4];
    size_t b;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(path, &s);
    s.budget = plan.full_bytes * 2;
    s.threads = 1;
    s.io = LAYERLINE_IO_BUFFERED;
    REQUIRE(run(path, &s, &expected));

    for (b = 0; b < 4; b++) {
        int32_t io;
        uint32_t threads;
        int off;
        for (threads = 1; threads <= 3; threads++) {
            /* Threads have scratch of their own, so the floor may move with their number. */
            s.threads = threads;
            s.budget = UINT64_C(1) << 32;
            plan = plan_of(path, &s);
            budgets[0] = plan.floor_bytes;
            budgets[1] = plan.floor_bytes + (plan.full_bytes - plan.floor_bytes) / 3;
            budgets[2] = plan.full_bytes;
            budgets[3] = UINT64_C(1) << 30;
            s.budget = budgets[b];
            for (io = LAYERLINE_IO_AUTO; io <= LAYERLINE_IO_MMAP; io++) {
                for (off = 0; off <= 1; off++) {
                    s.io = io;
                    s.prefetch_off = off != 0;
                    compare(path, &s, &expected);
                }
            }
        }
    }
    /* What bounds the cache bounds nothing else. */
    s.io = LAYERLINE_IO_AUTO;
    s.prefetch_off = false;
    s.budget = UINT64_C(1) << 30;
    s.cache_layers = 1;
    compare(path, &s, &expected);
    s.cache_layers = 0;
    s.distance = 1;
    compare(path, &s, &expected);
    drop(&expected);
}

int main(void)
{
    /* Kinds of models that differ in what a pass does; each where its file is part of the test data. */
    static const char *const others[] = {
        "arch/llama-mha-tied.gguf", "arch/gemma2.gguf", "arch/mistral-moe.gguf", "quant/Q4_K_M.gguf",
    };
    size_t i;
    all_ways(data_path(TINY_MODEL));
    for (i = 0; i < sizeof others / sizeof others[0] && getenv("LAYERLINE_QUICK") == NULL; i++) {
        if (has_data(others[i])) {
            all_ways(data_path(others[i]));
        } else {
            printf("left out: %s is not in the test data\n", others[i]);
        }
    }
    return check_result();
}
