/* NULL where a pointer is expected: INVALID_ARGUMENT or nothing at all, never a crash; `err` itself may be NULL. */
#include "support.h"

#define REFUSED(call) CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, call)

/* Each in two ways: with somewhere to put the error, and without. */
#define REFUSED_ERR(call_with_err)                                                                                     \
    do {                                                                                                               \
        layerline_error *error_, **err;                                                                                \
        err = &error_;                                                                                                 \
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, error_, call_with_err);                                          \
        err = NULL;                                                                                                    \
        REFUSED(call_with_err);                                                                                        \
    } while (0)

static bool see(const layerline_generated *generated, void *user_data)
{
    (void)generated, (void)user_data;
    return true;
}

static void freeing_nothing_is_nothing(void)
{
    layerline_error_free(NULL);
    layerline_options_free(NULL);
    layerline_model_free(NULL);
    layerline_checkpoint_free(NULL);
    layerline_session_free(NULL);
    layerline_sampler_free(NULL);
    layerline_generation_free(NULL);
    layerline_constraint_free(NULL);
    layerline_detokenizer_free(NULL);
    layerline_message_parser_free(NULL);
    layerline_adapter_free(NULL);
    layerline_source_free(NULL);
    layerline_session_interrupt(NULL);
    layerline_session_clear_interrupt(NULL);
}

static void an_absent_error_can_be_asked(void)
{
    /* Success leaves NULL, and a host may print what it has. */
    CHECK(layerline_error_status(NULL) == LAYERLINE_OK);
    CHECK(layerline_error_message(NULL) != NULL && strcmp(layerline_error_message(NULL), "") == 0);
}

static void options(void)
{
    REFUSED(layerline_options_set_memory_budget(NULL, 1));
    REFUSED(layerline_options_set_context_length(NULL, 1));
    REFUSED(layerline_options_set_chunk_length(NULL, 1));
    REFUSED(layerline_options_set_threads(NULL, 1));
    REFUSED(layerline_options_set_prefetch(NULL, true));
    REFUSED(layerline_options_set_share_sweeps(NULL, true));
    REFUSED(layerline_options_set_predictor(NULL, true));
    REFUSED(layerline_options_set_prefetch_distance(NULL, 1));
    REFUSED(layerline_options_set_cache_layers(NULL, 1));
    REFUSED(layerline_options_set_kv_type(NULL, LAYERLINE_KV_F16));
    REFUSED(layerline_options_set_io(NULL, LAYERLINE_IO_AUTO));
    REFUSED(layerline_options_set_profile(NULL, "profile"));
}

static int64_t read_nothing(uint64_t offset, void *buf, size_t length, void *user_data)
{
    (void)offset, (void)buf, (void)length, (void)user_data;
    return 0;
}

static void sources(void)
{
    layerline_source *source = NULL;
    layerline_model *model = NULL;
    layerline_plan plan;
    memset(&plan, 0, sizeof plan);
    plan.struct_size = (uint32_t)sizeof plan;
    REFUSED_ERR(layerline_source_new(9, NULL, NULL, NULL, &source, err));
    REFUSED_ERR(layerline_source_new(9, read_nothing, NULL, NULL, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_source_new(9, read_nothing, NULL, NULL, &source, NULL));
    REFUSED_ERR(layerline_source_set_name(NULL, "name", err));
    REFUSED_ERR(layerline_source_set_name(source, NULL, err));
    REFUSED_ERR(layerline_source_set_concurrent(NULL, true, err));
    REFUSED_ERR(layerline_source_add_file(NULL, source, err));
    REFUSED_ERR(layerline_source_add_file(source, NULL, err));
    REFUSED_ERR(layerline_options_plan_source(NULL, NULL, &plan, err));
    REFUSED_ERR(layerline_options_plan_source(NULL, source, NULL, err));
    REFUSED_ERR(layerline_model_open_source(NULL, NULL, &model, err));
    REFUSED_ERR(layerline_model_open_source(source, NULL, NULL, err));
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_model_open_source(source, NULL, &model, NULL));
    CHECK(model == NULL);
    layerline_source_free(source);
}

static void opening(const char *path)
{
    settings s = { 0 };
    layerline_options *o;
    layerline_model *model = NULL;
    layerline_plan plan;
    s.context = 64;
    o = make_options(&s);
    memset(&plan, 0, sizeof plan);
    plan.struct_size = (uint32_t)sizeof plan;
    REFUSED_ERR(layerline_options_plan(o, NULL, &plan, err));
    REFUSED_ERR(layerline_options_plan(o, path, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_plan(NULL, path, &plan, NULL)); /* the defaults */
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_options_plan(o, "/no/such/file", &plan, NULL));

    REFUSED_ERR(layerline_model_open(NULL, o, &model, err));
    REFUSED_ERR(layerline_model_open(path, o, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_model_open(path, NULL, &model, NULL)); /* the defaults */
    layerline_model_free(model);
    model = NULL;
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_model_open("/no/such/file", o, &model, NULL));
    REFUSED_ERR(layerline_model_open_fd(0, 0, 4096, o, NULL, err));
    CHECK(model == NULL);
    layerline_options_free(o);
}

static void model_functions(layerline_model *model)
{
    layerline_model_info info;
    layerline_stats stats;
    layerline_session *session = NULL;
    layerline_event event;
    uint64_t ticket = 0;
    size_t count = 0, needed = 0;
    int32_t state = 0;
    char buf[16];
    memset(&info, 0, sizeof info);
    memset(&stats, 0, sizeof stats);
    info.struct_size = (uint32_t)sizeof info;
    stats.struct_size = (uint32_t)sizeof stats;
    REFUSED_ERR(layerline_model_get_info(NULL, &info, err));
    REFUSED_ERR(layerline_model_get_info(model, NULL, err));
    REFUSED_ERR(layerline_model_get_stats(NULL, &stats, err));
    REFUSED_ERR(layerline_model_get_stats(model, NULL, err));
    REFUSED_ERR(layerline_model_metadata(NULL, "general.name", buf, sizeof buf, &needed, err));
    REFUSED_ERR(layerline_model_metadata(model, NULL, buf, sizeof buf, &needed, err));
    REFUSED_ERR(layerline_model_metadata(model, "general.name", NULL, 16, &needed, err));
    REFUSED_ERR(layerline_model_metadata(model, "general.name", buf, sizeof buf, NULL, err));
    REFUSED_ERR(layerline_model_metadata_count(NULL, &count, err));
    REFUSED_ERR(layerline_model_metadata_count(model, NULL, err));
    REFUSED_ERR(layerline_model_metadata_key_at(NULL, 0, buf, sizeof buf, &count, err));
    REFUSED_ERR(layerline_model_metadata_key_at(model, 0, NULL, 8, &count, err));
    REFUSED_ERR(layerline_model_metadata_key_at(model, 0, buf, sizeof buf, NULL, err));
    REFUSED_ERR(layerline_model_set_memory_budget(NULL, 1 << 20, err));
    REFUSED_ERR(layerline_model_profile_save(NULL, "/no/such/folder/profile", err));
    REFUSED_ERR(layerline_model_profile_save(model, NULL, err));

    REFUSED_ERR(layerline_model_forward_batch(NULL, NULL, 0, err));
    REFUSED_ERR(layerline_model_forward_batch(model, NULL, 1, err));
    REFUSED_ERR(layerline_model_prefetch(NULL, 0, 1, &ticket, err));
    REFUSED_ERR(layerline_model_prefetch(model, 0, 1, NULL, err));
    REFUSED_ERR(layerline_model_cancel(NULL, 1, err));
    REFUSED_ERR(layerline_model_ticket_error(NULL, 1, err));
    REFUSED_ERR(layerline_model_poll(NULL, &event, 1, &count, err));
    REFUSED_ERR(layerline_model_poll(model, NULL, 1, &count, err));
    REFUSED_ERR(layerline_model_poll(model, &event, 1, NULL, err));
    REFUSED_ERR(layerline_model_wait(NULL, 0, &event, 1, &count, err));
    REFUSED_ERR(layerline_model_wait(model, 0, NULL, 1, &count, err));
    REFUSED_ERR(layerline_model_wait(model, 0, &event, 1, NULL, err));
    CHECK(layerline_model_event_handle(NULL) == -1);
    REFUSED_ERR(layerline_model_layer_state(NULL, 0, &state, err));
    REFUSED_ERR(layerline_model_layer_state(model, 0, NULL, err));

    REFUSED_ERR(layerline_session_new(NULL, 0, &session, err));
    REFUSED_ERR(layerline_session_new(model, 0, NULL, err));
    CHECK(session == NULL);
}

static void text_functions(const layerline_model *model)
{
    layerline_detokenizer *detokenizer = NULL;
    int32_t tokens[8] = { 3 + 'a' };
    char buf[8];
    size_t needed = 0;
    uint32_t attributes = 0;
    bool end = false;
    REFUSED_ERR(layerline_model_tokenize(NULL, "a", 1, 0, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize(model, NULL, 1, 0, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize(model, "a", 1, 0, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize(model, "a", 1, 0, tokens, 8, NULL, err));
    REFUSED_ERR(layerline_model_detokenize(NULL, tokens, 1, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize(model, NULL, 1, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize(model, tokens, 1, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize(model, tokens, 1, buf, 8, NULL, err));
    REFUSED_ERR(layerline_model_detokenize_with(NULL, tokens, 1, 0, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize_with(model, NULL, 1, 0, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize_with(model, tokens, 1, 0, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_detokenize_with(model, tokens, 1, 0, buf, 8, NULL, err));
    REFUSED_ERR(layerline_detokenizer_new(NULL, 0, &detokenizer, err));
    REFUSED_ERR(layerline_detokenizer_new(model, 0, NULL, err));
    REFUSED_ERR(layerline_detokenizer_push(NULL, tokens, 1, buf, 8, &needed, err));
    REFUSED_ERR(layerline_detokenizer_finish(NULL, buf, 8, &needed, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_detokenizer_new(model, 0, &detokenizer, NULL));
    REFUSED_ERR(layerline_detokenizer_push(detokenizer, NULL, 1, buf, 8, &needed, err));
    REFUSED_ERR(layerline_detokenizer_push(detokenizer, tokens, 1, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_detokenizer_push(detokenizer, tokens, 1, buf, 8, NULL, err));
    REFUSED_ERR(layerline_detokenizer_finish(detokenizer, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_detokenizer_finish(detokenizer, buf, 8, NULL, err));
    layerline_detokenizer_free(detokenizer);
    REFUSED_ERR(layerline_model_token_text(NULL, 1, buf, 8, &needed, &attributes, err));
    REFUSED_ERR(layerline_model_token_text(model, 1, NULL, 8, &needed, &attributes, err));
    REFUSED_ERR(layerline_model_token_text(model, 1, buf, 8, NULL, &attributes, err));
    REFUSED_ERR(layerline_model_token_text(model, 1, buf, 8, &needed, NULL, err));
    REFUSED_ERR(layerline_model_token_is_end(NULL, 1, &end, err));
    REFUSED_ERR(layerline_model_token_is_end(model, 1, NULL, err));
}

static void message_functions(const layerline_model *model)
{
    layerline_message_parser *parser = NULL;
    layerline_message_part part = { .struct_size = sizeof part };
    char buf[8];
    size_t needed = 0;
    REFUSED_ERR(layerline_message_parser_new(NULL, NULL, NULL, 0, &parser, err));
    REFUSED_ERR(layerline_message_parser_new(NULL, "plain", NULL, 0, NULL, err));
    REFUSED_ERR(layerline_message_parser_new(NULL, "plain", NULL, 1, &parser, err));
    CHECK_STATUS(LAYERLINE_ERROR_NOT_FOUND, layerline_message_parser_new(model, NULL, NULL, 0, &parser, NULL));
    CHECK(strcmp(layerline_message_parser_format(NULL), "") == 0);
    REFUSED_ERR(layerline_message_parser_begin(NULL, "", 0, err));
    REFUSED_ERR(layerline_message_parser_feed(NULL, "", 0, err));
    REFUSED_ERR(layerline_message_parser_finish(NULL, err));
    REFUSED_ERR(layerline_message_parser_message(NULL, buf, 8, &needed, err));
    CHECK(!layerline_message_parser_next(NULL, &part));
    CHECK_STATUS(LAYERLINE_OK, layerline_message_parser_new(NULL, "plain", NULL, 0, &parser, NULL));
    REFUSED_ERR(layerline_message_parser_begin(parser, NULL, 1, err));
    REFUSED_ERR(layerline_message_parser_feed(parser, NULL, 1, err));
    REFUSED_ERR(layerline_message_parser_message(parser, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_message_parser_message(parser, buf, 8, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_message_parser_feed(parser, "a", 1, NULL));
    CHECK(!layerline_message_parser_next(parser, NULL));
    CHECK(layerline_message_parser_next(parser, &part) && part.length == 1);
    layerline_message_parser_free(parser);
}

static void chat_functions(const layerline_model *model)
{
    layerline_message message = { "user", "hello" }, silent = { "user", NULL }, nobody = { NULL, "hello" };
    int32_t tokens[8];
    char buf[8];
    size_t needed = 77;
    REFUSED_ERR(layerline_model_format_chat(NULL, &message, 1, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat(model, NULL, 1, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat(model, &silent, 1, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat(model, &nobody, 1, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat(model, &message, 1, true, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat(model, &message, 1, true, buf, 8, NULL, err));
    REFUSED_ERR(layerline_model_format_chat(model, &message, SIZE_MAX, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat_json(NULL, "{}", 2, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat_json(model, NULL, 2, true, buf, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat_json(model, "{}", 2, true, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_format_chat_json(model, "{}", 2, true, buf, 8, NULL, err));
    REFUSED_ERR(layerline_model_tokenize_chat(NULL, &message, 1, true, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat(model, NULL, 1, true, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat(model, &silent, 1, true, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat(model, &message, 1, true, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat(model, &message, 1, true, tokens, 8, NULL, err));
    REFUSED_ERR(layerline_model_tokenize_chat_json(NULL, "{}", 2, true, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat_json(model, NULL, 2, true, tokens, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat_json(model, "{}", 2, true, NULL, 8, &needed, err));
    REFUSED_ERR(layerline_model_tokenize_chat_json(model, "{}", 2, true, tokens, 8, NULL, err));
    CHECK(needed == 77);
}

static void session_functions(layerline_session *session)
{
    const float *logits = NULL;
    layerline_session_info info = { sizeof info, 0, 0, 0, 0, 0, 0 };
    layerline_progress progress = { sizeof progress, 0, 0, 0, 0, 0 };
    layerline_checkpoint *checkpoint = NULL;
    uint8_t byte = 0;
    size_t count = 0;
    int32_t token = 5;
    uint64_t ticket = 0;
    layerline_session *copy = NULL;
    layerline_error *error;
    REFUSED_ERR(layerline_session_forward(NULL, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, err));
    REFUSED_ERR(layerline_session_forward(session, NULL, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, err));
    CHECK_OK(error, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &error));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST,
                                                         LAYERLINE_EMBEDDINGS_NONE, NULL));
    REFUSED_ERR(layerline_session_submit(NULL, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         err));
    REFUSED_ERR(layerline_session_submit(session, NULL, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         err));
    REFUSED_ERR(layerline_session_submit(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, NULL,
                                         err));
    CHECK(ticket == 0);
    REFUSED_ERR(layerline_session_logits(NULL, 0, &logits, &count, err));
    REFUSED_ERR(layerline_session_logits(session, 0, NULL, &count, err));
    REFUSED_ERR(layerline_session_logits(session, 0, &logits, NULL, err));
    CHECK_OK(error, layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_LAST,
                                              &error));
    REFUSED_ERR(layerline_session_embeddings(NULL, 0, &logits, &count, err));
    REFUSED_ERR(layerline_session_embeddings(session, 0, NULL, &count, err));
    REFUSED_ERR(layerline_session_embeddings(session, 0, &logits, NULL, err));
    CHECK(logits == NULL && count == 0);
    REFUSED_ERR(layerline_session_get_info(NULL, &info, err));
    REFUSED_ERR(layerline_session_get_info(session, NULL, err));
    REFUSED_ERR(layerline_session_get_progress(NULL, &progress, err));
    REFUSED_ERR(layerline_session_get_progress(session, NULL, err));
    REFUSED_ERR(layerline_session_truncate(NULL, 0, err));
    REFUSED_ERR(layerline_session_copy(NULL, 0, &copy, err));
    REFUSED_ERR(layerline_session_copy(session, 0, NULL, err));
    CHECK(copy == NULL);
    REFUSED_ERR(layerline_session_save(NULL, "/no/such/folder/state", err));
    REFUSED_ERR(layerline_session_save(session, NULL, err));
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_session_save(session, "/no/such/folder/state", NULL));
    REFUSED_ERR(layerline_session_load(NULL, "/no/such/folder/state", err));
    REFUSED_ERR(layerline_session_load(session, NULL, err));
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_session_load(session, "/no/such/folder/state", NULL));
    REFUSED_ERR(layerline_session_save_buffer(NULL, &byte, 1, &count, err));
    REFUSED_ERR(layerline_session_save_buffer(session, NULL, 1, &count, err));
    REFUSED_ERR(layerline_session_save_buffer(session, &byte, 1, NULL, err));
    REFUSED_ERR(layerline_session_load_buffer(NULL, &byte, 1, err));
    REFUSED_ERR(layerline_session_load_buffer(session, NULL, 1, err));
    CHECK(count == 0 && byte == 0);
    REFUSED_ERR(layerline_session_checkpoint(NULL, &checkpoint, err));
    REFUSED_ERR(layerline_session_checkpoint(session, NULL, err));
    CHECK(checkpoint == NULL);
    CHECK_OK(error, layerline_session_checkpoint(session, &checkpoint, &error));
    REFUSED_ERR(layerline_session_restore(NULL, checkpoint, err));
    REFUSED_ERR(layerline_session_restore(session, NULL, err));
    layerline_checkpoint_free(checkpoint);
    CHECK(layerline_checkpoint_position(NULL) == 0 && layerline_checkpoint_memory_bytes(NULL) == 0);
    CHECK(position_of(session) == 3);
}

static void sampler_functions(layerline_session *session, const layerline_model *model)
{
    layerline_sampler *sampler = layerline_sampler_new(), *copy = NULL;
    int32_t token = 5;
    float logit = 1;
    REQUIRE(sampler != NULL);
    REFUSED(layerline_sampler_set_temperature(NULL, 1.0f));
    REFUSED(layerline_sampler_set_top_k(NULL, 1));
    REFUSED(layerline_sampler_set_top_p(NULL, 1.0f));
    REFUSED(layerline_sampler_set_min_p(NULL, 0.0f));
    REFUSED(layerline_sampler_set_repeat_penalty(NULL, 1.0f, 1));
    REFUSED(layerline_sampler_set_seed(NULL, 1));
    REFUSED(layerline_sampler_set_show_control(NULL, true));
    REFUSED(layerline_sampler_set_typical_p(NULL, 1.0f));
    REFUSED(layerline_sampler_set_top_n_sigma(NULL, 0.0f));
    REFUSED(layerline_sampler_set_xtc(NULL, 0.0f, 0.1f));
    REFUSED(layerline_sampler_set_dynamic_temperature(NULL, 0.0f, 1.0f));
    REFUSED(layerline_sampler_set_mirostat(NULL, 0.0f, 0.1f));
    REFUSED(layerline_sampler_set_frequency_penalty(NULL, 0.0f));
    REFUSED(layerline_sampler_set_presence_penalty(NULL, 0.0f));
    REFUSED(layerline_sampler_set_dry(NULL, 0.0f, 1.0f, 2, 64));
    REFUSED_ERR(layerline_sampler_add_dry_breaker(NULL, model, "a", 1, err));
    REFUSED_ERR(layerline_sampler_add_dry_breaker(sampler, NULL, "a", 1, err));
    REFUSED_ERR(layerline_sampler_add_dry_breaker(sampler, model, NULL, 1, err));
    REFUSED_ERR(layerline_sampler_clear_dry_breakers(NULL, err));
    REFUSED_ERR(layerline_sampler_set_logit_biases(NULL, &token, &logit, 1, err));
    REFUSED_ERR(layerline_sampler_set_logit_biases(sampler, NULL, &logit, 1, err));
    REFUSED_ERR(layerline_sampler_set_logit_biases(sampler, &token, NULL, 1, err));
    REFUSED_ERR(layerline_sampler_set_steps(NULL, &token, 1, err));
    REFUSED_ERR(layerline_sampler_set_steps(sampler, NULL, 1, err));
    REFUSED_ERR(layerline_sampler_copy(NULL, &copy, err));
    REFUSED_ERR(layerline_sampler_copy(sampler, NULL, err));
    REFUSED_ERR(layerline_sampler_reset(NULL, err));
    REFUSED_ERR(layerline_sampler_accept(NULL, &token, 1, err));
    REFUSED_ERR(layerline_sampler_accept(sampler, NULL, 1, err));
    REFUSED_ERR(layerline_sampler_sample_logits(NULL, &logit, 1, &token, err));
    REFUSED_ERR(layerline_sampler_sample_logits(sampler, NULL, 1, &token, err));
    REFUSED_ERR(layerline_sampler_sample_logits(sampler, &logit, 1, NULL, err));
    CHECK(copy == NULL);
    REFUSED_ERR(layerline_sampler_sample(NULL, session, &token, err));
    REFUSED_ERR(layerline_sampler_sample(sampler, NULL, &token, err));
    REFUSED_ERR(layerline_sampler_sample(sampler, session, NULL, err));
    REFUSED_ERR(layerline_session_generate(NULL, sampler, &token, 1, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate(session, NULL, &token, 1, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate(session, sampler, NULL, 1, 1, go_on, NULL, err));
    /* user_data is the caller's own affair; without a callback nobody would hear the tokens. */
    CHECK_STATUS(LAYERLINE_OK, layerline_session_generate(session, sampler, &token, 1, 1, go_on, NULL, NULL));
    REFUSED_ERR(layerline_session_generate(session, sampler, &token, 1, 1, NULL, NULL, err));
    layerline_sampler_free(sampler);
}

static void generation_functions(layerline_model *model, layerline_session *session)
{
    size_t size;
    layerline_generation *generation = layerline_generation_new();
    layerline_sampler *sampler = layerline_sampler_new();
    layerline_generation_stats stats = { 0 };
    int32_t token = 5;
    REQUIRE(generation != NULL && sampler != NULL);
    stats.struct_size = sizeof stats;
    REFUSED(layerline_generation_set_max_tokens(NULL, 1));
    REFUSED(layerline_generation_set_draft_text(NULL, 1));
    REFUSED(layerline_generation_set_logprobs(NULL, true, 1));
    REFUSED(layerline_generation_set_context_policy(NULL, LAYERLINE_CONTEXT_STOP, 0));
    REFUSED(layerline_generation_set_context_policy(generation, 2, 0));
    REFUSED_ERR(layerline_session_reuse_prefix(NULL, &token, 1, &size, err));
    REFUSED_ERR(layerline_session_reuse_prefix(session, NULL, 1, &size, err));
    REFUSED_ERR(layerline_session_reuse_prefix(session, &token, 1, NULL, err));
    REFUSED_ERR(layerline_session_common_prefix(NULL, &token, 1, &size, err));
    REFUSED_ERR(layerline_session_common_prefix(session, NULL, 1, &size, err));
    REFUSED_ERR(layerline_session_common_prefix(session, &token, 1, NULL, err));
    REFUSED_ERR(layerline_session_generate_detailed(NULL, generation, sampler, &token, 1, see, NULL, err));
    REFUSED_ERR(layerline_session_generate_detailed(session, NULL, sampler, &token, 1, see, NULL, err));
    REFUSED_ERR(layerline_session_generate_detailed(session, generation, NULL, &token, 1, see, NULL, err));
    REFUSED_ERR(layerline_session_generate_detailed(session, generation, sampler, NULL, 1, see, NULL, err));
    REFUSED_ERR(layerline_session_generate_detailed(session, generation, sampler, &token, 1, NULL, NULL, err));
    REFUSED_ERR(layerline_generation_add_stop(NULL, "a", 1, err));
    REFUSED_ERR(layerline_generation_add_stop(generation, NULL, 1, err));
    REFUSED_ERR(layerline_generation_add_stop(generation, NULL, 0, err));
    REFUSED_ERR(layerline_generation_clear_stops(NULL, err));
    REFUSED_ERR(layerline_generation_set_draft_model(NULL, model, 0, 1, err));
    REFUSED_ERR(layerline_generation_set_draft_model(generation, model, 0, 0, err));
    /* Without a model there are no drafts. */
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_draft_model(generation, NULL, 0, 1, NULL));
    REFUSED_ERR(layerline_generation_get_stats(NULL, &stats, err));
    REFUSED_ERR(layerline_generation_get_stats(generation, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_max_tokens(generation, 1));
    REFUSED_ERR(layerline_session_generate_with(NULL, generation, sampler, &token, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate_with(session, NULL, sampler, &token, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate_with(session, generation, NULL, &token, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate_with(session, generation, sampler, NULL, 1, go_on, NULL, err));
    REFUSED_ERR(layerline_session_generate_with(session, generation, sampler, &token, 1, NULL, NULL, err));
    layerline_sampler_free(sampler);
    layerline_generation_free(generation);
}

static void ill_constraints(const layerline_model *model)
{
    layerline_constraint *constraint = NULL;
    /* Not UTF-8, NUL, empty. */
    for (int32_t kind = LAYERLINE_CONSTRAINT_JSON_SCHEMA; kind <= LAYERLINE_CONSTRAINT_REGEX; kind++)
        REFUSED_ERR(layerline_constraint_new(model, kind, "\"\xff\"", 3, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_JSON_SCHEMA, "{\0}", 3, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_GBNF, "\0", 1, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_LARK, "\0", 1, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_JSON_SCHEMA, "", 0, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_GBNF, "", 0, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_LARK, "", 0, &constraint, err));
    CHECK(constraint == NULL);
}

static void methods_of_constraints(const layerline_model *model)
{
    layerline_constraint *constraint = NULL;
    uint32_t words[16];
    int32_t tokens[16];
    size_t needed = 0;
    CHECK_STATUS(LAYERLINE_OK, layerline_constraint_new(model, LAYERLINE_CONSTRAINT_REGEX, "a", 1, &constraint, NULL));
    REQUIRE(constraint != NULL);
    REFUSED_ERR(layerline_constraint_copy(constraint, NULL, err));
    REFUSED_ERR(layerline_constraint_mask(constraint, NULL, 16, &needed, err));
    REFUSED_ERR(layerline_constraint_mask(constraint, words, 16, NULL, err));
    REFUSED_ERR(layerline_constraint_accept(constraint, NULL, 1, err));
    REFUSED_ERR(layerline_constraint_forced(constraint, NULL, 16, &needed, err));
    REFUSED_ERR(layerline_constraint_forced(constraint, tokens, 16, NULL, err));
    REFUSED_ERR(layerline_constraint_get_state(constraint, NULL, err));
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_constraint_mask(constraint, NULL, 0, &needed, NULL));
    CHECK(needed > 0);
    layerline_constraint_free(constraint);
}

static void constraint_functions(const layerline_model *model)
{
    layerline_constraint *constraint = NULL, *copy = NULL;
    layerline_generation *generation = layerline_generation_new();
    uint32_t words[16];
    int32_t tokens[16], state = 0, token = 5;
    size_t needed = 0;
    REQUIRE(generation != NULL);
    REFUSED_ERR(layerline_constraint_new(NULL, LAYERLINE_CONSTRAINT_REGEX, "a", 1, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_REGEX, NULL, 1, &constraint, err));
    REFUSED_ERR(layerline_constraint_new(model, LAYERLINE_CONSTRAINT_REGEX, "a", 1, NULL, err));
    REFUSED_ERR(layerline_constraint_new(model, -1, "a", 1, &constraint, err));
    REQUIRE(constraint == NULL);
    REFUSED_ERR(layerline_generation_set_constraint(NULL, NULL, err));
    CHECK_STATUS(LAYERLINE_OK, layerline_generation_set_constraint(generation, NULL, NULL));
    REFUSED_ERR(layerline_constraint_copy(NULL, &copy, err));
    REFUSED_ERR(layerline_constraint_mask(NULL, words, 16, &needed, err));
    REFUSED_ERR(layerline_constraint_accept(NULL, &token, 1, err));
    REFUSED_ERR(layerline_constraint_forced(NULL, tokens, 16, &needed, err));
    REFUSED_ERR(layerline_constraint_get_state(NULL, &state, err));
    if (strstr(layerline_build_info(), "no constraints")) {
        CHECK_STATUS(LAYERLINE_ERROR_UNSUPPORTED,
                     layerline_constraint_new(model, LAYERLINE_CONSTRAINT_REGEX, "a", 1, &constraint, NULL));
    } else {
        ill_constraints(model);
        methods_of_constraints(model);
    }
    layerline_generation_free(generation);
}

int main(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_session *session;
    s.context = 64;
    s.threads = 1;
    freeing_nothing_is_nothing();
    an_absent_error_can_be_asked();
    options();
    sources();
    opening(data_path(TINY_MODEL));
    model = open_model(data_path(TINY_MODEL), &s);
    model_functions(model);
    text_functions(model);
    chat_functions(model);
    message_functions(model);
    session = new_session(model, 0);
    session_functions(session);
    sampler_functions(session, model);
    generation_functions(model, session);
    constraint_functions(model);
    layerline_session_free(session);
    layerline_model_free(model);
    return check_result();
}
