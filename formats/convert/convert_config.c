/* The target of a conversion: config.json, and refusal of what it cannot express. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_rewrite.h"
#include "convert_plan.h"
#include "formats/hf.h"
#include "inference_config.h"
#include "libckpt/codes.h"
#include "libckpt/config_compare.h"
#include "formats/mp.h"
#include "formats/notes.h"
#include "formats/remarks.h"

/* 1 if there are quantised weights and none stays so: config.json need not describe the scheme. */
static int drops_scheme(const job_plan *plan)
{
    const plan_policy *policy = &plan->options.policy;
    const ckpt_catalog *logical = plan->source->reading.logical;
    const config_scheme scheme = checkpoint_scheme(plan->source);
    int has_codes = 0;

    if (!plan_is_plain(policy->dtype) || !scheme.is_decoded || scheme.has_others)
        return 0;
    for (size_t i = 0; i < ckpt_catalog_count(logical); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(logical, i);

        /* Codes that are not decoded are refused by name, see codes_check_policy. */
        has_codes |= t->scale_dtype != CKPT_NONE || ckpt_dtype_bits(t->dtype) < 16 ||
                     (codes_are_bare(t) && plan_is_plain(policy->experts));
        if (t->scale_dtype != CKPT_NONE && plan_is_expert(t->name) &&
            !plan_is_plain(policy->experts))
            return 0;
    }
    return has_codes;
}

/* 1 if config.json says that weights are NVFP4, but none is. */
static int lacks_nvfp4(const job_plan *plan)
{
    const ckpt_catalog *logical = plan->source->reading.logical;

    if (!(checkpoint_scheme(plan->source).encodings & 1u << ENCODING_NVFP4))
        return 0;
    for (size_t i = 0; i < ckpt_catalog_count(logical); i++)
        if (encoding_is(ckpt_catalog_at(logical, i), ENCODING_NVFP4))
            return 0;
    return 1;
}

ckpt_code convert_check_method(const job_plan *plan, ckpt_error *err)
{
    const plan_policy *policy = &plan->options.policy;
    const int is_cast = plan_is_plain(policy->dtype) && plan_is_plain(policy->experts);
    char method[CONFIG_METHOD_BYTES];
    int may_cast;

    if (plan->source->config == NULL ||
        (policy->dtype == PLAN_KEEP && policy->experts == PLAN_KEEP &&
         policy->scale_dtype == CKPT_NONE))
        return CKPT_OK;
    config_find_method(json_root(plan->source->config), method);
    if (method[0] == '\0' && lacks_nvfp4(plan))
        snprintf(method, sizeof method, "NVFP4");
    if (method[0] == '\0' || drops_scheme(plan))
        return CKPT_OK;
    may_cast = checkpoint_scheme(plan->source).is_decoded && !is_cast;
    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%s' is quantised as '%s' (quantization_config of its config.json), which "
                     "cannot be converted%s: only a copy without --dtype, --experts and "
                     "--scale-dtype is possible%s", plan->options.source, method,
                     may_cast ? " to codes" : "", may_cast ? ", or --dtype bf16 or f32" : "");
}

/* mp shards are for the reference code, which reads inference/config.json. */
static ckpt_code check_config(const job_plan *plan, const config_change *change,
                              ckpt_error *err)
{
    return plan->options.format == &format_mp ? config_check_inference(change, plan->map, err)
                                              : CKPT_OK;
}

static ckpt_code rewrite_config(job_plan *plan, const char *text, ckpt_error *err)
{
    ckpt_map *native = NULL;
    config_change change = {
        .targets = plan->targets,
        .from = plan->fill != NULL || plan->options.config != NULL ? NULL : plan->picked->catalog,
        .official = plan->source->official,
        .has_expert_dtype = plan->source->family != NULL &&
                            family_expert_member(plan->source->family) != NULL,
        .lists_matrices = plan->rules != NULL && !plan_has_quantised(plan->source->official),
        .rules = plan->rules,
        .is_from_blocks = plan->source->format->form != NULL,
        .is_inference = plan->source->format == &format_mp,
    };
    ckpt_code code = CKPT_OK;

    if (plan->source->family != NULL)
        code = checkpoint_find_map(ckpt_family_name(plan->source),
                                   family_names(plan->source->family,
                                                checkpoint_config(plan->source)),
                                   checkpoint_config(plan->source), &native, err);
    change.modules = native;
    if (code == CKPT_OK && (code = check_config(plan, &change, err)) == CKPT_OK && text != NULL)
        code = config_rewrite(text, &change, &plan->config_text, err);
    if (code == CKPT_OK && plan->config_text != NULL && plan->options.format == &format_hf)
        code = config_modelopt_text(plan->config_text, &change, &plan->modelopt_text, err);
    map_free(native);
    return code;
}

/* With FP4 experts vLLM stores the scales of all weights as E8M0. */
static ckpt_code note_odd_scales(job_plan *plan, ckpt_error *err)
{
    const quantise_rule *odd = NULL;
    int has_fp4 = 0;

    for (size_t i = 0; plan->rules != NULL && i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        has_fp4 |= plan_is_expert(t->name) && t->dtype == CKPT_F4;
        if (plan->rules[i] != NULL && plan->rules[i]->scale_dtype == CKPT_F32)
            odd = plan->rules[i];
    }
    if (odd == NULL || !has_fp4)
        return CKPT_OK;
    return note_add(&plan->notes, err, "the scales of %s are no powers of two, and vLLM would "
                    "round them to such beside FP4 experts; fp8-ue8m0 serves all", odd->name);
}

/* vLLM reads the bytes of these scales as integers. */
static ckpt_code note_scales(job_plan *plan, ckpt_error *err)
{
    const ckpt_code code = note_odd_scales(plan, err);

    if (code != CKPT_OK)
        return code;
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (plan->options.format == &format_hf && plan_is_expert(t->name) &&
            encoding_is(t, ENCODING_FP8_128) && t->scale_dtype == CKPT_F8_E8M0)
            return note_add(&plan->notes, err,
                            "FP8 experts with E8M0 scales: vLLM misreads the scales as integers "
                            "(SGLang and transformers read them); --scale-dtype f32 works with all "
                            "of them");
    }
    return CKPT_OK;
}

/* mp shards are run by code that reads a separate config. */
static ckpt_code plan_inference(job_plan *plan, ckpt_error *err)
{
    const file_list *carried = &plan->source->extras;
    ckpt_error why = { .text = "" };
    char *bare = NULL;
    ckpt_code code;

    if (plan->options.format != &format_mp || plan->source->family == NULL ||
        plan->config_text == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < carried->count; i++)
        if (strcmp(carried->names[i], CONFIG_INFERENCE_FILE) == 0)
            return CKPT_OK;
    code = inference_config_derive(family_name(plan->source->family), plan->config_text, &bare,
                                   &why);
    if (code == CKPT_E_FORMAT)
        return note_add(&plan->notes, err, "%s is not written: %s",
                        CONFIG_INFERENCE_FILE, why.text);
    if (code != CKPT_OK)
        return ckpt_fail(err, code, "%s", why.text);
    if (bare != NULL)
        code = config_rewrite_inference(bare, plan->targets, &plan->inference_text, err);
    free(bare);
    return code;
}

/* The config of --like replaces one derived from the weight files: note their differences. */
static ckpt_code note_made_config(job_plan *plan, ckpt_error *err)
{
    config_meaning made = { NULL, 0 };
    config_meaning like = { NULL, 0 };
    config_comparison found = { .count = 0 };
    ckpt_code code;

    if ((code = config_meaning_read(json_root(plan->source->config), &made, err)) == CKPT_OK &&
        (code = config_meaning_read(json_root(plan->like->config), &like, err)) == CKPT_OK &&
        (code = config_meaning_compare(&made, &like, 0, &found, err)) == CKPT_OK) {
        for (size_t i = 0; i < found.count && code == CKPT_OK; i++)
            if (found.differing[i].a != NULL)
                code = note_add(&plan->notes, err, "config.json is that of --like: it has '%s' %s, "
                                "the source %s", found.differing[i].name,
                                found.differing[i].b == NULL ? "not at all" : found.differing[i].b,
                                found.differing[i].a);
        config_comparison_release(&found);
    }
    config_meaning_release(&made);
    config_meaning_release(&like);
    return code;
}

static ckpt_code plan_text(job_plan *plan, ckpt_error *err)
{
    const char *text = plan->source->config_text;
    ckpt_code code;

    if (plan->like != NULL && plan->like->config_text != NULL && plan->source->has_made_config) {
        if ((code = note_made_config(plan, err)) != CKPT_OK)
            return code;
        text = NULL;
    }
    if (plan->like != NULL && plan->like->config_text != NULL)
        return config_rewrite_like(text != NULL ? text : plan->like->config_text,
                                   plan->like->config_text, &plan->config_text, err);
    return plan->like != NULL && text == NULL ? CKPT_OK : rewrite_config(plan, text, err);
}

/* Files that only describe the source's encodings are not copied if these change: note each. */
static ckpt_code note_recoded(job_plan *plan, ckpt_error *err)
{
    const file_list *carried = &plan->source->extras;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets) && !plan->is_recoded; i++)
        plan->is_recoded = !catalog_same_encoding(ckpt_catalog_at(plan->picked->catalog, i),
                                                  ckpt_catalog_at(plan->targets, i));
    for (size_t i = 0; i < carried->count && code == CKPT_OK; i++)
        if (!convert_carries(plan, carried->names[i]) &&
            !(plan->modelopt_text != NULL && strcmp(carried->names[i], CONFIG_MODELOPT_FILE) == 0))
            code = note_add(&plan->notes, err, "%s tells of the encodings of the source, which "
                            "change: left out", carried->names[i]);
    return code;
}

/* Trainers write none, and no server loads weights without it. */
static ckpt_code note_no_config(job_plan *plan, ckpt_error *err)
{
    char hint[CONFIG_HINT_BYTES];

    if (plan->config_text != NULL || plan->options.format != &format_hf ||
        convert_keeps_layout(plan))
        return CKPT_OK;
    checkpoint_config_hint(plan->source, hint);
    return note_add(&plan->notes, err, "no config.json is written, as '%s' has none: servers need "
                    "it, and --config FILE gives one%s", plan->options.source, hint);
}

ckpt_code convert_plan_config(job_plan *plan, ckpt_error *err)
{
    ckpt_code code = note_scales(plan, err);

    if (code == CKPT_OK && (code = plan_text(plan, err)) == CKPT_OK &&
        (code = note_no_config(plan, err)) == CKPT_OK &&
        (code = plan_inference(plan, err)) == CKPT_OK)
        code = note_recoded(plan, err);
    return code;
}
