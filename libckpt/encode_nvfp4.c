/*
 * encode_nvfp4.c: converts FP4 in groups of 32 to NVFP4 without rounding: the codes are kept, and
 * each scale, a power of two, becomes the product of the tensor scale and the scales of its two
 * groups of 16. See quantise.h.
 */
#include <string.h>

#include "encode_job.h"

uint64_t encode_nvfp4_need(const ckpt_tensor *from)
{
    return arena_cost(ckpt_part_cols(from, CKPT_SCALE));
}

static ckpt_code fail_group(const encode_job *job, uint64_t row, uint64_t group, uint8_t scale)
{
    const unsigned largest = job->whole_maximum;

    return ckpt_fail(job->err, CKPT_E_INEXACT, "tensor '%s', row %llu, group %llu: its scale 2^%d "
                     "is too far below the largest of the tensor, 2^%d, for NVFP4, which has 17 "
                     "powers of two between them; nvfp4-modelopt rounds, of values (--dtype bf16)",
                     job->to->name, (unsigned long long)(job->range->row + row),
                     (unsigned long long)group, (int)scale - 127, (int)largest - 127);
}

ckpt_code encode_nvfp4(encode_job *job, quantise_loss *loss)
{
    const size_t groups = (size_t)ckpt_part_cols(job->from, CKPT_SCALE);
    const uint64_t row_bytes = ckpt_part_row_bytes(job->from, CKPT_DATA);
    const uint8_t largest = (uint8_t)job->whole_maximum;
    const float tensor_scale = nvfp4_cast_tensor_scale(largest);
    const size_t mark = arena_mark(job->scratch);
    uint8_t *masks = arena_alloc(job->scratch, groups);

    if (masks == NULL)
        return ckpt_fail_memory(job->err, "a row", groups);
    memcpy(job->out->part[CKPT_DATA], job->in->part[CKPT_DATA], job->in->part_bytes[CKPT_DATA]);
    memcpy(job->out->part[CKPT_TENSOR_SCALE], &tensor_scale, sizeof tensor_scale);
    for (uint64_t row = 0; row < job->range->row_count; row++) {
        const uint8_t *codes = (const uint8_t *)job->in->part[CKPT_DATA] + row * row_bytes;
        const uint8_t *scales = (const uint8_t *)job->in->part[CKPT_SCALE] + row * groups;
        size_t refused;

        job->kernels->fp4_group_masks(codes, groups, masks);
        refused = nvfp4_cast_scales(scales, masks, groups, largest,
                                    (uint8_t *)job->out->part[CKPT_SCALE] + row * 2 * groups);
        if (refused < groups)
            return fail_group(job, row, refused, scales[refused]);
    }
    loss->elements = job->range->row_count * ckpt_tensor_cols(job->from);
    loss->blocks = job->range->row_count * 2 * groups;
    arena_rewind(job->scratch, mark);
    return CKPT_OK;
}
