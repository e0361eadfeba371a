/* A model out of memory that the program has filled itself, in place of a file: it might as well have come out of an archive,
 * from a network, or with the program.
 *
 *     source MODEL
 *
 * Generates a few tokens after the beginning of a text. It calls C's own library alone and compiles for WASI too.
 */
#include "layerline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the callback is given. */
typedef struct contents {
    unsigned char *bytes;
    size_t size;
} contents;

/* Memory can be read on several threads at once. */
static int64_t read_contents(uint64_t offset, void *buf, size_t length, void *user_data)
{
    const contents *from = (const contents *)user_data;
    memcpy(buf, from->bytes + offset, length);
    return (int64_t)length;
}

/* Comes when the model, its sessions and the source are gone. */
static void release_contents(void *user_data)
{
    contents *from = (contents *)user_data;
    free(from->bytes);
    free(from);
}

static contents *fill(const char *path)
{
    contents *made = (contents *)calloc(1, sizeof *made);
    FILE *file = fopen(path, "rb");
    size_t room = 0, got = 1;
    while (made != NULL && file != NULL && got > 0) {
        if (made->size == room) {
            unsigned char *larger = (unsigned char *)realloc(made->bytes, room += 1 << 20);
            if (larger == NULL) {
                break;
            }
            made->bytes = larger;
        }
        got = fread(made->bytes + made->size, 1, room - made->size, file);
        made->size += got;
    }
    if (file != NULL) {
        fclose(file);
    }
    return file != NULL ? made : NULL;
}

static bool print(int32_t token, const char *piece, size_t length, void *user_data)
{
    (void)token, (void)user_data;
    fwrite(piece, 1, length, stdout);
    return true;
}

static int failed(const char *path, layerline_error *err)
{
    fprintf(stderr, "%s: %s\n", path, layerline_error_message(err));
    layerline_error_free(err);
    return EXIT_FAILURE;
}

static int generate(const char *path, layerline_model *model)
{
    layerline_error *err = NULL;
    layerline_session *session = NULL;
    layerline_sampler *sampler = layerline_sampler_new();
    static const int32_t beginning[] = { 1 };
    layerline_status status = layerline_session_new(model, 64, &session, &err);
    if (status == LAYERLINE_OK) {
        status = layerline_session_generate(session, sampler, beginning, 1, 24, print, NULL, &err);
    }
    putchar('\n');
    layerline_session_free(session);
    layerline_sampler_free(sampler);
    return status == LAYERLINE_OK ? EXIT_SUCCESS : failed(path, err);
}

int main(int argc, char **argv)
{
    layerline_source *source = NULL;
    layerline_model *model = NULL;
    layerline_error *err = NULL;
    layerline_options *options;
    contents *from;
    int result;
    if (argc != 2) {
        fprintf(stderr, "usage: source MODEL\n");
        return EXIT_FAILURE;
    }
    from = fill(argv[1]);
    if (from == NULL) {
        fprintf(stderr, "%s: cannot be read\n", argv[1]);
        return EXIT_FAILURE;
    }
    if (layerline_source_new(from->size, read_contents, release_contents, from, &source, &err) != LAYERLINE_OK) {
        release_contents(from);
        return failed(argv[1], err);
    }
    options = layerline_options_new();
    layerline_options_set_context_length(options, 64);
    if (layerline_source_set_name(source, argv[1], NULL) != LAYERLINE_OK ||
        layerline_model_open_source(source, options, &model, &err) != LAYERLINE_OK) {
        result = failed(argv[1], err);
    } else {
        result = generate(argv[1], model);
    }
    /* The model has what it needs of both. */
    layerline_options_free(options);
    layerline_source_free(source);
    layerline_model_free(model);
    return result;
}
