/* A model opened, run, saved and loaded while system calls fail, one after another: whatever fails, a call gives the
 * right bits or an error that says something, and the next try, when nothing fails, gives the right bits. */
#define _XOPEN_SOURCE 700
#include "faults.h"
#include "support.h"

#include <errno.h>
#include <unistd.h>

#define TOKENS 40
#define NEXT 8

static int32_t tokens[TOKENS + NEXT];
static float *expected[2];
static size_t vocab;
static char path[PATH_SIZE];
static const int32_t modes[] = { LAYERLINE_IO_AUTO, LAYERLINE_IO_DIRECT, LAYERLINE_IO_BUFFERED, LAYERLINE_IO_MMAP };

/* Whether it succeeded; a failure must have something to say. */
static bool ok(layerline_status status, layerline_error **err)
{
    if (status == LAYERLINE_OK) {
        CHECK(*err == NULL);
        return true;
    }
    CHECK(*err != NULL && layerline_error_status(*err) == status && strlen(layerline_error_message(*err)) > 10);
    layerline_error_free(*err);
    *err = NULL;
    return false;
}

static bool feeds(layerline_session *session, size_t from, size_t count, unsigned which)
{
    layerline_error *err = NULL;
    size_t before = position_of(session);
    if (!ok(layerline_session_forward(session, tokens + from, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                      &err), &err)) {
        CHECK(position_of(session) == before);
        return false;
    }
    CHECK(same_logits(session, 0, expected[which], vocab));
    return true;
}

/* Everything once. Whether all of it succeeded. */
static bool life(const settings *s)
{
    layerline_error *err = NULL;
    layerline_model *model = NULL;
    layerline_session *session = NULL, *other = NULL;
    bool good = false;
    const layerline_status opened = try_open(data_path(TINY_MODEL), s, &model, &err);
    /* What is not supported may be done without, by itself; what has failed says what it was. */
    CHECK(s->io != LAYERLINE_IO_AUTO || opened != LAYERLINE_ERROR_UNSUPPORTED);
    if (!ok(opened, &err)) {
        CHECK(model == NULL);
        return false;
    }
    if (ok(layerline_session_new(model, 0, &session, &err), &err)) {
        good = feeds(session, 0, TOKENS, 0);
        if (good && ok(layerline_session_save(session, path, &err), &err)) {
            good = ok(layerline_session_new(model, 0, &other, &err), &err);
            if (good && ok(layerline_session_load(other, path, &err), &err)) {
                good = feeds(other, TOKENS, NEXT, 1);
            } else if (good) {
                /* What cannot be loaded leaves the session as it was. */
                good = false;
                CHECK(position_of(other) == 0);
            }
        } else {
            good = false;
        }
        layerline_session_free(other);
        /* The first one went on unharmed. */
        if (position_of(session) == TOKENS) {
            good &= feeds(session, TOKENS, NEXT, 1);
        }
    }
    layerline_session_free(session);
    layerline_model_free(model);
    return good;
}

static void with_failures(enum fault_call call, int code, const settings *s, unsigned step)
{
    unsigned nth = 1, calls, failed = 0;
    do {
        bool good;
        alarm(60);
        fault_arm(call, nth, code, 0);
        good = life(s);
        calls = fault_disarm();
        failed += !good;
        if (nth > calls) {
            CHECK(good);
        }
        nth += step;
    } while (nth - step <= calls);
    alarm(60);
    CHECK(life(s));
    printf("%s, error %d, mode %d: %u calls, %u of the runs failed\n", fault_names[call], code, (int)s->io, calls, failed);
}

int main(void)
{
    static const struct { enum fault_call call; int code; } faults[] = {
        { FAULT_OPEN, EMFILE },  { FAULT_OPEN, EIO },       { FAULT_OPEN, EINTR },    { FAULT_STAT, EIO },
        { FAULT_READ, EIO },     { FAULT_READ, EINTR },     { FAULT_READ, EINVAL },   { FAULT_WRITE, ENOSPC },
        { FAULT_WRITE, EIO },    { FAULT_SYNC, EIO },       { FAULT_RENAME, EIO },    { FAULT_MMAP, ENOMEM },
        { FAULT_MADVISE, EINVAL }, { FAULT_MADVISE, ENOMEM }, { FAULT_MUNMAP, ENOMEM }, { FAULT_THREAD, EAGAIN },
        { FAULT_SOCKET, EMFILE },
    };
    static const enum fault_call interrupted[] = { FAULT_OPEN, FAULT_READ, FAULT_WRITE };
    /* Reads are many, and alike. */
    const unsigned step = getenv("LAYERLINE_TORTURE") != NULL ? 1 : 7;
    settings s = { 0 };
    layerline_session *session;
    layerline_model *model;
    const char *parent = getenv("TMPDIR");
    size_t m, i;

    snprintf(path, sizeof path, "%.500s/layerline-torture-%ld", parent != NULL && parent[0] != '\0' ? parent : "/tmp",
             (long)getpid());
    fill_tokens(tokens, TOKENS + NEXT, TINY_VOCAB, 7);
    s.context = 64;
    s.threads = 2;
    s.budget = UINT64_C(1) << 32;
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 0);
    for (i = 0; i < 2; i++) {
        layerline_error *err;
        REQUIRE_OK(err, layerline_session_forward(session, tokens + i * TOKENS, i == 0 ? TOKENS : NEXT,
                                                  LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
        expected[i] = copy_logits(session, 0, &vocab);
    }
    layerline_session_free(session);
    layerline_model_free(model);

    /* Room for two sessions, and weights are read while passes run. */
    {
        const layerline_plan plan = plan_of(data_path(TINY_MODEL), &s);
        s.budget = plan.floor_bytes + plan.kv_bytes;
    }
    for (m = 0; m < sizeof modes / sizeof *modes; m++) {
        s.io = modes[m];
        for (i = 0; i < sizeof faults / sizeof *faults; i++) {
            with_failures(faults[i].call, faults[i].code, &s, faults[i].call == FAULT_READ ? step : 1);
        }
        for (i = 0; i < sizeof interrupted / sizeof *interrupted; i++) {
            alarm(60);
            fault_arm(interrupted[i], 2, EINTR, 1);
            CHECK(life(&s));
            fault_disarm();
        }
    }
    free(expected[0]);
    free(expected[1]);
    remove(path);
    return check_result();
}
