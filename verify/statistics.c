/* Statistics of tiles, and of all tensors of a source. */
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/scale.h"
#include "libckpt/size.h"
#include "libckpt/values.h"
#include "statistics_fp4.h"

enum { SCALES_AT_ONCE = 256 };

void statistics_init(tensor_statistics *s)
{
    memset(s, 0, sizeof *s);
    s->first_zero_row = UINT64_MAX;
    s->bad_row = UINT64_MAX;
    s->min = INFINITY;
    s->max = -INFINITY;
    s->int_min = INT64_MAX;
    s->int_max = INT64_MIN;
    s->scales.min = INFINITY;
    s->scales.max = -INFINITY;
}

size_t statistics_code_count(const ckpt_tensor *tensor)
{
    switch (tensor->dtype) {
    case CKPT_F4:
        return 16;
    case CKPT_F8_E4M3:
    case CKPT_F8_E5M2:
        return 256;
    default:
        return 0;
    }
}

int statistics_is_largest(ckpt_dtype dtype, unsigned code)
{
    switch (dtype) {
    case CKPT_F4:
        return (code & 7) == 7;
    case CKPT_F8_E4M3:
        return (code & 0x7f) == 0x7e;
    case CKPT_F8_E5M2:
        return (code & 0x7f) == 0x7b;
    default:
        return 0;
    }
}

/* ---- values ---- */

uint64_t statistics_need(const ckpt_tensor *tensor)
{
    return values_need(tensor) + arena_cost(ckpt_tensor_cols(tensor) * sizeof(int64_t));
}

/* Record the first NaN or infinity of the row, unless an earlier row has one. */
static void note_bad(tensor_statistics *s, const float *values, uint64_t cols, uint64_t row)
{
    uint64_t c = 0;

    if (row >= s->bad_row)
        return;
    while (c < cols && isfinite(values[c]))
        c++;
    s->bad_row = row;
    s->bad_col = c;
}

/* Counters of F32 exponents, four for each exponent, as in count_bytes. */
typedef struct {
    uint64_t lanes[4][STATISTICS_EXPONENTS];
} exponent_counters;

static void count_exponents(exponent_counters *counters, const float *values, uint64_t cols)
{
    for (uint64_t c = 0; c < cols; c++) {
        uint32_t bits;

        memcpy(&bits, &values[c], sizeof bits);
        counters->lanes[c % 4][bits >> 23 & 0xff]++;
    }
}

/* Exponent 0 includes zeros, and the last exponent is that of NaN and infinity. */
static void add_exponents(tensor_statistics *s, const exponent_counters *counters, uint64_t zeros)
{
    for (int e = 0; e < STATISTICS_EXPONENTS - 1; e++)
        for (int l = 0; l < 4; l++)
            s->exponents[e] += counters->lanes[l][e];
    s->exponents[0] -= zeros;
}

static void add_floats(tensor_statistics *s, values_reader *values, const source_range *range,
                       float *buffer)
{
    exponent_counters counters;
    uint64_t zeros = 0;
    double sum = 0;
    double squares = 0;

    memset(&counters, 0, sizeof counters);
    for (uint64_t r = 0; r < range->row_count; r++) {
        row_statistics row;

        values_f32(values, r, 0, values->cols, buffer);
        (s->is_brief ? values->kernels->f32_row_squares : values->kernels->f32_row_statistics)(
            buffer, values->cols, &row);
        zeros += row.zeros;
        s->nans += row.nans;
        s->infinities += row.infinities;
        s->min = fminf(s->min, row.min);
        s->max = fmaxf(s->max, row.max);
        sum += row.sum;
        squares += row.squares;
        if (row.zeros == values->cols)
            statistics_note_zero_row(s, range->row + r);
        if (row.nans + row.infinities > 0)
            note_bad(s, buffer, values->cols, range->row + r);
        if (s->exponents != NULL)
            count_exponents(&counters, buffer, values->cols);
    }
    s->zeros += zeros;
    if (s->exponents != NULL)
        add_exponents(s, &counters, zeros);
    exact_sum_add(sum < 0 ? &s->negative : &s->positive, fabs(sum));
    exact_sum_add(&s->squares, squares);
}

static void add_ints(tensor_statistics *s, const values_reader *values, const source_range *range,
                     int64_t *buffer)
{
    const int64_t bias = values->tensor->dtype == CKPT_U64 ? INT64_MIN : 0;

    for (uint64_t r = 0; r < range->row_count; r++) {
        uint64_t zeros = 0;

        values_i64(values, r, buffer);
        for (uint64_t c = 0; c < values->cols; c++) {
            const int64_t value = buffer[c] ^ bias;

            zeros += buffer[c] == 0;
            s->int_min = value < s->int_min ? value : s->int_min;
            s->int_max = value > s->int_max ? value : s->int_max;
        }
        s->zeros += zeros;
        if (zeros == values->cols)
            statistics_note_zero_row(s, range->row + r);
    }
}

/* ---- codes and scales ---- */

/* Neighbouring bytes are often equal. Four counters per value avoid waiting for the last update. */
static void count_bytes(const uint8_t *bytes, uint64_t size, uint64_t counts[256])
{
    uint32_t lanes[4][256];

    memset(counts, 0, 256 * sizeof *counts);
    while (size > 0) {
        const uint64_t now = size_min(size, UINT32_MAX);
        uint64_t i = 0;

        memset(lanes, 0, sizeof lanes);
        for (; i + 4 <= now; i += 4) {
            uint32_t word;

            memcpy(&word, bytes + i, sizeof word);
            lanes[0][word & 0xff]++;
            lanes[1][word >> 8 & 0xff]++;
            lanes[2][word >> 16 & 0xff]++;
            lanes[3][word >> 24]++;
        }
        for (; i < now; i++)
            lanes[0][bytes[i]]++;
        for (int b = 0; b < 256; b++)
            counts[b] += (uint64_t)lanes[0][b] + lanes[1][b] + lanes[2][b] + lanes[3][b];
        bytes += now;
        size -= now;
    }
}

/* Codes of the largest magnitude, without a histogram. */
static uint64_t count_largest(ckpt_dtype dtype, const uint8_t *codes, uint64_t size)
{
    enum { CHUNK = 240 };          /* below 256: sums of a chunk are bytes */
    const uint8_t largest = dtype == CKPT_F8_E5M2 ? 0x7b : 0x7e;
    uint64_t count = 0;
    uint64_t i = 0;

    for (; i + CHUNK <= size; i += CHUNK) {
        uint8_t found = 0;

        for (int k = 0; k < CHUNK; k++)
            found = (uint8_t)(found + ((codes[i + (uint64_t)k] & 0x7f) == largest));
        count += found;
    }
    for (; i < size; i++)
        count += (codes[i] & 0x7f) == largest;
    return count;
}

static void add_codes(tensor_statistics *s, const ckpt_tensor *t, const ckpt_tile *tile)
{
    uint64_t bytes[256];
    uint64_t codes[256] = { 0 };
    const size_t code_count = statistics_code_count(t);

    if (code_count == 0)
        return;
    if (code_count == STATISTICS_CODES && s->is_brief) {
        s->saturated += count_largest(t->dtype, tile->part[CKPT_DATA],
                                      tile->part_bytes[CKPT_DATA]);
        return;
    }
    count_bytes(tile->part[CKPT_DATA], tile->part_bytes[CKPT_DATA], bytes);
    for (unsigned b = 0; b < 256; b++) {
        codes[code_count == 16 ? b & 15 : b] += bytes[b];
        if (code_count == 16)
            codes[b >> 4] += bytes[b];
    }
    for (unsigned c = 0; c < code_count; c++) {
        s->saturated += statistics_is_largest(t->dtype, c) ? codes[c] : 0;
        if (s->codes != NULL)
            s->codes[c] += codes[c];
    }
}

static void add_scale(scale_statistics *s, float scale)
{
    if (!isfinite(scale)) {
        s->nans++;
        return;
    }
    s->min = scale < s->min ? scale : s->min;
    s->max = scale > s->max ? scale : s->max;
}

static void add_e8m0_scales(scale_statistics *s, const uint8_t *codes, uint64_t count)
{
    uint64_t counts[256];

    count_bytes(codes, count, counts);
    s->zeros += counts[0];
    s->nans += counts[255];
    for (unsigned c = 0; c < 255; c++) {
        const uint8_t code = (uint8_t)c;

        if (counts[c] > 0)
            add_scale(s, scale_get(kernels_get(), CKPT_F8_E8M0, &code, 0));
    }
}

static void add_scales(scale_statistics *s, const ckpt_tensor *t, const ckpt_tile *tile)
{
    const uint8_t *from = tile->part[CKPT_SCALE];
    const uint64_t bytes = ckpt_dtype_bits(t->scale_dtype) / 8;
    uint64_t count = t->scale_dtype == CKPT_NONE ? 0 : tile->part_bytes[CKPT_SCALE] / bytes;
    float scales[SCALES_AT_ONCE];

    s->count += count;
    if (t->scale_dtype == CKPT_F8_E8M0) {
        add_e8m0_scales(s, from, count);
        return;
    }
    while (count > 0) {
        const uint64_t now = size_min(count, SCALES_AT_ONCE);

        scale_row_f32(kernels_get(), t->scale_dtype, from, now, scales);
        for (uint64_t i = 0; i < now; i++) {
            s->zeros += scales[i] == 0;
            add_scale(s, scales[i]);
        }
        from += now * bytes;
        count -= now;
    }
}

ckpt_code statistics_add(tensor_statistics *s, const ckpt_tensor *tensor,
                         const source_range *range, const ckpt_tile *tile, arena *scratch,
                         ckpt_error *err)
{
    const uint64_t cols = ckpt_tensor_cols(tensor);
    const size_t mark = arena_mark(scratch);
    values_reader values;
    ckpt_code code;
    void *buffer;

    if (s->is_brief && statistics_fp4_add(s, tensor, range, tile))
        return CKPT_OK;
    if ((code = values_begin(&values, tensor, tile, scratch, err)) != CKPT_OK)
        return code;
    if ((buffer = arena_alloc(scratch, cols * sizeof(int64_t))) == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof(int64_t));
    if (ckpt_tensor_is_int(tensor)) {
        add_ints(s, &values, range, buffer);
    } else {
        add_floats(s, &values, range, buffer);
        add_codes(s, tensor, tile);
        if (!s->is_brief)
            add_scales(&s->scales, tensor, tile);
    }
    s->count += range->row_count * cols;
    arena_rewind(scratch, mark);
    return CKPT_OK;
}

/* ---- merging ---- */

static void merge_counters(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; i < count && to != NULL && from != NULL; i++)
        to[i] += from[i];
}

static void merge_bad(tensor_statistics *s, const tensor_statistics *other)
{
    if (other->bad_row < s->bad_row ||
        (other->bad_row == s->bad_row && other->bad_col < s->bad_col)) {
        s->bad_row = other->bad_row;
        s->bad_col = other->bad_col;
    }
}

void statistics_merge(tensor_statistics *s, const tensor_statistics *other, size_t code_count)
{
    s->count += other->count;
    s->zeros += other->zeros;
    s->nans += other->nans;
    s->infinities += other->infinities;
    s->zero_rows += other->zero_rows;
    s->first_zero_row = size_min(s->first_zero_row, other->first_zero_row);
    merge_bad(s, other);
    s->min = fminf(s->min, other->min);
    s->max = fmaxf(s->max, other->max);
    exact_sum_merge(&s->positive, &other->positive);
    exact_sum_merge(&s->negative, &other->negative);
    exact_sum_merge(&s->squares, &other->squares);
    s->int_min = other->int_min < s->int_min ? other->int_min : s->int_min;
    s->int_max = other->int_max > s->int_max ? other->int_max : s->int_max;
    s->scales.count += other->scales.count;
    s->scales.zeros += other->scales.zeros;
    s->scales.nans += other->scales.nans;
    s->scales.min = fminf(s->scales.min, other->scales.min);
    s->scales.max = fmaxf(s->scales.max, other->scales.max);
    s->saturated += other->saturated;
    merge_counters(s->codes, other->codes, code_count);
    merge_counters(s->exponents, other->exponents, STATISTICS_EXPONENTS);
}

static uint64_t finite_count(const tensor_statistics *s)
{
    return s->count - s->nans - s->infinities;
}

double statistics_mean(const tensor_statistics *s)
{
    const double sum = exact_sum_value(&s->positive) - exact_sum_value(&s->negative);

    return finite_count(s) == 0 ? NAN : sum / (double)finite_count(s);
}

double statistics_rms(const tensor_statistics *s)
{
    return finite_count(s) == 0
               ? NAN
               : sqrt(exact_sum_value(&s->squares) / (double)finite_count(s));
}

/* ---- a source ---- */

int statistics_wants(const source_statistics *statistics, size_t tensor)
{
    return (statistics->wanted == NULL || statistics->wanted[tensor]) &&
           encoding_of(ckpt_catalog_at(statistics->catalog, tensor)) != NULL;
}

static void add_totals(statistics_totals *totals, const ckpt_tensor *t,
                       const tensor_statistics *found)
{
    if (t->dtype == CKPT_F4)
        merge_counters(totals->fp4, found->codes, 16);
    if (t->dtype == CKPT_F8_E4M3)
        merge_counters(totals->fp8, found->codes, STATISTICS_CODES);
    merge_counters(totals->exponents, found->exponents, STATISTICS_EXPONENTS);
}

ckpt_code statistics_put_tile(source_statistics *statistics, const source_range *range,
                              const ckpt_tile *tile, arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(statistics->catalog, range->tensor);
    tensor_statistics *all = &statistics->tensors[range->tensor];
    uint64_t codes[STATISTICS_CODES] = { 0 };
    uint64_t exponents[STATISTICS_EXPONENTS] = { 0 };
    tensor_statistics found;
    ckpt_code code;

    statistics_init(&found);
    found.codes = all->codes == NULL && statistics->totals == NULL ? NULL : codes;
    found.exponents = all->exponents == NULL && statistics->totals == NULL ? NULL : exponents;
    found.is_brief = statistics->is_brief;
    if ((code = statistics_add(&found, t, range, tile, scratch, err)) != CKPT_OK)
        return code;
    pthread_mutex_lock(&statistics->lock);
    statistics_merge(all, &found, statistics_code_count(t));
    if (statistics->totals != NULL)
        add_totals(statistics->totals, t, &found);
    pthread_mutex_unlock(&statistics->lock);
    return CKPT_OK;
}

static size_t counters_of(const source_statistics *s, const statistics_options *options,
                          size_t tensor)
{
    const ckpt_tensor *t = ckpt_catalog_at(s->catalog, tensor);

    if (!statistics_wants(s, tensor))
        return 0;
    return (options->codes ? statistics_code_count(t) : 0) +
           (options->exponents && !ckpt_tensor_is_int(t) ? STATISTICS_EXPONENTS : 0);
}

static void share_counters(source_statistics *s, const statistics_options *options)
{
    uint64_t *next = s->counters;

    for (size_t i = 0; i < s->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(s->catalog, i);
        const size_t code_count = options->codes ? statistics_code_count(t) : 0;
        const size_t counters = counters_of(s, options, i);

        statistics_init(&s->tensors[i]);
        s->tensors[i].codes = counters > 0 && code_count > 0 ? next : NULL;
        s->tensors[i].exponents = counters > code_count ? next + code_count : NULL;
        next += counters;
    }
}

ckpt_code statistics_begin(const ckpt_catalog *catalog, const statistics_options *options,
                           source_statistics *out, ckpt_error *err)
{
    size_t total = 0;

    memset(out, 0, sizeof *out);
    pthread_mutex_init(&out->lock, NULL);
    out->catalog = catalog;
    out->wanted = options->wanted;
    out->totals = options->totals;
    out->is_brief = options->brief && options->totals == NULL && !options->codes &&
                    !options->exponents;
    out->count = ckpt_catalog_count(catalog);
    for (size_t i = 0; i < out->count; i++)
        total += counters_of(out, options, i);
    out->bytes = out->count * sizeof *out->tensors + total * sizeof *out->counters;
    out->tensors = calloc(out->count + 1, sizeof *out->tensors);
    out->counters = calloc(total + 1, sizeof *out->counters);
    if (out->tensors == NULL || out->counters == NULL)
        return ckpt_fail_memory(err, "statistics", out->bytes);
    share_counters(out, options);
    return CKPT_OK;
}

typedef struct {
    ckpt_sink base;
    source_statistics *out;
} statistics_sink;

static int sink_wants(const ckpt_sink *self, size_t tensor)
{
    return statistics_wants(((const statistics_sink *)self)->out, tensor);
}

static ckpt_code sink_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    return statistics_put_tile(((statistics_sink *)self)->out, range, tile, scratch, err);
}

static uint64_t sink_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    (void)row_count;
    return statistics_need(
        ckpt_catalog_at(((const statistics_sink *)self)->out->catalog, tensor));
}

ckpt_code statistics_of_source(ckpt_source *source, const statistics_options *options,
                               source_statistics *out, ckpt_error *err)
{
    static const sink_ops ops = { sink_wants, sink_put, sink_need, NULL };
    statistics_sink sink = { .base = { &ops }, .out = out };
    ckpt_run_options run = options->run;
    ckpt_code code = statistics_begin(source->catalog, options, out, err);

    if (code == CKPT_OK) {
        run.fixed_bytes += out->bytes;
        code = ckpt_copy(source, &sink.base, &run, err);
    }
    if (code != CKPT_OK)
        statistics_release(out);
    return code;
}

void statistics_release(source_statistics *statistics)
{
    if (statistics->catalog == NULL)
        return;
    pthread_mutex_destroy(&statistics->lock);
    free(statistics->tensors);
    free(statistics->counters);
    memset(statistics, 0, sizeof *statistics);
}
