/* file_whole.c: files that are read, written or copied from end to end. */
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory.h"
#include "size.h"

enum { COPY_BUFFER_BYTES = 1 << 20, READ_STEP_BYTES = 1 << 16 };

/* Bytes of one copy call inside the kernel; small enough that a signal interrupts a copy soon. */
static const size_t COPY_STEP_BYTES = (size_t)1 << 28;

/* ---- reading ---- */

typedef struct {
    char *bytes;
    size_t size;
    size_t capacity;
    int is_named;              /* given by the user: may be a pipe without a writer */
} whole_text;

/* A signal during a read from a pipe is a request to stop, and not retried: the pipe's writer may
 * never come or never end. */
static ckpt_code fail_named(const char *what, const char *path, ckpt_error *err)
{
    if (errno == EINTR)
        return ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted while waiting for '%s'", path);
    return ckpt_fail(err, CKPT_E_IO, "cannot %s '%s': %s", what, path, strerror(errno));
}

/* Read until the end, because the size of a pipe is not known. One byte stays free for the NUL. */
static ckpt_code read_to_end(int fd, const char *path, uint64_t max_bytes, whole_text *text,
                             ckpt_error *err)
{
    for (;;) {
        ssize_t got;

        if (text->size + 1 >= text->capacity) {
            const size_t capacity = text->capacity * 2;
            char *bytes = memory_has(capacity) ? realloc(text->bytes, capacity) : NULL;

            if (bytes == NULL)
                return ckpt_fail_memory(err, path, capacity);
            text->bytes = bytes;
            text->capacity = capacity;
        }
        got = read(fd, text->bytes + text->size, text->capacity - text->size - 1);
        if (got < 0 && errno == EINTR && !text->is_named)
            continue;
        if (got < 0)
            return fail_named("read", path, err);
        if (got == 0)
            return CKPT_OK;
        text->size += (size_t)got;
        if (text->size > max_bytes)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %" PRIu64
                             " bytes", path, max_bytes);
    }
}

/* Read all of `fd` and close it. */
static ckpt_code read_whole(int fd, const char *path, uint64_t max_bytes, whole_text *text,
                            ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    struct stat status;

    if (fstat(fd, &status) != 0) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': %s", path, strerror(errno));
        goto out;
    }
    if (S_ISDIR(status.st_mode)) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot read '%s': expected a file, got a directory",
                         path);
        goto out;
    }
    if ((uint64_t)status.st_size > max_bytes) {
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %" PRIu64
                         " bytes, got %" PRIu64, path, max_bytes, (uint64_t)status.st_size);
        goto out;
    }
    /* Room for the content, the NUL, and one more byte to detect the end without growing. */
    text->capacity = (size_t)size_max((uint64_t)status.st_size + 2, READ_STEP_BYTES);
    if (!memory_has(text->capacity) || (text->bytes = malloc(text->capacity)) == NULL) {
        code = ckpt_fail_memory(err, path, text->capacity);
        goto out;
    }
    code = read_to_end(fd, path, max_bytes, text, err);
out:
    close(fd);
    return code;
}

/* Hand the text to the caller, or free it. */
static ckpt_code give_text(whole_text *text, ckpt_code code, char **out, size_t *size)
{
    if (code != CKPT_OK) {
        free(text->bytes);
        return code;
    }
    text->bytes[text->size] = '\0';
    *out = text->bytes;
    *size = text->size;
    return CKPT_OK;
}

ckpt_code file_read_all(const char *path, uint64_t max_bytes, char **out, size_t *size,
                        ckpt_error *err)
{
    whole_text text = { NULL, 0, 0, 0 };
    ckpt_code code;
    int fd;

    *out = NULL;
    *size = 0;
    if ((code = file_open_fd(path, O_RDONLY, &fd, err)) == CKPT_OK)
        code = read_whole(fd, path, max_bytes, &text, err);
    return give_text(&text, code, out, size);
}

ckpt_code file_read_named(const char *path, uint64_t max_bytes, char **out, size_t *size,
                          ckpt_error *err)
{
    const int fd = open(strcmp(path, "-") == 0 ? "/dev/stdin" : path, O_RDONLY | O_CLOEXEC);
    whole_text text = { NULL, 0, 0, 1 };

    *out = NULL;
    *size = 0;
    if (fd < 0)
        return fail_named("open", path, err);
    return give_text(&text, read_whole(fd, path, max_bytes, &text, err), out, size);
}

/* ---- writing ---- */

enum { NAME_KEPT = 200 };              /* a name has at most 255 bytes with what is added */

/* A unique hidden name beside `path`; malloc'd. */
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char *temporary = NULL;
    uint32_t suffix = 0;

    if (getrandom(&suffix, sizeof suffix, GRND_NONBLOCK) != (ssize_t)sizeof suffix)
        suffix = (uint32_t)getpid();
    if (asprintf(&temporary, "%.*s.%.*s.%08" PRIx32 ".tmp", (int)(name - path), path, NAME_KEPT,
                 name, suffix) < 0)
        return NULL;
    return temporary;
}

/* Whether it is a temporary name for `name`. */
static int is_temporary_of(const char *temporary, const char *name)
{
    enum { DIGITS = 8 };
    const size_t kept = size_min(strlen(name), NAME_KEPT);
    const char *digits;

    if (strlen(temporary) != 1 + kept + 1 + DIGITS + strlen(".tmp"))
        return 0;
    digits = temporary + 1 + kept + 1;
    return temporary[0] == '.' && memcmp(temporary + 1, name, kept) == 0 && digits[-1] == '.' &&
           strspn(digits, "0123456789abcdef") == DIGITS && strcmp(digits + DIGITS, ".tmp") == 0;
}

ckpt_code file_remove_temporaries_of(const char *directory, const char *name, ckpt_error *err)
{
    const char *slash = strrchr(name, '/');
    char *parent = NULL;
    const struct dirent *entry;
    ckpt_code code = CKPT_OK;
    DIR *folder;

    if (asprintf(&parent, "%s/%.*s", directory, slash == NULL ? 0 : (int)(slash - name), name) < 0)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    if ((folder = opendir(parent)) == NULL) {
        code = errno == ENOENT ? CKPT_OK : fail_named("open", parent, err);
        free(parent);
        return code;
    }
    while (code == CKPT_OK && (entry = readdir(folder)) != NULL) {
        char *path;

        if (!is_temporary_of(entry->d_name, slash == NULL ? name : slash + 1))
            continue;
        if ((path = file_join(parent, entry->d_name)) == NULL)
            code = ckpt_fail_memory(err, "a path", strlen(parent));
        else
            code = file_remove(path, err);
        free(path);
    }
    closedir(folder);
    free(parent);
    return code;
}

ckpt_code file_begin_replacing(const char *path, ckpt_file **out, ckpt_error *err)
{
    char *temporary = temporary_name(path);
    ckpt_code code;

    *out = NULL;
    if (temporary == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    code = file_open_new(temporary, out, err);
    free(temporary);
    return code;
}

ckpt_code file_commit_replacing(ckpt_file *f, const char *path, ckpt_error *err)
{
    char *temporary = strdup(file_path(f));
    ckpt_code code;

    if (temporary == NULL) {
        file_abort_replacing(f);
        return ckpt_fail_memory(err, "a path", strlen(path));
    }
    if ((code = file_sync(f, err)) == CKPT_OK)
        code = file_close(f, err);
    else
        file_close(f, NULL);
    if (code == CKPT_OK)
        code = file_replace_durable(temporary, path, err);
    if (code != CKPT_OK)               /* NULL: keep the error of the first failure */
        file_remove(temporary, NULL);
    free(temporary);
    return code;
}

void file_abort_replacing(ckpt_file *f)
{
    if (f == NULL)
        return;
    file_remove(file_path(f), NULL);
    file_close(f, NULL);
}

ckpt_code file_write_all(const char *path, const void *data, size_t size, ckpt_error *err)
{
    ckpt_file *f;
    ckpt_code code;

    if ((code = file_begin_replacing(path, &f, err)) != CKPT_OK)
        return code;
    if ((code = file_write_at(f, 0, data, size, err)) == CKPT_OK)
        return file_commit_replacing(f, path, err);
    file_abort_replacing(f);
    return code;
}

/* ---- copying ---- */

static ckpt_code copy_file(const ckpt_file *from, ckpt_file *to, ckpt_error *err)
{
    const uint64_t total = file_size(from);
    char *buffer = malloc(COPY_BUFFER_BYTES);
    ckpt_code code = CKPT_OK;

    if (buffer == NULL)
        return ckpt_fail_memory(err, "a copy buffer", COPY_BUFFER_BYTES);
    for (uint64_t at = 0; at < total && code == CKPT_OK; at += COPY_BUFFER_BYTES) {
        const size_t take = (size_t)size_min(total - at, COPY_BUFFER_BYTES);

        if ((code = file_read_at(from, at, buffer, take, err)) == CKPT_OK)
            code = file_write_at(to, at, buffer, take, err);
    }
    free(buffer);
    return code;
}

ckpt_code file_replace_from(const ckpt_file *from, const char *path, ckpt_error *err)
{
    ckpt_file *f;
    ckpt_code code;

    if ((code = file_begin_replacing(path, &f, err)) != CKPT_OK)
        return code;
    if ((code = copy_file(from, f, err)) == CKPT_OK)
        return file_commit_replacing(f, path, err);
    file_abort_replacing(f);
    return code;
}

typedef struct {
    int from_fd;
    int to_fd;
    const char *from;
    const char *to;
    uint64_t copied_bytes;
} file_copying;

static ckpt_code write_whole(const file_copying *copy, const char *bytes, size_t size,
                             ckpt_error *err)
{
    while (size > 0) {
        const ssize_t got = write(copy->to_fd, bytes, size);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", copy->to,
                             strerror(errno));
        bytes += got;
        size -= (size_t)got;
    }
    return CKPT_OK;
}

/* Copy from the current position of both descriptors to the end of the source. */
static ckpt_code copy_through_memory(file_copying *copy, ckpt_error *err)
{
    char *buffer = malloc(COPY_BUFFER_BYTES);
    ckpt_code code = CKPT_OK;

    if (buffer == NULL)
        return ckpt_fail_memory(err, "a copy buffer", COPY_BUFFER_BYTES);
    while (code == CKPT_OK) {
        const ssize_t got = read(copy->from_fd, buffer, COPY_BUFFER_BYTES);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = ckpt_fail(err, CKPT_E_IO, "cannot read '%s': %s", copy->from,
                             strerror(errno));
        if (got <= 0)
            break;
        copy->copied_bytes += (uint64_t)got;
        code = write_whole(copy, buffer, (size_t)got, err);
    }
    free(buffer);
    return code;
}

/*
 * Let the kernel copy as much as it can: it may share blocks instead of copying bytes. If it fails
 * (other file system, old kernel, full disk), the plain copy continues from there and reports the
 * actual reason.
 */
static void copy_in_kernel(file_copying *copy)
{
    for (;;) {
        const ssize_t got = copy_file_range(copy->from_fd, NULL, copy->to_fd, NULL,
                                            COPY_STEP_BYTES, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return;
        copy->copied_bytes += (uint64_t)got;
    }
}

/* Open both ends; the target must not be the source under another name. */
static ckpt_code copy_open(file_copying *copy, uint64_t *size, ckpt_error *err)
{
    struct stat from;
    struct stat to;
    const ckpt_code code = file_open_fd(copy->from, O_RDONLY, &copy->from_fd, err);

    if (code != CKPT_OK)
        return code;
    if (fstat(copy->from_fd, &from) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': %s", copy->from, strerror(errno));
    if (stat(copy->to, &to) == 0 && from.st_dev == to.st_dev && from.st_ino == to.st_ino)
        return ckpt_fail(err, CKPT_E_USAGE, "cannot copy '%s' to '%s': they are the same file",
                         copy->from, copy->to);
    /* Replace an existing target instead of writing to it: it may be a link or have other names. */
    if (lstat(copy->to, &to) == 0 && (S_ISREG(to.st_mode) || S_ISLNK(to.st_mode)) &&
        unlink(copy->to) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot replace '%s': %s", copy->to, strerror(errno));
    copy->to_fd = open(copy->to, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (copy->to_fd < 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", copy->to, strerror(errno));
    *size = (uint64_t)from.st_size;
    return CKPT_OK;
}

ckpt_code file_copy(const char *from, const char *to, ckpt_error *err)
{
    file_copying copy = { -1, -1, from, to, 0 };
    struct stat status;
    int target_is_made = 0;     /* 1: created here, so remove it after a failure */
    uint64_t size = 0;
    ckpt_code code;

    if ((code = copy_open(&copy, &size, err)) != CKPT_OK)
        goto out;
    copy_in_kernel(&copy);
    if ((code = copy_through_memory(&copy, err)) != CKPT_OK)
        goto out;
    if (copy.copied_bytes != size)
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' changed while it was being copied: expected %"
                         PRIu64 " bytes, got %" PRIu64, from, size, copy.copied_bytes);
out:
    if (copy.from_fd >= 0)
        close(copy.from_fd);
    if (copy.to_fd >= 0) {
        target_is_made = fstat(copy.to_fd, &status) == 0 && S_ISREG(status.st_mode);
        if (close(copy.to_fd) != 0 && errno != EINTR && code == CKPT_OK)
            code = ckpt_fail(err, CKPT_E_IO, "cannot close '%s': %s", to, strerror(errno));
    }
    if (code != CKPT_OK && target_is_made)
        unlink(to);
    return code;
}
