/* A child process has a copy of the memory, but none of the threads: calls there fail instead of waiting for ever. */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <sys/wait.h>
#include <unistd.h>

#define TOKENS 24

static int32_t tokens[TOKENS];

static void in_the_child(layerline_model *model, layerline_session *session)
{
    layerline_error *err;
    layerline_session *other = NULL;
    uint64_t ticket = 0;
    unsigned round;
    alarm(20);
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err,
                layerline_session_forward(session, tokens, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &err));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_session_new(model, 0, &other, &err));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err, layerline_model_prefetch(model, 0, 1, &ticket, &err));
    CHECK_ERROR(LAYERLINE_ERROR_UNSUPPORTED, err,
                layerline_session_submit(session, tokens, 1, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &ticket,
                                         &err));
    layerline_session_free(session);
    layerline_model_free(model);
    /* Models of its own work, wherever their locks lie: none may meet a thread that stayed behind. */
    for (round = 0; round < 8; round++) {
        settings s = { 0 };
        layerline_model *own;
        s.threads = 4;
        own = open_model(data_path(TINY_MODEL), &s);
        session = new_session(own, 64);
        CHECK_OK(err, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        layerline_session_free(session);
        layerline_model_free(own);
    }
    _exit(check_result());
}

int main(void)
{
    settings s = { 0 };
    layerline_error *err;
    layerline_model *model;
    layerline_session *session;
    unsigned round;
    fill_tokens(tokens, TOKENS, TINY_VOCAB, 3);
    s.threads = 8;
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 128);
    for (round = 0; round < 4; round++) {
        int status = 0;
        pid_t child;
        CHECK_OK(err, layerline_session_forward(session, tokens, TOKENS, LAYERLINE_LOGITS_LAST,
                                                LAYERLINE_EMBEDDINGS_NONE, &err));
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            in_the_child(model, session);
        }
        REQUIRE(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    layerline_session_free(session);
    layerline_model_free(model);
    return check_result();
}
