/* Profiles of use: written, given when a model is opened again, and refused where they cannot be used. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <unistd.h>

#define EXPERTS_MODEL "arch/qwen3moe.gguf"
#define TOKENS 12

static settings small(void)
{
    settings s = { 0 };
    s.context = 32;
    s.threads = 2;
    /* As much as there may be while not all experts fit. */
    s.budget = plan_of(data_path(EXPERTS_MODEL), &s).full_bytes;
    while (plan_of(data_path(EXPERTS_MODEL), &s).streamed_bytes == 0) {
        s.budget -= 4096;
    }
    return s;
}

/* Opens the file at `path` with a profile, and the defaults else. */
static layerline_status open_with(const char *path, const char *profile, layerline_model **model, layerline_error **err)
{
    settings s = { 0 };
    layerline_options *options = make_options(&s);
    layerline_status status;
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_profile(options, profile));
    status = layerline_model_open(path, options, model, err);
    layerline_options_free(options);
    return status;
}

static float *logits_after(layerline_model *model, size_t *vocab)
{
    layerline_session *session = new_session(model, 32);
    int32_t tokens[TOKENS];
    layerline_error *err;
    float *logits;
    fill_tokens(tokens, TOKENS, info_of(model).vocab_size, 3);
    REQUIRE_OK(err, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &err));
    logits = copy_logits(session, 0, vocab);
    layerline_session_free(session);
    return logits;
}

static void a_profile_changes_no_bit_and_is_refused_where_it_is_damaged_or_of_another_model(void)
{
    char path[PATH_SIZE];
    settings s = small();
    layerline_model *model = open_model(data_path(EXPERTS_MODEL), &s);
    layerline_error *err;
    size_t vocab = 0, size = 0, i;
    float *expected = logits_after(model, &vocab), *found;
    layerline_options *options;
    unsigned char *bytes;
    CHECK(stats_of(model).expert_misses > 0 && stats_of(model).expert_working_set_bytes > 0);
    close(make_file(path, "another file", 12));
    CHECK_OK(err, layerline_model_profile_save(model, path, &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_model_profile_save(model, "/no/such/folder/profile", &err));
    layerline_model_free(model);

    options = make_options(&s);
    CHECK_STATUS(LAYERLINE_OK, layerline_options_set_profile(options, path));
    REQUIRE_OK(err, layerline_model_open(data_path(EXPERTS_MODEL), options, &model, &err));
    layerline_options_free(options);
    found = logits_after(model, &vocab);
    CHECK(memcmp(expected, found, vocab * sizeof *found) == 0);
    layerline_model_free(model);
    free(found);
    free(expected);

    model = NULL;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, open_with(data_path(TINY_MODEL), path, &model, &err));
    bytes = read_file(path, &size);
    for (i = 0; i < size; i++) {
        char damaged[PATH_SIZE];
        bytes[i] ^= 0x10;
        close(make_file(damaged, bytes, size));
        bytes[i] ^= 0x10;
        CHECK(open_with(data_path(EXPERTS_MODEL), damaged, &model, NULL) != LAYERLINE_OK);
        unlink(damaged);
        close(make_file(damaged, bytes, i));
        CHECK_ERROR(LAYERLINE_ERROR_FORMAT, err, open_with(data_path(EXPERTS_MODEL), damaged, &model, &err));
        unlink(damaged);
    }
    free(bytes);
    unlink(path);
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, open_with(data_path(EXPERTS_MODEL), path, &model, &err));
    CHECK(model == NULL);

    memset(&s, 0, sizeof s);
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_model_profile_save(model, path, &err));
    layerline_model_free(model);
}

int main(void)
{
    a_profile_changes_no_bit_and_is_refused_where_it_is_damaged_or_of_another_model();
    return check_result();
}
