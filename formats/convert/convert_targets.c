/* The target of a conversion: encodings and names. */
#include <stdlib.h>
#include <string.h>

#include "libckpt/codes.h"
#include "convert_plan.h"
#include "formats/dialect.h"
#include "formats/hf.h"
#include "formats/maps.h"
#include "formats/mp.h"
#include "formats/notes.h"
#include "formats/remarks.h"
#include "libckpt/tensor_class.h"
#include "libckpt/text.h"

static ckpt_code copy_catalog(const ckpt_catalog *from, ckpt_catalog **out, ckpt_error *err)
{
    ckpt_catalog *copy = catalog_create();
    ckpt_code code = CKPT_OK;

    if (copy == NULL)
        return ckpt_fail_memory(err, "a catalog", ckpt_catalog_count(from));
    for (size_t i = 0; i < ckpt_catalog_count(from) && code == CKPT_OK; i++)
        code = catalog_add(copy, ckpt_catalog_at(from, i), err);
    if (code != CKPT_OK)
        catalog_free(copy);
    else
        *out = copy;
    return code;
}

/* 1 when the i-th stored tensor, which is a scale, belongs to packed codes. */
static int is_of_packed(const ckpt_checkpoint *from, size_t i)
{
    const size_t weight = from->reading.fates[i].logical;

    return ckpt_catalog_at(from->reading.logical, weight)->part_names == CKPT_NAMES_PACKED;
}

/* The spelling of scale names as in the source: that of the map, unless the source never uses
 * it. Packed codes have scales of their own spelling, which says nothing of others. */
static const char *find_scale_suffix(const ckpt_checkpoint *from, const char *own)
{
    const ckpt_catalog *stored = store_names(from->store);
    const char *found = own;

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const char *name = ckpt_catalog_at(stored, i)->name;

        if (from->reading.fates[i].kind != FATE_SCALE || is_of_packed(from, i))
            continue;
        if (text_ends_with(name, own))
            return own;
        if (pair_scale_suffix(name) != NULL)
            found = pair_scale_suffix(name);
    }
    return found;
}

/* The naming style of the target. --names decides; a layout with naming styles of its own has the
 * first one that the family has a map for; Hugging Face files keep the source's style if it is one
 * of theirs, else that which the config implies. */
static const char *choose_names(const job_plan *plan)
{
    const convert_options *o = &plan->options;
    const char *family = ckpt_family_name(plan->source);

    /* A family with different layers has one key per layer in every style of torch_dist. */
    if (o->names != NULL && strcmp(o->names, "torch_dist-layers") == 0 &&
        !maps_has(family, o->names))
        return "torch_dist";
    if (o->names != NULL)
        return o->names;
    if (o->format->map_names != NULL) {
        for (size_t i = 0; o->format->map_names[i] != NULL; i++)
            if (strcmp(family, GENERIC_FAMILY) != 0 &&
                maps_has(family, o->format->map_names[i]))
                return o->format->map_names[i];
        return o->format->map_names[0];
    }
    return plan->source->format->map_names == NULL
               ? ckpt_names_style(plan->source)
               : family_names(plan->source->family, checkpoint_config(plan->source));
}

/* The naming style if the user gave --dialect or --layer-keys. */
static ckpt_code choose_dialect(const job_plan *plan, const char **out, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    const dialect_wanted wanted = { ckpt_family_name(plan->source), o->format,
                                    checkpoint_config(plan->source), o->open.dialect,
                                    o->layer_keys };

    *out = choose_names(plan);
    if (o->names != NULL || o->format->read_argument == NULL ||
        (wanted.dialect == NULL && wanted.layer_keys == NULL))
        return CKPT_OK;
    return dialect_choose(&wanted, out, err);
}

int convert_keeps_layout(const job_plan *plan)
{
    const ckpt_format *source = plan->source->format;

    return plan->options.format == (source == &format_safetensors_file ? &format_hf : source);
}

/* Adapt a tensor to the layout: the plain dtype that its map prescribes, the stored dtype of FP4,
 * and in HF files the integer dtype of the official release. */
static void suit_tensor(const job_plan *plan, ckpt_tensor *t)
{
    const ckpt_tensor *official = plan_find_official(plan->source->official, t);
    const ckpt_dtype plain = map_find_encode(plan->map, t->name);
    const int sharded = plan->options.format->map_names != NULL;

    /* Interleaved blocks of the source, or asked for, are values that no plain dtype need hold. */
    if (plain != CKPT_NONE && t->stored_form != CKPT_FORM_APART &&
        (encoding_of(t)->is_in_blocks || t->tensor_scale != CKPT_TENSOR_SCALE_NONE))
        return;
    if (plain != CKPT_NONE) {
        catalog_set_plain(t, plain);
    } else if (encoding_is(t, ENCODING_FP4_32)) {
        t->stored_dtype = sharded ? CKPT_F4 : CKPT_I8;
    } else if (!sharded && official != NULL && ckpt_tensor_is_int(t)) {
        t->dtype = official->dtype;
        t->stored_dtype = t->dtype;
    }
}

/* The names of a tensor scale, which differ between blocks and separate codes. */
static void suit_tensor_scale(ckpt_tensor *t, ckpt_stored_form before)
{
    const int is_apart = t->stored_form == CKPT_FORM_APART;

    if (t->tensor_scale == CKPT_TENSOR_SCALE_NONE || (is_apart && before == CKPT_FORM_APART))
        return;
    t->part_names = is_apart ? CKPT_NAMES_MODELOPT : CKPT_NAMES_BLOCKS;
    t->stored_dtype = is_apart ? CKPT_U8 : t->dtype;
    t->has_tensor_scale_vector = !is_apart;
    t->has_input_scale_vector = !is_apart && t->has_input_scale;
}

/* Replace the source's stored form by that of the target's format. */
static void suit_form(const ckpt_format *format, ckpt_tensor *t)
{
    const ckpt_stored_form before = (ckpt_stored_form)t->stored_form;

    t->stored_form = CKPT_FORM_APART;
    if (format->form != NULL && t->scale_dtype != CKPT_NONE)
        t->stored_form = (uint16_t)format->form(t);
    suit_tensor_scale(t, before);
}

static void suit_layout(job_plan *plan)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        suit_form(plan->options.format, catalog_edit(plan->targets, i));
    if (convert_keeps_layout(plan) && plan->map->encode_count == 0)
        return;
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        suit_tensor(plan, catalog_edit(plan->targets, i));
}

/* A prefix of the source's names is kept if names and layout are unchanged; else it is dropped
 * with a note. */
static ckpt_code choose_prefix(job_plan *plan, const char *prefix, ckpt_error *err)
{
    if (plan->options.names == NULL && convert_keeps_layout(plan))
        return map_add_prefix(plan->map, prefix, err);
    return note_add(&plan->notes, err, "the prefix '%s' is dropped from names", prefix);
}

ckpt_code convert_choose_map(job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    const char *prefix = plan->source->map->prefix;
    const char *layout = o->names == NULL ? NULL : checkpoint_layout_of_names(o->names);
    const char *names;
    ckpt_code code;

    if (o->open.dialect != NULL && o->format->read_argument == NULL &&
        plan->source->format->read_argument == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--dialect is about torch_dist, which neither '%s' nor "
                         "the result is: leave it out", o->source);
    if (layout != NULL && o->format->map_names == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--names %s: no reader of folders knows these names, "
                         "they are those of ckpt-shard --layout %s", o->names, layout);
    if (o->like != NULL)
        return CKPT_OK;
    if (o->open.map_file != NULL && o->names == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--map needs --names, the naming style to write");
    if ((code = choose_dialect(plan, &names, err)) != CKPT_OK)
        return code;
    code = checkpoint_find_map(ckpt_family_name(plan->source), names,
                               checkpoint_config(plan->source), &plan->map, err);
    if (code == CKPT_E_USAGE && o->names != NULL && o->format->map_names != NULL)
        return ckpt_fail(err, code, "--key-style %s is not one of the family %s",
                         strchr(o->names, '-') == NULL ? o->names : strchr(o->names, '-') + 1,
                         ckpt_family_name(plan->source));
    if (code == CKPT_E_USAGE && o->names == NULL && o->format->map_names != NULL)
        return ckpt_fail(err, code,
                         "'%s' is a %s checkpoint: layout %s is not supported for "
                         "it", o->source, ckpt_family_name(plan->source),
                         o->format->name);
    if (code == CKPT_OK && o->names == NULL && convert_keeps_layout(plan))
        plan->map->scale_suffix = find_scale_suffix(plan->source, plan->map->scale_suffix);
    return code == CKPT_OK && prefix != NULL ? choose_prefix(plan, prefix, err) : code;
}

/* Quantised weights that a reader of these names would misread. Those that the source has under
 * the same names are copied unchanged. */
static ckpt_code check_names(const job_plan *plan, ckpt_error *err)
{
    const int same_names = strcmp(plan->map->names, ckpt_names_style(plan->source)) == 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets) && !plan->options.force_names; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);
        const char *reason =
            t->scale_dtype == CKPT_NONE ? NULL : map_find_plain(plan->map, t->name);

        if (reason != NULL &&
            !(same_names && ckpt_catalog_at(plan->picked->catalog, i)->scale_dtype != CKPT_NONE))
            return ckpt_fail(err, CKPT_E_USAGE,
                             "names '%s' with tensor '%s' in %s: %s; use --names native, --dtype "
                             "bf16 or, if the files are not for that reader, --force-names",
                             plan->map->names, t->name, ckpt_dtype_name(t->dtype), reason);
    }
    return CKPT_OK;
}

/* Refuse encodings that exist only as interleaved blocks in a layout without these. */
static ckpt_code check_forms(const job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);
        char encoding[64];

        if (t->scale_dtype == CKPT_NONE || t->stored_form != CKPT_FORM_APART ||
            !encoding_of(t)->is_in_blocks)
            continue;
        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        return ckpt_fail(err, CKPT_E_USAGE,
                         "tensor '%s' is %s, which layout %s does not have: cast it, as with "
                         "--dtype f32", t->name, encoding, plan->options.format->name);
    }
    return CKPT_OK;
}

/* In blocks NVFP4 is known by its type, apart from them only by what a config says of it. */
static ckpt_code check_told(const job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; plan->source->config == NULL && i < ckpt_catalog_count(plan->targets);
         i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (t->tensor_scale != CKPT_TENSOR_SCALE_NONE && t->stored_form == CKPT_FORM_APART &&
            ckpt_catalog_at(plan->picked->catalog, i)->stored_form != CKPT_FORM_APART)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is NVFP4, which a reader of layout %s "
                             "knows by config.json, and '%s' has none: give --config FILE, or cast "
                             "it, as with --dtype f32", t->name, plan->options.format->name,
                             plan->options.source);
    }
    return CKPT_OK;
}

/* Refuse options without effect: they were meant for another conversion. */
static ckpt_code check_effects(const job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    size_t fp8_count = 0, from_fp4_count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *from = ckpt_catalog_at(plan->picked->catalog, i);
        const ckpt_tensor *to = ckpt_catalog_at(plan->targets, i);
        const int has_scales = to->scale_dtype != CKPT_NONE;

        fp8_count += to->dtype == CKPT_F8_E4M3 && has_scales;
        /* The reference keeps FP4 as it is, or makes FP8 of it. */
        from_fp4_count += has_scales && from->dtype == CKPT_F4 && from->scale_dtype != CKPT_NONE;
    }
    if (o->policy.scale_dtype != CKPT_NONE && fp8_count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--scale-dtype is about the scales of FP8 weights, but "
                         "the result has none: leave it out");
    if (o->match_reference && from_fp4_count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--match-reference is about FP4 weights that stay FP4 "
                         "or become FP8, but there are none: leave it out");
    return CKPT_OK;
}

/* Tell of weights that the layout has plain, whatever rule was named for them. A preset names what
 * a release has, which the layout has in its own way. */
static ckpt_code tell_plain(job_plan *plan, size_t plain_count, const char *first, ckpt_error *err)
{
    const char *layout = plan->options.format->name;

    if (plan->rules == NULL && first == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize changes nothing: --wo-a bf16 leaves out "
                         "all weights that it is about");
    if (plan->rules == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize changes nothing: layout %s has %s of its "
                         "classes plain, such as '%s'", layout,
                         text_count(plain_count, "weight", "weights").text, first);
    if (plain_count == 0 || plan->options.quantise.rules.preset != NULL)
        return CKPT_OK;
    return note_add(&plan->notes, err, "%s not quantised, because layout %s has them plain; the "
                    "first is '%s'", text_count(plain_count, "weight is", "weights are").text,
                    layout, first);
}

/* Drop the rules of tensors that the layout or --wo-a makes plain. */
static ckpt_code settle_rules(job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *from = plan->picked->catalog;
    const char *first = NULL;
    size_t plain_count = 0;
    size_t count = 0;
    ckpt_code code;

    if (plan->options.allow_lossy)
        plan_rounding(from, plan->targets, plan->like == NULL, plan->rules);
    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *to = ckpt_catalog_at(plan->targets, i);

        if (plan->rules[i] != NULL && to->scale_dtype == CKPT_NONE) {
            plan->rules[i] = NULL;
            if (plan->options.plain_wo_a && tensor_is_wo_a(to->name))
                continue;
            first = plain_count++ == 0 ? to->name : first;
        }
        count += plan->rules[i] != NULL;
    }
    if (count == 0) {
        free(plan->rules);
        plan->rules = NULL;
    }
    if (!plan->options.quantise.is_given)
        return CKPT_OK;
    code = tell_plain(plan, plain_count, first, err);
    return code == CKPT_OK ? codes_check_targets(from, plan->targets, err) : code;
}

/* With --wo-a bf16: make attn.wo_a BF16, which SGLang and miles also accept. */
static void clear_wo_a(job_plan *plan)
{
    for (size_t i = 0; plan->options.plain_wo_a && i < ckpt_catalog_count(plan->targets); i++) {
        ckpt_tensor *t = catalog_edit(plan->targets, i);

        if (t->scale_dtype != CKPT_NONE && tensor_is_wo_a(t->name))
            catalog_set_plain(t, CKPT_BF16);
    }
}

/* The reader of mp shards has FP8 in blocks of 128 x 128. SGLang, the reader of MXFP8, dequantises
 * attn.wo_a in such blocks or has it plain. */
static ckpt_code check_mxfp8(const job_plan *plan, ckpt_error *err)
{
    int is_of_family = strcmp(ckpt_family_name(plan->source), GENERIC_FAMILY) != 0;

    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (!encoding_is(t, ENCODING_FP8_1X32))
            continue;
        if (plan->options.format == &format_mp)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is MXFP8, which layout mp cannot "
                             "hold: --layout hf, or another encoding", t->name);
        if (is_of_family && plan->options.quantise.is_given && plan->rules[i] != NULL &&
            tensor_is_wo_a(t->name))
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' would be MXFP8, which SGLang does not "
                             "read of it: --wo-a bf16 leaves it plain", t->name);
    }
    return CKPT_OK;
}

static ckpt_code choose_like(job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    ckpt_code code;

    if (o->format != &format_hf)
        return ckpt_fail(err, CKPT_E_USAGE, "--like needs --layout hf, got %s",
                         o->format->name);
    if (o->names != NULL || o->policy.dtype != PLAN_KEEP || o->policy.experts != PLAN_KEEP ||
        o->policy.scale_dtype != CKPT_NONE || o->file_bytes_max != 0)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "--like determines names, encodings and files and cannot be used with "
                         "--names, --dtype, --experts, --scale-dtype or --max-shard-size");
    if ((code = copy_catalog(plan->like->reading.logical, &plan->targets, err)) != CKPT_OK ||
        (code = codes_check_targets(plan->picked->catalog, plan->targets, err)) != CKPT_OK ||
        (code = check_effects(plan, err)) != CKPT_OK)
        return code;
    return o->quantise.is_given ? plan_quantise_like(plan->picked->catalog, plan->targets,
                                                     &o->quantise, plan->rules, err)
                                : CKPT_OK;
}

/* A family that defines its FP8 blocks is not readable with others, but for MXFP8, which
 * config.json declares. */
static ckpt_code check_blocks(const job_plan *plan, ckpt_error *err)
{
    const ckpt_family *family = plan->source->family;
    const unsigned known = family == NULL ? 0 : family_fp8(family);

    for (int class = 0; known != 0 && class < WEIGHT_CLASS_COUNT; class++) {
        const quantise_rule *rule = plan->options.quantise.rules.rules[class];

        if (rule != NULL && rule->codes == CKPT_F8_E4M3 &&
            ((known | 1u << ENCODING_FP8_1X32) >> plan_rule_encoding(rule) & 1) == 0)
            return ckpt_fail(err, CKPT_E_USAGE, "--quantize %s: FP8 of the family %s has other "
                             "blocks%s", rule->name, family_name(family),
                             (known >> ENCODING_FP8_128 & 1) != 0 ? "; use fp8-ue8m0 or fp8-f32"
                                                                  : "");
    }
    return CKPT_OK;
}

/* Only Hugging Face files can store NVFP4 (codes, block scales, tensor scale, input scale) other
 * than in blocks, and INT4 (words of codes, scales, shape). */
static ckpt_code check_layout(const job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; plan->options.format != &format_hf && i < ckpt_catalog_count(plan->targets);
         i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->targets, i);

        if (t->stored_form == CKPT_FORM_APART &&
            (t->tensor_scale != CKPT_TENSOR_SCALE_NONE || encoding_is(t, ENCODING_INT4_32)))
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which layout %s cannot "
                             "hold: --layout hf, or another encoding", t->name,
                             t->dtype == CKPT_I4 ? "INT4" : "NVFP4",
                             plan->options.format->name);
    }
    return CKPT_OK;
}

static ckpt_code fail_no_config(const job_plan *plan, ckpt_error *err)
{
    char hint[CONFIG_HINT_BYTES];

    checkpoint_config_hint(plan->source, hint);
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' has no config.json, which tells its weights: "
                     "give --config FILE or --like ORIGINAL%s", plan->options.source, hint);
}

static ckpt_code choose_by_policy(job_plan *plan, ckpt_error *err)
{
    const ckpt_catalog *from = plan->picked->catalog;
    plan_policy policy = plan->options.policy;
    quantise_policy quantise = plan->options.quantise;
    ckpt_code code;

    /* mp shards keep E8M0 scales: the reference code reads them, and its own converter, which
     * defines that layout, writes them. */
    policy.scales_follow_experts = plan->options.format->map_names == NULL;
    quantise.scales_follow_experts = policy.scales_follow_experts;
    quantise.scale_dtype = policy.scale_dtype;
    if (quantise.is_given && (code = check_blocks(plan, err)) != CKPT_OK)
        return code;
    if (quantise.is_given && quantise.only_count == 0 && plan->source->config == NULL)
        return fail_no_config(plan, err);
    if (quantise.is_given)
        code = plan_quantise(from, plan->source->official, &quantise, plan->rules,
                             &plan->targets, err);
    else if ((code = codes_check_policy(from, &policy, err)) == CKPT_OK &&
             (code = plan_targets(from, plan->source->official, &policy, &plan->targets, err)) ==
                 CKPT_E_USAGE && plan->source->config == NULL)
        return fail_no_config(plan, err);          /* that is why nothing is known of its weights */
    if (code != CKPT_OK)
        return code;
    suit_layout(plan);
    clear_wo_a(plan);
    if ((code = check_mxfp8(plan, err)) != CKPT_OK ||
        (code = check_forms(plan, err)) != CKPT_OK ||
        (code = check_layout(plan, err)) != CKPT_OK ||
        (code = check_told(plan, err)) != CKPT_OK || (code = check_effects(plan, err)) != CKPT_OK)
        return code;
    return check_names(plan, err);
}

/* Refuse options about rounding that apply to no weight; a limit, or NaN as 0, is relied on. */
static ckpt_code check_rounding(const job_plan *plan, ckpt_error *err)
{
    const convert_options *o = &plan->options;
    const char *idle;
    int has_e8m0 = 0;

    if (plan->rules == NULL)
        return !o->max_relf.is_given && !o->sticky_scale && !o->zero_nonfinite && !o->quantise_f32
                   ? CKPT_OK
                   : ckpt_fail(err, CKPT_E_USAGE, "--max-relf, --sticky-scale, --nonfinite and "
                               "--from-f32 are about rounding by rule, and no weight is rounded: "
                               "leave them out");
    if ((idle = class_limits_idle(&o->max_relf, plan->targets, plan->rules)) != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--max-relf limits the class %s, but no tensor of it "
                         "is quantised: leave it out", idle);
    for (size_t i = 0; i < ckpt_catalog_count(plan->targets); i++)
        has_e8m0 |= plan->rules[i] != NULL &&
                    ckpt_catalog_at(plan->targets, i)->scale_dtype == CKPT_F8_E8M0;
    return !o->sticky_scale || has_e8m0
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_USAGE, "--sticky-scale is about E8M0 scales, which no "
                           "weight that is quantised has: leave it out");
}

/* Codes that are not decoded can only be copied, within their layout. */
static ckpt_code check_codes(const job_plan *plan, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(plan->picked->catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(plan->picked->catalog, i);

        if (t->codes_name != NULL && !convert_keeps_layout(plan))
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which is not decoded: only "
                             "layout %s can hold it", t->name, t->codes_name,
                             plan->source->format->name);
    }
    return CKPT_OK;
}

ckpt_code convert_choose_targets(job_plan *plan, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(plan->picked->catalog);
    ckpt_code code = check_codes(plan, err);

    if (code != CKPT_OK)
        return code;
    if ((plan->rules = calloc(count + 1, sizeof *plan->rules)) == NULL)
        return ckpt_fail_memory(err, "rules", count);
    code = plan->like != NULL ? choose_like(plan, err) : choose_by_policy(plan, err);
    if (code == CKPT_OK)
        code = settle_rules(plan, err);
    return code == CKPT_OK ? check_rounding(plan, err) : code;
}
