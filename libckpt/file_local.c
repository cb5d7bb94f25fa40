/* file_local.c: files on a local disk: open, read, write, check whether they were changed. */
#include "file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "clock.h"
#include "file_ops.h"

static const double AWAKE_SECONDS = 1e-3;    /* longer than a write to the page cache takes */

/* Locks of a file to which one thread at a time writes. */
typedef struct {
    pthread_mutex_t writer;     /* held while writing */
    pthread_mutex_t next;       /* held by the thread that writes next */
} write_turns;

typedef struct {
    ckpt_file base;
    int fd;
    uint64_t device;
    uint64_t inode;
    write_turns *turns;         /* owned; NULL: threads write at the same time */
    char path[];
} local_file;

static const file_ops local_ops;

static const local_file *local_of(const ckpt_file *f)
{
    assert(f->ops == &local_ops);       /* only these are opened for writing */
    return (const local_file *)f;
}

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

    /* Without O_NONBLOCK, opening a named pipe would hang. Regular files ignore it. */
    *fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, 0666);
    if (*fd < 0) {
        const int number = errno;

        /* Sockets, and pipes without a reader, give ENXIO. */
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

static file_identity identity_of(const struct stat *status)
{
    const int64_t modified = time_ns(status->st_mtim);

    return (file_identity){ .version = (uint64_t)modified,
                            .touch = (uint64_t)time_ns(status->st_ctim),
                            .modified_ns = modified };
}

/* Consumes the descriptor, also on failure. */
static ckpt_code wrap(const char *path, int fd, ckpt_file **out, ckpt_error *err)
{
    const size_t path_bytes = strlen(path) + 1;
    local_file *f = malloc(sizeof *f + path_bytes);
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
    f->turns = NULL;
    f->device = (uint64_t)status.st_dev;
    f->inode = (uint64_t)status.st_ino;
    f->base = (ckpt_file){ .ops = &local_ops,
                           .path = f->path,
                           .size = (uint64_t)status.st_size,
                           .identity = identity_of(&status) };
    *out = &f->base;
    return CKPT_OK;
}

/*
 * These file systems let one thread at a time write to a file. Threads that wait for it in the
 * kernel all spin, which takes ten times the CPU time on 16 cores; those that wait for a lock here
 * sleep, but for one. Others (ZFS, Lustre) let threads write at the same time.
 * Most of a write to tmpfs makes pages. Making them before the lock is taken does not pay: through
 * a mapping (MADV_POPULATE_WRITE) it doubles the CPU time of writing; fallocate adds 8 % and takes
 * the same lock.
 */
static int has_one_writer(int fd)
{
    struct statfs status;

    if (fstatfs(fd, &status) != 0)
        return 0;
    switch (status.f_type) {
    case TMPFS_MAGIC:
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
        return 1;
    default:
        return 0;
    }
}

/* Without memory for the locks, the kernel keeps the order. */
static void begin_turns(ckpt_file *file)
{
    local_file *f = (local_file *)file;

    if (!has_one_writer(f->fd) || (f->turns = malloc(sizeof *f->turns)) == NULL)
        return;
    pthread_mutex_init(&f->turns->writer, NULL);
    pthread_mutex_init(&f->turns->next, NULL);
}

static void end_turns(write_turns *turns)
{
    if (turns == NULL)
        return;
    pthread_mutex_destroy(&turns->next);
    pthread_mutex_destroy(&turns->writer);
    free(turns);
}

/*
 * To wake a thread takes about as long as a write, and meanwhile nobody would write: the thread
 * that is next stays awake, and the others sleep. If the writer has to wait for a disk, the next
 * one sleeps, too.
 */
static void take_turn(write_turns *turns)
{
    int is_taken = 0;
    double end;

    pthread_mutex_lock(&turns->next);
    end = clock_seconds() + AWAKE_SECONDS;
    do {
        is_taken = pthread_mutex_trylock(&turns->writer) == 0;
    } while (!is_taken && clock_seconds() < end);
    if (!is_taken)
        pthread_mutex_lock(&turns->writer);
    pthread_mutex_unlock(&turns->next);
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

/* Open the folder that contains the last component of `name`, following no link. -1, with errno
 * set, on failure. */
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
    /* Sockets, and pipes without a reader, give ENXIO. */
    if (*fd < 0 && number == ENXIO && fstatat(folder, last, &status, AT_SYMLINK_NOFOLLOW) == 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': expected a file, got a %s",
                         directory, name, kind_of(status.st_mode));
    else if (*fd < 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': %s", directory, name,
                         number == ELOOP ? "it is a link"
                         : number == ENOTDIR ? "a part of its path is a link, through which "
                                               "nothing is written, or is not a folder"
                                             : strerror(number));
    else if (fstat(*fd, &status) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s/%s': %s", directory, name,
                         strerror(errno));
    else if (!S_ISREG(status.st_mode))
        code = ckpt_fail(err, CKPT_E_IO, "cannot open '%s/%s': expected a file, got a %s",
                         directory, name, kind_of(status.st_mode));
    else if (status.st_nlink != 1)
        code = ckpt_fail(err, CKPT_E_IO, "cannot write '%s/%s': it has %llu names, and the file "
                         "under the others would change as well", directory, name,
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
    if (code == CKPT_OK)
        begin_turns(*out);
    free(path);
    return code;
}

ckpt_code file_open_new(const char *path, ckpt_file **out, ckpt_error *err)
{
    const ckpt_code code = open_with(path, O_RDWR | O_CREAT | O_EXCL, out, err);

    if (code == CKPT_OK)
        begin_turns(*out);
    return code;
}

static ckpt_code local_close(ckpt_file *self, ckpt_error *err)
{
    const local_file *f = local_of(self);
    ckpt_code code = CKPT_OK;

    /* On Linux the descriptor is closed also after EINTR, and no data is lost: not a failure. */
    if (close(f->fd) != 0 && errno != EINTR)
        code = ckpt_fail(err, CKPT_E_IO, "cannot close '%s': %s", f->path, strerror(errno));
    end_turns(f->turns);
    free(self);
    return code;
}

static ckpt_code local_check_unchanged(const ckpt_file *self, int *is_touched, ckpt_error *err)
{
    const local_file *f = local_of(self);
    file_identity identity;
    struct stat now;

    if (stat(f->path, &now) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot stat '%s' again: %s", f->path,
                         strerror(errno));
    identity = identity_of(&now);
    if ((uint64_t)now.st_size != self->size || identity.version != self->identity.version)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' was changed while it was being read", f->path);
    if (is_touched != NULL)
        *is_touched |= identity.touch != self->identity.touch ||
                       (uint64_t)now.st_ino != f->inode || (uint64_t)now.st_dev != f->device;
    return CKPT_OK;
}

/* ---- transfers ---- */

typedef enum { FILE_READ, FILE_WRITE } file_direction;

/* The error for a transfer that returned `got` <= 0 with `left_bytes` still to transfer. */
static ckpt_code transfer_failed(const local_file *f, file_direction direction, ssize_t got,
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

/* Transfer all runs; after a short count, continue within the run that was interrupted. */
static ckpt_code move(const local_file *f, file_runs *runs, file_direction direction,
                      ckpt_error *err)
{
    struct iovec *run = runs->memory;
    int count = runs->count;
    uint64_t offset = runs->offset;
    uint64_t left_bytes = runs->size_bytes;

    while (left_bytes > 0) {
        const ssize_t got = direction == FILE_READ ? preadv(f->fd, run, count, (off_t)offset)
                                                   : pwritev(f->fd, run, count, (off_t)offset);
        size_t moved = (size_t)got;

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return transfer_failed(f, direction, got, left_bytes, err);
        offset += (uint64_t)got;
        left_bytes -= (uint64_t)got;
        while (count > 0 && moved >= run->iov_len) {
            moved -= run->iov_len;
            run++;
            count--;
        }
        if (moved > 0) {
            run->iov_base = (unsigned char *)run->iov_base + moved;
            run->iov_len -= moved;
        }
    }
    return CKPT_OK;
}

static ckpt_code local_read(const ckpt_file *self, file_runs *runs, ckpt_error *err)
{
    return move(local_of(self), runs, FILE_READ, err);
}

static ckpt_code local_write(const ckpt_file *self, file_runs *runs, ckpt_error *err)
{
    const local_file *f = local_of(self);
    ckpt_code code;

    if (f->turns != NULL)
        take_turn(f->turns);
    code = move(f, runs, FILE_WRITE, err);
    if (f->turns != NULL)
        pthread_mutex_unlock(&f->turns->writer);
    return code;
}

static const file_ops local_ops = {
    .read = local_read,
    .check_unchanged = local_check_unchanged,
    .close = local_close,
};

/* ---- writing ---- */

/* struct iovec has no const pointer; writing does not change the data. */
ckpt_code file_write_at(ckpt_file *f, uint64_t offset, const void *data, size_t size,
                        ckpt_error *err)
{
    const file_mover mover = { f, local_write, 0 };

    return file_move_at(&mover, offset, (void *)(uintptr_t)data, size, err);
}

ckpt_code file_write_rect(ckpt_file *f, const file_rect *rect, const void *data,
                          size_t memory_pitch_bytes, ckpt_error *err)
{
    /* Gap 0: bytes between the rows must not be written. */
    const file_mover mover = { f, local_write, 0 };

    return file_move_rect(&mover, rect, (void *)(uintptr_t)data, memory_pitch_bytes, err);
}

int file_clone(const ckpt_file *from, ckpt_file *to)
{
    return from->ops == &local_ops &&
           ioctl(local_of(to)->fd, FICLONE, local_of(from)->fd) == 0;
}

file_lock_result file_lock(int fd, int operation)
{
    while (flock(fd, operation) != 0) {
        if (errno == EWOULDBLOCK)
            return FILE_LOCK_HELD;
        if (errno != EINTR)
            return FILE_NOT_LOCKED;
    }
    return FILE_LOCKED;
}

ckpt_code file_set_size(ckpt_file *f, uint64_t size, ckpt_error *err)
{
    const int fd = local_of(f)->fd;
    int result;
    const ckpt_code code = file_check_range(f, 0, size, err);

    if (code != CKPT_OK)
        return code;
    do {
        result = ftruncate(fd, (off_t)size);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot set the size of '%s' to %" PRIu64 ": %s",
                         f->path, size, strerror(errno));
    return CKPT_OK;
}

ckpt_code file_sync(ckpt_file *f, ckpt_error *err)
{
    const int fd = local_of(f)->fd;
    int result;

    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    if (result != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s", f->path, strerror(errno));
    return CKPT_OK;
}
