/* hub_list.c: the listing of a repository. Names and sizes are untrusted input. */
#include <inttypes.h>
#include <stdlib.h>
#include <strings.h>

#include "hub.h"
#include "libckpt/array.h"
#include "libckpt/memory.h"
#include "libckpt/text.h"

enum { PAGES_MAX = 10000, ENTRIES_MAX = 1000000, LISTING_BYTES_MAX = 1 << 30 };

const char *hub_algorithm_name(hub_algorithm algorithm)
{
    return algorithm == HUB_SHA256 ? "sha256" : "git-sha1";
}

ckpt_code hub_fail_listing(const hub *h, const char *what, ckpt_error *err)
{
    return hub_fail(HUB_OTHER, err, "bad listing of '%s': %s", h->options.repo, what);
}

void hub_listing_release(hub_listing *listing)
{
    arena_release(&listing->memory);
    array_free_counted(listing->files, listing->room_count, sizeof *listing->files);
    memset(listing, 0, sizeof *listing);
}

static const char *keep(hub_listing *listing, const char *text)
{
    return text == NULL ? NULL : arena_strdup(&listing->memory, text, strlen(text));
}

ckpt_code hub_listing_count_page(hub_listing *listing, size_t entry_count, size_t text_bytes,
                                 ckpt_error *err)
{
    listing->page_count++;
    listing->entry_count += entry_count;
    listing->text_bytes += text_bytes;
    if (listing->page_count <= PAGES_MAX && listing->entry_count <= ENTRIES_MAX &&
        listing->text_bytes <= LISTING_BYTES_MAX)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "the listing is too long: expected at most %d pages, %d "
                     "entries, %d bytes, got %" PRIu64 " pages, %" PRIu64 " entries, %" PRIu64
                     " bytes", PAGES_MAX, ENTRIES_MAX, LISTING_BYTES_MAX, listing->page_count,
                     listing->entry_count, listing->text_bytes);
}

ckpt_code hub_listing_add(hub_listing *listing, const hub_file *file, ckpt_error *err)
{
    hub_file *files;
    hub_file *to;

    if (listing->count == ENTRIES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "the listing has more than %d files", ENTRIES_MAX);
    files = array_room_counted(listing->files, listing->count, sizeof *files, "a listing", err);
    if (files == NULL)
        return CKPT_E_MEMORY;
    listing->files = files;
    listing->room_count = listing->count + 1;
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

/* NULL, or why a file is refused, considering its neighbours; `listing` is sorted. */
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
        why = "its hash is invalid";
    else if (file->size_bytes >= UINT64_C(1) << 53)
        why = "its size is invalid";
    if (why == NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "the listing of '%s' is refused, nothing was written: "
                     "file '%s': %s", repo, file->path, why);
}

/* Unsafe names are an error, or are skipped. */
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
                         "%s, the first is '%s': %s", repo,
                         text_count(listing->unsafe_count, "unsafe name", "unsafe names").text,
                         listing->unsafe_path, first_why);
    listing->count = used;
    for (size_t i = 0; i < used && code == CKPT_OK; i++)
        code = check_values(repo, &listing->files[i], err);
    return code;
}

ckpt_code hub_listing_check(const char *repo, hub_listing *listing, int skip_unsafe,
                            ckpt_error *err)
{
    const uint64_t bytes = listing->count * (sizeof(char *) + sizeof *listing->files);
    const char **why;
    ckpt_code code;

    /* Sorting needs as much memory as the array. */
    if (!memory_has(bytes) || (why = calloc(listing->count + 1, sizeof *why)) == NULL)
        return ckpt_fail_memory(err, "a listing", bytes);
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
    const uint64_t bytes = listing->count * 2 * sizeof(char *);
    const char **paths;
    size_t count = 0;

    twins[0] = twins[1] = NULL;
    if (!memory_has(bytes) || (paths = calloc(listing->count + 1, sizeof *paths)) == NULL)
        return ckpt_fail_memory(err, "a listing", bytes);
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
