/* Weights and their scales: what a pair of stored tensors means, and how a meaning is stored. */
#include "map.h"

#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "scale.h"
#include "size.h"
#include "text.h"

int map_weight_of_scale(const char *name, char weight[MAP_NAME_BYTES])
{
    const char *end = "";
    size_t stem = strlen(name);

    if (text_ends_with(name, "_scale_inv")) {
        stem -= strlen("_scale_inv");
    } else if (text_ends_with(name, ".weight_scale")) {
        stem -= strlen("_scale");
    } else if (text_ends_with(name, ".scale")) {
        stem -= strlen(".scale");
        end = ".weight";
    } else {
        return 0;
    }
    return snprintf(weight, MAP_NAME_BYTES, "%.*s%s", (int)stem, name, end) < MAP_NAME_BYTES;
}

/* The scale grid of a matrix, or of each matrix in a stack of them. */
static int grid_fits(const ckpt_tensor *logical, const ckpt_tensor *scale)
{
    const uint32_t last = logical->rank - 1;

    if (logical->has_scale_vector)
        return logical->rank == 2 && encoding_of(logical)->block_cols == ENCODING_WHOLE_ROW &&
               scale->shape[0] == logical->shape[0];
    if (scale->rank != logical->rank)
        return 0;
    for (uint32_t i = 0; i + 2 < logical->rank; i++)
        if (scale->shape[i] != logical->shape[i])
            return 0;
    return scale->shape[last - 1] == size_div_up(logical->shape[last - 1], logical->block_rows) &&
           scale->shape[last] == size_div_up(logical->shape[last], logical->block_cols);
}

static ckpt_code scale_dtype(const ckpt_tensor *scale, const map_read_options *options,
                             ckpt_dtype *out, ckpt_error *err)
{
    *out = scale->dtype == CKPT_U8 && options->u8_scales ? CKPT_F8_E8M0 : scale->dtype;
    if (scale_is_known(*out))
        return CKPT_OK;
    if (*out == CKPT_U8)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "scale '%s' is U8: use --u8-scales if its bytes are E8M0 exponents",
                         scale->name);
    return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' has dtype %s, expected F8_E8M0, F32 or BF16",
                     scale->name, ckpt_dtype_name(scale->dtype));
}

static ckpt_code fail_shapes(const ckpt_tensor *weight, const ckpt_tensor *scale, ckpt_error *err)
{
    char weight_shape[256];
    char scale_shape[256];

    catalog_shape_text(weight, weight_shape, sizeof weight_shape);
    catalog_shape_text(scale, scale_shape, sizeof scale_shape);
    return ckpt_fail(err, CKPT_E_FORMAT, "scale '%s' %s does not fit weight '%s' %s %s",
                     scale->name, scale_shape, weight->name, ckpt_dtype_name(weight->dtype),
                     weight_shape);
}

/* The first of the blocks that the config allows which fits; *out has the scale's dtype. */
static ckpt_code fit_fp8(const ckpt_tensor *scale, const map_read_options *options,
                         ckpt_tensor *out, ckpt_error *err)
{
    ckpt_code code = CKPT_E_FORMAT;

    if (options->fp8 == 0)
        return ckpt_fail(err, code, "weight '%s' has an unsupported block size",
                         out->name);
    for (int id = 0; id < ENCODING_COUNT; id++) {
        if ((options->fp8 >> id & 1) == 0)
            continue;
        encoding_set(out, (encoding_id)id, out->scale_dtype);
        if ((code = catalog_check_shape(out, err)) == CKPT_OK && grid_fits(out, scale))
            return CKPT_OK;
    }
    return code == CKPT_OK ? fail_shapes(out, scale, err) : code;
}

ckpt_code pair_encoding(const ckpt_tensor *weight, const ckpt_tensor *scale,
                        const map_read_options *options, ckpt_tensor *out, ckpt_error *err)
{
    const uint32_t last = weight->rank - 1;
    const int is_byte = weight->dtype == CKPT_I8 || weight->dtype == CKPT_U8;
    ckpt_code code;

    *out = *weight;
    out->stored_dtype = weight->dtype;
    if (scale == NULL) {
        if (options->lenient || options->bare_codes != BARE_CODES_NONE ||
            (weight->dtype != CKPT_F8_E4M3 && weight->dtype != CKPT_F4 &&
             !(is_byte && text_ends_with(weight->name, ".weight"))))
            return CKPT_OK;
        return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' (%s) has no scale", weight->name,
                         ckpt_dtype_name(weight->dtype));
    }
    if ((code = scale_dtype(scale, options, &out->scale_dtype, err)) != CKPT_OK)
        return code;
    if (options->bare_codes != BARE_CODES_NONE && scale->dtype != out->scale_dtype)
        out->stored_scale_dtype = scale->dtype;
    out->has_scale_vector = scale->rank == 1;
    if (weight->rank < 2)
        return fail_shapes(weight, scale, err);
    if (weight->dtype == CKPT_F8_E4M3) {
        return fit_fp8(scale, options, out, err);
    } else if (weight->dtype == CKPT_F4 || is_byte) {
        encoding_set(out, ENCODING_FP4_32, out->scale_dtype);
        if (is_byte && !size_mul(weight->shape[last], 2, &out->shape[last]))
            return fail_shapes(weight, scale, err);
    } else {
        return ckpt_fail(err, CKPT_E_FORMAT, "weight '%s' has a scale, but dtype %s",
                         weight->name, ckpt_dtype_name(weight->dtype));
    }
    if ((code = catalog_check_shape(out, err)) != CKPT_OK)
        return code;
    return grid_fits(out, scale) ? CKPT_OK : fail_shapes(weight, scale, err);
}

ckpt_tensor pair_stored_data(const ckpt_tensor *logical)
{
    ckpt_tensor stored = *logical;

    catalog_set_plain(&stored, logical->dtype);
    stored.stored_dtype = CKPT_NONE;
    if (logical->dtype == CKPT_F4 &&
        (logical->stored_dtype == CKPT_I8 || logical->stored_dtype == CKPT_U8)) {
        stored.dtype = logical->stored_dtype;
        stored.shape[logical->rank - 1] /= 2;
    }
    return stored;
}

ckpt_tensor pair_stored_scale(const ckpt_tensor *logical)
{
    ckpt_tensor stored = *logical;
    const uint32_t last = logical->rank - 1;

    catalog_set_plain(&stored, logical->scale_dtype == CKPT_F8_E8M0 &&
                                       logical->stored_scale_dtype != CKPT_NONE
                                   ? logical->stored_scale_dtype
                                   : logical->scale_dtype);
    stored.stored_dtype = CKPT_NONE;
    if (logical->has_scale_vector) {
        stored.rank = last;
        return stored;
    }
    stored.shape[last] = size_div_up(logical->shape[last], logical->block_cols);
    stored.shape[last - 1] = size_div_up(logical->shape[last - 1], logical->block_rows);
    return stored;
}
