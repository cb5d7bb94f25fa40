/* Interprets the quantization_config of other families, as far as it is decoded. */
#include "config_scheme.h"

#include <string.h>

#include "libckpt/config_number.h"
#include "libckpt/encoding.h"

static int says(const json_value *object, const char *key, const char *word)
{
    const char *text = json_string(json_member(object, key));

    return text != NULL && strcmp(text, word) == 0;
}

/* compressed-tensors: 1 when all groups are 8-bit floats with a scale for each row. */
static int has_row_groups(const json_value *quantization)
{
    const json_value *groups = json_member(quantization, "config_groups");
    int found = 0;

    if (!json_is_object(groups))
        return 0;
    for (const json_value *group = json_first(groups); group != NULL; group = json_next(group)) {
        const json_value *weights = json_member(group, "weights");
        uint64_t bits;

        if (!says(weights, "type", "float") || !says(weights, "strategy", "channel") ||
            !json_u64(json_member(weights, "num_bits"), &bits) || bits != 8)
            return 0;
        found = 1;
    }
    return found;
}

static void read_block(const json_value *block, config_scheme *scheme)
{
    uint64_t rows;
    uint64_t cols;
    encoding_id id = ENCODING_COUNT;

    if (json_count(block) == 2 && json_u64(json_first(block), &rows) &&
        json_u64(json_next(json_first(block)), &cols))
        id = encoding_find(CKPT_F8_E4M3, rows, cols);
    scheme->has_odd_block = id == ENCODING_COUNT;
    if (!scheme->has_odd_block)
        scheme->fp8 = 1u << id | 1u << ENCODING_FP8_1X32;
}

config_scheme config_read_scheme(const json_value *config)
{
    const json_value *quantization =
        config == NULL ? NULL : config_member(config, "quantization_config");
    const json_value *block = json_member(quantization, "weight_block_size");
    const char *method = json_string(json_member(quantization, "quant_method"));
    config_scheme scheme = { .has_u8_scales = says(quantization, "scale_fmt", "ue8m0") };

    if ((method != NULL && strcmp(method, "mxfp8") == 0) ||
        says(quantization, "quant_algo", "MXFP8")) {
        scheme.is_decoded = 1;
        scheme.has_u8_scales = 1;
        scheme.fp8 = 1u << ENCODING_FP8_1X32;
    } else if (method == NULL || strcmp(method, "fp8") == 0) {
        scheme.is_decoded = 1;
        scheme.has_others = json_member(quantization, "quant_algo") != NULL ||
                            json_member(quantization, "moe_quant_algo") != NULL;
        if (json_is_array(block))
            read_block(block, &scheme);
        else
            scheme.fp8 = 1u << ENCODING_FP8_128 | 1u << ENCODING_FP8_1X32 |
                         1u << ENCODING_FP8_ROW;
    } else if (strcmp(method, "fbgemm_fp8") == 0 ||
               (strcmp(method, "compressed-tensors") == 0 && has_row_groups(quantization))) {
        scheme.is_decoded = 1;
        scheme.fp8 = 1u << ENCODING_FP8_ROW;
    } else if (json_is_array(block)) {
        read_block(block, &scheme);
    }
    return scheme;
}
