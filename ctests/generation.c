/* Generations: why a text ends, stop strings, and texts that drafts leave as they are. */
#include "support.h"

#define PROMPT 6u
#define MOST 64u

typedef struct text {
    int32_t tokens[MOST];
    size_t count, bytes, most;
    char pieces[MOST * 64];
} text;

static bool keep(int32_t token, const char *piece, size_t length, void *user_data)
{
    text *t = user_data;
    if (t->count < MOST) {
        t->tokens[t->count++] = token;
    }
    if (t->bytes + length < sizeof t->pieces) {
        memcpy(t->pieces + t->bytes, piece, length);
        t->bytes += length;
        t->pieces[t->bytes] = 0;
    }
    return t->count < t->most;
}

static layerline_model *small_model(void)
{
    settings s = { 0 };
    s.context = 128;
    s.threads = 2;
    return open_model(data_path(TINY_MODEL), &s);
}

static layerline_generation *new_generation(size_t most)
{
    layerline_generation *generation = layerline_generation_new();
    REQUIRE(generation != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_max_tokens(generation, most));
    return generation;
}

/* A text of a new session, by a sampler of its own; what it was is in the stats. */
static text generate(layerline_model *model, layerline_generation *generation, uint64_t seed, size_t most,
                     layerline_generation_stats *stats)
{
    static const int32_t prompt[PROMPT] = { 1, 40, 50, 60, 40, 50 };
    layerline_session *session = new_session(model, 0);
    layerline_sampler *sampler = layerline_sampler_new();
    layerline_error *err;
    text t;
    memset(&t, 0, sizeof t);
    t.most = most;
    REQUIRE(sampler != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, seed == 0 ? 0.0f : 0.1f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, seed));
    CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, prompt, PROMPT, keep, &t, &err));
    memset(stats, 0x55, sizeof *stats);
    stats->struct_size = sizeof *stats;
    CHECK_OK(err, layerline_generation_get_stats(generation, stats, &err));
    CHECK(stats->struct_size == sizeof *stats);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
    return t;
}

static void a_text_ends_by_length_by_the_callback_and_by_a_stop_string(layerline_model *model)
{
    layerline_generation *generation = new_generation(24);
    layerline_generation_stats stats;
    layerline_error *err;
    text whole = generate(model, generation, 0, MOST, &stats), cut;
    CHECK(stats.end == LAYERLINE_END_LENGTH || stats.end == LAYERLINE_END_TOKEN);
    CHECK(whole.count == 24 || stats.end == LAYERLINE_END_TOKEN);
    CHECK(stats.tokens >= whole.count && stats.passes + 1 >= whole.count);
    CHECK(stats.drafted == 0 && stats.accepted == 0 && stats.gained_ns == 0);
    REQUIRE(whole.bytes > 4);

    cut = generate(model, generation, 0, 2, &stats);
    CHECK(stats.end == LAYERLINE_END_CALLBACK && cut.count == 2);
    CHECK(memcmp(cut.tokens, whole.tokens, 2 * sizeof *cut.tokens) == 0);

    /* The last character or byte of the text, as it came: what is before its first place is passed on, and no more. */
    CHECK_OK(err, layerline_generation_add_stop(generation, "\xef\xbf\xbf not there", 13, &err));
    if (is_utf8(whole.pieces + 2, 2)) {
        char stop[3] = { whole.pieces[2], whole.pieces[3], 0 };
        size_t at = (size_t)(strstr(whole.pieces, stop) - whole.pieces);
        CHECK_OK(err, layerline_generation_add_stop(generation, stop, 2, &err));
        cut = generate(model, generation, 0, MOST, &stats);
        CHECK(stats.end == LAYERLINE_END_STOP);
        CHECK(cut.bytes == at && memcmp(cut.pieces, whole.pieces, at) == 0);
    }
    CHECK_OK(err, layerline_generation_clear_stops(generation, &err));
    cut = generate(model, generation, 0, MOST, &stats);
    CHECK(cut.count == whole.count && cut.bytes == whole.bytes);
    layerline_generation_free(generation);
}

static void drafts_change_no_token(layerline_model *model)
{
    layerline_generation *plain = new_generation(48), *by_text = new_generation(48), *by_model = new_generation(48);
    layerline_generation_stats stats;
    layerline_error *err;
    uint64_t seed, drafted = 0;
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_draft_text(by_text, 8));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_generation_set_draft_text(by_text, 65));
    CHECK_OK(err, layerline_generation_set_draft_model(by_model, model, 128, 4, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_generation_set_draft_model(by_model, model, 128, 65, &err));
    for (seed = 0; seed < 4; seed++) {
        text want = generate(model, plain, seed, MOST, &stats), got;
        got = generate(model, by_text, seed, MOST, &stats);
        drafted += stats.drafted;
        CHECK(stats.accepted <= stats.drafted);
        CHECK(got.count == want.count && memcmp(got.tokens, want.tokens, sizeof want.tokens) == 0);
        got = generate(model, by_model, seed, MOST, &stats);
        drafted += stats.drafted;
        CHECK(stats.accepted <= stats.drafted);
        CHECK(got.count == want.count && memcmp(got.tokens, want.tokens, sizeof want.tokens) == 0);
        CHECK(strcmp(got.pieces, want.pieces) == 0);
    }
    /* Whether drafts pay is measured; a few are tried in any case. */
    CHECK(drafted > 0);
    layerline_generation_free(plain);
    layerline_generation_free(by_text);
    layerline_generation_free(by_model);
}

int main(void)
{
    layerline_model *model = small_model();
    a_text_ends_by_length_by_the_callback_and_by_a_stop_string(model);
    drafts_change_no_token(model);
    layerline_model_free(model);
    return check_result();
}
