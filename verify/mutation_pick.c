/* Chooses tensors and places to mutate. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"
#include "libckpt/values.h"
#include "mutation_private.h"

enum { CANDIDATES_MAX = 256, ROWS_MAX = 64 };

static const ckpt_tensor *at(const mutation_maker *m, size_t i)
{
    return ckpt_catalog_at(m->catalog, i);
}

static int is_same_value(const mutation_maker *m, size_t a, size_t b)
{
    const hash128 left = digest_get(m->in->digest, a);
    const hash128 right = digest_get(m->in->digest, b);

    return memcmp(&left, &right, sizeof left) == 0;
}

int64_t mutation_pick(const mutation_maker *m, mutation_fits *fits)
{
    const size_t count = ckpt_catalog_count(m->catalog);
    int64_t best = CKPT_NOT_FOUND;

    for (size_t k = 0; k < count; k++) {
        const size_t i = (count / 2 + k) % count;

        if (encoding_of(at(m, i)) != NULL && ckpt_tensor_bytes(at(m, i)) > 0 && fits(at(m, i)) &&
            (best == CKPT_NOT_FOUND ||
             ckpt_tensor_bytes(at(m, i)) < ckpt_tensor_bytes(at(m, (size_t)best))))
            best = (int64_t)i;
    }
    return best;
}

int mutation_pick_pair(const mutation_maker *m, mutation_fits *fits, mutation_pairs *pairs,
                       size_t out[2])
{
    const size_t count = ckpt_catalog_count(m->catalog);
    size_t candidates = 0;

    for (size_t k = 0; k < count && candidates < CANDIDATES_MAX; k++) {
        const size_t a = (count / 2 + k) % count;

        if (!fits(at(m, a)) || encoding_of(at(m, a)) == NULL)
            continue;
        candidates++;
        for (size_t b = 0; b < count; b++)
            if (b != a && catalog_same_shape(at(m, a), at(m, b)) &&
                catalog_same_encoding(at(m, a), at(m, b)) && pairs(at(m, a), at(m, b)) &&
                !is_same_value(m, a, b)) {
                out[0] = a;
                out[1] = b;
                return 1;
            }
    }
    return 0;
}

/* ---- places ---- */

/* 1 when changing the lowest bit of element `col` changes its value: not for NaN and infinity. */
static int is_live(const ckpt_tensor *t, const float *values, uint64_t col)
{
    return ckpt_tensor_is_int(t) || isfinite(values[col]);
}

static void set_data_place(const ckpt_tensor *t, uint64_t row, uint64_t col, mutation_place *out)
{
    const uint64_t bits = ckpt_dtype_bits(t->dtype);

    *out = (mutation_place){ row, col, col * bits / 8, 1, 1 };
    if (bits == 4 && col % 2 == 1)
        out->mask = 0x10;
}

static void set_scale_place(const ckpt_tensor *t, uint64_t row, uint64_t col, mutation_place *out)
{
    const uint64_t block = col / t->block_cols;
    const uint64_t bytes = ckpt_dtype_bits(t->scale_dtype) / 8;

    *out = (mutation_place){ row / t->block_rows, block, block * bytes, 1, 1 };
    if (bytes == 4) {              /* so large that rounding the product cannot undo it */
        out->byte += 2;
        out->mask = 0x10;
    }
}

/* Find the first suitable column of a row, from the middle on. */
static void look_at_row(const ckpt_tensor *t, ckpt_part part, const float *values, uint64_t row,
                        mutation_place *out)
{
    const uint64_t cols = ckpt_tensor_cols(t);

    for (uint64_t k = 0; k < cols && !out->found; k++) {
        const uint64_t col = (cols / 2 + k) % cols;

        if (part == CKPT_DATA && is_live(t, values, col))
            set_data_place(t, row, col, out);
        else if (part == CKPT_SCALE && isfinite(values[col]) && values[col] != 0)
            set_scale_place(t, row, col, out);
    }
}

ckpt_code mutation_find_place(const mutation_maker *m, size_t tensor, ckpt_part part,
                              mutation_place *out, ckpt_error *err)
{
    const ckpt_tensor *t = at(m, tensor);
    const uint64_t rows = ckpt_tensor_rows(t);
    float *values = calloc(ckpt_tensor_cols(t) + 1, sizeof *values);
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    if (values == NULL)
        return ckpt_fail_memory(err, "a row", ckpt_tensor_cols(t) * sizeof *values);
    for (uint64_t k = 0; k < size_min(rows, ROWS_MAX) && code == CKPT_OK && !out->found; k++) {
        const uint64_t row = (rows / 2 + k) % rows;

        if (!ckpt_tensor_is_int(t))
            code = ckpt_source_read_f32(m->in->source, tensor, row, 1, values, err);
        if (code == CKPT_OK)
            look_at_row(t, part, values, row, out);
    }
    free(values);
    return code;
}
