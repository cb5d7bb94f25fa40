/* Maxima of whole tensors; see whole_maxima.h. */
#include "whole_maxima.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "map.h"
#include "size.h"
#include "tensor_class.h"
#include "values.h"

enum { PIECE_COLUMNS = 4096 };      /* columns that are decoded to F32 at a time */

/* The state of one tensor. */
typedef struct {
    maximum_kind kind;
    size_t partner;                 /* the fused weight; itself: none */
    uint64_t next_row;              /* the first row that no thread has taken */
    uint64_t rows_done;
    uint32_t largest;
} whole;

struct whole_maxima {
    ckpt_source *from;
    whole *wholes;                  /* indexed by tensor */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    ckpt_code failed;               /* the first failure, returned to all callers */
    ckpt_error failure;
};

static size_t find_partner(const ckpt_catalog *catalog, const maximum_kind *kinds, size_t tensor)
{
    char name[MAP_NAME_BYTES];
    const int64_t found =
        tensor_fused_partner(ckpt_catalog_at(catalog, tensor)->name, name, sizeof name)
            ? ckpt_catalog_find(catalog, name)
            : CKPT_NOT_FOUND;

    return found >= 0 && kinds[found] == kinds[tensor] ? (size_t)found : tensor;
}

ckpt_code whole_maxima_create(ckpt_source *from, const maximum_kind *kinds, whole_maxima **out,
                              ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(from->catalog);
    whole_maxima *m = calloc(1, sizeof *m);

    if (m == NULL || (m->wholes = calloc(count + 1, sizeof *m->wholes)) == NULL) {
        free(m);
        return ckpt_fail_memory(err, "maxima", count);
    }
    m->from = from;
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->changed, NULL);
    for (size_t i = 0; i < count; i++) {
        m->wholes[i].kind = kinds[i];
        m->wholes[i].partner =
            kinds[i] == MAXIMUM_NONE ? i : find_partner(from->catalog, kinds, i);
    }
    *out = m;
    return CKPT_OK;
}

void whole_maxima_free(whole_maxima *m)
{
    if (m == NULL)
        return;
    pthread_cond_destroy(&m->changed);
    pthread_mutex_destroy(&m->lock);
    free(m->wholes);
    free(m);
}

/* ---- one tile ---- */

static uint32_t largest_scale(const ckpt_tile *tile)
{
    const uint8_t *scales = tile->part[CKPT_SCALE];
    uint32_t largest = 0;

    for (uint64_t i = 0; i < tile->part_bytes[CKPT_SCALE]; i++)
        largest = scales[i] > largest && scales[i] != 255 ? scales[i] : largest;
    return largest;
}

/* The largest of BF16 values, which need no decoding if all are finite; if not, returns 0. */
static int largest_half(const ckpt_tensor *t, const ckpt_tile *tile, uint32_t *out)
{
    const size_t count = (size_t)tile->part_bytes[CKPT_DATA] / sizeof(uint16_t);
    float largest;

    if (t->dtype != CKPT_BF16 || t->scale_dtype != CKPT_NONE)
        return 0;
    largest = kernels_get()->bf16_block_amax((const uint16_t *)tile->part[CKPT_DATA], 1, count,
                                             count);
    memcpy(out, &largest, sizeof *out);
    return isfinite(largest);
}

/* NaN and infinity are skipped here: quantising refuses them, or replaces them by 0. */
static uint32_t largest_of(const ckpt_kernels *k, const float *values, size_t count)
{
    const float all = k->f32_block_amax(values, 1, count, count);
    uint32_t bits;
    uint32_t largest = 0;

    memcpy(&bits, &all, sizeof bits);
    if (isfinite(all))
        return bits;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        largest = bits < 0x7F800000u && bits > largest ? bits : largest;
    }
    return largest;
}

/* Uses scratch without rewinding it. */
static ckpt_code largest_value(const ckpt_tensor *t, const ckpt_tile *tile, arena *scratch,
                               uint32_t *out, ckpt_error *err)
{
    const uint64_t cols = ckpt_tensor_cols(t);
    const uint64_t rows = tile->part_bytes[CKPT_DATA] / ckpt_part_row_bytes(t, CKPT_DATA);
    const size_t most = (size_t)size_min(cols, PIECE_COLUMNS);
    float *values = arena_alloc(scratch, most * sizeof *values);
    values_reader reader;
    ckpt_code code;

    if (values == NULL)
        return ckpt_fail_memory(err, "a row", most * sizeof *values);
    if ((code = values_begin(&reader, t, tile, scratch, err)) != CKPT_OK)
        return code;
    *out = 0;
    for (uint64_t row = 0; row < rows; row++)
        for (uint64_t col = 0; col < cols; col += most) {
            const size_t count = (size_t)size_min(most, cols - col);
            uint32_t largest;

            values_f32(&reader, row, col, count, values);
            largest = largest_of(reader.kernels, values, count);
            *out = largest > *out ? largest : *out;
        }
    return CKPT_OK;
}

/* Rounding is monotonic, so it is enough to round the maximum. One that would round to infinity is
 * not rounded: quantising refuses it. */
static uint32_t round_to_bf16(uint32_t bits)
{
    const ckpt_kernels *k = kernels_get();
    float value;
    uint16_t code;

    memcpy(&value, &bits, sizeof value);
    k->f32_to_bf16(&value, &code, 1);
    k->bf16_to_f32(&code, &value, 1);
    if (isfinite(value))
        memcpy(&bits, &value, sizeof bits);
    return bits;
}

static ckpt_code measure_tile(whole_maxima *m, const source_range *range, arena *scratch,
                              uint32_t *out, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(m->from->catalog, range->tensor);
    const maximum_kind kind = m->wholes[range->tensor].kind;
    const size_t mark = arena_mark(scratch);
    ckpt_tile tile;
    ckpt_code code = source_read_tile(m->from, range, scratch, &tile, err);

    if (code == CKPT_OK && kind == MAXIMUM_SCALE)
        *out = largest_scale(&tile);
    else if (code == CKPT_OK && !largest_half(t, &tile, out))
        code = largest_value(t, &tile, scratch, out, err);
    if (code == CKPT_OK && kind == MAXIMUM_VALUE)
        *out = round_to_bf16(*out);
    arena_rewind(scratch, mark);
    return code;
}

/* ---- one tensor ---- */

/* Take the next tile of the tensor; 0: none is left. Called with the lock held. */
static int take_tile(whole_maxima *m, size_t tensor, source_range *range)
{
    const ckpt_tensor *t = ckpt_catalog_at(m->from->catalog, tensor);
    const uint64_t rows = ckpt_tensor_rows(t);
    whole *w = &m->wholes[tensor];

    if (w->next_row >= rows)
        return 0;
    range->tensor = tensor;
    range->row = w->next_row;
    range->row_count = size_min(source_tile_rows(t), rows - w->next_row);
    range->want = w->kind == MAXIMUM_SCALE ? SOURCE_WANT_SCALE : SOURCE_WANT_ALL;
    w->next_row += range->row_count;
    return 1;
}

/* Read the remaining tiles of the tensor and wait for those that other threads read. Called with
 * the lock held; releases it while reading. */
static void finish_tensor(whole_maxima *m, size_t tensor, arena *scratch)
{
    const uint64_t rows = ckpt_tensor_rows(ckpt_catalog_at(m->from->catalog, tensor));
    whole *w = &m->wholes[tensor];
    source_range range;

    while (m->failed == CKPT_OK && w->rows_done < rows) {
        ckpt_error failure = { .text = "" };
        uint32_t largest = 0;
        ckpt_code code;

        if (!take_tile(m, tensor, &range)) {
            pthread_cond_wait(&m->changed, &m->lock);
            continue;
        }
        pthread_mutex_unlock(&m->lock);
        code = measure_tile(m, &range, scratch, &largest, &failure);
        pthread_mutex_lock(&m->lock);
        w->largest = largest > w->largest ? largest : w->largest;
        w->rows_done += range.row_count;
        if (code != CKPT_OK && m->failed == CKPT_OK) {
            m->failed = code;
            m->failure = failure;
        }
        pthread_cond_broadcast(&m->changed);
    }
}

ckpt_code whole_maxima_get(whole_maxima *m, size_t tensor, arena *scratch, uint32_t *out,
                           ckpt_error *err)
{
    const size_t partner = m->wholes[tensor].partner;
    ckpt_error failure = { .text = "" };
    ckpt_code code;

    *out = 0;
    if (m->wholes[tensor].kind == MAXIMUM_NONE)
        return CKPT_OK;
    pthread_mutex_lock(&m->lock);
    finish_tensor(m, tensor, scratch);
    finish_tensor(m, partner, scratch);
    *out = m->wholes[tensor].largest > m->wholes[partner].largest ? m->wholes[tensor].largest
                                                                  : m->wholes[partner].largest;
    code = m->failed;
    failure = m->failure;
    pthread_mutex_unlock(&m->lock);
    return code == CKPT_OK ? CKPT_OK : ckpt_fail(err, code, "%s", failure.text);
}

static uint64_t tensor_need(const whole_maxima *m, size_t tensor)
{
    const ckpt_tensor *t = ckpt_catalog_at(m->from->catalog, tensor);
    const uint64_t rows = size_min(source_tile_rows(t), ckpt_tensor_rows(t));

    return source_need(m->from, tensor, rows) + values_need(t) +
           arena_cost(size_min(ckpt_tensor_cols(t), PIECE_COLUMNS) * sizeof(float));
}

uint64_t whole_maxima_need(const whole_maxima *m, size_t tensor)
{
    if (m->wholes[tensor].kind == MAXIMUM_NONE)
        return 0;
    return size_max(tensor_need(m, tensor), tensor_need(m, m->wholes[tensor].partner));
}
