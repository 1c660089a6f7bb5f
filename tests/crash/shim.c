/* A disk that fails: loaded before libc into a program under test (LD_PRELOAD).
 *
 * Calls on files whose path contains SHIM_MATCH obey the file SHIM_CTL, which is read at each call and holds lines
 * "word number": fsync_ms (wait), fsync_errno and write_errno (fail), write_partial (take so many bytes at most, and
 * after the first such write fail if write_errno is set, too). The first failure makes the file SHIM_CTL.hit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int torn;

static int concerns(int descriptor) {
    char link[64], path[4096];
    const char *match = getenv("SHIM_MATCH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!match || length <= 0)
        return 0;
    path[length] = 0;
    return strstr(path, match) != NULL;
}

static long setting(const char *word) {
    char text[512];
    const char *control = getenv("SHIM_CTL");
    int file = control ? (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return 0;
    ssize_t length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[length > 0 ? length : 0] = 0;
    char *found = strstr(text, word);
    return found ? atol(found + strlen(word)) : 0;
}

static int fail(long number) {
    char path[4096];
    snprintf(path, sizeof path, "%s.hit", getenv("SHIM_CTL"));
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0)
        syscall(SYS_close, file);
    errno = (int)number;
    return -1;
}

/* Returns -1 when the write must fail, else how many bytes it may take. */
static ssize_t allowed(int descriptor, size_t count) {
    if (!concerns(descriptor))
        return (ssize_t)count;
    long number = setting("write_errno "), partial = setting("write_partial ");
    if (number && (!partial || torn))
        return fail(number);
    if (!partial || (size_t)partial >= count)
        return (ssize_t)count;
    torn = 1;
    return partial;
}

ssize_t write(int descriptor, const void *data, size_t count) {
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    ssize_t some = allowed(descriptor, count);
    return some < 0 ? -1 : next(descriptor, data, (size_t)some);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset) {
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (!next)
        next = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    ssize_t some = allowed(descriptor, count);
    return some < 0 ? -1 : next(descriptor, data, (size_t)some, offset);
}

static int synced(int descriptor, int (*next)(int)) {
    if (concerns(descriptor)) {
        long ms = setting("fsync_ms "), number = setting("fsync_errno ");
        struct timespec wait = {ms / 1000, ms % 1000 * 1000000};
        if (ms)
            nanosleep(&wait, NULL);
        if (number)
            return fail(number);
    }
    return next(descriptor);
}

int fsync(int descriptor) {
    static int (*next)(int);
    if (!next)
        next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return synced(descriptor, next);
}

int fdatasync(int descriptor) {
    static int (*next)(int);
    if (!next)
        next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return synced(descriptor, next);
}
