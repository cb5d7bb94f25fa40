/* Options given as text: layout and encodings, and which options apply to which layout. */
#include <stdio.h>
#include <string.h>

#include "convert_private.h"

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

static ckpt_code take_encodings(const convert_words *w, plan_policy *out, ckpt_error *err)
{
    const int mp = w->layout != NULL && strcmp(w->layout, "mp") == 0;
    ckpt_code code;

    out->dtype = PLAN_KEEP;
    if ((code = take_encoding("dtype", w->dtype, &out->dtype, err)) != CKPT_OK)
        return code;
    out->experts = out->dtype;
    if ((code = take_encoding("experts", w->experts, &out->experts, err)) != CKPT_OK)
        return code;
    if (out->dtype == PLAN_FP4)
        return ckpt_fail(err, CKPT_E_USAGE, "--dtype fp4: only experts can be FP4 (use --experts "
            "fp4)");
    if (mp && (out->dtype == PLAN_F32 || out->experts == PLAN_F32))
        return ckpt_fail(err, CKPT_E_USAGE, "--layout mp holds BF16, FP8 and FP4 weights, as the "
                         "reference code does: --dtype and --experts cannot be f32");
    if (w->scale_dtype != NULL && strcmp(w->scale_dtype, "f32") != 0 &&
        strcmp(w->scale_dtype, "e8m0") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--scale-dtype '%s': expected e8m0 or f32",
                         w->scale_dtype);
    out->scale_dtype = w->scale_dtype == NULL                ? CKPT_NONE
                       : strcmp(w->scale_dtype, "f32") == 0 ? CKPT_F32
                                                             : CKPT_F8_E8M0;
    return CKPT_OK;
}

/* Megatron trains in BF16, so its checkpoints are BF16. */
static ckpt_code take_torch_dist(const convert_words *w, convert_options *c, ckpt_error *err)
{
    if (w->dtype != NULL && strcmp(w->dtype, "bf16") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout torch_dist is always BF16: expected --dtype "
            "bf16 or none, got %s",
                         w->dtype);
    if (w->experts != NULL && strcmp(w->experts, "bf16") != 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout torch_dist is always BF16: expected "
            "--experts bf16 or none, got %s",
                         w->experts);
    if (w->scale_dtype != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--layout torch_dist is always BF16, without scales: "
                         "--scale-dtype cannot be used");
    c->policy.dtype = PLAN_BF16;
    c->policy.experts = PLAN_BF16;
    if (w->key_style != NULL)
        c->names = strcmp(w->key_style, "v2") == 0 ? "torch_dist-v2" : "torch_dist-v1";
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
    return CKPT_OK;
}

ckpt_code convert_take_words(const convert_words *words, convert_options *out, ckpt_error *err)
{
    const char *layout = words->layout == NULL ? "hf" : words->layout;
    ckpt_code code;

    if (out->no_digest && out->verify)
        return ckpt_fail(err, CKPT_E_USAGE, "--verify compares digests and cannot be used with "
            "--no-digest");
    if ((code = convert_find_layout(layout, &out->format, err)) != CKPT_OK)
        return code;
    if ((out->sharding.mp != 0) != (strcmp(layout, "mp") == 0))
        return ckpt_fail(err, CKPT_E_USAGE, out->sharding.mp == 0
                                                ? "--layout mp needs --mp N"
                                                : "--mp only applies to --layout mp");
    if (out->names != NULL && out->format->map_names != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--names only applies to --layout hf: %s has fixed "
                         "names", layout);
    if (out->file_bytes_max != 0 && out->format->map_names != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--max-shard-size only applies to --layout hf: the "
                         "ranks decide the files of %s", layout);
    if ((code = check_sharding(words, out, err)) != CKPT_OK ||
        (code = take_encodings(words, &out->policy, err)) != CKPT_OK)
        return code;
    return strcmp(layout, "torch_dist") == 0 ? take_torch_dist(words, out, err) : CKPT_OK;
}
