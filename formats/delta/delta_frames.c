/* Frames from spool files into data files. */
#include "delta_frames.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "libckpt/sha256.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"

enum { PIECE_BYTES = 1 << 18, PIECES = 4 };

/* One data file. Its pieces, the header's first, go through a ring of buffers: one thread writes a
 * piece and passes it on, another adds it to the hash. `lock` guards the members below it. */
typedef struct {
    const delta_content *content;
    ckpt_store *store;
    uint32_t number;
    size_t first;                  /* of its entries */
    size_t end;
    char *hex;                     /* SHA-256 of the file */
    ckpt_code code;
    ckpt_error error;
    char *pieces;                  /* PIECES of PIECE_BYTES */
    sha256 *hash;
    int hashes_beside;             /* by a thread of its own; else there is one piece at a time */
    ckpt_code hash_code;
    ckpt_error hash_error;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t sizes[PIECES];
    uint64_t passed_count;
    uint64_t hashed_count;
    int is_ended;                  /* no more pieces will come */
} frame_file;

/* All data files; `lock` guards `next`. */
typedef struct {
    frame_file *files;
    uint32_t count;
    pthread_mutex_t lock;
    uint32_t next;
} frame_job;

/* ---- the hash, behind the copy ---- */

/* Wait for the next piece; 0: there are no more. */
static int wait_for_piece(frame_file *f)
{
    int is_there;

    pthread_mutex_lock(&f->lock);
    while (!(is_there = f->passed_count > f->hashed_count) && !f->is_ended)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return is_there;
}

/* After a failure the pieces still make room for others: nobody may wait for ever. */
static void *hash_thread(void *context)
{
    frame_file *f = context;

    while (wait_for_piece(f)) {
        const size_t at = f->hashed_count % PIECES;

        if (f->hash_code == CKPT_OK)
            f->hash_code = sha256_add(f->hash, f->pieces + at * PIECE_BYTES, f->sizes[at],
                                      &f->hash_error);
        pthread_mutex_lock(&f->lock);
        f->hashed_count++;
        pthread_cond_signal(&f->changed);
        pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

/* ---- the copy ---- */

/* A buffer for the next piece, when the hash has left one. */
static char *take_buffer(frame_file *f)
{
    pthread_mutex_lock(&f->lock);
    while (f->passed_count == f->hashed_count + PIECES)
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return f->pieces + f->passed_count % PIECES * PIECE_BYTES;
}

static ckpt_code pass_piece(frame_file *f, size_t size, ckpt_error *err)
{
    if (!f->hashes_beside)
        return sha256_add(f->hash, f->pieces, size, err);
    pthread_mutex_lock(&f->lock);
    f->sizes[f->passed_count++ % PIECES] = size;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return CKPT_OK;
}

typedef struct {
    const ckpt_file *file;
    uint64_t offset;
    uint64_t size;
} bytes_place;

/* Read bytes, write them to the data file unless they are of it, and pass them to the hash. */
static ckpt_code move_bytes(frame_file *f, const bytes_place *from, uint64_t to_offset,
                            ckpt_error *err)
{
    const ckpt_run_options *run = f->content->run;
    ckpt_file *to = f->store->files[f->number].file;
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; at < from->size && code == CKPT_OK;) {
        const size_t take = (size_t)size_min(from->size - at, PIECE_BYTES);
        char *buffer = take_buffer(f);

        if (run->cancel != NULL && run->cancel(run->context))
            return ckpt_fail(err, CKPT_E_INTERRUPTED, "interrupted");
        if ((code = file_read_at(from->file, from->offset + at, buffer, take, err)) == CKPT_OK &&
            from->file != to)
            code = file_write_at(to, to_offset + at, buffer, take, err);
        if (code == CKPT_OK)
            code = pass_piece(f, take, err);
        at += take;
    }
    return code;
}

/* The header is written already. Frames follow it in the order of their entries, without gaps. */
static ckpt_code copy_frames(frame_file *f, ckpt_error *err)
{
    const store_file *place = &f->store->files[f->number];
    uint64_t at = place->header_bytes;
    ckpt_code code = move_bytes(f, &(bytes_place){ place->file, 0, at }, 0, err);

    for (size_t i = f->first; i < f->end && code == CKPT_OK; i++) {
        const delta_entry *e = &f->content->entries[i];

        assert(ckpt_catalog_at(f->store->catalog, i)->offset == at);
        code = move_bytes(f, &(bytes_place){ e->from, e->offset, e->packed_bytes }, at, err);
        at += e->packed_bytes;
    }
    assert(code != CKPT_OK || at == place->size_bytes);
    return code;
}

/* Copy the frames while a thread, if there may be one, hashes those before. */
static ckpt_code copy_and_hash(frame_file *f, ckpt_error *err)
{
    pthread_t thread;
    ckpt_code code;

    f->hashes_beside = f->hashes_beside && pthread_create(&thread, NULL, hash_thread, f) == 0;
    code = copy_frames(f, err);
    if (!f->hashes_beside)
        return code;
    pthread_mutex_lock(&f->lock);
    f->is_ended = 1;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(thread, NULL);
    if (code == CKPT_OK && f->hash_code != CKPT_OK) {
        code = f->hash_code;
        *err = f->hash_error;
    }
    return code;
}

static ckpt_code write_file(frame_file *f, ckpt_error *err)
{
    ckpt_code code;

    if ((f->pieces = malloc((size_t)PIECES * PIECE_BYTES)) == NULL)
        return ckpt_fail_memory(err, "a copy buffer", (size_t)PIECES * PIECE_BYTES);
    if ((code = sha256_begin(&f->hash, err)) == CKPT_OK) {
        if ((code = copy_and_hash(f, err)) == CKPT_OK)
            code = sha256_end(f->hash, f->hex, err);
        else
            sha256_abort(f->hash);
    }
    free(f->pieces);
    return code;
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
        job->files[i].code = write_file(&job->files[i], &job->files[i].error);
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
    for (uint32_t i = 0; i < job->count; i++)
        job->files[i].hashes_beside = thread_count > 1;
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
                           .hex = hashes[i].sha256 };
        while (entry < c->count && ckpt_catalog_at(store->catalog, entry)->file == i)
            entry++;
        f->end = entry;
        pthread_mutex_init(&f->lock, NULL);
        pthread_cond_init(&f->changed, NULL);
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
    code = run_files(&job, copy_thread_count(c->run, PIECES / 2 * PIECE_BYTES), err);
    pthread_mutex_destroy(&job.lock);
    for (uint32_t i = 0; i < job.count; i++) {
        pthread_cond_destroy(&job.files[i].changed);
        pthread_mutex_destroy(&job.files[i].lock);
    }
    free(job.files);
    return code;
}
