/* Interprets the supported forms of quantization_config. */
#include "config_scheme.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/config_number.h"
#include "libckpt/encoding.h"

#define BIT(id) (1u << (id))

/* Schemes with one encoding for all weights, told by the quant_method of transformers or by the
 * quant_algo of Model-Optimizer. */
static const struct {
    const char *method;            /* NULL: any */
    const char *algorithm;
    unsigned encodings;
    int has_u8_scales;
} uniform[] = {
    { "mxfp8", NULL, BIT(ENCODING_FP8_1X32), 1 },
    { NULL, "MXFP8", BIT(ENCODING_FP8_1X32), 1 },
    { NULL, "NVFP4", BIT(ENCODING_NVFP4), 0 },
    { "fbgemm_fp8", NULL, BIT(ENCODING_FP8_ROW), 0 },
};

/* Weights of the groups of compressed-tensors. */
static const struct {
    const char *type;
    uint64_t bits;
    const char *strategy;
    uint64_t group_size;           /* 0: any */
    encoding_id id;
    int has_u8_scales;
} groups[] = {
    { "float", 8, "channel", 0, ENCODING_FP8_ROW, 0 },
    { "float", 4, "tensor_group", 16, ENCODING_NVFP4_DIVIDED, 0 },
    { "float", 4, "group", 32, ENCODING_FP4_32, 1 },
    { "int", 4, "group", 32, ENCODING_INT4_32, 0 },
};

static int is_word(const char *text, const char *word)
{
    return text != NULL && strcmp(text, word) == 0;
}

static int says(const json_value *object, const char *key, const char *word)
{
    return is_word(json_string(json_member(object, key)), word);
}

static int says_number(const json_value *object, const char *key, uint64_t number)
{
    uint64_t found;

    return json_u64(json_member(object, key), &found) && found == number;
}

/* NVFP4 experts beside FP8, as Model-Optimizer writes them for servers of DeepSeek-V4. */
static int has_known_experts(const json_value *quantization)
{
    return says(quantization, "moe_quant_algo", "NVFP4") &&
           (json_member(quantization, "quant_algo") == NULL ||
            says(quantization, "quant_algo", "MIXED_PRECISION"));
}

/* Integers are decoded if they are symmetric, in the order of columns and packed in words. */
static int has_plain_integers(const json_value *quantization, const json_value *group)
{
    const json_value *weights = json_member(group, "weights");
    const json_value *format = json_member(group, "format");
    const json_value *order = json_member(weights, "actorder");
    int is_symmetric = 0;
    int is_ordered = 0;

    if (json_string(format) == NULL)
        format = json_member(quantization, "format");
    return is_word(json_string(format), "pack-quantized") &&
           json_bool(json_member(weights, "symmetric"), &is_symmetric) && is_symmetric &&
           (order == NULL || json_is_null(order) || (json_bool(order, &is_ordered) && !is_ordered));
}

/* The encodings of a compressed-tensors group; 0: it is not decoded. */
static unsigned read_group(const json_value *quantization, const json_value *group,
                           config_scheme *scheme)
{
    const json_value *weights = json_member(group, "weights");

    if (says(weights, "type", "int") && !has_plain_integers(quantization, group))
        return 0;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (!says(weights, "type", groups[i].type) ||
            !says_number(weights, "num_bits", groups[i].bits) ||
            !says(weights, "strategy", groups[i].strategy) ||
            (groups[i].group_size > 0 &&
             !says_number(weights, "group_size", groups[i].group_size)))
            continue;
        scheme->has_u8_scales |= groups[i].has_u8_scales;
        return BIT(groups[i].id);
    }
    return 0;
}

/* compressed-tensors: the scheme is decoded only if all of its groups are. */
static void read_groups(const json_value *quantization, config_scheme *scheme)
{
    const json_value *list = json_member(quantization, "config_groups");
    unsigned all = 0;

    for (const json_value *group = json_is_object(list) ? json_first(list) : NULL;
         group != NULL; group = json_next(group)) {
        const unsigned one = read_group(quantization, group, scheme);

        if (one == 0)
            return;
        all |= one;
    }
    scheme->is_decoded = all != 0;
    scheme->replaces_blocks = (all & BIT(ENCODING_NVFP4_DIVIDED)) != 0;
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

    scheme->is_decoded = 1;
    scheme->has_others = !has_known_experts(quantization) &&
                         (json_member(quantization, "quant_algo") != NULL ||
                          json_member(quantization, "moe_quant_algo") != NULL);
    if (json_is_array(block))
        read_block(block, scheme);
    else
        scheme->encodings =
            BIT(ENCODING_FP8_128) | BIT(ENCODING_FP8_1X32) | BIT(ENCODING_FP8_ROW);
    if (says(quantization, "moe_quant_algo", "NVFP4"))
        scheme->encodings |= BIT(ENCODING_NVFP4);
}

/* 0: it is not one of them. */
static int read_uniform(const char *method, const char *algorithm, config_scheme *scheme)
{
    for (size_t i = 0; i < sizeof uniform / sizeof *uniform; i++) {
        if (uniform[i].method != NULL ? !is_word(method, uniform[i].method)
                                      : !is_word(algorithm, uniform[i].algorithm))
            continue;
        scheme->is_decoded = scheme->replaces_blocks = 1;
        scheme->has_u8_scales |= uniform[i].has_u8_scales;
        scheme->encodings = uniform[i].encodings;
        return 1;
    }
    return 0;
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
    if (read_uniform(method, json_string(json_member(quantization, "quant_algo")), &scheme))
        return scheme;
    if (method == NULL || strcmp(method, "fp8") == 0)
        read_fp8(quantization, &scheme);
    else if (strcmp(method, "compressed-tensors") == 0)
        read_groups(quantization, &scheme);
    else if (json_is_array(block))
        read_block(block, &scheme);
    return scheme;
}

void config_find_method(const json_value *config, char out[CONFIG_METHOD_BYTES])
{
    static const char *const algorithms[] = { "quant_algo", "moe_quant_algo" };
    const json_value *quantization = config_member(config, "quantization_config");
    const char *method = json_string(json_member(quantization, "quant_method"));

    out[0] = '\0';
    if (quantization == NULL && json_is_object(config_member(config, "compression_config")))
        method = "compressed-tensors";
    for (size_t i = 0;
         i < sizeof algorithms / sizeof *algorithms && !has_known_experts(quantization); i++)
        if (json_string(json_member(quantization, algorithms[i])) != NULL)
            method = json_string(json_member(quantization, algorithms[i]));
    if (method != NULL && strcmp(method, "fp8") != 0 && strcmp(method, "deepseek_v4_fp8") != 0)
        snprintf(out, CONFIG_METHOD_BYTES, "%s", method);
}
