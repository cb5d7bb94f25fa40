/* The two passes of a change in place. */
#include "delta_inplace.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "delta_make.h"
#include "delta_zeros.h"
#include "kernels/changes.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"

/* Position in one stored tensor while its bytes arrive. They are processed in lots of pieces: many
 * threads that each read and write a sector at a time wait for the file most of the time. */
typedef struct {
    uint64_t at;                    /* bytes of the tensor that arrived so far */
    uint64_t piece;                 /* number of the lot's first piece */
    uint64_t left;                  /* bytes of the lot that have not arrived */
    uint64_t used;
    delta_sector entries[DELTA_LOT_SECTORS];
    unsigned char before[DELTA_LOT_BYTES];
    unsigned char after[DELTA_LOT_BYTES];
} piece_state;

typedef struct {
    ckpt_sink base;
    delta_inplace *in;
    const delta_model *model;
    ckpt_source *before;            /* first pass: the base; NULL: second pass */
    ckpt_store *store;              /* second pass: open for writing */
    int is_xor;                     /* second pass: tiles are payloads, not results */
    piece_state **states;           /* by stored tensor */
    pthread_mutex_t lock;           /* of kept */
    uint64_t kept;
} piece_sink;

/* ---- begin ---- */

static ckpt_code check_encodings(const delta_chain *chain, ckpt_error *err)
{
    for (size_t i = 1; i < chain->count; i++)
        if (chain->deltas[i]->encoding != chain->deltas[0]->encoding)
            return ckpt_fail(err, CKPT_E_USAGE, "'%s' is %s and '%s' is %s: --in-place takes "
                             "deltas of one encoding: apply them one after the other",
                             chain->deltas[0]->path,
                             delta_encoding_name(chain->deltas[0]->encoding),
                             chain->deltas[i]->path,
                             delta_encoding_name(chain->deltas[i]->encoding));
    return CKPT_OK;
}

/* Names, sizes and headers, which the change does not modify. */
static void mix_headers(hash128 *sum, const ckpt_store *store)
{
    for (size_t i = 0; i < store->file_count; i++) {
        const store_file *f = &store->files[i];
        const uint64_t numbers[] = { f->size_bytes, f->header_hash };

        hash128_mix(sum, f->name, strlen(f->name));
        hash128_mix(sum, numbers, sizeof numbers);
    }
}

static void take_fingerprint(delta_inplace *in)
{
    mix_headers(&in->fingerprint, in->checkpoint->store);
    for (size_t i = 0; i < in->chain->count; i++) {
        const ckpt_delta *d = in->chain->deltas[i];

        mix_headers(&in->fingerprint, d->store);
        for (size_t t = 0; t < d->count; t++)
            hash128_mix(&in->fingerprint, d->tensors[t].after, strlen(d->tensors[t].after));
    }
}

ckpt_code delta_inplace_begin(const delta_chain *chain, const ckpt_checkpoint *c,
                              delta_inplace *in, ckpt_error *err)
{
    const ckpt_catalog *stored = c->store->catalog;
    ckpt_code code = check_encodings(chain, err);

    *in = (delta_inplace){ .chain = chain, .checkpoint = c };
    if (code != CKPT_OK)
        return code;
    if ((in->touched = calloc(ckpt_catalog_count(stored) + 1, 1)) == NULL)
        return ckpt_fail_memory(err, "a list of tensors", ckpt_catalog_count(stored));
    for (size_t d = 0; d < chain->count; d++)
        for (size_t i = 0; i < chain->deltas[d]->count; i++) {
            const int64_t found = ckpt_catalog_find(stored, chain->deltas[d]->tensors[i].name);

            if (found >= 0)                     /* others are refused by the views */
                in->touched[found] = 1;
        }
    take_fingerprint(in);
    if ((code = delta_sectors_plan(folder_path(c->place.folder), stored, in->touched, &in->sectors,
                                   err)) != CKPT_OK)
        return code;
    return delta_sectors_look(&in->sectors, in->fingerprint, &in->is_begun, err);
}

void delta_inplace_release(delta_inplace *in)
{
    delta_sectors_release(&in->sectors);
    free(in->touched);
}

/* ---- pieces ---- */

static uint64_t hash_piece(const void *bytes, uint64_t size)
{
    return kernels_get()->hash_bytes(bytes, size, 0).low64;
}

/* A lot whose bytes are all there, and one of its pieces. */
typedef struct {
    piece_sink *sink;
    const ckpt_tensor *tensor;
    piece_state *state;
    uint64_t offset;                /* of the lot in the file */
    size_t index;                   /* of the piece in the lot */
    uint64_t at;                    /* its first byte there */
    uint64_t size;
} lot;

/* The first piece; then the next one, until there is none: 0. */
static void first_piece(lot *l)
{
    const piece_state *p = l->state;

    l->index = 0;
    l->at = 0;
    l->size = delta_sector_left(l->tensor, p->at - p->used);
}

static int next_piece(lot *l)
{
    const piece_state *p = l->state;

    l->index++;
    l->at += l->size;
    if (l->at == p->used)
        return 0;
    l->size = delta_sector_left(l->tensor, p->at - p->used + l->at);
    return 1;
}

static size_t count_pieces(lot *l)
{
    first_piece(l);
    while (next_piece(l))
        ;
    return l->index;
}

static ckpt_code record_lot(lot *l, size_t count, ckpt_error *err)
{
    piece_state *p = l->state;

    first_piece(l);
    do
        p->entries[l->index] = (delta_sector){ hash_piece(p->before + l->at, l->size),
                                               hash_piece(p->after + l->at, l->size) };
    while (next_piece(l));
    return delta_sectors_put(&l->sink->in->sectors, p->piece, p->entries, count, err);
}

/* Whether a piece is to be changed, by its content in the file (`before`). `after` is the result
 * then, also where it was the XOR. */
static ckpt_code judge_piece(const lot *l, int *is_new, ckpt_error *err)
{
    const delta_sector *entry = &l->state->entries[l->index];
    const unsigned char *before = l->state->before + l->at;
    unsigned char *after = l->state->after + l->at;
    const uint64_t now = hash_piece(before, l->size);
    piece_sink *s = l->sink;

    *is_new = now == entry->new_hash;
    if (*is_new) {
        pthread_mutex_lock(&s->lock);
        s->kept += entry->old_hash != entry->new_hash;
        pthread_mutex_unlock(&s->lock);
        return CKPT_OK;
    }
    if (s->is_xor)
        bytes_xor(after, before, l->size);
    if (now == entry->old_hash && hash_piece(after, l->size) == entry->new_hash)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' at byte %" PRIu64 ", tensor '%s': these %" PRIu64
                     " bytes are neither what they were nor what they become",
                     file_path(s->store->files[l->tensor->file].file), l->offset + l->at,
                     l->tensor->name, l->size);
}

/* Bytes [begin, end) of a lot. */
static ckpt_code write_pieces(const lot *l, uint64_t begin, uint64_t end, ckpt_error *err)
{
    if (begin == end)
        return CKPT_OK;
    return file_write_at(l->sink->store->files[l->tensor->file].file, l->offset + begin,
                         l->state->after + begin, end - begin, err);
}

/* Change the pieces that have not been changed yet: one write for those without a gap. */
static ckpt_code change_lot(lot *l, size_t count, ckpt_error *err)
{
    const ckpt_file *file = l->sink->store->files[l->tensor->file].file;
    piece_state *p = l->state;
    uint64_t begin = 0;             /* of those that are not written */
    ckpt_code code;

    if ((code = delta_sectors_get(&l->sink->in->sectors, p->piece, p->entries, count, err)) !=
            CKPT_OK ||
        (code = file_read_at(file, l->offset, p->before, p->used, err)) != CKPT_OK)
        return code;
    first_piece(l);
    do {
        int is_new;

        if ((code = judge_piece(l, &is_new, err)) != CKPT_OK ||
            (is_new && (code = write_pieces(l, begin, l->at, err)) != CKPT_OK))
            return code;
        if (is_new)
            begin = l->at + l->size;
    } while (next_piece(l));
    return write_pieces(l, begin, p->used, err);
}

static ckpt_code end_lot(piece_sink *s, size_t stored, piece_state *p, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(s->model->in.stored, stored);
    lot l = { .sink = s, .tensor = t, .state = p, .offset = t->offset + p->at - p->used };
    const size_t count = count_pieces(&l);
    const ckpt_code code = s->before == NULL ? change_lot(&l, count, err)
                                             : record_lot(&l, count, err);

    p->piece += count;
    p->used = 0;
    return code;
}

/* Bytes of a stored tensor; `before` is NULL in the second pass. */
static ckpt_code add_bytes(piece_sink *s, size_t stored, const unsigned char *before,
                           const unsigned char *after, uint64_t size, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(s->model->in.stored, stored);
    piece_state *p = s->states[stored];
    ckpt_code code = CKPT_OK;

    for (uint64_t done = 0; done < size && code == CKPT_OK;) {
        uint64_t take;

        if (p->used == 0)
            p->left = delta_lot_left(t, p->at);
        take = size_min(p->left, size - done);
        if (before != NULL)
            memcpy(p->before + p->used, before + done, take);
        memcpy(p->after + p->used, after + done, take);
        p->used += take;
        p->at += take;
        p->left -= take;
        done += take;
        if (p->left == 0)
            code = end_lot(s, stored, p, err);
    }
    return code;
}

static ckpt_code add_part(piece_sink *s, const source_range *range, ckpt_part part,
                          const ckpt_tile *before, const ckpt_tile *after, ckpt_error *err)
{
    const size_t key = CKPT_PART_COUNT * range->tensor + part;
    ckpt_code code = CKPT_OK;

    for (int64_t i = s->model->first[key]; i >= 0 && code == CKPT_OK; i = s->model->next[i]) {
        const ckpt_tensor *t = ckpt_catalog_at(s->model->in.stored, (size_t)i);
        piece_state **p = &s->states[i];

        if (!s->in->touched[i])
            continue;
        if (*p == NULL && (*p = calloc(1, sizeof **p)) == NULL)
            return ckpt_fail_memory(err, "a piece", sizeof **p);
        if ((*p)->at == 0)
            (*p)->piece = s->in->sectors.first[i];
        code = add_bytes(s, (size_t)i, before == NULL ? NULL : before->part[part],
                         after->part[part], after->part_bytes[part], err);
        if (code == CKPT_OK && (*p)->at == ckpt_part_bytes(t, CKPT_DATA)) {
            free(*p);
            *p = NULL;
        }
    }
    return code;
}

static ckpt_code piece_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                           arena *scratch, ckpt_error *err)
{
    piece_sink *s = (piece_sink *)self;
    ckpt_tile before;
    ckpt_code code = CKPT_OK;

    if (s->before != NULL)
        code = source_read_tile(s->before, range, scratch, &before, err);
    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (tile->part[part] != NULL && source_has_part(range, (ckpt_part)part))
            code = add_part(s, range, (ckpt_part)part, s->before == NULL ? NULL : &before, tile,
                            err);
    return code;
}

static uint64_t piece_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    const piece_sink *s = (const piece_sink *)self;

    return s->before == NULL ? 0 : source_need(s->before, tensor, row_count);
}

/* Only the first pass reads unchanged tensors, whose digests are part of the roots. */
static int piece_wants(const ckpt_sink *self, size_t tensor)
{
    const piece_sink *s = (const piece_sink *)self;

    for (int part = 0; part < CKPT_PART_COUNT; part++)
        for (int64_t i = s->model->first[CKPT_PART_COUNT * tensor + (size_t)part]; i >= 0;
             i = s->model->next[i])
            if (s->before != NULL || s->in->touched[i])
                return 1;
    return s->before != NULL;
}

static ckpt_code run_pass(piece_sink *s, ckpt_source *from, const ckpt_run_options *run,
                          ckpt_error *err)
{
    static const sink_ops ops = { piece_wants, piece_put, piece_need, NULL };
    const size_t count = ckpt_catalog_count(s->model->in.stored);
    ckpt_code code;

    s->base.ops = &ops;
    if ((s->states = calloc(count + 1, sizeof *s->states)) == NULL)
        return ckpt_fail_memory(err, "a list of pieces", count);
    pthread_mutex_init(&s->lock, NULL);
    code = ckpt_copy_in_order(from, &s->base, NULL, run, err);
    for (size_t i = 0; i < count; i++)
        free(s->states[i]);
    pthread_mutex_destroy(&s->lock);
    free(s->states);
    return code;
}

/* ---- the two passes ---- */

/* Open the files of the checkpoint for writing. */
static ckpt_code open_files(const delta_inplace *in, ckpt_store **out, ckpt_error *err)
{
    const ckpt_store *from = in->checkpoint->store;
    ckpt_store *store = store_create(folder_path(in->checkpoint->place.folder));
    ckpt_code code = CKPT_OK;

    if ((*out = store) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *store);
    for (size_t i = 0; i < from->file_count && code == CKPT_OK; i++) {
        uint32_t number;

        if ((code = store_add_file(store, from->files[i].name, &number, err)) == CKPT_OK)
            code = store_open_file(store, i, 1, err);
    }
    return code;
}

ckpt_code delta_inplace_check_files(const delta_inplace *in, ckpt_error *err)
{
    ckpt_store *store = NULL;
    const ckpt_code code = open_files(in, &store, err);

    store_free(store);
    return code;
}

ckpt_code delta_inplace_look(delta_inplace *in, delta_views *views, const ckpt_run_options *run,
                             ckpt_error *err)
{
    piece_sink s = { .in = in, .model = &views->model,
                     .before = views->model.is_stored ? views->model.in.stored_source
                                                      : views->model.in.logical };
    ckpt_code code = delta_inplace_check_files(in, err);   /* before the journal says that a change
                                                              has begun */

    if (code == CKPT_OK)
        code = delta_sectors_begin(&in->sectors, in->fingerprint, err);
    return code == CKPT_OK ? run_pass(&s, views->result, run, err) : code;
}

static ckpt_code write_with(delta_inplace *in, delta_views *v, const ckpt_run_options *run,
                            uint64_t *kept, ckpt_error *err)
{
    ckpt_source zeros = delta_zeros(in->checkpoint->store->catalog);     /* ^ payload: itself */
    const delta_input input = delta_input_of(in->checkpoint);
    piece_sink s = { .in = in, .model = &v->model,
                     .is_xor = in->chain->deltas[0]->encoding == DELTA_XOR };
    ckpt_run_options with;
    ckpt_code code;

    if ((code = delta_model_open(&input, 1, NULL, &v->model, err)) != CKPT_OK ||
        (code = delta_views_stack(in->chain, s.is_xor ? &zeros : v->model.tensors,
                                  &(delta_patch_options){ .skip_all = 1 }, v, err)) != CKPT_OK)
        return code;
    with = delta_views_run(v, run, DELTA_INPLACE_THREAD_BYTES);
    if ((code = open_files(in, &s.store, err)) == CKPT_OK &&
        (code = run_pass(&s, v->result, &with, err)) == CKPT_OK &&
        (code = store_sync_files(s.store, err)) == CKPT_OK)
        code = store_close_files(s.store, err);
    store_free(s.store);
    *kept = s.kept;
    return code;
}

ckpt_code delta_inplace_write(delta_inplace *in, const ckpt_run_options *run, uint64_t *kept,
                              ckpt_error *err)
{
    delta_views views = { .checkpoint = NULL };
    const ckpt_code code = write_with(in, &views, run, kept, err);

    delta_views_release(&views);
    return code;
}
