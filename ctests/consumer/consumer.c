/* A program of somebody else's: finds layerline where it is installed, and runs a pass. */
#include <layerline.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const int32_t tokens[3] = { 1, 40, 50 };
    layerline_options *options = layerline_options_new();
    layerline_model *model = NULL;
    layerline_session *session = NULL;
    layerline_error *error = NULL;
    int good;
    if (argc != 2 || layerline_version_number() != LAYERLINE_VERSION_NUMBER) {
        return 2;
    }
    good = layerline_model_open(argv[1], options, &model, &error) == LAYERLINE_OK &&
           layerline_session_new(model, 64, &session, &error) == LAYERLINE_OK &&
           layerline_session_forward(session, tokens, 3, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, &error) == LAYERLINE_OK;
    printf("layerline %s: %s\n", layerline_version(), good ? "a pass has run" : layerline_error_message(error));
    layerline_error_free(error);
    layerline_session_free(session);
    layerline_model_free(model);
    layerline_options_free(options);
    return good ? 0 : 1;
}
