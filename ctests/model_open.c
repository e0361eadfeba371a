/* Opening: what is no model is refused with a reason, what is one says what it is. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <fcntl.h>
#include <unistd.h>

static settings small(void)
{
    settings s = { 0 };
    s.context = 64;
    s.threads = 1;
    return s;
}

static void refuse_bytes(layerline_status expected, const void *bytes, size_t size)
{
    settings s = small();
    layerline_model *model = NULL;
    layerline_error *err;
    char path[PATH_SIZE];
    int fd = make_file(path, bytes, size);
    CHECK_ERROR(expected, err, try_open(path, &s, &model, &err));
    CHECK(model == NULL);
    close(fd);
    unlink(path);
}

static void what_is_no_model_is_refused(void)
{
    settings s = small();
    layerline_model *model = NULL;
    layerline_error *err;
    layerline_status status;
    size_t size;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    char text[8192];

    CHECK_ERROR(LAYERLINE_ERROR_IO, err, try_open("/no/such/model.gguf", &s, &model, &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, try_open("", &s, &model, &err));

    /* A directory opens but does not read: which of the two says so is the system's affair. */
    err = NULL;
    status = try_open("/", &s, &model, &err);
    CHECK(status == LAYERLINE_ERROR_IO || status == LAYERLINE_ERROR_FORMAT);
    CHECK(err != NULL && strlen(layerline_error_message(err)) > 0);
    layerline_error_free(err);

    memset(text, 'x', sizeof text);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, text, 0);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, text, 3);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, text, sizeof text);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, bytes, 4);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, bytes, 24);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, bytes, 4000);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, bytes, size / 2);
    refuse_bytes(LAYERLINE_ERROR_FORMAT, bytes, size - 1);
    CHECK(model == NULL);
    free(bytes);
}

static void a_budget_below_the_floor_is_refused_with_both_figures(void)
{
    settings s = small();
    layerline_model *model = NULL;
    layerline_error *err;
    layerline_plan plan;
    s.budget = UINT64_C(1) << 32;
    plan = plan_of(data_path(TINY_MODEL), &s);
    s.budget = plan.floor_bytes - 1;
    CHECK_BUDGET_ERROR(err, try_open(data_path(TINY_MODEL), &s, &model, &err));
    s.budget = 1;
    CHECK_BUDGET_ERROR(err, try_open(data_path(TINY_MODEL), &s, &model, &err));
    CHECK(model == NULL);
    s.budget = plan.floor_bytes;
    CHECK_OK(err, try_open(data_path(TINY_MODEL), &s, &model, &err));
    layerline_model_free(model);
}

/* Each key is there, and each but an array has a value. */
static void metadata_can_be_listed(layerline_model *model)
{
    layerline_error *err;
    char key[128], value[4096];
    size_t count = 0, needed, i;
    bool named = false;
    CHECK_OK(err, layerline_model_metadata_count(model, &count, &err));
    CHECK(count > 5);
    for (i = 0; i < count; i++) {
        layerline_status status;
        CHECK_OK(err, layerline_model_metadata_key_at(model, i, key, sizeof key, &needed, &err));
        CHECK(strlen(key) == needed);
        named = named || strcmp(key, "general.name") == 0;
        status = layerline_model_metadata(model, key, value, sizeof value, &needed, NULL);
        CHECK(status == LAYERLINE_OK || status == LAYERLINE_ERROR_UNSUPPORTED);
    }
    CHECK(named);
    CHECK_ERROR(LAYERLINE_ERROR_NOT_FOUND, err, layerline_model_metadata_key_at(model, count, key, 128, &needed, &err));
}

static void info_and_metadata_tell_the_model(void)
{
    settings s = small();
    layerline_model *model = open_model(data_path(TINY_MODEL), &s);
    struct { layerline_model_info known; unsigned char later[32]; } larger;
    layerline_model_info info = info_of(model);
    char text[64];
    size_t needed = 0, i;

    CHECK(info.struct_size == sizeof info);
    CHECK(info.layer_count == TINY_LAYERS && info.embedding_length == 64 && info.head_count == 4);
    CHECK(info.head_count_kv == 2 && info.vocab_size == TINY_VOCAB && info.context_length == TINY_CONTEXT);
    CHECK(info.expert_count == 0 && info.expert_used_count == 0);
    CHECK(info.bos_token == 1 && info.eos_token == 2);
    /* Two tables of 320×64; per layer 4 projections (64 or 32 rows), 3 of the FFN, 2 norms; one norm at the end. */
    CHECK(info.parameter_count == 2u * 320 * 64 + 2u * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64 + 2 * 64) + 64);

    memset(&larger, 0xCD, sizeof larger);
    larger.known.struct_size = 4;
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_get_info(model, &larger.known, NULL));
    larger.known.struct_size = (uint32_t)sizeof larger;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_get_info(model, &larger.known, NULL));
    CHECK(larger.known.struct_size == sizeof larger); /* stays as the caller set it */
    CHECK(larger.known.layer_count == TINY_LAYERS && larger.known.parameter_count == info.parameter_count);
    for (i = 0; i < sizeof larger.later; i++) {
        CHECK(larger.later[i] == 0xCD);
    }

    metadata_can_be_listed(model);
    CHECK(info_of(model).has_head && info_of(model).causal);
    CHECK(!info_of(model).has_chat_template && !info_of(model).has_recurrent_memory);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_metadata(model, "general.architecture", text, sizeof text, &needed,
                                                        NULL));
    CHECK(needed == 5 && strcmp(text, "llama") == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_metadata(model, "llama.block_count", text, sizeof text, &needed, NULL));
    CHECK(needed == 1 && strcmp(text, "2") == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_metadata(model, "llama.rope.freq_base", text, sizeof text, &needed,
                                                        NULL));
    CHECK(strtod(text, NULL) == 10000.0 && needed == strlen(text));
    needed = 0;
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_metadata(model, "general.name", NULL, 0, &needed,
                                                                            NULL));
    CHECK(needed == strlen("tiny-llama"));
    needed = 0;
    memset(text, '#', sizeof text);
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_metadata(model, "general.name", text, 9, &needed,
                                                                            NULL));
    CHECK(needed == 10 && text[0] == '#');
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_metadata(model, "general.name", text, 10, &needed,
                                                                            NULL));
    CHECK(needed == 10 && text[0] == '#'); /* its NUL has no room */
    CHECK_STATUS(LAYERLINE_OK, layerline_model_metadata(model, "general.name", text, 11, &needed, NULL));
    CHECK(strcmp(text, "tiny-llama") == 0);
    CHECK_STATUS(LAYERLINE_ERROR_NOT_FOUND,
                 layerline_model_metadata(model, "no.such.key", text, sizeof text, &needed, NULL));
    /* An array is neither a scalar nor a string. */
    CHECK_STATUS(LAYERLINE_ERROR_NOT_FOUND,
                 layerline_model_metadata(model, "tokenizer.ggml.tokens", text, sizeof text, &needed, NULL));
    layerline_model_free(model);
}

static float *forward_once(layerline_model *model, size_t *vocab)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    int32_t tokens[6];
    float *logits;
    fill_tokens(tokens, 6, TINY_VOCAB, 9);
    REQUIRE_OK(err, layerline_session_forward(session, tokens, 6, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &err));
    logits = copy_logits(session, 0, vocab);
    layerline_session_free(session);
    return logits;
}

#ifdef _WIN32
static void a_path_is_utf8(void)
{
    settings s = small();
    layerline_model *model = NULL;
    layerline_error *err;
    size_t size;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    wchar_t wide[PATH_SIZE + 64];
    char path[PATH_SIZE], utf8[PATH_SIZE + 64];
    FILE *file;
    close(make_file(path, "", 0));
    unlink(path);
    /* "Müller-名前-" and a crab, which takes two units of UTF-16. */
    snprintf(utf8, sizeof utf8, "%s-M\xC3\xBCller-\xE5\x90\x8D\xE5\x89\x8D-\xF0\x9F\xA6\x80.gguf", path);
    swprintf(wide, PATH_SIZE + 64, L"%hs-M\x00FCller-\x540D\x524D-\xD83E\xDD80.gguf", path);
    file = _wfopen(wide, L"wb");
    REQUIRE(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    CHECK_OK(err, try_open(utf8, &s, &model, &err));
    layerline_model_free(model);
    model = NULL;
    CHECK(_wunlink(wide) == 0);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, try_open("M\xFCller.gguf", &s, &model, &err));
    CHECK(model == NULL);
    free(bytes);
}

static void a_descriptor_is_of_a_c_library_that_the_library_does_not_know(void)
{
    settings s = small();
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_error *err;
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_model_open_fd(0, 0, 0, options, &model, &err));
    CHECK(model == NULL);
    layerline_options_free(options);
}
#else
static void a_descriptor_with_an_offset_is_as_good_as_a_path(void)
{
    settings s = small();
    layerline_options *options = make_options(&s);
    layerline_model *model = open_model(data_path(TINY_MODEL), &s), *inside = NULL;
    layerline_error *err;
    size_t size, vocab = 0, vocab_inside = 0;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    static const size_t offsets[] = { 0, 4096, 100, 12345 };
    float *expected = forward_once(model, &vocab);
    size_t i;
    layerline_model_free(model);

    for (i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        size_t offset = offsets[i];
        unsigned char *padded = malloc(offset + size + 777);
        char path[PATH_SIZE];
        float *logits;
        int fd;
        REQUIRE(padded != NULL);
        memset(padded, 0x5A, offset + size + 777);
        memcpy(padded + offset, bytes, size);
        fd = make_file(path, padded, offset + size + 777);
        unlink(path);
        CHECK_OK(err, layerline_model_open_fd(fd, offset, size, options, &inside, &err));
        CHECK(fcntl(fd, F_GETFD) != -1); /* duplicated, not taken */
        close(fd);
        REQUIRE(inside != NULL);
        logits = forward_once(inside, &vocab_inside);
        CHECK(vocab == vocab_inside && memcmp(logits, expected, vocab * sizeof *logits) == 0);
        free(logits);
        layerline_model_free(inside);
        inside = NULL;
        free(padded);
    }
    free(expected);
    free(bytes);
    layerline_options_free(options);
}

static void a_length_of_zero_is_to_the_end(void)
{
    settings s = small();
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_error *err;
    size_t size;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    char path[PATH_SIZE];
    int fd = make_file(path, bytes, size);
    unlink(path);
    CHECK_OK(err, layerline_model_open_fd(fd, 0, 0, options, &model, &err));
    layerline_model_free(model);
    close(fd);
    free(bytes);
    layerline_options_free(options);
}

static void a_bad_descriptor_or_range_is_refused(void)
{
    settings s = small();
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_error *err = NULL;
    layerline_status status;
    size_t size;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    static const struct { uint64_t offset, length; } bad[] = {
        { 1, 400000 }, { 1, 0 }, { 0, 100 }, { UINT64_MAX, 1 }, { 1, UINT64_MAX }, { UINT64_C(1) << 62, 4096 },
        { 0, UINT64_C(1) << 62 },
    };
    char path[PATH_SIZE];
    size_t i;
    int fd = make_file(path, bytes, size);
    unlink(path);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err = NULL;
        status = layerline_model_open_fd(fd, bad[i].offset, bad[i].length, options, &model, &err);
        CHECK(status == LAYERLINE_ERROR_INVALID_ARGUMENT || status == LAYERLINE_ERROR_IO ||
              status == LAYERLINE_ERROR_FORMAT);
        CHECK(model == NULL);
        CHECK(err != NULL && strlen(layerline_error_message(err)) > 0);
        layerline_error_free(err);
    }
    close(fd);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_open_fd(-1, 0, size, options, &model, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_model_open_fd(fd, 0, size, options, &model, &err));
    CHECK(model == NULL);
    free(bytes);
    layerline_options_free(options);
}

#endif

static void many_models_stand_beside_each_other(void)
{
    static const char *const names[] = { "arch/llama.gguf", "arch/llama-yarn.gguf", "arch/llama-mha-tied.gguf",
                                         "arch/llama3-ropefreqs.gguf" };
    settings s = small();
    layerline_model *models[4];
    size_t i;
    for (i = 0; i < 4; i++) {
        models[i] = open_model(data_path(names[i]), &s);
    }
    for (i = 0; i < 4; i++) {
        size_t vocab = 0;
        float *logits = forward_once(models[i], &vocab);
        CHECK(vocab == TINY_VOCAB);
        free(logits);
        layerline_model_free(models[i]);
    }
    layerline_model_free(NULL);
}

int main(void)
{
    what_is_no_model_is_refused();
    a_budget_below_the_floor_is_refused_with_both_figures();
    info_and_metadata_tell_the_model();
#ifdef _WIN32
    a_path_is_utf8();
    a_descriptor_is_of_a_c_library_that_the_library_does_not_know();
#else
    a_descriptor_with_an_offset_is_as_good_as_a_path();
    a_length_of_zero_is_to_the_end();
    a_bad_descriptor_or_range_is_refused();
#endif
    many_models_stand_beside_each_other();
    return check_result();
}
