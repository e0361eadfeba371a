/* Generations: why a text ends, stop strings, and texts that drafts leave as they are. */
#include "support.h"

#define PROMPT 6u
#define MOST 64u

typedef struct text {
    int32_t tokens[MOST];
    size_t count, bytes, most;
    char pieces[MOST * 64];
} text;

/* Texts that each way of drafting is tried with. */
static uint64_t seeds(void)
{
    return quick() ? 2 : 4;
}

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
    for (seed = 0; seed < seeds(); seed++) {
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

static layerline_options *layer_options(void)
{
    layerline_options *options = layerline_options_new();
    REQUIRE(options != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_context_length(options, 128));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_threads(options, 2));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_predictor(options, true));
    return options;
}

static void the_models_own_layer_drafts(void)
{
    settings s = { 0 };
    layerline_options *options = layer_options();
    layerline_generation *plain = new_generation(48), *by_layer = new_generation(48);
    layerline_generation_stats stats;
    layerline_model *model, *layer = NULL;
    layerline_session *session;
    layerline_error *err = NULL;
    const int32_t token = 1;
    uint64_t seed;
    s.context = 128;
    s.threads = 2;
    model = open_model(data_path("arch2/glm4moe.gguf"), &s);
    REQUIRE_OK(err, layerline_model_open(data_path("arch2/glm4moe.gguf"), options, &layer, &err));
    CHECK_OK(err, layerline_generation_set_draft_model(by_layer, layer, 0, 4, &err));
    for (seed = 0; seed < seeds(); seed++) {
        text want = generate(model, plain, seed, MOST, &stats), got = generate(model, by_layer, seed, MOST, &stats);
        CHECK(stats.accepted <= stats.drafted);
        CHECK(got.count == want.count && memcmp(got.tokens, want.tokens, sizeof want.tokens) == 0);
    }
    session = new_session(layer, 0);
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err,
                layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                          &err));
    layerline_session_free(session);
    layerline_model_free(layer);
    layer = NULL;
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_model_open(data_path(TINY_MODEL), options, &layer, &err));
    CHECK(layer == NULL);
    layerline_options_free(options);
    layerline_generation_free(plain);
    layerline_generation_free(by_layer);
    layerline_model_free(model);
}

/* Log-probabilities of a text. */
typedef struct details {
    float logprobs[MOST][2];
    layerline_token_logprob top[MOST][3], sampled[MOST][3];
    int32_t tokens[MOST];
    size_t count, tops;
    bool asked;
} details;

static bool look(const layerline_generated *g, void *user_data)
{
    details *d = user_data;
    size_t i;
    REQUIRE(d->count < MOST && g->struct_size == sizeof *g);
    CHECK(g->length == 0 || is_utf8(g->piece, g->length));
    d->tokens[d->count] = g->token;
    if (!d->asked) {
        CHECK(g->logprob != g->logprob && g->sampled_logprob != g->sampled_logprob);
        CHECK(g->top == NULL && g->top_count == 0 && g->sampled_top == NULL && g->sampled_top_count == 0);
        d->count++;
        return true;
    }
    CHECK(g->logprob <= 0 && g->sampled_logprob <= 0);
    CHECK(g->top_count == d->tops && g->sampled_top_count <= d->tops);
    CHECK((g->top == NULL) == (d->tops == 0));
    for (i = 0; i < g->top_count; i++) {
        d->top[d->count][i] = g->top[i];
        CHECK(i == 0 || g->top[i].logprob <= g->top[i - 1].logprob);
        CHECK(g->top[i].token != g->token || memcmp(&g->top[i].logprob, &g->logprob, sizeof g->logprob) == 0);
    }
    for (i = 0; i < g->sampled_top_count; i++) {
        d->sampled[d->count][i] = g->sampled_top[i];
        CHECK(g->sampled_top[i].token != g->token ||
              memcmp(&g->sampled_top[i].logprob, &g->sampled_logprob, sizeof g->logprob) == 0);
    }
    d->logprobs[d->count][0] = g->logprob;
    d->logprobs[d->count][1] = g->sampled_logprob;
    d->count++;
    return true;
}

static void log_probabilities_come_where_they_are_asked_for_and_drafts_change_none(layerline_model *model)
{
    static const int32_t prompt[PROMPT] = { 1, 40, 50, 60, 40, 50 };
    static details all[4];
    layerline_error *err;
    size_t i;
    for (i = 0; i < 4; i++) {
        layerline_session *session = new_session(model, 0);
        layerline_sampler *sampler = layerline_sampler_new();
        layerline_generation *generation = new_generation(24);
        details *d = all + i;
        REQUIRE(sampler != NULL);
        d->asked = i > 0;
        d->tops = i > 1 ? 3 : 0;
        CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_generation_set_logprobs(generation, true, 257));
        CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_logprobs(generation, i > 0, (uint32_t)d->tops));
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 0.1f));
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, 7));
        if (i == 3) {
            CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_draft_text(generation, 8));
        }
        CHECK_OK(err, layerline_session_generate_detailed(session, generation, sampler, prompt, PROMPT, look, d, &err));
        REQUIRE(d->count > 4 && d->count == all[0].count);
        CHECK(memcmp(d->tokens, all[0].tokens, sizeof d->tokens) == 0);
        layerline_session_free(session);
        layerline_sampler_free(sampler);
        layerline_generation_free(generation);
    }
    CHECK(memcmp(all[1].logprobs, all[2].logprobs, sizeof all[1].logprobs) == 0);
    CHECK(memcmp(all[2].logprobs, all[3].logprobs, sizeof all[2].logprobs) == 0);
    CHECK(memcmp(all[2].top, all[3].top, sizeof all[2].top) == 0);
    CHECK(memcmp(all[2].sampled, all[3].sampled, sizeof all[2].sampled) == 0);
}

static void a_next_turn_keeps_what_is_common_and_a_full_context_drops_what_is_oldest(layerline_model *model)
{
    static const int32_t prompt[PROMPT] = { 1, 40, 50, 60, 40, 50 };
    int32_t turn[PROMPT + 2];
    layerline_session *session = new_session(model, 16), *other = new_session(model, 16);
    layerline_sampler *sampler = layerline_sampler_new();
    layerline_generation *generation = new_generation(40);
    layerline_generation_stats stats;
    layerline_error *err;
    text t;
    size_t kept = 99, vocab;
    const float *want;
    REQUIRE(sampler != NULL);
    memset(&t, 0, sizeof t);
    t.most = MOST;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err,
                layerline_session_generate_with(session, generation, sampler, prompt, PROMPT, keep, &t, &err));
    CHECK_OK(err, layerline_generation_get_stats(generation, &stats, &err));
    CHECK(stats.end == LAYERLINE_END_CONTEXT && stats.dropped == 0 && t.count == 11);

    /* The next turn: four tokens of the first one, and others. */
    memcpy(turn, prompt, sizeof prompt);
    turn[4] = 70;
    turn[6] = 71;
    turn[7] = 72;
    CHECK_OK(err, layerline_session_common_prefix(session, turn, PROMPT + 2, &kept, &err));
    CHECK(kept == 4);
    CHECK_OK(err, layerline_session_reuse_prefix(session, turn, PROMPT + 2, &kept, &err));
    CHECK(kept == 4 && position_of(session) == 4);
    CHECK_OK(err, layerline_session_forward(session, turn + kept, PROMPT + 2 - kept, LAYERLINE_LOGITS_LAST,
                                            LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_OK(err, layerline_session_forward(other, turn, PROMPT + 2, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_OK(err, layerline_session_logits(other, 0, &want, &vocab, &err));
    CHECK(same_logits(session, 0, want, vocab));

    CHECK_STATUS(LAYERLINE_OK,
                 layerline_generation_set_context_policy(generation, LAYERLINE_CONTEXT_DROP_OLDEST, 2));
    CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, NULL, 0, keep, &t, &err));
    CHECK_OK(err, layerline_generation_get_stats(generation, &stats, &err));
    CHECK(stats.end == LAYERLINE_END_LENGTH && stats.tokens == 40);
    CHECK(stats.dropped > 20 && stats.dropped + position_of(session) == 8 + 39);
    layerline_session_free(session);
    layerline_session_free(other);
    layerline_sampler_free(sampler);
    layerline_generation_free(generation);
}

int main(void)
{
    layerline_model *model = small_model();
    a_text_ends_by_length_by_the_callback_and_by_a_stop_string(model);
    drafts_change_no_token(model);
    the_models_own_layer_drafts();
    log_probabilities_come_where_they_are_asked_for_and_drafts_change_none(model);
    a_next_turn_keeps_what_is_common_and_a_full_context_drops_what_is_oldest(model);
    layerline_model_free(model);
    return check_result();
}
