/* Threads that run passes, save, load, open and close while signals interrupt their system calls: the bits stay right, and
 * neither memory nor descriptors grow.
 *
 * LAYERLINE_SECONDS   how long, 3 unless told */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define PROMPT 24
#define NEXT 6
#define TOLERANCE (1024L * 1024)

typedef struct worker {
    pthread_t thread;
    layerline_model *model;
    layerline_session *session;
    char path[PATH_SIZE];
    unsigned long passes;
} worker;

static worker workers[WORKERS];
static int32_t tokens[PROMPT + NEXT];
static float *expected[2];
static size_t vocab;
static settings common;
static volatile sig_atomic_t signals;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool stop;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static bool stopped(void)
{
    bool now;
    pthread_mutex_lock(&lock);
    now = stop;
    pthread_mutex_unlock(&lock);
    return now;
}

static layerline_status run(layerline_session *session, size_t from, size_t count)
{
    return layerline_session_forward(session, tokens + from, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE,
                                     NULL);
}

static void *work(void *data)
{
    worker *it = data;
    unsigned turn = 0;
    while (!stopped()) {
        CHECK_STATUS(LAYERLINE_OK, layerline_session_truncate(it->session, 0, NULL));
        CHECK_STATUS(LAYERLINE_OK, run(it->session, 0, PROMPT));
        CHECK(same_logits(it->session, 0, expected[0], vocab));
        if (turn % 8 == 0) {
            CHECK_STATUS(LAYERLINE_OK, layerline_session_save(it->session, it->path, NULL));
            CHECK_STATUS(LAYERLINE_OK, layerline_session_load(it->session, it->path, NULL));
        }
        CHECK_STATUS(LAYERLINE_OK, run(it->session, PROMPT, NEXT));
        CHECK(same_logits(it->session, 0, expected[1], vocab));
        pthread_mutex_lock(&lock);
        it->passes += 2;
        pthread_mutex_unlock(&lock);
        if (turn % 8 == 7) {
            layerline_session_free(it->session);
            layerline_model_free(it->model);
            it->model = open_model(data_path(TINY_MODEL), &common);
            it->session = new_session(it->model, 0);
        }
        turn++;
    }
    return NULL;
}

/* Each worker has opened its model anew a few times: what is set up once is there. */
static bool warm(void)
{
    bool all = true;
    unsigned i;
    pthread_mutex_lock(&lock);
    for (i = 0; i < WORKERS; i++) {
        all &= workers[i].passes >= 4 * 16;
    }
    pthread_mutex_unlock(&lock);
    return all;
}

static unsigned open_descriptors(void)
{
    DIR *entries = opendir("/proc/self/fd");
    unsigned count = 0;
    if (entries == NULL) {
        return 0;
    }
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count;
}

/* Memory that no file stands behind; 0 where the system does not say. */
static long anonymous_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long kib = 0;
    if (file == NULL) {
        return 0;
    }
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "Anonymous: %ld kB", &kib) != 1) {
    }
    fclose(file);
    return kib * 1024;
}

/* What is the most of several looks, because workers open and close meanwhile. */
static void look(long *memory, unsigned *descriptors)
{
    const struct timespec moment = { 0, 2000000 };
    unsigned i;
    *memory = 0;
    *descriptors = 0;
    for (i = 0; i < 50; i++) {
        const long now = anonymous_bytes();
        const unsigned open_now = open_descriptors();
        *memory = now > *memory ? now : *memory;
        *descriptors = open_now > *descriptors ? open_now : *descriptors;
        nanosleep(&moment, NULL);
    }
}

static void storm(double seconds)
{
    struct timespec begin, now;
    const struct timespec moment = { 0, 100000 };
    unsigned turn = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        /* To each worker in turn, and to whichever thread the system takes: the library's own too. */
        pthread_kill(workers[turn % WORKERS].thread, SIGUSR1);
        kill(getpid(), SIGUSR2);
        nanosleep(&moment, NULL);
        turn++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9 < seconds);
}

int main(void)
{
    const char *parent = getenv("TMPDIR"), *told = getenv("LAYERLINE_SECONDS");
    const double seconds = told != NULL ? strtod(told, NULL) : 3;
    struct sigaction action;
    unsigned long passes = 0;
    unsigned i, descriptors[2];
    long memory[2];
    layerline_plan plan;

    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* without SA_RESTART */
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    fill_tokens(tokens, PROMPT + NEXT, TINY_VOCAB, 21);
    common.context = 64;
    common.threads = 2;
    plan = plan_of(data_path(TINY_MODEL), &common);
    /* Weights are read while passes run, and there is room to load a state. */
    common.budget = plan.floor_bytes + plan.kv_bytes;
    for (i = 0; i < WORKERS; i++) {
        snprintf(workers[i].path, PATH_SIZE, "%.500s/layerline-storm-%ld-%u",
                 parent != NULL && parent[0] != '\0' ? parent : "/tmp", (long)getpid(), i);
        workers[i].model = open_model(data_path(TINY_MODEL), &common);
        workers[i].session = new_session(workers[i].model, 0);
    }
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, run(workers[0].session, 0, PROMPT)));
    expected[0] = copy_logits(workers[0].session, 0, &vocab);
    REQUIRE(CHECK_STATUS(LAYERLINE_OK, run(workers[0].session, PROMPT, NEXT)));
    expected[1] = copy_logits(workers[0].session, 0, &vocab);
    for (i = 0; i < WORKERS; i++) {
        REQUIRE(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    do {
        storm(seconds / 4);
    } while (!warm());
    look(&memory[0], &descriptors[0]);
    storm(seconds * 3 / 4);
    look(&memory[1], &descriptors[1]);
    pthread_mutex_lock(&lock);
    stop = true;
    pthread_mutex_unlock(&lock);
    for (i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        passes += workers[i].passes;
        layerline_session_free(workers[i].session);
        layerline_model_free(workers[i].model);
        remove(workers[i].path);
    }
    printf("%lu passes, %ld signals, memory %ld then %ld KiB, descriptors %u then %u\n", passes, (long)signals,
           memory[0] / 1024, memory[1] / 1024, descriptors[0], descriptors[1]);
    CHECK(passes > 0 && signals > 0);
#ifndef __SANITIZE_ADDRESS__
    /* The sanitizer keeps what is freed, to find who still uses it. */
    CHECK(memory[1] <= memory[0] + TOLERANCE);
#endif
    CHECK(descriptors[1] <= descriptors[0] + 2 * WORKERS);
    free(expected[0]);
    free(expected[1]);
    return check_result();
}
