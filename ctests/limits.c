/* A model opened where the process may have few addresses, and from a descriptor with flags of its own. */
#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define PROMPT 12

static int32_t tokens[PROMPT];

/* Addresses that the process has now. */
static uint64_t address_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long long pages = 0;
    REQUIRE(file != NULL && fscanf(file, "%llu", &pages) == 1);
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static float *run(layerline_model *model, size_t *vocab)
{
    layerline_session *session = new_session(model, 0);
    layerline_error *err;
    float *logits;
    REQUIRE_OK(err, layerline_session_forward(session, tokens, PROMPT, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                              &err));
    logits = copy_logits(session, 0, vocab);
    layerline_session_free(session);
    layerline_model_free(model);
    return logits;
}

/* The address space has room for the budget and what programs and threads take, not for the model. */
static void few_addresses(const char *path)
{
    const uint64_t beside = UINT64_C(24) << 20;
    struct rlimit before, tight;
    settings s = { 0 };
    layerline_plan plan;
    size_t vocab = 0;
    s.context = 64;
    s.threads = 1;
    plan = plan_of(path, &s);
    s.budget = plan.floor_bytes;
    CHECK(plan.file_bytes > plan.floor_bytes + beside);
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    tight = before;
    tight.rlim_cur = (rlim_t)(address_bytes() + plan.floor_bytes + beside);
    REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
    fill_tokens(tokens, PROMPT, 1000, 3);
    free(run(open_model(path, &s), &vocab));
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
}

/* Whatever flags a descriptor has, the model behind it opens in every way of reading, and gives the same bits. */
static void flags_of_descriptors(void)
{
    static const int32_t ways[] = { LAYERLINE_IO_AUTO, LAYERLINE_IO_BUFFERED, LAYERLINE_IO_MMAP };
    static const int flags[] = { 0, O_DIRECT, O_NONBLOCK };
    const char *path = data_path(TINY_MODEL);
    settings s = { 0 };
    size_t vocab = 0, found = 0, i, j;
    float *expected;
    s.context = 64;
    s.threads = 1;
    s.budget = UINT64_C(1) << 30;
    fill_tokens(tokens, PROMPT, TINY_VOCAB, 3);
    expected = run(open_model(path, &s), &vocab);
    for (i = 0; i < sizeof flags / sizeof *flags; i++) {
        const int fd = open(path, O_RDONLY | flags[i]);
        if (fd < 0) {
            /* Not every file system has direct reads. */
            CHECK(flags[i] == O_DIRECT);
            continue;
        }
        for (j = 0; j < sizeof ways / sizeof *ways; j++) {
            layerline_options *options;
            layerline_model *model = NULL;
            layerline_error *err;
            s.io = ways[j];
            options = make_options(&s);
            if (CHECK_OK(err, layerline_model_open_fd(fd, 0, 0, options, &model, &err))) {
                float *logits = run(model, &found);
                CHECK(found == vocab && memcmp(logits, expected, vocab * sizeof *logits) == 0);
                free(logits);
            }
            layerline_options_free(options);
        }
        CHECK((fcntl(fd, F_GETFL) & O_DIRECT) == (flags[i] & O_DIRECT));
        close(fd);
    }
    free(expected);
}

int main(void)
{
    flags_of_descriptors();
    if (real_model() == NULL) {
        printf("the small model is not fetched\n");
        return check_result() == EXIT_SUCCESS ? CHECK_SKIP : EXIT_FAILURE;
    }
    few_addresses(real_model());
    return check_result();
}
