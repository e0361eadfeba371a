/* The same prompt with and without background prefetch, side by side: what waiting for storage costs, and that the
 * text is the same either way.
 *
 *     prefetch MODEL PROMPT [--budget 33%] [--tokens 32] [--threads N] [--io auto|direct|buffered|mmap]
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <signal.h>

typedef struct arguments {
    const char *model, *prompt, *budget_text;
    uint64_t budget, tokens, threads;
    int32_t io;
} arguments;

typedef struct outcome {
    char *text;
    size_t length, capacity;
    uint64_t tokens;
    double first, last; /* seconds */
    bool out_of_memory;
    layerline_stats stats;
} outcome;

/* Only a flag, read by the callback: calling into the library from a signal handler is not promised to be safe, and
 * with one pass a token the answer comes soon enough. */
static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static int usage(void)
{
    fprintf(stderr, "usage: prefetch MODEL PROMPT [--budget BYTES|KiB|MiB|GiB|%%] [--tokens N] [--threads N]\n"
                    "                [--io auto|direct|buffered|mmap]\n");
    return 2;
}

static bool parse_arguments(int argc, char **argv, arguments *args)
{
    int i;
    memset(args, 0, sizeof *args);
    args->budget_text = "33%";
    args->tokens = 32;
    args->io = LAYERLINE_IO_AUTO;
    if (argc < 3 || argc % 2 == 0) {
        return false;
    }
    args->model = argv[1];
    args->prompt = argv[2];
    for (i = 3; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        bool good = true;
        if (strcmp(name, "--budget") == 0) {
            args->budget_text = value;
        } else if (strcmp(name, "--tokens") == 0) {
            good = parse_number(value, 1, UINT32_MAX, &args->tokens);
        } else if (strcmp(name, "--threads") == 0) {
            good = parse_number(value, 0, UINT32_MAX, &args->threads);
        } else if (strcmp(name, "--io") == 0) {
            good = parse_io(value, &args->io);
        } else {
            fprintf(stderr, "%s: no such option\n", name);
            return false;
        }
        if (!good) {
            fprintf(stderr, "%s: cannot use \"%s\"\n", name, value);
            return false;
        }
    }
    return true;
}

static layerline_options *options_of(const arguments *args, bool prefetch)
{
    return make_options(args->budget, context_for(args->prompt, args->tokens), (uint32_t)args->threads, prefetch,
                        args->io);
}

static bool find_budget(arguments *args, layerline_plan *plan)
{
    return plan_with(args->model, options_of(args, true), plan) &&
           parse_budget(args->budget_text, plan->file_bytes, &args->budget);
}

static bool on_token(int32_t token, const char *piece, size_t length, void *user_data)
{
    outcome *o = user_data;
    (void)token;
    o->last = seconds_now();
    if (o->tokens++ == 0) {
        o->first = o->last;
    }
    if (o->capacity - o->length < length) {
        size_t capacity = (o->length + length) * 2 + 256;
        char *text = realloc(o->text, capacity);
        if (text == NULL) {
            o->out_of_memory = true;
            return false;
        }
        o->text = text;
        o->capacity = capacity;
    }
    if (length > 0) {
        memcpy(o->text + o->length, piece, length);
        o->length += length;
    }
    return !interrupted;
}

static bool run(const arguments *args, bool prefetch, outcome *o)
{
    layerline_model *model = NULL;
    layerline_session *session = NULL;
    layerline_sampler *sampler = NULL;
    layerline_error *error = NULL;
    layerline_status status;
    int32_t *prompt = NULL;
    size_t count = 0;
    bool good = false;
    layerline_options *options = options_of(args, prefetch);

    memset(o, 0, sizeof *o);
    if (options == NULL) {
        return false;
    }
    status = layerline_model_open(args->model, options, &model, &error);
    layerline_options_free(options);
    if (status != LAYERLINE_OK) {
        return report("cannot open the model", status, error);
    }
    status = layerline_session_new(model, 0, &session, &error);
    if (status != LAYERLINE_OK) {
        report("cannot start a session", status, error);
        goto done;
    }
    sampler = layerline_sampler_new(); /* greedy: the text depends on nothing but the model and the prompt */
    prompt = tokenize_prompt(model, args->prompt, &count);
    if (sampler == NULL || prompt == NULL) {
        goto done;
    }
    status = layerline_session_generate(session, sampler, prompt, count, (size_t)args->tokens, on_token, o, &error);
    if (o->out_of_memory) {
        fprintf(stderr, "out of memory\n");
        layerline_error_free(error);
        goto done;
    }
    if (status != LAYERLINE_OK) {
        report("generation failed", status, error);
        goto done;
    }
    o->stats.struct_size = (uint32_t)sizeof o->stats;
    status = layerline_model_get_stats(model, &o->stats, NULL);
    good = status == LAYERLINE_OK || report("no statistics", status, NULL);
done:
    free(prompt);
    layerline_sampler_free(sampler);
    layerline_session_free(session);
    layerline_model_free(model);
    return good;
}

static double per_pass(uint64_t value, const outcome *o)
{
    return o->stats.passes == 0 ? 0.0 : (double)value / (double)o->stats.passes;
}

static double decode_rate(const outcome *o)
{
    return o->tokens < 2 || o->last <= o->first ? 0.0 : (double)(o->tokens - 1) / (o->last - o->first);
}

static void row(const char *name, const char *unit, double without, double with)
{
    printf("  %-24s %12.1f %12.1f  %s\n", name, without, with, unit);
}

int main(int argc, char **argv)
{
    arguments args;
    layerline_plan plan;
    outcome without, with;
    struct sigaction action;
    int result = 1;

    if (!parse_arguments(argc, argv, &args)) {
        return usage();
    }
    memset(&without, 0, sizeof without);
    memset(&with, 0, sizeof with);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);

    if (!find_budget(&args, &plan) || !run(&args, false, &without) || (!interrupted && !run(&args, true, &with))) {
        goto done;
    }
    if (interrupted) {
        fprintf(stderr, "interrupted\n");
        result = 130;
        goto done;
    }
    printf("%s%.*s\n\n", args.prompt, (int)with.length, with.length > 0 ? with.text : "");
    printf("  budget %.1f MiB of a file of %.1f MiB, reads %s\n\n", mebibytes(args.budget), mebibytes(plan.file_bytes),
           io_name(with.stats.io));
    printf("  %-24s %12s %12s\n", "", "on demand", "prefetch");
    row("layers stalled", "a pass", per_pass(without.stats.layers_stalled, &without),
        per_pass(with.stats.layers_stalled, &with));
    row("stalled", "ms a pass", per_pass(without.stats.stall_ns, &without) / 1e6,
        per_pass(with.stats.stall_ns, &with) / 1e6);
    row("computing", "ms a pass", per_pass(without.stats.compute_ns, &without) / 1e6,
        per_pass(with.stats.compute_ns, &with) / 1e6);
    row("read", "MiB a pass", mebibytes((uint64_t)per_pass(without.stats.read_bytes, &without)),
        mebibytes((uint64_t)per_pass(with.stats.read_bytes, &with)));
    row("peak memory", "MiB", mebibytes(without.stats.peak_bytes), mebibytes(with.stats.peak_bytes));
    row("decode", "tokens/s", decode_rate(&without), decode_rate(&with));
    if (without.length == with.length && (with.length == 0 || memcmp(without.text, with.text, with.length) == 0)) {
        printf("\n  the text is the same, byte for byte\n");
        result = 0;
    } else {
        printf("\n  THE TEXT DIFFERS; on demand it was:\n%s%.*s\n", args.prompt, (int)without.length,
               without.length > 0 ? without.text : "");
    }
    if (fflush(stdout) != 0) {
        result = 1;
    }
done:
    free(without.text);
    free(with.text);
    return result;
}
