/*
 * config_nvfp4.c: describes NVFP4 weights as NVIDIA's Model-Optimizer does: members of
 * quantization_config, repeated in a file of their own. If other weights are FP8 (DeepSeek-V4 with
 * NVFP4 experts), the members are added to those of FP8.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_private.h"
#include "formats/config_scheme.h"
#include "libckpt/buffer.h"
#include "libckpt/encoding.h"
#include "libckpt/file.h"
#include "libckpt/plan.h"
#include "libckpt/table.h"

int config_makes(const config_change *change, encoding_id id)
{
    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);
        const int is_made = change->rules != NULL && change->rules[i] != NULL;

        if ((is_made || (change->is_from_blocks && t->stored_form == CKPT_FORM_APART)) &&
            encoding_is(t, id))
            return 1;
    }
    return 0;
}

static int has_nvfp4(const ckpt_catalog *targets)
{
    for (size_t i = 0; i < ckpt_catalog_count(targets); i++)
        if (encoding_is(ckpt_catalog_at(targets, i), ENCODING_NVFP4))
            return 1;
    return 0;
}

/* ---- {"layers.0.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16}} ---- */

static ckpt_code put_layer(json_writer *w, table *seen, const char *module, ckpt_error *err)
{
    const int added = table_add(seen, module, 0);

    if (added == TABLE_NO_MEMORY)
        return ckpt_fail_memory(err, "a list of modules", strlen(module));
    if (added != TABLE_ADDED)
        return CKPT_OK;
    json_member_object(w, module);
    json_member_string(w, "quant_algo", "NVFP4");
    json_member_u64(w, "group_size", encoding_at(ENCODING_NVFP4)->block_cols);
    json_put_object_end(w);
    return CKPT_OK;
}

/* Experts of a layer are one module. Free *out. */
static ckpt_code list_layers(const config_change *change, char **out, ckpt_error *err)
{
    byte_buffer text = { .bytes = NULL };
    file_list names = { NULL, 0 };
    ckpt_code code = CKPT_OK;
    json_writer w;
    table seen;

    table_init(&seen);
    json_writer_begin(&w, byte_buffer_write, &text, 0);
    json_put_object(&w);
    for (size_t i = 0; i < ckpt_catalog_count(change->targets) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);
        char module[MAP_NAME_BYTES];

        if (!encoding_is(t, ENCODING_NVFP4) || !config_module_of(t->name, module))
            continue;
        if ((code = file_list_add(&names, module, err)) == CKPT_OK)
            code = put_layer(&w, &seen, names.names[names.count - 1], err);
    }
    json_put_object_end(&w);
    if (code == CKPT_OK && (!json_writer_end(&w) || byte_buffer_write(&text, "", 1) != 0))
        code = ckpt_fail_memory(err, "a list of modules", names.count);
    table_release(&seen);
    file_list_free(&names);
    if (code != CKPT_OK)
        free(text.bytes);
    else
        *out = text.bytes;
    return code;
}

/* ---- quantization_config ---- */

static const char *const keys[] = { "moe_quant_algo", "quant_algo", "group_size",
                                    "kv_cache_quant_algo", "quantized_layers", "ignore",
                                    "config_groups" };

/* Called when no weight is NVFP4 any more. */
static ckpt_code remove_words(char **quantization, ckpt_error *err)
{
    char *now = NULL;
    ckpt_code code = json_member_text(*quantization, keys[0], &now, err);

    for (size_t i = 0; i < sizeof keys / sizeof *keys && now != NULL && code == CKPT_OK; i++)
        code = config_update(quantization, keys[i], NULL, err);
    free(now);
    return code;
}

/* Servers of a family with expert_dtype support NVFP4 only for experts. */
static ckpt_code check_experts(const config_change *change, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(change->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);

        if (encoding_is(t, ENCODING_NVFP4) && !plan_is_expert(t->name))
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' would be NVFP4, which servers read of "
                             "experts alone: name them (--quantize experts=nvfp4,rest=fp8-ue8m0)",
                             t->name);
    }
    return CKPT_OK;
}

ckpt_code config_tell_nvfp4(const config_change *change, char **quantization, ckpt_error *err)
{
    char group[16];
    char *layers = NULL;
    ckpt_code code;

    if (!has_nvfp4(change->targets))
        return remove_words(quantization, err);
    if (!config_makes(change, ENCODING_NVFP4))
        return CKPT_OK;
    if (change->has_expert_dtype && (code = check_experts(change, err)) != CKPT_OK)
        return code;
    snprintf(group, sizeof group, "%u", encoding_at(ENCODING_NVFP4)->block_cols);
    if ((code = config_update(quantization, "group_size", group, err)) == CKPT_OK &&
        (code = config_update(quantization, "kv_cache_quant_algo", "null", err)) == CKPT_OK &&
        (code = config_list_others(change, ENCODING_NVFP4, quantization, err)) == CKPT_OK &&
        change->has_expert_dtype && (code = list_layers(change, &layers, err)) == CKPT_OK &&
        (code = config_update(quantization, "moe_quant_algo", "\"NVFP4\"", err)) == CKPT_OK &&
        (code = config_update(quantization, "quant_algo", "\"MIXED_PRECISION\"", err)) == CKPT_OK)
        code = config_update(quantization, "quantized_layers", layers, err);
    free(layers);
    return code;
}

/* ---- the file ---- */

ckpt_code config_modelopt_text(const char *config, const config_change *change, char **out,
                               ckpt_error *err)
{
    static const char *const members[][2] = {
        { "quant_algo", "quant_algo" }, { "kv_cache_quant_algo", "kv_cache_quant_algo" },
        { "group_size", "group_size" }, { "quantized_layers", "quantized_layers" },
        { "ignore", "exclude_modules" },
    };
    const char *part;
    char *from = NULL;
    char *text = NULL;
    char *whole = NULL;
    ckpt_code code = CKPT_OK;

    if (!config_makes(change, ENCODING_NVFP4))
        return CKPT_OK;
    if ((code = config_find_scheme(config, &part, &from, err)) == CKPT_OK && from == NULL)
        code = ckpt_fail(err, CKPT_E_FORMAT, "config.json has no quantization_config");
    if (code != CKPT_OK) {
        free(from);
        return code;
    }
    if ((text = strdup("{}")) == NULL)
        code = ckpt_fail_memory(err, CONFIG_MODELOPT_FILE, strlen(config));
    for (size_t i = 0; i < sizeof members / sizeof *members && code == CKPT_OK; i++) {
        char *value = NULL;

        code = json_member_text(from, members[i][0], &value, err);
        if (code == CKPT_OK && value != NULL)
            code = config_update(&text, members[i][1], value, err);
        free(value);
    }
    if (code == CKPT_OK && asprintf(&whole, "{\"producer\": {\"name\": \"ckpt\", \"version\": "
                                    "\"%s\"}, \"quantization\": %s}\n", CKPT_VERSION, text) < 0)
        code = ckpt_fail_memory(err, CONFIG_MODELOPT_FILE, strlen(config));
    free(from);
    free(text);
    if (code == CKPT_OK)
        *out = whole;
    return code;
}
