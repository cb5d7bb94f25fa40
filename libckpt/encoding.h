/*
 * encoding.h: what elements stand for, as one value, and the table of all that are decoded.
 *
 * An encoding is a dtype of codes and, where it is block-scaled, the block that shares a scale,
 * the dtypes that its scales may have, and what a scale of the whole tensor does. Whoever meets a
 * tensor asks the table; what the table does not have is not decoded.
 *
 * A new encoding is
 *   an id here and a line of the table (encoding.c): codes, block, dtypes of scales, what a scale
 *     of the whole tensor does, the largest code, `uneven` where the last block must be whole
 *   its rows (encoding_rows.c): how one becomes F32; `bf16` and `digest` where kernels know a
 *     shorter way, else NULL and f32_digest
 *   the words of a config that allow it (formats/config_scheme.c), and the names of its parts if
 *     those are new (pair.c)
 *   tests: test_encoding.c goes over the table by itself; codes x scales against NumPy as in
 *     tests/interop/test_nvfp4.py
 *   a line of stored_form.c where files have it in interleaved blocks
 * Reading, digests, comparison, casts to BF16 and F32 and copies follow from these.
 */
#ifndef CKPT_ENCODING_H
#define CKPT_ENCODING_H

#include "ckpt.h"
#include "kernels/kernels.h"

struct values_reader;

/* Columns of a block that is a whole row, however long. */
#define ENCODING_WHOLE_ROW UINT32_MAX

/* How rows of an encoding are decoded, one call for each row or piece of one; see values.h. */
typedef struct {
    int takes_f32_scales;          /* its kernels want the scales of a row decoded */
    void (*f32)(struct values_reader *reader, uint64_t row, uint64_t col, uint64_t count,
                float *out);
    /* NULL: never by way of BF16. */
    int (*bf16)(struct values_reader *reader, uint64_t row, uint16_t *out,
                const uint16_t **row_values);
    void (*digest)(struct values_reader *reader, uint64_t row, uint64_t first_unit,
                   void *row_buffer, hash128 *sum);
    /* Of integers, which have no f32; else NULL. */
    void (*i64)(const struct values_reader *reader, uint64_t row, int64_t *out);
} encoding_rows;

/* The block-scaled ones, for those who make them. ENCODING_COUNT: any other. */
typedef enum {
    ENCODING_FP8_128,          /* E4M3, a scale for 128 x 128 */
    ENCODING_FP8_32,           /* E4M3, a scale for 32 x 32 */
    ENCODING_FP8_1X32,         /* E4M3, a scale for 1 x 32: also MXFP8 */
    ENCODING_FP8_ROW,          /* E4M3, a scale for a row (channel) */
    ENCODING_FP4_32,           /* E2M1, a scale for 1 x 32 */
    ENCODING_NVFP4,            /* E2M1, an E4M3 scale for 1 x 16, an F32 factor for the tensor */
    ENCODING_NVFP4_DIVIDED,    /* the same with a divisor for the tensor */
    ENCODING_INT8_32,          /* I8, an F16 scale for 1 x 32: Q8_0 of GGUF */
    ENCODING_COUNT
} encoding_id;

/* By which rule values become codes of it; see encode.h. */
typedef enum { QUANTISER_NONE, QUANTISER_FP8_BLOCK, QUANTISER_FP4_GROUP } encoding_quantiser;

typedef struct {
    ckpt_dtype codes;
    uint32_t block_rows;           /* 0: plain */
    uint32_t block_cols;
    ckpt_tensor_scale tensor_scale;
    const char *uneven;            /* rows are whole blocks of columns: said of others; or NULL */
    int has_zero_scales;           /* a scale of a block may be 0 */
    int is_in_blocks;              /* no two tensors have it: it is stored in blocks, or not */
    unsigned scales;               /* bit d: scales may be of dtype d */
    float largest;                 /* magnitude of its codes */
    uint8_t finite_high;           /* the last E8M0 scale under which every product is finite */
    uint8_t exact_low;             /* E8M0 scales under which every product is exact in BF16 for */
    uint8_t exact_high;            /* certain; under others some may be */
    encoding_quantiser quantiser;
    const encoding_rows *rows;
} ckpt_encoding;

const ckpt_encoding *encoding_at(encoding_id id);

/* The block-scaled encoding of such codes and blocks without a scale of the tensor, or
 * ENCODING_COUNT. */
encoding_id encoding_find(ckpt_dtype codes, uint64_t block_rows, uint64_t block_cols);
/* That of a tensor, whatever its scales; ENCODING_COUNT: plain, or not in the table. */
encoding_id encoding_id_of(const ckpt_tensor *tensor);

/* That of plain elements; NULL when they have no values here. */
const ckpt_encoding *encoding_plain(ckpt_dtype dtype);
/* That of codes without their scales, as floats. */
const ckpt_encoding *encoding_codes(ckpt_dtype dtype);

/* That of a tensor; NULL when its elements have no values here (F64, C64, F6, FNUZ), or when codes
 * and scales do not go together. */
const ckpt_encoding *encoding_of(const ckpt_tensor *tensor);

/* 1 when the codes or the scales of some block-scaled encoding that is stored apart may have this
 * dtype. */
int encoding_has_codes_of(ckpt_dtype dtype);
int encoding_has_scales_of(ckpt_dtype dtype);

/* Make a tensor one of this encoding, its parts named as the map has it; its stored dtype is the
 * caller's. */
void encoding_set(ckpt_tensor *tensor, encoding_id id, ckpt_dtype scale_dtype);

/* 1 when `tensor` has this encoding, with any scales. */
int encoding_is(const ckpt_tensor *tensor, encoding_id id);

/* Why a block-scaled tensor cannot be what it says, by its encoding and shape; NULL when it can. A
 * plain tensor always can. */
const char *encoding_problem(const ckpt_tensor *tensor);

#endif
