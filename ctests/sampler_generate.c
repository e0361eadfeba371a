/* Sampling and generation: greedy is the argmax, a seed is a sequence, a callback stops, pieces are whole characters. */
#include "support.h"

#include <math.h>

static layerline_model *small_model(void)
{
    settings s = { 0 };
    s.context = 256;
    s.threads = 2;
    return open_model(data_path(TINY_MODEL), &s);
}

static layerline_sampler *new_sampler(void)
{
    layerline_sampler *sampler = layerline_sampler_new();
    REQUIRE(sampler != NULL);
    return sampler;
}

static void every_setter_knows_its_bounds(void)
{
    layerline_sampler *s = new_sampler();
    const float nan = nanf("");
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(s, 0.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(s, 0.8f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_temperature(s, -0.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_temperature(s, nan));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_temperature(s, INFINITY));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_k(s, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_k(s, 40));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_k(s, UINT32_MAX));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_p(s, 0.9f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_p(s, 1.0f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_top_p(s, -0.1f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_top_p(s, 1.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_top_p(s, nan));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_min_p(s, 0.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_min_p(s, 0.05f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_min_p(s, -0.1f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_min_p(s, 1.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_min_p(s, nan));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_repeat_penalty(s, 1.0f, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_repeat_penalty(s, 1.1f, 64));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_repeat_penalty(s, -1.0f, 64));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_repeat_penalty(s, nan, 64));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_repeat_penalty(s, INFINITY, 64));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_typical_p(s, 0.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_typical_p(s, 1.5f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_n_sigma(s, 1.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_top_n_sigma(s, -1.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_xtc(s, 0.5f, 0.1f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_xtc(s, 0.5f, nan));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_dynamic_temperature(s, 0.5f, 1.0f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_dynamic_temperature(s, nan, 1.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_mirostat(s, 5.0f, 0.1f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_mirostat(s, -5.0f, 0.1f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_frequency_penalty(s, -0.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_frequency_penalty(s, nan));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_presence_penalty(s, 0.5f));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_presence_penalty(s, INFINITY));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_dry(s, 0.8f, 1.75f, 2, 1024));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_dry(s, 0.8f, 0.5f, 2, 1024));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(s, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(s, UINT64_MAX));
    layerline_sampler_free(s);
    layerline_sampler_free(NULL);
}

/* Each does something, and what does not exist is refused by name. */
static void the_rest_of_the_chain_can_be_set(layerline_model *model)
{
    static const float logits[4] = { 1.0f, 3.0f, 2.0f, 0.0f };
    static const int32_t banned[2] = { 1, 0 }, twice[2] = { LAYERLINE_STEP_TOP_K, LAYERLINE_STEP_TOP_K };
    static const int32_t chain[2] = { LAYERLINE_STEP_DRY, LAYERLINE_STEP_TEMPERATURE }, unknown = 9;
    const float biases[2] = { -INFINITY, 0.5f }, nan = nanf("");
    layerline_sampler *s = new_sampler();
    layerline_error *err;
    int32_t token = -1, seen[7] = { 3, 1, 2, 0, 3, 1, 2 };
    CHECK_OK(err, layerline_sampler_set_logit_biases(s, banned, biases, 2, &err));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_logit_biases(s, banned, &nan, 1, NULL));
    CHECK_OK(err, layerline_sampler_sample_logits(s, logits, 4, &token, &err));
    CHECK(token == 2);
    CHECK_OK(err, layerline_sampler_set_logit_biases(s, NULL, NULL, 0, &err));
    CHECK_OK(err, layerline_sampler_set_steps(s, chain, 2, &err));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_steps(s, twice, 2, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_set_steps(s, &unknown, 1, NULL));
    /* After 3 1 2 came 0, which would be repeated, unless a breaker stands in between. */
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_dry(s, 100.0f, 1.0f, 3, 64));
    CHECK_OK(err, layerline_sampler_accept(s, seen, 7, &err));
    {
        const float sure[4] = { 9.0f, 0.0f, 0.0f, 1.0f };
        layerline_sampler *copy = NULL;
        char text[64];
        size_t length = 0;
        CHECK_OK(err, layerline_sampler_copy(s, &copy, &err));
        CHECK_OK(err, layerline_sampler_sample_logits(s, sure, 4, &token, &err));
        CHECK(token == 3);
        CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_sampler_add_dry_breaker(copy, model, "", 0, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, &seen[2], 1, text, sizeof text, &length, NULL));
        if (length > 0) {
            CHECK_OK(err, layerline_sampler_add_dry_breaker(copy, model, text, length, &err));
            CHECK_OK(err, layerline_sampler_sample_logits(copy, sure, 4, &token, &err));
            CHECK(token == 0);
            CHECK_OK(err, layerline_sampler_clear_dry_breakers(copy, &err));
        }
        layerline_sampler_free(copy);
    }
    layerline_sampler_free(s);
}

static int32_t argmax_of(const layerline_session *session)
{
    const float *logits = NULL;
    size_t vocab = 0, best = 0, i;
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_session_logits(session, 0, &logits, &vocab, NULL)));
    for (i = 1; i < vocab; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return (int32_t)best;
}

static void what_leaves_one_choice_takes_the_argmax(layerline_model *model)
{
    layerline_session *session = new_session(model, 0);
    layerline_sampler *greedy = new_sampler(), *one = new_sampler(), *nucleus = new_sampler(), *likely = new_sampler();
    layerline_error *err;
    int32_t tokens[20], token = -1;
    size_t i;
    fill_tokens(tokens, 20, TINY_VOCAB, 6);
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT,
                 layerline_sampler_sample(greedy, session, &token, NULL)); /* no logits yet */
    CHECK(token == -1);
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(one, 1.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_k(one, 1));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(nucleus, 1.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_p(nucleus, 1e-6f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(likely, 1.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_min_p(likely, 1.0f));
    for (i = 0; i < 20; i++) {
        int32_t expected;
        CHECK_OK(err, layerline_session_forward(session, tokens + i, 1, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        expected = argmax_of(session);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(greedy, session, &token, NULL));
        CHECK(token == expected);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(one, session, &token, NULL));
        CHECK(token == expected);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(nucleus, session, &token, NULL));
        CHECK(token == expected);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(likely, session, &token, NULL));
        CHECK(token == expected);
    }
    layerline_sampler_free(greedy);
    layerline_sampler_free(one);
    layerline_sampler_free(nucleus);
    layerline_sampler_free(likely);
    layerline_session_free(session);
}

static void draw(layerline_model *model, uint64_t seed, int32_t *drawn, size_t count)
{
    layerline_session *session = new_session(model, 0);
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    int32_t token = 1;
    size_t i;
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 1.5f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, seed));
    CHECK_OK(err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    for (i = 0; i < count; i++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(sampler, session, drawn + i, NULL));
        CHECK(drawn[i] >= 0 && drawn[i] < (int32_t)TINY_VOCAB);
    }
    layerline_sampler_free(sampler);
    layerline_session_free(session);
}

static void a_seed_is_a_sequence(layerline_model *model)
{
    int32_t a[64], b[64], c[64];
    size_t i, distinct = 0;
    draw(model, 42, a, 64);
    draw(model, 42, b, 64);
    draw(model, 43, c, 64);
    CHECK(memcmp(a, b, sizeof a) == 0);
    CHECK(memcmp(a, c, sizeof a) != 0);
    for (i = 1; i < 64; i++) {
        distinct += a[i] != a[0];
    }
    CHECK(distinct > 0);
}

typedef struct heard {
    int32_t tokens[256];
    size_t count, bytes;
    size_t stop_after; /* 0: never */
    char text[8192];
} heard;

static bool listen(int32_t token, const char *piece, size_t length, void *user_data)
{
    heard *h = user_data;
    CHECK(h->count < 256);
    CHECK(length == 0 || piece != NULL);
    CHECK(is_utf8(piece, length));
    h->tokens[h->count++ % 256] = token;
    if (length > 0 && h->bytes + length <= sizeof h->text) {
        memcpy(h->text + h->bytes, piece, length);
        h->bytes += length;
    }
    return h->stop_after == 0 || h->count < h->stop_after;
}

static void generation_is_forward_and_sample_again_and_again(layerline_model *model)
{
    static heard h;
    layerline_session *session = new_session(model, 0);
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    int32_t prompt[7], token;
    size_t i;
    bool end = false;
    memset(&h, 0, sizeof h);
    fill_tokens(prompt, 7, TINY_VOCAB, 11);
    CHECK_OK(err, layerline_session_generate(session, sampler, prompt, 7, 40, listen, &h, &err));
    CHECK(h.count > 0 && h.count <= 40);

    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_forward(session, prompt, 7, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    for (i = 0; i < 40; i++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_sample(sampler, session, &token, NULL));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_token_is_end(model, token, &end, NULL));
        if (end) {
            break;
        }
        CHECK(i < h.count && h.tokens[i] == token);
        CHECK_OK(err, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                                &err));
    }
    CHECK(h.count == i || (end && h.count == i + 1)); /* an end token is told where it cuts a character short */
    layerline_sampler_free(sampler);
    layerline_session_free(session);
}

static void a_callback_stops_and_a_limit_holds(layerline_model *model)
{
    static heard h;
    layerline_session *session = new_session(model, 0);
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    int32_t prompt[4] = { 1, 50, 60, 70 };
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 2.0f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, 5));
    memset(&h, 0, sizeof h);
    h.stop_after = 3;
    CHECK_OK(err, layerline_session_generate(session, sampler, prompt, 4, 100, listen, &h, &err));
    CHECK(h.count <= 3 && h.count > 0);
    memset(&h, 0, sizeof h);
    CHECK_OK(err, layerline_session_generate(session, sampler, prompt, 4, 5, listen, &h, &err));
    CHECK(h.count <= 5);
    memset(&h, 0, sizeof h);
    CHECK_OK(err, layerline_session_generate(session, sampler, prompt, 4, 0, listen, &h, &err));
    CHECK(h.count == 0);
    /* The prompt has been run all the same, and generation goes on from there without another. */
    CHECK_OK(err, layerline_session_generate(session, sampler, NULL, 0, 1, listen, &h, &err));
    CHECK(h.count <= 1);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
}

typedef struct intruder {
    layerline_session *session;
    layerline_sampler *sampler;
    unsigned calls;
} intruder;

static bool intrude(int32_t token, const char *piece, size_t length, void *user_data)
{
    intruder *self = user_data;
    layerline_error *err;
    layerline_session_info info;
    const float *logits = NULL;
    size_t count = 0;
    (void)piece;
    (void)length;
    self->calls++;
    CHECK_ERROR(LAYERLINE_ERROR_BUSY, err, layerline_session_forward(self->session, &token, 1, LAYERLINE_LOGITS_LAST,
                                                                     LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_ERROR(LAYERLINE_ERROR_BUSY, err,
                layerline_session_generate(self->session, self->sampler, &token, 1, 1, intrude, self, &err));
    CHECK_STATUS(LAYERLINE_ERROR_BUSY, layerline_session_truncate(self->session, 0, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_BUSY, layerline_session_logits(self->session, 0, &logits, &count, NULL));
    info.struct_size = (uint32_t)sizeof info;
    CHECK_STATUS(LAYERLINE_ERROR_BUSY, layerline_session_get_info(self->session, &info, NULL));
    CHECK_STATUS(LAYERLINE_ERROR_BUSY, layerline_sampler_set_seed(self->sampler, 1));
    layerline_session_interrupt(self->session);
    return true;
}

/* The one function a callback may use on its own session ends the generation; the others do not wait for ever. */
static void a_callback_finds_its_session_busy_and_may_interrupt_it(layerline_model *model)
{
    intruder self;
    layerline_error *err;
    int32_t prompt[3] = { 1, 45, 46 };
    self.session = new_session(model, 0);
    self.sampler = new_sampler();
    self.calls = 0;
    CHECK_ERROR(LAYERLINE_ERROR_CANCELLED, err,
                layerline_session_generate(self.session, self.sampler, prompt, 3, 50, intrude, &self, &err));
    CHECK(self.calls == 1);
    CHECK(position_of(self.session) == 3);
    CHECK_OK(err, layerline_session_forward(self.session, prompt, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    layerline_sampler_free(self.sampler);
    layerline_session_free(self.session);
}

/* Half of this vocabulary is single bytes and the model is random: most of what it says is broken UTF-8. */
static void pieces_are_whole_characters(layerline_model *model)
{
    static heard h;
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    uint64_t seed;
    int32_t prompt[2] = { 1, 3 + 0xE2 };
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 3.0f));
    for (seed = 0; seed < (quick() ? 2u : 8u); seed++) {
        layerline_session *session = new_session(model, 0);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, seed));
        memset(&h, 0, sizeof h);
        CHECK_OK(err, layerline_session_generate(session, sampler, prompt, 2, 100, listen, &h, &err));
        CHECK(is_utf8(h.text, h.bytes));
        layerline_session_free(session);
    }
    layerline_sampler_free(sampler);
}

static void bad_prompts_are_refused_before_anything_is_said(layerline_model *model)
{
    static heard h;
    layerline_session *session = new_session(model, 16);
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    int32_t prompt[20];
    memset(&h, 0, sizeof h);
    fill_tokens(prompt, 20, TINY_VOCAB, 1);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_generate(session, sampler, prompt, 20, 5, listen,
                                                                              &h, &err));
    prompt[1] = -7;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_generate(session, sampler, prompt, 3, 5, listen, &h, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_session_generate(session, sampler, prompt, 0, 5, listen, &h, &err));
    CHECK(h.count == 0 && position_of(session) == 0);
    /* Running into the end of the context is said, after all that fitted. */
    prompt[1] = 7;
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 3.0f));
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err,
                layerline_session_generate(session, sampler, prompt, 10, 100, listen, &h, &err));
    CHECK(h.count == 7 && position_of(session) == 16);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
}

static bool real_text(void)
{
    static heard with, without;
    const char *path = real_model();
    static const char text[] = "The capital of France is";
    settings s = { 0 };
    size_t limit;
    int pass;
    if (path == NULL) {
        return false;
    }
    s.context = 128;
    /* Valgrind takes seconds for each of these tokens; the first already says it. */
    limit = quick() ? 2 : 8;
    for (pass = 0; pass < 2; pass++) {
        layerline_model *model;
        layerline_session *session;
        layerline_sampler *sampler = new_sampler();
        layerline_error *err;
        heard *h = pass == 0 ? &with : &without;
        int32_t prompt[32];
        size_t count = 0;
        if (pass == 1) { /* and now streamed, with the least memory */
            s.budget = UINT64_C(1) << 32;
            s.budget = plan_of(path, &s).floor_bytes;
        }
        model = open_model(path, &s);
        session = new_session(model, 0);
        CHECK_STATUS(LAYERLINE_OK,
                     layerline_model_tokenize(model, text, strlen(text), LAYERLINE_TOKENIZE_BOS, prompt, 32, &count,
                                              NULL));
        CHECK_OK(err, layerline_session_generate(session, sampler, prompt, count, limit, listen, h, &err));
        layerline_sampler_free(sampler);
        layerline_session_free(session);
        layerline_model_free(model);
    }
    with.text[with.bytes] = '\0';
    CHECK(strstr(with.text, "Paris") != NULL);
    CHECK(with.bytes == without.bytes && memcmp(with.text, without.text, with.bytes) == 0);
    return true;
}

static layerline_generation *new_generation(size_t max_tokens)
{
    layerline_generation *generation = layerline_generation_new();
    REQUIRE(generation != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_max_tokens(generation, max_tokens));
    return generation;
}

static layerline_generation_stats figures_of(const layerline_generation *generation)
{
    layerline_generation_stats stats = { 0 };
    layerline_error *err;
    stats.struct_size = sizeof stats;
    CHECK_OK(err, layerline_generation_get_stats(generation, &stats, &err));
    return stats;
}

static void drafts_change_no_token(layerline_model *model)
{
    static heard plain, drafted;
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t prompt[12];
    int drafter;
    fill_tokens(prompt, 6, TINY_VOCAB, 3);
    memcpy(prompt + 6, prompt, 6 * sizeof *prompt);
    for (drafter = 0; drafter < 3; drafter++) {
        heard *h = drafter == 0 ? &plain : &drafted;
        layerline_generation *generation = new_generation(60);
        layerline_generation_stats stats;
        layerline_sampler *sampler = new_sampler();
        memset(h, 0, sizeof *h);
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 0.3f));
        CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_seed(sampler, 17));
        CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_generation_set_draft_text(generation, 65));
        if (drafter == 1) {
            CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_draft_text(generation, 8));
        } else if (drafter == 2) {
            CHECK_OK(err, layerline_generation_set_draft_model(generation, model, 100, 4, &err));
        }
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
        CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, prompt, 12, listen, h, &err));
        stats = figures_of(generation);
        CHECK(stats.end == LAYERLINE_END_LENGTH || stats.end == LAYERLINE_END_TOKEN);
        CHECK(stats.tokens >= h->count && stats.accepted <= stats.drafted);
        CHECK(h->count == plain.count && memcmp(h->tokens, plain.tokens, plain.count * sizeof *plain.tokens) == 0);
        layerline_sampler_free(sampler);
        layerline_generation_free(generation);
    }
    layerline_session_free(session);
}

static void a_stop_string_ends_a_text_before_it(layerline_model *model)
{
    static heard whole, cut;
    layerline_session *session = new_session(model, 0);
    layerline_generation *generation = new_generation(40);
    layerline_sampler *sampler = new_sampler();
    layerline_error *err;
    int32_t prompt[7];
    size_t at;
    memset(&whole, 0, sizeof whole);
    memset(&cut, 0, sizeof cut);
    fill_tokens(prompt, 7, TINY_VOCAB, 11);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_generation_add_stop(generation, "", 0, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_generation_add_stop(generation, "\xff", 1, &err));
    CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, prompt, 7, listen, &whole, &err));
    REQUIRE(whole.bytes > 12);
    /* Three bytes of ASCII from the middle of the text. */
    for (at = whole.bytes / 2; at + 3 < whole.bytes; at++) {
        if ((unsigned char)whole.text[at] < 128 && (unsigned char)whole.text[at + 1] < 128 &&
            (unsigned char)whole.text[at + 2] < 128) {
            break;
        }
    }
    REQUIRE(at + 3 < whole.bytes);
    CHECK_OK(err, layerline_generation_add_stop(generation, whole.text + at, 3, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, prompt, 7, listen, &cut, &err));
    CHECK(figures_of(generation).end == LAYERLINE_END_STOP);
    CHECK(cut.bytes <= at && memcmp(cut.text, whole.text, cut.bytes) == 0);
    /* Without it again: the whole text. */
    memset(&cut, 0, sizeof cut);
    CHECK_OK(err, layerline_generation_clear_stops(generation, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_OK(err, layerline_session_generate_with(session, generation, sampler, prompt, 7, listen, &cut, &err));
    CHECK(cut.bytes == whole.bytes && memcmp(cut.text, whole.text, cut.bytes) == 0);
    layerline_sampler_free(sampler);
    layerline_generation_free(generation);
    layerline_session_free(session);
}

int main(void)
{
    layerline_model *model = small_model();
    every_setter_knows_its_bounds();
    the_rest_of_the_chain_can_be_set(model);
    what_leaves_one_choice_takes_the_argmax(model);
    a_seed_is_a_sequence(model);
    generation_is_forward_and_sample_again_and_again(model);
    a_callback_stops_and_a_limit_holds(model);
    a_callback_finds_its_session_busy_and_may_interrupt_it(model);
    pieces_are_whole_characters(model);
    bad_prompts_are_refused_before_anything_is_said(model);
    drafts_change_no_token(model);
    a_stop_string_ends_a_text_before_it(model);
    layerline_model_free(model);
    if (!real_text() && check_result() == EXIT_SUCCESS) {
        fprintf(stderr, "skipped: real text (the model is not fetched)\n");
        return CHECK_SKIP;
    }
    return check_result();
}
