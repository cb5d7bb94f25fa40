/*
 * fault.c: an LD_PRELOAD library that makes the file system fail on purpose, and a few calls of
 * libraries.
 *
 * CKPT_FAULT is a comma-separated list of rules:
 *     pwrite:ENOSPC:40        the 40th matching call fails; later ones work
 *     pwrite:ENOSPC:40+       the 40th and all later ones fail
 *     write:kill:12           the process is killed (SIGKILL) just before the 12th write
 *     write:stop:12           it stops itself (SIGSTOP) there, until somebody lets it go on
 *     read:hang:12            the 12th read does not come back, as from a server that is away,
 *                             before there is a file CKPT_FAULT_GATE
 *     short-read:SEED         every read returns a random part, at least one byte
 *     short-write:SEED        every write takes a random part, at least one byte
 * Calls: read, write (each with all of pread, preadv, readv, their 64 twins; or one of them by
 * its own name: pread covers pread and preadv, pwrite covers pwrite and pwritev, copy is
 * copy_file_range), fsync (also fdatasync), ftruncate (also fallocate), rename, open, close, mmap.
 * A close that fails closes. stdio writes past this library: the tools write data without it.
 * About no file: prctl, poll (curl_multi_poll, out of memory), append (curl_slist_append), digest
 * (EVP_DigestInit_ex), getline (of standard input).
 * CKPT_FAULT_PATH: only files whose path contains this text. Standard streams are never touched.
 * CKPT_FAULT_LOG: append one line for each injected fault to this file, so that a test can see
 * that its fault happened.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RULE_MAX = 16, CALL_BYTES = 16, KILL = 0, STOP = -1, HANG = -2 };

typedef struct {
    char call[CALL_BYTES];
    int error;          /* or KILL, STOP, HANG */
    uint64_t at;
    int for_good;
    uint64_t seen;
} fault_rule;

static fault_rule rules[RULE_MAX];
static size_t rule_count;
static uint64_t short_reads;     /* state of the random numbers; 0: off */
static uint64_t short_writes;
static const char *only_path;
static const char *log_path;
static const char *gate;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const struct {
    const char *name;
    int error;
} ERRORS[] = {
    { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EINTR", EINTR },
    { "EACCES", EACCES }, { "EROFS", EROFS }, { "EFBIG", EFBIG }, { "EMFILE", EMFILE },
    { "ENOMEM", ENOMEM }, { "ESTALE", ESTALE }, { "EXDEV", EXDEV }, { "EAGAIN", EAGAIN },
    { "EOPNOTSUPP", EOPNOTSUPP }, { "EINVAL", EINVAL }, { "kill", KILL },
    { "hang", HANG },
    { "stop", STOP },
};

static const char *const CALLS[] = {
    "read", "pread", "readv", "write", "pwrite", "writev", "copy", "fsync", "ftruncate",
    "fallocate", "rename", "open", "close", "mmap", "prctl", "poll", "append", "digest",
    "getline",
};

/* A wrong rule must not look like a program that survived its fault. */
static void refuse(const char *rule)
{
    fprintf(stderr, "fault.so: cannot read rule '%s'\n", rule);
    _exit(99);
}

static int error_named(const char *name, const char *rule)
{
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (strcmp(ERRORS[i].name, name) == 0)
            return ERRORS[i].error;
    refuse(rule);
    return 0;
}

static int is_call(const char *name)
{
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
        if (strcmp(CALLS[i], name) == 0)
            return 1;
    return 0;
}

static void add_rule(const char *text)
{
    fault_rule *rule = &rules[rule_count];
    char error[CALL_BYTES];
    char plus = 0;
    unsigned long long at;

    if (sscanf(text, "short-read:%llu", &at) == 1) {
        short_reads = at * 2 + 1;
    } else if (sscanf(text, "short-write:%llu", &at) == 1) {
        short_writes = at * 2 + 1;
    } else {
        if (rule_count == RULE_MAX ||
            sscanf(text, "%15[a-z]:%15[A-Za-z]:%llu%c", rule->call, error, &at, &plus) < 3 ||
            !is_call(rule->call) || at == 0 || (plus != 0 && plus != '+'))
            refuse(text);
        rule->error = error_named(error, text);
        rule->at = at;
        rule->for_good = plus == '+';
        rule_count++;
    }
}

static void read_rules(void)
{
    const char *text = getenv("CKPT_FAULT");
    char rule[64];

    only_path = getenv("CKPT_FAULT_PATH");
    log_path = getenv("CKPT_FAULT_LOG");
    gate = getenv("CKPT_FAULT_GATE");
    while (text != NULL && *text != '\0') {
        const size_t size = strcspn(text, ",");

        snprintf(rule, sizeof rule, "%.*s", (int)size, text);
        add_rule(rule);
        text += size + (text[size] == ',');
    }
}

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);

    if (function == NULL) {
        fprintf(stderr, "fault.so: no %s\n", name);
        _exit(99);
    }
    return function;
}

/* `REAL(pread)(fd, ...)`: the C library's own function. */
#define REAL(name) ((__typeof__(&name))real(#name))

static int path_matches(int fd)
{
    char link[64];
    char path[4096];
    ssize_t size;

    if (fd >= 0 && fd <= 2)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((size = readlink(link, path, sizeof path - 1)) <= 0)
        return 0;
    path[size] = '\0';
    /* Pipes and sockets ("pipe:[1]") are not files, and not ours to break. */
    return path[0] == '/' && strncmp(path, "/dev/", 5) != 0 && strncmp(path, "/proc/", 6) != 0 &&
           (only_path == NULL || strstr(path, only_path) != NULL);
}

static void log_fault(const fault_rule *rule)
{
    char line[96];
    int fd;

    if (log_path == NULL || (fd = REAL(open)(log_path, O_WRONLY | O_CREAT | O_APPEND, 0666)) < 0)
        return;
    snprintf(line, sizeof line, "%.15s %s at %llu\n", rule->call,
             rule->error > 0      ? strerrorname_np(rule->error)
             : rule->error == KILL ? "kill"
             : rule->error == STOP ? "stop"
                                   : "hang",
             (unsigned long long)rule->seen);
    if (REAL(write)(fd, line, strlen(line)) < 0)
        _exit(99);
    REAL(close)(fd);
}

/* 1, with errno set, when a call known under these names must fail now. `family` may be NULL. */
static int fails(const char *call, const char *family)
{
    int error = 0;
    int stops = 0;
    int hangs = 0;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < rule_count; i++) {
        fault_rule *rule = &rules[i];

        if (strcmp(rule->call, call) != 0 &&
            (family == NULL || strcmp(rule->call, family) != 0))
            continue;
        rule->seen++;
        if (rule->seen != rule->at && !(rule->for_good && rule->seen > rule->at))
            continue;
        log_fault(rule);
        if (rule->error == KILL)
            kill(getpid(), SIGKILL);
        if (rule->error == STOP)
            stops = 1;
        else if (rule->error == HANG)
            hangs = 1;
        else
            error = rule->error;
    }
    pthread_mutex_unlock(&lock);
    if (stops)
        raise(SIGSTOP);
    while (hangs && (gate == NULL || access(gate, F_OK) != 0))
        usleep(1000);
    if (error > 0)
        errno = error;
    return error > 0;
}

static int fd_fails(int fd, const char *call, const char *family)
{
    pthread_once(&once, read_rules);
    return rule_count > 0 && path_matches(fd) && fails(call, family);
}

static int path_fails(const char *path, const char *call)
{
    pthread_once(&once, read_rules);
    if (rule_count == 0 || strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/dev/", 5) == 0)
        return 0;
    return (only_path == NULL || strstr(path, only_path) != NULL) && fails(call, NULL);
}

/* The same for a name below an open folder. */
static int path_below_fails(int folder, const char *name, const char *call)
{
    char link[64];
    char path[4096];
    ssize_t size;

    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    if (name[0] == '/' || folder < 0 || (size = readlink(link, path, sizeof path / 2)) <= 0)
        return path_fails(name, call);
    snprintf(path + size, sizeof path - (size_t)size, "/%s", name);
    return path_fails(path, call);
}

/* How much of `size` bytes this call may move. */
static size_t shortened(int fd, uint64_t *state, size_t size)
{
    uint64_t random;

    pthread_once(&once, read_rules);
    if (*state == 0 || size < 2 || !path_matches(fd))
        return size;
    pthread_mutex_lock(&lock);
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    random = *state >> 33;
    pthread_mutex_unlock(&lock);
    /* Half of the time a few bytes, so that ends fall inside elements and headers. */
    return 1 + (size_t)(random / 2 % ((random & 1) != 0 || size < 16 ? size : 15));
}

#define EXPORT __attribute__((visibility("default")))

/* ---- reads and writes: the same wrapper for every member of the two families ---- */

#define WRAP(name, call, family, state, parameters, arguments)                                    \
    EXPORT ssize_t name parameters                                                                \
    {                                                                                             \
        if (fd_fails(fd, call, family))                                                           \
            return -1;                                                                            \
        size = shortened(fd, &state, size);                                                       \
        return REAL(name) arguments;                                                              \
    }
/* A shortened vector call moves a part of its first piece. */
#define WRAP_VECTOR(name, call, family, state, parameters, arguments)                             \
    EXPORT ssize_t name parameters                                                                \
    {                                                                                             \
        struct iovec first;                                                                       \
                                                                                                  \
        if (fd_fails(fd, call, family))                                                           \
            return -1;                                                                            \
        if (count > 0 && pieces[0].iov_len > 1 && state != 0 && path_matches(fd)) {               \
            first = pieces[0];                                                                    \
            first.iov_len = shortened(fd, &state, first.iov_len);                                 \
            pieces = &first;                                                                      \
            count = 1;                                                                            \
        }                                                                                         \
        return REAL(name) arguments;                                                              \
    }
#define PIECES int fd, const struct iovec *pieces, int count

WRAP(read, "read", NULL, short_reads, (int fd, void *data, size_t size), (fd, data, size))
WRAP(pread, "pread", "read", short_reads, (int fd, void *data, size_t size, off_t offset),
     (fd, data, size, offset))
WRAP(pread64, "pread", "read", short_reads, (int fd, void *data, size_t size, off64_t offset),
     (fd, data, size, offset))
WRAP_VECTOR(readv, "readv", "read", short_reads, (PIECES), (fd, pieces, count))
WRAP_VECTOR(preadv, "pread", "read", short_reads, (PIECES, off_t offset),
            (fd, pieces, count, offset))
WRAP_VECTOR(preadv64, "pread", "read", short_reads, (PIECES, off64_t offset),
            (fd, pieces, count, offset))
WRAP_VECTOR(preadv2, "pread", "read", short_reads, (PIECES, off_t offset, int flags),
            (fd, pieces, count, offset, flags))
WRAP_VECTOR(preadv64v2, "pread", "read", short_reads, (PIECES, off64_t offset, int flags),
            (fd, pieces, count, offset, flags))
WRAP(write, "write", NULL, short_writes, (int fd, const void *data, size_t size),
     (fd, data, size))
WRAP(pwrite, "pwrite", "write", short_writes,
     (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset))
WRAP(pwrite64, "pwrite", "write", short_writes,
     (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset))
WRAP_VECTOR(writev, "writev", "write", short_writes, (PIECES), (fd, pieces, count))
WRAP_VECTOR(pwritev, "pwrite", "write", short_writes, (PIECES, off_t offset),
            (fd, pieces, count, offset))
WRAP_VECTOR(pwritev64, "pwrite", "write", short_writes, (PIECES, off64_t offset),
            (fd, pieces, count, offset))
WRAP_VECTOR(pwritev2, "pwrite", "write", short_writes, (PIECES, off_t offset, int flags),
            (fd, pieces, count, offset, flags))
WRAP_VECTOR(pwritev64v2, "pwrite", "write", short_writes, (PIECES, off64_t offset, int flags),
            (fd, pieces, count, offset, flags))

EXPORT ssize_t copy_file_range(int in, off64_t *in_offset, int out, off64_t *out_offset,
                               size_t size, unsigned flags)
{
    if (fd_fails(out, "copy", "write"))
        return -1;
    return REAL(copy_file_range)(in, in_offset, out, out_offset,
                                 shortened(out, &short_writes, size), flags);
}

/* ---- everything else ---- */

EXPORT int fsync(int fd)
{
    return fd_fails(fd, "fsync", NULL) ? -1 : REAL(fsync)(fd);
}

EXPORT int fdatasync(int fd)
{
    return fd_fails(fd, "fsync", NULL) ? -1 : REAL(fdatasync)(fd);
}

EXPORT int ftruncate(int fd, off_t size)
{
    return fd_fails(fd, "ftruncate", NULL) ? -1 : REAL(ftruncate)(fd, size);
}

EXPORT int ftruncate64(int fd, off64_t size)
{
    return fd_fails(fd, "ftruncate", NULL) ? -1 : REAL(ftruncate64)(fd, size);
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return fd_fails(fd, "ftruncate", "fallocate") ? -1 : REAL(fallocate)(fd, mode, offset, size);
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    return fd_fails(fd, "ftruncate", "fallocate") ? errno
                                                  : REAL(posix_fallocate)(fd, offset, size);
}

/* As Linux does: the descriptor is gone, whatever close returns. */
EXPORT int close(int fd)
{
    const int failed = fd_fails(fd, "close", NULL);
    const int error = errno;
    const int result = REAL(close)(fd);

    if (failed)
        errno = error;
    return failed ? -1 : result;
}

EXPORT int rename(const char *from, const char *to)
{
    return path_fails(from, "rename") ? -1 : REAL(rename)(from, to);
}

EXPORT int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return path_fails(from, "rename") ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

EXPORT int renameat2(int from_folder, const char *from, int to_folder, const char *to,
                     unsigned flags)
{
    return path_fails(from, "rename") ? -1
                                      : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}

#define MODE_OF(flags)                                                                            \
    mode_t mode = 0;                                                                              \
    va_list rest;                                                                                 \
                                                                                                  \
    va_start(rest, flags);                                                                        \
    if ((flags & (O_CREAT | __O_TMPFILE)) != 0)                                                   \
        mode = (mode_t)va_arg(rest, unsigned);                                                    \
    va_end(rest)

EXPORT int open(const char *path, int flags, ...)
{
    MODE_OF(flags);
    return path_fails(path, "open") ? -1 : REAL(open)(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
    MODE_OF(flags);
    return path_fails(path, "open") ? -1 : REAL(open64)(path, flags, mode);
}

EXPORT int openat(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags);
    return path_below_fails(folder, path, "open") ? -1 : REAL(openat)(folder, path, flags, mode);
}

EXPORT int openat64(int folder, const char *path, int flags, ...)
{
    MODE_OF(flags);
    return path_below_fails(folder, path, "open") ? -1
                                                  : REAL(openat64)(folder, path, flags, mode);
}

EXPORT void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fd >= 0 && fd_fails(fd, "mmap", NULL))
        return MAP_FAILED;
    return REAL(mmap)(address, size, protection, flags, fd, offset);
}

/* ---- what is about no file ---- */

static int call_fails(const char *call)
{
    pthread_once(&once, read_rules);
    return rule_count > 0 && fails(call, NULL);
}

EXPORT int prctl(int option, ...)
{
    unsigned long words[4];
    va_list rest;

    va_start(rest, option);
    for (size_t i = 0; i < 4; i++)
        words[i] = va_arg(rest, unsigned long);
    va_end(rest);
    return call_fails("prctl") ? -1
                               : REAL(prctl)(option, words[0], words[1], words[2], words[3]);
}

/* As the libraries declare them, but for the types of what is only passed on. */
extern int curl_multi_poll(void *multi, void *more, unsigned more_count, int wait_ms, int *ready);
extern void *curl_slist_append(void *list, const char *text);
extern int EVP_DigestInit_ex(void *context, const void *kind, void *engine);

EXPORT int curl_multi_poll(void *multi, void *more, unsigned more_count, int wait_ms, int *ready)
{
    enum { OUT_OF_MEMORY = 3 };      /* CURLM_OUT_OF_MEMORY */

    return call_fails("poll") ? OUT_OF_MEMORY
                              : REAL(curl_multi_poll)(multi, more, more_count, wait_ms, ready);
}

EXPORT void *curl_slist_append(void *list, const char *text)
{
    return call_fails("append") ? NULL : REAL(curl_slist_append)(list, text);
}

EXPORT int EVP_DigestInit_ex(void *context, const void *kind, void *engine)
{
    return call_fails("digest") ? 0 : REAL(EVP_DigestInit_ex)(context, kind, engine);
}

/* What getline is in programs that were compiled with optimisation. */
extern ssize_t __getdelim(char **line, size_t *room, int delimiter, FILE *stream);

EXPORT ssize_t __getdelim(char **line, size_t *room, int delimiter, FILE *stream)
{
    return stream == stdin && call_fails("getline")
               ? -1
               : REAL(__getdelim)(line, room, delimiter, stream);
}

#undef getline
EXPORT ssize_t getline(char **line, size_t *room, FILE *stream)
{
    return stream == stdin && call_fails("getline") ? -1 : REAL(getline)(line, room, stream);
}
