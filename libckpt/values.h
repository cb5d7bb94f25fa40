/*
 * values.h: the values that a tile stands for, row by row: what digests, comparisons and encoders
 * look at. Decoding is that of the digest: F32 product of code and scale.
 */
#ifndef CKPT_VALUES_H
#define CKPT_VALUES_H

#include "encoding.h"
#include "kernels/kernels.h"
#include "source.h"

enum { VALUES_TEXT_BYTES = 128 };

/* Refuse a CKPT_KERNELS that this machine cannot honour; after this kernels_get never fails. */
ckpt_code kernels_require(ckpt_error *err);

typedef struct values_reader {
    const ckpt_kernels *kernels;
    const ckpt_encoding *encoding;
    const ckpt_tensor *tensor;
    const ckpt_tile *tile;
    uint64_t cols;
    uint64_t row_bytes;
    uint64_t scale_row_bytes;
    uint64_t scale_row;        /* of the tile's grid, whose scales are in `scales` */
    float *scales;             /* one per block of columns; FP8 only */
    float tensor_scale;        /* where the encoding has one */
    int exact;                 /* the current scale row keeps every value exact in BF16 */
} values_reader;

/* Scratch that values_begin takes. */
uint64_t values_need(const ckpt_tensor *tensor);

/* Refuses dtypes that have no values here. The tile is borrowed. */
ckpt_code values_begin(values_reader *reader, const ckpt_tensor *tensor, const ckpt_tile *tile,
                       arena *scratch, ckpt_error *err);

/* Columns [col, col + count) of tile row `row` as F32; col is a multiple of 128. Float class. */
void values_f32(values_reader *reader, uint64_t row, uint64_t col, uint64_t count, float *out);

/* The whole row as BF16 codes when every value is exact in BF16 by its encoding (1), else 0 with
 * *out untouched. A borrowed pointer into the tile is returned in *row_values when the row is BF16
 * already; `out` is used otherwise. */
int values_bf16(values_reader *reader, uint64_t row, uint16_t *out, const uint16_t **row_values);

/* The whole row as integers. Int class. */
void values_i64(const values_reader *reader, uint64_t row, int64_t *out);

/* Add the row's unit hashes to *sum, as the digest defines them; `row_buffer` has room for the row
 * as 64-bit integers. Both classes. */
void values_digest(values_reader *reader, uint64_t row, uint64_t first_unit, void *row_buffer,
                   hash128 *sum);

/*
 * Refuse a tile in which a code times its scale is not finite although both are: such a product
 * stands for no value, and different codes would become the same one. The message has row, column,
 * code and scale. Whoever computes values asks this first; blocks whose scale cannot overflow cost
 * a look at the scale, no more. Plain tensors pass.
 */
ckpt_code values_check(const ckpt_tensor *tensor, const source_range *range, const ckpt_tile *tile,
                       ckpt_error *err);

/* One element in words, for errors: "code 0x7E (448) x scale 2 (0x80)", or the number. `row` is of
 * the tile. */
void values_text(const ckpt_tensor *tensor, const ckpt_tile *tile, uint64_t row, uint64_t col,
                 char out[VALUES_TEXT_BYTES]);

#endif
