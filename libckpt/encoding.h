/*
 * encoding.h: the table of all encodings that are decoded.
 *
 * An encoding is a dtype of codes and, if it is block-scaled, the block that shares a scale, the
 * dtypes that its scales may have, and how a tensor scale is applied. All code gets this knowledge
 * from the table; an encoding that is not in the table is not decoded.
 *
 * A new encoding is
 *   an id here, before the ids of encodings that fit the same tensors but must not be chosen, and
 *     a line of the table (encoding.c): codes, block, dtypes of scales, use of a tensor scale, the
 *     largest code, `uneven` if the last block of a row must be whole
 *   its rows (encoding_rows.c): how to decode one to F32; `bf16` and `digest` if there are faster
 *     kernels for these, else NULL and f32_digest
 *   the words of a config that allow it (formats/config_scheme.c; any FP8 block of the table is
 *     found by weight_block_size), and the names of its parts if those are new (pair.c)
 *   a block that a family may name (family_ask.c), if families with blocks use it
 *   tests: test_encoding.c covers every line of the table; compare codes x scales with NumPy as in
 *     tests/interop/test_nvfp4.py
 *   a line of stored_form.c if files have it in interleaved blocks
 * Reading, digests, comparison, casts to BF16 and F32 and copies need no other change.
 */
#ifndef CKPT_ENCODING_H
#define CKPT_ENCODING_H

#include "ckpt.h"
#include "kernels/kernels.h"

struct values_reader;

/* block_cols of a block that is a whole row of any length. */
#define ENCODING_WHOLE_ROW UINT32_MAX

/* How rows of an encoding are decoded, one call for each row or piece of one; see values.h. */
typedef struct {
    int takes_f32_scales;          /* its kernels need the scales of a row as F32 */
    void (*f32)(struct values_reader *reader, uint64_t row, uint64_t col, uint64_t count,
                float *out);
    /* See values_bf16. NULL: values are never known to be exact in BF16. */
    int (*bf16)(struct values_reader *reader, uint64_t row, uint16_t *out,
                const uint16_t **row_values);
    void (*digest)(struct values_reader *reader, uint64_t row, uint64_t first_unit,
                   void *row_buffer, hash128 *sum);
    /* Integers only, which have no f32; else NULL. */
    void (*i64)(const struct values_reader *reader, uint64_t row, int64_t *out);
} encoding_rows;

/* The block-scaled encodings. ENCODING_COUNT: any other. */
typedef enum {
    ENCODING_FP8_128,          /* E4M3, a scale for 128 x 128 */
    ENCODING_FP8_32,           /* E4M3, a scale for 32 x 32 */
    ENCODING_FP8_1X32,         /* E4M3, a scale for 1 x 32: also MXFP8 */
    ENCODING_FP8_ROW,          /* E4M3, a scale for a row (channel) */
    ENCODING_FP4_32,           /* E2M1, a scale for 1 x 32 */
    ENCODING_NVFP4,            /* E2M1, an E4M3 scale for 1 x 16, an F32 factor for the tensor */
    ENCODING_NVFP4_DIVIDED,    /* the same with a divisor for the tensor */
    ENCODING_INT8_32,          /* I8, an F16 scale for 1 x 32: Q8_0 of GGUF */
    ENCODING_FP4_16,           /* E2M1, an E4M3 scale for 1 x 16 without sign: NVFP4 of GGUF; with
                                  a tensor scale beside it, it is ENCODING_NVFP4 */
    ENCODING_INT4_32,          /* I4, a BF16 scale for 1 x 32: of compressed-tensors */
    ENCODING_COUNT
} encoding_id;

/* The canonical rule by which values are encoded; see encode.h. */
typedef enum { QUANTISER_NONE, QUANTISER_FP8_BLOCK, QUANTISER_FP4_GROUP } encoding_quantiser;

typedef struct {
    ckpt_dtype codes;
    uint32_t block_rows;           /* 0: plain */
    uint32_t block_cols;
    ckpt_tensor_scale tensor_scale;
    const char *uneven;            /* error for rows that are not whole blocks; NULL: allowed */
    int has_zero_scales;           /* a scale of a block may be 0 */
    int is_in_blocks;              /* codes and scales are never separate tensors, only blocks */
    unsigned scales;               /* bit d: scales may be of dtype d */
    float largest;                 /* largest magnitude of a code */
    uint8_t finite_high;           /* largest E8M0 scale with which every product is finite */
    uint8_t exact_low;             /* with E8M0 scales from exact_low to exact_high every product */
    uint8_t exact_high;            /* is exact in BF16; with others only some are */
    encoding_quantiser quantiser;
    const encoding_rows *rows;
} ckpt_encoding;

const ckpt_encoding *encoding_at(encoding_id id);

/* The block-scaled encoding with these codes and blocks and without a tensor scale, or
 * ENCODING_COUNT. */
encoding_id encoding_find(ckpt_dtype codes, uint64_t block_rows, uint64_t block_cols);
/* The encoding of a tensor, whatever the dtype of its scales; ENCODING_COUNT: it is plain, or not
 * in the table. */
encoding_id encoding_id_of(const ckpt_tensor *tensor);

/* The encoding that decodes codes without their scales, as floats. */
const ckpt_encoding *encoding_codes(ckpt_dtype dtype);

/* The encoding of a tensor; NULL when its elements are not decoded (F64, C64, F6, FNUZ), or when
 * codes and scales do not fit. */
const ckpt_encoding *encoding_of(const ckpt_tensor *tensor);

/* 1 when the codes or the scales of some block-scaled encoding may be stored as a separate tensor
 * of this dtype. */
int encoding_has_codes_of(ckpt_dtype dtype);
int encoding_has_scales_of(ckpt_dtype dtype);

/* Give a tensor this encoding, with CKPT_NAMES_OF_MAP. The caller sets its stored dtype. */
void encoding_set(ckpt_tensor *tensor, encoding_id id, ckpt_dtype scale_dtype);

/* 1 when `tensor` has this encoding, with any scales. */
int encoding_is(const ckpt_tensor *tensor, encoding_id id);

/* Why a block-scaled tensor of this encoding cannot have its shape; NULL when it can. NULL for
 * plain tensors. */
const char *encoding_problem(const ckpt_tensor *tensor);

#endif
