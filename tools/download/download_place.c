/* download_place.c: opens and examines the download folder or cache, and puts files into it. */
#include "download_place.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "download_side.h"
#include "download_tree.h"
#include "libckpt/array.h"
#include "libckpt/file.h"
#include "libckpt/memory.h"
#include "libckpt/sha256.h"

enum { METADATA_BYTES = 200 };

/* Name of the file below the root. */
static int target_of(const place *p, const hub_file *file, char out[PLACE_PATH_BYTES])
{
    return p->is_cache ? place_format(out, "blobs/%s%s", file->hash, "")
                       : place_format(out, "%s%s", file->path, "");
}

static ckpt_code too_long(const hub_file *file, ckpt_error *err)
{
    return hub_fail(HUB_OTHER, err, "the path of '%s' is too long in this folder", file->path);
}

static ckpt_code blocked(const char *target, const struct stat *status, ckpt_error *err)
{
    return hub_fail(HUB_OTHER, err, "'%s' is %s: expected a file or nothing", target,
                    S_ISDIR(status->st_mode) ? "a folder" : "not a regular file");
}

/* ---- opening ---- */

/* The commit in refs/REV of a cache; "" if there is none. */
static ckpt_code read_ref(const char *root, const char *revision, char commit[41], ckpt_error *err)
{
    enum { COMMIT_BYTES_MAX = 64 };
    char *path = NULL;
    char *text = NULL;
    size_t size;
    ckpt_code code = CKPT_OK;

    if (hub_path_complaint(revision) != NULL)
        return CKPT_OK;
    if (asprintf(&path, "%s/refs/%s", root, revision) < 0)
        return ckpt_fail_memory(err, "a path", strlen(revision));
    if (file_exists(path) &&
        (code = file_read_all(path, COMMIT_BYTES_MAX, &text, &size, err)) == CKPT_OK)
        snprintf(commit, 41, "%.*s", hub_is_hex(text, 40) ? 40 : 0, text);
    free(path);
    free(text);
    return code;
}

ckpt_code place_kept_listing(const place_options *options, char **out, ckpt_error *err)
{
    const char *revision = options->h->options.revision;
    char commit[41] = "";
    char *root = place_root_of(options);
    ckpt_code code = CKPT_OK;

    *out = NULL;
    if (root == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    if (options->local_dir == NULL && hub_is_hex(revision, 40))
        snprintf(commit, sizeof commit, "%s", revision);
    else if (options->local_dir == NULL)
        code = read_ref(root, revision, commit, err);
    if (code == CKPT_OK && (options->local_dir != NULL || *commit != '\0') &&
        asprintf(out, options->local_dir != NULL ? "%s/" PLACE_SIDE "/listing.json%s"
                                                 : "%s/ckpt/listing-%s.json", root, commit) < 0) {
        *out = NULL;
        code = ckpt_fail_memory(err, "a path", 0);
    }
    if (*out != NULL && !file_exists(*out)) {
        free(*out);
        *out = NULL;
    }
    free(root);
    return code;
}

static ckpt_code open_root(place *p, const char *root, ckpt_error *err)
{
    char absolute[PATH_MAX];
    ckpt_code code;

    if (!p->options.dry_run && (code = place_make_root(root, err)) != CKPT_OK)
        return code;
    p->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->root_fd < 0 && !(p->options.dry_run && errno == ENOENT))
        return hub_fail_disk(errno, err, "cannot open '%s'", root);
    p->root = strdup(realpath(root, absolute) != NULL ? absolute : root);
    if (p->root == NULL || asprintf(&p->shown, p->is_cache ? "%s/snapshots/%s" : "%s", p->root,
                                    p->options.listing->commit) < 0)
        return ckpt_fail_memory(err, "a path", 0);
    return CKPT_OK;
}

/* A converter started by a download ends with it, but not at the same instant. */
static int take_lock(int fd)
{
    static const struct timespec pause = { 0, 50000000 };
    enum { TRIES = 40 };

    for (int i = 0; i < TRIES; i++) {
        if (file_lock(fd, LOCK_EX | LOCK_NB) != FILE_LOCK_HELD)
            return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static ckpt_code open_side(place *p, ckpt_error *err)
{
    const char *name = p->is_cache ? "ckpt" : PLACE_SIDE;
    struct stat status;
    ckpt_code code;

    if (p->root_fd < 0)          /* a dry run, and the folder does not exist */
        return CKPT_OK;
    if ((code = tree_stat(p->root_fd, name, &status, err)) != CKPT_OK ||
        (p->options.dry_run && status.st_mode == 0))
        return code;
    if ((code = tree_open_folder(p->root_fd, name, &p->side_fd, err)) != CKPT_OK ||
        p->options.dry_run)
        return code;
    if ((code = tree_open_file(p->side_fd, "lock", O_RDWR | O_CREAT, &p->lock_fd, err)) != CKPT_OK)
        return code;
    if (!take_lock(p->lock_fd))
        return hub_fail(HUB_OTHER, err, "another ckpt-download is using '%s'", p->root);
    tree_sweep(p->side_fd);
    return CKPT_OK;
}

static ckpt_code make_key(const hub_options *h, const char *path, char out[PARTIAL_KEY_BYTES],
                          ckpt_error *err)
{
    char hex[SHA256_HEX];
    sha256 *hash;
    ckpt_code code;

    if ((code = sha256_begin(&hash, err)) != CKPT_OK)
        return code;
    if ((code = sha256_add(hash, h->type, strlen(h->type) + 1, err)) != CKPT_OK ||
        (code = sha256_add(hash, h->repo, strlen(h->repo) + 1, err)) != CKPT_OK ||
        (code = sha256_add(hash, path, strlen(path), err)) != CKPT_OK) {
        sha256_abort(hash);
        return code;
    }
    if ((code = sha256_end(hash, hex, err)) == CKPT_OK)
        snprintf(out, PARTIAL_KEY_BYTES, "%.*s", PARTIAL_KEY_BYTES - 1, hex);
    return code;
}

/* Compute all keys once: whatever is stored beside a file is named by its key. */
static ckpt_code make_keys(place *p, ckpt_error *err)
{
    const hub_listing *listing = p->options.listing;
    const uint64_t bytes = listing->count * sizeof *p->keys;
    ckpt_code code = CKPT_OK;

    if (listing->count == 0)
        return CKPT_OK;
    if (!memory_take(bytes))
        return ckpt_fail_memory(err, "the names of partials", bytes);
    if ((p->keys = calloc(listing->count, sizeof *p->keys)) == NULL) {
        memory_give(bytes);
        return ckpt_fail_memory(err, "the names of partials", bytes);
    }
    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        code = make_key(&p->options.h->options, listing->files[i].path, p->keys[i], err);
    return code;
}

ckpt_code place_open(const place_options *options, place **out, ckpt_error *err)
{
    place *p = calloc(1, sizeof *p);
    char *root = p == NULL ? NULL : place_root_of(options);
    ckpt_code code;

    *out = p;
    if (p == NULL || root == NULL) {
        free(root);
        return ckpt_fail_memory(err, "a place", sizeof *p);
    }
    p->options = *options;
    p->is_cache = options->local_dir == NULL;
    p->is_hf = options->h->kind == &hub_huggingface;
    p->root_fd = p->side_fd = p->lock_fd = p->verified_fd = -1;
    arena_init(&p->memory);
    table_init(&p->verified);
    pthread_mutex_init(&p->mutex, NULL);
    if ((code = make_keys(p, err)) == CKPT_OK && (code = open_root(p, root, err)) == CKPT_OK &&
        (code = open_side(p, err)) == CKPT_OK)
        code = place_load_verified(p, err);
    free(root);
    return code;
}

void place_close(place *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < 4; i++) {
        const int fds[] = { p->root_fd, p->side_fd, p->lock_fd, p->verified_fd };

        if (fds[i] >= 0)
            close(fds[i]);
    }
    table_release(&p->verified);
    arena_release(&p->memory);
    pthread_mutex_destroy(&p->mutex);
    array_free_counted(p->records, p->record_count, sizeof *p->records);
    if (p->keys != NULL)
        memory_give(p->options.listing->count * sizeof *p->keys);
    free(p->keys);
    free(p->root);
    free(p->shown);
    free(p);
}

/* ---- examining files ---- */

/* The Python client's record of a file; 0: none. */
static int read_metadata(const place *p, const char *path, char out[METADATA_BYTES])
{
    ssize_t got;
    int fd;
    ckpt_error ignored;

    if (tree_open_file(p->root_fd, path, O_RDONLY, &fd, &ignored) != CKPT_OK)
        return 0;
    got = read(fd, out, METADATA_BYTES - 1);
    close(fd);
    out[got > 0 ? got : 0] = '\0';
    return got > 0;
}

/* Its rule: the hash is the listed one, and the file is not newer than the record. A blob of the
 * cache is named by its hash. */
static int is_trusted(const place *p, const hub_file *file, const struct stat *status)
{
    char path[PLACE_PATH_BYTES];
    char text[METADATA_BYTES];
    char etag[65];
    double when;

    if (!p->options.trust_metadata)
        return 0;
    if (p->is_cache)
        return 1;
    return place_format(path, ".cache/huggingface/download/%s%s", file->path, ".metadata") &&
           read_metadata(p, path, text) && sscanf(text, "%*40[0-9a-f] %64[0-9a-f] %lf", etag,
                                                  &when) == 2 &&
           strcmp(etag, file->hash) == 0 && (double)status->st_mtim.tv_sec - 1 <= when;
}

place_state place_look(const place *p, const hub_file *file, ckpt_error *err)
{
    char target[PLACE_PATH_BYTES];
    struct stat status;

    if (p->root_fd < 0)
        return PLACE_ABSENT;
    if (!target_of(p, file, target)) {
        too_long(file, err);
        return PLACE_UNREADABLE;
    }
    if (tree_stat(p->root_fd, target, &status, err) != CKPT_OK)
        return PLACE_UNREADABLE;
    if (status.st_mode != 0 && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
        blocked(target, &status, err);
        return PLACE_BLOCKED;
    }
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != file->size_bytes)
        return PLACE_ABSENT;
    if (place_is_recorded(p, target, file->hash, &status))
        return PLACE_VERIFIED;
    return is_trusted(p, file, &status) ? PLACE_TRUSTED : PLACE_UNKNOWN;
}

ckpt_code place_open_file(const place *p, const hub_file *file, int *fd, ckpt_error *err)
{
    char target[PLACE_PATH_BYTES];

    *fd = -1;
    if (!target_of(p, file, target))
        return too_long(file, err);
    return tree_open_file(p->root_fd, target, O_RDONLY, fd, err);
}

/* ---- renaming into place ---- */

/* 1 when the Python client's record names this commit and hash already. */
static int has_metadata(const place *p, const char *path, const char *text)
{
    const size_t lines_bytes = (size_t)(strrchr(text, '\n') - text);
    char there[METADATA_BYTES];

    return read_metadata(p, path, there) && strncmp(there, text, lines_bytes) == 0;
}

/* For the Python client. If this cannot be written, the client hashes again, but our download does
 * not fail. */
static void write_metadata(place *p, const hub_file *file, int is_unchanged)
{
    char path[PLACE_PATH_BYTES];
    char text[200];
    struct timespec now;
    size_t used;
    ckpt_error ignored;

    if (!p->is_hf || p->is_cache ||
        !place_format(path, ".cache/huggingface/download/%s%s", file->path, ".metadata"))
        return;
    used = (size_t)snprintf(text, sizeof text, "%s\n%s\n", p->options.listing->commit,
                            file->hash);
    if (is_unchanged && has_metadata(p, path, text))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text + used, sizeof text - used, "%lld.%06ld\n", (long long)now.tv_sec,
             now.tv_nsec / 1000);
    tree_write(&(tree_target){ p->root_fd, path, p->side_fd }, text, 0, &ignored);
}

/* snapshots/COMMIT/PATH -> blobs/HASH: a relative link, or a copy of the file if links are not
 * possible. */
static ckpt_code link_snapshot(place *p, const hub_file *file, ckpt_error *err)
{
    static const char temporary[] = TREE_SCRATCH "link";
    const char *disabled = getenv("HF_HUB_DISABLE_SYMLINKS");
    char path[PLACE_PATH_BYTES];
    char to[PLACE_PATH_BYTES] = "../../";
    char blob[PLACE_PATH_BYTES];
    const char *leaf = tree_leaf(file->path);
    size_t used = 6;
    int parent;
    int failed;
    ckpt_code code;

    if (!place_format(path, "snapshots/%s/%s", p->options.listing->commit, file->path) ||
        !target_of(p, file, blob))
        return too_long(file, err);
    for (const char *c = file->path; *c != '\0'; c++)
        if (*c == '/' && used + 4 < sizeof to) {
            memcpy(to + used, "../", 4);
            used += 3;
        }
    if (strlen(blob) + used >= sizeof to)
        return too_long(file, err);
    memcpy(to + used, blob, strlen(blob) + 1);
    if ((code = tree_open_parent(p->root_fd, path, 1, &parent, err)) != CKPT_OK)
        return code;
    pthread_mutex_lock(&p->mutex);
    unlinkat(p->side_fd, temporary, 0);
    failed = (disabled != NULL && *disabled == '1') || symlinkat(to, p->side_fd, temporary) != 0;
    if (failed)
        failed = linkat(p->root_fd, blob, p->side_fd, temporary, 0) != 0;
    if (failed || renameat(p->side_fd, temporary, parent, leaf) != 0)
        code = hub_fail_disk(errno, err, "cannot link '%s'", path);
    unlinkat(p->side_fd, temporary, 0);     /* renaming one link over its equal leaves it */
    pthread_mutex_unlock(&p->mutex);
    close(parent);
    return code;
}

ckpt_code place_keep(place *p, const hub_file *file, ckpt_error *err)
{
    return p->is_cache ? link_snapshot(p, file, err) : CKPT_OK;
}

ckpt_code place_record(place *p, const hub_file *file, ckpt_error *err)
{
    char target[PLACE_PATH_BYTES];
    struct stat status;
    ckpt_code code;

    if (!target_of(p, file, target))
        return too_long(file, err);
    if ((code = tree_stat(p->root_fd, target, &status, err)) != CKPT_OK)
        return code;
    if (status.st_mode == 0)
        return hub_fail(HUB_OTHER, err, "'%s' was removed by another process", target);
    write_metadata(p, file, place_is_recorded(p, target, file->hash, &status));
    if ((code = place_append_record(p, target, file->hash, &status, err)) != CKPT_OK)
        return code;
    return place_keep(p, file, err);
}

/* Mode as for any new file, current time, synced before it is renamed. */
static ckpt_code seal(const partial *from, const hub_file *file, ckpt_error *err)
{
    const int fd = partial_fd(from);

    if (futimens(fd, NULL) != 0 || fsync(fd) != 0)
        return hub_fail_disk(errno, err, "cannot sync '%s'", file->path);
    return CKPT_OK;
}

/*
 * The order is owner check, data, rename, journal, record. A kill after any of them leaves either
 * a partial that is resumed, or a complete file that is at worst hashed once more. The owner is
 * checked first because a process that took the partial over would be writing to it.
 */
ckpt_code place_commit(place *p, const hub_file *file, partial *from, ckpt_error *err)
{
    char target[PLACE_PATH_BYTES];
    struct stat status;
    const char *leaf;
    int parent;
    ckpt_code code;

    if (!target_of(p, file, target))
        return too_long(file, err);
    leaf = tree_leaf(target);
    if ((code = partial_check_owner(from, err)) != CKPT_OK ||
        (code = seal(from, file, err)) != CKPT_OK ||
        (code = tree_open_parent(p->root_fd, target, 1, &parent, err)) != CKPT_OK)
        return code;
    if (fstatat(parent, leaf, &status, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(status.st_mode) &&
        !S_ISLNK(status.st_mode))
        code = blocked(target, &status, err);
    else if (renameat(p->side_fd, partial_name(from), parent, leaf) != 0)
        code = hub_fail_disk(errno, err, "cannot rename to '%s'", target);
    close(parent);
    if (code != CKPT_OK)
        return code;
    partial_remove_journal(from);
    return place_record(p, file, err);
}

ckpt_code place_remove(const place *p, const hub_file *file, ckpt_error *err)
{
    char path[PLACE_PATH_BYTES];
    ckpt_error ignored;

    if (place_format(path, ".cache/huggingface/download/%s%s", file->path, ".metadata"))
        tree_remove(p->root_fd, path, &ignored);
    return target_of(p, file, path) ? tree_remove(p->root_fd, path, err) : too_long(file, err);
}

/* ---- locks and partials ---- */

int place_lock(const place *p, const hub_file *file, int *fd)
{
    char path[PLACE_PATH_BYTES];
    ckpt_error ignored;
    int folder = p->root_fd;

    *fd = -1;
    if (!p->is_hf)
        return 1;
    if (p->is_cache) {
        char *name = strrchr(p->root, '/');

        if (name == NULL || !place_format(path, "../.locks%s/%s.lock", name, file->hash))
            return 1;
        *path = '.';
        /* The cache's folder, one level above ours, is trusted. */
        folder = openat(p->root_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (folder < 0)
            return 1;
        tree_open_file(folder, path + 3, O_RDWR | O_CREAT, fd, &ignored);
        close(folder);
    } else if (place_format(path, ".cache/huggingface/download/%s%s", file->path, ".lock")) {
        tree_open_file(folder, path, O_RDWR | O_CREAT, fd, &ignored);
    }
    /* Without lock support the owner's nonce in the journal still protects. */
    if (*fd < 0 || file_lock(*fd, LOCK_EX | LOCK_NB) != FILE_LOCK_HELD)
        return 1;
    close(*fd);
    *fd = -1;
    return 0;
}

void place_pass_lock(const place *p)
{
    fcntl(p->lock_fd, F_SETFD, 0);
}

partial_place place_partial(const place *p, const hub_file *file)
{
    const size_t i = (size_t)(file - p->options.listing->files);
    partial_place out = { p->side_fd, "", p->options.allocate };

    assert(i < p->options.listing->count);
    memcpy(out.key, p->keys[i], sizeof out.key);
    return out;
}

uint64_t place_need_bytes(const place *p, const hub_file *file)
{
    const partial_place at = place_partial(p, file);
    const uint64_t there = partial_allocated_bytes(&at, file);

    return there >= file->size_bytes ? 0 : file->size_bytes - there;
}

int place_free_bytes(const place *p, uint64_t *out)
{
    struct statvfs disk;

    if (p->root_fd < 0 || fstatvfs(p->root_fd, &disk) != 0 || disk.f_blocks == 0)
        return 0;
    *out = (uint64_t)disk.f_bavail * disk.f_frsize;
    return 1;
}

uint64_t place_orphans(const place *p, int remove)
{
    const hub_listing *listing = p->options.listing;
    const int fd = p->side_fd < 0 ? -1 : openat(p->side_fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    uint64_t bytes = 0;

    for (struct dirent *e = folder ? readdir(folder) : NULL; e != NULL; e = readdir(folder)) {
        const char *dot = strchr(e->d_name, '.');
        const char *end = dot == NULL ? NULL : strchr(dot + 1, '.');
        struct stat status;
        int wanted = 0;

        if (end == NULL || (strcmp(end, ".part") != 0 && strncmp(end, ".state", 6) != 0 &&
                            strcmp(end, ".head") != 0))
            continue;
        for (size_t i = 0; i < listing->count && !wanted; i++)
            wanted = strncmp(listing->files[i].hash, dot + 1, (size_t)(end - dot - 1)) == 0;
        if (wanted || fstatat(p->side_fd, e->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        bytes += (uint64_t)status.st_blocks * 512;
        if (remove)
            unlinkat(p->side_fd, e->d_name, 0);
    }
    if (folder != NULL)
        closedir(folder);
    else if (fd >= 0)
        close(fd);
    return bytes;
}
