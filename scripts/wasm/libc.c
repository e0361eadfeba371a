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

int pthread_create(void *thread, const void *attributes, void *(*start)(void *), void *argument)
{
    (void)thread, (void)attributes, (void)start, (void)argument;
    return ENOSYS;
}

int pthread_attr_init(void *attributes)
{
    (void)attributes;
    return ENOSYS;
}

int pthread_attr_setstacksize(void *attributes, size_t size)
{
    (void)attributes, (void)size;
    return ENOSYS;
}

int pthread_attr_destroy(void *attributes)
{
    (void)attributes;
    return ENOSYS;
}
