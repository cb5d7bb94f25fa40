/* listing.c: reads listing.json and checks the files that it lists. */
#include "listing.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "download_place.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "libckpt/sha256.h"

enum { LISTING_BYTES_MAX = 1 << 29, THREADS_MAX = 64 };

/* *out is `path`, which is consumed, or NULL if it does not exist. */
static ckpt_code find_at(char *path, char **out, ckpt_error *err)
{
    *out = NULL;
    if (path == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    if (file_exists(path))
        *out = path;
    else
        free(path);
    return CKPT_OK;
}

ckpt_code listing_find(const char *folder, char **out, ckpt_error *err)
{
    char *real = NULL;
    const char *leaf;
    char *cached = NULL;
    ckpt_code code = find_at(file_join(folder, PLACE_SIDE "/listing.json"), out, err);

    if (code != CKPT_OK || *out != NULL)
        return code;
    real = realpath(folder, NULL);           /* a file has none, and is no folder of a cache */
    leaf = real == NULL ? NULL : strrchr(real, '/');
    if (leaf != NULL) {
        if (asprintf(&cached, "%.*s/../ckpt/listing-%s.json", (int)(leaf - real), real,
                     leaf + 1) < 0)
            cached = NULL;
        code = find_at(cached, out, err);
    }
    free(real);
    return code;
}

/* ---- reading ---- */

static ckpt_code bad(const kept_listing *listing, const char *what, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s", listing->path, what);
}

static ckpt_code take_file(kept_listing *out, const json_value *entry, ckpt_error *err)
{
    const char *algorithm = json_string(json_member(entry, "algorithm"));
    hub_file file = { .path = json_string(json_member(entry, "path")),
                      .hash = json_string(json_member(entry, "hash")) };

    if (file.path == NULL || file.hash == NULL || algorithm == NULL ||
        !json_u64(json_member(entry, "size"), &file.size_bytes) ||
        !json_bool(json_member(entry, "selected"), &file.is_selected))
        return bad(out, "a file lacks path, size, hash, algorithm or selected", err);
    if (strcmp(algorithm, hub_algorithm_name(HUB_GIT_SHA1)) == 0) {
        file.algorithm = HUB_GIT_SHA1;
        file.oid = file.hash;
    } else if (strcmp(algorithm, hub_algorithm_name(HUB_SHA256)) != 0) {
        return bad(out, "expected algorithm sha256 or git-sha1", err);
    }
    return hub_listing_add(&out->files, &file, err);
}

static const char *take_text(kept_listing *out, const json_value *root, const char *key)
{
    const char *text = json_string(json_member(root, key));

    /* The name is printed, and it must not lead out of the folder. */
    if (text != NULL && hub_path_complaint(text) != NULL)
        return NULL;
    return text == NULL ? NULL : arena_strdup(&out->files.memory, text, strlen(text));
}

static ckpt_code take_document(kept_listing *out, const json_value *root, ckpt_error *err)
{
    const json_value *files = json_member(root, "files");
    const char *commit = json_string(json_member(root, "commit"));
    uint64_t version = 0;
    ckpt_code code = CKPT_OK;

    if (!json_u64(json_member(root, "version"), &version) || version != 1)
        return bad(out, "expected version 1", err);
    out->hub = take_text(out, root, "hub");
    out->repo = take_text(out, root, "repo");
    out->type = take_text(out, root, "type");
    out->revision = take_text(out, root, "revision");
    if (out->hub == NULL || out->repo == NULL || out->type == NULL || out->revision == NULL ||
        !json_is_array(files) || (commit != NULL && !hub_is_hex(commit, 40)))
        return bad(out, "it lacks hub, repo, type, revision, commit or files", err);
    snprintf(out->files.commit, sizeof out->files.commit, "%s", commit == NULL ? "" : commit);
    for (const json_value *v = json_first(files); v != NULL && code == CKPT_OK; v = json_next(v))
        code = take_file(out, v, err);
    return code == CKPT_OK ? hub_listing_check(out->repo, &out->files, 0, err) : code;
}

ckpt_code listing_read(const char *path, kept_listing *out, ckpt_error *err)
{
    json_document *document = NULL;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    arena_init(&out->files.memory);
    if ((out->path = strdup(path)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if ((code = json_parse_file(path, LISTING_BYTES_MAX, &document, err)) == CKPT_OK)
        code = take_document(out, json_root(document), err);
    json_free(document);
    return code;
}

void listing_release(kept_listing *listing)
{
    free(listing->path);
    hub_listing_release(&listing->files);
    memset(listing, 0, sizeof *listing);
}

/* ---- checking ---- */

const char *listing_verdict_name(listing_verdict verdict)
{
    static const char *const names[] = { "right", "missing", "size", "hash" };

    return names[verdict];
}

typedef struct {
    const kept_listing *listing;
    const char *folder;
    listing_result *results;
    pthread_mutex_t mutex;
    size_t next;
    ckpt_error failure;
} listing_job;

static ckpt_code check_file(const listing_job *job, size_t i, ckpt_error *err)
{
    const hub_file *file = &job->listing->files.files[i];
    listing_result *result = &job->results[i];
    char *path = file_join(job->folder, file->path);
    struct stat status;
    ckpt_code code = CKPT_OK;
    int is_there;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(file->path));
    is_there = stat(path, &status) == 0;
    if (!is_there && errno != ENOENT && errno != ENOTDIR) {
        code = ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': %s", path, strerror(errno));
    } else if (!is_there || !S_ISREG(status.st_mode)) {
        result->verdict = file->is_selected ? LISTING_MISSING : LISTING_RIGHT;
    } else if ((uint64_t)status.st_size != file->size_bytes) {
        result->verdict = LISTING_SIZE;
        snprintf(result->got, sizeof result->got, "%" PRIu64, (uint64_t)status.st_size);
    } else {
        code = file->algorithm == HUB_SHA256 ? sha256_file(path, result->got, err)
                                             : git_blob_file(path, result->got, err);
        if (code == CKPT_OK && strcmp(result->got, file->hash) != 0)
            result->verdict = LISTING_HASH;
    }
    free(path);
    return code;
}

static void *check_some(void *context)
{
    listing_job *job = context;
    ckpt_error err;

    pthread_mutex_lock(&job->mutex);
    while (job->next < job->listing->files.count && job->failure.code == CKPT_OK) {
        const size_t i = job->next++;
        ckpt_code code;

        pthread_mutex_unlock(&job->mutex);
        code = check_file(job, i, &err);
        pthread_mutex_lock(&job->mutex);
        if (code != CKPT_OK && job->failure.code == CKPT_OK)
            job->failure = err;
    }
    pthread_mutex_unlock(&job->mutex);
    return NULL;
}

ckpt_code listing_check(const kept_listing *listing, const char *folder, unsigned thread_count,
                        listing_result **results, ckpt_error *err)
{
    listing_job job = { .listing = listing, .folder = folder };
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;

    *results = job.results = calloc(listing->files.count + 1, sizeof *job.results);
    if (job.results == NULL)
        return ckpt_fail_memory(err, "hashes", listing->files.count);
    pthread_mutex_init(&job.mutex, NULL);
    while (started + 1 < thread_count && started < THREADS_MAX &&
           pthread_create(&threads[started], NULL, check_some, &job) == 0)
        started++;                 /* with fewer threads the result is the same */
    check_some(&job);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&job.mutex);
    if (job.failure.code != CKPT_OK)
        *err = job.failure;
    return job.failure.code;
}
