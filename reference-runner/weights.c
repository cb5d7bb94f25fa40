/* Loading, checking, keeping and forgetting weights. */
#include "weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "size.h"
#include "values.h"

enum { SLICE_BYTES = 1 << 26, SLICES_MAX = 1 << 12 };

/* A tensor, or a slice of one. */
typedef struct weight_item {
    struct weight_item *newer;
    struct weight_item *older;
    run_weight *weight;
    run_buffer *buffer;
    int32_t *ints;
    uint64_t bytes;
    unsigned pin_count;
} weight_item;

struct run_weights {
    run_weights_options options;
    const ckpt_catalog *catalog;
    weight_item *items;            /* one for each tensor, then the slices */
    size_t item_count;
    weight_item *newest;
    weight_item *oldest;
    weight_item **pins;
    size_t pin_count;
    size_t pin_capacity;
    uint64_t used_bytes;
    uint64_t pinned_bytes;
};

ckpt_code run_weights_open(const run_weights_options *options, run_weights **out, ckpt_error *err)
{
    run_weights *w = calloc(1, sizeof *w);

    if (w == NULL)
        return ckpt_fail_memory(err, "weights", sizeof *w);
    w->options = *options;
    if (w->options.thread_count == 0) {
        const long cores = sysconf(_SC_NPROCESSORS_ONLN);

        w->options.thread_count = cores > 0 ? (unsigned)cores : 1;
    }
    w->catalog = options->source->catalog;
    w->item_count = ckpt_catalog_count(w->catalog) + SLICES_MAX;
    w->items = calloc(w->item_count, sizeof *w->items);
    if (w->items == NULL) {
        free(w);
        return ckpt_fail_memory(err, "weights", options->source->catalog->count);
    }
    *out = w;
    return CKPT_OK;
}

static void unlink_item(run_weights *w, weight_item *item)
{
    if (item->newer != NULL)
        item->newer->older = item->older;
    else
        w->newest = item->older;
    if (item->older != NULL)
        item->older->newer = item->newer;
    else
        w->oldest = item->newer;
}

static void drop_item(run_weights *w, weight_item *item)
{
    run_backend *backend = w->options.backend;

    unlink_item(w, item);
    backend->ops->weight_free(backend, item->weight);
    backend->ops->buffer_free(backend, item->buffer);
    free(item->ints);
    w->used_bytes -= item->bytes;
    memset(item, 0, sizeof *item);
}

void run_weights_close(run_weights *weights)
{
    if (weights == NULL)
        return;
    while (weights->newest != NULL)
        drop_item(weights, weights->newest);
    free(weights->pins);
    free(weights->items);
    free(weights);
}

void run_weights_set_limit(run_weights *weights, uint64_t limit_bytes)
{
    weights->options.limit_bytes = limit_bytes;
}

static ckpt_code find_tensor(const run_weights *w, const char *name, size_t *out,
                             ckpt_error *err)
{
    const int64_t found = ckpt_catalog_find(w->catalog, name);

    *out = 0;
    if (found == CKPT_NOT_FOUND)
        return ckpt_fail(err, CKPT_E_FORMAT, "the model has no tensor '%s'", name);
    *out = (size_t)found;
    return CKPT_OK;
}

ckpt_code run_weights_check(const run_weights *weights, const char *name, const uint64_t shape[2],
                            uint64_t *out_bytes, ckpt_error *err)
{
    const uint32_t rank = shape[0] == 0 ? 1 : 2;
    char text[64];
    const ckpt_tensor *t;
    ckpt_code code;
    size_t i;

    if ((code = find_tensor(weights, name, &i, err)) != CKPT_OK)
        return code;
    t = ckpt_catalog_at(weights->catalog, i);
    if (t->rank != rank || t->shape[rank - 1] != shape[1] ||
        (rank == 2 && t->shape[0] != shape[0])) {
        catalog_shape_text(t, text, sizeof text);
        if (rank == 1)
            return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' has shape %s, expected [%" PRIu64 "]",
                             name, text, shape[1]);
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "tensor '%s' has shape %s, expected [%" PRIu64 ", %" PRIu64 "]", name,
                         text, shape[0], shape[1]);
    }
    *out_bytes = ckpt_part_bytes(t, CKPT_DATA) + ckpt_part_bytes(t, CKPT_SCALE);
    return CKPT_OK;
}

size_t run_weights_mark(const run_weights *weights)
{
    return weights->pin_count;
}

void run_weights_release(run_weights *weights, size_t mark)
{
    while (weights->pin_count > mark) {
        weight_item *item = weights->pins[--weights->pin_count];

        if (--item->pin_count == 0)
            weights->pinned_bytes -= item->bytes;
    }
}

uint64_t run_weights_room(const run_weights *weights)
{
    return weights->options.limit_bytes - weights->pinned_bytes;
}

/* ---- keeping ---- */

static ckpt_code make_room(run_weights *w, uint64_t bytes, ckpt_error *err)
{
    weight_item *item = w->oldest;

    while (w->used_bytes + bytes > w->options.limit_bytes && item != NULL) {
        weight_item *next = item->newer;

        if (item->pin_count == 0)
            drop_item(w, item);
        item = next;
    }
    if (w->used_bytes + bytes > w->options.limit_bytes)
        return ckpt_fail(err, CKPT_E_MEMORY,
                         "weights in use need %" PRIu64 " bytes, the memory limit leaves %" PRIu64,
                         w->used_bytes + bytes, w->options.limit_bytes);
    return CKPT_OK;
}

static ckpt_code pin(run_weights *w, weight_item *item, ckpt_error *err)
{
    if (w->pin_count == w->pin_capacity) {
        const size_t capacity = 2 * w->pin_capacity + 64;
        weight_item **pins = realloc(w->pins, capacity * sizeof *pins);

        if (pins == NULL)
            return ckpt_fail_memory(err, "weights", capacity);
        w->pins = pins;
        w->pin_capacity = capacity;
    }
    w->pins[w->pin_count++] = item;
    if (item->pin_count++ == 0)
        w->pinned_bytes += item->bytes;
    return CKPT_OK;
}

/* Make the item the newest one. */
static void touch(run_weights *w, weight_item *item)
{
    if (item->bytes > 0)
        unlink_item(w, item);
    item->newer = NULL;
    item->older = w->newest;
    if (w->newest != NULL)
        w->newest->newer = item;
    else
        w->oldest = item;
    w->newest = item;
}

static void keep(run_weights *w, weight_item *item, uint64_t bytes)
{
    touch(w, item);
    item->bytes = bytes;
    w->used_bytes += bytes;
}

/* ---- values ---- */

#define ANY_BITS(type, mask)                                                                      \
    do {                                                                                          \
        const size_t count = (size_t)(bytes / sizeof(type));                                      \
        unsigned found = 0;                                                                       \
        for (size_t i = 0; i < count; i++) {                                                      \
            type value;                                                                           \
            memcpy(&value, (const char *)data + i * sizeof value, sizeof value);                  \
            found |= (value & (mask)) == (mask);                                                  \
        }                                                                                         \
        return found != 0;                                                                        \
    } while (0)

static int has_not_finite(ckpt_dtype dtype, const void *data, uint64_t bytes)
{
    switch (dtype) {
    case CKPT_F8_E4M3:
        ANY_BITS(uint8_t, 0x7Fu);
    case CKPT_F8_E8M0:
        ANY_BITS(uint8_t, 0xFFu);
    case CKPT_F8_E5M2:
        ANY_BITS(uint8_t, 0x7Cu);
    case CKPT_F16:
        ANY_BITS(uint16_t, 0x7C00u);
    case CKPT_BF16:
        ANY_BITS(uint16_t, 0x7F80u);
    case CKPT_F32:
        ANY_BITS(uint32_t, 0x7F800000u);
    default:
        return 0;
    }
}

static ckpt_code check_tile(const ckpt_tensor *t, const source_range *range, const ckpt_tile *tile,
                            ckpt_error *err)
{
    uint64_t row;
    uint64_t scale_rows = 0;

    if (t->scale_dtype != CKPT_NONE)
        source_scale_rows(t, range, &row, &scale_rows);
    if (has_not_finite(t->dtype, tile->part[CKPT_DATA],
                       range->row_count * ckpt_part_row_bytes(t, CKPT_DATA)) ||
        (scale_rows > 0 && has_not_finite(t->scale_dtype, tile->part[CKPT_SCALE],
                                          scale_rows * ckpt_part_row_bytes(t, CKPT_SCALE))))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "tensor '%s' has a NaN or an infinity in rows %" PRIu64 " to %" PRIu64,
                         t->name, range->row, range->row + range->row_count - 1);
    return CKPT_OK;
}

/* Where the tiles of some rows of a tensor go. */
typedef struct {
    run_weights *weights;
    size_t tensor;
    uint64_t row;              /* a multiple of SOURCE_BAND_ROWS */
    uint64_t row_count;
    run_weight *weight;        /* one of these three */
    float *floats;
    int32_t *ints;
} load_job;

static ckpt_code put_ints(const load_job *job, values_reader *reader, const source_range *range,
                          int64_t *row, ckpt_error *err)
{
    for (uint64_t i = 0; i < range->row_count; i++) {
        values_i64(reader, i, row);
        for (uint64_t c = 0; c < reader->cols; c++) {
            if (row[c] < 0 || row[c] > INT32_MAX)
                return ckpt_fail(err, CKPT_E_FORMAT,
                                 "tensor '%s' holds %" PRId64 " in row %" PRIu64,
                                 reader->tensor->name, row[c], range->row + i);
            job->ints[(range->row - job->row + i) * reader->cols + c] = (int32_t)row[c];
        }
    }
    return CKPT_OK;
}

static ckpt_code put_tile(const load_job *job, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(job->weights->catalog, job->tensor);
    values_reader reader;
    ckpt_code code;

    if ((code = check_tile(t, range, tile, err)) != CKPT_OK)
        return code;
    if (job->weight != NULL)
        return job->weights->options.backend->ops->weight_put(
            job->weight, range->row - job->row, range->row_count, tile, err);
    if ((code = values_begin(&reader, t, tile, scratch, err)) != CKPT_OK)
        return code;
    if (job->ints != NULL)
        return put_ints(job, &reader, range,
                        arena_alloc(scratch, reader.cols * sizeof(int64_t)), err);
    for (uint64_t i = 0; i < range->row_count; i++)
        values_f32(&reader, i, 0, reader.cols,
                   job->floats + (range->row - job->row + i) * reader.cols);
    return CKPT_OK;
}

static ckpt_code load_tile(const load_job *job, uint64_t i, arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(job->weights->catalog, job->tensor);
    const uint64_t rows = source_tile_rows(t);
    const source_range range = { job->tensor, job->row + i * rows,
                                 size_min(rows, job->row_count - i * rows), SOURCE_WANT_ALL };
    ckpt_tile tile;
    ckpt_code code;

    arena_rewind(scratch, 0);
    code = source_read_tile(job->weights->options.source, &range, scratch, &tile, err);
    return code != CKPT_OK ? code : put_tile(job, &range, &tile, scratch, err);
}

/* Read, check and hand over all tiles, on all threads. */
static ckpt_code load(const load_job *job, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(job->weights->catalog, job->tensor);
    const uint64_t tile_rows = source_tile_rows(t);
    const uint64_t tiles = size_div_up(job->row_count, tile_rows);
    const uint64_t need =
        source_need(job->weights->options.source, job->tensor,
                    size_min(tile_rows, ckpt_tensor_rows(t))) +
        values_need(t) + arena_cost(ckpt_tensor_cols(t) * sizeof(int64_t));
    ckpt_code result = CKPT_OK;

#pragma omp parallel num_threads((int)job->weights->options.thread_count) if (tiles > 1)
    {
        arena scratch;
        const int ready = arena_init_fixed(&scratch, need);

#pragma omp for schedule(dynamic)
        for (uint64_t i = 0; i < tiles; i++) {
            ckpt_error e;
            const ckpt_code code = ready ? load_tile(job, i, &scratch, &e)
                                         : ckpt_fail_memory(&e, "a tile", need);

            if (code != CKPT_OK) {
#pragma omp critical
                {
                    result = code;
                    if (err != NULL)
                        *err = e;
                }
            }
        }
        if (ready)
            arena_release(&scratch);
    }
    return result;
}

/* ---- loading on demand ---- */

static ckpt_code load_weight(run_weights *w, weight_item *item, load_job *job,
                             ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(w->catalog, job->tensor);
    run_backend *backend = w->options.backend;
    ckpt_tensor part = *t;
    ckpt_code code;

    part.rank = 2;
    part.shape[0] = job->row_count;
    part.shape[1] = ckpt_tensor_cols(t);
    if ((code = make_room(w, ckpt_part_bytes(&part, CKPT_DATA) +
                                 ckpt_part_bytes(&part, CKPT_SCALE), err)) != CKPT_OK ||
        (code = backend->ops->weight_create(backend, t, job->row_count, &job->weight, err)) !=
            CKPT_OK)
        return code;
    if ((code = load(job, err)) != CKPT_OK) {
        backend->ops->weight_free(backend, job->weight);
        return code;
    }
    item->weight = job->weight;
    keep(w, item, ckpt_part_bytes(&part, CKPT_DATA) + ckpt_part_bytes(&part, CKPT_SCALE) + 1);
    return CKPT_OK;
}

ckpt_code run_weights_matrix(run_weights *weights, const char *name, const run_weight **out,
                             ckpt_error *err)
{
    load_job job = { .weights = weights };
    weight_item *item;
    ckpt_code code;

    if ((code = find_tensor(weights, name, &job.tensor, err)) != CKPT_OK)
        return code;
    item = &weights->items[job.tensor];
    job.row_count = ckpt_tensor_rows(ckpt_catalog_at(weights->catalog, job.tensor));
    if (item->weight != NULL)
        touch(weights, item);
    else if ((code = load_weight(weights, item, &job, err)) != CKPT_OK)
        return code;
    *out = item->weight;
    return pin(weights, item, err);
}

uint64_t run_weights_slice_rows(const run_weights *weights, const char *name)
{
    const int64_t i = ckpt_catalog_find(weights->catalog, name);
    const ckpt_tensor *t = ckpt_catalog_at(weights->catalog, (size_t)i);
    const uint64_t rows = SLICE_BYTES / size_max(ckpt_part_row_bytes(t, CKPT_DATA), 1);

    return size_max(size_max(rows, ckpt_tensor_rows(t) / SLICES_MAX) / SOURCE_BAND_ROWS + 1, 1) *
           SOURCE_BAND_ROWS;
}

ckpt_code run_weights_slice(run_weights *weights, const char *name, uint64_t i,
                            const run_weight **out, ckpt_error *err)
{
    load_job job = { .weights = weights };
    const uint64_t rows = run_weights_slice_rows(weights, name);
    weight_item *item = &weights->items[ckpt_catalog_count(weights->catalog) + i];
    ckpt_code code;

    if ((code = find_tensor(weights, name, &job.tensor, err)) != CKPT_OK)
        return code;
    job.row = i * rows;
    job.row_count = size_min(
        rows, ckpt_tensor_rows(ckpt_catalog_at(weights->catalog, job.tensor)) - job.row);
    if (item->weight != NULL)
        touch(weights, item);
    else if ((code = load_weight(weights, item, &job, err)) != CKPT_OK)
        return code;
    *out = item->weight;
    return pin(weights, item, err);
}

ckpt_code run_weights_vector(run_weights *weights, const char *name, const run_buffer **out,
                             ckpt_error *err)
{
    run_backend *backend = weights->options.backend;
    load_job job = { .weights = weights };
    weight_item *item;
    uint64_t count;
    ckpt_code code;

    if ((code = find_tensor(weights, name, &job.tensor, err)) != CKPT_OK)
        return code;
    item = &weights->items[job.tensor];
    if (item->buffer != NULL) {
        touch(weights, item);
        *out = item->buffer;
        return pin(weights, item, err);
    }
    job.row_count = ckpt_tensor_rows(ckpt_catalog_at(weights->catalog, job.tensor));
    count = job.row_count * ckpt_tensor_cols(ckpt_catalog_at(weights->catalog, job.tensor));
    if ((code = make_room(weights, count * sizeof(float), err)) != CKPT_OK)
        return code;
    if ((job.floats = malloc(count * sizeof(float))) == NULL)
        return ckpt_fail_memory(err, "a tensor", count * sizeof(float));
    if ((code = load(&job, err)) == CKPT_OK &&
        (code = backend->ops->buffer_create(backend, count, &item->buffer, err)) == CKPT_OK) {
        keep(weights, item, count * sizeof(float) + 1);
        code = backend->ops->buffer_write(item->buffer, 0, job.floats, count, err);
    }
    free(job.floats);
    *out = item->buffer;
    return code != CKPT_OK ? code : pin(weights, item, err);
}

ckpt_code run_weights_ints(run_weights *weights, const char *name, const int32_t **out,
                           ckpt_error *err)
{
    load_job job = { .weights = weights };
    const ckpt_tensor *t;
    weight_item *item;
    uint64_t bytes;
    ckpt_code code;

    if ((code = find_tensor(weights, name, &job.tensor, err)) != CKPT_OK)
        return code;
    item = &weights->items[job.tensor];
    t = ckpt_catalog_at(weights->catalog, job.tensor);
    if (!ckpt_tensor_is_int(t))
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' is %s, expected integers", name,
                         ckpt_dtype_name(t->dtype));
    job.row_count = ckpt_tensor_rows(t);
    bytes = job.row_count * ckpt_tensor_cols(t) * sizeof(int32_t);
    if (item->ints != NULL) {
        touch(weights, item);
    } else {
        if ((code = make_room(weights, bytes, err)) != CKPT_OK)
            return code;
        if ((job.ints = malloc(bytes)) == NULL)
            return ckpt_fail_memory(err, "a tensor", bytes);
        if ((code = load(&job, err)) != CKPT_OK) {
            free(job.ints);
            return code;
        }
        item->ints = job.ints;
        keep(weights, item, bytes + 1);
    }
    *out = item->ints;
    return pin(weights, item, err);
}

/* ---- single rows ---- */

typedef struct {
    uint32_t id;
    uint32_t place;
} wanted_row;

static int compare_wanted(const void *left, const void *right)
{
    const wanted_row *a = left;
    const wanted_row *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

ckpt_code run_weights_rows(run_weights *weights, const char *name, const run_row_list *list,
                           ckpt_error *err)
{
    load_job job = { .weights = weights };
    const uint64_t count = list->count;
    wanted_row *wanted = malloc((count + 1) * sizeof *wanted);
    uint64_t band = UINT64_MAX;
    const ckpt_tensor *t;
    ckpt_code code;

    if (wanted == NULL)
        return ckpt_fail_memory(err, "rows", count);
    if ((code = find_tensor(weights, name, &job.tensor, err)) != CKPT_OK) {
        free(wanted);
        return code;
    }
    t = ckpt_catalog_at(weights->catalog, job.tensor);
    job.floats = malloc(SOURCE_BAND_ROWS * ckpt_tensor_cols(t) * sizeof(float));
    if (job.floats == NULL)
        code = ckpt_fail_memory(err, "rows", ckpt_tensor_cols(t));
    for (uint32_t i = 0; i < count; i++)
        wanted[i] = (wanted_row){ list->ids[i], i };
    qsort(wanted, count, sizeof *wanted, compare_wanted);
    for (uint64_t i = 0; i < count && code == CKPT_OK; i++) {
        if (wanted[i].id / SOURCE_BAND_ROWS != band) {
            band = wanted[i].id / SOURCE_BAND_ROWS;
            job.row = band * SOURCE_BAND_ROWS;
            job.row_count = size_min(SOURCE_BAND_ROWS, ckpt_tensor_rows(t) - job.row);
            code = load(&job, err);
        }
        if (code == CKPT_OK)
            memcpy(list->out + wanted[i].place * ckpt_tensor_cols(t),
                   job.floats + (wanted[i].id - job.row) * ckpt_tensor_cols(t),
                   ckpt_tensor_cols(t) * sizeof *list->out);
    }
    free(job.floats);
    free(wanted);
    return code;
}
