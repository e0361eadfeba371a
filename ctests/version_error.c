/* The library says which it is, what it runs on, and what each status means. */
#include "support.h"

#include <ctype.h>

static void version_is_one_and_the_same(void)
{
    uint32_t number = layerline_version_number();
    char text[64];
    snprintf(text, sizeof text, "%u.%u.%u", (unsigned)(number / 1000000u), (unsigned)(number / 1000u % 1000u),
             (unsigned)(number % 1000u));
    REQUIRE(layerline_version() != NULL);
    CHECK(strcmp(layerline_version(), text) == 0);
    CHECK(layerline_version() == layerline_version());
#ifdef LAYERLINE_VERSION_NUMBER
    CHECK(number == (uint32_t)LAYERLINE_VERSION_NUMBER);
#endif
    REQUIRE(layerline_build_info() != NULL);
    CHECK(strlen(layerline_build_info()) > 0);
}

static void every_status_has_its_own_words(void)
{
    /* The numbers are part of the contract and never change. */
    CHECK(LAYERLINE_OK == 0 && LAYERLINE_ERROR_INVALID_ARGUMENT == -1 && LAYERLINE_ERROR_IO == -2);
    CHECK(LAYERLINE_ERROR_FORMAT == -3 && LAYERLINE_ERROR_UNSUPPORTED == -4 && LAYERLINE_ERROR_MEMORY_BUDGET == -5);
    CHECK(LAYERLINE_ERROR_OUT_OF_MEMORY == -6 && LAYERLINE_ERROR_CANCELLED == -7);
    CHECK(LAYERLINE_ERROR_CONTEXT_FULL == -8 && LAYERLINE_ERROR_BUFFER_TOO_SMALL == -9);
    CHECK(LAYERLINE_ERROR_BUSY == -10 && LAYERLINE_ERROR_INTERNAL == -11);

    layerline_status a, b;
    for (a = LAYERLINE_ERROR_INTERNAL; a <= LAYERLINE_OK; a++) {
        const char *text = layerline_status_string(a);
        REQUIRE(text != NULL);
        CHECK(strlen(text) > 0);
        for (b = LAYERLINE_ERROR_INTERNAL; b < a; b++) {
            CHECK(strcmp(text, layerline_status_string(b)) != 0);
        }
    }
    /* A number this version does not know still has words, so that a host may print whatever it got. */
    CHECK(layerline_status_string(1) != NULL);
    CHECK(layerline_status_string(INT32_MIN) != NULL);
    CHECK(layerline_status_string(INT32_MAX) != NULL);
}

static void an_error_is_owned_and_names_the_file(void)
{
    settings s = { 0 };
    layerline_options *options = make_options(&s);
    layerline_model *model = NULL;
    layerline_error *first = NULL, *second = NULL;
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_model_open("/no/such/file-one", options, &model, &first));
    CHECK_STATUS(LAYERLINE_ERROR_IO, layerline_model_open("/no/such/file-two", options, &model, &second));
    CHECK(model == NULL);
    REQUIRE(first != NULL && second != NULL && first != second);
    /* Two errors stand beside each other: there is no last-error slot that the second call would have overwritten. */
    CHECK(strstr(layerline_error_message(first), "file-one") != NULL);
    CHECK(strstr(layerline_error_message(second), "file-two") != NULL);
    CHECK(layerline_error_status(first) == LAYERLINE_ERROR_IO);
    layerline_error_free(first);
    CHECK(strstr(layerline_error_message(second), "file-two") != NULL);
    layerline_error_free(second);
    layerline_error_free(NULL);
    layerline_options_free(options);
}

int main(void)
{
    version_is_one_and_the_same();
    every_status_has_its_own_words();
    an_error_is_owned_and_names_the_file();
    return check_result();
}
