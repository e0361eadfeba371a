/* Saving where it cannot succeed, and where the process is killed in the middle of it: what had the name before is there
 * whole, or what was saved is, and nothing else stays in the folder.
 *
 * LAYERLINE_KILLS   how many processes are killed while they save, 12 unless told */
#define _XOPEN_SOURCE 700
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/mount.h>
#endif

#define STATES 2u
#define NEXT 4u

/* Two states of different lengths, and what comes after each. */
static const size_t lengths[STATES] = { 20, 40 };
static int32_t tokens[64], next[NEXT];
static layerline_session *sessions[STATES], *other;
static float *expected[STATES];
static size_t vocab;
static char folder[PATH_SIZE / 4], path[PATH_SIZE / 2], away[PATH_SIZE / 2];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool stop;

static void pause_us(long us)
{
    struct timespec time;
    time.tv_sec = us / 1000000;
    time.tv_nsec = us % 1000000 * 1000;
    nanosleep(&time, NULL);
}

static layerline_status run(layerline_session *session, const int32_t *ids, size_t count)
{
    return layerline_session_forward(session, ids, count, LAYERLINE_LOGITS_LAST, LAYERLINE_EMBEDDINGS_NONE, NULL);
}

static layerline_model *open_with_states(void)
{
    settings s = { 0 };
    layerline_model *model;
    unsigned i;
    fill_tokens(tokens, 64, TINY_VOCAB, 11);
    fill_tokens(next, NEXT, TINY_VOCAB, 12);
    s.context = 64;
    s.threads = 1;
    s.budget = UINT64_C(1) << 32;
    model = open_model(data_path(TINY_MODEL), &s);
    for (i = 0; i < STATES; i++) {
        sessions[i] = new_session(model, 0);
        REQUIRE(CHECK_STATUS(LAYERLINE_OK, run(sessions[i], tokens, lengths[i])));
    }
    return model;
}

/* Files in the folder; `left` counts those that a save has left half done. */
static unsigned files(unsigned *left)
{
    DIR *entries = opendir(folder);
    const struct dirent *entry;
    unsigned all = 0;
    *left = 0;
    REQUIRE(entries != NULL);
    while ((entry = readdir(entries)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            all++;
            *left += strncmp(entry->d_name, ".layerline-", 11) == 0;
        }
    }
    closedir(entries);
    return all;
}

/* The file holds one of the two states, and going on from it gives the right bits. */
static bool is_whole(void)
{
    unsigned i;
    if (!CHECK_STATUS(LAYERLINE_OK, layerline_session_load(other, path, NULL))) {
        return false;
    }
    for (i = 0; i < STATES; i++) {
        if (position_of(other) == lengths[i]) {
            return CHECK_STATUS(LAYERLINE_OK, run(other, next, NEXT)) && same_logits(other, 0, expected[i], vocab);
        }
    }
    return false;
}

static void save(unsigned which)
{
    layerline_error *err;
    CHECK_OK(err, layerline_session_save(sessions[which], path, &err));
}

/* A save that must fail with IO, and leave the first state where it was and nothing beside it. */
static void fails(const char *why, const char *where)
{
    layerline_error *err;
    unsigned left;
    if (!CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(sessions[1], where, &err))) {
        fprintf(stderr, "%s\n", why);
    }
    CHECK(is_whole() && position_of(other) == lengths[0] + NEXT);
    CHECK(files(&left) == 1 && left == 0);
}

/* -- failures ------------------------------------------------------------------------------------------------------- */

static void no_room_in_files(void)
{
    struct rlimit before, small;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    signal(SIGXFSZ, SIG_IGN);
    small = before;
    small.rlim_cur = 4096;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    fails("files may have 4096 bytes", path);
    REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
}

static void no_such_place(void)
{
    static char under[PATH_SIZE], missing[PATH_SIZE];
    snprintf(under, sizeof under, "%s/below", path);
    fails("a folder that is a file", under);
    snprintf(missing, sizeof missing, "%s-missing/state", folder);
    fails("a folder that is not there", missing);
    fails("a name that is a folder", folder);
    fails("a device", "/dev/full");
}

#ifdef __linux__
static size_t size_of_state(unsigned which)
{
    size_t size = 0;
    CHECK_STATUS(LAYERLINE_ERROR_BUFFER_TOO_SMALL, layerline_session_save_buffer(sessions[which], NULL, 0, &size, NULL));
    return size;
}
#endif

/* A file system without room for the second state, where the process may mount one. */
static void no_room_on_the_device(void)
{
#ifdef __linux__
    static char full[PATH_SIZE], state[PATH_SIZE + 8];
    char options[64];
    layerline_error *err;
    size_t size = 0, needs[STATES];
    struct stat found;
    unsigned char *before;
    snprintf(full, sizeof full, "%s-full", folder);
    REQUIRE(mkdir(full, 0700) == 0);
    needs[0] = size_of_state(0);
    needs[1] = size_of_state(1);
    snprintf(options, sizeof options, "size=%lu", (unsigned long)(needs[0] + needs[1] / 2));
    if (mount("tmpfs", full, "tmpfs", 0, options) != 0) {
        rmdir(full);
        printf("a full device is not tried: %s\n", strerror(errno));
        return;
    }
    snprintf(state, sizeof state, "%s/state", full);
    CHECK_OK(err, layerline_session_save(sessions[0], state, &err));
    before = read_file(state, &size);
    CHECK_ERROR(LAYERLINE_ERROR_IO, err, layerline_session_save(sessions[1], state, &err));
    {
        size_t again = 0;
        unsigned char *after = read_file(state, &again);
        CHECK(again == size && memcmp(before, after, size) == 0);
        free(after);
    }
    CHECK(stat(state, &found) == 0);
    free(before);
    remove(state);
    CHECK(umount(full) == 0 && rmdir(full) == 0);
#endif
}

/* A link stays one, and what it leads to is written. */
static void through_a_link(void)
{
    static char link[PATH_SIZE];
    struct stat found;
    layerline_error *err;
    unsigned left;
    snprintf(link, sizeof link, "%s-link", folder);
    REQUIRE(symlink(path, link) == 0);
    CHECK_OK(err, layerline_session_save(sessions[1], link, &err));
    CHECK(lstat(link, &found) == 0 && S_ISLNK(found.st_mode));
    CHECK(is_whole() && position_of(other) == lengths[1] + NEXT);
    CHECK(files(&left) == 1 && left == 0);
    save(0);
    CHECK(remove(link) == 0);
}

static bool stopped(void)
{
    bool now;
    pthread_mutex_lock(&lock);
    now = stop;
    pthread_mutex_unlock(&lock);
    return now;
}

/* Takes the folder away and brings it back. */
static void *folder_main(void *data)
{
    (void)data;
    while (!stopped()) {
        pause_us(4000);
        CHECK(rename(folder, away) == 0);
        pause_us(4000);
        CHECK(rename(away, folder) == 0);
    }
    return NULL;
}

/* Puts a folder where the file was. */
static void *name_main(void *data)
{
    (void)data;
    while (!stopped()) {
        pause_us(3000);
        unlink(path);
        if (mkdir(path, 0700) == 0) {
            pause_us(3000);
            CHECK(rmdir(path) == 0);
        }
    }
    return NULL;
}

/* Saves while another thread is at the folder: what fails says so, and what succeeds is the state. */
static void disturbed(void *(*body)(void *), unsigned count)
{
    pthread_t thread;
    unsigned i, failed = 0, left;
    stop = false;
    REQUIRE(pthread_create(&thread, NULL, body, NULL) == 0);
    for (i = 0; i < count; i++) {
        const layerline_status status = layerline_session_save(sessions[i % STATES], path, NULL);
        CHECK(status == LAYERLINE_OK || status == LAYERLINE_ERROR_IO);
        if (status != LAYERLINE_OK) {
            failed++;
            pause_us(1500);
        }
    }
    pthread_mutex_lock(&lock);
    stop = true;
    pthread_mutex_unlock(&lock);
    pthread_join(thread, NULL);
    save(0);
    CHECK(is_whole() && position_of(other) == lengths[0] + NEXT);
    CHECK(files(&left) == 1 && left == 0);
    printf("%u of %u saves failed\n", failed, count);
}

/* -- kills ---------------------------------------------------------------------------------------------------------- */

/* Saves one state after the other until it is killed. */
static int saving_main(const char *where)
{
    unsigned i;
    open_with_states();
    for (i = 0;; i++) {
        if (layerline_session_save(sessions[i % STATES], where, NULL) != LAYERLINE_OK) {
            return EXIT_FAILURE;
        }
        if (i == 0 && write(STDOUT_FILENO, "!", 1) != 1) {
            return EXIT_FAILURE;
        }
    }
}

static void kill_while_saving(const char *program, unsigned count)
{
    unsigned i, left, most = 0;
    for (i = 0; i < count; i++) {
        int ends[2], status = 0;
        char ready;
        pid_t child;
        REQUIRE(pipe(ends) == 0);
        child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            dup2(ends[1], STDOUT_FILENO);
            close(ends[0]);
            close(ends[1]);
            execl(program, program, "save", path, (char *)NULL);
            _exit(127);
        }
        close(ends[1]);
        CHECK(read(ends[0], &ready, 1) == 1);
        close(ends[0]);
        pause_us((long)(i * 7919 % 6000));
        CHECK(kill(child, SIGKILL) == 0);
        REQUIRE(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        CHECK(is_whole());
        files(&left);
        /* Each save removes what the one before has left. */
        CHECK(left <= 1);
        most = left > most ? left : most;
    }
    save(0);
    CHECK(files(&left) == 1 && left == 0);
    printf("%u processes killed, at most %u file left by one\n", count, most);
}

int main(int argc, char **argv)
{
    const char *parent = getenv("TMPDIR"), *kills = getenv("LAYERLINE_KILLS");
    layerline_model *model;
    unsigned i;

    if (argc == 3) {
        return saving_main(argv[2]);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(folder, sizeof folder, "%.500s/layerline-saving-%ld", parent != NULL && parent[0] != '\0' ? parent : "/tmp",
             (long)getpid());
    snprintf(path, sizeof path, "%s/state", folder);
    snprintf(away, sizeof away, "%s-away", folder);
    REQUIRE(mkdir(folder, 0700) == 0);
    model = open_with_states();
    other = new_session(model, 0);
    for (i = 0; i < STATES; i++) {
        layerline_session *session = NULL;
        layerline_error *err;
        REQUIRE_OK(err, layerline_session_copy(sessions[i], 0, &session, &err));
        REQUIRE(CHECK_STATUS(LAYERLINE_OK, run(session, next, NEXT)));
        expected[i] = copy_logits(session, 0, &vocab);
        layerline_session_free(session);
    }
    save(0);
    CHECK(is_whole());
    no_room_in_files();
    no_such_place();
    no_room_on_the_device();
    through_a_link();
    disturbed(folder_main, 60);
    disturbed(name_main, 60);
    kill_while_saving(argv[0], kills != NULL ? (unsigned)strtoul(kills, NULL, 10) : 12);

    for (i = 0; i < STATES; i++) {
        free(expected[i]);
        layerline_session_free(sessions[i]);
    }
    layerline_session_free(other);
    layerline_model_free(model);
    CHECK(remove(path) == 0 && rmdir(folder) == 0);
    return check_result();
}
