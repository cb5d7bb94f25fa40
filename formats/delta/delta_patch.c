/* Applies a delta to tiles while they are read. */
#include "delta_patch.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/changes.h"
#include "libckpt/size.h"

enum { PIECE_BYTES = 1 << 16 };

/* State of one changed tensor while it is read; reused for the next. */
typedef struct patch_state {
    struct patch_state *next_free;
    const delta_tensor *change;
    uint64_t bytes;                 /* of the tensor */
    uint64_t at;                    /* bytes read so far */
    zframe_reader *frame;           /* xor: the payload; overwrite: the positions */
    zframe_reader *values;          /* overwrite only */
    uint64_t left;                  /* overwrite: changes not applied yet */
    uint64_t position;              /* of the next change */
    checksum before;
    checksum after;
    char piece[PIECE_BYTES];
} patch_state;

typedef struct {
    ckpt_source base;
    ckpt_source *from;
    const delta_model *model;
    const ckpt_delta *delta;
    delta_patch_options options;
    pthread_mutex_t lock;           /* of free_states */
    patch_state *free_states;
    patch_state **states;   /* by CKPT_PART_COUNT * tensor + part, while it is read */
    uint64_t *done;         /* the same: bytes that are patched; 0 again at the end */
    uint32_t *tensor_scales;        /* by tensor: its CKPT_TENSOR_SCALE after the change */
    uint64_t *has_scale;            /* by tensor: 1 when that is known */
    const delta_tensor **changes;   /* by CKPT_PART_COUNT * tensor + part; NULL: none */
} patch_view;

/* ---- states ---- */

static void free_state(patch_state *s)
{
    if (s == NULL)
        return;
    zframe_reader_free(s->frame);
    zframe_reader_free(s->values);
    free(s);
}

static ckpt_code take_state(patch_view *v, patch_state **out, ckpt_error *err)
{
    patch_state *s;

    pthread_mutex_lock(&v->lock);
    if ((s = v->free_states) != NULL)
        v->free_states = s->next_free;
    pthread_mutex_unlock(&v->lock);
    if (s == NULL && (s = calloc(1, sizeof *s)) == NULL)
        return ckpt_fail_memory(err, "a delta's state", sizeof *s);
    *out = s;
    if (s->frame == NULL) {
        const ckpt_code code = zframe_reader_create(&s->frame, err);

        if (code != CKPT_OK)
            return code;
    }
    if (s->values == NULL && v->delta->encoding == DELTA_OVERWRITE)
        return zframe_reader_create(&s->values, err);
    return CKPT_OK;
}

static void give_state(patch_view *v, patch_state *s)
{
    pthread_mutex_lock(&v->lock);
    s->next_free = v->free_states;
    v->free_states = s;
    pthread_mutex_unlock(&v->lock);
}

/* ---- overwrite: positions, then values ---- */

static ckpt_code read_u32(zframe_reader *frame, uint64_t *out, ckpt_error *err)
{
    unsigned char bytes[4];
    const ckpt_code code = zframe_read(frame, bytes, sizeof bytes, err);

    *out = (uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16 |
           (uint64_t)bytes[3] << 24;
    return code;
}

static ckpt_code next_position(patch_state *s, int is_first, ckpt_error *err)
{
    uint64_t position;
    ckpt_code code;

    if (s->left == 0)
        return CKPT_OK;
    if ((code = read_u32(s->frame, &position, err)) != CKPT_OK)
        return code;
    if (position >= s->bytes || (!is_first && position <= s->position))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': a change of '%s' is at byte %llu: expected "
                         "ascending positions below %llu", file_path(s->change->frame.file),
                         s->change->name, (unsigned long long)position,
                         (unsigned long long)s->bytes);
    s->position = position;
    return CKPT_OK;
}

/* Open the frame twice: one reader for the positions, one for the values. */
static ckpt_code open_overwrite(patch_state *s, ckpt_error *err)
{
    uint64_t size;
    ckpt_code code;

    if ((code = read_u32(s->frame, &s->left, err)) != CKPT_OK)
        return code;
    size = 4 + 5 * s->left;
    if (s->left > s->bytes || (zframe_content_bytes(s->frame) != UINT64_MAX &&
                               zframe_content_bytes(s->frame) != size))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the frame of '%s' says %llu changes of %llu "
                         "bytes, which is not its size", file_path(s->change->frame.file),
                         s->change->name, (unsigned long long)s->left,
                         (unsigned long long)s->bytes);
    if ((code = zframe_open(s->values, &s->change->frame, err)) != CKPT_OK ||
        (code = zframe_skip(s->values, 4 + 4 * s->left, err)) != CKPT_OK)
        return code;
    return next_position(s, 1, err);
}

static ckpt_code patch_overwrite(patch_state *s, unsigned char *bytes, uint64_t size,
                                 ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (s->left > 0 && s->position < s->at + size && code == CKPT_OK) {
        code = zframe_read(s->values, bytes + (s->position - s->at), 1, err);
        s->left--;
        if (code == CKPT_OK)
            code = next_position(s, 0, err);
    }
    return code;
}

static ckpt_code patch_xor(patch_state *s, unsigned char *bytes, uint64_t size, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint64_t done = 0; done < size && code == CKPT_OK;) {
        const size_t take = (size_t)size_min(size - done, sizeof s->piece);

        if ((code = zframe_read(s->frame, s->piece, take, err)) == CKPT_OK)
            bytes_xor(bytes + done, s->piece, take);
        done += take;
    }
    return code;
}

/* ---- one tensor, from its first tile to its last ---- */

static ckpt_code begin_change(const patch_view *v, patch_state *s, ckpt_error *err)
{
    const int is_told = s->change->before[0] != '\0';
    ckpt_code code;

    s->at = 0;
    checksum_begin(&s->before, is_told ? CHECKSUM_XXH3_128 : v->delta->checksum);
    checksum_begin(&s->after, v->delta->checksum);
    if ((code = zframe_open(s->frame, &s->change->frame, err)) != CKPT_OK)
        return code;
    if (v->delta->encoding == DELTA_OVERWRITE)
        return open_overwrite(s, err);
    if (zframe_content_bytes(s->frame) != UINT64_MAX && zframe_content_bytes(s->frame) != s->bytes)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the change of tensor '%s' is of %llu bytes, "
                         "but '%s' has %llu of it", v->delta->path, s->change->name,
                         (unsigned long long)zframe_content_bytes(s->frame), v->model->in.path,
                         (unsigned long long)s->bytes);
    return CKPT_OK;
}

static ckpt_code check_before(const patch_view *v, const patch_state *s, ckpt_error *err)
{
    const delta_tensor *t = s->change;
    const char *applied = t->is_told ? t->after_xxh3 : t->after;
    char got[CHECKSUM_HEX];

    if (v->options.skip_all)
        return CKPT_OK;
    checksum_end(&s->before, got);
    if (strcmp(got, applied) == 0)
        return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' is already applied: tensor '%s' of '%s' is "
                         "what it becomes (%s)", v->delta->path, t->name, v->model->in.path, got);
    if (t->before[0] != '\0' && !v->options.skip_before && strcmp(got, t->before) != 0)
        return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' was not made from '%s': tensor '%s', "
                         "expected %s, got %s", v->delta->path, v->model->in.path, t->name,
                         t->before, got);
    return CKPT_OK;
}

static ckpt_code end_change(const patch_view *v, patch_state *s, ckpt_error *err)
{
    char got[CHECKSUM_HEX];
    ckpt_code code;

    if ((code = check_before(v, s, err)) != CKPT_OK)
        return code;
    if (v->delta->encoding == DELTA_OVERWRITE) {
        if ((code = zframe_finish(s->values, err)) != CKPT_OK)
            return code;
    } else if ((code = zframe_finish(s->frame, err)) != CKPT_OK) {
        return code;
    }
    checksum_end(&s->after, got);
    if (v->options.skip_all || strcmp(got, s->change->after) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' does not fit '%s': tensor '%s' becomes %s, "
                     "expected %s", v->delta->path, v->model->in.path, s->change->name, got,
                     s->change->after);
}

static ckpt_code patch_bytes(const patch_view *v, patch_state *s, void *bytes, uint64_t size,
                             ckpt_error *err)
{
    ckpt_code code;

    if (!v->options.skip_all)
        checksum_add(&s->before, bytes, size);
    if (v->delta->encoding == DELTA_OVERWRITE)
        code = patch_overwrite(s, bytes, size, err);
    else
        code = patch_xor(s, bytes, size, err);
    if (!v->options.skip_all)
        checksum_add(&s->after, bytes, size);
    s->at += size;
    return code;
}

static ckpt_code fail_stopped(ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_INTERRUPTED, "another thread has failed");
}

/* Called when it is the tile's turn. */
static ckpt_code patch_tile(patch_view *v, const source_range *range, ckpt_part part,
                            ckpt_tile *tile, ckpt_error *err)
{
    const size_t i = CKPT_PART_COUNT * range->tensor + part;
    patch_state *s;
    ckpt_code code;

    if (range->row == 0) {
        if (v->states[i] == NULL && (code = take_state(v, &v->states[i], err)) != CKPT_OK)
            return code;
        s = v->states[i];
        s->change = v->changes[i];
        s->bytes = ckpt_part_bytes(ckpt_catalog_at(v->base.catalog, range->tensor), part);
        if ((code = begin_change(v, s, err)) != CKPT_OK)
            return code;
    }
    s = v->states[i];
    if ((code = patch_bytes(v, s, tile->part[part], tile->part_bytes[part], err)) != CKPT_OK ||
        s->at < s->bytes)
        return code;
    if (part == CKPT_TENSOR_SCALE)
        memcpy(&v->tensor_scales[range->tensor], tile->part[part], sizeof *v->tensor_scales);
    code = end_change(v, s, err);
    v->states[i] = NULL;
    give_state(v, s);
    return code;
}

/* The tensor scale is part of every tile; the patch is applied to the first. */
static ckpt_code repeat_scale(patch_view *v, const source_range *range, ckpt_tile *tile,
                              ckpt_error *err)
{
    if (!turns_wait(v->options.turns, &v->has_scale[range->tensor], 1))
        return fail_stopped(err);
    memcpy(tile->part[CKPT_TENSOR_SCALE], &v->tensor_scales[range->tensor],
           sizeof *v->tensor_scales);
    return CKPT_OK;
}

static ckpt_code patch_part(patch_view *v, const source_range *range, ckpt_part part,
                            ckpt_tile *tile, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(v->base.catalog, range->tensor);
    const uint64_t begin = source_part_offset(t, part, range);
    const uint64_t end = begin + tile->part_bytes[part];
    uint64_t *done = &v->done[CKPT_PART_COUNT * range->tensor + part];
    ckpt_code code;

    if (!source_has_part(range, part))
        return part == CKPT_TENSOR_SCALE ? repeat_scale(v, range, tile, err) : CKPT_OK;
    if (!turns_wait(v->options.turns, done, begin))
        return fail_stopped(err);
    if ((code = patch_tile(v, range, part, tile, err)) != CKPT_OK)
        return code;
    turns_pass(v->options.turns, done, end == ckpt_part_bytes(t, part) ? 0 : end);
    if (part == CKPT_TENSOR_SCALE)
        turns_pass(v->options.turns, &v->has_scale[range->tensor], 1);
    return CKPT_OK;
}

static ckpt_code patch_read(ckpt_source *self, const source_range *range, arena *scratch,
                            ckpt_tile *tile, ckpt_error *err)
{
    patch_view *v = (patch_view *)self;
    ckpt_code code = source_read_tile(v->from, range, scratch, tile, err);

    for (int part = 0; part < CKPT_PART_COUNT && code == CKPT_OK; part++)
        if (v->changes[CKPT_PART_COUNT * range->tensor + (size_t)part] != NULL)
            code = patch_part(v, range, (ckpt_part)part, tile, err);
    return code;
}

static uint64_t patch_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    return source_need(((const patch_view *)self)->from, tensor, row_count);
}

static void patch_free(ckpt_source *self)
{
    patch_view *v = (patch_view *)self;

    const size_t count = CKPT_PART_COUNT * ckpt_catalog_count(self->catalog);

    for (size_t i = 0; v->states != NULL && i < count; i++)
        free_state(v->states[i]);
    while (v->free_states != NULL) {
        patch_state *s = v->free_states;

        v->free_states = s->next_free;
        free_state(s);
    }
    pthread_mutex_destroy(&v->lock);
    free(v->states);
    free(v->done);
    free(v->has_scale);
    free(v->tensor_scales);
    free(v->changes);
    free(v);
}

/* ---- which tensors ---- */

/* Check that copies of a tensor have the same change. */
static ckpt_code take_changes(patch_view *v, size_t i, ckpt_error *err)
{
    const ckpt_catalog *stored = v->model->in.stored;
    const int64_t first = v->model->first[i];
    const delta_tensor *change;

    if (first < 0)
        return CKPT_OK;
    change = delta_find(v->delta, ckpt_catalog_at(stored, (size_t)first)->name);
    for (int64_t other = v->model->next[first]; other >= 0; other = v->model->next[other]) {
        const char *name = ckpt_catalog_at(stored, (size_t)other)->name;
        const delta_tensor *second = delta_find(v->delta, name);

        if ((change == NULL) != (second == NULL) ||
            (change != NULL && strcmp(change->after, second->after) != 0))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' changes only one of '%s' and '%s', which "
                             "are copies of each other in '%s'", v->delta->path,
                             ckpt_catalog_at(stored, (size_t)first)->name, name,
                             v->model->in.path);
    }
    v->changes[i] = change;
    return CKPT_OK;
}

static ckpt_code check_names(const patch_view *v, ckpt_error *err)
{
    for (size_t i = 0; i < v->delta->count; i++) {
        const delta_tensor *t = &v->delta->tensors[i];
        const int64_t found = ckpt_catalog_find(v->model->in.stored, t->name);
        const ckpt_tensor *have;

        if (found < 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' changes tensor '%s', which '%s' lacks",
                             v->delta->path, t->name, v->model->in.path);
        have = ckpt_catalog_at(v->model->in.stored, (size_t)found);
        if (t->has_shape && (t->dtype != have->dtype || t->rank != have->rank ||
                             memcmp(t->shape, have->shape, t->rank * sizeof *t->shape) != 0))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' was made for another '%s': expected %s of "
                             "%llu bytes, '%s' has %s of %llu", v->delta->path, t->name,
                             ckpt_dtype_name(t->dtype), (unsigned long long)t->bytes,
                             v->model->in.path, ckpt_dtype_name(have->dtype),
                             (unsigned long long)ckpt_part_bytes(have, CKPT_DATA));
        if (ckpt_part_bytes(have, CKPT_DATA) == 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' changes tensor '%s', which is empty",
                             v->delta->path, t->name);
    }
    return CKPT_OK;
}

ckpt_code source_patch(ckpt_source *from, const delta_model *model,
                       const delta_patch_options *options, ckpt_source **out, ckpt_error *err)
{
    static const source_ops ops = { patch_read, patch_need, patch_free };
    const size_t count = CKPT_PART_COUNT * ckpt_catalog_count(from->catalog);
    patch_view *v = calloc(1, sizeof *v);
    ckpt_code code;

    if (v == NULL)
        return ckpt_fail_memory(err, "a view", sizeof *v);
    v->base = (ckpt_source){ &ops, from->catalog };
    v->from = from;
    v->model = model;
    v->delta = options->delta;
    v->options = *options;
    pthread_mutex_init(&v->lock, NULL);
    v->states = calloc(count + 1, sizeof *v->states);
    v->changes = calloc(count + 1, sizeof *v->changes);
    v->tensor_scales = calloc(count + 1, sizeof *v->tensor_scales);
    v->done = calloc(count + 1, sizeof *v->done);
    v->has_scale = calloc(count + 1, sizeof *v->has_scale);
    if (v->states == NULL || v->changes == NULL || v->tensor_scales == NULL || v->done == NULL ||
        v->has_scale == NULL)
        code = ckpt_fail_memory(err, "a view", count);
    else
        code = check_names(v, err);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = take_changes(v, i, err);
    if (code != CKPT_OK)
        patch_free(&v->base);
    else
        *out = &v->base;
    return code;
}
