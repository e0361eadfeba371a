/* One thread, one poll() loop: a clock ticks every 10 ms, keys are read, and a model larger than its budget generates
 * text in between. Nothing here ever waits for weights or arithmetic: each token is a submitted pass, and the model's
 * descriptor says when it is done.
 *
 *     eventloop MODEL PROMPT [--budget floor|400MiB|33%] [--tokens 64] [--threads N] [--tick 10]
 *
 * q and return ends it early. The text goes to stdout, everything else to stderr. Without --budget it is the least that
 * works.
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <poll.h>
#include <unistd.h>

typedef struct arguments {
    const char *model, *prompt, *budget_text;
    uint64_t budget, threads, tokens, tick_ms;
} arguments;

/* Everything that the loop knows. */
typedef struct program {
    layerline_model *model;
    layerline_session *session;
    layerline_sampler *sampler;
    int32_t *tokens; /* the prompt, then what was generated */
    size_t count, prompt_count, most;
    char *text; /* of all tokens */
    size_t text_room, text_shown;
    uint64_t ticket; /* of the pass under way; 0: none */
    bool stopping, failed;
    uint64_t ticks;
    double longest_gap, longest_handling, prompt_seconds, decode_seconds; /* seconds */
} program;

static int usage(void)
{
    fprintf(stderr,
            "usage: eventloop MODEL PROMPT [--budget floor|BYTES|KiB|MiB|GiB|%%] [--tokens N] [--threads N] [--tick MS]\n");
    return 2;
}

static bool parse_arguments(int argc, char **argv, arguments *args)
{
    int i;
    memset(args, 0, sizeof *args);
    args->budget_text = "floor";
    args->tokens = 64;
    args->tick_ms = 10;
    if (argc < 3) {
        return false;
    }
    args->model = argv[1];
    args->prompt = argv[2];
    for (i = 3; i < argc; i += 2) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        bool good = value != NULL;
        if (good && strcmp(name, "--budget") == 0) {
            args->budget_text = value;
        } else if (good && strcmp(name, "--tokens") == 0) {
            good = parse_number(value, 1, UINT32_MAX, &args->tokens);
        } else if (good && strcmp(name, "--threads") == 0) {
            good = parse_number(value, 0, UINT32_MAX, &args->threads);
        } else if (good && strcmp(name, "--tick") == 0) {
            good = parse_number(value, 1, 1000, &args->tick_ms);
        } else {
            good = false;
        }
        if (!good) {
            fprintf(stderr, "%s: unknown, or its value is missing or wrong\n", name);
            return false;
        }
    }
    return true;
}

static layerline_options *options_of(const arguments *args)
{
    return make_options(args->budget, context_for(args->prompt, args->tokens), (uint32_t)args->threads, true,
                        LAYERLINE_IO_AUTO);
}

static bool find_budget(arguments *args, layerline_plan *plan)
{
    if (!plan_with(args->model, options_of(args), plan)) {
        return false;
    }
    if (strcmp(args->budget_text, "floor") == 0) {
        args->budget = plan->floor_bytes;
        return true;
    }
    return parse_budget(args->budget_text, plan->file_bytes, &args->budget);
}

static bool open_all(program *p, const arguments *args)
{
    layerline_error *error = NULL;
    layerline_status status;
    int32_t *longer;
    layerline_options *options = options_of(args);
    if (options == NULL) {
        return false;
    }
    status = layerline_model_open(args->model, options, &p->model, &error);
    layerline_options_free(options);
    if (status != LAYERLINE_OK) {
        return report("cannot open the model", status, error);
    }
    status = layerline_session_new(p->model, 0, &p->session, &error);
    if (status != LAYERLINE_OK) {
        return report("cannot start a session", status, error);
    }
    p->sampler = layerline_sampler_new();
    p->tokens = tokenize_prompt(p->model, args->prompt, &p->prompt_count);
    if (p->sampler == NULL || p->tokens == NULL) {
        return false;
    }
    p->count = p->prompt_count;
    p->most = p->count + (size_t)args->tokens;
    longer = realloc(p->tokens, p->most * sizeof *longer);
    if (longer == NULL) {
        fprintf(stderr, "out of memory\n");
        return false;
    }
    p->tokens = longer;
    return true;
}

/* Writes what the text has become longer by. */
static bool show_text(program *p)
{
    size_t needed = 0;
    layerline_status status =
        layerline_model_detokenize(p->model, p->tokens, p->count, p->text, p->text_room, &needed, NULL);
    if (status == LAYERLINE_ERROR_BUFFER_TOO_SMALL) {
        char *larger = realloc(p->text, needed * 2);
        if (larger == NULL) {
            fprintf(stderr, "out of memory\n");
            return false;
        }
        p->text = larger;
        p->text_room = needed * 2;
        status = layerline_model_detokenize(p->model, p->tokens, p->count, p->text, p->text_room, &needed, NULL);
    }
    if (status != LAYERLINE_OK) {
        return report("cannot turn tokens into text", status, NULL);
    }
    if (needed > p->text_shown) {
        fwrite(p->text + p->text_shown, 1, needed - p->text_shown, stdout);
        p->text_shown = needed;
    }
    if (fflush(stdout) != 0) {
        fprintf(stderr, "cannot write the text\n");
        return false;
    }
    return true;
}

static bool submit(program *p, const int32_t *tokens, size_t count)
{
    layerline_error *error = NULL;
    layerline_status status =
        layerline_session_submit(p->session, tokens, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                 &p->ticket, &error);
    return status == LAYERLINE_OK || report("cannot submit a pass", status, error);
}

/* A pass is done: chooses the next token and submits it. False: nothing more is to be done. */
static bool go_on(program *p, const layerline_event *event)
{
    layerline_status status;
    int32_t token = 0;
    bool end = false, first = p->count == p->prompt_count;
    *(first ? &p->prompt_seconds : &p->decode_seconds) += (double)event->elapsed_ns / 1e9;
    p->ticket = 0;
    if (event->status == LAYERLINE_ERROR_CANCELLED && p->stopping) {
        return false;
    }
    status = event->status;
    if (status == LAYERLINE_OK) {
        status = layerline_sampler_sample(p->sampler, p->session, &token, NULL);
    }
    if (status == LAYERLINE_OK) {
        status = layerline_model_token_is_end(p->model, token, &end, NULL);
    }
    if (status != LAYERLINE_OK) {
        p->failed = true;
        return report("a pass failed", status, NULL);
    }
    if (end || p->stopping) {
        return false;
    }
    p->tokens[p->count++] = token;
    if (!show_text(p)) {
        p->failed = true;
        return false;
    }
    if (p->count == p->most) {
        return false;
    }
    p->failed = !submit(p, &p->tokens[p->count - 1], 1);
    return !p->failed;
}

/* Takes all events that wait. False: nothing more is to be done. */
static bool take_events(program *p)
{
    layerline_event events[8];
    size_t count = 0, i;
    do {
        if (layerline_model_poll(p->model, events, sizeof events / sizeof events[0], &count, NULL) != LAYERLINE_OK) {
            p->failed = true;
            return false;
        }
        for (i = 0; i < count; i++) {
            if (events[i].kind == LAYERLINE_EVENT_DONE && events[i].ticket == p->ticket && !go_on(p, &events[i])) {
                return false;
            }
        }
    } while (count > 0);
    return true;
}

static void read_keys(program *p, struct pollfd *keys)
{
    char typed[64];
    ssize_t count = read(keys->fd, typed, sizeof typed);
    if (count <= 0) {
        keys->fd = -1; /* poll() passes over it from now on */
    } else if (memchr(typed, 'q', (size_t)count) != NULL && !p->stopping) {
        p->stopping = true;
        layerline_session_interrupt(p->session);
    }
}

static void run(program *p, const arguments *args)
{
    enum { MODEL, KEYS, SOURCES };
    struct pollfd sources[SOURCES];
    double tick = (double)args->tick_ms / 1e3, last_tick = seconds_now(), next_tick = last_tick + tick;
    bool running = true;
    memset(sources, 0, sizeof sources);
    sources[MODEL].fd = (int)layerline_model_event_handle(p->model);
    sources[KEYS].fd = STDIN_FILENO;
    sources[MODEL].events = sources[KEYS].events = POLLIN;
    if (sources[MODEL].fd < 0) {
        fprintf(stderr, "this system has no descriptor for events\n");
        p->failed = true;
        return;
    }
    if (!show_text(p) || !submit(p, p->tokens, p->count)) {
        p->failed = true;
        return;
    }
    while (running) {
        double now = seconds_now(), handling;
        double wait = next_tick > now ? (next_tick - now) * 1e3 : 0.0;
        if (poll(sources, SOURCES, (int)wait + (wait > (double)(int)wait)) < 0 && errno != EINTR) {
            fprintf(stderr, "poll: %s\n", strerror(errno));
            p->failed = true;
            break;
        }
        handling = now = seconds_now();
        if (now >= next_tick) { /* a frame is drawn, a sound is mixed, a packet is sent: here it is only counted */
            double gap = now - last_tick;
            p->longest_gap = gap > p->longest_gap ? gap : p->longest_gap;
            p->ticks++;
            last_tick = now;
            next_tick = now + tick;
        }
        if ((sources[KEYS].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
            read_keys(p, &sources[KEYS]);
        }
        if ((sources[MODEL].revents & POLLIN) != 0) {
            running = take_events(p);
            handling = seconds_now() - handling;
            p->longest_handling = handling > p->longest_handling ? handling : p->longest_handling;
        }
        sources[MODEL].revents = sources[KEYS].revents = 0;
    }
}

static void summary(const program *p, const arguments *args, const layerline_plan *plan)
{
    layerline_stats stats;
    size_t generated = p->count - p->prompt_count;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    if (layerline_model_get_stats(p->model, &stats, NULL) != LAYERLINE_OK) {
        return;
    }
    fprintf(stderr, "\n  %-28s %10.1f MiB of a file of %.1f MiB\n", "budget", mebibytes(stats.budget_bytes),
            mebibytes(plan->file_bytes));
    fprintf(stderr, "  %-28s %10.1f MiB\n", "peak", mebibytes(stats.peak_bytes));
    fprintf(stderr, "  %-28s %10" PRIu64 "\n", "ticks", p->ticks);
    fprintf(stderr, "  %-28s %10.1f ms, asked for every %" PRIu64 " ms\n", "longest gap between ticks",
            p->longest_gap * 1e3, args->tick_ms);
    fprintf(stderr, "  %-28s %10.1f ms (take, sample, print, submit)\n", "longest handling of an event",
            p->longest_handling * 1e3);
    fprintf(stderr, "  %-28s %10.1f tokens/s  (%zu tokens)\n", "prompt",
            p->prompt_seconds > 0 ? (double)p->prompt_count / p->prompt_seconds : 0.0, p->prompt_count);
    if (generated > 1 && p->decode_seconds > 0) {
        fprintf(stderr, "  %-28s %10.1f tokens/s  (%zu tokens)\n", "decode",
                (double)(generated - 1) / p->decode_seconds, generated);
    }
    fprintf(stderr, "  %-28s %10" PRIu64 " of %" PRIu64 " layers, %.1f ms in %" PRIu64 " passes\n", "stalled",
            stats.layers_stalled, stats.layers_stalled + stats.layers_prefetched + stats.layers_resident,
            (double)stats.stall_ns / 1e6, stats.passes);
    fprintf(stderr, "  %-28s %10.1f MiB, %s\n", "read", mebibytes(stats.read_bytes), io_name(stats.io));
}

int main(int argc, char **argv)
{
    arguments args;
    layerline_plan plan;
    program p;
    if (!parse_arguments(argc, argv, &args)) {
        return usage();
    }
    if (!find_budget(&args, &plan)) {
        return 1;
    }
    memset(&p, 0, sizeof p);
    p.failed = !open_all(&p, &args);
    if (!p.failed) {
        run(&p, &args);
        printf("\n");
        fflush(stdout);
        summary(&p, &args, &plan);
    }
    layerline_session_free(p.session); /* also with a pass under way */
    layerline_sampler_free(p.sampler);
    layerline_model_free(p.model);
    free(p.tokens);
    free(p.text);
    return p.failed ? 1 : 0;
}
