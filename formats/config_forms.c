/* Normalises the spellings of config.json. */
#include "config_forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/config_names.h"
#include "libckpt/config_number.h"
#include "libckpt/json.h"
#include "libckpt/size.h"

static int says(const json_value *quantised, const char *key, const char *word)
{
    const char *text = json_string(json_member(quantised, key));

    return text != NULL && strcmp(text, word) == 0;
}

/* NVFP4 experts beside FP8, as Model-Optimizer writes them for servers of DeepSeek-V4. */
static int has_known_experts(const json_value *quantised)
{
    return says(quantised, "moe_quant_algo", "NVFP4") &&
           (json_member(quantised, "quant_algo") == NULL ||
            says(quantised, "quant_algo", "MIXED_PRECISION"));
}

void config_find_method(const json_value *config, char out[CONFIG_METHOD_BYTES])
{
    static const char *const algorithms[] = { "quant_algo", "moe_quant_algo" };
    const json_value *quantised = config_member(config, "quantization_config");
    const char *method = json_string(json_member(quantised, "quant_method"));

    out[0] = '\0';
    if (quantised == NULL && json_is_object(config_member(config, "compression_config")))
        method = "compressed-tensors";
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms && !has_known_experts(quantised);
         i++)
        if (json_string(json_member(quantised, algorithms[i])) != NULL)
            method = json_string(json_member(quantised, algorithms[i]));
    if (method != NULL && strcmp(method, "fp8") != 0 && strcmp(method, "deepseek_v4_fp8") != 0)
        snprintf(out, CONFIG_METHOD_BYTES, "%s", method);
}

/* ---- what transformers 5 writes for DeepSeek-V4 ---- */

enum { LAYERS_MAX = 1 << 16 };

typedef struct {
    const json_value *config;
    uint64_t drafter_count;        /* blocks mtp.{m} that the files have */
    json_writer writer;
    FILE *stream;
    ckpt_error *err;
} forms;

/* Blocks of the drafter: DSpark's config counts them as one, and the ratios that gave their number
 * are missing. */
static uint64_t count_drafters(const forms *f)
{
    uint64_t count = 1;

    if (json_count(json_member(f->config, "dspark_target_layer_ids")) > 0)
        return f->drafter_count;
    json_u64(json_member(f->config, "num_nextn_predict_layers"), &count);
    return size_min(count, LAYERS_MAX);
}

static ckpt_code put_ratios(forms *f)
{
    const json_value *types = json_member(f->config, "layer_types");
    uint64_t layers;
    uint64_t ratio;
    ckpt_code code;

    if (!json_is_array(types))
        return ckpt_fail(f->err, CKPT_E_FORMAT,
                         "config.json has neither 'compress_ratios' nor 'layer_types'");
    if (json_u64(json_member(f->config, "num_hidden_layers"), &layers) &&
        json_count(types) != layers)
        return ckpt_fail(f->err, CKPT_E_FORMAT,
                         "config member 'layer_types' has %zu elements for %llu layers",
                         json_count(types), (unsigned long long)layers);
    json_member_array(&f->writer, "compress_ratios");
    for (const json_value *v = json_first(types); v != NULL; v = json_next(v)) {
        if ((code = config_layer_ratio(f->config, v, &ratio, f->err)) != CKPT_OK)
            return code;
        json_put_u64(&f->writer, ratio);
    }
    for (uint64_t m = count_drafters(f); m > 0; m--)
        json_put_u64(&f->writer, 0);
    json_put_array_end(&f->writer);
    return CKPT_OK;
}

/* If a file has both spellings, they must agree. */
static ckpt_code check_ratios(const forms *f, const json_value *ratios)
{
    const json_value *types = json_member(f->config, "layer_types");
    const json_value *r = json_first(ratios);
    ckpt_code code;

    for (const json_value *v = json_first(types); v != NULL; v = json_next(v)) {
        uint64_t ratio;
        uint64_t other = 0;

        if ((code = config_layer_ratio(f->config, v, &ratio, f->err)) != CKPT_OK)
            return code;
        if (r == NULL || !json_u64(r, &other) || other != ratio)
            return ckpt_fail(f->err, CKPT_E_FORMAT,
                             "config members 'compress_ratios' and 'layer_types' disagree");
        r = json_next(r);
    }
    return CKPT_OK;
}

/* Number of leading layers that route by token id. */
static ckpt_code put_hash_layers(forms *f)
{
    const json_value *kinds = json_member(f->config, "mlp_layer_types");
    uint64_t count = 0;
    int others = 0;

    if (!json_is_array(kinds))
        return CKPT_OK;
    for (const json_value *v = json_first(kinds); v != NULL; v = json_next(v)) {
        const char *kind = json_string(v);
        const int is_hash = kind != NULL && strcmp(kind, "hash_moe") == 0;

        if ((!is_hash && (kind == NULL || strcmp(kind, "moe") != 0)) || (is_hash && others))
            return ckpt_fail(f->err, CKPT_E_FORMAT,
                             "config member 'mlp_layer_types' has '%s': expected \"hash_moe\" for "
                             "the first layers, then \"moe\"",
                             kind == NULL ? "a non-string" : kind);
        others |= !is_hash;
        count += (uint64_t)is_hash;
    }
    json_member_u64(&f->writer, "num_hash_layers", count);
    return CKPT_OK;
}

static ckpt_code put_config(forms *f)
{
    const json_value *ratios = json_member(f->config, "compress_ratios");
    ckpt_code code;

    if (ratios != NULL && (code = check_ratios(f, ratios)) != CKPT_OK)
        return code;
    if (ratios == NULL && (code = put_ratios(f)) != CKPT_OK)
        return code;
    return json_member(f->config, "num_hash_layers") == NULL ? put_hash_layers(f) : CKPT_OK;
}

ckpt_code config_complete(const char *text, const json_value *config, uint64_t drafter_count,
                          json_document **out, ckpt_error *err)
{
    forms f = { .config = config, .drafter_count = drafter_count, .err = err };
    const char *rest = strchr(text, '{');
    char *added = NULL;
    size_t size = 0;
    ckpt_code code;

    *out = NULL;
    if (rest == NULL || (f.stream = open_memstream(&added, &size)) == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    json_writer_begin(&f.writer, json_write_stdio, f.stream, 0);
    json_put_object(&f.writer);
    code = put_config(&f);
    if (code == CKPT_OK) {
        json_put_object_end(&f.writer);
        if (!json_writer_end(&f.writer) || fflush(f.stream) != 0)
            code = ckpt_fail_memory(err, "config.json", strlen(text));
    }
    if (code == CKPT_OK && size > 2) {             /* "{...}": its members go before the others */
        fseeko(f.stream, -1, SEEK_CUR);
        fprintf(f.stream, "%s%s", json_count(config) == 0 ? "" : ",", rest + 1);
        code = fflush(f.stream) != 0 ? ckpt_fail_memory(err, "config.json", strlen(text))
                                     : json_parse(added, size, "config.json", out, err);
    }
    fclose(f.stream);
    free(added);
    return code;
}
