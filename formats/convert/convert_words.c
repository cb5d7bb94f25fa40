/* Options given as text: layout and encodings, and which options apply to which layout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert_private.h"
#include "libckpt/encoding.h"
#include "libckpt/scale.h"

ckpt_code convert_find_layout(const char *layout, const ckpt_format **out, ckpt_error *err)
{
    char known[256] = "";

    for (size_t i = 0; ckpt_formats[i] != NULL; i++) {
        const size_t used = strlen(known);

        if (ckpt_formats[i]->lay_out == NULL)
            continue;
        *out = ckpt_formats[i];
        if (layout != NULL && strcmp((*out)->name, layout) == 0)
            return CKPT_OK;
        snprintf(known + used, sizeof known - used, " %s", (*out)->name);
    }
    return ckpt_fail(err, CKPT_E_USAGE, "--layout %s: expected one of%s",
                     layout == NULL ? "is missing" : layout, known);
}

static ckpt_code take_encoding(const char *option, const char *word, plan_encoding *out,
                               ckpt_error *err)
{
    static const char *const names[] = { "keep", "bf16", "f32", "fp8", "fp4" };
    static const plan_encoding encodings[] = { PLAN_KEEP, PLAN_BF16, PLAN_F32, PLAN_FP8,
                                               PLAN_FP4 };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (word == NULL || strcmp(word, names[i]) == 0) {
            *out = word == NULL ? *out : encodings[i];
            return CKPT_OK;
        }
    return ckpt_fail(err, CKPT_E_USAGE, "--%s '%s': expected bf16, f32, fp8, fp4 or keep", option,
                     word);
}

static ckpt_code take_encodings(const convert_words *w, const ckpt_format *format,
                                plan_policy *out, ckpt_error *err)
{
    ckpt_code code;

    out->dtype = PLAN_KEEP;
    if ((code = take_encoding("dtype", w->dtype, &out->dtype, err)) != CKPT_OK)
        return code;
    out->experts = out->dtype;
    if ((code = take_encoding("experts", w->experts, &out->experts, err)) != CKPT_OK)
        return code;
    if (out->dtype == PLAN_FP4)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "--dtype fp4: only experts can be FP4 (use --experts fp4)");
    if (format->no_f32 && (out->dtype == PLAN_F32 || out->experts == PLAN_F32))
        return ckpt_fail(err, CKPT_E_USAGE, "--layout %s holds BF16, FP8 and FP4 weights, as the "
                         "reference code does: --dtype and --experts cannot be f32",
                         format->name);
    if (w->scale_dtype != NULL && strcmp(w->scale_dtype, "f32") != 0 &&
        strcmp(w->scale_dtype, "e8m0") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--scale-dtype '%s': expected e8m0 or f32",
                         w->scale_dtype);
    out->scale_dtype = w->scale_dtype == NULL                ? CKPT_NONE
                       : strcmp(w->scale_dtype, "f32") == 0 ? CKPT_F32
                                                             : CKPT_F8_E8M0;
    return CKPT_OK;
}

/* Refuse rules whose encoding config.json cannot describe, unless the layout has blocks of its own,
 * which its files describe. */
static ckpt_code check_encodings(const class_rules *rules, const ckpt_format *format,
                                 ckpt_error *err)
{
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++) {
        const quantise_rule *rule = rules->rules[class];
        const encoding_id id = rule == NULL ? ENCODING_FP8_128 : plan_rule_encoding(rule);

        if (encoding_at(id)->is_in_blocks && format->form != NULL)
            continue;
        if (encoding_at(id)->is_in_blocks)
            return ckpt_fail(err, CKPT_E_USAGE, "--quantize %s: layout %s does not hold it, only "
                             "ckpt-shard --layout gguf", rule->name, format->name);
        if (id != ENCODING_FP8_128 && id != ENCODING_FP8_1X32 && id != ENCODING_FP4_32 &&
            id != ENCODING_NVFP4 && id != ENCODING_FP8_ROW)
            return ckpt_fail(err, CKPT_E_USAGE, "--quantize %s: no config.json is written for it",
                             rule->name);
    }
    return CKPT_OK;
}

/* The scale of activations beside NVFP4 weights: a number for all, or where a calibration is. */
static ckpt_code take_input_scale(const char *text, convert_options *out, ckpt_error *err)
{
    const struct ckpt_places *places = out->open.places;
    float number;
    char *end;

    if (text == NULL)
        return CKPT_OK;
    number = strtof(text, &end);
    if (end == text || *end != '\0') {
        out->input_scales = text;
        if ((places != NULL && places->knows(text)) || file_exists(text))
            return CKPT_OK;
        return ckpt_fail(err, CKPT_E_USAGE, "--input-scale '%s': expected a number, or a "
                         "checkpoint with X.input_scale, but no file is called so", text);
    }
    out->input_scale = number;
    return scale_is_fit(number)
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_USAGE, "--input-scale '%s': expected a number above 0 that "
                           "F32 can hold", text);
}

static int makes_nvfp4(const class_rules *rules)
{
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++)
        if (rules->rules[class] != NULL &&
            plan_rule_encoding(rules->rules[class]) == ENCODING_NVFP4)
            return 1;
    return 0;
}

static int keeps_all(const class_rules *rules)
{
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++)
        if (rules->rules[class] != NULL)
            return 0;
    return 1;
}

/* Options of rounding by rule. */
static ckpt_code take_rules(const convert_words *w, convert_options *out, ckpt_error *err)
{
    const plan_policy *policy = &out->policy;
    quantise_policy *rules = &out->quantise;
    ckpt_code code;

    if (w->nonfinite != NULL && strcmp(w->nonfinite, "zero") != 0 &&
        strcmp(w->nonfinite, "refuse") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--nonfinite '%s': expected refuse or zero",
                         w->nonfinite);
    if (w->wo_a != NULL && strcmp(w->wo_a, "bf16") != 0 && strcmp(w->wo_a, "keep") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--wo-a '%s': expected bf16 or keep", w->wo_a);
    out->zero_nonfinite = w->nonfinite != NULL && strcmp(w->nonfinite, "zero") == 0;
    out->plain_wo_a = w->wo_a != NULL && strcmp(w->wo_a, "bf16") == 0;
    if (w->max_relf != NULL &&
        (code = class_limits_parse(w->max_relf, &out->max_relf, err)) != CKPT_OK)
        return code;
    if ((code = take_input_scale(w->input_scale, out, err)) != CKPT_OK)
        return code;
    rules->is_given = w->quantise != NULL;
    if (w->quantise == NULL) {
        if (rules->only_count > 0 || rules->skip_count > 0)
            return ckpt_fail(err, CKPT_E_USAGE, "--only and --skip choose what --quantize is "
                             "about: give a rule");
        if ((out->max_relf.is_given || out->sticky_scale || w->nonfinite != NULL ||
             out->quantise_f32) && !out->allow_lossy)
            return ckpt_fail(err, CKPT_E_USAGE, "--max-relf, --sticky-scale, --nonfinite and "
                             "--from-f32 are about rounding: give --quantize RULE");
        if (w->input_scale != NULL)
            return ckpt_fail(err, CKPT_E_USAGE, "--input-scale is about NVFP4 weights: give "
                             "--quantize nvfp4");
        return CKPT_OK;
    }
    if (policy->dtype != PLAN_KEEP || policy->experts != PLAN_KEEP)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize decides encodings by class: leave out "
                         "--dtype and --experts");
    code = class_rules_parse(w->quantise, &rules->rules, err);
    if (code == CKPT_OK && keeps_all(&rules->rules))
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize %s names no rule, and changes nothing",
                         w->quantise);
    if (code == CKPT_OK && w->input_scale != NULL && !makes_nvfp4(&rules->rules))
        return ckpt_fail(err, CKPT_E_USAGE, "--input-scale is about NVFP4 weights, and --quantize "
                         "%s makes none", w->quantise);
    return code == CKPT_OK ? check_encodings(&rules->rules, out->format, err) : code;
}

/* "v2": the map torch_dist-v2. */
static ckpt_code take_key_style(const char *style, const ckpt_format *format, const char **out,
                                ckpt_error *err)
{
    for (size_t i = 0; style != NULL && format->map_names[i] != NULL; i++) {
        const char *dash = strchr(format->map_names[i], '-');

        if (dash != NULL && strcmp(dash + 1, style) == 0) {
            *out = format->map_names[i];
            return CKPT_OK;
        }
    }
    return style == NULL ? CKPT_OK
                         : ckpt_fail(err, CKPT_E_USAGE,
                                     "--key-style '%s': expected v1, v2, stacked or layers", style);
}

/* A layout whose weights are all BF16. */
static ckpt_code take_plain_layout(const convert_words *w, convert_options *c, ckpt_error *err)
{
    const char *layout = c->format->name;

    if (w->dtype != NULL && strcmp(w->dtype, "bf16") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout %s is always BF16: expected --dtype bf16 or "
                         "none, got %s", layout, w->dtype);
    if (w->experts != NULL && strcmp(w->experts, "bf16") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout %s is always BF16: expected --experts bf16 "
                         "or none, got %s", layout, w->experts);
    if (w->quantise != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout %s holds BF16: leave out --quantize",
                         layout);
    if (w->scale_dtype != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout %s is always BF16, without scales: "
                         "--scale-dtype cannot be used", layout);
    c->policy.dtype = PLAN_BF16;
    c->policy.experts = PLAN_BF16;
    return CKPT_OK;
}

/* Refuse numbers of ranks that are too large or only apply to torch_dist. */
static ckpt_code check_sharding(const convert_words *w, const convert_options *c, ckpt_error *err)
{
    const format_sharding *s = &c->sharding;
    const struct {
        const char *name;
        uint32_t number;
    } given[] = {
        { "tp", s->tp },
        { "pp", s->pp },
        { "ep", s->ep },
        { "etp", s->etp },
        { "first-stage-layers", s->first_stage_layers },
        { "last-stage-layers", s->last_stage_layers },
        { "files", s->per_rank_files != 0 },
        { "key-style", w->key_style != NULL },
        { "layer-keys", w->layer_keys != NULL },
        { "extra-state", s->extra_state != 0 },
        { "mp", s->mp },
    };
    const size_t torch_dist_count = sizeof given / sizeof *given - 1;

    for (size_t i = 0; i <= torch_dist_count; i++)
        if (given[i].number > CONVERT_RANKS_MAX)
            return ckpt_fail(err, CKPT_E_USAGE, "--%s %u: expected at most %d", given[i].name,
                             given[i].number, CONVERT_RANKS_MAX);
    for (size_t i = 0; i < torch_dist_count; i++)
        if (given[i].number != 0 && strcmp(c->format->name, "torch_dist") != 0)
            return ckpt_fail(err, CKPT_E_USAGE, "--%s needs --layout torch_dist, got %s",
                             given[i].name, c->format->name);
    if (c->mtp && strcmp(c->format->name, "torch_dist") != 0 &&
        strcmp(c->format->name, "gguf") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--mtp needs --layout torch_dist or gguf, got %s",
                         c->format->name);
    return CKPT_OK;
}

/* Of the programs that read GGUF files of this family, ds4 fixes the type of every tensor. */
static ckpt_code check_gguf_dialect(const char *dialect, const ckpt_format *format,
                                    ckpt_error *err)
{
    if (dialect != NULL && strcmp(format->name, "gguf") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--gguf-dialect needs --layout gguf, got %s",
                         format->name);
    if (dialect == NULL || strcmp(dialect, "ds4") != 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "--gguf-dialect ds4: ds4 loads routed experts as IQ2_XXS, "
                     "Q2_K or Q4_K alone, not as MXFP4, and no rule of --quantize makes these "
                     "types: use ds4's own quantiser on SRC");
}

ckpt_code convert_take_words(const convert_words *words, convert_options *out, ckpt_error *err)
{
    const char *layout = words->layout == NULL ? "hf" : words->layout;
    ckpt_code code;

    if (out->no_digest && out->verify)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "--verify compares digests and cannot be used with --no-digest");
    if ((code = convert_find_layout(layout, &out->format, err)) != CKPT_OK)
        return code;
    if ((out->sharding.mp != 0) != (strcmp(layout, "mp") == 0))
        return ckpt_fail(err, CKPT_E_USAGE, out->sharding.mp == 0
                                                ? "--layout mp needs --mp N"
                                                : "--mp only applies to --layout mp");
    if (out->names != NULL && out->format->map_names != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--names only applies to --layout hf: %s has fixed "
                         "names", layout);
    if (out->file_bytes_max != 0 && out->format->split != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--max-shard-size only applies to --layout hf and "
                         "gguf: the ranks decide the files of %s", layout);
    if (out->without_tokenizer && out->format->file_bytes == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--without-tokenizer needs --layout gguf, got %s",
                         layout);
    if ((code = check_gguf_dialect(words->gguf_dialect, out->format, err)) != CKPT_OK ||
        (code = check_sharding(words, out, err)) != CKPT_OK ||
        (code = take_encodings(words, out->format, &out->policy, err)) != CKPT_OK ||
        (code = take_rules(words, out, err)) != CKPT_OK)
        return code;
    if (out->sticky_scale && out->like == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--sticky-scale keeps scales of --like: give it");
    if (out->plain_wo_a && out->like != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--like decides encodings: leave out --wo-a");
    if (out->max_relf.is_given && out->share_count > 1)
        return ckpt_fail(err, CKPT_E_USAGE, "--max-relf is about all tensors: leave out --part");
    if (out->format->weights == CKPT_BF16 &&
        (code = take_plain_layout(words, out, err)) != CKPT_OK)
        return code;
    out->layer_keys = words->layer_keys;
    return take_key_style(words->key_style, out->format, &out->names, err);
}
