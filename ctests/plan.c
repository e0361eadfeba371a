/* Planning: what a model needs is known before anything is loaded, and is what opening it then asks for. */
#include "support.h"

#include <sys/stat.h>

static void figures_add_up(const char *path)
{
    settings s = { 0 };
    struct stat file;
    layerline_plan plan;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(path, &s);
    REQUIRE(stat(path, &file) == 0);
    CHECK(plan.struct_size == sizeof plan);
    CHECK(plan.layer_count > 0);
    CHECK(plan.file_bytes == (uint64_t)file.st_size);
    CHECK(plan.weight_bytes > 0 && plan.weight_bytes <= plan.file_bytes);
    CHECK(plan.kv_bytes > 0 && plan.scratch_bytes > 0 && plan.tables_bytes > 0);
    CHECK(plan.floor_bytes <= plan.full_bytes);
    CHECK(plan.kv_bytes + plan.scratch_bytes + plan.tables_bytes <= plan.floor_bytes);
    CHECK(plan.streamed_bytes == 0);
    CHECK(plan.unread_tensors == 0 && plan.unread_bytes == 0);
    /* All stays, counted as the memory it takes: that and the rest is what a full budget holds. */
    CHECK(plan.pinned_bytes + plan.kv_bytes + plan.scratch_bytes + plan.tables_bytes == plan.full_bytes);

    s.budget = plan.full_bytes;
    CHECK(plan_of(path, &s).streamed_bytes == 0);
    s.budget = plan.floor_bytes;
    if (plan.floor_bytes < plan.full_bytes) {
        CHECK(plan_of(path, &s).streamed_bytes > 0);
    }
}

static void more_budget_streams_no_more(const char *path)
{
    settings s = { 0 };
    layerline_plan plan, before;
    uint64_t step, i;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    before = plan_of(path, &s);
    step = (before.full_bytes - before.floor_bytes) / 16 + 1;
    s.budget = before.floor_bytes;
    before = plan_of(path, &s);
    for (i = 0; i < 18; i++) {
        s.budget += step;
        plan = plan_of(path, &s);
        CHECK(plan.streamed_bytes <= before.streamed_bytes);
        CHECK(plan.pinned_bytes >= before.pinned_bytes);
        CHECK(plan.pinned_bytes <= s.budget);
        CHECK(plan.floor_bytes == before.floor_bytes && plan.full_bytes == before.full_bytes);
        before = plan;
    }
    CHECK(before.streamed_bytes == 0);
}

static void context_and_chunk_are_paid_for(const char *path)
{
    settings s = { 0 };
    layerline_plan small, large;
    s.budget = UINT64_C(1) << 32;
    s.context = 32;
    small = plan_of(path, &s);
    s.context = 256;
    large = plan_of(path, &s);
    CHECK(large.kv_bytes > small.kv_bytes);
    CHECK(large.floor_bytes > small.floor_bytes);
    s.chunk = 16;
    small = plan_of(path, &s);
    s.chunk = 256;
    large = plan_of(path, &s);
    CHECK(large.scratch_bytes > small.scratch_bytes);
}

static void a_model_at_its_planned_floor_opens_and_runs(const char *path)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_session *session;
    layerline_stats stats;
    layerline_error *err;
    int32_t tokens[8];
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    s.budget = plan_of(path, &s).floor_bytes;
    model = open_model(path, &s);
    session = new_session(model, 0);
    fill_tokens(tokens, 8, TINY_VOCAB, 3);
    CHECK_OK(err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    /* The floor has room for one row of logits. More are refused before anything is done, and one still works. */
    CHECK_BUDGET_ERROR(err, layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_ALL,
                                                      LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 8);
    CHECK_OK(err, layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK(position_of(session) == 9);
    stats = stats_of(model);
    CHECK(stats.budget_bytes == s.budget);
    CHECK(stats.used_bytes <= stats.peak_bytes);
    CHECK(stats.peak_bytes <= stats.budget_bytes);
    layerline_session_free(session);
    layerline_model_free(model);
}

static void a_budget_below_the_floor_can_be_planned(const char *path)
{
    settings s = { 0 };
    layerline_plan plan;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(path, &s);
    s.budget = 1; /* that is how a host learns what it would need */
    CHECK(plan_of(path, &s).floor_bytes == plan.floor_bytes);
    CHECK(plan_of(path, &s).full_bytes == plan.full_bytes);
}

static void what_cannot_be_planned_is_an_error(void)
{
    settings s = { 0 };
    layerline_options *options = make_options(&s);
    layerline_plan plan;
    layerline_error *err;
    memset(&plan, 0xAB, sizeof plan);
    plan.struct_size = (uint32_t)sizeof plan;
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_options_plan(options, "/no/such/model.gguf", &plan, &err));
    CHECK(plan.file_bytes == UINT64_C(0xABABABABABABABAB)); /* out-parameters are written on success only */
    layerline_options_free(options);
}

/* struct_size is set by the caller before the call; fields are only ever appended. */
static void struct_size_rules(const char *path)
{
    struct { layerline_plan known; unsigned char later[64]; } larger;
    settings s = { 0 };
    layerline_options *options;
    layerline_error *err;
    size_t i;
    s.context = 64;
    s.budget = UINT64_C(1) << 32;
    options = make_options(&s);
    memset(&larger, 0xCD, sizeof larger);
    larger.known.struct_size = 0;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_options_plan(options, path, &larger.known, &err));
    larger.known.struct_size = 4;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_options_plan(options, path, &larger.known, &err));
    larger.known.struct_size = (uint32_t)sizeof larger;
    CHECK_OK(err, layerline_options_plan(options, path, &larger.known, &err));
    CHECK(larger.known.layer_count > 0);
    for (i = 0; i < sizeof larger.later; i++) {
        CHECK(larger.later[i] == 0xCD);
    }
    layerline_options_free(options);
}

int main(void)
{
    const char *path = data_path(TINY_MODEL);
    figures_add_up(path);
    figures_add_up(data_path("arch/llama-mha-tied.gguf"));
    more_budget_streams_no_more(path);
    context_and_chunk_are_paid_for(path);
    a_model_at_its_planned_floor_opens_and_runs(path);
    a_model_at_its_planned_floor_opens_and_runs(data_path("arch/llama-mha-tied.gguf"));
    a_budget_below_the_floor_can_be_planned(path);
    what_cannot_be_planned_is_an_error();
    struct_size_rules(path);
    return check_result();
}
