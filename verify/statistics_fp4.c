/* Brief statistics of FP4. */
#include "statistics_fp4.h"

#include <math.h>
#include <string.h>

#include "libckpt/encoding.h"
#include "libckpt/scale.h"

int statistics_fp4_add(tensor_statistics *s, const ckpt_tensor *tensor, const source_range *range,
                       const ckpt_tile *tile)
{
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const uint64_t groups = cols / FP4_GROUP;
    const uint8_t *codes = tile->part[CKPT_DATA];
    const uint8_t *scales = tile->part[CKPT_SCALE];
    const ckpt_kernels *kernels = kernels_get();
    fp4_counts counts;

    if (!encoding_is(tensor, ENCODING_FP4_32) || tensor->scale_dtype != CKPT_F8_E8M0 ||
        cols % FP4_GROUP != 0 || !scale_e8m0_within(scales, range->row_count * groups, 0,
                                                    encoding_at(ENCODING_FP4_32)->finite_high))
        return 0;
    memset(&counts, 0, sizeof counts);
    for (uint64_t r = 0; r < range->row_count; r++) {
        const uint64_t before = counts.zeros;

        kernels->fp4_row_counts(codes + r * cols / 2, scales + r * groups, cols, &counts);
        if (counts.zeros - before == cols)
            statistics_note_zero_row(s, range->row + r);
    }
    s->count += range->row_count * cols;
    s->zeros += counts.zeros;
    s->saturated += counts.largest;
    for (int e = 0; e < 256; e++)
        exact_sum_add(&s->squares, ldexp((double)counts.squares[e], 2 * (e - 127) - 2));
    return 1;
}
