/* Adapters: opened under the budget, set for a session, freed in any order. */
#include "support.h"

static bool changed(layerline_session *session, const float *before, size_t vocab)
{
    static const int32_t tokens[] = { 1, 40, 50 };
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_forward(session, tokens, 3, LAYERLINE_LOGITS_LAST,
                                                         LAYERLINE_EMBEDDINGS_NONE, NULL));
    return before != NULL && !same_logits(session, 0, before, vocab);
}

static void an_adapter_changes_its_sessions_alone(void)
{
    settings s = { 0 };
    layerline_model *model;
    layerline_session *session, *other, *copy = NULL;
    layerline_adapter *adapter = NULL;
    const layerline_adapter *both[2];
    const float scales[2] = { 0.5f, 0.5f };
    float *plain, *adapted;
    size_t vocab = 0;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 64);
    other = new_session(model, 64);
    changed(session, NULL, 0);
    plain = copy_logits(session, 0, &vocab);
    CHECK_STATUS(LAYERLINE_OK, layerline_adapter_open(model, LAYERLINE_ADAPTER, &adapter, NULL));
    CHECK(layerline_adapter_memory_bytes(adapter) > 768 && layerline_adapter_memory_bytes(adapter) < 16384);
    both[0] = both[1] = adapter;
    CHECK_STATUS(LAYERLINE_OK, layerline_session_set_adapters(session, both, scales, 2, NULL));
    CHECK(changed(session, plain, vocab) && !changed(other, plain, vocab));
    adapted = copy_logits(session, 0, &vocab);
    /* The session goes on with it, and so does its copy. */
    layerline_adapter_free(adapter);
    CHECK(!changed(session, adapted, vocab));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_copy(session, 0, &copy, NULL));
    CHECK(!changed(copy, adapted, vocab));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_set_adapters(session, NULL, NULL, 0, NULL));
    CHECK(!changed(session, plain, vocab));
    free(plain);
    free(adapted);
    layerline_session_free(session);
    layerline_session_free(other);
    layerline_session_free(copy);
    layerline_model_free(model);
}

static void what_is_wrong_is_refused(void)
{
    settings s = { 0 };
    layerline_model *model, *another;
    layerline_session *session;
    layerline_adapter *adapter = NULL;
    const layerline_adapter *one[1] = { NULL };
    float scale[1] = { 1 };
    layerline_error *err;
    s.context = 64;
    model = open_model(data_path(TINY_MODEL), &s);
    another = open_model(data_path(TINY_MODEL), &s);
    session = new_session(model, 64);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_adapter_open(NULL, "x", &adapter, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_adapter_open(model, NULL, &adapter, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_adapter_open(model, LAYERLINE_ADAPTER, NULL, &err));
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_adapter_open(model, "/no/such/adapter", &adapter, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err,
                layerline_adapter_open(model, data_path(TINY_MODEL), &adapter, &err));
    CHECK(adapter == NULL && layerline_adapter_memory_bytes(NULL) == 0);
    layerline_adapter_free(NULL);
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_set_adapters(NULL, one, scale, 1, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_set_adapters(session, one, scale, 1, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_set_adapters(session, NULL, scale, 1, &err));
    CHECK_STATUS(LAYERLINE_OK, layerline_adapter_open(another, LAYERLINE_ADAPTER, &adapter, NULL));
    one[0] = adapter;
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_set_adapters(session, one, scale, 1, &err));
    CHECK_ERROR(LAYERLINE_ERROR_INVALID_ARGUMENT, err, layerline_session_set_adapters(session, one, NULL, 1, &err));
    layerline_session_free(session);
    layerline_model_free(model);
    /* It keeps its model alive. */
    layerline_model_free(another);
    layerline_adapter_free(adapter);
}

int main(void)
{
    an_adapter_changes_its_sessions_alone();
    what_is_wrong_is_refused();
    return check_result();
}
