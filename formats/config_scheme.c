/* Interprets the supported forms of quantization_config. */
#include "config_scheme.h"

#include <string.h>

#include "libckpt/config_number.h"
#include "libckpt/encoding.h"

#define BIT(id) (1u << (id))

static int says(const json_value *object, const char *key, const char *word)
{
    const char *text = json_string(json_member(object, key));

    return text != NULL && strcmp(text, word) == 0;
}

static int says_number(const json_value *object, const char *key, uint64_t number)
{
    uint64_t found;

    return json_u64(json_member(object, key), &found) && found == number;
}

/* The encodings of a compressed-tensors group with these `weights`; 0: it is not decoded. */
static unsigned read_group(const json_value *weights, config_scheme *scheme)
{
    if (!says(weights, "type", "float"))
        return 0;
    if (says_number(weights, "num_bits", 8) && says(weights, "strategy", "channel"))
        return BIT(ENCODING_FP8_ROW);
    if (!says_number(weights, "num_bits", 4))
        return 0;
    if (says(weights, "strategy", "tensor_group") && says_number(weights, "group_size", 16))
        return BIT(ENCODING_NVFP4_DIVIDED);
    if (!says(weights, "strategy", "group") || !says_number(weights, "group_size", 32))
        return 0;
    scheme->has_u8_scales = 1;
    return BIT(ENCODING_FP4_32);
}

/* compressed-tensors: the scheme is decoded only if all of its groups are. */
static void read_groups(const json_value *quantization, config_scheme *scheme)
{
    const json_value *groups = json_member(quantization, "config_groups");
    unsigned all = 0;

    for (const json_value *group = json_is_object(groups) ? json_first(groups) : NULL;
         group != NULL; group = json_next(group)) {
        const unsigned one = read_group(json_member(group, "weights"), scheme);

        if (one == 0)
            return;
        all |= one;
    }
    scheme->is_decoded = all != 0;
    scheme->encodings = all;
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
        scheme->encodings = BIT(id) | BIT(ENCODING_FP8_1X32);
}

/* FP8, and other encodings that Model-Optimizer declares beside it. */
static void read_fp8(const json_value *quantization, config_scheme *scheme)
{
    const json_value *block = json_member(quantization, "weight_block_size");
    const json_value *all = json_member(quantization, "quant_algo");
    const json_value *experts = json_member(quantization, "moe_quant_algo");
    const int has_nvfp4 = says(quantization, "moe_quant_algo", "NVFP4");

    scheme->is_decoded = 1;
    scheme->has_others =
        (all != NULL && !(has_nvfp4 && says(quantization, "quant_algo", "MIXED_PRECISION"))) ||
        (experts != NULL && !has_nvfp4);
    if (json_is_array(block))
        read_block(block, scheme);
    else
        scheme->encodings =
            BIT(ENCODING_FP8_128) | BIT(ENCODING_FP8_1X32) | BIT(ENCODING_FP8_ROW);
    if (has_nvfp4)
        scheme->encodings |= BIT(ENCODING_NVFP4);
}

config_scheme config_read_scheme(const json_value *config, const json_value *modelopt)
{
    const json_value *quantization =
        config == NULL ? NULL : config_member(config, "quantization_config");
    const json_value *block = json_member(quantization, "weight_block_size");
    const char *method = json_string(json_member(quantization, "quant_method"));
    config_scheme scheme = { .has_u8_scales = says(quantization, "scale_fmt", "ue8m0") };

    if (quantization == NULL)
        quantization = json_member(modelopt, "quantization");
    if ((method != NULL && strcmp(method, "mxfp8") == 0) ||
        says(quantization, "quant_algo", "MXFP8")) {
        scheme.is_decoded = 1;
        scheme.has_u8_scales = 1;
        scheme.encodings = BIT(ENCODING_FP8_1X32);
    } else if (says(quantization, "quant_algo", "NVFP4")) {
        scheme.is_decoded = 1;
        scheme.encodings = BIT(ENCODING_NVFP4);
    } else if (method == NULL || strcmp(method, "fp8") == 0) {
        read_fp8(quantization, &scheme);
    } else if (strcmp(method, "fbgemm_fp8") == 0) {
        scheme.is_decoded = 1;
        scheme.encodings = BIT(ENCODING_FP8_ROW);
    } else if (strcmp(method, "compressed-tensors") == 0) {
        read_groups(quantization, &scheme);
    } else if (json_is_array(block)) {
        read_block(block, &scheme);
    }
    return scheme;
}
