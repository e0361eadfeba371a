/* Continues a prompt, inside a memory budget, and says what that took.
 *
 *     generate MODEL PROMPT [--budget 400MiB|33%] [--tokens 128] [--threads N] [--prefetch on|off]
 *              [--temperature 0.8] [--seed N] [--context N] [--io auto|direct|buffered|mmap]
 *     generate MODEL --plan [--budget …] [--context N]     prints what the model needs, and loads nothing
 *
 * The text goes to stdout, everything else to stderr. Without --budget the library takes what the machine has free;
 * without --context there is room for the prompt and the tokens asked for.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

typedef struct arguments {
    const char *model, *prompt, *budget_text;
    uint64_t budget, threads, tokens, seed, context;
    float temperature;
    bool prefetch, plan_only;
    int32_t io;
} arguments;

/* Ctrl-C. The handler only sets this flag: no function of the library is documented as safe inside a signal handler,
 * and none needs to be. The callback and the watching thread look at the flag in ordinary context. */
static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: generate MODEL PROMPT [--budget BYTES|KiB|MiB|GiB|%%] [--tokens N] [--threads N]\n"
            "                [--prefetch on|off] [--temperature T] [--seed S] [--context N]\n"
            "                [--io auto|direct|buffered|mmap]\n"
            "       generate MODEL --plan [--budget B] [--context N] [--threads N]\n");
    return 2;
}

static bool parse_arguments(int argc, char **argv, arguments *args)
{
    int i, positional = 0;
    memset(args, 0, sizeof *args);
    args->tokens = 128;
    args->prefetch = true;
    args->io = LAYERLINE_IO_AUTO;
    for (i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool good = true;
        if (strncmp(name, "--", 2) != 0) {
            if (positional == 0) {
                args->model = name;
            } else if (positional == 1) {
                args->prompt = name;
            }
            if (++positional > 2) {
                return false;
            }
            continue;
        }
        if (strcmp(name, "--plan") == 0) {
            args->plan_only = true;
            continue;
        }
        if (value == NULL) {
            fprintf(stderr, "%s: unknown, or its value is missing\n", name);
            return false;
        }
        i++;
        if (strcmp(name, "--budget") == 0) {
            args->budget_text = value; /* a percentage needs the file's size first */
        } else if (strcmp(name, "--threads") == 0) {
            good = parse_number(value, 0, UINT32_MAX, &args->threads);
        } else if (strcmp(name, "--tokens") == 0) {
            good = parse_number(value, 1, UINT32_MAX, &args->tokens);
        } else if (strcmp(name, "--seed") == 0) {
            good = parse_number(value, 0, UINT64_MAX, &args->seed);
        } else if (strcmp(name, "--context") == 0) {
            good = parse_number(value, 0, UINT32_MAX, &args->context);
        } else if (strcmp(name, "--temperature") == 0) {
            good = parse_float(value, &args->temperature);
        } else if (strcmp(name, "--io") == 0) {
            good = parse_io(value, &args->io);
        } else if (strcmp(name, "--prefetch") == 0) {
            args->prefetch = strcmp(value, "on") == 0;
            good = args->prefetch || strcmp(value, "off") == 0;
        } else {
            fprintf(stderr, "%s: no such option\n", name);
            return false;
        }
        if (!good) {
            fprintf(stderr, "%s: cannot use \"%s\"\n", name, value);
            return false;
        }
    }
    return args->model != NULL && (args->plan_only ? positional == 1 : positional == 2);
}

static layerline_options *options_of(const arguments *args)
{
    return make_options(args->budget, (uint32_t)args->context, (uint32_t)args->threads, args->prefetch, args->io);
}

static layerline_sampler *make_sampler(const arguments *args)
{
    layerline_sampler *sampler = layerline_sampler_new();
    if (sampler == NULL) {
        fprintf(stderr, "out of memory\n");
        return NULL;
    }
    if (layerline_sampler_set_temperature(sampler, args->temperature) != LAYERLINE_OK ||
        layerline_sampler_set_seed(sampler, args->seed) != LAYERLINE_OK) {
        fprintf(stderr, "--temperature: cannot use %g\n", (double)args->temperature);
        layerline_sampler_free(sampler);
        return NULL;
    }
    return sampler;
}

/* The plan at these options. A percentage is of the file, so the first call, without a budget, learns its size. */
static bool make_plan(arguments *args, layerline_plan *plan)
{
    if (!plan_with(args->model, options_of(args), plan)) {
        return false;
    }
    return args->budget_text == NULL || (parse_budget(args->budget_text, plan->file_bytes, &args->budget) &&
                                         plan_with(args->model, options_of(args), plan));
}

static int print_plan(const layerline_plan *plan, uint64_t context)
{
    /* The KV cache is the largest part that a user chooses, so the figures say what context they are for. */
    if (context == 0) {
        fprintf(stderr, "for the default context, 4096 tokens or the model's; --context N plans for another\n");
    }
    printf("layer_count %" PRIu32 "\n", plan->layer_count);
    printf("file_bytes %" PRIu64 "\n", plan->file_bytes);
    printf("weight_bytes %" PRIu64 "\n", plan->weight_bytes);
    printf("floor_bytes %" PRIu64 "\n", plan->floor_bytes);
    printf("full_bytes %" PRIu64 "\n", plan->full_bytes);
    printf("kv_bytes %" PRIu64 "\n", plan->kv_bytes);
    printf("scratch_bytes %" PRIu64 "\n", plan->scratch_bytes);
    printf("tables_bytes %" PRIu64 "\n", plan->tables_bytes);
    printf("pinned_bytes %" PRIu64 "\n", plan->pinned_bytes);
    printf("streamed_bytes %" PRIu64 "\n", plan->streamed_bytes);
    printf("expert_working_set_bytes %" PRIu64 "\n", plan->expert_working_set_bytes);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* -- the watching thread: shows how far the first pass is, and carries Ctrl-C to a pass that runs ------------------- */

typedef struct watch {
    const layerline_model *model;
    const layerline_session *session;
    uint64_t expected_bytes; /* of the first pass */
    bool terminal;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool reading, finished; /* under lock */
    uint64_t first_pass_bytes;
    bool bar_shown;
} watch;

static uint64_t bytes_read(const layerline_model *model)
{
    layerline_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    return layerline_model_get_stats(model, &stats, NULL) == LAYERLINE_OK ? stats.read_bytes : 0;
}

static void draw_bar(watch *w, uint64_t bytes)
{
    char bar[41];
    double part = w->expected_bytes == 0 ? 1.0 : (double)bytes / (double)w->expected_bytes;
    size_t filled;
    if (part > 1.0) {
        part = 1.0;
    }
    filled = (size_t)(part * (double)(sizeof bar - 1));
    memset(bar, ' ', sizeof bar - 1);
    memset(bar, '#', filled);
    bar[sizeof bar - 1] = '\0';
    fprintf(stderr, "\rreading weights [%s] %3.0f %% %7.1f MiB", bar, part * 100.0, mebibytes(bytes));
    fflush(stderr);
    w->bar_shown = true;
}

static void *watch_main(void *data)
{
    watch *w = data;
    pthread_mutex_lock(&w->lock);
    while (!w->finished) {
        struct timespec until;
        if (interrupted) {
            /* Again and again until generation has ended: one that falls between two passes stops neither. */
            layerline_session_interrupt(w->session);
        }
        if (w->reading && w->terminal) {
            draw_bar(w, bytes_read(w->model));
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100 * 1000 * 1000;
        if (until.tv_nsec >= 1000 * 1000 * 1000) {
            until.tv_sec += 1;
            until.tv_nsec -= 1000 * 1000 * 1000;
        }
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The first token is there: the bar makes room for the text. */
static void watch_first_token(watch *w)
{
    pthread_mutex_lock(&w->lock);
    if (w->reading) {
        w->reading = false;
        w->first_pass_bytes = bytes_read(w->model);
        if (w->terminal) {
            fprintf(stderr, "\r\033[K");
        } else {
            fprintf(stderr, "read %.1f MiB of weights for the prompt\n", mebibytes(w->first_pass_bytes));
        }
        fflush(stderr);
    }
    pthread_mutex_unlock(&w->lock);
}

static void watch_stop(watch *w, pthread_t thread)
{
    pthread_mutex_lock(&w->lock);
    w->finished = true;
    if (w->reading && w->bar_shown) {
        fprintf(stderr, "\n");
    }
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(thread, NULL);
}

/* -- generation ------------------------------------------------------------------------------------------------------ */

typedef struct progress {
    watch *watch;
    const char *prompt;
    uint64_t tokens;
    double start, first, last; /* seconds */
    bool output_failed;
} progress;

static bool on_token(int32_t token, const char *piece, size_t length, void *user_data)
{
    progress *p = user_data;
    (void)token;
    p->last = seconds_now();
    if (p->tokens++ == 0) {
        p->first = p->last;
        watch_first_token(p->watch);
        fputs(p->prompt, stdout);
    }
    fwrite(piece, 1, length, stdout);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        p->output_failed = true;
        return false;
    }
    return !interrupted;
}

static void row(const char *name, uint64_t bytes)
{
    fprintf(stderr, "  %-22s %10.1f MiB  (%" PRIu64 " bytes)\n", name, mebibytes(bytes), bytes);
}

static void print_table(const layerline_model *model, const layerline_plan *plan, const progress *p,
                        size_t prompt_tokens)
{
    layerline_stats stats;
    double prompt_seconds = p->first - p->start, decode_seconds = p->last - p->first;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    if (layerline_model_get_stats(model, &stats, NULL) != LAYERLINE_OK) {
        return;
    }
    fprintf(stderr, "\n");
    row("file", plan->file_bytes);
    row("budget", stats.budget_bytes);
    row("used", stats.used_bytes);
    row("peak", stats.peak_bytes);
    row("pinned", stats.pinned_bytes);
    if (p->tokens > 1) {
        row("streamed per token", (bytes_read(model) - p->watch->first_pass_bytes) / (p->tokens - 1));
    }
    row("read in all", stats.read_bytes);
    if (stats.expert_hits + stats.expert_misses > 0) {
        row("experts of a token", stats.expert_working_set_bytes);
        fprintf(stderr, "  %-22s %10.1f %%         (%" PRIu64 " of %" PRIu64 ", %" PRIu64 " evicted)\n", "experts in memory",
                100.0 * (double)stats.expert_hits / (double)(stats.expert_hits + stats.expert_misses), stats.expert_hits,
                stats.expert_hits + stats.expert_misses, stats.expert_evictions);
        row("missing experts read", stats.expert_missed_bytes);
    }
    if (p->tokens > 0 && prompt_seconds > 0) {
        fprintf(stderr, "  %-22s %10.1f tokens/s  (%zu tokens)\n", "prompt", (double)prompt_tokens / prompt_seconds,
                prompt_tokens);
    }
    if (p->tokens > 1 && decode_seconds > 0) {
        fprintf(stderr, "  %-22s %10.1f tokens/s  (%" PRIu64 " tokens)\n", "decode",
                (double)(p->tokens - 1) / decode_seconds, p->tokens);
    }
    fprintf(stderr, "  %-22s %10" PRIu64 " layers    (%.1f ms waited)\n", "stalled", stats.layers_stalled,
            (double)stats.stall_ns / 1e6);
    fprintf(stderr, "  %-22s %10s\n", "reads", io_name(stats.io));
    fprintf(stderr, "  %-22s %s\n", "build", layerline_build_info());
}

static bool run(const arguments *args, const layerline_plan *plan, layerline_model *model, layerline_session *session,
                layerline_sampler *sampler)
{
    watch w;
    progress p;
    pthread_t thread;
    layerline_error *error = NULL;
    layerline_status status;
    struct sigaction action;
    size_t count = 0;
    uint64_t sweeps;
    int32_t *prompt = tokenize_prompt(model, args->prompt, &count);
    if (prompt == NULL) {
        return false;
    }
    memset(&w, 0, sizeof w);
    w.model = model;
    w.session = session;
    w.terminal = isatty(STDERR_FILENO);
    w.reading = true;
    /* 256 tokens share one sweep by default; what is pinned is read once, what is streamed once a sweep. */
    sweeps = (count + 255) / 256;
    w.expected_bytes = plan->pinned_bytes + plan->streamed_bytes * sweeps;
    pthread_mutex_init(&w.lock, NULL);
    pthread_cond_init(&w.wake, NULL);

    /* Once only: a second Ctrl-C ends the program the usual way, should the first not help. */
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);

    if (pthread_create(&thread, NULL, watch_main, &w) != 0) {
        fprintf(stderr, "cannot start a thread\n");
        free(prompt);
        return false;
    }
    memset(&p, 0, sizeof p);
    p.watch = &w;
    p.prompt = args->prompt;
    p.start = seconds_now();
    status = layerline_session_generate(session, sampler, prompt, count, (size_t)args->tokens, on_token, &p, &error);
    watch_stop(&w, thread);
    pthread_cond_destroy(&w.wake);
    pthread_mutex_destroy(&w.lock);
    free(prompt);
    printf("\n");
    fflush(stdout);
    if (p.output_failed) {
        fprintf(stderr, "cannot write the text\n");
        layerline_error_free(error);
        return false;
    }
    if (interrupted) {
        fprintf(stderr, "interrupted\n");
        layerline_error_free(error);
    } else if (status == LAYERLINE_ERROR_CONTEXT_FULL) {
        /* The text so far is good; more would need a longer --context. */
        report("stopped", status, error);
    } else if (status != LAYERLINE_OK) {
        return report("generation failed", status, error);
    }
    print_table(model, plan, &p, count);
    return true;
}

int main(int argc, char **argv)
{
    arguments args;
    layerline_plan plan;
    layerline_options *options;
    layerline_model *model = NULL;
    layerline_session *session = NULL;
    layerline_sampler *sampler = NULL;
    layerline_error *error = NULL;
    layerline_status status;
    bool good = false;

    if (!parse_arguments(argc, argv, &args)) {
        return usage();
    }
    if (args.context == 0 && !args.plan_only) {
        args.context = context_for(args.prompt, args.tokens);
    }
    if (!make_plan(&args, &plan)) {
        return 1;
    }
    if (args.plan_only) {
        return print_plan(&plan, args.context);
    }
    options = options_of(&args);
    if (options == NULL) {
        return 1;
    }
    status = layerline_model_open(args.model, options, &model, &error);
    layerline_options_free(options);
    if (status != LAYERLINE_OK) {
        report("cannot open the model", status, error);
        return 1;
    }
    status = layerline_session_new(model, 0, &session, &error);
    if (status != LAYERLINE_OK) {
        report("cannot start a session", status, error);
    } else {
        sampler = make_sampler(&args);
        good = sampler != NULL && run(&args, &plan, model, session, sampler);
    }
    layerline_sampler_free(sampler);
    layerline_session_free(session);
    layerline_model_free(model);
    if (interrupted) {
        return 130;
    }
    return good ? 0 : 1;
}
