/* A conversation in the terminal, by the model's own chat template, inside a memory budget.
 *
 *     chat MODEL [--system TEXT] [--budget 400MiB|33%] [--context N] [--tokens 1024] [--threads N]
 *          [--temperature 0.7] [--seed N]
 *
 * Each line of stdin is a message; the answer goes to stdout as it comes, everything else to stderr. Ctrl-C stops an
 * answer, not the program. When the context is full the oldest turns are forgotten, never the system message.
 *
 *     /stats           what the last answer took        /reset   forgets the conversation
 *     /system [TEXT]   another system message, or none  /quit    ends it, as the end of the input does
 */
#define _POSIX_C_SOURCE 200809L
#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

typedef struct arguments {
    const char *model, *system, *budget_text;
    uint64_t budget, context, tokens, threads, seed;
    float temperature;
} arguments;

typedef struct tokens {
    int32_t *at;
    size_t count, room;
} tokens;

typedef struct text {
    char *at; /* ends in a NUL */
    size_t length, room;
} text;

typedef struct chat {
    layerline_model *model;
    layerline_session *session;
    layerline_sampler *sampler;
    layerline_message *said; /* the strings are ours */
    size_t count, room;
    size_t context;
    uint64_t most; /* tokens of one answer */
    tokens fed;    /* what the session holds */
    tokens prompt; /* the conversation, then the answer so far */
    size_t asked;  /* tokens of it that are the conversation */
    text answer;
    uint64_t answered; /* tokens of the answer */
    bool output_failed, full;
    /* Of the last answer, for /stats. */
    size_t last_prompt, last_reused;
    uint64_t last_answered, forgotten;
    double start, first, last; /* seconds */
} chat;

/* -- Ctrl-C: the handler writes to a pipe, which a signal handler may; a thread reads it and interrupts the session,
 * which takes a lock and so must not be done in a handler. ---------------------------------------------------------- */

static volatile sig_atomic_t interrupted = 0;
static int signals[2];

static void on_interrupt(int signal_number)
{
    int saved = errno;
    ssize_t written = write(signals[1], "", 1);
    (void)written;
    (void)signal_number;
    interrupted = 1;
    errno = saved;
}

static void *interrupt_main(void *session)
{
    char byte;
    ssize_t count;
    do {
        count = read(signals[0], &byte, 1);
        if (count == 1) {
            layerline_session_interrupt(session);
        }
    } while (count == 1 || (count < 0 && errno == EINTR));
    return NULL;
}

static bool watch_interrupts(pthread_t *thread, layerline_session *session)
{
    struct sigaction action;
    sigset_t all, before;
    int failed;
    if (pipe(signals) != 0) {
        fprintf(stderr, "cannot make a pipe: %s\n", strerror(errno));
        return false;
    }
    /* The signal is to interrupt the thread that reads lines, so the other one does not take it. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(thread, NULL, interrupt_main, session);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        fprintf(stderr, "cannot start a thread\n");
        return false;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, NULL);
    return true;
}

static void stop_watching(pthread_t thread)
{
    signal(SIGINT, SIG_DFL);
    close(signals[1]); /* the thread reads the end */
    pthread_join(thread, NULL);
    close(signals[0]);
}

/* -- what is said ---------------------------------------------------------------------------------------------------- */

static void out_of_memory(void)
{
    fprintf(stderr, "out of memory\n");
    exit(1);
}

static void *grown(void *at, size_t count, size_t size)
{
    at = realloc(at, count * size);
    if (at == NULL) {
        out_of_memory();
    }
    return at;
}

static char *copy_of(const char *string)
{
    return memcpy(grown(NULL, strlen(string) + 1, 1), string, strlen(string) + 1);
}

static void add_token(tokens *list, int32_t token)
{
    if (list->count == list->room) {
        list->room = list->room * 2 + 64;
        list->at = grown(list->at, list->room, sizeof *list->at);
    }
    list->at[list->count++] = token;
}

static void add_text(text *to, const char *piece, size_t length)
{
    if (to->length + length + 1 > to->room) {
        to->room = (to->length + length) * 2 + 64;
        to->at = grown(to->at, to->room, 1);
    }
    memcpy(to->at + to->length, piece, length);
    to->length += length;
    to->at[to->length] = '\0';
}

static void say(chat *c, const char *role, const char *content)
{
    if (c->count == c->room) {
        c->room = c->room * 2 + 16;
        c->said = grown(c->said, c->room, sizeof *c->said);
    }
    c->said[c->count].role = role; /* a constant */
    c->said[c->count++].content = copy_of(content);
}

static void unsay(chat *c, size_t first, size_t count)
{
    size_t i;
    for (i = first; i < first + count; i++) {
        free((char *)c->said[i].content);
    }
    memmove(c->said + first, c->said + first + count, (c->count - first - count) * sizeof *c->said);
    c->count -= count;
}

static size_t first_turn(const chat *c)
{
    return c->count > 0 && strcmp(c->said[0].role, "system") == 0;
}

/* Forgets the oldest question and its answer; false: there is only the question of now. */
static bool forget_a_turn(chat *c)
{
    size_t first = first_turn(c), end = first + 1;
    while (end < c->count && strcmp(c->said[end].role, "user") != 0) {
        end++;
    }
    if (end >= c->count) {
        return false;
    }
    unsay(c, first, end - first);
    c->forgotten++;
    return true;
}

static void set_system(chat *c, const char *content)
{
    if (first_turn(c)) {
        unsay(c, 0, 1);
    }
    if (content[0] != '\0') {
        say(c, "system", content);
        if (c->count > 1) {
            layerline_message system = c->said[c->count - 1];
            memmove(c->said + 1, c->said, (c->count - 1) * sizeof *c->said);
            c->said[0] = system;
        }
    }
}

/* -- answers --------------------------------------------------------------------------------------------------------- */

/* The conversation as tokens, in which nothing that anybody says becomes a control token. */
static bool tokenize_conversation(chat *c)
{
    layerline_error *error = NULL;
    size_t needed = 0;
    layerline_status status =
        layerline_model_tokenize_chat(c->model, c->said, c->count, true, c->prompt.at, c->prompt.room, &needed, &error);
    if (status == LAYERLINE_ERROR_BUFFER_TOO_SMALL) {
        layerline_error_free(error);
        c->prompt.room = needed + 256;
        c->prompt.at = grown(c->prompt.at, c->prompt.room, sizeof *c->prompt.at);
        status = layerline_model_tokenize_chat(c->model, c->said, c->count, true, c->prompt.at, c->prompt.room, &needed,
                                               &error);
    }
    c->prompt.count = c->asked = needed;
    return status == LAYERLINE_OK || report("cannot use the conversation", status, error);
}

/* The conversation and what has been answered, with as many turns as leave room for `least` tokens more. */
static bool make_prompt(chat *c, size_t least)
{
    tokens answered = { NULL, 0, 0 };
    size_t i;
    bool good;
    for (i = c->asked; i < c->prompt.count; i++) {
        add_token(&answered, c->prompt.at[i]);
    }
    do {
        good = tokenize_conversation(c);
    } while (good && c->asked + answered.count + least > c->context && forget_a_turn(c));
    if (good && c->asked + answered.count + 1 > c->context) {
        c->full = true;
        good = false;
    }
    for (i = 0; good && i < answered.count; i++) {
        add_token(&c->prompt, answered.at[i]);
    }
    free(answered.at);
    return good;
}

static bool on_token(int32_t token, const char *piece, size_t length, void *user_data)
{
    chat *c = user_data;
    c->last = seconds_now();
    if (c->answered++ == 0) {
        c->first = c->last;
    }
    add_token(&c->prompt, token);
    add_text(&c->answer, piece, length);
    fwrite(piece, 1, length, stdout);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        c->output_failed = true;
        return false;
    }
    return !interrupted && c->answered < c->most;
}

/* Feeds what the session does not hold yet of the prompt, and generates. The common beginning is not computed again. */
static layerline_status generate(chat *c, layerline_error **error)
{
    layerline_status status;
    size_t same = 0;
    layerline_session_info info;
    while (same < c->fed.count && same + 1 < c->prompt.count && c->fed.at[same] == c->prompt.at[same]) {
        same++;
    }
    status = layerline_session_truncate(c->session, same, NULL);
    if (status == LAYERLINE_ERROR_INVALID_ARGUMENT) {
        /* Layers with a sliding window have dropped what goes on from there: all of it is run again. */
        same = 0;
        status = layerline_session_truncate(c->session, 0, NULL);
    }
    if (status != LAYERLINE_OK) {
        return status;
    }
    if (c->answered == 0) {
        c->last_prompt = c->prompt.count;
        c->last_reused = same;
    }
    status = layerline_session_generate(c->session, c->sampler, c->prompt.at + same, c->prompt.count - same,
                                (size_t)(c->most - c->answered), on_token, c, error);
    /* All that was sampled stands in the prompt by now; the session holds some of it. */
    c->fed.count = 0;
    info.struct_size = (uint32_t)sizeof info;
    if (layerline_session_get_info(c->session, &info, NULL) == LAYERLINE_OK) {
        size_t i;
        for (i = 0; i < info.position && i < c->prompt.count; i++) {
            add_token(&c->fed, c->prompt.at[i]);
        }
    }
    return status;
}

/* Answers what was said last. False ends the program. */
static bool answer(chat *c)
{
    layerline_error *error = NULL;
    layerline_status status = LAYERLINE_ERROR_CONTEXT_FULL;
    interrupted = 0;
    c->full = false;
    c->answered = 0;
    c->answer.length = 0;
    add_text(&c->answer, "", 0);
    c->prompt.count = c->asked = 0;
    c->start = seconds_now();
    /* A quarter of the context for the answer, as long as there are turns to forget; a longer one forgets more. */
    while (status == LAYERLINE_ERROR_CONTEXT_FULL && c->answered < c->most && make_prompt(c, c->context / 4)) {
        status = generate(c, &error);
        if (status == LAYERLINE_ERROR_CONTEXT_FULL) {
            layerline_error_free(error);
            error = NULL;
        }
    }
    c->last_answered = c->answered;
    if (c->answered > 0) {
        printf("\n");
        fflush(stdout);
    }
    if (c->output_failed) {
        fprintf(stderr, "cannot write the answer\n");
        layerline_error_free(error);
        return false;
    }
    if (c->full) {
        fprintf(stderr, "the context of %zu tokens is full; --context N makes it longer\n", c->context);
    }
    if (interrupted) {
        fprintf(stderr, "interrupted\n");
    } else if (status != LAYERLINE_OK && status != LAYERLINE_ERROR_CONTEXT_FULL) {
        report("the answer failed", status, error);
        error = NULL;
    }
    layerline_error_free(error);
    if (c->answer.length > 0) {
        say(c, "assistant", c->answer.at);
    } else {
        unsay(c, c->count - 1, 1); /* templates want questions and answers in turn */
    }
    return true;
}

static void print_stats(const chat *c)
{
    layerline_stats stats;
    double prompt_seconds = c->first - c->start, decode_seconds = c->last - c->first;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = (uint32_t)sizeof stats;
    if (layerline_model_get_stats(c->model, &stats, NULL) != LAYERLINE_OK) {
        return;
    }
    fprintf(stderr, "  %-20s %zu messages, %zu of %zu tokens, %" PRIu64 " turns forgotten\n", "conversation", c->count,
            c->fed.count, c->context, c->forgotten);
    fprintf(stderr, "  %-20s %10.1f MiB, peak %.1f\n", "budget", mebibytes(stats.budget_bytes),
            mebibytes(stats.peak_bytes));
    fprintf(stderr, "  %-20s %10.1f MiB in all, %s\n", "read", mebibytes(stats.read_bytes), io_name(stats.io));
    if (c->last_answered > 0) {
        fprintf(stderr, "  %-20s %10.1f tokens/s  (%zu tokens, %zu of them held already)\n", "prompt",
                (double)(c->last_prompt - c->last_reused) / prompt_seconds, c->last_prompt, c->last_reused);
    }
    if (c->last_answered > 1) {
        fprintf(stderr, "  %-20s %10.1f tokens/s  (%" PRIu64 " tokens)\n", "answer",
                (double)(c->last_answered - 1) / decode_seconds, c->last_answered);
    }
}

/* -- the terminal ---------------------------------------------------------------------------------------------------- */

/* One line, a command or a message. False: the conversation is over. */
static bool take_line(chat *c, char *line)
{
    if (strcmp(line, "/quit") == 0) {
        return false;
    }
    if (strcmp(line, "/stats") == 0) {
        print_stats(c);
    } else if (strcmp(line, "/reset") == 0) {
        size_t first = first_turn(c);
        unsay(c, first, c->count - first);
    } else if (strcmp(line, "/system") == 0 || strncmp(line, "/system ", 8) == 0) {
        set_system(c, line[7] == ' ' ? line + 8 : "");
    } else if (line[0] == '/') {
        fprintf(stderr, "/stats, /reset, /system [TEXT], /quit\n");
    } else if (line[0] != '\0') {
        say(c, "user", line);
        return answer(c);
    }
    return true;
}

static void converse(chat *c)
{
    bool terminal = isatty(STDIN_FILENO) != 0, going_on = true;
    char *line = NULL;
    size_t room = 0;
    while (going_on) {
        ssize_t length;
        if (terminal) {
            fprintf(stderr, "> ");
        }
        errno = 0;
        interrupted = 0;
        length = getline(&line, &room, stdin);
        if (length < 0 && errno == EINTR) {
            clearerr(stdin);
            fprintf(stderr, "\n/quit or Ctrl-D ends the conversation\n");
            continue;
        }
        if (length < 0) {
            break;
        }
        if (length > 0 && line[length - 1] == '\n') {
            line[length - 1] = '\0';
        }
        going_on = take_line(c, line);
    }
    free(line);
}

static bool parse_arguments(int argc, char **argv, arguments *args)
{
    int i;
    memset(args, 0, sizeof *args);
    args->tokens = 1024;
    args->temperature = 0.7f;
    if (argc < 2 || argc % 2 != 0) {
        return false;
    }
    args->model = argv[1];
    for (i = 2; i < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        bool good = true;
        if (strcmp(name, "--system") == 0) {
            args->system = value;
        } else if (strcmp(name, "--budget") == 0) {
            args->budget_text = value;
        } else if (strcmp(name, "--context") == 0) {
            good = parse_number(value, 16, UINT32_MAX, &args->context);
        } else if (strcmp(name, "--tokens") == 0) {
            good = parse_number(value, 1, UINT32_MAX, &args->tokens);
        } else if (strcmp(name, "--threads") == 0) {
            good = parse_number(value, 0, UINT32_MAX, &args->threads);
        } else if (strcmp(name, "--seed") == 0) {
            good = parse_number(value, 0, UINT64_MAX, &args->seed);
        } else if (strcmp(name, "--temperature") == 0) {
            good = parse_float(value, &args->temperature);
        } else {
            good = false;
        }
        if (!good) {
            fprintf(stderr, "%s: unknown, or cannot use \"%s\"\n", name, value);
            return false;
        }
    }
    return true;
}

static layerline_options *options_of(const arguments *args)
{
    return make_options(args->budget, (uint32_t)args->context, (uint32_t)args->threads, true, LAYERLINE_IO_AUTO);
}

static bool open_chat(chat *c, arguments *args)
{
    layerline_error *error = NULL;
    layerline_model_info info;
    layerline_options *options;
    layerline_plan plan;
    layerline_status status;
    if (!plan_with(args->model, options_of(args), &plan) ||
        (args->budget_text != NULL && !parse_budget(args->budget_text, plan.file_bytes, &args->budget))) {
        return false;
    }
    options = options_of(args);
    if (options == NULL) {
        return false;
    }
    status = layerline_model_open(args->model, options, &c->model, &error);
    layerline_options_free(options);
    if (status != LAYERLINE_OK) {
        return report("cannot open the model", status, error);
    }
    status = layerline_session_new(c->model, 0, &c->session, &error);
    if (status != LAYERLINE_OK) {
        return report("cannot start a session", status, error);
    }
    memset(&info, 0, sizeof info);
    info.struct_size = (uint32_t)sizeof info;
    if (layerline_model_get_info(c->model, &info, NULL) != LAYERLINE_OK) {
        return false;
    }
    /* What the library takes where nothing is asked for. */
    c->context = args->context != 0 ? (size_t)args->context : info.context_length < 4096 ? info.context_length : 4096;
    c->most = args->tokens;
    c->sampler = layerline_sampler_new();
    if (c->sampler == NULL) {
        out_of_memory();
    }
    if (layerline_sampler_set_temperature(c->sampler, args->temperature) != LAYERLINE_OK ||
        layerline_sampler_set_top_p(c->sampler, 0.95f) != LAYERLINE_OK ||
        layerline_sampler_set_seed(c->sampler, args->seed) != LAYERLINE_OK) {
        fprintf(stderr, "--temperature: cannot use %g\n", (double)args->temperature);
        return false;
    }
    if (args->system != NULL) {
        set_system(c, args->system);
    }
    /* A model without a template is told of now, not after the first question. */
    say(c, "user", "Hello");
    if (!tokenize_conversation(c)) {
        return false;
    }
    unsay(c, c->count - 1, 1);
    return true;
}

int main(int argc, char **argv)
{
    arguments args;
    chat c;
    pthread_t thread;
    bool good;
    if (!parse_arguments(argc, argv, &args)) {
        fprintf(stderr, "usage: chat MODEL [--system TEXT] [--budget BYTES|KiB|MiB|GiB|%%] [--context N] [--tokens N]\n"
                        "            [--threads N] [--temperature T] [--seed S]\n");
        return 2;
    }
    memset(&c, 0, sizeof c);
    good = open_chat(&c, &args) && watch_interrupts(&thread, c.session);
    if (good) {
        converse(&c);
        stop_watching(thread);
        good = !c.output_failed;
    }
    unsay(&c, 0, c.count);
    free(c.said);
    free(c.fed.at);
    free(c.prompt.at);
    free(c.answer.at);
    layerline_session_free(c.session);
    layerline_sampler_free(c.sampler);
    layerline_model_free(c.model);
    return good ? 0 : 1;
}
