/* hub_list.c: what a repository has. Names and sizes come from outside: nothing is believed. */
#include <stdlib.h>

#include "hub.h"

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
    hub_file *to;

    if (listing->count == LISTING_FILES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "the listing has more than %d files",
                         LISTING_FILES_MAX);
    if (listing->count == listing->room) {
        const size_t room = listing->room == 0 ? 256 : listing->room * 2;
        hub_file *files = realloc(listing->files, room * sizeof *files);

        if (files == NULL)
            return ckpt_fail_memory(err, "a listing", room * sizeof *files);
        listing->files = files;
        listing->room = room;
    }
    to = &listing->files[listing->count];
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

static ckpt_code refuse(const char *repo, const char *path, const char *why, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "the listing of '%s' is refused, nothing was written: "
                     "file '%s': %s", repo, path, why);
}

static ckpt_code check_file(const char *repo, const hub_file *file, ckpt_error *err)
{
    const char *complaint = hub_path_complaint(file->path);

    if (complaint != NULL)
        return refuse(repo, file->path, complaint, err);
    if (!hub_is_hex(file->hash, file->algorithm == HUB_SHA256 ? 64 : 40))
        return refuse(repo, file->path, "its hash is none", err);
    if (file->size_bytes >= UINT64_C(1) << 53)
        return refuse(repo, file->path, "its size is no size", err);
    return CKPT_OK;
}

/* A path that is also a folder of another: "a" and "a/b". */
static ckpt_code check_prefixes(const char *repo, const hub_listing *listing, ckpt_error *err)
{
    for (size_t i = 0; i < listing->count; i++) {
        const char *path = listing->files[i].path;
        char folder[4097];

        for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
            const size_t size = (size_t)(slash - path);

            memcpy(folder, path, size);
            folder[size] = '\0';
            if (hub_listing_find(listing, folder) != NULL)
                return refuse(repo, folder, "it is both a file and a folder", err);
        }
    }
    return CKPT_OK;
}

ckpt_code hub_listing_check(const char *repo, hub_listing *listing, ckpt_error *err)
{
    ckpt_code code;

    if (listing->count > 0)
        qsort(listing->files, listing->count, sizeof *listing->files, by_path);
    for (size_t i = 0; i < listing->count; i++) {
        if ((code = check_file(repo, &listing->files[i], err)) != CKPT_OK)
            return code;
        if (i > 0 && strcmp(listing->files[i - 1].path, listing->files[i].path) == 0)
            return refuse(repo, listing->files[i].path, "it is listed twice", err);
    }
    return check_prefixes(repo, listing, err);
}

const hub_file *hub_listing_find(const hub_listing *listing, const char *path)
{
    const hub_file wanted = { .path = path };

    if (listing->count == 0)
        return NULL;
    return bsearch(&wanted, listing->files, listing->count, sizeof *listing->files, by_path);
}
