/* model_config.c: reads all spellings of the config and refuses contradictions. */
#include "model_config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_members.h"
#include "libckpt/config_names.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

typedef enum { FIELD_U32, FIELD_U64, FIELD_REAL } field_kind;

/* A member by its name in a release's config.json; config_names.h has the other spellings. */
typedef struct {
    const char *name;
    field_kind kind;
    size_t offset;
} field;

#define AT(member) offsetof(run_config, member)

static const field fields[] = {
    { "vocab_size", FIELD_U32, AT(vocab_size) },
    { "hidden_size", FIELD_U32, AT(dim) },
    { "num_hidden_layers", FIELD_U32, AT(layer_count) },
    { "num_nextn_predict_layers", FIELD_U32, AT(mtp_count) },
    { "num_hash_layers", FIELD_U32, AT(hash_layer_count) },
    { "num_attention_heads", FIELD_U32, AT(head_count) },
    { "head_dim", FIELD_U32, AT(head_dim) },
    { "qk_rope_head_dim", FIELD_U32, AT(rope_dim) },
    { "q_lora_rank", FIELD_U32, AT(q_rank) },
    { "o_groups", FIELD_U32, AT(group_count) },
    { "o_lora_rank", FIELD_U32, AT(o_rank) },
    { "sliding_window", FIELD_U32, AT(window) },
    { "n_routed_experts", FIELD_U32, AT(expert_count) },
    { "num_experts_per_tok", FIELD_U32, AT(active_count) },
    { "moe_intermediate_size", FIELD_U32, AT(expert_dim) },
    { "index_n_heads", FIELD_U32, AT(index_head_count) },
    { "index_head_dim", FIELD_U32, AT(index_dim) },
    { "index_topk", FIELD_U32, AT(index_topk) },
    { "hc_mult", FIELD_U32, AT(stream_count) },
    { "hc_sinkhorn_iters", FIELD_U32, AT(sinkhorn_iters) },
    { "max_position_embeddings", FIELD_U64, AT(max_positions) },
    { "rope_scaling.original_max_position_embeddings", FIELD_U64, AT(original_length) },
    { "rope_theta", FIELD_REAL, AT(rope_theta) },
    { "compress_rope_theta", FIELD_REAL, AT(compress_theta) },
    { "rope_scaling.factor", FIELD_REAL, AT(rope_factor) },
    { "rope_scaling.beta_fast", FIELD_REAL, AT(beta_fast) },
    { "rope_scaling.beta_slow", FIELD_REAL, AT(beta_slow) },
    { "routed_scaling_factor", FIELD_REAL, AT(route_scale) },
    { "swiglu_limit", FIELD_REAL, AT(swiglu_limit) },
    { "hc_eps", FIELD_REAL, AT(hc_eps) },
    { "rms_norm_eps", FIELD_REAL, AT(norm_eps) },
};

enum { FIELD_COUNT = sizeof fields / sizeof *fields };

typedef struct {
    const json_value *root;
    const char *subject;
    int is_inference;
    int has_layer_kinds;         /* transformers' `mlp_layer_types` */
    uint32_t hash_layer_count;
    uint32_t rope_dim;           /* from `partial_rotary_factor`; 0: not given */
} reading;

static const char *spelling(const reading *r, const char *name)
{
    return r->is_inference ? config_name_find(name)->inference : name;
}

/* The value that transformers' own members give to a field which its config lacks; or NULL. */
static const uint32_t *derived_field(const reading *r, const field *f)
{
    if (f->offset == AT(hash_layer_count) && r->has_layer_kinds)
        return &r->hash_layer_count;
    return f->offset == AT(rope_dim) && r->rope_dim > 0 ? &r->rope_dim : NULL;
}

static ckpt_code read_field(const reading *r, const field *f, run_config *out, ckpt_error *err)
{
    const char *name = spelling(r, f->name);
    const char *fallback = config_name_find(f->name)->fallback;
    const json_value *v = config_find(r->root, f->name);
    const uint32_t *derived = v == NULL ? derived_field(r, f) : NULL;
    void *at = (char *)out + f->offset;
    uint64_t integer = 0;
    double real = 0;

    if (derived != NULL) {
        memcpy(at, derived, sizeof *derived);
        return CKPT_OK;
    }
    if (v == NULL && fallback == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is missing", r->subject, name);
    if (v == NULL) {
        real = strtod(fallback, NULL);
        integer = (uint64_t)real;
    } else if (f->kind == FIELD_REAL) {
        if (!json_number(v, &real) || real < 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is not a number of 0 or more",
                             r->subject, name);
    } else if (!json_u64(v, &integer) || (f->kind == FIELD_U32 && integer > INT32_MAX)) {
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is not an integer in 0..%d", r->subject,
                         name, INT32_MAX);
    }
    if (f->kind == FIELD_REAL)
        memcpy(at, &real, sizeof real);
    else if (f->kind == FIELD_U64)
        memcpy(at, &integer, sizeof integer);
    else
        memcpy(at, &(uint32_t){ (uint32_t)integer }, sizeof(uint32_t));
    return CKPT_OK;
}

static int is_ratio(uint64_t ratio)
{
    return ratio == 0 || ratio == RUN_RATIO_CSA || ratio == RUN_RATIO_HCA;
}

/* *out: the ratio of a layer of this kind. Returns 0 if the config does not give it or it is not
 * supported. */
static int ratio_of_kind(const reading *r, const json_value *kind, uint32_t *out)
{
    uint64_t ratio;

    if (config_layer_ratio(r->root, kind, &ratio, NULL) != CKPT_OK)
        return 0;
    if (ratio != 0 && json_member(r->root, "compress_rates") == NULL)
        return 0;
    *out = (uint32_t)ratio;
    return is_ratio(ratio);
}

/* `layer_types` lists the main layers only; MTP blocks do not compress. */
static ckpt_code read_layer_types(const reading *r, run_config *out, ckpt_error *err)
{
    const json_value *list = json_member(r->root, "layer_types");
    const json_value *v = json_first(list);

    if (!json_is_array(list) || json_count(list) != out->layer_count)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': 'layer_types' has %zu entries, expected %u", r->subject,
                         json_is_array(list) ? json_count(list) : 0, out->layer_count);
    for (uint32_t i = 0; i < out->layer_count; i++, v = json_next(v))
        if (!ratio_of_kind(r, v, &out->ratios[i]))
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s': entry %u of 'layer_types' does not have a ratio of 0, 4 or 128 "
                             "in 'compress_rates'",
                             r->subject, i);
    return CKPT_OK;
}

static ckpt_code read_ratios(const reading *r, run_config *out, ckpt_error *err)
{
    const uint32_t wanted = out->layer_count + out->mtp_count;
    const json_value *list = json_member(r->root, "compress_ratios");
    const json_value *v = json_first(list);

    if (list == NULL && json_member(r->root, "layer_types") != NULL)
        return read_layer_types(r, out, err);
    if (!json_is_array(list) || json_count(list) != wanted)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': 'compress_ratios' has %s, expected %u (%s and %s)", r->subject,
                         text_count(json_is_array(list) ? json_count(list) : 0, "entry",
                                    "entries").text, wanted,
                         text_count(out->layer_count, "layer", "layers").text,
                         text_count(out->mtp_count, "MTP block", "MTP blocks").text);
    for (uint32_t i = 0; i < wanted; i++, v = json_next(v)) {
        uint64_t ratio;

        if (!json_u64(v, &ratio) || !is_ratio(ratio))
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s': entry %u of 'compress_ratios' is not 0, 4 or 128", r->subject,
                             i);
        out->ratios[i] = (uint32_t)ratio;
    }
    return CKPT_OK;
}

/* Values outside these ranges make every logit 0 or NaN, or independent of the weights. */
static ckpt_code check_ranges(const reading *r, const run_config *c, ckpt_error *err)
{
    static const struct {
        size_t offset;
        double least;
        double most;
        int or_zero;             /* 0 is allowed, too: it turns the feature off */
    } ranges[] = {
        { AT(rope_theta), 1.001, 1e15, 0 }, { AT(compress_theta), 1.001, 1e15, 0 },
        { AT(rope_factor), 1, 1e6, 0 },     { AT(beta_fast), 1e-3, 1e6, 0 },
        { AT(beta_slow), 1e-3, 1e6, 0 },    { AT(route_scale), 1e-6, 1e6, 0 },
        { AT(swiglu_limit), 1e-3, 1e9, 1 }, { AT(hc_eps), 0, 1, 0 },
        { AT(norm_eps), 0, 1, 0 },
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const field *f = fields;
        double value;

        memcpy(&value, (const char *)c + ranges[i].offset, sizeof value);
        if ((value >= ranges[i].least && value <= ranges[i].most) ||
            (ranges[i].or_zero && value == 0))
            continue;
        while (f->offset != ranges[i].offset)
            f++;
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is %g, expected %g to %g", r->subject,
                         spelling(r, f->name), value, ranges[i].least,
                         ranges[i].most);
    }
    return CKPT_OK;
}

/* Refuse unknown members of an object that defines a scaling of rotary angles. */
static ckpt_code check_rope_members(const reading *r, const char *where, const json_value *object,
                                    ckpt_error *err)
{
    static const char *const known[] = {
        "type", "rope_type", "factor", "beta_fast", "beta_slow", "attention_factor",
        "original_max_position_embeddings", "rope_theta", "partial_rotary_factor",
    };

    for (const json_value *v = json_is_object(object) ? json_first(object) : NULL; v != NULL;
         v = json_next(v)) {
        size_t i = 0;

        while (i < sizeof known / sizeof *known && strcmp(known[i], json_key(v)) != 0)
            i++;
        if (i == sizeof known / sizeof *known && !json_is_null(v))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': what '%s' of '%s' does to the forward pass "
                             "is not known here", r->subject, json_key(v), where);
    }
    return CKPT_OK;
}

/* Refuse a scaling that contradicts itself or has unsupported members. In inference/config.json an
 * original length of 0 means no scaling, as in DeepSeek's code; in other configs with a factor it
 * is probably a mistake. */
static ckpt_code check_scaling(const reading *r, const run_config *c, ckpt_error *err)
{
    const json_value *parameters = json_member(r->root, "rope_parameters");
    const json_value *main_table = json_member(parameters, "main");
    const char *main_type = json_string(json_member(main_table, "rope_type"));
    ckpt_code code;

    if ((code = check_rope_members(r, "rope_scaling", json_member(r->root, "rope_scaling"),
                                   err)) != CKPT_OK ||
        (code = check_rope_members(r, "rope_parameters.compress",
                                   json_member(parameters, "compress"), err)) != CKPT_OK ||
        (code = check_rope_members(r, "rope_parameters.main", main_table, err)) != CKPT_OK)
        return code;
    for (const json_value *v = json_is_object(parameters) ? json_first(parameters) : NULL;
         v != NULL; v = json_next(v))
        if (!json_is_null(v) && strcmp(json_key(v), "main") != 0 &&
            strcmp(json_key(v), "compress") != 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': 'rope_parameters' has '%s', expected main "
                             "and compress only", r->subject, json_key(v));
    if (main_type != NULL && strcmp(main_type, "default") != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': 'rope_type' of 'rope_parameters.main' is not "
                         "\"default\"", r->subject);
    if (!r->is_inference && c->rope_factor > 1 && c->original_length == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': 'rope_scaling' has factor %g, but "
                         "'original_max_position_embeddings' is 0 or missing", r->subject,
                         c->rope_factor);
    if (c->beta_fast < c->beta_slow)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': '%s' is %g, below '%s', which is %g",
                         r->subject, spelling(r, "rope_scaling.beta_fast"), c->beta_fast,
                         spelling(r, "rope_scaling.beta_slow"), c->beta_slow);
    return CKPT_OK;
}

static ckpt_code check_dimensions(const run_config *c, const char *subject, ckpt_error *err)
{
    const struct {
        int is_wrong;
        const char *text;
    } rules[] = {
        { c->vocab_size == 0 || c->dim == 0 || c->layer_count == 0 || c->head_count == 0 ||
              c->q_rank == 0 || c->o_rank == 0 || c->expert_dim == 0 || c->window == 0,
          "a size of the model is 0" },
        { c->layer_count > RUN_LAYERS_MAX || c->mtp_count > RUN_LAYERS_MAX - c->layer_count,
          "more than 1024 layers" },
        { c->head_dim % 2 != 0 || c->rope_dim % 2 != 0 || c->index_dim % 2 != 0,
          "an odd head dimension: rotation works on pairs" },
        { c->rope_dim == 0 || c->rope_dim > c->head_dim,
          "the rotary dimensions do not fit the head dimension" },
        { c->rope_dim > c->index_dim, "the rotary dimensions do not fit the index head dimension" },
        { c->group_count == 0 || c->head_count % c->group_count != 0,
          "the number of heads is not a multiple of the output groups" },
        { c->active_count == 0 || c->active_count > c->expert_count ||
              c->active_count > RUN_ACTIVE_MAX,
          "num_experts_per_tok must be 1 to 64 and at most the number of experts" },
        { c->index_head_count == 0 || c->index_topk == 0, "the indexer has no heads or no top-k" },
        { c->stream_count == 0 || c->stream_count > RUN_STREAMS_MAX,
          "the number of hyper-connection streams must be 1 to 8" },
        { c->sinkhorn_iters == 0, "hc_sinkhorn_iters is 0" },
        { c->max_positions == 0, "no positions allowed" },
    };

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].is_wrong)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s", subject, rules[i].text);
    return CKPT_OK;
}

static ckpt_code digest_config(run_config *c, ckpt_error *err)
{
    sha256 *h;
    ckpt_code code = sha256_begin(&h, err);
    char line[128];

    if (code != CKPT_OK)
        return code;
    for (size_t i = 0; i < FIELD_COUNT && code == CKPT_OK; i++) {
        const void *at = (const char *)c + fields[i].offset;
        double value;

        if (fields[i].kind == FIELD_REAL)
            value = *(const double *)at;
        else if (fields[i].kind == FIELD_U64)
            value = (double)*(const uint64_t *)at;
        else
            value = *(const uint32_t *)at;
        snprintf(line, sizeof line, "%s %.17g\n",
                 config_name_find(fields[i].name)->inference, value);
        code = sha256_add(h, line, strlen(line), err);
    }
    for (uint32_t i = 0; i < c->layer_count + c->mtp_count && code == CKPT_OK; i++) {
        snprintf(line, sizeof line, "%u\n", c->ratios[i]);
        code = sha256_add(h, line, strlen(line), err);
    }
    if (code == CKPT_OK)
        return sha256_end(h, c->digest, err);
    sha256_abort(h);
    return code;
}

/* Read the members by which transformers gives rope_dim and the number of hash layers. */
static ckpt_code read_layer_kinds(reading *r, ckpt_error *err)
{
    const json_value *wrong;
    uint64_t count;

    r->rope_dim = config_rope_dim(r->root);
    r->has_layer_kinds = config_hash_layers(r->root, &count, &wrong);
    if (wrong != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': 'mlp_layer_types' has '%s': expected hash_moe for the first "
                         "layers, then moe", r->subject,
                         json_string(wrong) == NULL ? "a non-string" : json_string(wrong));
    r->hash_layer_count = (uint32_t)size_min(count, UINT32_MAX);
    return CKPT_OK;
}

ckpt_code run_config_read(const json_value *config, const char *subject, run_config *out,
                          ckpt_error *err)
{
    reading r = { config, subject, config_is_inference(config), 0, 0, 0 };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (!json_is_object(config))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not an object", subject);
    if ((code = config_members_check(config, subject, err)) != CKPT_OK ||
        (code = read_layer_kinds(&r, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < FIELD_COUNT; i++)
        if ((code = read_field(&r, &fields[i], out, err)) != CKPT_OK)
            return code;
    if ((code = check_dimensions(out, subject, err)) != CKPT_OK ||
        (code = check_ranges(&r, out, err)) != CKPT_OK ||
        (code = check_scaling(&r, out, err)) != CKPT_OK ||
        (code = read_ratios(&r, out, err)) != CKPT_OK)
        return code;
    return digest_config(out, err);
}
