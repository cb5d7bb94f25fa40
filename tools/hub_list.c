/* hub_list.c: what a repository has. Names and sizes come from outside: nothing is believed. */
#include <stdlib.h>
#include <strings.h>

#include "hub.h"
#include "libckpt/array.h"

enum { LISTING_FILES_MAX = 1000000 };

const char *hub_algorithm_name(hub_algorithm algorithm)
{
    return algorithm == HUB_SHA256 ? "sha256" : "git-sha1";
}

void hub_listing_release(hub_listing *listing)
{
    arena_release(&listing->memory);
    free(listing->files);
    memset(listing, 0, sizeof *listing);
}

static const char *keep(hub_listing *listing, const char *text)
{
    return text == NULL ? NULL : arena_strdup(&listing->memory, text, strlen(text));
}

ckpt_code hub_listing_add(hub_listing *listing, const hub_file *file, ckpt_error *err)
{
    hub_file *files;
    hub_file *to;

    if (listing->count == LISTING_FILES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "the listing has more than %d files",
                         LISTING_FILES_MAX);
    files = array_room(listing->files, listing->count, sizeof *files, "a listing", err);
    if (files == NULL)
        return CKPT_E_MEMORY;
    listing->files = files;
    to = &files[listing->count];
    *to = *file;
    to->path = keep(listing, file->path);
    to->hash = keep(listing, file->hash);
    to->oid = file->oid == file->hash ? to->hash : keep(listing, file->oid);
    to->xet_hash = keep(listing, file->xet_hash);
    if (to->path == NULL || to->hash == NULL)
        return ckpt_fail_memory(err, "a listing", strlen(file->path));
    listing->count++;
    return CKPT_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

/* NULL, or why a file cannot be taken, its neighbours known; `listing` is sorted. */
static const char *complaint_of(const hub_listing *listing, size_t i)
{
    const hub_file *file = &listing->files[i];
    const char *complaint = hub_path_complaint(file->path);

    if (complaint != NULL)
        return complaint;
    if ((i > 0 && strcmp(file[-1].path, file->path) == 0) ||
        (i + 1 < listing->count && strcmp(file[1].path, file->path) == 0))
        return "it is listed twice";
    return NULL;
}

/* Files that are also folders of others: "a" and "a/b". */
static void find_folders(const hub_listing *listing, const char **why)
{
    for (size_t i = 0; i < listing->count; i++) {
        const char *path = listing->files[i].path;
        char folder[4097];

        if (why[i] != NULL)      /* it may be longer than any path */
            continue;
        for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            const size_t size = (size_t)(slash - path);
            const hub_file *found;

            memcpy(folder, path, size);
            folder[size] = '\0';
            if ((found = hub_listing_find(listing, folder)) != NULL)
                why[found - listing->files] = "it is both a file and a folder";
        }
    }
}

static ckpt_code check_values(const char *repo, const hub_file *file, ckpt_error *err)
{
    const char *why = NULL;

    if (!hub_is_hex(file->hash, file->algorithm == HUB_SHA256 ? 64 : 40))
        why = "its hash is none";
    else if (file->size_bytes >= UINT64_C(1) << 53)
        why = "its size is no size";
    if (why == NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "the listing of '%s' is refused, nothing was written: "
                     "file '%s': %s", repo, file->path, why);
}

/* What is unsafe stops everything, or is left out. */
static ckpt_code take_safe(const char *repo, hub_listing *listing, const char *const *why,
                           int skip_unsafe, ckpt_error *err)
{
    const char *first_why = NULL;
    size_t used = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < listing->count; i++)
        if (why[i] == NULL) {
            listing->files[used++] = listing->files[i];
        } else if (listing->unsafe_count++ == 0) {
            listing->unsafe_path = listing->files[i].path;
            first_why = why[i];
        }
    if (listing->unsafe_count > 0 && !skip_unsafe)
        return ckpt_fail(err, CKPT_E_FORMAT, "the listing of '%s' is refused, nothing was written: "
                         "%zu unsafe names, the first is '%s': %s", repo, listing->unsafe_count,
                         listing->unsafe_path, first_why);
    listing->count = used;
    for (size_t i = 0; i < used && code == CKPT_OK; i++)
        code = check_values(repo, &listing->files[i], err);
    return code;
}

ckpt_code hub_listing_check(const char *repo, hub_listing *listing, int skip_unsafe,
                            ckpt_error *err)
{
    const char **why = calloc(listing->count + 1, sizeof *why);
    ckpt_code code;

    if (why == NULL)
        return ckpt_fail_memory(err, "a listing", listing->count * sizeof *why);
    if (listing->count > 0)
        qsort(listing->files, listing->count, sizeof *listing->files, by_path);
    for (size_t i = 0; i < listing->count; i++)
        why[i] = complaint_of(listing, i);
    find_folders(listing, why);
    code = take_safe(repo, listing, why, skip_unsafe, err);
    free(why);
    return code;
}

const hub_file *hub_listing_find(const hub_listing *listing, const char *path)
{
    const hub_file wanted = { .path = path };

    if (listing->count == 0)
        return NULL;
    return bsearch(&wanted, listing->files, listing->count, sizeof *listing->files, by_path);
}

static int by_folded_path(const void *a, const void *b)
{
    return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

ckpt_code hub_listing_twins(const hub_listing *listing, const char *twins[2], ckpt_error *err)
{
    const char **paths = calloc(listing->count + 1, sizeof *paths);
    size_t count = 0;

    twins[0] = twins[1] = NULL;
    if (paths == NULL)
        return ckpt_fail_memory(err, "a listing", listing->count * sizeof *paths);
    for (size_t i = 0; i < listing->count; i++)
        if (listing->files[i].is_selected)
            paths[count++] = listing->files[i].path;
    qsort(paths, count, sizeof *paths, by_folded_path);
    for (size_t i = 1; i < count && twins[0] == NULL; i++)
        if (strcasecmp(paths[i - 1], paths[i]) == 0) {
            twins[0] = paths[i - 1];
            twins[1] = paths[i];
        }
    free(paths);
    return CKPT_OK;
}
