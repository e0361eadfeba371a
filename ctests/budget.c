/* What the kernel says of a process against what the library says of it: whatever is done, the process holds no more
 * than `used_bytes` and the tolerance, after every operation, and never more than the budget and twice that while one
 * runs, with what a
 * call holds for itself.
 *
 *   budget [MODEL]         MODEL: a GGUF file; without one, the small real model
 *   budget MODEL --limit   prints the largest budget that the program sets, for the limit of a memory cgroup
 *
 * LAYERLINE_TURNS    operations for each way of reading, 60 unless told
 * LAYERLINE_SEED     which operations, 1 unless told
 * LAYERLINE_WAYS     all: with buffered reads and two models too */
#define _XOPEN_SOURCE 700
#include "support.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS 4u
#define CONTEXT 64u
#define STACK_BYTES ((size_t)256 << 10)
/* What the process may hold beyond what the library says, for what it takes and gives back by the heap. */
#define TOLERANCE (UINT64_C(1) << 20)
/* What calls hold for themselves while they run: opening, which reads the metadata, most of all. */
#define CALLS (UINT64_C(1) << 20)
/* What the rows of all sessions may take beside what a session has anyway. */
#define ROOM (UINT64_C(48) << 20)

static layerline_model *models[2];
static unsigned model_count;
static layerline_session *sessions[SESSIONS];
static uint32_t vocab, layers, randomness;
static uint64_t baseline, least, most;
static char path[PATH_SIZE];

/* The largest excess and the largest shortfall that were seen. */
static int64_t worst = INT64_MIN;
static const char *worst_name = "nothing";

static pthread_mutex_t watch_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t watched_limit, watched_most;
static const char *running = "opening", *watched_name = "nothing";
static unsigned watched_samples;
static bool watch_ends;

static uint32_t below(uint32_t limit)
{
    randomness = randomness * 1664525u + 1013904223u;
    return (randomness >> 8) % limit;
}

/* Memory of this process that no file stands behind. */
static uint64_t anonymous_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    unsigned long long kib = 0;
    bool found = false;
    if (file == NULL) {
        return 0;
    }
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "Anonymous: %llu kB", &kib) == 1;
    }
    fclose(file);
    return found ? (uint64_t)kib * 1024 : 0;
}

static void pause_ms(long ms)
{
    struct timespec time;
    time.tv_sec = 0;
    time.tv_nsec = ms * 1000000;
    nanosleep(&time, NULL);
}

/* -- while operations run ------------------------------------------------------------------------------------------- */

static void *watch_main(void *data)
{
    bool end = false;
    (void)data;
    while (!end) {
        uint64_t limit, now;
        pthread_mutex_lock(&watch_lock);
        limit = watched_limit;
        pthread_mutex_unlock(&watch_lock);
        now = anonymous_bytes();
        pthread_mutex_lock(&watch_lock);
        /* A budget that fell meanwhile says nothing about what was seen. */
        if (limit == watched_limit && now > baseline && now - baseline > limit) {
            uint64_t over = now - baseline - limit;
            watched_name = over > watched_most ? running : watched_name;
            watched_most = over > watched_most ? over : watched_most;
        }
        watched_samples++;
        end = watch_ends;
        pthread_mutex_unlock(&watch_lock);
        pause_ms(2);
    }
    return NULL;
}

static void begin(const char *name)
{
    pthread_mutex_lock(&watch_lock);
    running = name;
    pthread_mutex_unlock(&watch_lock);
}

static void watch(uint64_t limit)
{
    pthread_mutex_lock(&watch_lock);
    watched_limit = limit;
    pthread_mutex_unlock(&watch_lock);
}

/* What is there before a model is opened counts for nobody: the C library keeps stacks of threads that have ended. */
static void begin_way(uint64_t limit)
{
    watch(UINT64_MAX);
    pthread_mutex_lock(&watch_lock);
    baseline = anonymous_bytes();
    watched_limit = limit;
    pthread_mutex_unlock(&watch_lock);
}

/* -- after each ----------------------------------------------------------------------------------------------------- */

static uint64_t used_bytes(void)
{
    uint64_t sum = 0;
    unsigned i;
    for (i = 0; i < model_count; i++) {
        sum += stats_of(models[i]).used_bytes;
    }
    return sum;
}

/* The two figures cannot be read at one moment, so a page that comes or goes in between is looked at again. So is what the
 * C library keeps of small memory that was freed: it is nobody's, and gathers over models opened and closed. */
static void compare(const char *name, unsigned turn)
{
    int64_t over = 0;
    unsigned tries;
    for (tries = 0; tries < 40; tries++) {
        const uint64_t before = used_bytes();
        const uint64_t held = anonymous_bytes();
        const uint64_t after = used_bytes();
        const uint64_t used = before > after ? before : after;
        over = (int64_t)held - (int64_t)baseline - (int64_t)used;
        if (over <= (int64_t)TOLERANCE) {
            break;
        }
#ifdef __GLIBC__
        malloc_trim(0);
#endif
        pause_ms(5);
    }
    if (over > worst) {
        worst = over;
        worst_name = name;
    }
    if (over > (int64_t)TOLERANCE) {
        fprintf(stderr, "turn %u, %s: %lld bytes more than used_bytes\n", turn, name, (long long)over);
        CHECK(over <= (int64_t)TOLERANCE);
    }
}

/* -- operations ----------------------------------------------------------------------------------------------------- */

/* The budget may refuse what it has no room for; nothing else may fail. */
static bool fits(layerline_status status)
{
    CHECK(status == LAYERLINE_OK || status == LAYERLINE_ERROR_MEMORY_BUDGET);
    return status == LAYERLINE_OK;
}

typedef struct runner {
    layerline_session *session;
    uint32_t count, seed;
    int32_t logits, embeddings;
} runner;

static void *run_main(void *data)
{
    const runner *it = data;
    int32_t tokens[CONTEXT];
    fill_tokens(tokens, it->count, vocab, it->seed);
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(it->session, 0, NULL));
    fits(layerline_session_forward(it->session, tokens, it->count, it->logits, it->embeddings, NULL));
    return NULL;
}

/* Rows of all tokens in several threads at once: large memory that comes and goes. */
static void run_together(void)
{
    static const uint32_t counts[SESSIONS] = { 31, 28, 17, 30 };
    pthread_t threads[SESSIONS];
    pthread_attr_t attributes;
    runner runners[SESSIONS];
    unsigned i;
    REQUIRE(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0);
    for (i = 0; i < SESSIONS; i++) {
        runners[i].session = sessions[i];
        runners[i].count = counts[i] - below(6);
        runners[i].seed = below(1000);
        runners[i].logits = LAYERLINE_LOGITS_ALL;
        runners[i].embeddings = below(2) == 0 ? LAYERLINE_EMBEDDINGS_ALL : LAYERLINE_EMBEDDINGS_NONE;
        if (sessions[i] != NULL) {
            REQUIRE(pthread_create(&threads[i], &attributes, run_main, &runners[i]) == 0);
        }
    }
    for (i = 0; i < SESSIONS; i++) {
        if (sessions[i] != NULL) {
            pthread_join(threads[i], NULL);
        }
    }
    pthread_attr_destroy(&attributes);
}

static void run_alone(void)
{
    runner it;
    it.session = sessions[below(SESSIONS)];
    it.count = 1 + below(30);
    it.seed = below(1000);
    it.logits = (int32_t)below(3);
    it.embeddings = (int32_t)below(4);
    if (it.session != NULL) {
        run_main(&it);
    }
}

static void open_or_free(void)
{
    const unsigned which = below(SESSIONS);
    if (sessions[which] != NULL) {
        layerline_session_free(sessions[which]);
        sessions[which] = NULL;
    } else {
        fits(layerline_session_new(models[which % model_count], 0, &sessions[which], NULL));
    }
}

static void change_budget(void)
{
    const uint64_t budget = least + (most - least) * below(4) / 3;
    /* With the larger of the two until memory has gone back. */
    if (budget + TOLERANCE > watched_limit) {
        watch(budget + TOLERANCE + CALLS);
    }
    if (model_count == 1 && fits(layerline_model_set_memory_budget(models[0], budget, NULL))) {
        unsigned tries;
        for (tries = 0; tries < 2000 && used_bytes() > budget; tries++) {
            pause_ms(1);
        }
        CHECK(used_bytes() <= budget);
        watch(budget + TOLERANCE + CALLS);
    }
}

static void generate(void)
{
    layerline_session *session = sessions[below(SESSIONS)];
    layerline_sampler *sampler = layerline_sampler_new();
    int32_t prompt[8];
    REQUIRE(sampler != NULL);
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_temperature(sampler, 0.9f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_top_p(sampler, 0.95f));
    CHECK_STATUS(LAYERLINE_OK, layerline_sampler_set_repeat_penalty(sampler, 1.1f, 64));
    fill_tokens(prompt, 8, vocab, below(1000));
    if (session != NULL) {
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
        fits(layerline_session_generate(session, sampler, prompt, 8, 4, go_on, NULL, NULL));
    }
    layerline_sampler_free(sampler);
}

static void copy_one(void)
{
    layerline_session *session = sessions[below(SESSIONS)], *copy = NULL;
    if (session != NULL && fits(layerline_session_copy(session, 0, &copy, NULL))) {
        compare("a copy", 0);
        layerline_session_free(copy);
    }
}

static void save_and_load(void)
{
    layerline_session *from = sessions[below(SESSIONS)], *to = sessions[below(SESSIONS)];
    if (from != NULL && to != NULL) {
        CHECK_STATUS(LAYERLINE_OK, layerline_session_save(from, path, NULL));
        fits(layerline_session_load(to, path, NULL));
    }
}

static void go_back(void)
{
    layerline_session *session = sessions[below(SESSIONS)];
    layerline_checkpoint *checkpoint = NULL;
    int32_t tokens[8];
    if (session == NULL || position_of(session) + 8 > CONTEXT) {
        return;
    }
    if (fits(layerline_session_checkpoint(session, &checkpoint, NULL))) {
        fill_tokens(tokens, 8, vocab, 3);
        fits(layerline_session_forward(session, tokens, 8, LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE, NULL));
        compare("a checkpoint", 0);
        CHECK_STATUS(LAYERLINE_OK, layerline_session_restore(session, checkpoint, NULL));
        layerline_checkpoint_free(checkpoint);
    }
}

static void wait_for(layerline_model *model, uint64_t ticket)
{
    bool done = false;
    while (!done) {
        layerline_event events[8];
        size_t count = 0, i;
        REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_wait(model, 60000, events, 8, &count, NULL)) && count > 0);
        for (i = 0; i < count; i++) {
            done |= events[i].kind == LAYERLINE_EVENT_DONE && events[i].ticket == ticket;
        }
    }
}

static void prefetch(void)
{
    const uint32_t first = below(layers), count = 1 + below(layers - first);
    uint64_t ticket = 0;
    CHECK_STATUS(LAYERLINE_OK, layerline_model_prefetch(models[0], first, count, &ticket, NULL));
    wait_for(models[0], ticket);
}

static void submit(void)
{
    const unsigned which = below(SESSIONS);
    layerline_session *session = sessions[which];
    int32_t tokens[32];
    uint64_t ticket = 0;
    if (session == NULL) {
        return;
    }
    fill_tokens(tokens, 32, vocab, below(1000));
    CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(session, 0, NULL));
    if (fits(layerline_session_submit(session, tokens, 1 + below(32), LAYERLINE_LOGITS_ALL, LAYERLINE_EMBEDDINGS_NONE,
                                      &ticket, NULL))) {
        wait_for(models[which % model_count], ticket);
    }
}

/* The call's own memory has gone when it returns. */
static void tokenize(void)
{
    static char text[200000];
    size_t length = 1 + below((uint32_t)sizeof text - 1), needed = 0, i;
    layerline_status status;
    for (i = 0; i < length; i++) {
        text[i] = below(9) == 0 ? ' ' : (char)('a' + below(26));
    }
    status = layerline_model_tokenize(models[0], text, length, 0, NULL, 0, &needed, NULL);
    CHECK(status == LAYERLINE_ERROR_BUFFER_TOO_SMALL || status == LAYERLINE_OK);
}

static const struct {
    const char *name;
    void (*run)(void);
} operations[] = {
    { "rows of all tokens, in threads", run_together }, { "a pass", run_alone },
    { "a session opened or freed", open_or_free },      { "another budget", change_budget },
    { "generation", generate },                         { "a copy freed", copy_one },
    { "saving and loading", save_and_load },            { "going back", go_back },
    { "a prefetch", prefetch },                         { "a submitted pass", submit },
    { "tokenising", tokenize },
};

static unsigned from_environment(const char *name, unsigned fallback)
{
    const char *value = getenv(name);
    return value != NULL ? (unsigned)strtoul(value, NULL, 10) : fallback;
}

static void turns(const char *what)
{
    const unsigned count = from_environment("LAYERLINE_TURNS", 60);
    unsigned turn, i;
    compare("opening", 0);
    for (i = 0; i < SESSIONS; i++) {
        fits(layerline_session_new(models[i % model_count], 0, &sessions[i], NULL));
        compare("a new session", 0);
    }
    for (turn = 0; turn < count; turn++) {
        /* The first ones are what has once gone wrong. */
        const uint32_t which = turn < 2 ? turn : below((uint32_t)(sizeof operations / sizeof *operations));
        begin(operations[which].name);
        operations[which].run();
        compare(operations[which].name, turn);
    }
    begin("closing, or opening");
    for (i = 0; i < SESSIONS; i++) {
        layerline_session_free(sessions[i]);
        sessions[i] = NULL;
        compare("a session freed", count);
    }
    for (i = 0; i < model_count; i++) {
        layerline_model_free(models[i]);
    }
    model_count = 0;
    compare("closing", count);
    printf("%s: %u operations, at most %lld KiB more than used_bytes (%s)\n", what, count, (long long)worst / 1024, worst_name);
}

int main(int argc, char **argv)
{
    const char *model = argc > 1 ? argv[1] : real_model();
    static const struct {
        int32_t io;
        const char *name;
    } ways[] = { { LAYERLINE_IO_AUTO, "automatic" }, { LAYERLINE_IO_BUFFERED, "buffered" } };
    const char *parent = getenv("TMPDIR"), *wanted = getenv("LAYERLINE_WAYS");
    const bool all = wanted != NULL && strcmp(wanted, "all") == 0;
    settings s = { 0 };
    layerline_plan plan;
    uint64_t shared;
    pthread_t watcher;
    unsigned i;

    if (model == NULL) {
        printf("the small model is not fetched\n");
        return CHECK_SKIP;
    }
    s.context = CONTEXT;
    s.threads = 2;
    s.budget = UINT64_C(1) << 40;
    plan = plan_of(model, &s);
    /* One session is in the floor. */
    least = plan.floor_bytes + (SESSIONS - 1) * plan.kv_bytes;
    most = least + ROOM;
    shared = 2 * most - ROOM;
    if (argc > 2) {
        printf("%llu\n", (unsigned long long)(all && shared > most ? shared : most));
        return check_result();
    }
    if (anonymous_bytes() == 0) {
        printf("this system has no /proc/self/smaps_rollup\n");
        return CHECK_SKIP;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(path, sizeof path, "%.500s/layerline-budget-%ld", parent != NULL && parent[0] != '\0' ? parent : "/tmp",
             (long)getpid());
    randomness = from_environment("LAYERLINE_SEED", 1);

    watch(UINT64_MAX);
    REQUIRE(pthread_create(&watcher, NULL, watch_main, NULL) == 0);
    /* What the library sets up once, before it is measured. */
    s.budget = most;
    layerline_model_free(open_model(data_path(TINY_MODEL), &s));
    for (i = 0; i < (all ? sizeof ways / sizeof *ways : 1); i++) {
        s.io = ways[i].io;
        begin_way(most + TOLERANCE + CALLS);
        models[model_count++] = open_model(model, &s);
        vocab = info_of(models[0]).vocab_size;
        layers = info_of(models[0]).layer_count;
        turns(ways[i].name);
    }
    /* Two models on one budget: what one gives back the other may take. */
    if (all) {
        layerline_budget *budget = layerline_budget_new(shared);
        layerline_options *options;
        s.io = LAYERLINE_IO_AUTO;
        options = make_options(&s);
        REQUIRE(budget != NULL);
        CHECK_STATUS(LAYERLINE_OK, layerline_options_set_shared_budget(options, budget));
        begin_way(shared + TOLERANCE + CALLS);
        for (i = 0; i < 2; i++) {
            REQUIRE(CHECK_STATUS(LAYERLINE_OK, layerline_model_open(model, options, &models[i], NULL)));
            model_count++;
        }
        layerline_options_free(options);
        layerline_budget_free(budget);
        turns("two models");
    }
    pthread_mutex_lock(&watch_lock);
    watch_ends = true;
    pthread_mutex_unlock(&watch_lock);
    pthread_join(watcher, NULL);
    printf("meanwhile: %u looks, at most %llu KiB above what is allowed (%s)\n", watched_samples,
           (unsigned long long)watched_most / 1024, watched_name);
    CHECK(watched_samples > 10 && watched_most == 0);
    remove(path);
    return check_result();
}
