/* encode_job.h: the conversion of one tile to another encoding. Private to encode*.c. */
#ifndef CKPT_ENCODE_JOB_H
#define CKPT_ENCODE_JOB_H

#include "encode.h"
#include "values.h"

typedef struct {
    const encode_options *options;
    const ckpt_kernels *kernels;
    const int8_t *fp4_offsets;      /* fp4_canonical_offset, indexed by set of codes */
    const ckpt_tensor *from;
    const ckpt_tensor *to;
    const source_range *range;
    const ckpt_tile *in;
    const uint8_t *given_scales;    /* rows of the target's scale grid, or NULL */
    uint32_t whole_maximum;         /* of the tensor, if its rule needs it (whole_maxima.h) */
    const ckpt_tile *original;      /* the target's tensor in another checkpoint, or NULL */
    ckpt_tile *out;                 /* parts are allocated */
    arena *scratch;
    encode_stats stats;
    ckpt_error *err;
} encode_job;

/* Refuse NaN codes and scales that are NaN, infinite, zero or negative, unless the options accept
 * them. Always refuse products that are not finite. */
ckpt_code encode_check_source(const encode_job *job);

ckpt_code encode_scales(encode_job *job);           /* same codes, other scale dtype */
ckpt_code encode_plain(encode_job *job);            /* to BF16, F16, F32 or integers */
ckpt_code encode_fp4_to_fp8(encode_job *job);
ckpt_code encode_fp8(encode_job *job);
ckpt_code encode_fp4(encode_job *job);
/* Quantise by a rule; *loss is the error that this made. */
ckpt_code encode_quantise(encode_job *job, const quantise_rule *rule, quantise_loss *loss);

/* FP4 to NVFP4, exactly. */
ckpt_code encode_nvfp4(encode_job *job, quantise_loss *loss);

/* Bytes of scratch that each needs in addition to its output. */
uint64_t encode_plain_need(const ckpt_tensor *from);
uint64_t encode_fp4_to_fp8_need(const ckpt_tensor *from, uint64_t row_count);
uint64_t encode_fp8_need(const ckpt_tensor *from, const ckpt_tensor *to);
uint64_t encode_fp4_need(const ckpt_tensor *from);
uint64_t encode_nvfp4_need(const ckpt_tensor *from);
uint64_t encode_quantise_need(const ckpt_tensor *from, const ckpt_tensor *to, int has_original);

/* The errors for values that cannot be kept: one that would be rounded, which allow_lossy permits,
 * and one beyond the range of the target, which is never permitted. `row` is within the tile. */
ckpt_code encode_fail_inexact(const encode_job *job, uint64_t row, uint64_t col);
ckpt_code encode_fail_beyond(const encode_job *job, uint64_t row, uint64_t col);
/* The error for a scale that the target's dtype cannot represent. `block_row` is within the
 * tensor. */
ckpt_code encode_fail_scale(const encode_job *job, uint64_t block_row, uint64_t block_col,
                            float scale);

#endif
