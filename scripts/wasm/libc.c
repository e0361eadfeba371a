/* What Rust's standard library expects of the C library of WASI and the one of 2022 does not have. None of it is called,
 * but for errno. */
#include <errno.h>
#include <stddef.h>

int *__errno_location(void)
{
    return &errno;
}

char *realpath(const char *path, char *resolved)
{
    (void)path, (void)resolved;
    errno = ENOSYS;
    return NULL;
}

int pthread_join(void *thread, void **result)
{
    (void)thread, (void)result;
    return ENOSYS;
}

int pthread_detach(void *thread)
{
    (void)thread;
    return ENOSYS;
}
