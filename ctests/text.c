/* Text to tokens and back: sizes, buffers that are too small, control tokens, and the exact round trip. */
#include "support.h"

static size_t tokens_of(const layerline_model *model, const char *text, uint32_t flags, int32_t *tokens, size_t cap)
{
    size_t needed = SIZE_MAX;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_tokenize(model, text, strlen(text), flags, tokens, cap, &needed, NULL));
    REQUIRE(needed <= cap);
    return needed;
}

static void buffers_are_asked_for_and_never_overrun(const layerline_model *model)
{
    /* Without spaces: the made vocabulary has no token of one, only the bytes of its mark. */
    static const char text[] = "five-red-boats";
    int32_t tokens[128];
    char buf[128];
    size_t needed = 0, again = 0, i, count, length;
    layerline_status status = layerline_model_tokenize(model, text, strlen(text), 0, NULL, 0, &needed, NULL);
    CHECK(status == LAYERLINE_ERROR_BUFFER_TOO_SMALL);
    REQUIRE(needed > 1 && needed < 100);
    count = needed;
    memset(tokens, 0x7F, sizeof tokens);
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL,
                 layerline_model_tokenize(model, text, strlen(text), 0, tokens, count - 1, &again, NULL));
    CHECK(again == count);
    CHECK(tokens[count - 1] == 0x7F7F7F7F);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_tokenize(model, text, strlen(text), 0, tokens, count, &again, NULL));
    CHECK(again == count && tokens[count] == 0x7F7F7F7F);
    for (i = 0; i < count; i++) {
        CHECK(tokens[i] >= 0 && tokens[i] < (int32_t)info_of(model).vocab_size);
    }

    needed = 0;
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_detokenize(model, tokens, count, NULL, 0, &needed,
                                                                              NULL));
    length = needed;
    REQUIRE(length > 0 && length < 100);
    memset(buf, '#', sizeof buf);
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_detokenize(model, tokens, count, buf, length - 1,
                                                                              &needed, NULL));
    CHECK(needed == length && buf[0] == '#'); /* nothing is written but the length */
    /* The text would fit, its NUL would not: so that what is written always ends, nothing is. */
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_detokenize(model, tokens, count, buf, length,
                                                                              &needed, NULL));
    CHECK(needed == length && buf[0] == '#');
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, count, buf, length + 1, &needed, NULL));
    CHECK(needed == length && buf[length] == '\0' && buf[length + 1] == '#' && strlen(buf) == length);
    CHECK(strstr(buf, text) != NULL);

    /* Nothing in, nothing out. */
    CHECK_STATUS(LAYERLINE_OK, layerline_model_tokenize(model, "", 0, 0, tokens, 4, &needed, NULL));
    CHECK(needed == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, 0, buf, sizeof buf, &needed, NULL));
    CHECK(needed == 0 && buf[0] == '\0');
    CHECK_STATUS(LAYERLINE_OK, layerline_model_tokenize(model, NULL, 0, 0, NULL, 0, &needed, NULL));
    needed = 1;
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_model_detokenize(model, NULL, 0, NULL, 0, &needed, NULL));
    CHECK(needed == 0); /* the empty text has a NUL too */
    buf[0] = '#';
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, NULL, 0, buf, 1, &needed, NULL));
    CHECK(needed == 0 && buf[0] == '\0');
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_tokenize(model, "a", 1, 0x80u, tokens, 4, &needed,
                                                                            NULL));
}

static void bad_tokens_have_no_text(const layerline_model *model)
{
    int32_t vocab = (int32_t)info_of(model).vocab_size;
    int32_t bad[3];
    char buf[64];
    size_t needed, i;
    bool end = true;
    bad[0] = -1;
    bad[1] = vocab;
    bad[2] = INT32_MAX;
    for (i = 0; i < 3; i++) {
        CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_detokenize(model, bad + i, 1, buf, sizeof buf,
                                                                                  &needed, NULL));
        CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_token_is_end(model, bad[i], &end, NULL));
        CHECK(end);
    }
}

static void the_end_token_ends(const layerline_model *model)
{
    layerline_model_info info = info_of(model);
    int32_t token, ends = 0;
    bool end = false;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_token_is_end(model, info.eos_token, &end, NULL));
    CHECK(end);
    for (token = 0; token < (int32_t)info.vocab_size; token++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_model_token_is_end(model, token, &end, NULL));
        ends += end;
    }
    CHECK(ends >= 1 && ends < 10);
}

static void odd_text_is_no_danger(const layerline_model *model)
{
    static const struct { const char *bytes; size_t length; } odd[] = {
        { "a\0b", 3 }, { "\xF0\x9F\x98\x80", 4 }, { "\xEF\xBF\xBD", 3 }, { "   \n\t  ", 7 }, { "e\xCC\x81", 3 },
    };
    static const struct { const char *bytes; size_t length; } broken[] = {
        { "\xFF\xFE", 2 }, { "\xC3", 1 }, { "ok\x80", 3 }, { "\xED\xA0\x80", 3 },
    };
    int32_t tokens[64];
    char buf[256];
    size_t i, needed, length;
    for (i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        CHECK_STATUS(LAYERLINE_OK, layerline_model_tokenize(model, odd[i].bytes, odd[i].length, 0, tokens, 64, &needed,
                                                            NULL));
        CHECK(needed > 0 && needed <= 64);
        CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, needed, buf, sizeof buf, &length, NULL));
    }
    /* Bytes that are in no character become the tokens of those bytes, where the vocabulary has them. */
    for (i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        layerline_status status = layerline_model_tokenize(model, broken[i].bytes, broken[i].length,
                                                           LAYERLINE_TOKENIZE_CONTINUE, tokens, 64, &needed, NULL);
        CHECK(status == LAYERLINE_OK || status == LAYERLINE_ERROR_INVALID_ARGUMENT);
        if (status == LAYERLINE_OK) {
            CHECK_STATUS(LAYERLINE_OK,
                         layerline_model_detokenize(model, tokens, needed, buf, sizeof buf, &length, NULL));
            CHECK(length == broken[i].length && memcmp(buf, broken[i].bytes, length) == 0);
        }
    }
}

/* The text of tokens given one by one is that of all at once, and never ends inside a character. */
static void text_comes_in_whole_characters(const layerline_model *model)
{
    static const char text[] = "na\xC3\xAFve-\xE6\x97\xA5\xF0\x9F\x98\x80";
    layerline_detokenizer *detokenizer = NULL;
    layerline_error *err = NULL;
    int32_t tokens[64], bad = -1;
    char whole[64] = "", buf[64];
    size_t i, needed, at = 0, count = tokens_of(model, text, LAYERLINE_TOKENIZE_CONTINUE, tokens, 64);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_detokenizer_new(model, 4, &detokenizer, &err));
    CHECK_OK(err, layerline_detokenizer_new(model, LAYERLINE_DETOKENIZE_CONTINUE, &detokenizer, &err));
    for (i = 0; i < count; i++) {
        /* Without room it is as if the call had not been. */
        CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL,
                     layerline_detokenizer_push(detokenizer, tokens + i, 1, NULL, 0, &needed, NULL));
        CHECK_OK(err, layerline_detokenizer_push(detokenizer, tokens + i, 1, whole + at, sizeof whole - at, &needed, &err));
        CHECK(needed == strlen(whole + at));
        at += needed;
        CHECK(strncmp(text, whole, at) == 0 && ((unsigned char)text[at] & 0xC0u) != 0x80u);
    }
    CHECK(strcmp(whole, text) == 0);
    CHECK_OK(err, layerline_detokenizer_finish(detokenizer, buf, sizeof buf, &needed, &err));
    CHECK(needed == 0);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_detokenizer_push(detokenizer, &bad, 1, buf, sizeof buf, &needed, &err));
    /* Cut inside the last character. */
    CHECK_OK(err, layerline_detokenizer_push(detokenizer, tokens, count - 1, buf, sizeof buf, &needed, &err));
    if (needed < strlen(text) - 4) {
        CHECK(false);
    }
    CHECK_OK(err, layerline_detokenizer_finish(detokenizer, buf, sizeof buf, &needed, &err));
    CHECK(needed == 0 || strcmp(buf, "\xEF\xBF\xBD") == 0);
    layerline_detokenizer_free(detokenizer);
}

static void byte_tokens_are_bytes(void)
{
    settings s = { 0 };
    layerline_model *model;
    int32_t tokens[3] = { 3 + 'h', 3 + 'i', 3 + '!' };
    int32_t found[32];
    char buf[16];
    size_t needed, count;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, 3, buf, sizeof buf, &needed, NULL));
    CHECK(needed == 3 && strcmp(buf, "hi!") == 0);
    /* This vocabulary wants its beginning token, and it is there when asked for, only. */
    count = tokens_of(model, "hi!", 0, found, 32);
    CHECK(found[0] != 1);
    CHECK(tokens_of(model, "hi!", LAYERLINE_TOKENIZE_BOS, found, 32) == count + 1);
    CHECK(found[0] == 1);
    /* What goes on another text has no space before it, which is one of three bytes here. */
    CHECK(tokens_of(model, "hi!", LAYERLINE_TOKENIZE_CONTINUE, found, 32) == 3 && count == 6);
    CHECK(memcmp(found, tokens, sizeof tokens) == 0);
    found[0] = 1;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize_with(model, found, 3, LAYERLINE_DETOKENIZE_CONTROL, buf, sizeof buf,
                                                          &needed, NULL));
    CHECK(strcmp(buf, "<s>i!") == 0);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, found, 3, buf, sizeof buf, &needed, NULL));
    CHECK(strcmp(buf, "i!") == 0);
    CHECK_STATUS(LAYERLINE_ERROR_INVALID_ARGUMENT, layerline_model_detokenize_with(model, found, 3, 8, buf, sizeof buf, &needed,
                                                                              NULL));
    text_comes_in_whole_characters(model);
    /* It wants no ending one. */
    CHECK(tokens_of(model, "hi!", LAYERLINE_TOKENIZE_EOS, found, 32) == count);
    buffers_are_asked_for_and_never_overrun(model);
    bad_tokens_have_no_text(model);
    the_end_token_ends(model);
    odd_text_is_no_danger(model);
    layerline_model_free(model);
}

static void control_tokens_are_text_unless_asked_for(const layerline_model *model)
{
    static const char text[] = "<|im_start|>";
    int32_t tokens[32];
    char buf[64];
    size_t needed, count = tokens_of(model, text, 0, tokens, 32);
    CHECK(count > 1);
    CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, count, buf, sizeof buf, &needed, NULL));
    CHECK(strcmp(buf, text) == 0);
    count = tokens_of(model, text, LAYERLINE_TOKENIZE_SPECIAL, tokens, 32);
    CHECK(count == 1 && tokens[0] == 1);
}

static void real_text_comes_back_byte_for_byte(const layerline_model *model)
{
    static const char *const texts[] = {
        "Hello, world!", " leading and trailing ", "tabs\tand\nnewlines\r\n\n\n", "3.14159 and 1000000",
        "na\xC3\xAFve caf\xC3\xA9", "\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", "\xF0\x9F\x98\x80\xF0\x9F\x91\x8D\xF0\x9F\x8F\xBD",
        "don't we'll I'm", "int main(void) { return 0; }", "     five spaces",
    };
    int32_t tokens[256];
    char buf[512];
    size_t i, needed;
    for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        size_t count = tokens_of(model, texts[i], 0, tokens, 256);
        CHECK(count > 0 && count <= strlen(texts[i]));
        CHECK_STATUS(LAYERLINE_OK, layerline_model_detokenize(model, tokens, count, buf, sizeof buf, &needed, NULL));
        CHECK(needed == strlen(texts[i]) && strcmp(buf, texts[i]) == 0);
    }
}

int main(void)
{
    const char *path = real_model();
    settings s = { 0 };
    layerline_model *model;
    byte_tokens_are_bytes();
    if (path == NULL) {
        fprintf(stderr, "skipped: the real vocabulary (its model is not fetched)\n");
        return check_result() == EXIT_SUCCESS ? CHECK_SKIP : check_result();
    }
    s.context = 64;
    model = open_model(path, &s);
    buffers_are_asked_for_and_never_overrun(model);
    bad_tokens_have_no_text(model);
    the_end_token_ends(model);
    odd_text_is_no_danger(model);
    control_tokens_are_text_unless_asked_for(model);
    real_text_comes_back_byte_for_byte(model);
    text_comes_in_whole_characters(model);
    layerline_model_free(model);
    return check_result();
}
