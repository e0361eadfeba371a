/* A model cut short at many places and with single bytes changed: a clear error, or a model that runs.
 *
 * No crash, no hang (CTest's time limit), no caught panic (LAYERLINE_ERROR_INTERNAL), and memory within the budget.
 * LAYERLINE_HOSTILE_CUTS and LAYERLINE_HOSTILE_FLIPS change the counts, for slow surroundings.
 */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <unistd.h>

#define BUDGET (UINT64_C(64) << 20)

typedef struct tally {
    unsigned opened, refused, ran, stopped;
} tally;

static unsigned count_from(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : (unsigned)strtoul(text, NULL, 10);
}

/* A failure must be of a kind that a bad file can cause, with words. */
static void check_reason(const char *what, size_t where, layerline_status status, layerline_error *err)
{
    char text[256];
    const char *said = err == NULL ? NULL : layerline_error_message(err);
    if (status != LAYERLINE_ERROR_FORMAT && status != LAYERLINE_ERROR_IO && status != LAYERLINE_ERROR_UNSUPPORTED &&
        status != LAYERLINE_ERROR_MEMORY_BUDGET && status != LAYERLINE_ERROR_OUT_OF_MEMORY &&
        status != LAYERLINE_ERROR_INVALID_ARGUMENT && status != LAYERLINE_ERROR_CONTEXT_FULL) {
        snprintf(text, sizeof text, "%s %lu: status %d: %.150s", what, (unsigned long)where, (int)status,
                 said == NULL ? "" : said);
        check_failed(__FILE__, __LINE__, text);
    }
    if (said == NULL || said[0] == '\0') {
        snprintf(text, sizeof text, "%s %lu: status %d without a message", what, (unsigned long)where, (int)status);
        check_failed(__FILE__, __LINE__, text);
    }
    layerline_error_free(err);
}

static void use(const char *what, size_t where, layerline_model *model, tally *t)
{
    layerline_session *session = NULL;
    layerline_error *err = NULL;
    layerline_status status = layerline_session_new(model, 32, &session, &err);
    layerline_stats stats;
    int32_t tokens[32];
    char buf[512];
    size_t needed = 0;
    bool end;
    if (status != LAYERLINE_OK) {
        check_reason(what, where, status, err);
        t->stopped++;
        return;
    }
    tokens[0] = 1;
    tokens[1] = 100;
    tokens[2] = 300;
    status = layerline_session_forward(session, tokens, 3, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, &err);
    if (status != LAYERLINE_OK) {
        check_reason(what, where, status, err);
        t->stopped++;
    } else {
        t->ran++;
    }
    status = layerline_model_tokenize(model, "t1 \xE2\x82\xAC x", 8,
                                      LAYERLINE_TOKENIZE_BOS | LAYERLINE_TOKENIZE_SPECIAL,
                                tokens, 32, &needed, NULL);
    CHECK(status != LAYERLINE_ERROR_INTERNAL);
    if (status == LAYERLINE_OK && needed > 0) {
        status = layerline_model_detokenize(model, tokens, needed, buf, sizeof buf, &needed, NULL);
        CHECK(status != LAYERLINE_ERROR_INTERNAL);
        status = layerline_model_token_is_end(model, tokens[0], &end, NULL);
        CHECK(status != LAYERLINE_ERROR_INTERNAL);
    }
    status = layerline_model_metadata(model, "general.name", buf, sizeof buf, &needed, NULL);
    CHECK(status != LAYERLINE_ERROR_INTERNAL);
    stats = stats_of(model);
    CHECK(stats.peak_bytes <= BUDGET);
    layerline_session_free(session);
}

static void try_file(const char *what, size_t where, const char *path, const layerline_options *options, tally *t)
{
    layerline_model *model = NULL;
    layerline_error *err = NULL;
    layerline_status status = layerline_model_open(path, options, &model, &err);
    if (status != LAYERLINE_OK) {
        CHECK(model == NULL);
        check_reason(what, where, status, err);
        t->refused++;
        return;
    }
    t->opened++;
    use(what, where, model, t);
    layerline_model_free(model);
}

static void write_at(int fd, size_t offset, const unsigned char *bytes, size_t size)
{
#ifdef _WIN32
    REQUIRE(lseek(fd, (off_t)offset, SEEK_SET) == (off_t)offset && write(fd, bytes, (unsigned)size) == (int)size);
#else
    REQUIRE(pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size);
#endif
}

static void cut_short(const unsigned char *bytes, size_t size, const layerline_options *options)
{
    unsigned cuts = count_from("LAYERLINE_HOSTILE_CUTS", 200), i;
    tally t = { 0, 0, 0, 0 };
    char path[PATH_SIZE];
    int fd = make_file(path, bytes, size);
    for (i = 0; i < cuts; i++) {
        /* Half of them within the directory, where the structure is; from long to short, so that one file serves. */
        size_t places = cuts / 2 + 1, length;
        length = i < cuts / 2 ? size - 1 - (size - 8200) / places * i : 8192 - 8192 / places * (i - cuts / 2);
        REQUIRE(ftruncate(fd, (off_t)length) == 0);
        try_file("cut at", length, path, options, &t);
    }
    /* The last tensor ends where the file does: whatever is cut is missed. */
    CHECK(t.opened == 0 && t.refused == cuts);
    printf("cut short: %u refused\n", t.refused);
    close(fd);
    unlink(path);
}

static void change_bytes(const unsigned char *bytes, size_t size, const layerline_options *options)
{
    unsigned flips = count_from("LAYERLINE_HOSTILE_FLIPS", 2000), i;
    uint64_t state = 0x9E3779B97F4A7C15u;
    tally t = { 0, 0, 0, 0 };
    char path[PATH_SIZE];
    int fd = make_file(path, bytes, size);
    for (i = 0; i < flips; i++) {
        size_t offset;
        unsigned char changed;
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        /* Three of four in the directory: its first keys, its tensors, anywhere in it. */
        switch (i % 4) {
        case 0: offset = (size_t)(state >> 33) % 700; break;
        case 1: offset = 7900 + (size_t)(state >> 33) % 1250; break;
        case 2: offset = (size_t)(state >> 33) % 9150; break;
        default: offset = (size_t)(state >> 33) % size; break;
        }
        changed = (unsigned char)(bytes[offset] ^ (i % 8 < 4 ? 1u << (state >> 20 & 7u) : (unsigned)(state >> 20 & 0xFEu) + 1u));
        write_at(fd, offset, &changed, 1);
        try_file("changed byte", offset, path, options, &t);
        write_at(fd, offset, bytes + offset, 1);
    }
    printf("changed bytes: %u opened (%u ran, %u stopped), %u refused\n", t.opened, t.ran, t.stopped, t.refused);
    CHECK(t.opened + t.refused == flips);
    CHECK(t.opened > 0 && t.refused > 0); /* else the changes tried nothing */
    /* And the file as it was is good, so nothing above was refused for another reason. */
    memset(&t, 0, sizeof t);
    try_file("unchanged", 0, path, options, &t);
    CHECK(t.ran == 1);
    close(fd);
    unlink(path);
}

/* A file that shrinks while it is open: read errors, not signals. */
static void cut_while_open(const unsigned char *bytes, size_t size)
{
    settings s = { 0 };
    size_t left;
    s.context = 32;
    s.threads = 1;
    s.io = LAYERLINE_IO_BUFFERED;
    s.budget = UINT64_C(1) << 32;
    s.budget = plan_of(data_path(TINY_MODEL), &s).floor_bytes;
    for (left = 0; left < size; left += size / 5) {
        char path[PATH_SIZE];
        int fd = make_file(path, bytes, size);
        layerline_model *model = open_model(path, &s);
        layerline_session *session = new_session(model, 0);
        int pass;
        REQUIRE(ftruncate(fd, (off_t)left) == 0);
        for (pass = 0; pass < 3; pass++) {
            layerline_error *err = NULL;
            int32_t token = 7;
            layerline_status status = layerline_session_forward(session, &token, 1, LAYERLINE_LOGITS_LAST,
                                                                LAYERLINE_EMBEDDINGS_NONE, &err);
            CHECK(status == LAYERLINE_OK || status == LAYERLINE_ERROR_IO || status == LAYERLINE_ERROR_FORMAT);
            CHECK((status == LAYERLINE_OK) == (err == NULL));
            layerline_error_free(err);
        }
        layerline_session_free(session);
        layerline_model_free(model);
        close(fd);
        unlink(path);
    }
}

int main(void)
{
    settings s = { 0 };
    layerline_options *options;
    size_t size;
    unsigned char *bytes = read_file(data_path(TINY_MODEL), &size);
    REQUIRE(size > 16384);
    s.budget = BUDGET;
    s.context = 32;
    s.threads = 1;
    options = make_options(&s);
    cut_short(bytes, size, options);
    change_bytes(bytes, size, options);
    cut_while_open(bytes, size);
    layerline_options_free(options);
    free(bytes);
    return check_result();
}
