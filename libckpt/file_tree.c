/* file_tree.c: directories: listing, making, removing and syncing them. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "array.h"
#include "memory.h"
#include "text.h"

/* Overhead of an allocation, counted by memory.h. */
enum { NAME_OVERHEAD_BYTES = 16 };

int file_exists(const char *path)
{
    struct stat status;

    /* A path that cannot be examined may exist, so it must not be treated as absent. Opening it
     * will report the reason. */
    return lstat(path, &status) == 0 ||
           (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG);
}

ckpt_code file_check_reachable(const char *path, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    struct stat status;
    int fd;

    if (stat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? CKPT_OK
                   : ckpt_fail(err, CKPT_E_IO, "cannot reach '%s': %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return CKPT_OK;
    if ((fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot read the folder '%s': %s", path,
                         strerror(errno));
    if (fstatat(fd, ".", &status, 0) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot enter the folder '%s': %s", path,
                         strerror(errno));
    close(fd);
    return code;
}

int file_is_directory(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

int file_is_same(const char *a, const char *b)
{
    struct stat left;
    struct stat right;

    return stat(a, &left) == 0 && stat(b, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

char *file_join(const char *directory, const char *name)
{
    const size_t directory_length = strlen(directory);
    const size_t name_bytes = strlen(name) + 1;
    const size_t slash = directory_length > 0 && directory[directory_length - 1] != '/';
    char *path = malloc(directory_length + slash + name_bytes);

    if (path == NULL)
        return NULL;
    memcpy(path, directory, directory_length);
    if (slash)
        path[directory_length] = '/';
    memcpy(path + directory_length + slash, name, name_bytes);
    return path;
}

/* ---- making and removing ---- */

int file_begins_at_home(const char *path)
{
    return path[0] == '~' && (path[1] == '\0' || path[1] == '/');
}

ckpt_code file_fail_home(const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE,
                     "cannot write '%s': it begins with a ~ that no shell has "
                     "replaced (./~ is a folder of this name)",
                     path);
}

int file_may_clone(const char *directory)
{
    struct statfs disk;

    return statfs(directory, &disk) != 0 ||
           (disk.f_type != EXT4_SUPER_MAGIC && disk.f_type != TMPFS_MAGIC &&
            disk.f_type != RAMFS_MAGIC);
}

ckpt_code file_make_directory(const char *path, ckpt_error *err)
{
    if (mkdir(path, 0777) == 0)
        return CKPT_OK;
    if (errno == EEXIST && file_is_directory(path))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_IO, "cannot make directory '%s': %s", path, strerror(errno));
}

ckpt_code file_make_parents(const char *path, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    char *parent = strdup(path);

    if (parent == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path) + 1);
    for (char *slash = strchr(parent, '/'); slash != NULL && code == CKPT_OK;
         slash = strchr(slash + 1, '/')) {
        if (slash == parent || slash[-1] == '/')
            continue;
        *slash = '\0';
        if (!file_is_directory(parent))     /* mkdir may fail on a read-only one that exists */
            code = file_make_directory(parent, err);
        *slash = '/';
    }
    free(parent);
    return code;
}

ckpt_code file_make_parents_below(const char *directory, const char *name, ckpt_error *err)
{
    char *path = file_join(directory, name);
    ckpt_code code = CKPT_OK;
    struct stat status;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    for (char *slash = path + strlen(path) - strlen(name);
         (slash = strchr(slash, '/')) != NULL && code == CKPT_OK; slash++) {
        *slash = '\0';
        if (mkdir(path, 0777) != 0 &&
            (errno != EEXIST || lstat(path, &status) != 0 || !S_ISDIR(status.st_mode)))
            code = ckpt_fail(err, CKPT_E_IO, "cannot make directory '%s': %s", path,
                             strerror(errno));
        *slash = '/';
    }
    free(path);
    return code;
}

ckpt_code file_remove(const char *path, ckpt_error *err)
{
    if (unlink(path) != 0 && errno != ENOENT)
        return ckpt_fail(err, CKPT_E_IO, "cannot remove '%s': %s", path, strerror(errno));
    return CKPT_OK;
}

/* ---- walking ---- */

/* Called for every entry of a tree; the entry's fts_info says what it is. */
typedef ckpt_code visit_fn(FTS *tree, FTSENT *entry, void *context, ckpt_error *err);

static ckpt_code check_entry(const FTSENT *entry, ckpt_error *err)
{
    switch (entry->fts_info) {
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return ckpt_fail(err, CKPT_E_IO, "cannot read '%s': %s", entry->fts_path,
                         strerror(entry->fts_errno));
    case FTS_DC:
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a link to a directory that contains it",
                         entry->fts_path);
    default:
        break;
    }
    if (entry->fts_level > FILE_TREE_DEPTH_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is nested deeper than %d directories",
                         entry->fts_path, FILE_TREE_DEPTH_MAX);
    return CKPT_OK;
}

static ckpt_code walk(const char *path, int fts_options, visit_fn *visit, void *context,
                      ckpt_error *err)
{
    char *const roots[] = { (char *)(uintptr_t)path, NULL };    /* fts_open copies it */
    FTS *tree = fts_open(roots, fts_options | FTS_NOCHDIR, NULL);
    ckpt_code code = CKPT_OK;

    if (tree == NULL)
        return ckpt_fail(err, CKPT_E_IO, "cannot read '%s': %s", path, strerror(errno));
    while (code == CKPT_OK) {
        FTSENT *entry;

        errno = 0;
        entry = fts_read(tree);
        if (entry == NULL) {
            if (errno != 0)
                code = ckpt_fail(err, CKPT_E_IO, "cannot read '%s': %s", path, strerror(errno));
            break;
        }
        if ((code = check_entry(entry, err)) == CKPT_OK)
            code = visit(tree, entry, context, err);
    }
    fts_close(tree);
    return code;
}

static ckpt_code remove_entry(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    (void)tree;
    (void)context;
    if (entry->fts_info == FTS_D)       /* visited again as FTS_DP after its entries */
        return CKPT_OK;
    if (entry->fts_info != FTS_DP)
        return file_remove(entry->fts_path, err);
    if (rmdir(entry->fts_path) != 0 && errno != ENOENT)
        return ckpt_fail(err, CKPT_E_IO, "cannot remove '%s': %s", entry->fts_path,
                         strerror(errno));
    return CKPT_OK;
}

ckpt_code file_remove_tree(const char *path, ckpt_error *err)
{
    if (!file_exists(path))
        return CKPT_OK;
    return walk(path, FTS_PHYSICAL, remove_entry, NULL, err);
}

static ckpt_code remove_empty(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    (void)tree;
    (void)context;
    if (entry->fts_info == FTS_DP && rmdir(entry->fts_path) != 0 && errno != ENOENT &&
        errno != ENOTEMPTY && errno != EEXIST)
        return ckpt_fail(err, CKPT_E_IO, "cannot remove '%s': %s", entry->fts_path,
                         strerror(errno));
    return CKPT_OK;
}

ckpt_code file_remove_empty(const char *path, ckpt_error *err)
{
    return file_exists(path) ? walk(path, FTS_PHYSICAL, remove_empty, NULL, err) : CKPT_OK;
}

static ckpt_code remove_temporary(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    static const char suffix[] = ".tmp";
    const size_t suffix_bytes = sizeof suffix - 1;

    (void)tree;
    (void)context;
    if (entry->fts_info != FTS_F || entry->fts_name[0] != '.' ||
        entry->fts_namelen < suffix_bytes ||
        strcmp(entry->fts_name + entry->fts_namelen - suffix_bytes, suffix) != 0)
        return CKPT_OK;
    return file_remove(entry->fts_path, err);
}

ckpt_code file_remove_temporaries(const char *directory, ckpt_error *err)
{
    return walk(directory, FTS_PHYSICAL | FTS_COMFOLLOW, remove_temporary, NULL, err);
}

/* ---- durability ---- */

/* fsync a file or directory by name. */
static ckpt_code sync_path(const char *path, int is_directory, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | (is_directory ? O_DIRECTORY : 0));
    int result;

    if (fd < 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot open '%s': %s", path, strerror(errno));
    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    /* Some network file systems do not support fsync of a directory: not a failure. */
    if (result != 0 && !(is_directory && errno == EINVAL))
        code = ckpt_fail(err, CKPT_E_IO, "cannot sync '%s': %s", path, strerror(errno));
    close(fd);
    return code;
}

typedef struct {
    void (*synced)(void *context, uint64_t bytes);
    void *context;
} sync_listener;

static ckpt_code sync_entry(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    const sync_listener *listener = context;
    ckpt_code code;

    (void)tree;
    if (entry->fts_info == FTS_DP)
        return sync_path(entry->fts_path, 1, err);
    if (entry->fts_info != FTS_F)
        return CKPT_OK;
    if ((code = sync_path(entry->fts_path, 0, err)) == CKPT_OK && listener->synced != NULL)
        listener->synced(listener->context, (uint64_t)entry->fts_statp->st_size);
    return code;
}

ckpt_code file_sync_tree_told(const char *path, void (*synced)(void *context, uint64_t bytes),
                              void *context, ckpt_error *err)
{
    sync_listener listener = { synced, context };

    return walk(path, FTS_PHYSICAL | FTS_COMFOLLOW, sync_entry, &listener, err);
}

ckpt_code file_sync_tree(const char *path, ckpt_error *err)
{
    return file_sync_tree_told(path, NULL, NULL, err);
}

char *file_parent(const char *path)
{
    size_t length = strlen(path);

    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length == 0 ? strdup(".") : strndup(path, length);
}

ckpt_code file_check_name(const char *path, size_t more, ckpt_error *err)
{
    char *parent = file_parent(path);
    const long longest = parent == NULL ? 0 : pathconf(parent, _PC_NAME_MAX);
    const size_t limit = longest > 0 ? (size_t)longest : NAME_MAX;
    const char *end = path + strlen(path);
    const char *begin;

    free(parent);
    if (parent == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path) + 1);
    while (end > path + 1 && end[-1] == '/')
        end--;
    for (begin = end; begin > path && begin[-1] != '/'; begin--)
        continue;
    if ((size_t)(end - begin) + more <= limit)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': its name has %zu bytes, expected at "
                     "most %zu", path, (size_t)(end - begin), limit - more);
}

ckpt_code file_check_place(const char *path, ckpt_error *err)
{
    char *parent = file_parent(path);
    ckpt_code code = CKPT_OK;
    struct stat status;

    if (parent == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path) + 1);
    if (path[0] == '\0')
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '': expected the name of a file");
    else if (strcmp(path, "-") == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '-': expected a file (use './-' for a "
                         "file of this name; standard output is not supported)");
    else if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode))
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': expected a file, got a %s", path,
                         S_ISDIR(status.st_mode)   ? "directory"
                         : S_ISLNK(status.st_mode) ? "link"
                                                   : "device or pipe");
    else if (path[strlen(path) - 1] == '/')
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': expected a file, got the name of "
                         "a folder", path);
    else if (!file_is_directory(parent) && file_begins_at_home(path))
        code = file_fail_home(path, err);
    else if (!file_is_directory(parent))
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': '%s' is not a directory", path,
                         parent);
    else if (access(parent, W_OK | X_OK) != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", path, strerror(errno));
    else
        code = file_check_name(path, 0, err);
    free(parent);
    return code;
}

char *file_rename_target(const char *path)
{
    char *parent = file_parent(path);
    char *real_parent = parent == NULL ? NULL : realpath(parent, NULL);
    char *name = strdup(path);
    char *out = NULL;

    if (real_parent != NULL && name != NULL) {
        size_t length = strlen(name);
        const char *last;

        while (length > 1 && name[length - 1] == '/')
            name[--length] = '\0';
        last = strrchr(name, '/') == NULL ? name : strrchr(name, '/') + 1;
        out = last[0] == '\0' || strcmp(last, ".") == 0 || strcmp(last, "..") == 0
                  ? realpath(path, NULL)
                  : file_join(real_parent, last);
    }
    free(name);
    free(real_parent);
    free(parent);
    return out;
}

ckpt_code file_sync_parent(const char *path, ckpt_error *err)
{
    char *parent = file_parent(path);
    ckpt_code code;

    if (parent == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path) + 1);
    code = sync_path(parent, 1, err);
    free(parent);
    return code;
}

static ckpt_code rename_failed(const char *from, const char *to, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot rename '%s' to '%s': %s", from, to,
                     strerror(errno));
}

static ckpt_code sync_rename(const char *from, const char *to, ckpt_error *err)
{
    const ckpt_code code = file_sync_parent(to, err);

    return code != CKPT_OK ? code : file_sync_parent(from, err);
}

ckpt_code file_rename_durable(const char *from, const char *to, ckpt_error *err)
{
    int result = renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);

    /* Not every file system supports RENAME_NOREPLACE; then check before the rename. */
    if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
        if (file_exists(to))
            errno = EEXIST;
        else
            result = rename(from, to);
    }
    if (result != 0)
        return rename_failed(from, to, err);
    return sync_rename(from, to, err);
}

ckpt_code file_replace_durable(const char *from, const char *to, ckpt_error *err)
{
    if (rename(from, to) != 0)
        return rename_failed(from, to, err);
    return sync_rename(from, to, err);
}

/* ---- listing ---- */

typedef struct {
    file_list *list;
    size_t root_length;
} listing;

ckpt_code file_list_add(file_list *list, const char *name, ckpt_error *err)
{
    char **names =
        array_room_counted(list->names, list->count, sizeof *names, "a list of names", err);

    if (names == NULL)
        return CKPT_E_MEMORY;
    list->names = names;
    if (!memory_take(strlen(name) + NAME_OVERHEAD_BYTES))
        return ckpt_fail_memory(err, "a list of names", strlen(name) + 1);
    names[list->count] = strdup(name);
    if (names[list->count] == NULL) {
        memory_give(strlen(name) + NAME_OVERHEAD_BYTES);
        return ckpt_fail_memory(err, "a name", strlen(name) + 1);
    }
    list->count++;
    return CKPT_OK;
}

static ckpt_code list_add(const listing *l, const char *path, ckpt_error *err)
{
    const char *name = path + l->root_length;

    while (*name == '/')
        name++;
    return file_list_add(l->list, name, err);
}

static ckpt_code list_entry(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    if (entry->fts_level == 0) {
        if (entry->fts_info == FTS_D || entry->fts_info == FTS_DP)
            return CKPT_OK;
        return ckpt_fail(err, CKPT_E_IO, "cannot list '%s': expected a directory, got a file",
                         entry->fts_path);
    }
    if (entry->fts_name[0] == '.' && strcmp(entry->fts_name, ".metadata") != 0) {
        fts_set(tree, entry, FTS_SKIP);
        return CKPT_OK;
    }
    if (entry->fts_info == FTS_SLNONE)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a link to a file that does not exist",
                         entry->fts_path);
    /* A pipe is listed, too, so that opening it reports an error instead of ignoring it. */
    if (entry->fts_info == FTS_F || entry->fts_info == FTS_DEFAULT)
        return list_add(context, entry->fts_path, err);
    return CKPT_OK;
}

static ckpt_code list_any(FTS *tree, FTSENT *entry, void *context, ckpt_error *err)
{
    (void)tree;
    if (entry->fts_info == FTS_D || entry->fts_info == FTS_DP)
        return CKPT_OK;
    return list_add(context, entry->fts_path, err);
}

static ckpt_code list(const char *directory, int fts_options, visit_fn *visit, file_list *out,
                      ckpt_error *err)
{
    listing l = { out, strlen(directory) };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    code = walk(directory, fts_options, visit, &l, err);
    if (code != CKPT_OK)
        file_list_free(out);
    else if (out->count > 1)
        qsort(out->names, out->count, sizeof *out->names, text_order);
    return code;
}

ckpt_code file_list_tree(const char *directory, file_list *out, ckpt_error *err)
{
    return list(directory, FTS_LOGICAL, list_entry, out, err);
}

ckpt_code file_list_everything(const char *directory, file_list *out, ckpt_error *err)
{
    return list(directory, FTS_PHYSICAL | FTS_COMFOLLOW, list_any, out, err);
}

int file_list_has(const file_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->names[i], name) == 0)
            return 1;
    return 0;
}

void file_list_free(file_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        memory_give(strlen(list->names[i]) + NAME_OVERHEAD_BYTES);
        free(list->names[i]);
    }
    array_free_counted(list->names, list->count, sizeof *list->names);
    memset(list, 0, sizeof *list);
}
