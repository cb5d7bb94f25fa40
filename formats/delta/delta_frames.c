/* Frames from spool files into data files. */
#include "delta_frames.h"

#include <pthread.h>
#include <stdlib.h>

#include "libckpt/sha256.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"

enum { COPY_BYTES = 1 << 18 };

/* One data file. `lock` guards the members below it. */
typedef struct {
    const delta_content *content;
    ckpt_store *store;
    uint32_t number;
    size_t first;                  /* of its entries */
    size_t end;
    char *hex;                     /* SHA-256 of the file */
    ckpt_code code;
    ckpt_error error;
    pthread_mutex_t lock;
    pthread_cond_t grown;
    uint64_t ready_bytes;          /* of the file, from its beginning */
    int is_ended;                  /* no more bytes will come */
} frame_file;

/* All data files; `lock` guards `next`. */
typedef struct {
    frame_file *files;
    uint32_t count;
    int hashes_beside;             /* by a thread of its own */
    pthread_mutex_t lock;
    uint32_t next;
} frame_job;

/* ---- the hash, behind the copy ---- */

/* Wait for more than `at` bytes; what there is, which is no more than `at` at the end. */
static uint64_t wait_for_bytes(frame_file *f, uint64_t at)
{
    uint64_t ready;

    pthread_mutex_lock(&f->lock);
    while (f->ready_bytes <= at && !f->is_ended)
        pthread_cond_wait(&f->grown, &f->lock);
    ready = f->ready_bytes;
    pthread_mutex_unlock(&f->lock);
    return ready;
}

static void tell_bytes(frame_file *f, uint64_t ready_bytes, int is_ended)
{
    pthread_mutex_lock(&f->lock);
    f->ready_bytes = ready_bytes;
    f->is_ended = is_ended;
    pthread_cond_signal(&f->grown);
    pthread_mutex_unlock(&f->lock);
}

static ckpt_code hash_bytes(frame_file *f, sha256 *hash, char *buffer, ckpt_error *err)
{
    const ckpt_file *file = f->store->files[f->number].file;
    ckpt_code code = CKPT_OK;
    uint64_t ready;

    for (uint64_t at = 0; code == CKPT_OK && (ready = wait_for_bytes(f, at)) > at;) {
        const size_t take = (size_t)size_min(ready - at, COPY_BYTES);

        if ((code = file_read_at(file, at, buffer, take, err)) == CKPT_OK)
            code = sha256_add(hash, buffer, take, err);
        at += take;
    }
    return code;
}

/* Hash what is written, read back from the file. */
static ckpt_code hash_file(frame_file *f, ckpt_error *err)
{
    char *buffer = malloc(COPY_BYTES);
    sha256 *hash = NULL;
    ckpt_code code = buffer == NULL ? ckpt_fail_memory(err, "a hash buffer", COPY_BYTES)
                                    : sha256_begin(&hash, err);

    if (code == CKPT_OK && (code = hash_bytes(f, hash, buffer, err)) == CKPT_OK) {
        code = sha256_end(hash, f->hex, err);
        hash = NULL;
    }
    sha256_abort(hash);
    free(buffer);
    return code;
}

static void *hash_thread(void *context)
{
    frame_file *f = context;

    f->code = hash_file(f, &f->error);
    return NULL;
}

/* ---- the copy ---- */

static ckpt_code copy_frame(frame_file *f, size_t i, char *buffer, ckpt_error *err)
{
    const delta_entry *e = &f->content->entries[i];
    const ckpt_run_options *run = f->content->run;
    const uint64_t offset = ckpt_catalog_at(f->store->catalog, i)->offset;
    ckpt_file *to = f->store->files[f->number].file;
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; at < e->packed_bytes && code == CKPT_OK;) {
        const size_t take = (size_t)size_min(e->packed_bytes - at, COPY_BYTES);

        if (run->cancel != NULL && run->cancel(run->context))
            return ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted");
        if ((code = file_read_at(e->from, e->offset + at, buffer, take, err)) == CKPT_OK)
            code = file_write_at(to, offset + at, buffer, take, err);
        at += take;
        if (code == CKPT_OK)
            tell_bytes(f, offset + at, 0);
    }
    return code;
}

/* Entries are in the order of their bytes: what is written grows from the file's beginning. */
static ckpt_code copy_frames(frame_file *f, ckpt_error *err)
{
    const uint64_t bytes = f->store->files[f->number].size_bytes;
    char *buffer = malloc(COPY_BYTES);
    ckpt_code code = CKPT_OK;

    if (buffer == NULL)
        code = ckpt_fail_memory(err, "a copy buffer", COPY_BYTES);
    for (size_t i = f->first; i < f->end && code == CKPT_OK; i++)
        code = copy_frame(f, i, buffer, err);
    tell_bytes(f, code == CKPT_OK ? bytes : 0, 1);
    free(buffer);
    return code;
}

static void write_file(frame_file *f, int hashes_beside)
{
    pthread_t thread;
    ckpt_error error;
    ckpt_code code;

    hashes_beside = hashes_beside && pthread_create(&thread, NULL, hash_thread, f) == 0;
    code = copy_frames(f, &error);
    if (hashes_beside)
        pthread_join(thread, NULL);
    else if (code == CKPT_OK)
        hash_thread(f);
    if (code != CKPT_OK) {
        f->code = code;
        f->error = error;
    }
}

/* ---- all files ---- */

static void *files_thread(void *context)
{
    frame_job *job = context;

    for (;;) {
        uint32_t i;

        pthread_mutex_lock(&job->lock);
        i = job->next < job->count ? job->next++ : job->count;
        pthread_mutex_unlock(&job->lock);
        if (i == job->count)
            return NULL;
        write_file(&job->files[i], job->hashes_beside);
    }
}

/* Half of the threads copy, half of them hash. */
static ckpt_code run_files(frame_job *job, uint64_t thread_count, ckpt_error *err)
{
    const uint64_t copiers = size_min(size_max(thread_count / 2, 1), job->count);
    pthread_t *threads = calloc(copiers, sizeof *threads);
    uint64_t started = 0;

    if (threads == NULL)
        return ckpt_fail_memory(err, "threads", copiers);
    job->hashes_beside = thread_count > 1;
    while (started + 1 < copiers &&
           pthread_create(&threads[started], NULL, files_thread, job) == 0)
        started++;
    files_thread(job);
    for (uint64_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    for (uint32_t i = 0; i < job->count; i++)
        if (job->files[i].code != CKPT_OK) {
            if (err != NULL)
                *err = job->files[i].error;
            return job->files[i].code;
        }
    return CKPT_OK;
}

static void init_files(frame_job *job, const delta_content *c, ckpt_store *store,
                       delta_file_hash *hashes)
{
    size_t entry = 0;

    for (uint32_t i = 0; i < job->count; i++) {
        frame_file *f = &job->files[i];

        hashes[i].name = store->files[i].name;
        *f = (frame_file){ .content = c, .store = store, .number = i, .first = entry,
                           .hex = hashes[i].sha256,
                           .ready_bytes = store->files[i].header_bytes };
        while (entry < c->count && ckpt_catalog_at(store->catalog, entry)->file == i)
            entry++;
        f->end = entry;
        pthread_mutex_init(&f->lock, NULL);
        pthread_cond_init(&f->grown, NULL);
    }
}

ckpt_code delta_frames_write(const delta_content *c, ckpt_store *store, delta_file_hash *hashes,
                             ckpt_error *err)
{
    frame_job job = { .files = calloc(store->file_count + 1, sizeof *job.files),
                      .count = (uint32_t)store->file_count };
    ckpt_code code;

    if (job.files == NULL)
        return ckpt_fail_memory(err, "a list of files", store->file_count);
    init_files(&job, c, store, hashes);
    pthread_mutex_init(&job.lock, NULL);
    code = run_files(&job, copy_thread_count(c->run, 2 * COPY_BYTES), err);
    pthread_mutex_destroy(&job.lock);
    for (uint32_t i = 0; i < job.count; i++) {
        pthread_cond_destroy(&job.files[i].grown);
        pthread_mutex_destroy(&job.files[i].lock);
    }
    free(job.files);
    return code;
}
