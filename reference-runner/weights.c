/* weights.c: requests, caches and evicts weights. */
#include "weights.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "libckpt/machine.h"
#include "libckpt/size.h"
#include "weights_keep.h"
#include "weights_load.h"

enum { SLICE_BYTES = 1 << 26, SLICES_MAX = 1 << 12 };

/* A tensor, or a slice of one. */
typedef struct weight_item {
    struct weight_item *newer;
    struct weight_item *older;
    run_weight *weight;
    run_buffer *buffer;
    float *floats;                 /* a vector's values, until they are copied to `buffer` */
    int32_t *ints;
    load_task *task;               /* NULL unless it is being loaded */
    uint64_t bytes;                /* 0: neither loaded nor being loaded */
    unsigned pin_count;
    int is_ahead;                  /* prefetched and not requested yet */
    /* What outlives an eviction: */
    int was_read;
    void *copy;                    /* in host memory; of `keep`; or NULL */
} weight_item;

struct run_weights {
    run_weights_options options;
    const ckpt_catalog *catalog;
    load_team *team;
    keep_pool *keep;               /* NULL: no copies are kept */
    int is_few;                    /* run_weights_expect */
    int is_reserved;
    weight_item *items;            /* one for each tensor, then the slices */
    size_t item_count;
    weight_item *newest;
    weight_item *oldest;
    weight_item **pins;
    size_t pin_count;
    uint64_t used_bytes;
    uint64_t pinned_bytes;
    uint64_t asked_bytes;
    uint64_t all_bytes;            /* of all checked tensors, which are all that are ever used */
};

ckpt_code run_weights_open(const run_weights_options *options, run_weights **out, ckpt_error *err)
{
    run_weights *w = calloc(1, sizeof *w);
    ckpt_code code;

    if (w == NULL)
        return ckpt_fail_memory(err, "weights", sizeof *w);
    w->options = *options;
    if (w->options.thread_count == 0)
        w->options.thread_count = machine_cores();
    w->catalog = options->source->catalog;
    w->item_count = ckpt_catalog_count(w->catalog) + SLICES_MAX;
    w->items = calloc(w->item_count, sizeof *w->items);
    if (w->items == NULL)
        code = ckpt_fail_memory(err, "weights", options->source->catalog->count);
    else
        code = load_team_open(&(load_options){ options->source, options->backend,
                                               w->options.thread_count }, &w->team, err);
    if (code != CKPT_OK)
        run_weights_close(w);
    else
        *out = w;
    return code;
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

    if (item->task != NULL)
        load_end(item->task, NULL);
    unlink_item(w, item);
    backend->ops->weight_free(backend, item->weight);
    backend->ops->buffer_free(backend, item->buffer);
    free(item->floats);
    free(item->ints);
    w->used_bytes -= item->bytes;
    *item = (weight_item){ .was_read = item->was_read, .copy = item->copy };
}

void run_weights_close(run_weights *weights)
{
    if (weights == NULL)
        return;
    while (weights->newest != NULL)
        drop_item(weights, weights->newest);
    load_team_close(weights->team);
    keep_close(weights->keep);
    free(weights->pins);
    free(weights->items);
    free(weights);
}

void run_weights_set_limit(run_weights *weights, uint64_t limit_bytes)
{
    weights->options.limit_bytes = limit_bytes;
}

/* Host memory for copies is made only if there is something to evict. */
void run_weights_expect(run_weights *weights, int is_few)
{
    run_weights_options *o = &weights->options;
    const uint64_t stages = load_team_bytes(weights->team);

    load_team_expect(weights->team, is_few);
    weights->is_few = is_few;
    if (is_few && weights->keep == NULL && o->backend->ops->host_create != NULL &&
        o->host_bytes > stages && !run_weights_all_fit(weights) &&
        (weights->keep = keep_open(o->backend, o->host_bytes - stages)) == NULL)
        o->host_bytes = 0;             /* not again */
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

ckpt_code run_weights_check(run_weights *weights, const char *name, const uint64_t shape[2],
                            uint64_t *out_bytes, ckpt_error *err)
{
    const uint32_t rank = shape[0] == 0 ? 1 : 2;
    char text[64];
    const ckpt_tensor *t;
    ckpt_tensor form;
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
    form = load_form(weights->options.backend, t);
    *out_bytes = ckpt_part_bytes(&form, CKPT_DATA) + ckpt_part_bytes(&form, CKPT_SCALE);
    /* A vector is kept as F32: at most so many bytes for each that is stored. */
    weights->all_bytes += *out_bytes * (rank == 1 ? sizeof(float) : 1) + WEIGHT_EXTRA_BYTES;
    return CKPT_OK;
}

int run_weights_all_fit(const run_weights *weights)
{
    return weights->all_bytes <= weights->options.limit_bytes;
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

static int fits(const run_weights *w, uint64_t bytes)
{
    return w->used_bytes + bytes <= w->options.limit_bytes;
}

/* Evict the least recently used items until `bytes` fit, except pinned and prefetched ones. */
static int make_room(run_weights *w, uint64_t bytes)
{
    weight_item *item = w->oldest;

    while (!fits(w, bytes) && item != NULL) {
        weight_item *newer = item->newer;

        if (item->pin_count == 0 && !item->is_ahead)
            drop_item(w, item);
        item = newer;
    }
    return fits(w, bytes);
}

/* The same; if that is not enough, also evict prefetched items, the last ones first, because they
 * are needed latest. */
static ckpt_code need_room(run_weights *w, uint64_t bytes, ckpt_error *err)
{
    weight_item *item = make_room(w, bytes) ? NULL : w->newest;

    while (!fits(w, bytes) && item != NULL) {
        weight_item *older = item->older;

        if (item->pin_count == 0)
            drop_item(w, item);
        item = older;
    }
    if (!fits(w, bytes))
        return ckpt_fail(err, CKPT_E_MEMORY,
                         "weights in use need %" PRIu64 " bytes, the memory limit leaves %" PRIu64,
                         w->used_bytes + bytes, w->options.limit_bytes);
    return CKPT_OK;
}

static ckpt_code pin(run_weights *w, weight_item *item, ckpt_error *err)
{
    weight_item **pins = array_room(w->pins, w->pin_count, sizeof *pins, "weights", err);

    if (pins == NULL)
        return CKPT_E_MEMORY;
    w->pins = pins;
    pins[w->pin_count++] = item;
    if (item->pin_count++ == 0)
        w->pinned_bytes += item->bytes;
    return CKPT_OK;
}

/* Move the item to the most recently used end of the list. */
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

/* ---- loading ---- */

/* A request for a tensor or some of its rows. */
typedef struct {
    run_weights *weights;
    weight_item *item;
    run_weight_kind kind;
    load_job job;
    int is_new;                  /* it was loaded for this request */
} weight_request;

static const ckpt_tensor *tensor_of(const weight_request *r)
{
    return ckpt_catalog_at(r->weights->catalog, r->job.tensor);
}

/* Make a request for a whole tensor. */
static ckpt_code request_tensor(run_weights *w, const char *name, run_weight_kind kind,
                                weight_request *out, ckpt_error *err)
{
    *out = (weight_request){ .weights = w, .kind = kind };
    if (find_tensor(w, name, &out->job.tensor, err) != CKPT_OK)
        return CKPT_E_FORMAT;
    out->item = &w->items[out->job.tensor];
    out->job.row_count = ckpt_tensor_rows(tensor_of(out));
    if (kind == RUN_INTS && !ckpt_tensor_is_int(tensor_of(out)))
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' is %s, expected integers", name,
                         ckpt_dtype_name(tensor_of(out)->dtype));
    return CKPT_OK;
}

static uint64_t request_bytes(const weight_request *r)
{
    ckpt_tensor part = load_form(r->weights->options.backend, tensor_of(r));

    if (r->kind != RUN_MATRIX)
        return r->job.row_count * ckpt_tensor_cols(&part) * sizeof(float);
    part.rank = 2;
    part.shape[1] = ckpt_tensor_cols(tensor_of(r));
    part.shape[0] = r->job.row_count;
    return ckpt_part_bytes(&part, CKPT_DATA) + ckpt_part_bytes(&part, CKPT_SCALE);
}

/* Before the first load, tell the backend how much memory weights will need. */
static void reserve(run_weights *w)
{
    if (!w->is_reserved)
        w->options.backend->ops->weights_reserve(w->options.backend,
                                                 size_min(w->all_bytes, w->options.limit_bytes));
    w->is_reserved = 1;
}

/* Start loading; the caller has made room. */
static ckpt_code begin(weight_request *r, ckpt_error *err)
{
    run_weights *w = r->weights;
    run_backend *backend = w->options.backend;
    const uint64_t bytes = request_bytes(r);
    const ckpt_tensor form = load_form(backend, tensor_of(r));
    weight_item *item = r->item;
    ckpt_code code = CKPT_OK;

    reserve(w);
    if (r->kind == RUN_MATRIX)
        code = backend->ops->weight_create(backend, &form, r->job.row_count, &item->weight, err);
    else if (r->kind == RUN_VECTOR && (item->floats = malloc(bytes + 1)) == NULL)
        code = ckpt_fail_memory(err, "a tensor", bytes);
    else if (r->kind == RUN_INTS && (item->ints = malloc(bytes + 1)) == NULL)
        code = ckpt_fail_memory(err, "a tensor", bytes);
    if (code != CKPT_OK)
        return code;
    keep(w, item, bytes + WEIGHT_EXTRA_BYTES);
    r->job.weight = item->weight;
    r->job.floats = item->floats;
    r->job.ints = item->ints;
    code = item->copy != NULL ? backend->ops->weight_restore(item->weight, item->copy, err)
                              : load_begin(w->team, &r->job, &item->task, err);
    if (code != CKPT_OK)
        drop_item(w, item);
    return code;
}

/* Keep a copy of a weight that was read for the second time. */
static ckpt_code save(const run_weights *w, weight_item *item, ckpt_error *err)
{
    const run_backend_ops *ops = w->options.backend->ops;
    void *to = NULL;
    ckpt_code code;

    if (item->was_read && w->is_few && w->keep != NULL)
        to = keep_take(w->keep, ops->weight_save_bytes(item->weight));
    item->was_read = 1;
    if (to == NULL)
        return CKPT_OK;
    if ((code = ops->weight_save(item->weight, to, err)) == CKPT_OK)
        item->copy = to;
    return code;
}

/* Copy a loaded vector to a buffer of the backend. */
static ckpt_code send_vector(const weight_request *r, ckpt_error *err)
{
    run_backend *backend = r->weights->options.backend;
    const uint64_t count = request_bytes(r) / sizeof(float);
    weight_item *item = r->item;
    ckpt_code code = backend->ops->buffer_create(backend, count, &item->buffer, err);

    if (code == CKPT_OK)
        code = backend->ops->buffer_write(item->buffer, 0, item->floats, count, err);
    free(item->floats);
    item->floats = NULL;
    return code;
}

/* Load the item if necessary, wait until it is loaded, and pin it. */
static ckpt_code get(weight_request *r, ckpt_error *err)
{
    run_weights *w = r->weights;
    weight_item *item = r->item;
    ckpt_code code = CKPT_OK;

    if (item->bytes == 0 && ((code = need_room(w, request_bytes(r), err)) != CKPT_OK ||
                             (code = begin(r, err)) != CKPT_OK))
        return code;
    touch(w, item);
    w->asked_bytes += item->bytes;
    item->is_ahead = 0;
    r->is_new = item->task != NULL;
    if (item->task != NULL) {
        code = load_end(item->task, err);
        item->task = NULL;
        if (code == CKPT_OK && r->kind == RUN_VECTOR)
            code = send_vector(r, err);
        else if (code == CKPT_OK && r->kind == RUN_MATRIX)
            code = save(w, item, err);
    }
    if (code == CKPT_OK)
        return pin(w, item, err);
    drop_item(w, item);
    return code;
}

int run_weights_prefetch(run_weights *weights, const char *name, run_weight_kind kind)
{
    weight_request r;
    ckpt_error err;

    if (request_tensor(weights, name, kind, &r, &err) != CKPT_OK)
        return 0;
    if (r.item->bytes > 0)
        return WEIGHT_HERE;
    if (!make_room(weights, request_bytes(&r)) || begin(&r, &err) != CKPT_OK)
        return 0;
    r.item->is_ahead = 1;
    return WEIGHT_BEGUN;
}

void run_weights_settle(run_weights *weights)
{
    for (weight_item *item = weights->oldest; item != NULL; item = item->newer)
        item->is_ahead = 0;
}

uint64_t run_weights_asked(const run_weights *weights)
{
    return weights->asked_bytes;
}

static ckpt_code get_tensor(run_weights *w, const char *name, run_weight_kind kind,
                            weight_request *out, ckpt_error *err)
{
    const ckpt_code code = request_tensor(w, name, kind, out, err);

    return code == CKPT_OK ? get(out, err) : code;
}

ckpt_code run_weights_matrix(run_weights *weights, const char *name, const run_weight **out,
                             ckpt_error *err)
{
    weight_request r;
    const ckpt_code code = get_tensor(weights, name, RUN_MATRIX, &r, err);

    if (code == CKPT_OK)
        *out = r.item->weight;
    return code;
}

ckpt_code run_weights_vector(run_weights *weights, const char *name, const run_buffer **out,
                             ckpt_error *err)
{
    weight_request r;
    const ckpt_code code = get_tensor(weights, name, RUN_VECTOR, &r, err);

    if (code == CKPT_OK)
        *out = r.item->buffer;
    return code;
}

ckpt_code run_weights_ints(run_weights *weights, const char *name, const int32_t **out,
                           int *is_new, ckpt_error *err)
{
    weight_request r;
    const ckpt_code code = get_tensor(weights, name, RUN_INTS, &r, err);

    if (code != CKPT_OK)
        return code;
    *out = r.item->ints;
    *is_new = r.is_new;
    return CKPT_OK;
}

uint64_t run_weights_slice_rows(const run_weights *weights, const char *name)
{
    const int64_t i = ckpt_catalog_find(weights->catalog, name);
    const ckpt_tensor form =
        load_form(weights->options.backend, ckpt_catalog_at(weights->catalog, (size_t)i));
    const uint64_t rows =
        size_max(SLICE_BYTES / size_max(ckpt_part_row_bytes(&form, CKPT_DATA), 1),
                 ckpt_tensor_rows(&form) / SLICES_MAX);

    return (rows / SOURCE_BAND_ROWS + 1) * SOURCE_BAND_ROWS;
}

ckpt_code run_weights_slice(run_weights *weights, const char *name, uint64_t i,
                            const run_weight **out, ckpt_error *err)
{
    const uint64_t rows = run_weights_slice_rows(weights, name);
    weight_request r;
    ckpt_code code;

    if ((code = request_tensor(weights, name, RUN_MATRIX, &r, err)) != CKPT_OK)
        return code;
    r.item = &weights->items[ckpt_catalog_count(weights->catalog) + i];
    r.job.row = i * rows;
    r.job.row_count = size_min(rows, r.job.row_count - r.job.row);
    if ((code = get(&r, err)) == CKPT_OK)
        *out = r.item->weight;
    return code;
}

/* ---- single rows ---- */

static int compare_rows(const void *left, const void *right)
{
    const load_row *a = left;
    const load_row *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

ckpt_code run_weights_rows(run_weights *weights, const char *name, const run_row_list *list,
                           ckpt_error *err)
{
    load_row *rows = malloc((list->count + 1) * sizeof *rows);
    load_job job = { .floats = list->out, .rows = rows, .single_count = list->count };
    load_task *task;
    ckpt_code code;

    if (rows == NULL)
        return ckpt_fail_memory(err, "rows", list->count);
    for (uint32_t i = 0; i < list->count; i++)
        rows[i] = (load_row){ list->ids[i], i };
    qsort(rows, list->count, sizeof *rows, compare_rows);
    if ((code = find_tensor(weights, name, &job.tensor, err)) == CKPT_OK &&
        (code = load_begin(weights->team, &job, &task, err)) == CKPT_OK)
        code = load_end(task, err);
    free(rows);
    return code;
}
