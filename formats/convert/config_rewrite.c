/* Edits config.json. */
#include "config_rewrite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_private.h"
#include "formats/config_scheme.h"
#include "libckpt/config_number.h"
#include "libckpt/buffer.h"
#include "libckpt/encoding.h"
#include "libckpt/plan.h"

typedef struct {
    int is_quantised;
    int has_f32_scales;            /* of weights other than experts */
    const char *expert_dtype;      /* JSON text, or NULL: no quantised experts */
} told_encoding;

static told_encoding find_encoding(const ckpt_catalog *targets)
{
    told_encoding found = { 0, 0, NULL };

    for (size_t i = 0; i < ckpt_catalog_count(targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(targets, i);

        if (t->scale_dtype == CKPT_NONE)
            continue;
        found.is_quantised = 1;
        if (plan_is_expert(t->name))
            found.expert_dtype = t->dtype == CKPT_F4 ? "\"fp4\"" : "\"fp8\"";
        else
            found.has_f32_scales |= t->scale_dtype == CKPT_F32;
    }
    return found;
}

/* ---- config.json ---- */

static int is_copy(const config_change *change)
{
    if (change->from == NULL || config_makes(change, ENCODING_NVFP4))
        return 0;
    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++)
        if (!catalog_same_encoding(ckpt_catalog_at(change->from, i),
                                   ckpt_catalog_at(change->targets, i)))
            return 0;
    return 1;
}

/* Of FP4 the config says only that the routed experts have it, and only of families that have so. A
 * server of any other would take the codes for FP8. */
static ckpt_code check_fp4(const config_change *change, ckpt_error *err)
{
    for (size_t i = 0; change->rules != NULL && i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);
        const ckpt_tensor *official = plan_find_official(change->official, t);
        const int is_told = official == NULL || official->dtype == CKPT_F4 ||
                            (change->has_expert_dtype && plan_is_expert(t->name));

        if (change->rules[i] == NULL || !encoding_is(t, ENCODING_FP4_32) || is_told)
            continue;
        if (change->has_expert_dtype)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' would be FP4, which servers read of "
                             "experts alone: name them (--quantize experts=%s,rest=fp8-ue8m0)",
                             t->name, change->rules[i]->name);
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' would be FP4, which no config.json of "
                         "its family tells servers: use fp8-ue8m0, fp8-f32 or nvfp4", t->name);
    }
    return CKPT_OK;
}

/* FP4 and FP8 experts in one checkpoint: expert_dtype has one value. */
static ckpt_code check_experts(const config_change *change, ckpt_error *err)
{
    const ckpt_tensor *first = NULL;

    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);

        if (t->scale_dtype == CKPT_NONE || !plan_is_expert(t->name))
            continue;
        if (first != NULL && first->dtype != t->dtype)
            return ckpt_fail(err, CKPT_E_USAGE,
                             "experts would be %s ('%s') and %s ('%s'), but expert_dtype of "
                             "config.json has one value: use --experts fp4 or fp8",
                             ckpt_dtype_name(first->dtype), first->name,
                             ckpt_dtype_name(t->dtype), t->name);
        first = first == NULL ? t : first;
    }
    return CKPT_OK;
}

/* The encoding of all weights if the scheme allows only one; else ENCODING_COUNT. */
static encoding_id find_form(const config_change *change)
{
    if (config_makes(change, ENCODING_FP8_1X32))
        return ENCODING_FP8_1X32;
    if (config_makes(change, ENCODING_FP8_ROW))
        return ENCODING_FP8_ROW;
    return config_makes(change, ENCODING_NVFP4) && !change->has_expert_dtype ? ENCODING_NVFP4
                                                                             : ENCODING_COUNT;
}

/* The quantization_config for a checkpoint without one; NULL: out of memory. */
static char *new_quantization(encoding_id form)
{
    const ckpt_encoding *fp8 = encoding_at(form == ENCODING_FP8_1X32 ? form : ENCODING_FP8_128);
    char *text = NULL;

    if (form == ENCODING_NVFP4)
        return strdup("{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}");
    if (form == ENCODING_FP8_ROW)
        return strdup("{\"quant_method\": \"compressed-tensors\", \"format\": "
                      "\"float-quantized\", \"quantization_status\": \"compressed\", "
                      "\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], "
                      "\"weights\": {\"type\": \"float\", \"num_bits\": 8, \"strategy\": "
                      "\"channel\", \"symmetric\": true, \"dynamic\": false}, "
                      "\"input_activations\": {\"type\": \"float\", \"num_bits\": 8, "
                      "\"strategy\": \"token\", \"symmetric\": true, \"dynamic\": true}}}}");
    if (asprintf(&text,
                 "{\"activation_scheme\": \"dynamic\", \"fmt\": \"e4m3\", "
                 "\"quant_method\": \"%s\", \"scale_fmt\": \"ue8m0\", "
                 "\"weight_block_size\": [%u, %u]}", form == ENCODING_FP8_1X32 ? "mxfp8" : "fp8",
                 fp8->block_rows, fp8->block_cols) < 0)
        return NULL;
    return text;
}

/* Some schemes allow a single encoding for all weights. */
static ckpt_code check_form(const config_change *change, encoding_id form, ckpt_error *err)
{
    char text[64];

    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);

        if (t->scale_dtype == CKPT_NONE || encoding_is(t, form))
            continue;
        ckpt_tensor_encoding(t, text, sizeof text);
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' would be %s, not what others are, but "
                         "quantization_config has one form for all", t->name, text);
    }
    return CKPT_OK;
}

/* Weights that become FP8 have blocks of 128 x 128; the config has one weight_block_size. */
static ckpt_code check_block(const config_change *change, const json_value *config,
                             ckpt_error *err)
{
    const config_scheme scheme = config_read_scheme(config, NULL);

    if (scheme.encodings == 0 || (scheme.encodings >> ENCODING_FP8_128 & 1) != 0)
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);

        if (encoding_is(t, ENCODING_FP8_128))
            return ckpt_fail(err, CKPT_E_USAGE,
                             "tensor '%s' would have blocks of 128 x 128, but quantization_config "
                             "of config.json has another weight_block_size", t->name);
    }
    return CKPT_OK;
}

/* List the unquantised modules under the key that the scheme uses. */
static ckpt_code list_modules(const config_change *change, encoding_id form, char **quantization,
                              ckpt_error *err)
{
    if (form == ENCODING_FP8_ROW)
        return config_list_others(change, form, quantization, err);
    return form == ENCODING_NVFP4 ? CKPT_OK : config_list_modules(change, quantization, err);
}

/* The names of all rules that were used, as JSON text; NULL in *out: none was. Free *out, also
 * after a failure. */
static ckpt_code name_rules(const config_change *change, char **out, ckpt_error *err)
{
    const quantise_rule *seen[16];
    byte_buffer text = { .bytes = NULL };
    const size_t targets = change->rules == NULL ? 0 : ckpt_catalog_count(change->targets);
    size_t count = 0;
    int failed = 0;

    for (size_t i = 0; i < targets && !failed; i++) {
        const quantise_rule *rule = change->rules[i];
        size_t r = 0;

        while (r < count && seen[r] != rule)
            r++;
        if (rule == NULL || r < count || count == sizeof seen / sizeof *seen)
            continue;
        seen[count++] = rule;
        failed = byte_buffer_write(&text, count == 1 ? "\"" : ",", 1) != 0 ||
                 byte_buffer_write(&text, rule->name, strlen(rule->name)) != 0;
    }
    failed = failed || (count > 0 && byte_buffer_write(&text, "\"", 2) != 0);
    *out = text.bytes;
    return failed ? ckpt_fail_memory(err, "config.json", text.used) : CKPT_OK;
}

/* 1 when FP8 scales are not powers of two: readers of scale_fmt "ue8m0" would quantise activations
 * by another rule than the weights. */
static int has_odd_scales(const config_change *change)
{
    for (size_t i = 0; change->rules != NULL && i < ckpt_catalog_count(change->targets); i++)
        if (change->rules[i] != NULL && change->rules[i]->codes == CKPT_F8_E4M3 &&
            !change->rules[i]->powers_of_two)
            return 1;
    return 0;
}

static ckpt_code tell_rules(const config_change *change, char **quantization, ckpt_error *err)
{
    char *names = NULL;
    ckpt_code code = name_rules(change, &names, err);

    if (code == CKPT_OK && names != NULL)
        code = config_update(quantization, "ckpt_rule", names, err);
    if (code == CKPT_OK && has_odd_scales(change))
        code = config_update(quantization, "scale_fmt", NULL, err);
    free(names);
    return code;
}

static ckpt_code rewrite_quantization(const config_change *change, char **text, ckpt_error *err)
{
    static const char key[] = "quantization_config";
    json_document *document = NULL;
    const encoding_id form = find_form(change);
    char *now = NULL;
    ckpt_code code;

    if ((code = json_parse(*text, strlen(*text), "config.json", &document, err)) != CKPT_OK)
        return code;
    if (form == ENCODING_COUNT && json_is_object(json_member(json_root(document), key)))
        code = json_member_text(*text, key, &now, err);
    else if ((now = new_quantization(form)) == NULL)
        code = ckpt_fail_memory(err, "config.json", strlen(*text));
    if (code == CKPT_OK &&
        (code = form == ENCODING_COUNT ? check_block(change, json_root(document), err)
                                       : check_form(change, form, err)) == CKPT_OK &&
        (code = list_modules(change, form, &now, err)) == CKPT_OK &&
        (code = config_tell_nvfp4(change, &now, err)) == CKPT_OK &&
        (code = tell_rules(change, &now, err)) == CKPT_OK)
        code = config_update(text, key, now, err);
    json_free(document);
    free(now);
    return code;
}

/* As rewrite_quantization; but edits the scheme where multimodal models have it, if it is only
 * there: two would contradict each other. */
static ckpt_code rewrite_in_place(const config_change *change, char **text, ckpt_error *err)
{
    const char *part;
    char *scheme = NULL;
    char *own = NULL;
    ckpt_code code = config_find_scheme(*text, &part, &scheme, err);

    free(scheme);
    if (code != CKPT_OK || part == NULL)
        return code == CKPT_OK ? rewrite_quantization(change, text, err) : code;
    if ((code = json_member_text(*text, part, &own, err)) == CKPT_OK &&
        (code = rewrite_quantization(change, &own, err)) == CKPT_OK)
        code = config_update(text, part, own, err);
    free(own);
    return code;
}

/* vLLM assumes FP4 experts and E8M0 scales if expert_dtype is missing. */
static const char *expert_dtype(const told_encoding *wanted)
{
    if (wanted->expert_dtype == NULL && wanted->has_f32_scales)
        return "\"fp8\"";
    return wanted->expert_dtype;
}

/* Remove the scheme, also where multimodal models have it. */
static ckpt_code drop_quantization(char **text, ckpt_error *err)
{
    static const char key[] = "quantization_config";
    ckpt_code code = config_update(text, key, NULL, err);

    for (size_t i = 0; i < CONFIG_LANGUAGE_PARTS && code == CKPT_OK; i++) {
        char *part = NULL;

        code = json_member_text(*text, config_language_parts[i], &part, err);
        if (code == CKPT_OK && config_is_object(part) &&
            (code = config_update(&part, key, NULL, err)) == CKPT_OK)
            code = config_update(text, config_language_parts[i], part, err);
        free(part);
    }
    return code;
}

ckpt_code config_rewrite(const char *text, const config_change *change, char **out,
                         ckpt_error *err)
{
    const told_encoding wanted = find_encoding(change->targets);
    char *edited = strdup(text);
    ckpt_code code = CKPT_OK;

    if (edited == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    if (is_copy(change)) {
        *out = edited;
        return CKPT_OK;
    }
    if (!wanted.is_quantised)
        code = drop_quantization(&edited, err);
    else if ((code = check_experts(change, err)) == CKPT_OK &&
             (code = check_fp4(change, err)) == CKPT_OK)
        code = rewrite_in_place(change, &edited, err);
    if (code == CKPT_OK && (change->has_expert_dtype || wanted.expert_dtype == NULL))
        code = config_update(&edited, "expert_dtype",
                             change->has_expert_dtype ? expert_dtype(&wanted) : NULL, err);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}

/* A parsed copy of the text without the members that describe the encoding. */
static ckpt_code parse_bare(const char *text, json_document **out, ckpt_error *err)
{
    char *bare = strdup(text);
    ckpt_code code;

    if (bare == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    if ((code = drop_quantization(&bare, err)) == CKPT_OK &&
        (code = config_update(&bare, "expert_dtype", NULL, err)) == CKPT_OK)
        code = json_parse(bare, strlen(bare), "config.json", out, err);
    free(bare);
    return code;
}

static ckpt_code take_member(char **text, const char *from, const char *key, ckpt_error *err)
{
    char *value = NULL;
    ckpt_code code = json_member_text(from, key, &value, err);

    if (code == CKPT_OK)
        code = config_update(text, key, value, err);
    free(value);
    return code;
}

static ckpt_code has_scheme(const char *text, int *out, ckpt_error *err)
{
    char *found = NULL;
    const ckpt_code code = json_member_text(text, "quantization_config", &found, err);

    *out = code == CKPT_OK && config_is_object(found);
    free(found);
    return code;
}

/* Give one language part the scheme that this part of `like` has, or none. */
static ckpt_code take_part_scheme(char **text, const char *like, const char *part, ckpt_error *err)
{
    static const char key[] = "quantization_config";
    char *own = NULL;
    char *from = NULL;
    int is_at_root;
    ckpt_code code = has_scheme(like, &is_at_root, err);

    if (code == CKPT_OK && (code = json_member_text(*text, part, &own, err)) == CKPT_OK)
        code = json_member_text(like, part, &from, err);
    if (code == CKPT_OK && config_is_object(own)) {
        code = is_at_root || !config_is_object(from) ? config_update(&own, key, NULL, err)
                                                     : take_member(&own, from, key, err);
        if (code == CKPT_OK)
            code = config_update(text, part, own, err);
    } else if (code == CKPT_OK && config_is_object(from) && !is_at_root) {
        int is_there;

        if ((code = has_scheme(from, &is_there, err)) == CKPT_OK && is_there)
            code = take_member(text, from, key, err);
    }
    free(own);
    free(from);
    return code;
}

/* The scheme of `like`, in the place where it has it. */
static ckpt_code take_scheme(char **text, const char *like, ckpt_error *err)
{
    ckpt_code code = take_member(text, like, "quantization_config", err);

    for (size_t i = 0; i < CONFIG_LANGUAGE_PARTS && code == CKPT_OK; i++)
        code = take_part_scheme(text, like, config_language_parts[i], err);
    return code;
}

ckpt_code config_rewrite_like(const char *text, const char *like, char **out, ckpt_error *err)
{
    json_document *bare_source = NULL;
    json_document *bare_like = NULL;
    char *edited = NULL;
    ckpt_code code;

    if ((code = parse_bare(text, &bare_source, err)) != CKPT_OK ||
        (code = parse_bare(like, &bare_like, err)) != CKPT_OK)
        goto out;
    if (json_equal(json_root(bare_source), json_root(bare_like))) {
        edited = strdup(like);
    } else if ((edited = strdup(text)) != NULL) {
        if ((code = take_scheme(&edited, like, err)) != CKPT_OK ||
            (code = take_member(&edited, like, "expert_dtype", err)) != CKPT_OK)
            goto out;
    }
    if (edited == NULL)
        code = ckpt_fail_memory(err, "config.json", strlen(text));
out:
    json_free(bare_source);
    json_free(bare_like);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}

ckpt_code config_rewrite_inference(const char *text, const ckpt_catalog *targets, char **out,
                                   ckpt_error *err)
{
    const told_encoding wanted = find_encoding(targets);
    const int has_fp4 = wanted.expert_dtype != NULL && strcmp(wanted.expert_dtype, "\"fp4\"") == 0;
    json_document *document = NULL;
    char *edited = strdup(text);
    ckpt_code code;

    if (edited == NULL)
        return ckpt_fail_memory(err, "inference/config.json", strlen(text));
    code = json_parse(text, strlen(text), "inference/config.json", &document, err);
    json_free(document);
    /* Some releases of the reference code assume "fp4" if expert_dtype is missing: write null. */
    if (code == CKPT_OK &&
        (code = config_update(&edited, "dtype", wanted.is_quantised ? "\"fp8\"" : "\"bf16\"",
                              err)) == CKPT_OK &&
        (code = config_update(&edited, "scale_fmt", wanted.is_quantised ? "\"ue8m0\"" : "null",
                              err)) == CKPT_OK)
        code = config_update(&edited, "expert_dtype", has_fp4 ? "\"fp4\"" : "null", err);
    if (code != CKPT_OK)
        free(edited);
    else
        *out = edited;
    return code;
}

/*
 * The reference code has one dtype for all weights, FP8 or BF16, and experts are FP4 if
 * expert_dtype says so, else of that dtype.
 */
ckpt_code config_check_inference(const config_change *change, const ckpt_map *plain,
                                 ckpt_error *err)
{
    const ckpt_tensor *first = NULL;
    ckpt_code code;

    if (change->is_inference && is_copy(change))
        return CKPT_OK;
    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);

        if (!config_is_weight(change, i) || t->dtype == CKPT_F4 ||
            map_find_encode(plain, t->name) != CKPT_NONE)
            continue;
        if (first != NULL && (first->scale_dtype == CKPT_NONE) != (t->scale_dtype == CKPT_NONE))
            return ckpt_fail(err, CKPT_E_USAGE,
                             "'%s' would be %s and '%s' %s, but inference/config.json of the "
                             "reference code has one dtype: use the same for --dtype and "
                             "--experts", first->name, ckpt_dtype_name(first->dtype), t->name,
                             ckpt_dtype_name(t->dtype));
        first = first == NULL ? t : first;
    }
    code = check_experts(change, err);
    return code == CKPT_OK ? check_fp4(change, err) : code;
}
