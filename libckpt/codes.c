/* Describes codes whose scale is not supported, and refuses conversions that would have to decode
 * them. */
#include "codes.h"

#include <stdio.h>
#include <string.h>

#include "encoding.h"
#include "map.h"
#include "text.h"

/* "weight_scale", "scales", "weight_scale_2", "weight_scale_inv": the last component of a name. */
static int is_named_scale(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strstr(dot == NULL ? name : dot, "scale") != NULL;
}

static int is_float8(ckpt_dtype dtype)
{
    return dtype == CKPT_F8_E4M3 || dtype == CKPT_F8_E5M2 || dtype == CKPT_F8_E4M3FNUZ ||
           dtype == CKPT_F8_E5M2FNUZ;
}

static int is_word(ckpt_dtype dtype)
{
    return dtype == CKPT_I8 || dtype == CKPT_U8 || dtype == CKPT_I32 || dtype == CKPT_U32;
}

int codes_are_bare(const ckpt_tensor *t)
{
    if (t->codes_name != NULL)
        return 1;
    if (t->scale_dtype != CKPT_NONE || is_named_scale(t->name))
        return 0;
    if (is_float8(t->dtype) || t->dtype == CKPT_F4 || t->dtype == CKPT_F6_E2M3 ||
        t->dtype == CKPT_F6_E3M2)
        return 1;
    return is_word(t->dtype) && !t->is_numbers &&
           (text_ends_with(t->name, ".weight") || text_ends_with(t->name, "weight_packed") ||
            text_ends_with(t->name, ".qweight") || text_ends_with(t->name, "_blocks"));
}

int codes_are_decoded(const ckpt_tensor *tensor)
{
    return encoding_of(tensor) != NULL && !codes_are_bare(tensor);
}

void codes_encoding(const ckpt_tensor *tensor, char *out, size_t out_bytes)
{
    if (codes_are_bare(tensor))
        snprintf(out, out_bytes, "unknown");
    else
        ckpt_tensor_encoding(tensor, out, out_bytes);
}

/* The number of stored columns per scale, if the scales have as many rows as the codes; else 0. */
static uint64_t group_of(const ckpt_tensor *codes, const ckpt_tensor *scale)
{
    const uint64_t cols = ckpt_tensor_cols(codes);
    const uint64_t count = ckpt_tensor_cols(scale);

    if (ckpt_tensor_rows(scale) != ckpt_tensor_rows(codes) || count == 0 || cols % count != 0)
        return 0;
    return cols / count;
}

static void name_float8(const ckpt_tensor *codes, const ckpt_tensor *scale,
                        char out[CODES_FORM_BYTES])
{
    const uint64_t rows = ckpt_tensor_rows(codes);
    const uint64_t scales = ckpt_tensor_rows(scale) * ckpt_tensor_cols(scale);
    const int is_e8m0 = scale->dtype == CKPT_F8_E8M0 || scale->dtype == CKPT_U8;

    if (scales == 1)
        snprintf(out, CODES_FORM_BYTES, "FP8 with one scale for the tensor");
    else if (is_e8m0 && group_of(codes, scale) == encoding_at(ENCODING_FP8_1X32)->block_cols)
        snprintf(out, CODES_FORM_BYTES, "MXFP8 (groups of 32)");
    else if (scales == rows && (scale->rank == 1 || ckpt_tensor_cols(scale) == 1))
        snprintf(out, CODES_FORM_BYTES, "FP8 with a scale for each row (channel)");
    else
        snprintf(out, CODES_FORM_BYTES, "FP8 with scales of another form");
}

/* Describe the codes: FP4 has two per byte, INT8 one, INT4 eight per 32 bits. */
static void name_words(const ckpt_tensor *codes, const ckpt_tensor *scale,
                       char out[CODES_FORM_BYTES])
{
    const uint64_t group = group_of(codes, scale) * (codes->dtype == CKPT_F4 ? 1 : 2);
    const int is_byte = codes->dtype != CKPT_I32 && codes->dtype != CKPT_U32;

    if (is_byte && scale->dtype == CKPT_F8_E4M3 &&
        group == encoding_at(ENCODING_NVFP4)->block_cols)
        snprintf(out, CODES_FORM_BYTES, "NVFP4 (groups of 16 with F8_E4M3 scales)");
    else if (text_ends_with(codes->name, "_blocks"))
        snprintf(out, CODES_FORM_BYTES, "MXFP4 in blocks");
    else if (codes->dtype != CKPT_I8 && is_byte &&
             (scale->dtype == CKPT_U8 || scale->dtype == CKPT_F8_E8M0) &&
             group == encoding_at(ENCODING_FP4_32)->block_cols)
        snprintf(out, CODES_FORM_BYTES, "MXFP4 (groups of 32 with %s scales)",
                 ckpt_dtype_name(scale->dtype));
    else if (codes->dtype == CKPT_F4)
        snprintf(out, CODES_FORM_BYTES, "FP4 with scales of another form");
    else if (!is_byte)
        snprintf(out, CODES_FORM_BYTES, "integers packed in words");
    else if (ckpt_dtype_bits(scale->dtype) > 8)
        snprintf(out, CODES_FORM_BYTES, "INT8 with %s scales", ckpt_dtype_name(scale->dtype));
    else
        snprintf(out, CODES_FORM_BYTES, "bytes with scales of another form");
}

const ckpt_tensor *codes_form(const ckpt_catalog *catalog, const ckpt_tensor *codes,
                              char out[CODES_FORM_BYTES])
{
    const ckpt_tensor *scale =
        codes->codes_name != NULL ? NULL : pair_find_scale(catalog, codes->name);

    if (codes->codes_name != NULL)
        snprintf(out, CODES_FORM_BYTES, "blocks of %s", codes->codes_name);
    else if (scale == NULL)
        snprintf(out, CODES_FORM_BYTES, "%s without a scale", ckpt_dtype_name(codes->dtype));
    else if (is_float8(codes->dtype))
        name_float8(codes, scale, out);
    else
        name_words(codes, scale, out);
    return scale;
}

static ckpt_code fail_codes(const ckpt_catalog *from, const ckpt_tensor *t, ckpt_error *err)
{
    char form[CODES_FORM_BYTES];
    char beside[256] = "";
    const ckpt_tensor *scale = codes_form(from, t, form);

    if (scale != NULL) {
        char shape[128];

        catalog_shape_text(scale, shape, sizeof shape);
        snprintf(beside, sizeof beside, ", scale '%.80s' %s %s", scale->name,
                 ckpt_dtype_name(scale->dtype), shape);
    }
    return ckpt_fail(err, CKPT_E_USAGE,
                     "tensor '%s' (%s%s) is %s: such codes can be copied and compared as stored, "
                     "but not converted to another encoding",
                     t->name, ckpt_dtype_name(t->dtype), beside, form);
}

ckpt_code codes_check_policy(const ckpt_catalog *from, const plan_policy *policy, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(from, i);
        const plan_encoding wanted = plan_is_expert(t->name) ? policy->experts : policy->dtype;

        if (codes_are_bare(t) && (wanted != PLAN_KEEP || policy->scale_dtype != CKPT_NONE))
            return fail_codes(from, t, err);
    }
    return CKPT_OK;
}

ckpt_code codes_check_targets(const ckpt_catalog *from, const ckpt_catalog *targets,
                              ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(from, i);

        if (codes_are_bare(t) && !catalog_same_encoding(t, ckpt_catalog_at(targets, i)))
            return fail_codes(from, t, err);
    }
    return CKPT_OK;
}
