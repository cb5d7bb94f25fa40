/* download_tree.c: opens every component of a path separately, without following links. */
#include "download_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/size.h"
#include "libckpt/text.h"

enum { NAME_BYTES = 256 };

static ckpt_code fail_at(const char *what, const char *path, int error, ckpt_error *err)
{
    if (error == ELOOP || error == ENOTDIR)
        return hub_fail(HUB_OTHER, err, "cannot %s '%s': a symbolic link or a file is in place of "
                        "a folder", what, path);
    return hub_fail_disk(error, err, "cannot %s '%s'", what, path);
}

/* Open one folder in another; 0 leaves errno. */
static int enter(int at, const char *name, int make, int *out)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

    *out = openat(at, name, flags);
    if (*out < 0 && errno == ENOENT && make) {
        if (mkdirat(at, name, 0777) != 0 && errno != EEXIST)
            return 0;
        *out = openat(at, name, flags);
    }
    return *out >= 0;
}

const char *tree_leaf(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

/* 0, or the errno of the step that failed. */
static int find_parent(int root, const char *path, int make, int *out)
{
    const char *at = path;
    int folder = fcntl(root, F_DUPFD_CLOEXEC, 3);

    *out = -1;
    if (folder < 0)
        return errno;
    for (const char *slash = strchr(at, '/'); slash != NULL; slash = strchr(at, '/')) {
        char name[NAME_BYTES];
        const size_t size = (size_t)(slash - at);
        int next = -1;
        int error = ENAMETOOLONG;

        if (size < sizeof name) {
            memcpy(name, at, size);
            name[size] = '\0';
            error = enter(folder, name, make, &next) ? 0 : errno;
        }
        close(folder);
        if (error != 0)
            return error;
        folder = next;
        at = slash + 1;
    }
    *out = folder;
    return 0;
}

ckpt_code tree_open_parent(int root, const char *path, int make, int *out, ckpt_error *err)
{
    const int error = find_parent(root, path, make, out);

    return error == 0 ? CKPT_OK : fail_at(make ? "make the folder of" : "open", path, error, err);
}

ckpt_code tree_open_folder(int root, const char *path, int *out, ckpt_error *err)
{
    int parent;
    int error = 0;
    ckpt_code code = tree_open_parent(root, path, 1, &parent, err);

    *out = -1;
    if (code != CKPT_OK)
        return code;
    if (!enter(parent, tree_leaf(path), 1, out))
        error = errno;
    close(parent);
    return error != 0 ? fail_at("open the folder", path, error, err) : CKPT_OK;
}

static ckpt_code fail_kind(const char *path, ckpt_error *err)
{
    return hub_fail(HUB_OTHER, err, "cannot open '%s': expected a regular file, got something else",
                    path);
}

/* Open without blocking: a named pipe would wait for a writer. */
static ckpt_code open_regular(int parent, const char *path, int flags, int *out, ckpt_error *err)
{
    struct stat status;
    ckpt_code code;

    *out = openat(parent, tree_leaf(path), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    if (*out < 0) {
        const int error = errno;

        /* The errors of sockets, pipes without a reader, and folders. */
        return error == ENXIO || error == EISDIR ? fail_kind(path, err)
                                                 : fail_at("open", path, error, err);
    }
    if (fstat(*out, &status) != 0)
        code = fail_at("look at", path, errno, err);
    else if (!S_ISREG(status.st_mode))
        code = fail_kind(path, err);
    else
        return CKPT_OK;
    close(*out);
    *out = -1;
    return code;
}

ckpt_code tree_open_file(int root, const char *path, int flags, int *out, ckpt_error *err)
{
    int parent;
    ckpt_code code = tree_open_parent(root, path, (flags & O_CREAT) != 0, &parent, err);

    *out = -1;
    if (code != CKPT_OK)
        return code;
    code = open_regular(parent, path, flags, out, err);
    close(parent);
    return code;
}

ckpt_code tree_open_if_there(int root, const char *path, int flags, int *out, ckpt_error *err)
{
    struct stat status;
    const ckpt_code code = tree_stat(root, path, &status, err);

    *out = -1;
    if (code != CKPT_OK || status.st_mode == 0)
        return code;
    return tree_open_file(root, path, flags, out, err);
}

ckpt_code tree_read(int fd, const char *path, void *out, size_t room, size_t *size,
                    ckpt_error *err)
{
    *size = 0;
    while (*size < room) {
        const ssize_t got = pread(fd, (char *)out + *size, room - *size, (off_t)*size);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_at("read", path, errno, err);
        if (got == 0)
            break;
        *size += (size_t)got;
    }
    return CKPT_OK;
}

ckpt_code tree_remove(int root, const char *path, ckpt_error *err)
{
    int parent;
    int error = find_parent(root, path, 0, &parent);

    if (error == 0) {
        if (unlinkat(parent, tree_leaf(path), 0) != 0)
            error = errno;
        close(parent);
    }
    return error == 0 || error == ENOENT ? CKPT_OK : fail_at("remove", path, error, err);
}

ckpt_code tree_stat(int root, const char *path, struct stat *out, ckpt_error *err)
{
    int parent;
    int error = find_parent(root, path, 0, &parent);

    memset(out, 0, sizeof *out);
    if (error == 0) {
        if (fstatat(parent, tree_leaf(path), out, AT_SYMLINK_NOFOLLOW) != 0)
            error = errno;
        close(parent);
    }
    if (error == 0)
        return CKPT_OK;
    memset(out, 0, sizeof *out);
    return error == ENOENT ? CKPT_OK : fail_at("look at", path, error, err);
}

static int write_text(int fd, const char *text, size_t size)
{
    errno = 0;
    while (size > 0) {
        const ssize_t put = write(fd, text, size);

        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return 0;
        text += put;
        size -= (size_t)put;
    }
    return 1;
}

static void flush(tree_out *out)
{
    if (out->error == 0 && !write_text(out->fd, out->buffer, out->used))
        out->error = errno != 0 ? errno : ENOSPC;
    out->used = 0;
}

void tree_begin(const tree_target *to, tree_out *out)
{
    out->used = 0;
    snprintf(out->name, sizeof out->name, TREE_SCRATCH "%d", (int)gettid());
    out->fd = openat(to->scratch, out->name,
                     O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    out->error = out->fd < 0 ? errno : 0;
}

int tree_put(void *context, const char *bytes, size_t size)
{
    tree_out *out = context;

    while (size > 0) {
        const size_t fits = size_min(size, sizeof out->buffer - out->used);

        memcpy(out->buffer + out->used, bytes, fits);
        out->used += fits;
        bytes += fits;
        size -= fits;
        if (out->used == sizeof out->buffer)
            flush(out);
    }
    return out->error != 0;
}

ckpt_code tree_commit(const tree_target *to, tree_out *out, int synced, ckpt_error *err)
{
    int parent = -1;

    flush(out);
    if (out->error == 0 && synced && fsync(out->fd) != 0)
        out->error = errno;
    if (out->fd >= 0 && close(out->fd) != 0 && out->error == 0)
        out->error = errno;
    if (out->error == 0)
        out->error = find_parent(to->root, to->path, 1, &parent);
    if (out->error == 0 &&
        renameat(to->scratch, out->name, parent, tree_leaf(to->path)) != 0)
        out->error = errno;
    if (out->error != 0)
        unlinkat(to->scratch, out->name, 0);
    if (out->error == 0 && synced && fsync(parent) != 0)
        out->error = errno;
    if (parent >= 0)
        close(parent);
    return out->error != 0 ? fail_at("write", to->path, out->error, err) : CKPT_OK;
}

ckpt_code tree_write(const tree_target *to, const char *text, int synced, ckpt_error *err)
{
    tree_out out;

    tree_begin(to, &out);
    tree_put(&out, text, strlen(text));
    return tree_commit(to, &out, synced, err);
}

void tree_sweep(int scratch)
{
    const int fd = openat(scratch, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL)
        if (strncmp(entry->d_name, TREE_SCRATCH, sizeof TREE_SCRATCH - 1) == 0 ||
            text_ends_with(entry->d_name, TREE_SCRATCH_END))
            unlinkat(scratch, entry->d_name, 0);
    if (folder != NULL)
        closedir(folder);
    else if (fd >= 0)
        close(fd);
}
