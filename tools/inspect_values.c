/* Prints values as text, tables and bars. */
#include "inspect_values.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "libckpt/codes.h"
#include "libckpt/float_text.h"
#include "libckpt/memory.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "libckpt/values.h"
#include "tools/cli/cli.h"
#include "verify/json_line.h"

enum { ENCODING_TEXT_BYTES = 64 };

/* ---- the table ---- */

static void print_ints(const tensor_statistics *s, const ckpt_tensor *t)
{
    if (s->count == 0)
        printf("  %11s  %11s", "-", "-");
    else if (t->dtype == CKPT_U64)
        printf("  %11" PRIu64 "  %11" PRIu64, (uint64_t)(s->int_min ^ INT64_MIN),
               (uint64_t)(s->int_max ^ INT64_MIN));
    else
        printf("  %11" PRId64 "  %11" PRId64, s->int_min, s->int_max);
    printf("  %11s  %11s", "-", "-");
}

static void print_floats(const tensor_statistics *s)
{
    if (s->min > s->max)
        printf("  %11s  %11s  %11s  %11s", "-", "-", "-", "-");
    else
        printf("  %11.4g  %11.4g  %11.4g  %11.4g", (double)s->min, (double)s->max,
               statistics_mean(s), statistics_rms(s));
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

/* Print figures that only some tensors have. */
static void print_extras(const tensor_statistics *s, const ckpt_tensor *t)
{
    if (s->scales.count > 0 && s->scales.min <= s->scales.max)
        printf("  scales %.4g..%.4g", (double)s->scales.min, (double)s->scales.max);
    if (s->scales.nans > 0)
        printf("  %s",
               text_count(s->scales.nans, "scale is no number", "scales are no numbers").text);
    if (statistics_code_count(t) > 0)
        printf("  saturated %.4f%%", percent(s->saturated, s->count));
    if (s->nans > 0)
        printf("  %" PRIu64 " NaN", s->nans);
    if (s->infinities > 0)
        printf("  %" PRIu64 " infinite", s->infinities);
    if (s->bad_row != UINT64_MAX)
        printf(" (first at row %" PRIu64 " column %" PRIu64 ")", s->bad_row, s->bad_col);
    if (s->zero_rows > 0)
        printf("  %s", text_count(s->zero_rows, "row is 0", "rows are 0").text);
}

void inspect_print_statistics(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics)
{
    printf("%11s  %11s  %11s  %11s  %8s  %s\n", "min", "max", "mean", "rms", "zeros", "tensor");
    for (size_t i = 0; i < statistics->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const tensor_statistics *s = &statistics->tensors[i];
        char encoding[ENCODING_TEXT_BYTES];

        if (!chosen[i])
            continue;
        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        if (!codes_are_decoded(t)) {
            printf("%s  %s: has no values that are decoded\n", cli_name(t->name), encoding);
            continue;
        }
        if (ckpt_tensor_is_int(t))
            print_ints(s, t);
        else
            print_floats(s);
        printf("  %7.3f%%  %s  %s", percent(s->zeros, s->count), cli_name(t->name), encoding);
        print_extras(s, t);
        putchar('\n');
    }
    putchar('\n');
}

/* ---- histograms ---- */

static uint64_t largest(const uint64_t *counts, size_t count)
{
    uint64_t most = 0;

    for (size_t i = 0; i < count; i++)
        most = size_max(most, counts[i]);
    return most;
}

static void print_exponents(const uint64_t exponents[STATISTICS_EXPONENTS], uint64_t zeros)
{
    const uint64_t most_nonzero = largest(exponents, STATISTICS_EXPONENTS);
    const uint64_t most = size_max(most_nonzero, zeros);
    int first = 0;
    int last = STATISTICS_EXPONENTS - 1;

    while (first < last && exponents[first] == 0)
        first++;
    while (last > first && exponents[last] == 0)
        last--;
    printf("values by magnitude, from the power of two to the next\n%16s  %14" PRIu64, "0", zeros);
    histogram_print_bar(zeros, most);
    for (int e = first; e <= last && most_nonzero > 0; e++) {
        printf("%12s2^%-4d  %12" PRIu64, e == 0 ? "below " : "", e == 0 ? -126 : e - 127,
               exponents[e]);
        histogram_print_bar(exponents[e], most);
    }
    putchar('\n');
}

static void print_codes(const uint64_t codes[STATISTICS_CODES], ckpt_dtype dtype, size_t count)
{
    const uint64_t most = largest(codes, count);

    printf("codes of %s\n", ckpt_dtype_name(dtype));
    for (unsigned c = 0; c < count; c++) {
        float value[2];
        const uint8_t byte = (uint8_t)c;

        if (codes[c] == 0)
            continue;
        if (dtype == CKPT_F4)
            kernels_get()->e2m1_to_f32(&byte, value, 2);
        else if (dtype == CKPT_F8_E4M3)
            kernels_get()->e4m3_to_f32(&byte, value, 1);
        else
            kernels_get()->e5m2_to_f32(&byte, value, 1);
        printf("%4s0x%02X %10.5g  %12" PRIu64, "", c, (double)value[0], codes[c]);
        histogram_print_bar(codes[c], most);
    }
    putchar('\n');
}

void inspect_print_histograms(const ckpt_catalog *catalog, const uint8_t *chosen,
                              const source_statistics *statistics)
{
    uint64_t exponents[STATISTICS_EXPONENTS] = { 0 };
    uint64_t codes[STATISTICS_CODES] = { 0 };
    tensor_statistics all;
    ckpt_dtype dtype = CKPT_NONE;
    int is_one_dtype = 1;

    statistics_init(&all);
    all.exponents = exponents;
    all.codes = codes;
    for (size_t i = 0; i < statistics->count; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        if (!chosen[i] || ckpt_tensor_is_int(t) || !codes_are_decoded(t))
            continue;
        is_one_dtype &= dtype == CKPT_NONE || dtype == t->dtype;
        dtype = t->dtype;
        statistics_merge(&all, &statistics->tensors[i], statistics_code_count(t));
    }
    if (all.count == 0)
        return;
    print_exponents(exponents, all.zeros);
    if (is_one_dtype && largest(codes, STATISTICS_CODES) > 0)
        print_codes(codes, dtype, dtype == CKPT_F4 ? 16 : STATISTICS_CODES);
}

/* ---- rows ---- */

int inspect_parse_rows(const char *text, inspect_rows *out)
{
    char first[24];
    const size_t length = strcspn(text, "-");
    uint64_t last;

    if (length >= sizeof first)
        return 0;
    memcpy(first, text, length);
    first[length] = '\0';
    if (!cli_parse_u64(first, &out->row))
        return 0;
    last = out->row;
    if ((text[length] == '-' && !cli_parse_u64(text + length + 1, &last)) || last < out->row ||
        last == UINT64_MAX)
        return 0;
    out->count = last - out->row + 1;
    return 1;
}

ckpt_code inspect_check_rows(const ckpt_tensor *tensor, const inspect_rows *rows, ckpt_error *err)
{
    const uint64_t have = ckpt_tensor_rows(tensor);

    if (codes_are_bare(tensor))
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' (%s) holds codes of an encoding that is "
                         "not known, which stand for no values", tensor->name,
                         ckpt_dtype_name(tensor->dtype));
    if (encoding_of(tensor) == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': dtype %s is not decoded", tensor->name,
                         ckpt_dtype_name(tensor->dtype));
    if (rows->row < have && rows->count <= have - rows->row)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE,
                     "tensor '%s' has %s, counted from 0: there is no row "
                     "%" PRIu64,
                     tensor->name, text_count(have, "row", "rows").text,
                     rows->row + rows->count - 1);
}

static void put_float(float value, json_writer *w)
{
    char text[FLOAT_TEXT_BYTES];

    float_text(value, text);
    if (w == NULL)
        printf(" %s", text);
    else if (isfinite(value))
        json_put_raw(w, text);
    else
        json_put_string(w, text);
}

ckpt_code inspect_put_scales(ckpt_source *source, size_t tensor, json_writer *w, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(ckpt_source_catalog(source), tensor);
    const struct {
        int is_there;
        ckpt_part part;
        const char *key;
        const char *text;
    } scales[] = {
        { t->tensor_scale != CKPT_TENSOR_SCALE_NONE, CKPT_TENSOR_SCALE, "tensor_scale",
          t->tensor_scale == CKPT_TENSOR_SCALE_DIVISOR ? "tensor scale, a divisor:"
                                                       : "tensor scale:" },
        { t->has_input_scale, CKPT_INPUT_SCALE, "input_scale", "input scale:" }
    };
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < sizeof scales / sizeof *scales && code == CKPT_OK; i++) {
        float value;

        if (!scales[i].is_there ||
            (code = ckpt_source_read(source, tensor, scales[i].part, 0, 1, &value, err)) != CKPT_OK)
            continue;
        if (w == NULL)
            printf("%s", scales[i].text);
        else
            json_put_key(w, scales[i].key);
        put_float(value, w);
        if (w == NULL)
            putchar('\n');
    }
    return code;
}

static void put_int(int64_t value, const ckpt_tensor *t, json_writer *w)
{
    if (t->dtype == CKPT_U64 && w == NULL)
        printf(" %" PRIu64, (uint64_t)value);
    else if (t->dtype == CKPT_U64)
        json_put_u64(w, (uint64_t)value);
    else if (w == NULL)
        printf(" %" PRId64, value);
    else
        json_put_i64(w, value);
}

/* Print one row with the values in `floats`, or if that is NULL in `ints`. */
static void put_row(const ckpt_tensor *t, uint64_t row, const float *floats, const int64_t *ints,
                    json_writer *w)
{
    const uint64_t cols = ckpt_tensor_cols(t);
    json_writer line;

    if (w == NULL) {
        printf("%" PRIu64 ":", row);
    } else {
        json_line_begin(&line, w);
        json_put_array(&line);
    }
    for (uint64_t c = 0; c < cols; c++)
        if (floats != NULL)
            put_float(floats[c], w == NULL ? NULL : &line);
        else
            put_int(ints[c], t, w == NULL ? NULL : &line);
    if (w == NULL) {
        putchar('\n');
    } else {
        json_put_array_end(&line);
        json_line_end(&line, w);
    }
}

static ckpt_code read_ints(ckpt_source *source, size_t tensor, uint64_t row, void *raw,
                           int64_t *out, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(ckpt_source_catalog(source), tensor);
    const ckpt_tile tile = { .part = { raw }, .part_bytes = { ckpt_part_row_bytes(t, CKPT_DATA) } };
    values_reader values;
    ckpt_code code;

    if ((code = ckpt_source_read(source, tensor, CKPT_DATA, row, 1, raw, err)) != CKPT_OK ||
        (code = values_begin(&values, t, &tile, NULL, err)) != CKPT_OK)
        return code;
    values_i64(&values, 0, out);
    return CKPT_OK;
}

ckpt_code inspect_put_rows(ckpt_source *source, size_t tensor, const inspect_rows *rows,
                           json_writer *w, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(ckpt_source_catalog(source), tensor);
    const uint64_t cols = ckpt_tensor_cols(t);
    const uint64_t bytes = cols * sizeof(int64_t);
    int64_t *values = memory_has(2 * bytes) ? malloc(2 * bytes + 1) : NULL;
    ckpt_code code = CKPT_OK;

    if (values == NULL)
        return ckpt_fail_memory(err, "a row", bytes);
    for (uint64_t r = rows->row; r < rows->row + rows->count && code == CKPT_OK; r++) {
        if (ckpt_tensor_is_int(t))
            code = read_ints(source, tensor, r, values + cols, values, err);
        else
            code = ckpt_source_read_f32(source, tensor, r, 1, (float *)values, err);
        if (code == CKPT_OK && ckpt_tensor_is_int(t))
            put_row(t, r, NULL, values, w);
        else if (code == CKPT_OK)
            put_row(t, r, (const float *)values, NULL, w);
    }
    free(values);
    return code;
}
