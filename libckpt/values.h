/*
 * values.h: decoding the rows of a tile to values, for digests, comparisons and encoders. As the
 * digest defines it, a value is the F32 product of code and scale.
 */
#ifndef CKPT_VALUES_H
#define CKPT_VALUES_H

#include "encoding.h"
#include "kernels/kernels.h"
#include "source.h"

enum { VALUES_TEXT_BYTES = 128 };

/* Refuse a value of CKPT_KERNELS that this machine does not support; after this kernels_get never
 * fails. */
ckpt_code kernels_require(ckpt_error *err);

typedef struct values_reader {
    const ckpt_kernels *kernels;
    const ckpt_encoding *encoding;
    const ckpt_tensor *tensor;
    const ckpt_tile *tile;
    uint64_t cols;
    uint64_t row_bytes;
    uint64_t scale_row_bytes;
    uint64_t scale_row;        /* row of the tile's scale grid that is decoded in `scales` */
    float *scales;             /* one per block of columns; not of FP4 in groups of 32 */
    float tensor_scale;        /* if the encoding has one */
    int exact;                 /* with these scales every value is exact in BF16 */
} values_reader;

/* Bytes of scratch that values_begin takes. */
uint64_t values_need(const ckpt_tensor *tensor);

/* Begin to decode a tile, which is borrowed. Refuses dtypes that are not decoded. */
ckpt_code values_begin(values_reader *reader, const ckpt_tensor *tensor, const ckpt_tile *tile,
                       arena *scratch, ckpt_error *err);

/* Decode columns [col, col + count) of tile row `row` to F32; col is a multiple of 128. Not for
 * integer tensors. */
void values_f32(values_reader *reader, uint64_t row, uint64_t col, uint64_t count, float *out);

/* Decode a whole row to BF16 if its encoding guarantees that every value is exact in BF16; returns
 * 1. Else returns 0 with *out unchanged. *row_values points to the result: into the tile (borrowed)
 * if the row is BF16 already, else to `out`. */
int values_bf16(values_reader *reader, uint64_t row, uint16_t *out, const uint16_t **row_values);

/* Decode a whole row of an integer tensor. */
void values_i64(const values_reader *reader, uint64_t row, int64_t *out);

/* Add the row's unit hashes to *sum, as the digest defines them. `row_buffer` has room for the row
 * as 64-bit integers. For all tensors that are decoded. */
void values_digest(values_reader *reader, uint64_t row, uint64_t first_unit, void *row_buffer,
                   hash128 *sum);

/*
 * Refuse a tile in which the product of a finite code and a finite scale is not finite: different
 * codes would become the same value. The error gives row, column, code and scale. Call this before
 * decoding a tile. It is cheap: in a block whose scale cannot overflow, codes are not read. Plain
 * tensors are always CKPT_OK. Also refused is a stored shape other than that of the tensor.
 */
ckpt_code values_check(const ckpt_tensor *tensor, const source_range *range, const ckpt_tile *tile,
                       ckpt_error *err);

/* The last of these alone: code that goes by other numbers of a shape would read other values. */
ckpt_code values_check_shape(const ckpt_tensor *tensor, const ckpt_tile *tile, ckpt_error *err);

/* Refuse the scale of a whole tensor that is not a number above 0. */
ckpt_code values_check_whole_scale(const ckpt_tensor *tensor, const ckpt_tile *tile,
                                   ckpt_error *err);

/* Describe one element for errors: "code 0x7E (448) x scale 2 (0x80)", or the number. `row` is
 * within the tile. */
void values_text(const ckpt_tensor *tensor, const ckpt_tile *tile, uint64_t row, uint64_t col,
                 char out[VALUES_TEXT_BYTES]);

#endif
