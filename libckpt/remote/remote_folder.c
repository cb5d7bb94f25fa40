/*
 * remote_folder.c: a folder of a remote session, as a table of operations.
 *
 * A hub has a listing. A web server has none: what a name means there is tried, and a list has the
 * files that were found.
 */
#include "remote_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/memory.h"
#include "libckpt/sha256.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "remote_check.h"
#include "remote_file.h"

enum { COPY_BYTES = 1 << 20 };

typedef struct {
    ckpt_folder base;
    remote_session *session;
    char *prefix;                /* "" or "a/b/" */
    char *path;                  /* its name in errors */
} remote_folder;

static const remote_folder *remote_of(const ckpt_folder *f)
{
    return (const remote_folder *)f;
}

static ckpt_code fail_path(const char *name, ckpt_error *err)
{
    return ckpt_fail_memory(err, "a path", strlen(name));
}

/* The path in the session of a name in the folder; malloc'd. */
static char *path_in(const remote_folder *f, const char *name)
{
    const size_t size = strlen(f->prefix) + strlen(name) + 1;
    char *path = malloc(size);

    if (path != NULL)
        snprintf(path, size, "%s%s", f->prefix, name);
    return path;
}

/* ---- lists ---- */

/* The name in the folder of a path in the session; NULL: it is not below the folder. */
static const char *name_in(const remote_folder *f, const char *path)
{
    const size_t size = strlen(f->prefix);

    return strncmp(path, f->prefix, size) == 0 && path[size] != '\0' ? path + size : NULL;
}

/* All files below the folder, sorted. */
static ckpt_code list_names(const remote_folder *f, file_list *out, ckpt_error *err)
{
    remote_session *s = f->session;
    ckpt_code code = CKPT_OK;
    size_t count;

    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&s->lock);
    count = s->is_plain ? s->entry_count : s->listing.count;
    for (size_t i = 0; i < count && code == CKPT_OK; i++) {
        const int is_there = !s->is_plain || (s->entries[i]->is_known && !s->entries[i]->is_absent);
        const char *name = name_in(f, s->is_plain ? s->entries[i]->file.path
                                                  : s->listing.files[i].path);

        if (is_there && name != NULL)
            code = file_list_add(out, name, err);
    }
    pthread_mutex_unlock(&s->lock);
    if (out->count > 0)
        qsort(out->names, out->count, sizeof *out->names, text_order);
    return code;
}

/* file_list_tree leaves such names out. */
static int is_hidden(const char *name)
{
    for (const char *at = name; at != NULL; at = strchr(at, '/')) {
        at += at != name;
        if (at[0] == '.' && strcmp(at, ".metadata") != 0)
            return 1;
    }
    return 0;
}

static ckpt_code remote_list_tree(const ckpt_folder *self, file_list *out, ckpt_error *err)
{
    file_list all;
    ckpt_code code = list_names(remote_of(self), &all, err);

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < all.count && code == CKPT_OK; i++)
        if (!is_hidden(all.names[i]))
            code = file_list_add(out, all.names[i], err);
    file_list_free(&all);
    return code;
}

static ckpt_code remote_list(const ckpt_folder *self, folder_visit_fn *visit, void *context,
                             ckpt_error *err)
{
    file_list all;
    ckpt_code code = list_names(remote_of(self), &all, err);
    char last[4096] = "";

    for (size_t i = 0; i < all.count && code == CKPT_OK; i++) {
        char name[sizeof last];

        /* The files of a sub-folder are neighbours. */
        snprintf(name, sizeof name, "%.*s", (int)strcspn(all.names[i], "/"), all.names[i]);
        if (strcmp(name, last) == 0)
            continue;
        memcpy(last, name, sizeof last);
        if (visit(context, name))
            break;
    }
    file_list_free(&all);
    return code;
}

int remote_folder_exists(const ckpt_folder *f)
{
    file_list all;
    const ckpt_code code = list_names(remote_of(f), &all, NULL);
    const int found = all.count > 0;

    file_list_free(&all);
    return code != CKPT_OK || found;
}

/* ---- single files ---- */

static ckpt_code find(const remote_folder *f, const char *name, remote_entry **out,
                      ckpt_error *err)
{
    char *path = path_in(f, name);
    const ckpt_code code =
        path == NULL ? fail_path(name, err) : remote_session_find(f->session, path, out, err);

    free(path);
    return code;
}

/* A sub-folder exists if a file in it does. */
static int has_folder(const remote_folder *f, const char *name)
{
    const size_t size = strlen(name);
    file_list all;
    int found = list_names(f, &all, NULL) != CKPT_OK;

    for (size_t i = 0; i < all.count && !found; i++)
        found = strncmp(all.names[i], name, size) == 0 && all.names[i][size] == '/';
    file_list_free(&all);
    return found;
}

static int remote_has(const ckpt_folder *self, const char *name)
{
    const remote_folder *f = remote_of(self);
    remote_entry *entry = NULL;

    if (name[0] == '\0')
        return 0;
    return find(f, name, &entry, NULL) != CKPT_OK || entry != NULL || has_folder(f, name);
}

/* Open a file; *listed, unless NULL: what the hub says of it. */
static ckpt_code open_listed(const ckpt_folder *self, const char *name, ckpt_file **out,
                             const hub_file **listed, ckpt_error *err)
{
    const remote_folder *f = remote_of(self);
    remote_entry *entry = NULL;
    char *path = path_in(f, name);
    ckpt_code code;

    *out = NULL;
    if (path == NULL)
        return fail_path(name, err);
    if ((code = remote_session_find(f->session, path, &entry, err)) == CKPT_OK && entry == NULL)
        code = remote_session_fail_absent(f->session, path, err);
    free(path);
    if (code != CKPT_OK)
        return code;
    if (listed != NULL)
        *listed = &entry->file;
    return remote_file_open(f->session, entry, out, err);
}

static ckpt_code remote_open_file(const ckpt_folder *self, const char *name, ckpt_file **out,
                                  ckpt_error *err)
{
    return open_listed(self, name, out, NULL, err);
}

/* ---- whole files ---- */

/* Their bytes must have the hash that the hub lists. *out = NULL: a web server lists none. */
static ckpt_code begin_hash(const hub_file *listed, sha256 **out, ckpt_error *err)
{
    *out = NULL;
    if (listed->hash == NULL)
        return CKPT_OK;
    return listed->algorithm == HUB_SHA256 ? sha256_begin(out, err)
                                           : git_blob_begin(listed->size_bytes, out, err);
}

/* Consumes the hash. */
static ckpt_code check_hash(const hub_file *listed, sha256 *hash, const char *path,
                            ckpt_error *err)
{
    char got[SHA256_HEX];
    ckpt_code code;

    if (hash == NULL || (code = sha256_end(hash, got, err)) != CKPT_OK)
        return hash == NULL ? CKPT_OK : code;
    if (strcmp(got, listed->hash) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not the file that its hub lists: expected %s %s, "
                     "got %s", path, hub_algorithm_name(listed->algorithm), listed->hash, got);
}

static ckpt_code check_bytes(const hub_file *listed, const void *bytes, const char *path,
                             ckpt_error *err)
{
    sha256 *hash;
    ckpt_code code = begin_hash(listed, &hash, err);

    if (code == CKPT_OK && hash != NULL)
        code = sha256_add(hash, bytes, (size_t)listed->size_bytes, err);
    if (code == CKPT_OK)
        return check_hash(listed, hash, path, err);
    sha256_abort(hash);
    return code;
}

static ckpt_code remote_read_all(const ckpt_folder *self, const char *name, uint64_t max_bytes,
                                 char **out, size_t *size, ckpt_error *err)
{
    ckpt_file *file = NULL;
    char *bytes = NULL;
    const hub_file *listed = NULL;
    uint64_t total;
    ckpt_code code = open_listed(self, name, &file, &listed, err);

    if (code != CKPT_OK)
        return code;
    total = file_size(file);
    if (total > max_bytes)
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %llu bytes, got "
                         "%llu", file_path(file), (unsigned long long)max_bytes,
                         (unsigned long long)total);
    else if (!memory_has(total + 1) || (bytes = malloc(total + 1)) == NULL)
        code = ckpt_fail_memory(err, file_path(file), total + 1);
    else if ((code = file_read_at(file, 0, bytes, (size_t)total, err)) == CKPT_OK)
        code = check_bytes(listed, bytes, file_path(file), err);
    file_close(file, NULL);
    if (code != CKPT_OK) {
        free(bytes);
        return code;
    }
    bytes[total] = '\0';
    *out = bytes;
    *size = (size_t)total;
    return CKPT_OK;
}

/* Also adds the bytes to the hash, unless that is NULL. */
static ckpt_code copy_bytes(const ckpt_file *from, ckpt_file *to, sha256 *hash, ckpt_error *err)
{
    const uint64_t total = file_size(from);
    char *buffer = malloc(COPY_BYTES);
    ckpt_code code = CKPT_OK;

    if (buffer == NULL)
        return ckpt_fail_memory(err, "a copy buffer", COPY_BYTES);
    for (uint64_t at = 0; at < total && code == CKPT_OK; at += COPY_BYTES) {
        const size_t size = (size_t)size_min(COPY_BYTES, total - at);

        if ((code = file_read_at(from, at, buffer, size, err)) == CKPT_OK)
            code = file_write_at(to, at, buffer, size, err);
        if (code == CKPT_OK && hash != NULL)
            code = sha256_add(hash, buffer, size, err);
    }
    free(buffer);
    return code;
}

static ckpt_code copy_checked(const ckpt_file *from, ckpt_file *to, const hub_file *listed,
                              ckpt_error *err)
{
    sha256 *hash;
    ckpt_code code = begin_hash(listed, &hash, err);

    if (code == CKPT_OK && (code = copy_bytes(from, to, hash, err)) == CKPT_OK)
        return check_hash(listed, hash, file_path(from), err);
    sha256_abort(hash);
    return code;
}

static ckpt_code remote_copy(const ckpt_folder *self, const char *name, const char *to,
                             ckpt_error *err)
{
    ckpt_file *from = NULL;
    ckpt_file *file = NULL;
    const hub_file *listed = NULL;
    ckpt_code code;

    if ((code = open_listed(self, name, &from, &listed, err)) != CKPT_OK ||
        (code = file_begin_replacing(to, &file, err)) != CKPT_OK) {
        file_close(from, NULL);
        return code;
    }
    code = copy_checked(from, file, listed, err);
    file_close(from, NULL);
    if (code == CKPT_OK)
        return file_commit_replacing(file, to, err);
    file_abort_replacing(file);
    return code;
}

/* ---- the folder ---- */

static ckpt_code remote_enter(const ckpt_folder *self, const char *name, ckpt_folder **out,
                              ckpt_error *err)
{
    const remote_folder *f = remote_of(self);
    char *path = path_in(f, name);
    const ckpt_code code =
        path == NULL ? fail_path(name, err) : remote_folder_open(f->session, path, out, err);

    free(path);
    return code;
}

static ckpt_code remote_check_opened(const ckpt_folder *self, ckpt_error *err)
{
    return remote_check_all(remote_of(self)->session, err);
}

static void remote_close(ckpt_folder *self)
{
    remote_folder *f = (remote_folder *)self;

    if (f->session != NULL)
        remote_session_drop(f->session);
    free(f->prefix);
    free(f->path);
    free(f);
}

static const folder_ops remote_ops = {
    .list = remote_list,
    .list_tree = remote_list_tree,
    .has = remote_has,
    .open = remote_open_file,
    .read_all = remote_read_all,
    .copy = remote_copy,
    .enter = remote_enter,
    .close = remote_close,
    .check_unchanged = remote_check_opened,
};

ckpt_code remote_folder_open(remote_session *s, const char *path, ckpt_folder **out,
                             ckpt_error *err)
{
    remote_folder *f = calloc(1, sizeof *f);
    const size_t size = strlen(path) + 2;

    *out = NULL;
    if (f == NULL)
        return ckpt_fail_memory(err, "a folder", sizeof *f);
    f->path = path[0] == '\0' ? strdup(s->root) : file_join(s->root, path);
    if ((f->prefix = malloc(size)) == NULL || f->path == NULL) {
        remote_close(&f->base);
        return fail_path(path, err);
    }
    snprintf(f->prefix, size, "%s%s", path, path[0] == '\0' ? "" : "/");
    remote_session_hold(s);
    f->session = s;
    f->base = (ckpt_folder){ .ops = &remote_ops, .path = f->path,
                             .held_bytes = s->cache.memory_bytes };
    *out = &f->base;
    return CKPT_OK;
}
