/* histogram.c: how many values of a tensor, in any encoding, lie in each power of two. */
#include <ckpt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOW = -30, BINS = 60 };

/* Bin 0 is for zero and what is smaller than 2^LOW, the last one for what is larger, and NaN. */
static int bin_of(float value)
{
    int exponent = 0;

    if (!isfinite(value))
        return BINS - 1;
    if (frexpf(value, &exponent) == 0 || exponent < LOW)
        return 0;
    return exponent - LOW < BINS - 1 ? exponent - LOW : BINS - 1;
}

int main(int argc, char **argv)
{
    unsigned long long counts[BINS] = { 0 };
    ckpt_checkpoint *model = NULL;
    ckpt_error err = { CKPT_OK, "usage: histogram PATH TENSOR", 0 };
    float *row = NULL;
    int status = 2;

    if (argc != 3 || ckpt_open(argv[1], NULL, &model, &err) != CKPT_OK)
        goto out;
    ckpt_source *values = ckpt_logical(model);
    const ckpt_catalog *all = ckpt_source_catalog(values);
    const int64_t found = ckpt_catalog_find(all, argv[2]);
    if (found == CKPT_NOT_FOUND) {
        ckpt_fail(&err, CKPT_E_USAGE, "'%s' has no tensor '%s'", argv[1], argv[2]);
        goto out;
    }
    const ckpt_tensor *t = ckpt_catalog_at(all, (size_t)found);
    row = malloc(ckpt_tensor_cols(t) * sizeof *row + 1);
    for (uint64_t r = 0; row != NULL && r < ckpt_tensor_rows(t); r++) {
        if (ckpt_source_read_f32(values, (size_t)found, r, 1, row, &err) != CKPT_OK)
            goto out;
        for (uint64_t c = 0; c < ckpt_tensor_cols(t); c++)
            counts[bin_of(row[c])]++;
    }
    for (int i = 0; i < BINS; i++)
        if (counts[i] > 0)
            printf("%d\t%llu\n", i == 0 ? -999 : LOW + i, counts[i]);
    status = 0;
out:
    if (status != 0)
        fprintf(stderr, "%s\n", err.text);
    free(row);
    ckpt_close(model);
    return status;
}
