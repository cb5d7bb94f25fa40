/* Checks a tensor's shape and encoding before its sizes are computed and its rows are decoded. */
#include "tensor.h"

#include "encoding.h"
#include "size.h"
#include "stored_form.h"

/* Check once for overflow every product that the ckpt_part_* functions compute. */
static int part_fits(uint64_t rows, uint64_t cols, uint32_t bits, int *whole_bytes)
{
    uint64_t row_bits;
    uint64_t total_bits;

    if (!size_mul(cols, bits, &row_bits) || !size_mul(rows, row_bits, &total_bits))
        return 0;
    *whole_bytes = row_bits % 8 == 0;
    return total_bits / 8 <= INT64_MAX;       /* file positions are signed */
}

static ckpt_code check_encoding(const ckpt_tensor *t, ckpt_error *err)
{
    const char *problem = encoding_problem(t);
    char encoding[64];
    char shape[256];

    if (problem == NULL && t->stored_form != CKPT_FORM_APART &&
        !stored_form_fits((ckpt_stored_form)t->stored_form, t))
        problem = "its stored form has other codes, scales or whole blocks";
    if (problem == NULL)
        return CKPT_OK;
    ckpt_tensor_encoding(t, encoding, sizeof encoding);
    catalog_shape_text(t, shape, sizeof shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' %s cannot be %s: %s", t->name, shape,
                     encoding, problem);
}

ckpt_code catalog_check_shape(const ckpt_tensor *tensor, ckpt_error *err)
{
    uint64_t rows = 1;
    ckpt_code code;
    int whole_bytes = 1;
    char shape[256];

    if (tensor->rank > CKPT_RANK_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s' has %u dimensions, at most %d are read",
                         tensor->name, tensor->rank, CKPT_RANK_MAX);
    if ((code = check_encoding(tensor, err)) != CKPT_OK)
        return code;
    catalog_shape_text(tensor, shape, sizeof shape);
    for (uint32_t i = 0; i + 1 < tensor->rank; i++)
        if (!size_mul(rows, tensor->shape[i], &rows))
            goto overflow;
    if (!part_fits(rows, ckpt_tensor_cols(tensor), ckpt_dtype_bits(tensor->dtype), &whole_bytes))
        goto overflow;
    if (!whole_bytes)
        return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': a row of %s %s is not whole bytes",
                         tensor->name, ckpt_dtype_name(tensor->dtype), shape);
    if (tensor->scale_dtype != CKPT_NONE &&
        !part_fits(ckpt_part_rows(tensor, CKPT_SCALE), ckpt_part_cols(tensor, CKPT_SCALE),
                   ckpt_dtype_bits(tensor->scale_dtype), &whole_bytes))
        goto overflow;
    return CKPT_OK;
overflow:
    return ckpt_fail(err, CKPT_E_FORMAT, "tensor '%s': the size of shape %s overflows",
                     tensor->name, shape);
}
