/* Derives the members that transformers 5 spells otherwise. */
#include "config_forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/config_names.h"
#include "libckpt/json.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

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
                         "the config has neither 'compress_ratios' nor 'layer_types'");
    if (json_u64(json_member(f->config, "num_hidden_layers"), &layers) &&
        json_count(types) != layers)
        return ckpt_fail(f->err, CKPT_E_FORMAT,
                         "config member 'layer_types' has %s for %s",
                         text_count(json_count(types), "element", "elements").text,
                         text_count(layers, "layer", "layers").text);
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

static ckpt_code put_hash_layers(forms *f)
{
    const json_value *wrong;
    uint64_t count;

    if (!config_hash_layers(f->config, &count, &wrong))
        return CKPT_OK;
    if (wrong != NULL)
        return ckpt_fail(f->err, CKPT_E_FORMAT,
                         "config member 'mlp_layer_types' has '%s': expected \"hash_moe\" for "
                         "the first layers, then \"moe\"",
                         json_string(wrong) == NULL ? "a non-string" : json_string(wrong));
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
