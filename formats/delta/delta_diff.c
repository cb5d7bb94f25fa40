/* A sink that receives tiles of the new tensors, reads the same tiles of the old ones, and writes
 * their differences as frames. */
#include "delta_diff.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/digest.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"

enum { BUFFER_CHANGES = 1 << 14, NAME_BYTES = 64, PIECE_BYTES = 1 << 17,
       TILE_BYTES = 2 * PIECE_BYTES };

/* Changes of one tensor in encoding overwrite. Their count precedes them in the frame but is not
 * known yet, so positions and values are kept in two files. */
typedef struct {
    ckpt_file *positions;
    ckpt_file *values;
    uint64_t count;
    unsigned used;                  /* of the buffers */
    unsigned char position_buffer[BUFFER_CHANGES][4];
    unsigned char value_buffer[BUFFER_CHANGES];
} overwrite_list;

/* State of one part of a tensor while its tiles arrive; reused for another part. */
typedef struct diff_state {
    struct diff_state *next_free;
    const delta_diff_options *options;
    unsigned spool;
    ckpt_file *file;
    uint64_t used;                  /* of the spool */
    zframe_writer *frame;
    overwrite_list *list;           /* overwrite only */
    uint64_t bytes;                 /* of the part */
    unsigned element_bits;
    uint64_t at;                    /* processed so far */
    uint64_t same_bytes;            /* unchanged so far; a change begins the frame */
    int is_begun;
    hash_stream before;
    hash_stream after;              /* from the first change on */
    checksum sum;
    difference_count count;
    uint64_t marks[PIECE_BYTES / 64];       /* of a piece: bytes that changed */
} diff_state;

typedef struct {
    ckpt_sink base;
    const delta_pair *pair;
    const delta_diff_options *options;
    delta_changes *out;
    pthread_mutex_t lock;           /* of free_states and the list of spools */
    diff_state *free_states;
    diff_state **states;    /* by CKPT_PART_COUNT * tensor + part, while it is processed */
    copy_turns *turns;      /* of threads that share a tensor; NULL: none does */
    uint64_t *done;         /* bytes, as states */
} diff_sink;

/* ---- states ---- */

static void free_state(diff_state *s)
{
    if (s == NULL)
        return;
    if (s->list != NULL) {
        file_close(s->list->positions, NULL);
        file_close(s->list->values, NULL);
        free(s->list);
    }
    zframe_writer_free(s->frame);
    free(s);
}

static ckpt_code open_spool(const char *directory, const char *what, unsigned number,
                            ckpt_file **out, ckpt_error *err)
{
    char name[NAME_BYTES];
    char *path;
    ckpt_code code;

    snprintf(name, sizeof name, ".%s-%u.tmp", what, number);
    if ((path = file_join(directory, name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    code = file_remove(path, err);                    /* an earlier run may have left it */
    free(path);
    return code == CKPT_OK ? file_open_rw(directory, name, out, err) : code;
}

static ckpt_code make_list(const diff_sink *sink, diff_state *s, ckpt_error *err)
{
    const char *directory = sink->pair->directory;
    ckpt_code code;

    if (sink->options->encoding != DELTA_OVERWRITE)
        return CKPT_OK;
    if ((s->list = calloc(1, sizeof *s->list)) == NULL)
        return ckpt_fail_memory(err, "a list of changes", sizeof *s->list);
    if ((code = open_spool(directory, "positions", s->spool, &s->list->positions, err)) != CKPT_OK)
        return code;
    return open_spool(directory, "values", s->spool, &s->list->values, err);
}

/* Called with the lock held. */
static ckpt_code add_spool(diff_sink *sink, diff_state *s, ckpt_error *err)
{
    ckpt_file **more = realloc(sink->out->spools, (sink->out->spool_count + 1) * sizeof *more);
    ckpt_code code;

    if (more == NULL)
        return ckpt_fail_memory(err, "a list of files", sink->out->spool_count);
    sink->out->spools = more;
    s->spool = sink->out->spool_count;
    code = open_spool(sink->pair->directory, "frames", s->spool, &s->file, err);
    if (code == CKPT_OK)
        more[sink->out->spool_count++] = s->file;
    return code;
}

static ckpt_code make_state(diff_sink *sink, diff_state **out, ckpt_error *err)
{
    diff_state *s = calloc(1, sizeof *s);
    ckpt_code code;

    if (s == NULL)
        return ckpt_fail_memory(err, "a delta's state", sizeof *s);
    s->options = sink->options;
    pthread_mutex_lock(&sink->lock);
    code = add_spool(sink, s, err);
    pthread_mutex_unlock(&sink->lock);
    if (code == CKPT_OK && (code = make_list(sink, s, err)) == CKPT_OK)
        code = zframe_writer_create(sink->options->level, &s->frame, err);
    if (code != CKPT_OK)
        free_state(s);
    else
        *out = s;
    return code;
}

static ckpt_code take_state(diff_sink *sink, diff_state **out, ckpt_error *err)
{
    diff_state *s;

    pthread_mutex_lock(&sink->lock);
    if ((s = sink->free_states) != NULL)
        sink->free_states = s->next_free;
    pthread_mutex_unlock(&sink->lock);
    if (s == NULL)
        return make_state(sink, out, err);
    *out = s;
    return CKPT_OK;
}

static void give_state(diff_sink *sink, diff_state *s)
{
    pthread_mutex_lock(&sink->lock);
    s->next_free = sink->free_states;
    sink->free_states = s;
    pthread_mutex_unlock(&sink->lock);
}

/* ---- overwrite ---- */

static ckpt_code flush_list(overwrite_list *list, ckpt_error *err)
{
    const uint64_t begin = list->count - list->used;
    const unsigned used = list->used;
    ckpt_code code;

    list->used = 0;
    if ((code = file_write_at(list->positions, 4 * begin, list->position_buffer, 4 * (size_t)used,
                              err)) != CKPT_OK)
        return code;
    return file_write_at(list->values, begin, list->value_buffer, used, err);
}

/* Append the positions and new values of bytes whose XOR (`payload`) is not zero. */
static ckpt_code list_changes(diff_state *s, const unsigned char *payload,
                              const unsigned char *after, uint64_t size, ckpt_error *err)
{
    overwrite_list *list = s->list;

    for (uint64_t i = 0; i < size; i++) {
        const uint64_t position = s->at + i;
        ckpt_code code;

        if (payload[i] == 0)
            continue;
        for (int b = 0; b < 4; b++)
            list->position_buffer[list->used][b] = (unsigned char)(position >> 8 * b);
        list->value_buffer[list->used++] = after[i];
        list->count++;
        if (list->used == BUFFER_CHANGES && (code = flush_list(list, err)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code pack_file(diff_state *s, const ckpt_file *file, uint64_t size, ckpt_error *err)
{
    unsigned char *buffer = s->list->position_buffer[0];
    ckpt_code code = CKPT_OK;

    for (uint64_t at = 0; at < size && code == CKPT_OK;) {
        const size_t take = (size_t)size_min(size - at, sizeof s->list->position_buffer);

        if ((code = file_read_at(file, at, buffer, take, err)) == CKPT_OK)
            code = zframe_add(s->frame, buffer, take, err);
        at += take;
    }
    return code;
}

static ckpt_code pack_list(diff_state *s, ckpt_error *err)
{
    overwrite_list *list = s->list;
    const uint64_t count = list->count;
    unsigned char bytes[4];
    ckpt_code code;

    for (int b = 0; b < 4; b++)
        bytes[b] = (unsigned char)(count >> 8 * b);
    if ((code = flush_list(list, err)) != CKPT_OK ||
        (code = zframe_begin(s->frame, s->file, s->used, 4 + 5 * count, err)) != CKPT_OK ||
        (code = zframe_add(s->frame, bytes, sizeof bytes, err)) != CKPT_OK ||
        (code = pack_file(s, list->positions, 4 * count, err)) != CKPT_OK)
        return code;
    return pack_file(s, list->values, count, err);
}

/* ---- one part, from its first tile to its last ---- */

static void begin_part(diff_state *s, const ckpt_tensor *t, ckpt_part part)
{
    s->bytes = ckpt_part_bytes(t, part);
    s->element_bits = ckpt_dtype_bits(catalog_part_dtype(t, part));
    s->at = 0;
    s->same_bytes = 0;
    s->is_begun = 0;
    s->count = (difference_count){ 0, 0 };
    kernels_get()->hash_begin(&s->before);
    if (s->options->checksum != CHECKSUM_XXH3_128)
        checksum_begin(&s->sum, s->options->checksum);
    if (s->list != NULL)
        s->list->count = s->list->used = 0;
}

/* Add the XOR of a piece, with its marks, to the frame. A tensor without changes gets no frame. */
static ckpt_code add_payload(diff_state *s, const void *payload, uint64_t size, ckpt_error *err)
{
    ckpt_code code;

    if (!s->is_begun) {
        if ((code = zframe_begin(s->frame, s->file, s->used, s->bytes, err)) != CKPT_OK ||
            (code = zframe_add_zeros(s->frame, s->same_bytes, err)) != CKPT_OK)
            return code;
        s->is_begun = 1;
    }
    return zframe_add_marked(s->frame, payload, s->marks, size, err);
}

_Static_assert((offsetof(diff_state, after) - offsetof(diff_state, before)) %
                   HASH_STREAM_ALIGNMENT == 0, "one hash may continue as the other");

/* `before` is replaced by the XOR of both. Small enough to stay in a core's cache meanwhile. Both
 * have one hash up to the first change: many tensors have none. */
static ckpt_code add_piece(diff_state *s, void *before, const void *after, size_t size,
                           ckpt_error *err)
{
    const uint64_t changed = s->count.byte_count;
    const int is_same = changed == 0 && memcmp(before, after, size) == 0;
    ckpt_code code = CKPT_OK;

    if (changed == 0 && !is_same)
        s->after = s->before;
    kernels_get()->hash_add(&s->before, before, size);
    if (!is_same)
        kernels_get()->hash_add(&s->after, after, size);
    if (s->options->checksum != CHECKSUM_XXH3_128)
        checksum_add(&s->sum, after, size);
    if (!is_same)
        difference_xor(before, after, size, s->element_bits,
                       &(difference_found){ &s->count, s->marks });
    if (s->list != NULL)
        code = s->count.byte_count == changed ? CKPT_OK : list_changes(s, before, after, size, err);
    else if (s->is_begun || s->count.byte_count > changed)
        code = add_payload(s, before, size, err);
    else
        s->same_bytes += size;
    s->at += size;
    return code;
}

static ckpt_code end_part(diff_state *s, delta_change *out, ckpt_error *err)
{
    ckpt_code code;

    if (s->count.byte_count == 0)
        return CKPT_OK;
    if ((s->list != NULL && (code = pack_list(s, err)) != CKPT_OK) ||
        (code = zframe_end(s->frame, &out->packed_bytes, err)) != CKPT_OK)
        return code;
    out->is_changed = 1;
    out->spool = s->spool;
    out->offset = s->used;
    out->count = s->count;
    s->used += out->packed_bytes;
    hash128_hex(kernels_get()->hash_end(&s->before), out->before);
    hash128_hex(kernels_get()->hash_end(&s->after), out->after_xxh3);
    if (s->options->checksum == CHECKSUM_XXH3_128)
        memcpy(out->after, out->after_xxh3, sizeof out->after);
    else
        checksum_end(&s->sum, out->after);
    return CKPT_OK;
}

/* Called when it is the tile's turn. */
static ckpt_code put_in_turn(diff_sink *sink, const source_range *range, ckpt_part part,
                             const ckpt_tile *before, const ckpt_tile *after, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(sink->pair->after->catalog, range->tensor);
    const size_t i = CKPT_PART_COUNT * range->tensor + part;
    const uint64_t size = after->part_bytes[part];
    diff_state *s;
    ckpt_code code;

    if (range->row == 0) {
        if (sink->states[i] == NULL && (code = take_state(sink, &sink->states[i], err)) != CKPT_OK)
            return code;
        begin_part(sink->states[i], t, part);
    }
    s = sink->states[i];
    for (uint64_t at = 0; at < size; at += PIECE_BYTES)
        if ((code = add_piece(s, (unsigned char *)before->part[part] + at,
                              (const unsigned char *)after->part[part] + at,
                              (size_t)size_min(size - at, PIECE_BYTES), err)) != CKPT_OK)
            return code;
    if (s->at < s->bytes)
        return CKPT_OK;
    code = end_part(s, &sink->out->changes[i], err);
    sink->states[i] = NULL;
    give_state(sink, s);
    return code;
}

static ckpt_code put_part(diff_sink *sink, const source_range *range, ckpt_part part,
                          const ckpt_tile *before, const ckpt_tile *after, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(sink->pair->after->catalog, range->tensor);
    const uint64_t begin = source_part_offset(t, part, range);
    uint64_t *done = &sink->done[CKPT_PART_COUNT * range->tensor + part];
    ckpt_code code;

    if (!turns_wait(sink->turns, done, begin))
        return ckpt_fail(err, CKPT_E_INTERRUPTED, "another thread has failed");
    if ((code = put_in_turn(sink, range, part, before, after, err)) == CKPT_OK)
        turns_pass(sink->turns, done, begin + after->part_bytes[part]);
    return code;
}

static ckpt_code diff_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    diff_sink *sink = (diff_sink *)self;
    ckpt_tile before;
    ckpt_code code = source_read_tile(sink->pair->before, range, scratch, &before, err);

    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (tile->part[part] != NULL && source_has_part(range, (ckpt_part)part))
            code = put_part(sink, range, (ckpt_part)part, &before, tile, err);
    return code;
}

static uint64_t diff_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    return source_need(((const diff_sink *)self)->pair->before, tensor, row_count);
}

/* ---- the whole job ---- */

/* Small tiles of both sides stay in a core's cache from the copy out of the page cache to the last
 * hash. A view that decodes needs whole blocks, and gets tiles of the usual size. */
static uint64_t *choose_tiles(const delta_pair *pair)
{
    const ckpt_catalog *catalog = pair->after->catalog;
    uint64_t *rows = calloc(ckpt_catalog_count(catalog) + 1, sizeof *rows);

    for (size_t i = 0; rows != NULL && i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const uint64_t row_bytes = size_max(ckpt_part_row_bytes(t, CKPT_DATA), 1);

        rows[i] = source_tile_rows(t);
        if (pair->is_as_stored && t->scale_dtype == CKPT_NONE)
            rows[i] = size_min(rows[i], size_max(TILE_BYTES / row_bytes, 1));
    }
    return rows;
}

/* Encoding overwrite has 32-bit positions: refuse tensors for which these would wrap. */
static ckpt_code check_sizes(const delta_pair *pair, const delta_diff_options *options,
                             ckpt_error *err)
{
    const ckpt_catalog *catalog = pair->model->in.stored;

    for (size_t i = 0; options->encoding == DELTA_OVERWRITE && i < ckpt_catalog_count(catalog); i++)
        if (ckpt_part_bytes(ckpt_catalog_at(catalog, i), CKPT_DATA) > UINT32_MAX)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has more than 4 GiB, which the "
                             "encoding overwrite cannot address: use --encoding xor",
                             ckpt_catalog_at(catalog, i)->name);
    return CKPT_OK;
}

ckpt_code delta_diff(const delta_pair *pair, const delta_diff_options *options,
                     const ckpt_run_options *run, delta_changes *out, ckpt_error *err)
{
    static const sink_ops ops = { NULL, diff_put, diff_need, NULL };
    const size_t count = CKPT_PART_COUNT * ckpt_catalog_count(pair->after->catalog);
    diff_sink sink = { .base = { &ops }, .pair = pair, .options = options, .out = out };
    uint64_t *tile_rows = choose_tiles(pair);
    copy_turns turns;
    const copy_tiles tiles = { tile_rows, pair->is_in_any_order ? &turns : NULL };
    ckpt_code code = check_sizes(pair, options, err);

    turns_init(&turns);
    sink.turns = tiles.turns;
    sink.done = calloc(count + 1, sizeof *sink.done);
    *out = (delta_changes){ .changes = calloc(count + 1, sizeof *out->changes) };
    sink.states = calloc(count + 1, sizeof *sink.states);
    pthread_mutex_init(&sink.lock, NULL);
    if (code == CKPT_OK && (out->changes == NULL || sink.states == NULL || sink.done == NULL ||
                            tile_rows == NULL))
        code = ckpt_fail_memory(err, "a list of changes", count);
    if (code == CKPT_OK)
        code = ckpt_copy_in_order(pair->after, &sink.base, &tiles, run, err);
    for (size_t i = 0; sink.states != NULL && i < count; i++)
        free_state(sink.states[i]);
    while (sink.free_states != NULL) {
        diff_state *s = sink.free_states;

        sink.free_states = s->next_free;
        free_state(s);
    }
    pthread_mutex_destroy(&sink.lock);
    turns_release(&turns);
    free(sink.done);
    free(sink.states);
    free(tile_rows);
    return code;
}

void delta_changes_release(delta_changes *changes)
{
    for (unsigned i = 0; i < changes->spool_count; i++)
        file_close(changes->spools[i], NULL);
    free(changes->spools);
    free(changes->changes);
}
