/*
 * weights.h: the tensors of a checkpoint on a backend, loaded on request or ahead of it, and
 * cached while there is room: the least recently used are evicted first. Weights in use are pinned.
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
} run_weights_options;

ckpt_code run_weights_open(const run_weights_options *options, run_weights **out, ckpt_error *err);
void run_weights_close(run_weights *weights);       /* NULL is fine */
void run_weights_set_limit(run_weights *weights, uint64_t limit_bytes);
/* Whether few weights are wanted at once from now on: then several threads read each of them. */
void run_weights_expect(run_weights *weights, int is_few);

/* Bytes of a tensor as it is kept, or an error: it is missing, or its shape is another one. A
 * vector has rows 0. Whatever is asked for later is checked first, once. */
ckpt_code run_weights_check(run_weights *weights, const char *name, const uint64_t shape[2],
                            uint64_t *out_bytes, ckpt_error *err);

/*
 * Begin to load what will be asked for soon, in that order, as long as it fits beside what is in
 * use or was begun before: 0 when it does not. Its errors show when it is asked for.
 */
enum { WEIGHT_HERE = 1, WEIGHT_BEGUN = 2 };
typedef enum { RUN_MATRIX, RUN_VECTOR, RUN_INTS } run_weight_kind;
int run_weights_prefetch(run_weights *weights, const char *name, run_weight_kind kind);

/* 1: all that was checked can be kept, so that nothing is read twice. */
int run_weights_all_fit(const run_weights *weights);

/* What was begun and not asked for is no longer due soon. */
void run_weights_settle(run_weights *weights);
/* Bytes of all that was asked for so far. */
uint64_t run_weights_asked(const run_weights *weights);

/* Whatever is loaded after a mark stays until it is released to the mark. */
size_t run_weights_mark(const run_weights *weights);
void run_weights_release(run_weights *weights, size_t mark);

/* Bytes that can be loaded without a release. */
uint64_t run_weights_room(const run_weights *weights);

/* Borrowed until the release. */
ckpt_code run_weights_matrix(run_weights *weights, const char *name, const run_weight **out,
                             ckpt_error *err);
/* As F32. */
ckpt_code run_weights_vector(run_weights *weights, const char *name, const run_buffer **out,
                             ckpt_error *err);
/* An integer table in host memory. *is_new: it has just been read. */
ckpt_code run_weights_ints(run_weights *weights, const char *name, const int32_t **out,
                           int *is_new, ckpt_error *err);

/* Slice i of a matrix that is too large for one piece: rows [i * slice_rows, ...). */
uint64_t run_weights_slice_rows(const run_weights *weights, const char *name);
ckpt_code run_weights_slice(run_weights *weights, const char *name, uint64_t i,
                            const run_weight **out, ckpt_error *err);

/* Row ids[i] as F32 to out + i * columns. */
typedef struct {
    const uint32_t *ids;
    uint64_t count;
    float *out;
} run_row_list;
ckpt_code run_weights_rows(run_weights *weights, const char *name, const run_row_list *list,
                           ckpt_error *err);

#endif
