/* Options: every setter, its bounds, and that a model keeps what it needs of them. */
#include "support.h"

static void every_setter_takes_its_default_and_a_value(void)
{
    layerline_options *o = layerline_options_new();
    int32_t io;
    REQUIRE(o != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_memory_budget(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_memory_budget(o, 1));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_memory_budget(o, UINT64_MAX));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_context_length(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_context_length(o, 2048));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_chunk_length(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_chunk_length(o, 64));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_threads(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_threads(o, 2));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch(o, false));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch(o, true));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_share_sweeps(o, false));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_share_sweeps(o, true));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_predictor(o, true));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_predictor(o, false));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch_distance(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_prefetch_distance(o, 3));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_cache_layers(o, 0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_cache_layers(o, 5));
    for (io = LAYERLINE_IO_AUTO; io <= LAYERLINE_IO_MMAP; io++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_options_set_io(o, io));
    }
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_kv_type(o, LAYERLINE_KV_F16));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_kv_type(o, LAYERLINE_KV_Q8_0));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_profile(o, "/no/such/profile"));
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_profile(o, NULL));
    layerline_options_free(o);
    layerline_options_free(NULL);
}

static void an_unknown_number_is_refused(void)
{
    layerline_options *o = layerline_options_new();
    REQUIRE(o != NULL);
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_io(o, -1));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_io(o, LAYERLINE_IO_SOURCE));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_io(o, INT32_MAX));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_kv_type(o, -1));
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_options_set_kv_type(o, LAYERLINE_KV_Q8_0 + 1));
    layerline_options_free(o);
}

static void options_serve_many_models_and_may_go_first(void)
{
    settings s = { 0 };
    layerline_options *o;
    layerline_model *one = NULL, *two = NULL;
    layerline_session *session;
    layerline_error *err;
    int32_t tokens[4] = { 1, 5, 6, 7 };
    s.io = LAYERLINE_IO_BUFFERED;
    s.context = 64;
    s.threads = 1;
    o = make_options(&s);
    REQUIRE_OK(err, layerline_model_open(data_path(TINY_MODEL), o, &one, &err));
    REQUIRE_OK(err, layerline_model_open(data_path("arch/llama3-ropefreqs.gguf"), o, &two, &err));
    layerline_options_free(o);
    session = new_session(two, 0);
    CHECK_OK(err, layerline_session_forward(session, tokens, 4, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    CHECK(stats_of(two).io == LAYERLINE_IO_BUFFERED);
    CHECK(stats_of(one).passes == 0);
    layerline_session_free(session);
    layerline_model_free(one);
    layerline_model_free(two);
}

static void the_context_option_is_the_default_of_sessions(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_session *session;
    layerline_error *err;
    int32_t tokens[17];
    s.context = 16;
    fill_tokens(tokens, 17, TINY_VOCAB, 1);
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 0);
    CHECK_ERROR(LAYERLINE_ERROR_CONTEXT_FULL, err, layerline_session_forward(session, tokens, 17, LAYERLINE_LOGITS_LAST,
                                                                             LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_OK(err, layerline_session_forward(session, tokens, 16, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                            &err));
    layerline_session_free(session);
    layerline_model_free(model);
}

int main(void)
{
    every_setter_takes_its_default_and_a_value();
    an_unknown_number_is_refused();
    options_serve_many_models_and_may_go_first();
    the_context_option_is_the_default_of_sessions();
    return check_result();
}
