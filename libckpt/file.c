/* file.c: one open file; reads and writes at positions. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "size.h"

struct ckpt_file {
    int fd;
    uint64_t size;
    int64_t mtime_ns;
    int64_t ctime_ns;
    uint64_t device;
    uint64_t inode;
    char path[];
};

typedef enum { FILE_READ, FILE_WRITE } file_direction;

/* Entries of one preadv or pwritev, and the gap that is cheaper to read than to jump over:
 * a system call costs about as much as copying this many bytes. */
enum { FILE_BATCH = IOV_MAX, FILE_GAP_MAX = 4096 };

/* ---- open and close ---- */

static const char *kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:  return "directory";
    case S_IFIFO:  return "named pipe";
    case S_IFSOCK: return "socket";
    default:       return "device";
    }
}

ckpt_code file_open_fd(const char *path, int flags, int *fd, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    struct stat status;

    /* Without O_NONBLOCK a named pipe would hang here. Regular files do not know it. */
    *fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666);
    if (*fd < 0) {
        const int number = errno;

        /* ENXIO is what sockets, and pipes that nobody reads, have to say. */
        if (number == ENXIO && stat(path, &status) == 0 && !S_ISREG(status.st_mode))
            return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': expected a file, got a %s", path,
                             kind_of(status.st_mode));
        return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", path, strerror(number));
    }
    if (fstat(*fd, &status) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s': expected a file, got a %s", path,
                         kind_of(status.st_mode));
    if (code != CKPT_OK) {
        close(*fd);
        *fd = -1;
    }
    return code;
}

static int64_t time_ns(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Takes the descriptor, also on failure. */
static ckpt_code wrap(const char *path, int fd, ckpt_file **out, ckpt_error *err)
{
    const size_t path_bytes = strlen(path) + 1;
    ckpt_file *f = malloc(sizeof *f + path_bytes);
    ckpt_code code = CKPT_OK;
    struct stat status;

    if (f == NULL)
        code = ckpt_fail_memory(err, "an open file", sizeof *f + path_bytes);
    else if (fstat(fd, &status) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': %s", path, strerror(errno));
    if (code != CKPT_OK) {
        close(fd);
        free(f);
        return code;
    }
    memcpy(f->path, path, path_bytes);
    f->fd = fd;
    f->size = (uint64_t)status.st_size;
    f->mtime_ns = time_ns(status.st_mtim);
    f->ctime_ns = time_ns(status.st_ctim);
    f->device = (uint64_t)status.st_dev;
    f->inode = (uint64_t)status.st_ino;
    *out = f;
    return CKPT_OK;
}

static ckpt_code open_with(const char *path, int flags, ckpt_file **out, ckpt_error *err)
{
    ckpt_code code;
    int fd;

    *out = NULL;
    code = file_open_fd(path, flags, &fd, err);
    return code == CKPT_OK ? wrap(path, fd, out, err) : code;
}

ckpt_code file_open(const char *path, ckpt_file **out, ckpt_error *err)
{
    return open_with(path, O_RDONLY, out, err);
}

/* Down to the folder that the last component of `name` is in. -1, with errno set, on failure. */
static int open_folder_of(const char *directory, char *name, char **last)
{
    int folder = open(directory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    char *slash;

    while (folder >= 0 && (slash = strchr(name, '/')) != NULL) {
        int next;

        *slash = '\0';
        next = openat(folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(folder);
        folder = next;
        name = slash + 1;
    }
    *last = name;
    return folder;
}

ckpt_code file_open_below(const char *directory, const char *name, int flags, int *fd,
                          ckpt_error *err)
{
    char *copy = strdup(name);
    char *last = NULL;
    ckpt_code code = CKPT_OK;
    struct stat status;
    int number;
    int folder;

    *fd = -1;
    if (copy == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    folder = open_folder_of(directory, copy, &last);
    if (folder >= 0)
        *fd = openat(folder, last, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    number = errno;
    /* ENXIO is what sockets, and pipes that nobody reads, have to say. */
    if (*fd < 0 && number == ENXIO && fstatat(folder, last, &status, AT_SYMLINK_NOFOLLOW) == 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': expected a file, got a %s",
                         directory, name, kind_of(status.st_mode));
    else if (*fd < 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': %s", directory, name,
                         number == ELOOP ? "it is a link" : strerror(number));
    else if (fstat(*fd, &status) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s/%s': %s", directory, name,
                         strerror(errno));
    else if (!S_ISREG(status.st_mode))
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': expected a file, got a %s",
                         directory, name, kind_of(status.st_mode));
    else if (status.st_nlink != 1)
        code = ckpt_fail(err, CKPT_E_IO, "cannot write '%s/%s': it has %llu names, and what stands "
                         "under the others would change, too", directory, name,
                         (unsigned long long)status.st_nlink);
    if (code != CKPT_OK && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    if (folder >= 0)
        close(folder);
    free(copy);
    return code;
}

ckpt_code file_open_rw(const char *directory, const char *name, ckpt_file **out, ckpt_error *err)
{
    char *path = file_join(directory, name);
    ckpt_code code;
    int fd;

    *out = NULL;
    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if ((code = file_open_below(directory, name, O_RDWR | O_CREAT, &fd, err)) == CKPT_OK)
        code = wrap(path, fd, out, err);
    free(path);
    return code;
}

ckpt_code file_open_new(const char *path, ckpt_file **out, ckpt_error *err)
{
    return open_with(path, O_RDWR | O_CREAT | O_EXCL, out, err);
}

ckpt_code file_close(ckpt_file *f, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (f == NULL)
        return CKPT_OK;
    /* After EINTR the descriptor is gone on Linux, and nothing was lost: not a failure. */
    if (close(f->fd) != 0 && errno != EINTR)
        code = ckpt_fail(err, CKPT_E_IO, "cannot close '%s': %s", f->path, strerror(errno));
    free(f);
    return code;
}

const char *file_path(const ckpt_file *f)
{
    return f->path;
}

uint64_t file_size(const ckpt_file *f)
{
    return f->size;
}

int64_t file_mtime_ns(const ckpt_file *f)
{
    return f->mtime_ns;
}

int64_t file_ctime_ns(const ckpt_file *f)
{
    return f->ctime_ns;
}

ckpt_code file_check_unchanged(const ckpt_file *f, int *is_touched, ckpt_error *err)
{
    struct stat now;

    if (stat(f->path, &now) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot look at '%s' again: %s", f->path,
                         strerror(errno));
    if ((uint64_t)now.st_size != f->size || time_ns(now.st_mtim) != f->mtime_ns)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' was changed while it was read", f->path);
    if (is_touched != NULL)
        *is_touched |= time_ns(now.st_ctim) != f->ctime_ns || (uint64_t)now.st_ino != f->inode ||
                       (uint64_t)now.st_dev != f->device;
    return CKPT_OK;
}

/* ---- transfers ---- */

static ckpt_code check_range(const ckpt_file *f, uint64_t offset, uint64_t size, ckpt_error *err)
{
    uint64_t end;

    if (!size_add(offset, size, &end) || end > INT64_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %" PRIu64 " bytes at offset %" PRIu64 " lie beyond any file",
                         f->path, size, offset);
    return CKPT_OK;
}

/* What went wrong when a transfer moved `got` <= 0 bytes with `left_bytes` still to go. */
static ckpt_code transfer_failed(const ckpt_file *f, file_direction direction, ssize_t got,
                                 uint64_t left_bytes, ckpt_error *err)
{
    if (got < 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot %s '%s': %s",
                         direction == FILE_READ ? "read" : "write", f->path, strerror(errno));
    if (direction == FILE_READ)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends %" PRIu64 " bytes early", f->path,
                         left_bytes);
    return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %" PRIu64 " bytes were not taken",
                     f->path, left_bytes);
}

ckpt_code file_read_at(const ckpt_file *f, uint64_t offset, void *out, size_t size,
                       ckpt_error *err)
{
    unsigned char *bytes = out;
    const ckpt_code code = check_range(f, offset, size, err);

    if (code != CKPT_OK)
        return code;
    while (size > 0) {
        const ssize_t got = pread(f->fd, bytes, size, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return transfer_failed(f, FILE_READ, got, size, err);
        bytes += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return CKPT_OK;
}

ckpt_code file_write_at(ckpt_file *f, uint64_t offset, const void *data, size_t size,
                        ckpt_error *err)
{
    const unsigned char *bytes = data;
    const ckpt_code code = check_range(f, offset, size, err);

    if (code != CKPT_OK)
        return code;
    while (size > 0) {
        const ssize_t got = pwrite(f->fd, bytes, size, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return transfer_failed(f, FILE_WRITE, got, size, err);
        bytes += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return CKPT_OK;
}

/* Pieces of memory that meet one run of the file. */
typedef struct {
    struct iovec pieces[FILE_BATCH];
    int count;
    uint64_t offset;
    uint64_t size_bytes;
} file_batch;

static void batch_add(file_batch *batch, void *memory, size_t size)
{
    batch->pieces[batch->count].iov_base = memory;
    batch->pieces[batch->count].iov_len = size;
    batch->count++;
    batch->size_bytes += size;
}

/* Move a whole batch, going on inside a piece after a short count; leaves the batch empty and
 * its offset behind what was moved. */
static ckpt_code batch_move(const ckpt_file *f, file_batch *batch, file_direction direction,
                            ckpt_error *err)
{
    struct iovec *piece = batch->pieces;
    int count = batch->count;

    while (batch->size_bytes > 0) {
        const off_t offset = (off_t)batch->offset;
        const ssize_t got = direction == FILE_READ ? preadv(f->fd, piece, count, offset)
                                                   : pwritev(f->fd, piece, count, offset);
        size_t left = (size_t)got;

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return transfer_failed(f, direction, got, batch->size_bytes, err);
        batch->offset += (uint64_t)got;
        batch->size_bytes -= (uint64_t)got;
        while (count > 0 && left >= piece->iov_len) {
            left -= piece->iov_len;
            piece++;
            count--;
        }
        if (left > 0) {
            piece->iov_base = (unsigned char *)piece->iov_base + left;
            piece->iov_len -= left;
        }
    }
    batch->count = 0;
    return CKPT_OK;
}

/* ---- rectangles ---- */

/* Last byte of the rectangle in the file and in memory must exist as a number. */
static ckpt_code check_rect(const ckpt_file *f, const file_rect *rect, size_t memory_pitch_bytes,
                            ckpt_error *err)
{
    const uint64_t row_count = rect->row_count;
    uint64_t span;
    uint64_t memory_span;

    if (row_count > 1 &&
        (rect->pitch_bytes < rect->row_bytes || memory_pitch_bytes < rect->row_bytes))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': rows of %" PRIu64 " bytes overlap at pitch %" PRIu64, f->path,
                         rect->row_bytes,
                         size_min(rect->pitch_bytes, (uint64_t)memory_pitch_bytes));
    if (!size_mul(row_count - 1, rect->pitch_bytes, &span) ||
        !size_add(span, rect->row_bytes, &span) ||
        !size_mul(row_count - 1, memory_pitch_bytes, &memory_span) ||
        !size_add(memory_span, rect->row_bytes, &memory_span) || memory_span > SIZE_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %" PRIu64 " rows at pitch %" PRIu64 " lie beyond any file",
                         f->path, row_count, rect->pitch_bytes);
    return check_range(f, rect->offset, span, err);
}

/* Memory side of a rectangle. Writing leaves `start` as it is; struct iovec knows no const. */
typedef struct {
    unsigned char *start;
    size_t pitch_bytes;
    file_direction direction;
} rect_memory;

/*
 * Rows that lie a gap apart in the file, many to a call. A gap is read into `skipped`; it is
 * never written, so writing needs a gap of 0.
 */
static ckpt_code move_batched(const ckpt_file *f, const file_rect *rect, const rect_memory *memory,
                              ckpt_error *err)
{
    const size_t row_bytes = (size_t)rect->row_bytes;
    const size_t gap_bytes = (size_t)(rect->pitch_bytes - rect->row_bytes);
    unsigned char skipped[FILE_GAP_MAX];
    file_batch batch;
    ckpt_code code;

    batch.count = 0;
    batch.offset = rect->offset;
    batch.size_bytes = 0;
    for (uint64_t i = 0; i < rect->row_count; i++) {
        batch_add(&batch, memory->start + i * memory->pitch_bytes, row_bytes);
        if (gap_bytes > 0 && i + 1 < rect->row_count)
            batch_add(&batch, skipped, gap_bytes);
        if (batch.count + 2 > FILE_BATCH) {
            if ((code = batch_move(f, &batch, memory->direction, err)) != CKPT_OK)
                return code;
        }
    }
    return batch_move(f, &batch, memory->direction, err);
}

/* Rows too far apart to read what lies between: a call for each. */
static ckpt_code move_rows(const ckpt_file *f, const file_rect *rect, const rect_memory *memory,
                           ckpt_error *err)
{
    file_rect row = *rect;
    rect_memory row_memory = *memory;
    ckpt_code code = CKPT_OK;

    row.row_count = 1;
    row.pitch_bytes = row.row_bytes;
    for (uint64_t i = 0; i < rect->row_count && code == CKPT_OK; i++) {
        row.offset = rect->offset + i * rect->pitch_bytes;
        row_memory.start = memory->start + i * memory->pitch_bytes;
        code = move_batched(f, &row, &row_memory, err);
    }
    return code;
}

static ckpt_code move_rect(const ckpt_file *f, const file_rect *rect, const rect_memory *memory,
                           ckpt_error *err)
{
    const uint64_t gap_max = memory->direction == FILE_READ ? FILE_GAP_MAX : 0;
    file_rect run = *rect;
    ckpt_code code;

    if (rect->row_count == 0 || rect->row_bytes == 0)
        return CKPT_OK;
    if ((code = check_rect(f, rect, memory->pitch_bytes, err)) != CKPT_OK)
        return code;
    if (rect->row_count == 1 ||
        (rect->pitch_bytes == rect->row_bytes && memory->pitch_bytes == rect->row_bytes)) {
        run.row_bytes = rect->row_bytes * rect->row_count;
        run.pitch_bytes = run.row_bytes;
        run.row_count = 1;
    }
    if (run.pitch_bytes - run.row_bytes <= gap_max)
        return move_batched(f, &run, memory, err);
    return move_rows(f, &run, memory, err);
}

ckpt_code file_read_rect(const ckpt_file *f, const file_rect *rect, void *out,
                         size_t memory_pitch_bytes, ckpt_error *err)
{
    const rect_memory memory = { out, memory_pitch_bytes, FILE_READ };

    return move_rect(f, rect, &memory, err);
}

ckpt_code file_write_rect(ckpt_file *f, const file_rect *rect, const void *data,
                          size_t memory_pitch_bytes, ckpt_error *err)
{
    const rect_memory memory = { (unsigned char *)(uintptr_t)data, memory_pitch_bytes,
                                 FILE_WRITE };

    return move_rect(f, rect, &memory, err);
}

/* ---- size and sync ---- */

ckpt_code file_set_size(ckpt_file *f, uint64_t size, ckpt_error *err)
{
    int result;
    const ckpt_code code = check_range(f, 0, size, err);

    if (code != CKPT_OK)
        return code;
    do {
        result = ftruncate(f->fd, (off_t)size);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot set the size of '%s' to %" PRIu64 ": %s",
                         f->path, size, strerror(errno));
    return CKPT_OK;
}

ckpt_code file_sync(ckpt_file *f, ckpt_error *err)
{
    int result;

    do {
        result = fsync(f->fd);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s", f->path, strerror(errno));
    return CKPT_OK;
}
