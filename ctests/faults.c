/* See faults.h. Linux with glibc: the names are those that a library built for files above 2 GiB calls. */
#define _GNU_SOURCE
#include "faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

const char *const fault_names[FAULT_KINDS] = { "open",    "stat",   "read",   "write",  "fsync", "rename",
                                               "mmap",    "madvise", "munmap", "thread", "socket" };

static atomic_int armed = -1, error_code, every;
static atomic_uint wanted, counted;

void fault_arm(enum fault_call call, unsigned nth, int code, int again)
{
    atomic_store(&counted, 0);
    atomic_store(&wanted, nth);
    atomic_store(&error_code, code);
    atomic_store(&every, again);
    atomic_store(&armed, (int)call);
}

unsigned fault_disarm(void)
{
    atomic_store(&armed, -1);
    return atomic_load(&counted);
}

/* Whether this call is to fail; errno is set then. */
static int fails(enum fault_call call)
{
    unsigned now, nth;
    if (atomic_load(&armed) != (int)call) {
        return 0;
    }
    now = atomic_fetch_add(&counted, 1) + 1;
    nth = atomic_load(&wanted);
    if (atomic_load(&every) ? now % nth != 0 : now != nth) {
        return 0;
    }
    errno = atomic_load(&error_code);
    return 1;
}

/* The C library's own function of this name. ISO C has no cast from an object's address to a function's. */
#define REAL(name, result, ...)                                                                                        \
    static result (*real)(__VA_ARGS__);                                                                                \
    if (real == NULL) {                                                                                                \
        *(void **)&real = dlsym(RTLD_NEXT, #name);                                                                     \
    }

static unsigned mode_of(int flags, va_list more)
{
    return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, unsigned) : 0;
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    unsigned mode;
    REAL(open64, int, const char *, int, ...)
    va_start(more, flags);
    mode = mode_of(flags, more);
    va_end(more);
    return fails(FAULT_OPEN) ? -1 : real(path, flags, mode);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found)
{
    REAL(statx, int, int, const char *, int, unsigned, struct statx *)
    return fails(FAULT_STAT) ? -1 : real(folder, path, flags, mask, found);
}

int fstat64(int file, struct stat64 *found)
{
    REAL(fstat64, int, int, struct stat64 *)
    return fails(FAULT_STAT) ? -1 : real(file, found);
}

ssize_t read(int file, void *bytes, size_t count)
{
    REAL(read, ssize_t, int, void *, size_t)
    return fails(FAULT_READ) ? -1 : real(file, bytes, count);
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t offset)
{
    REAL(pread64, ssize_t, int, void *, size_t, off64_t)
    return fails(FAULT_READ) ? -1 : real(file, bytes, count, offset);
}

ssize_t write(int file, const void *bytes, size_t count)
{
    REAL(write, ssize_t, int, const void *, size_t)
    return fails(FAULT_WRITE) ? -1 : real(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REAL(writev, ssize_t, int, const struct iovec *, int)
    return fails(FAULT_WRITE) ? -1 : real(file, parts, count);
}

int fsync(int file)
{
    REAL(fsync, int, int)
    return fails(FAULT_SYNC) ? -1 : real(file);
}

int fdatasync(int file)
{
    REAL(fdatasync, int, int)
    return fails(FAULT_SYNC) ? -1 : real(file);
}

int rename(const char *from, const char *to)
{
    REAL(rename, int, const char *, const char *)
    return fails(FAULT_RENAME) ? -1 : real(from, to);
}

void *mmap64(void *address, size_t size, int protection, int flags, int file, off64_t offset)
{
    REAL(mmap64, void *, void *, size_t, int, int, int, off64_t)
    return fails(FAULT_MMAP) ? MAP_FAILED : real(address, size, protection, flags, file, offset);
}

int madvise(void *address, size_t size, int advice)
{
    REAL(madvise, int, void *, size_t, int)
    return fails(FAULT_MADVISE) ? -1 : real(address, size, advice);
}

int munmap(void *address, size_t size)
{
    REAL(munmap, int, void *, size_t)
    return fails(FAULT_MUNMAP) ? -1 : real(address, size);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *), void *data)
{
    REAL(pthread_create, int, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)
    return fails(FAULT_THREAD) ? errno : real(thread, attributes, body, data);
}

int socketpair(int family, int kind, int protocol, int ends[2])
{
    REAL(socketpair, int, int, int, int, int *)
    return fails(FAULT_SOCKET) ? -1 : real(family, kind, protocol, ends);
}
