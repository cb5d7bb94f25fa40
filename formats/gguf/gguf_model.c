/* Makes keys of a config.json. */
#include "gguf_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/config_number.h"
#include "libckpt/digest.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

enum { QUANTISATION_VERSION = 2, BLOCKS_MAX = 4096 };
/* llama.cpp's numbers for what most tensors of a file are. */
enum { FILE_TYPE_Q8_0 = 7, FILE_TYPE_BF16 = 32, FILE_TYPE_MXFP4_MOE = 38, FILE_TYPE_NVFP4 = 39 };

typedef struct {
    gguf_put *p;
    const format_target *target;
    uint64_t layers;
    uint64_t drafters;             /* MTP blocks of the target */
    ckpt_error *err;
} model_writer;

static ckpt_code fail_member(const model_writer *m, const gguf_line *line, const char *what)
{
    return ckpt_fail(m->err, CKPT_E_USAGE, "%s: '%s' %s, which the key '%s' of GGUF needs",
                     m->target->config_name, line->member, what, line->key);
}

static const json_value *find(const model_writer *m, const gguf_line *line)
{
    return config_member(m->target->config, line->member);
}

static ckpt_code put_u32(model_writer *m, const gguf_line *line)
{
    uint64_t number;

    if (!config_number(find(m, line), &number) || number > UINT32_MAX)
        return fail_member(m, line, "is not a number below 2^32");
    gguf_put_u32(m->p, line->key, (uint32_t)number);
    return CKPT_OK;
}

static ckpt_code take_f32(const model_writer *m, const gguf_line *line, float *out)
{
    double number;

    if (!json_number(find(m, line), &number) || !isfinite((float)number))
        return fail_member(m, line, "is not a number");
    *out = (float)number;
    return CKPT_OK;
}

static ckpt_code put_f32(model_writer *m, const gguf_line *line)
{
    float number;
    const ckpt_code code = take_f32(m, line, &number);

    if (code == CKPT_OK)
        gguf_put_f32(m->p, line->key, number);
    return code;
}

/* One number per block: those of the member, then 0 for further blocks. */
static ckpt_code put_ratios(model_writer *m, const gguf_line *line)
{
    const json_value *list = find(m, line);
    const json_value *v = json_is_array(list) ? json_first(list) : NULL;
    byte_buffer elements = { .bytes = NULL };
    ckpt_code code = CKPT_OK;

    if (json_count(list) < m->layers)
        return fail_member(m, line, "does not have a number for each layer");
    for (uint64_t i = 0; i < m->layers + m->drafters && code == CKPT_OK; i++) {
        uint64_t number = 0;

        if (v != NULL && (!json_u64(v, &number) || number > INT32_MAX))
            code = fail_member(m, line, "has an element that is not a number");
        gguf_put_number(&elements, number, sizeof(int32_t));
        v = v == NULL ? NULL : json_next(v);
    }
    if (code == CKPT_OK)
        gguf_put_array(m->p, line->key, GGUF_I32, m->layers + m->drafters, &elements);
    free(elements.bytes);
    return code;
}

static ckpt_code put_blocks(model_writer *m, const gguf_line *line)
{
    byte_buffer elements = { .bytes = NULL };
    float number;
    const ckpt_code code = take_f32(m, line, &number);

    for (uint64_t i = 0; code == CKPT_OK && i < m->layers + m->drafters; i++)
        byte_buffer_add(&elements, &number, sizeof number);
    if (code == CKPT_OK)
        gguf_put_array(m->p, line->key, GGUF_F32, m->layers + m->drafters, &elements);
    free(elements.bytes);
    return code;
}

static ckpt_code put_word(model_writer *m, const gguf_line *line)
{
    const char *text = json_string(find(m, line));
    uint32_t number;

    if (text == NULL || !gguf_line_number(line, text, &number))
        return fail_member(m, line, "has a value that GGUF has no number for");
    gguf_put_u32(m->p, line->key, number);
    return CKPT_OK;
}

static ckpt_code put_text(model_writer *m, const gguf_line *line)
{
    const char *text = json_string(find(m, line));

    if (text == NULL)
        return fail_member(m, line, "is not a string");
    gguf_put_string(m->p, line->key, text);
    return CKPT_OK;
}

static ckpt_code put_bool(model_writer *m, const gguf_line *line)
{
    int flag;

    if (!json_bool(find(m, line), &flag))
        return fail_member(m, line, "is not true or false");
    gguf_put_bool(m->p, line->key, flag);
    return CKPT_OK;
}

static ckpt_code put_line(model_writer *m, const gguf_line *line)
{
    switch (line->kind) {
    case GGUF_LINE_TEXT:
        gguf_put_string(m->p, line->key, line->member);
        return CKPT_OK;
    case GGUF_LINE_U32:
        return put_u32(m, line);
    case GGUF_LINE_F32:
        return put_f32(m, line);
    case GGUF_LINE_BOOL:
        return put_bool(m, line);
    case GGUF_LINE_STRING:
        return put_text(m, line);
    case GGUF_LINE_LAYERS:
        gguf_put_u32(m->p, line->key, (uint32_t)(m->layers + m->drafters));
        return CKPT_OK;
    case GGUF_LINE_DRAFTERS:
        gguf_put_u32(m->p, line->key, (uint32_t)m->drafters);
        return CKPT_OK;
    case GGUF_LINE_RATIOS:
        return put_ratios(m, line);
    case GGUF_LINE_BLOCKS:
        return put_blocks(m, line);
    case GGUF_LINE_WORD:
        return put_word(m, line);
    default:
        return CKPT_OK;            /* only for reading */
    }
}

/* Count the layers and the MTP blocks. */
static ckpt_code count_blocks(model_writer *m, const gguf_keys *keys)
{
    const ckpt_catalog *targets = m->target->targets;
    const gguf_line *layers = gguf_keys_find(keys, GGUF_LINE_LAYERS);

    if (layers == NULL || !config_number(find(m, layers), &m->layers) || m->layers > BLOCKS_MAX)
        return layers == NULL ? CKPT_OK : fail_member(m, layers, "is not a number of layers");
    for (size_t i = 0; i < ckpt_catalog_count(targets); i++) {
        uint64_t block;

        if (digest_mtp_block(ckpt_catalog_at(targets, i)->name, &block) && block < BLOCKS_MAX)
            m->drafters = size_max(m->drafters, block + 1);
    }
    return CKPT_OK;
}

static int has_form(const ckpt_catalog *targets, ckpt_stored_form form)
{
    for (size_t i = 0; i < ckpt_catalog_count(targets); i++)
        if (ckpt_catalog_at(targets, i)->stored_form == form)
            return 1;
    return 0;
}

static uint32_t file_type(const ckpt_catalog *targets)
{
    if (has_form(targets, CKPT_FORM_MXFP4))
        return FILE_TYPE_MXFP4_MOE;
    if (has_form(targets, CKPT_FORM_NVFP4))
        return FILE_TYPE_NVFP4;
    return has_form(targets, CKPT_FORM_Q8_0) ? FILE_TYPE_Q8_0 : FILE_TYPE_BF16;
}

/* Write the model's origin, if the config has a name of the form OWNER/NAME. */
static void put_origin(model_writer *m)
{
    const char *name = json_string(json_member(m->target->config, "_name_or_path"));
    const char *slash = name == NULL ? NULL : strchr(name, '/');

    if (slash == NULL || strchr(slash + 1, '/') != NULL || !text_is_below(name))
        return;
    gguf_put_string(m->p, "general.source.huggingface.repository", name);
}

ckpt_code gguf_model_put(gguf_put *p, const gguf_keys *keys, const format_target *target,
                         ckpt_error *err)
{
    model_writer m = { .p = p, .target = target, .err = err };
    ckpt_code code = count_blocks(&m, keys);

    if (code != CKPT_OK)
        return code;
    gguf_put_string(p, "general.architecture", keys->arch);
    gguf_put_string(p, "general.type", "model");
    gguf_put_u32(p, "general.quantization_version", QUANTISATION_VERSION);
    gguf_put_u32(p, "general.file_type", file_type(target->targets));
    put_origin(&m);
    for (size_t i = 0; i < keys->count && code == CKPT_OK; i++)
        code = put_line(&m, &keys->lines[i]);
    return code;
}
