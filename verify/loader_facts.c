/* Finds the facts for the rules about loaders. */
#include "loader_facts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/codes.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/encoding.h"
#include "libckpt/plan.h"
#include "libckpt/scale.h"
#include "libckpt/table.h"
#include "libckpt/text.h"
#include "whole_scale.h"

static void add_to(weight_group *group, const ckpt_tensor *t)
{
    if (group->count++ == 0)
        group->first = t;
}

/* ---- forms ---- */

weight_form loader_form(const ckpt_tensor *t)
{
    if (t->scale_dtype == CKPT_NONE)
        return codes_are_bare(t) ? FORM_OTHER : FORM_PLAIN;
    if (encoding_is(t, ENCODING_FP4_32))
        return FORM_FP4;
    if (encoding_is(t, ENCODING_FP8_128))
        return FORM_FP8;
    if (encoding_is(t, ENCODING_FP8_1X32))
        return FORM_MXFP8;
    return t->dtype == CKPT_F4 && t->block_cols == 16 ? FORM_NVFP4 : FORM_OTHER;
}

/* 1 for a weight that the family's release quantises, or that is quantised here. */
static int is_weight(const loader_input *in, const ckpt_tensor *t)
{
    const int64_t o = in->official == NULL ? CKPT_NOT_FOUND
                                           : ckpt_catalog_find(in->official, t->name);

    return loader_form(t) != FORM_PLAIN ||
           (o >= 0 && ckpt_catalog_at(in->official, (size_t)o)->scale_dtype != CKPT_NONE);
}

static void add_weight(loader_facts *f, const ckpt_tensor *t)
{
    const int is_expert = plan_is_expert(t->name);
    const weight_form form = loader_form(t);

    add_to(is_expert ? &f->experts[form] : &f->dense[form], t);
    f->quantised += form != FORM_PLAIN;
    if (form == FORM_FP8 || form == FORM_FP4 || form == FORM_MXFP8) {
        const ckpt_dtype scale =
            t->stored_scale_dtype != CKPT_NONE ? t->stored_scale_dtype : t->scale_dtype;

        add_to(is_expert ? &f->expert_scales[scale] : &f->dense_scales[scale], t);
    }
}

/* ---- the list of modules that are plain ---- */

static const json_value *plain_list(const loader_facts *f)
{
    const json_value *list = json_member(f->quantization, "ignored_layers");

    return list != NULL ? list : json_member(f->quantization, "modules_to_not_convert");
}

static const char *without_model(const char *name)
{
    static const char prefix[] = "model.";

    return strncmp(name, prefix, sizeof prefix - 1) == 0 ? name + sizeof prefix - 1 : name;
}

/* Index the entries by name, without the prefix "model.": lists and models may be long. */
static ckpt_code index_list(const json_value *list, table *out, ckpt_error *err)
{
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v))
        if (json_string(v) != NULL &&
            table_add(out, without_model(json_string(v)), 0) == TABLE_NO_MEMORY)
            return ckpt_fail_memory(err, "a list of modules", json_count(list));
    return CKPT_OK;
}

/* 1 when an entry names this module or a parent of it. */
static int is_listed(const table *list, const char *module)
{
    char name[MAP_NAME_BYTES];
    uint64_t unused;

    if (strlen(without_model(module)) >= sizeof name)
        return 0;
    snprintf(name, sizeof name, "%s", without_model(module));
    for (;;) {
        char *dot = strrchr(name, '.');

        if (name[0] != '\0' && table_find(list, name, &unused))
            return 1;
        if (dot == NULL)
            return 0;
        *dot = '\0';
    }
}

/* 1 when the list has any of the names that servers use for the module. Servers look up different
 * ones; ckpt-convert lists them all. */
static int weight_is_listed(const loader_facts *f, const table *list, const char *weight)
{
    map_captures captures = { .count = 0 };
    const map_module *module =
        f->in.modules == NULL ? NULL : map_find_module(f->in.modules, weight, &captures);
    char name[MAP_NAME_BYTES];

    for (size_t n = 0; module != NULL && n < module->name_count; n++)
        if (map_expand(module->names[n], &captures, name) && is_listed(list, name))
            return 1;
    return is_listed(list, weight);
}

static ckpt_code look_at_lists(loader_facts *f, ckpt_error *err)
{
    table list;
    ckpt_code code;

    table_init(&list);
    code = index_list(plain_list(f), &list, err);
    for (size_t i = 0; i < ckpt_catalog_count(f->in.logical) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(f->in.logical, i);
        int listed;

        if (!is_weight(&f->in, t))
            continue;
        listed = weight_is_listed(f, &list, t->name);
        if (loader_form(t) == FORM_PLAIN && !listed)
            add_to(&f->unlisted, t);
        if (loader_form(t) != FORM_PLAIN && listed)
            add_to(&f->listed, t);
    }
    table_release(&list);
    return code;
}

/* ---- all ---- */

static const char *text_of(const json_value *object, const char *key)
{
    return json_string(json_member(object, key));
}

ckpt_code loader_facts_find(const loader_input *in, loader_facts *out, ckpt_error *err)
{
    memset(out, 0, sizeof *out);
    out->in = *in;
    if (in->config != NULL && text_of(in->config, CONFIG_MODEL_TYPE) != NULL)
        out->is_v4 = strcmp(text_of(in->config, CONFIG_MODEL_TYPE), CONFIG_TYPE_V4) == 0;
    if (in->config != NULL)
        out->quantization = config_member(in->config, "quantization_config");
    out->modelopt_algorithm = text_of(json_member(in->modelopt, "quantization"), "quant_algo");
    out->method = text_of(out->quantization, "quant_method");
    out->expert_dtype = in->config == NULL ? NULL : text_of(in->config, "expert_dtype");
    out->inner_expert_dtype = text_of(out->quantization, "expert_dtype");
    out->scale_fmt = text_of(out->quantization, "scale_fmt");
    for (size_t i = 0; i < ckpt_catalog_count(in->logical); i++)
        if (is_weight(in, ckpt_catalog_at(in->logical, i)))
            add_weight(out, ckpt_catalog_at(in->logical, i));
    for (size_t i = 0; i < ckpt_catalog_count(in->stored); i++) {
        const char *name = ckpt_catalog_at(in->stored, i)->name;

        out->input_scales += (size_t)text_ends_with(name, ".input_scale");
        out->tensor_scales += (size_t)text_ends_with(name, ".weight_scale_2");
    }
    return out->quantization == NULL ? CKPT_OK : look_at_lists(out, err);
}

/* ---- scales that must be powers of two ---- */

static ckpt_code count_uneven(ckpt_source *source, size_t tensor, weight_group *out,
                              ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(ckpt_source_catalog(source), tensor);
    const uint64_t rows = ckpt_part_rows(t, CKPT_SCALE);
    const uint64_t cols = ckpt_part_cols(t, CKPT_SCALE);
    float *scales = malloc(cols * sizeof *scales + 1);
    ckpt_code code = CKPT_OK;

    if (scales == NULL)
        return ckpt_fail_memory(err, "a row of scales", cols);
    for (uint64_t r = 0; r < rows && code == CKPT_OK; r++) {
        code = ckpt_source_read(source, tensor, CKPT_SCALE, r, 1, scales, err);
        for (uint64_t c = 0; c < cols && code == CKPT_OK; c++)
            if (e8m0_from_f32_exact(scales[c]) < 0)
                add_to(out, t);
    }
    free(scales);
    return code;
}

ckpt_code loader_count_uneven(const loader_facts *facts, int experts, weight_group *out,
                              ckpt_error *err)
{
    const ckpt_catalog *catalog = facts->in.logical;
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < ckpt_catalog_count(catalog) && code == CKPT_OK; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        if (t->scale_dtype == CKPT_F32 && !plan_is_expert(t->name) == !experts)
            code = count_uneven(facts->in.source, i, out, err);
    }
    return code;
}

/* ---- scales of whole tensors ---- */

static ckpt_code read_whole(ckpt_source *source, size_t tensor, ckpt_part part, float *out,
                            ckpt_error *err)
{
    return ckpt_source_read(source, tensor, part, 0, 1, out, err);
}

static ckpt_code look_at_whole(const loader_facts *f, size_t tensor, loader_whole_scales *out,
                               ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(f->in.logical, tensor);
    char partner[WHOLE_SCALE_NAME_BYTES];
    float whole;
    float input = 1;
    float other;
    int64_t i;
    ckpt_code code = read_whole(f->in.source, tensor, CKPT_TENSOR_SCALE, &whole, err);

    if (code == CKPT_OK && t->has_input_scale)
        code = read_whole(f->in.source, tensor, CKPT_INPUT_SCALE, &input, err);
    if (code != CKPT_OK)
        return code;
    if (!scale_is_fit(whole) || !scale_is_fit(input))
        add_to(&out->unfit, t);
    if (!whole_scale_partner(t->name, partner) ||
        (i = ckpt_catalog_find(f->in.logical, partner)) < 0 ||
        ckpt_catalog_at(f->in.logical, (size_t)i)->tensor_scale != t->tensor_scale)
        return CKPT_OK;
    code = read_whole(f->in.source, (size_t)i, CKPT_TENSOR_SCALE, &other, err);
    if (code == CKPT_OK && other != whole)
        add_to(&out->unequal, t);
    return code;
}

ckpt_code loader_look_at_whole_scales(const loader_facts *facts, loader_whole_scales *out,
                                      ckpt_error *err)
{
    const ckpt_catalog *catalog = facts->in.logical;
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < ckpt_catalog_count(catalog) && code == CKPT_OK; i++)
        if (ckpt_catalog_at(catalog, i)->tensor_scale != CKPT_TENSOR_SCALE_NONE)
            code = look_at_whole(facts, i, out, err);
    return code;
}
