/* download_tree.c: every step of a path is opened on its own, without following links. */
#include "download_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/text.h"

enum { NAME_BYTES = 256, TEMPORARY_BYTES = 32 };

static ckpt_code fail_at(const char *what, const char *path, int error, ckpt_error *err)
{
    if (error == ELOOP || error == ENOTDIR)
        return ckpt_fail(err, CKPT_E_IO, "cannot %s '%s': a link or a file stands where a folder "
                         "is expected", what, path);
    return ckpt_fail(err, CKPT_E_IO, "cannot %s '%s': %s", what, path, strerror(error));
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

ckpt_code tree_open_parent(int root, const char *path, int make, int *out, ckpt_error *err)
{
    const char *at = path;
    int folder = fcntl(root, F_DUPFD_CLOEXEC, 3);

    *out = -1;
    if (folder < 0)
        return fail_at("open", path, errno, err);
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
            return fail_at(make ? "make the folder of" : "open", path, error, err);
        folder = next;
        at = slash + 1;
    }
    *out = folder;
    return CKPT_OK;
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

ckpt_code tree_open_file(int root, const char *path, int flags, int *out, ckpt_error *err)
{
    int parent;
    int error;
    ckpt_code code = tree_open_parent(root, path, (flags & O_CREAT) != 0, &parent, err);

    *out = -1;
    if (code != CKPT_OK)
        return code;
    *out = openat(parent, tree_leaf(path), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    error = errno;
    close(parent);
    if (*out < 0)
        return fail_at("open", path, error, err);
    return CKPT_OK;
}

ckpt_code tree_remove(int root, const char *path, ckpt_error *err)
{
    int parent;
    int error = 0;

    if (tree_open_parent(root, path, 0, &parent, NULL) != CKPT_OK)
        return CKPT_OK;
    if (unlinkat(parent, tree_leaf(path), 0) != 0 && errno != ENOENT)
        error = errno;
    close(parent);
    return error != 0 ? fail_at("remove", path, error, err) : CKPT_OK;
}

int tree_stat(int root, const char *path, struct stat *out)
{
    int parent;
    int found;

    if (tree_open_parent(root, path, 0, &parent, NULL) != CKPT_OK)
        return 0;
    found = fstatat(parent, tree_leaf(path), out, AT_SYMLINK_NOFOLLOW) == 0;
    close(parent);
    return found;
}

static int write_text(int fd, const char *text, size_t size)
{
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

ckpt_code tree_write(const tree_target *to, const char *text, int synced, ckpt_error *err)
{
    char temporary[TEMPORARY_BYTES];
    int parent;
    int fd;
    int error = 0;
    ckpt_code code = tree_open_parent(to->root, to->path, 1, &parent, err);

    if (code != CKPT_OK)
        return code;
    snprintf(temporary, sizeof temporary, TREE_SCRATCH "%d", (int)gettid());
    fd = openat(to->scratch, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                0666);
    if (fd < 0 || !write_text(fd, text, strlen(text)) || (synced && fsync(fd) != 0))
        error = errno;
    if (fd >= 0 && close(fd) != 0 && error == 0)
        error = errno;
    if (error == 0 && renameat(to->scratch, temporary, parent, tree_leaf(to->path)) != 0)
        error = errno;
    if (error != 0)
        unlinkat(to->scratch, temporary, 0);
    if (error == 0 && synced && fsync(parent) != 0)
        error = errno;
    close(parent);
    return error != 0 ? fail_at("write", to->path, error, err) : CKPT_OK;
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
