/*
 * weights.h: loads the tensors of a checkpoint onto a backend, on request or ahead of it, and
 * caches them. If memory is needed, the least recently used ones are evicted; weights in use are
 * pinned. What was evicted and had to be read again is also kept in host memory, if there is any
 * for that (weights_keep.h).
 */
#ifndef RUN_WEIGHTS_H
#define RUN_WEIGHTS_H

#include "backend.h"

typedef struct run_weights run_weights;

typedef struct {
    ckpt_source *source;       /* logical tensors; borrowed */
    run_backend *backend;      /* borrowed */
    unsigned thread_count;     /* 0: one per core */
    uint64_t limit_bytes;
    uint64_t host_bytes;       /* with a device: for stages, and for copies of what is evicted */
} run_weights_options;

ckpt_code run_weights_open(const run_weights_options *options, run_weights **out, ckpt_error *err);
void run_weights_close(run_weights *weights);       /* NULL is fine */
void run_weights_set_limit(run_weights *weights, uint64_t limit_bytes);
/* A hint: with is_few, later loads use smaller tiles, so that several threads read one weight, and
 * what is read again is kept. */
void run_weights_expect(run_weights *weights, int is_few);

/* What a weight takes of the limit beside its bytes, so that 0 means: it is not loaded. */
enum { WEIGHT_EXTRA_BYTES = 1 };

/* Check that a tensor exists with this shape ([0, n] for a vector of n) and return the bytes of its
 * codes and scales. Call it once, in advance, for each tensor that will be used. */
ckpt_code run_weights_check(run_weights *weights, const char *name, const uint64_t shape[2],
                            uint64_t *out_bytes, ckpt_error *err);

/*
 * Start loading a weight that will be requested soon; call it in the order of the requests. Does
 * not evict weights that are pinned or were prefetched and not requested yet: returns 0 if there is
 * no room, else WEIGHT_HERE or WEIGHT_BEGUN. A read error is returned by the later request.
 */
enum { WEIGHT_HERE = 1, WEIGHT_BEGUN = 2 };
typedef enum { RUN_MATRIX, RUN_VECTOR, RUN_INTS } run_weight_kind;
int run_weights_prefetch(run_weights *weights, const char *name, run_weight_kind kind);

/* 1 if all checked tensors fit in the limit together, so that none is ever read twice. */
int run_weights_all_fit(const run_weights *weights);

/* Allow the eviction of weights that were prefetched and never requested. */
void run_weights_settle(run_weights *weights);
/* Total bytes of all requests so far, cached weights included. */
uint64_t run_weights_asked(const run_weights *weights);

/* Requests pin weights. run_weights_release unpins those requested after the mark was taken. */
size_t run_weights_mark(const run_weights *weights);
void run_weights_release(run_weights *weights, size_t mark);

/* Bytes that can be requested without a release: the limit less what is pinned. */
uint64_t run_weights_room(const run_weights *weights);

/* Request a matrix: waits until it is loaded and pins it. *out is borrowed until the release. */
ckpt_code run_weights_matrix(run_weights *weights, const char *name, const run_weight **out,
                             ckpt_error *err);
/* The same for a vector, converted to F32. */
ckpt_code run_weights_vector(run_weights *weights, const char *name, const run_buffer **out,
                             ckpt_error *err);
/* The same for an integer table, in host memory. *is_new: 1 if it was loaded since its last use. */
ckpt_code run_weights_ints(run_weights *weights, const char *name, const int32_t **out,
                           int *is_new, ckpt_error *err);

/* Slice i of a matrix that is too large to load as a whole: rows from i * slice_rows on. Only one
 * matrix may be used in slices. */
uint64_t run_weights_slice_rows(const run_weights *weights, const char *name);
ckpt_code run_weights_slice(run_weights *weights, const char *name, uint64_t i,
                            const run_weight **out, ckpt_error *err);

/* Read single rows: row ids[i] as F32 to out + i * columns. Not cached. */
typedef struct {
    const uint32_t *ids;
    uint64_t count;
    float *out;
} run_row_list;
ckpt_code run_weights_rows(run_weights *weights, const char *name, const run_row_list *list,
                           ckpt_error *err);

#endif
