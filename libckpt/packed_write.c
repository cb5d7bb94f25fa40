/* Writes a packed checkpoint: chunks are compressed by several threads and written in order. */
#include "packed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "buffer.h"
#include "json.h"
#include "options.h"
#include "sink.h"
#include "size.h"
#include "text.h"
#include "zblock.h"

/* A chunk to be written. */
typedef struct {
    size_t file;
    uint64_t position;              /* in its file */
    zblock_content content;
    packed_chunk chunk;
} planned_chunk;

typedef struct {
    char *name;
    ckpt_file *file;
    uint64_t chunk_count;
} planned_file;

struct packed_writer {
    ckpt_file *to;
    int level;
    planned_file *files;
    size_t file_count;
    planned_chunk *chunks;
    size_t chunk_count;
    uint64_t total_bytes;           /* of all files */
    uint64_t offset;                /* behind the last frame */
};

ckpt_code packed_writer_create(ckpt_file *to, int level, packed_writer **out, ckpt_error *err)
{
    packed_writer *w = calloc(1, sizeof *w);

    if (w == NULL)
        return ckpt_fail_memory(err, "a packed checkpoint", sizeof *w);
    w->to = to;
    w->level = level;
    w->offset = PACKED_HEAD_BYTES;
    *out = w;
    return CKPT_OK;
}

void packed_writer_free(packed_writer *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->file_count; i++) {
        free(w->files[i].name);
        file_close(w->files[i].file, NULL);
    }
    free(w->files);
    free(w->chunks);
    free(w);
}

/* ---- the plan ---- */

static ckpt_code add_chunk(packed_writer *w, uint64_t position, uint64_t bytes,
                           const packed_run *run, ckpt_error *err)
{
    planned_chunk *more = array_room(w->chunks, w->chunk_count, sizeof *more, "a list of chunks",
                                     err);

    if (more == NULL)
        return CKPT_E_MEMORY;
    w->chunks = more;
    more[w->chunk_count++] = (planned_chunk){
        w->file_count - 1, position, run->content,
        { .bytes = (uint32_t)bytes, .kind = run->kind } };
    w->files[w->file_count - 1].chunk_count++;
    w->total_bytes += bytes;
    return CKPT_OK;
}

ckpt_code packed_writer_add(packed_writer *w, const ckpt_folder *folder, const char *name,
                            const packed_run *runs, size_t run_count, ckpt_error *err)
{
    planned_file *more = array_room(w->files, w->file_count, sizeof *more, "a list of files", err);
    uint64_t position = 0;
    ckpt_code code;

    if (more == NULL)
        return CKPT_E_MEMORY;
    w->files = more;
    if (!text_is_plain(name))
        return ckpt_fail(err, CKPT_E_USAGE, "file name '%s' has control or bidirectional "
                         "characters: rename the file", name);
    more[w->file_count] = (planned_file){ strdup(name), NULL, 0 };
    if (more[w->file_count++].name == NULL)
        return ckpt_fail_memory(err, name, strlen(name));
    code = folder_open_file(folder, name, &more[w->file_count - 1].file, err);
    for (size_t i = 0; i < run_count && code == CKPT_OK; i++)
        for (uint64_t left = runs[i].bytes; left > 0 && code == CKPT_OK;) {
            const uint64_t take = size_min(left, PACKED_CHUNK_BYTES);

            code = add_chunk(w, position, take, &runs[i], err);
            position += take;
            left -= take;
        }
    if (code == CKPT_OK && position != file_size(more[w->file_count - 1].file))
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has another size than its headers say",
                         file_path(more[w->file_count - 1].file));
    return code;
}

/* ---- the threads ---- */

typedef struct {
    packed_writer *w;
    const ckpt_run_options *run;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    size_t next;                    /* chunk that no thread has taken */
    size_t turn;                    /* chunk that is written next */
    uint64_t done_bytes;
    ckpt_code code;                 /* of the first failure: all threads end */
    ckpt_error err;
} packing;

typedef struct {
    zblock_packer *packer;
    char *bytes;
    char *planes;
    char *packed;
} packer;

enum { ZSTD_CONTEXT_BYTES = 16 << 20 };        /* at the highest level, for chunks of this size */

static uint64_t packer_bytes(int level)
{
    return 2 * (uint64_t)PACKED_CHUNK_BYTES + zblock_bound(PACKED_CHUNK_BYTES) +
           (level <= 3 ? ZSTD_CONTEXT_BYTES / 4 : ZSTD_CONTEXT_BYTES);
}

static void free_packer(packer *p)
{
    zblock_packer_free(p->packer);
    free(p->bytes);
    free(p->planes);
    free(p->packed);
}

static ckpt_code make_packer(packer *p, int level, ckpt_error *err)
{
    *p = (packer){ zblock_packer_create(level), malloc(PACKED_CHUNK_BYTES),
                   malloc(PACKED_CHUNK_BYTES),
                   malloc(zblock_bound(PACKED_CHUNK_BYTES)) };
    if (p->packer == NULL || p->bytes == NULL || p->planes == NULL || p->packed == NULL)
        return ckpt_fail_memory(err, "a compressor", packer_bytes(level));
    return CKPT_OK;
}

static ckpt_code pack_chunk(const packing *job, packer *p, planned_chunk *c, ckpt_error *err)
{
    const uint32_t bytes = c->chunk.bytes;
    const char *from = p->bytes;
    size_t packed;
    ckpt_code code =
        file_read_at(job->w->files[c->file].file, c->position, p->bytes, bytes, err);

    if (code != CKPT_OK)
        return code;
    c->chunk.hash = kernels_get()->hash_bytes(p->bytes, bytes, 0);
    if (c->chunk.kind != PLANES_NONE) {
        planes_split(c->chunk.kind, p->bytes, p->planes, bytes);
        from = p->planes;
    }
    if ((packed = zblock_pack(p->packer, c->content, from, bytes, p->packed)) == 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot compress into '%s'", file_path(job->w->to));
    c->chunk.packed_bytes = (uint32_t)packed;
    return CKPT_OK;
}

/* Called with the lock held. */
static void fail_job(packing *job, ckpt_code code, const ckpt_error *err)
{
    if (job->code == CKPT_OK) {
        job->code = code;
        job->err = *err;
    }
    pthread_cond_broadcast(&job->turned);
}

/* The next chunk; 0: none is left, or the job has failed. */
static int take_chunk(packing *job, size_t *out)
{
    const ckpt_run_options *run = job->run;
    int found;

    pthread_mutex_lock(&job->lock);
    if (job->code == CKPT_OK && run->cancel != NULL && run->cancel(run->context)) {
        ckpt_error err;

        fail_job(job, ckpt_fail(&err, CKPT_E_INTERRUPTED, "interrupted"), &err);
    }
    found = job->code == CKPT_OK && job->next < job->w->chunk_count;
    *out = found ? job->next++ : 0;
    pthread_mutex_unlock(&job->lock);
    return found;
}

/* Wait until all earlier chunks are written, and write this one: offsets, and so the bytes of the
 * file, do not depend on the threads. Whoever fails wakes those that wait for its chunk. */
static void put_chunk(packing *job, size_t i, const packer *p, ckpt_code code, ckpt_error *err)
{
    const packed_chunk *c = &job->w->chunks[i].chunk;

    pthread_mutex_lock(&job->lock);
    if (code != CKPT_OK)
        fail_job(job, code, err);
    while (job->turn != i && job->code == CKPT_OK)
        pthread_cond_wait(&job->turned, &job->lock);
    if (job->code == CKPT_OK) {
        code = file_write_at(job->w->to, job->w->offset, p->packed, c->packed_bytes, err);
        if (code != CKPT_OK)
            fail_job(job, code, err);
        job->w->offset += c->packed_bytes;
        job->done_bytes += c->bytes;
        job->turn++;
        if (job->run->progress != NULL)
            job->run->progress(job->run->context, job->done_bytes, job->w->total_bytes);
        pthread_cond_broadcast(&job->turned);
    }
    pthread_mutex_unlock(&job->lock);
}

static void *pack_all(void *context)
{
    packing *job = context;
    packer p;
    ckpt_error err;
    ckpt_code code = make_packer(&p, job->w->level, &err);
    size_t i;

    if (code != CKPT_OK) {
        pthread_mutex_lock(&job->lock);
        fail_job(job, code, &err);
        pthread_mutex_unlock(&job->lock);
    }
    while (take_chunk(job, &i)) {
        code = pack_chunk(job, &p, &job->w->chunks[i], &err);
        put_chunk(job, i, &p, code, &err);
    }
    free_packer(&p);
    return NULL;
}

ckpt_code packed_writer_run(packed_writer *w, const ckpt_run_options *run, ckpt_error *err)
{
    packing job = { .w = w, .run = run, .lock = PTHREAD_MUTEX_INITIALIZER,
                    .turned = PTHREAD_COND_INITIALIZER };
    const uint64_t count = copy_thread_count(run, packer_bytes(w->level));
    pthread_t *threads = calloc(count + 1, sizeof *threads);
    uint64_t begun = 0;

    if (threads == NULL)
        return ckpt_fail_memory(err, "threads", count);
    run_begin_phase(run, "packing", 0);
    while (begun + 1 < count && pthread_create(&threads[begun], NULL, pack_all, &job) == 0)
        begun++;
    pack_all(&job);
    while (begun > 0)
        pthread_join(threads[--begun], NULL);
    free(threads);
    if (job.code != CKPT_OK)
        *err = job.err;
    return job.code;
}

/* ---- head, index, footer ---- */

static void put_u32(byte_buffer *out, uint32_t value)
{
    unsigned char bytes[4];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(value >> 8 * i);
    byte_buffer_add(out, bytes, sizeof bytes);
}

static void put_u64(byte_buffer *out, uint64_t value)
{
    put_u32(out, (uint32_t)value);
    put_u32(out, (uint32_t)(value >> 32));
}

static int put_json(const packed_writer *w, const char *root, const char *main, byte_buffer *out)
{
    json_writer j;

    json_writer_begin(&j, byte_buffer_write, out, 0);
    json_put_object(&j);
    json_member_string(&j, "schema", PACKED_SCHEMA);
    json_member_string(&j, "writer", CKPT_VERSION);
    json_member_string(&j, PACKED_ROOT_KEY, root[0] == '\0' ? NULL : root);
    json_member_string(&j, "main", main[0] == '\0' ? NULL : main);
    json_member_array(&j, "files");
    for (size_t i = 0; i < w->file_count; i++) {
        json_put_object(&j);
        json_member_string(&j, "name", w->files[i].name);
        json_member_u64(&j, "bytes", file_size(w->files[i].file));
        json_member_u64(&j, "chunks", w->files[i].chunk_count);
        json_put_object_end(&j);
    }
    json_put_array_end(&j);
    json_put_object_end(&j);
    return json_writer_end(&j);
}

/* The frame of the index, and the footer behind it. */
static int put_index(const packed_writer *w, const byte_buffer *json, byte_buffer *out)
{
    const uint64_t body = 16 + json->used + w->chunk_count * (uint64_t)PACKED_RECORD_BYTES;
    size_t index_bytes;
    hash128 hash;

    if (body > UINT32_MAX)
        return 0;
    put_u32(out, packed_index_magic);
    put_u32(out, (uint32_t)body);
    put_u64(out, json->used);
    put_u64(out, w->chunk_count);
    byte_buffer_add(out, json->bytes, json->used);
    for (size_t i = 0; i < w->chunk_count; i++) {
        const packed_chunk *c = &w->chunks[i].chunk;

        put_u32(out, c->bytes);
        put_u32(out, c->packed_bytes);
        put_u32(out, c->kind);
        put_u32(out, 0);
        put_u64(out, c->hash.low64);
        put_u64(out, c->hash.high64);
    }
    index_bytes = out->used;
    if (out->failed)
        return 0;
    hash = kernels_get()->hash_bytes(out->bytes, index_bytes, 0);
    put_u32(out, packed_footer_magic);
    put_u32(out, PACKED_FOOTER_BYTES - 8);
    put_u64(out, w->offset);
    put_u64(out, index_bytes);
    put_u64(out, hash.low64);
    put_u64(out, hash.high64);
    return byte_buffer_add(out, packed_mark, sizeof packed_mark) == 0;
}

static ckpt_code write_head(packed_writer *w, ckpt_error *err)
{
    byte_buffer head = { .bytes = NULL };
    ckpt_code code;

    put_u32(&head, packed_head_magic);
    put_u32(&head, PACKED_HEAD_BYTES - 8);
    byte_buffer_add(&head, packed_mark, sizeof packed_mark);
    put_u64(&head, 0);
    code = head.failed ? ckpt_fail_memory(err, "a header", PACKED_HEAD_BYTES)
                       : file_write_at(w->to, 0, head.bytes, head.used, err);
    free(head.bytes);
    return code;
}

/* A file that changes while it is read would be packed in part old and in part new. */
static ckpt_code check_unchanged(const packed_writer *w, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < w->file_count && code == CKPT_OK; i++)
        code = file_check_unchanged(w->files[i].file, NULL, err);
    return code;
}

ckpt_code packed_writer_seal(packed_writer *w, const char *root, const char *main,
                             uint64_t *total_bytes, ckpt_error *err)
{
    byte_buffer json = { .bytes = NULL };
    byte_buffer index = { .bytes = NULL };
    ckpt_code code = check_unchanged(w, err);

    if (code != CKPT_OK)
        return code;
    if (!put_json(w, root, main, &json) || json.failed || !put_index(w, &json, &index))
        code = ckpt_fail_memory(err, "the index of a packed checkpoint", w->chunk_count);
    else if ((code = write_head(w, err)) == CKPT_OK &&
             (code = file_write_at(w->to, w->offset, index.bytes, index.used, err)) == CKPT_OK &&
             (code = file_set_size(w->to, w->offset + index.used, err)) == CKPT_OK)
        *total_bytes = w->offset + index.used;
    free(json.bytes);
    free(index.bytes);
    return code;
}
