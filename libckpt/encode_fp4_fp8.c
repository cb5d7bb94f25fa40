/*
 * FP4 groups -> FP8 blocks, by DeepSeek's rule (inference/convert.py): the scale of a block is its
 * largest group scale divided by 2^6. The exponent of each code is lowered by the distance of its
 * group's scale from the largest. Up to a distance of 14 that is exact for all codes; beyond, it
 * depends on the code, and codes that would be rounded are refused.
 * FP8 scales cannot be below 2^-127. If the rule asks for a lower one, 2^-127 is stored and the
 * codes are lowered by more, which is exact too. (The reference stores 2^-127 as well, but codes
 * that assume the lower scale.)
 */
#include <assert.h>
#include <string.h>

#include "encode_job.h"
#include "scale.h"
#include "size.h"

enum {
    SCALE_SHIFT = 6,                                      /* 6 * 2^6 = 384 is the largest code */
    SCALE_NAN = 0xFF,
    /* The canonical scale differs from the group's own by a factor of at most 2^3, but is never
     * below 2^-127. */
    CANONICAL_REACH = 3
};

/* A row of blocks of the target. */
typedef struct {
    uint64_t block_rows;
    uint64_t block_groups;    /* groups in a row of a block */
    uint64_t groups;          /* groups in a row */
    uint64_t blocks;          /* blocks in a row */
    uint8_t *base;            /* by group: `largest` of its block, from which distances count */
    uint8_t *largest;         /* by block: largest scale code of the band */
    uint8_t *distance;        /* by group of the current row */
    uint8_t *masks;           /* by group of the current row */
    uint8_t *is_clamped;      /* by block: the scale over 2^6 would be below 2^-127 */
    int has_low_scales;       /* fp4_offsets may not be valid for some, because of 2^-127 */
    encode_exception *exceptions;     /* found in the tile so far */
    size_t exception_count;
} band;

uint64_t encode_fp4_to_fp8_need(const ckpt_tensor *from, uint64_t row_count)
{
    const uint64_t groups = ckpt_part_cols(from, CKPT_SCALE);

    return 5 * arena_cost(groups) + arena_cost(row_count * groups * sizeof(encode_exception));
}

static ckpt_code allocate_band(const encode_job *job, band *b)
{
    b->block_rows = job->to->block_rows;
    b->block_groups = job->to->block_cols / job->from->block_cols;
    b->groups = ckpt_part_cols(job->from, CKPT_SCALE);
    b->blocks = size_div_up(b->groups, b->block_groups);
    b->base = arena_alloc(job->scratch, b->groups);
    b->largest = arena_alloc(job->scratch, b->blocks);
    b->is_clamped = arena_alloc(job->scratch, b->blocks);
    b->distance = arena_alloc(job->scratch, b->groups);
    b->masks = arena_alloc(job->scratch, b->groups);
    b->exceptions = arena_alloc(job->scratch,
                                job->range->row_count * b->groups * sizeof *b->exceptions);
    if (b->base == NULL || b->largest == NULL || b->is_clamped == NULL || b->distance == NULL ||
        b->masks == NULL || b->exceptions == NULL)
        return ckpt_fail_memory(job->err, "a band of scales", b->groups);
    return CKPT_OK;
}

static void keep_larger(uint8_t *restrict largest, const uint8_t *restrict scales, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        largest[i] = scales[i] > largest[i] ? scales[i] : largest[i];
}

/* Find the largest group scale of each block of the band that begins at tile row `first`, and write
 * the block's FP8 scale. */
static ckpt_code scale_band(encode_job *job, band *b, uint64_t first, uint64_t rows)
{
    const uint8_t *scales = (const uint8_t *)job->in->part[CKPT_SCALE] + first * b->groups;
    uint8_t *out = (uint8_t *)job->out->part[CKPT_SCALE] +
                   first / b->block_rows * ckpt_part_row_bytes(job->to, CKPT_SCALE);

    memset(b->base, 0, b->groups);
    memset(b->largest, 0, b->blocks);
    for (uint64_t r = 0; r < rows; r++)
        keep_larger(b->base, scales + r * b->groups, b->groups);
    for (uint64_t g = 0; g < b->groups; g++)
        keep_larger(&b->largest[g / b->block_groups], &b->base[g], 1);
    b->has_low_scales = 0;
    for (uint64_t c = 0; c < b->blocks; c++) {
        float scale;
        uint8_t code;

        if (b->largest[c] == SCALE_NAN)
            return ckpt_fail(job->err, CKPT_E_FORMAT,
                             "tensor '%s', block [%llu, %llu]: scale byte 0xFF is NaN, which FP8 "
                             "blocks cannot represent",
                             job->to->name,
                             (unsigned long long)((job->range->row + first) / b->block_rows),
                             (unsigned long long)c);
        b->has_low_scales |= b->largest[c] <= FP4_DISTANCE_EXACT + CANONICAL_REACH;
        b->is_clamped[c] = b->largest[c] < SCALE_SHIFT;
        if (b->is_clamped[c])
            b->largest[c] = SCALE_SHIFT;
        code = (uint8_t)(b->largest[c] - SCALE_SHIFT);
        job->kernels->e8m0_to_f32(&code, &scale, 1);
        scale_put(job->kernels, job->to->scale_dtype, out, c, scale);
    }
    for (uint64_t g = 0; g < b->groups; g++)
        b->base[g] = b->largest[g / b->block_groups];
    return CKPT_OK;
}

/* Count the codes of one group that are not exact at its distance, or refuse them. */
static ckpt_code count_lossy(encode_job *job, const band *b, uint64_t row, uint64_t g)
{
    const uint8_t exact = fp4_exact_mask(b->distance[g]);
    const uint8_t lossy = (uint8_t)(b->masks[g] & ~exact);
    const uint64_t group_bytes = job->from->block_cols / 2;
    const uint8_t *packed = (const uint8_t *)job->in->part[CKPT_DATA] +
                            row * ckpt_part_row_bytes(job->from, CKPT_DATA) + g * group_bytes;

    if (lossy == 0)
        return CKPT_OK;
    if (!job->options->allow_lossy)
        return ckpt_fail(job->err, CKPT_E_INEXACT,
                         "tensor '%s', block [%llu, %llu], row %llu, group %llu: code %d at scale "
                         "spread 2^%u is not exact in FP8",
                         job->to->name,
                         (unsigned long long)((job->range->row + row) / b->block_rows),
                         (unsigned long long)(g / b->block_groups),
                         (unsigned long long)(job->range->row + row), (unsigned long long)g,
                         __builtin_ctz(lossy), b->distance[g]);
    for (uint64_t i = 0; i < group_bytes; i++)
        job->stats.inexact += (uint64_t)((lossy >> (packed[i] & 7) & 1) +
                                         (lossy >> (packed[i] >> 4 & 7) & 1));
    return CKPT_OK;
}

/* The scale that the inverse conversion will compute for a group by the canonical rule. */
static int canonical_scale(const encode_job *job, const band *b, uint64_t row, uint64_t g)
{
    const uint8_t scale = ((const uint8_t *)job->in->part[CKPT_SCALE])[row * b->groups + g];
    const int offset = job->fp4_offsets[b->masks[g]];
    const uint64_t group = job->from->block_cols;
    float values[FP4_GROUP];

    if (offset == FP4_SCALE_LOST)
        return fp4_scale_code(0);
    if (scale > CANONICAL_REACH)
        return scale + offset;
    job->kernels->fp4_row_to_f32((const uint8_t *)job->in->part[CKPT_DATA] +
                                     row * ckpt_part_row_bytes(job->from, CKPT_DATA) +
                                     g * group / 2,
                                 &scale, group, values);
    return job->kernels->fp4_group_scale_exact(values);
}

/* Record a group for the report, and as an exception if the inverse conversion needs its scale. */
static ckpt_code note_group(encode_job *job, band *b, uint64_t row, uint64_t g)
{
    const uint8_t scale = ((const uint8_t *)job->in->part[CKPT_SCALE])[row * b->groups + g];
    ckpt_code code;

    if (b->is_clamped[g / b->block_groups] && job->options->match_reference && b->masks[g] > 1)
        return ckpt_fail(job->err, CKPT_E_FORMAT,
                         "tensor '%s', row %llu, group %llu: its scale 0x%02X is so small that "
                         "--match-reference would change values",
                         job->to->name, (unsigned long long)(job->range->row + row),
                         (unsigned long long)g, scale);
    if (b->distance[g] > FP4_DISTANCE_EXACT && (code = count_lossy(job, b, row, g)) != CKPT_OK)
        return code;
    job->stats.zero_groups += job->fp4_offsets[b->masks[g]] == FP4_SCALE_LOST;
    if (scale != canonical_scale(job, b, row, g)) {
        b->exceptions[b->exception_count].group = (job->range->row + row) * b->groups + g;
        b->exceptions[b->exception_count++].scale = scale;
    }
    return CKPT_OK;
}

static ckpt_code convert_row(encode_job *job, band *b, uint64_t row)
{
    const uint8_t *packed = (const uint8_t *)job->in->part[CKPT_DATA] +
                            row * ckpt_part_row_bytes(job->from, CKPT_DATA);
    const uint8_t *scales = (const uint8_t *)job->in->part[CKPT_SCALE] + row * b->groups;
    uint8_t *out = (uint8_t *)job->out->part[CKPT_DATA] +
                   row * ckpt_part_row_bytes(job->to, CKPT_DATA);
    unsigned spread = 0;
    ckpt_code code;

    job->kernels->fp4_group_masks(packed, b->groups, b->masks);
    for (uint64_t g = 0; g < b->groups; g++) {
        const unsigned distance = b->base[g] - (unsigned)scales[g];

        b->distance[g] = (uint8_t)(distance < FP4_DISTANCE_COUNT ? distance : FP4_DISTANCE_COUNT);
        spread = distance > spread ? distance : spread;
        if ((distance > FP4_DISTANCE_EXACT || job->fp4_offsets[b->masks[g]] != 0 ||
             b->has_low_scales) &&
            (code = note_group(job, b, row, g)) != CKPT_OK)
            return code;
    }
    job->stats.spread = size_max(job->stats.spread, spread);
    job->kernels->fp4_row_to_fp8(packed, b->distance, ckpt_tensor_cols(job->from),
                                 job->options->match_reference, out);
    return CKPT_OK;
}

ckpt_code encode_fp4_to_fp8(encode_job *job)
{
    const size_t mark = arena_mark(job->scratch);
    band b = { .groups = 0 };
    ckpt_code code = allocate_band(job, &b);

    assert(job->from->block_cols == FP4_GROUP);     /* the only size that the kernels support */
    for (uint64_t first = 0; first < job->range->row_count && code == CKPT_OK;
         first += b.block_rows) {
        const uint64_t rows = size_min(b.block_rows, job->range->row_count - first);

        code = scale_band(job, &b, first, rows);
        for (uint64_t r = first; r < first + rows && code == CKPT_OK; r++)
            code = convert_row(job, &b, r);
    }
    job->stats.exceptions = b.exception_count;
    if (code == CKPT_OK && b.exception_count > 0 && job->options->exceptions_out != NULL)
        code = job->options->exceptions_out->put(job->options->exceptions_out, job->range,
                                                 b.exceptions, b.exception_count, job->err);
    arena_rewind(job->scratch, mark);
    return code;
}
