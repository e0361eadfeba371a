/* Checkpoints: a session goes back where truncation cannot, within the budget; and the kinds of its key-value cache. */
#include "support.h"

/* Layers with a window of 8, which keep one block of positions and a chunk. */
#define WINDOWED "arch/gemma3.gguf"
#define CONTEXT 400
#define KEPT 40
#define LONGEST 330
#define NEXT 3

static int32_t tokens[LONGEST + NEXT];

/* Positions by which the windows have left those of the checkpoint behind. */
static size_t all(void)
{
    return quick() ? 200 : LONGEST;
}

static settings windowed(void)
{
    settings s = { 0 };
    s.context = CONTEXT;
    s.chunk = 16;
    s.threads = 2;
    return s;
}

static void run(layerline_session *session, const int32_t *first, size_t count)
{
    layerline_error *err;
    REQUIRE_OK(err, layerline_session_forward(session, first, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &err));
}

static layerline_checkpoint *checkpoint_of(layerline_session *session)
{
    layerline_checkpoint *checkpoint = NULL;
    layerline_error *err;
    REQUIRE_OK(err, layerline_session_checkpoint(session, &checkpoint, &err));
    REQUIRE(checkpoint != NULL);
    return checkpoint;
}

static void a_session_goes_back_where_truncation_cannot(layerline_model *model)
{
    layerline_session *session = new_session(model, 0), *undisturbed = new_session(model, 0);
    layerline_checkpoint *checkpoint, *later;
    layerline_error *err;
    uint64_t used, bytes;
    size_t vocab, position, i;
    float *expected;
    run(undisturbed, tokens, KEPT);
    run(undisturbed, tokens + all(), NEXT);
    expected = copy_logits(undisturbed, 0, &vocab);
    run(session, tokens, KEPT);
    used = stats_of(model).used_bytes;
    checkpoint = checkpoint_of(session);
    bytes = layerline_checkpoint_memory_bytes(checkpoint);
    CHECK(layerline_checkpoint_position(checkpoint) == KEPT);
    CHECK(bytes > 0 && stats_of(model).used_bytes == used + bytes);
    CHECK(session_info_of(session).fewest_tokens == 1);
    for (i = 0; i < 2; i++) {
        run(session, tokens + KEPT, all() - KEPT);
        position = position_of(session);
        CHECK(session_info_of(session).fewest_tokens > KEPT);
        CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_truncate(session, KEPT, &err));
        CHECK(position_of(session) == position);
        CHECK_OK(err, layerline_session_restore(session, checkpoint, &err));
        CHECK(position_of(session) == KEPT);
        run(session, tokens + all(), NEXT);
        CHECK(same_logits(session, 0, expected, vocab));
    }
    later = checkpoint_of(session);
    CHECK_OK(err, layerline_session_restore(session, checkpoint, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_restore(session, later, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_restore(undisturbed, checkpoint, &err));
    CHECK(position_of(session) == KEPT && position_of(undisturbed) == KEPT + NEXT);
    layerline_checkpoint_free(later);
    layerline_checkpoint_free(checkpoint);
    CHECK(stats_of(model).used_bytes == used);
    free(expected);
    layerline_session_free(session);
    layerline_session_free(undisturbed);
}

static void a_checkpoint_needs_room_in_the_budget(void)
{
    settings s = windowed();
    layerline_model *model;
    layerline_session *session;
    layerline_checkpoint *checkpoint = NULL;
    layerline_error *err;
    s.budget = UINT64_C(1) << 32;
    s.budget = plan_of(data_path(WINDOWED), &s).floor_bytes;
    model = open_model(data_path(WINDOWED), &s);
    session = new_session(model, 0);
    run(session, tokens, KEPT);
    CHECK_BUDGET_ERROR(err, layerline_session_checkpoint(session, &checkpoint, &err));
    CHECK(checkpoint == NULL);
    CHECK_OK(err, layerline_model_set_memory_budget(model, s.budget + (1 << 20), &err));
    checkpoint = checkpoint_of(session);
    /* It may outlive what it was made of. */
    layerline_session_free(session);
    layerline_model_free(model);
    CHECK(layerline_checkpoint_position(checkpoint) == KEPT);
    layerline_checkpoint_free(checkpoint);
}

static void without_windows_it_is_truncation(void)
{
    settings s = windowed();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    layerline_session *session = new_session(model, 0);
    layerline_checkpoint *checkpoint;
    layerline_error *err;
    run(session, tokens, KEPT);
    checkpoint = checkpoint_of(session);
    run(session, tokens, KEPT);
    CHECK_OK(err, layerline_session_restore(session, checkpoint, &err));
    CHECK(position_of(session) == KEPT);
    CHECK_OK(err, layerline_session_truncate(session, 1, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_restore(session, checkpoint, &err));
    CHECK(position_of(session) == 1);
    layerline_checkpoint_free(checkpoint);
    layerline_session_free(session);
    layerline_model_free(model);
}

static layerline_model *open_kind(const char *path, int32_t kv_type, layerline_plan *plan)
{
    settings s = windowed();
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_error *err;
    memset(plan, 0, sizeof *plan);
    plan->struct_size = (uint32_t)sizeof *plan;
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_kv_type(options, kv_type));
    REQUIRE_OK(err, layerline_options_plan(options, path, plan, &err));
    REQUIRE_OK(err, layerline_model_open(path, options, &model, &err));
    layerline_options_free(options);
    return model;
}

static void keys_and_values_are_kept_as_the_options_say(void)
{
    static const int32_t kinds[2] = { LAYERLINE_KV_F16, LAYERLINE_KV_Q8_0 };
    settings s = windowed();
    layerline_model *models[2], *refused = NULL;
    layerline_session *sessions[2];
    layerline_session_info infos[2];
    layerline_plan plans[2];
    layerline_options *options = make_options(&s);
    layerline_error *err;
    unsigned char *state;
    size_t size = 0, i;
    for (i = 0; i < 2; i++) {
        models[i] = open_kind(data_path("quant/Q8_0.gguf"), kinds[i], &plans[i]);
        sessions[i] = new_session(models[i], 0);
        run(sessions[i], tokens, KEPT);
        infos[i] = session_info_of(sessions[i]);
        CHECK(infos[i].kv_type == kinds[i] && infos[i].memory_bytes == plans[i].kv_bytes);
        CHECK(infos[i].cache_bytes > 0 && infos[i].cache_bytes < infos[i].memory_bytes);
    }
    CHECK(infos[1].cache_bytes * 32 == infos[0].cache_bytes * 17);
    CHECK(plans[0].kv_bytes - plans[1].kv_bytes == infos[0].cache_bytes - infos[1].cache_bytes);
    /* A state of one kind is none of the other. */
    CHECK_ERROR(LAYERLINE_ERROR_BUFFER_TOO_SMALL, err, layerline_session_save_buffer(sessions[0], NULL, 0, &size, &err));
    state = malloc(size);
    REQUIRE(state != NULL);
    CHECK_OK(err, layerline_session_save_buffer(sessions[0], state, size, &size, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_load_buffer(sessions[1], state, size, &err));
    CHECK_OK(err, layerline_session_load_buffer(sessions[0], state, size, &err));
    free(state);
    /* Heads of 16 are no whole blocks. */
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_kv_type(options, LAYERLINE_KV_Q8_0));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_model_open(data_path(TINY_MODEL), options, &refused, &err));
    CHECK(refused == NULL);
    layerline_options_free(options);
    for (i = 0; i < 2; i++) {
        layerline_session_free(sessions[i]);
        layerline_model_free(models[i]);
    }
}

int main(void)
{
    settings s = windowed();
    layerline_model *model = open_model(data_path(WINDOWED), &s);
    fill_tokens(tokens, LONGEST + NEXT, info_of(model).vocab_size < TINY_VOCAB ? info_of(model).vocab_size : TINY_VOCAB, 5);
    a_session_goes_back_where_truncation_cannot(model);
    layerline_model_free(model);
    a_checkpoint_needs_room_in_the_budget();
    without_windows_it_is_truncation();
    keys_and_values_are_kept_as_the_options_say();
    return check_result();
}
