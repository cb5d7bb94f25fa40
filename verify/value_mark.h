/* value_mark.h: data that the value checks collect of one tensor in addition to its statistics. */
#ifndef CKPT_VALUE_MARK_H
#define CKPT_VALUE_MARK_H

#include "value_check.h"

/* A count, and the first position by rows. Initial row: UINT64_MAX. */
typedef struct {
    uint64_t count;
    uint64_t row;
    uint64_t col;
    int64_t value;
} value_place;

struct value_mark {
    hash128 bytes;                 /* of codes and scales: the sum of the tiles' hashes */
    value_place scale_nan;
    value_place scale_zero;
    value_place spread;            /* blocks whose scales differ too much */
    value_place id_range;
    value_place id_repeated;
    uint64_t spread_max;           /* of all blocks, in powers of two */
    float whole_scale;             /* of the tensor; 0 without */
    float input_scale;
};

void value_mark_init(value_mark *mark);
void value_mark_merge(value_mark *mark, const value_mark *other);

/* 1 for a table of expert ids. */
int value_is_id_table(const ckpt_tensor *tensor);

/* One tile; expert_count 0: ids have no range. */
typedef struct {
    const ckpt_tensor *tensor;
    const source_range *range;
    const ckpt_tile *tile;
    uint64_t expert_count;
    uint64_t *scales;              /* counters by exponent to add to; NULL: none */
} value_tile;

/* Add a tile. Scratch: a row of 64-bit integers. */
ckpt_code value_mark_tile(value_mark *mark, const value_tile *tile, arena *scratch,
                          ckpt_error *err);

/* Find tensors that differ much from the same tensors of other layers; calls `add` for each. */
typedef ckpt_code value_add(void *context, const value_finding *finding, ckpt_error *err);
ckpt_code value_find_outliers(const source_statistics *statistics, value_add *add, void *context,
                              ckpt_error *err);

#endif
