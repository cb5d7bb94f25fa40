/* custom.c: a source of one's own: a tensor that is computed, and digested as one of a file. */
#include <ckpt.h>
#include <stdio.h>

enum { ROWS = 300, COLS = 2000 };

/* Element (r, c) is (r * step + c) / 8, in F32. */
static ckpt_code read_rows(void *context, size_t tensor, ckpt_part part, uint64_t row,
                           uint64_t row_count, void *out, ckpt_error *err)
{
    const uint64_t *step = context;
    float *values = out;

    if (tensor != 0 || part != CKPT_DATA)
        return ckpt_fail(err, CKPT_E_USAGE, "there is one plain tensor");
    for (uint64_t r = row; r < row + row_count; r++)
        for (uint64_t c = 0; c < COLS; c++)
            *values++ = (float)(r * *step + c) / 8;
    return CKPT_OK;
}

int main(void)
{
    const ckpt_tensor ramp = { .name = "ramp", .dtype = CKPT_F32, .rank = 2,
                               .shape = { ROWS, COLS } };
    uint64_t step = 7;
    const ckpt_source_functions functions = { .read = read_rows, .context = &step };
    ckpt_source *source = NULL;
    ckpt_digest *digest = NULL;
    char hex[CKPT_DIGEST_HEX];
    float row[COLS];
    ckpt_error err;
    int status = 2;

    if (ckpt_source_create(&ramp, 1, &functions, &source, &err) != CKPT_OK ||
        ckpt_source_read_f32(source, 0, ROWS - 1, 1, row, &err) != CKPT_OK ||
        ckpt_digest_source(source, NULL, &digest, &err) != CKPT_OK) {
        fprintf(stderr, "%s\n", err.text);
        goto out;
    }
    ckpt_digest_tensor(digest, 0, hex);
    printf("%s\t%g\n", hex, row[COLS - 1]);
    status = 0;
out:
    ckpt_digest_free(digest);
    ckpt_source_free(source);
    return status;
}
