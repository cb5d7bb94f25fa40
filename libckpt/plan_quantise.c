/* Plans which tensors are quantised, and by which rule. */
#include "plan_quantise.h"

#include <stdio.h>

#include "plan.h"
#include "text.h"

encoding_id plan_rule_encoding(const quantise_rule *rule)
{
    if (rule->has_tensor_scale || rule->from_fp4)
        return ENCODING_NVFP4;
    return encoding_find(rule->codes, rule->block_rows, rule->block_cols);
}

/* The rule for a tensor. The exact cast needs FP4 codes; plain values get nvfp4-modelopt. */
static const quantise_rule *rule_for(const ckpt_tensor *t, const quantise_rule *rule)
{
    return rule != NULL && rule->from_fp4 && t->scale_dtype == CKPT_NONE
               ? quantise_rule_find("nvfp4-modelopt")
               : rule;
}

/* A preset uses the exact cast for FP4 weights and rounds others. A user who names the exact cast
 * does not want values rounded. */
static ckpt_code check_exact(const ckpt_tensor *t, const quantise_policy *policy,
                             const quantise_rule *rule, ckpt_error *err)
{
    if (rule == NULL || !rule->from_fp4 || t->scale_dtype != CKPT_NONE ||
        policy->rules.preset != NULL)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, but %s takes FP4 weights, which it "
                     "does not round: nvfp4 rounds", t->name, ckpt_dtype_name(t->dtype),
                     rule->name);
}

/* 1 when the rule takes a quantised tensor: its FP4 codes, or the values of FP8. */
static int takes_quantised(const quantise_rule *rule, const ckpt_tensor *t)
{
    if (rule == NULL)
        return 0;
    return (rule->from_fp4 && encoding_is(t, ENCODING_FP4_32)) ||
           (rule->takes_fp8 && t->dtype == CKPT_F8_E4M3 && t->scale_dtype != CKPT_NONE);
}

static int is_plain_float(const ckpt_tensor *t)
{
    return t->scale_dtype == CKPT_NONE &&
           (t->dtype == CKPT_BF16 || t->dtype == CKPT_F16 || t->dtype == CKPT_F32);
}

static int is_selected(const quantise_policy *policy, const char *name)
{
    return (policy->only_count == 0 || text_matches_any(name, policy->only, policy->only_count)) &&
           !text_matches_any(name, policy->skip, policy->skip_count);
}

/* ---- which tensors are weights ---- */

int plan_has_quantised(const ckpt_catalog *official)
{
    for (size_t i = 0; official != NULL && i < ckpt_catalog_count(official); i++)
        if (ckpt_catalog_at(official, i)->scale_dtype != CKPT_NONE)
            return 1;
    return 0;
}

/* 1 when a tensor is a weight. If the family is unknown, a matrix is a weight only if the user has
 * selected it with --only, because nothing else distinguishes weights from other matrices. */
static int is_weight(const ckpt_tensor *t, const ckpt_catalog *official,
                     const quantise_policy *policy)
{
    const ckpt_tensor *expected = plan_find_official(official, t);

    if (plan_is_quantised(t, expected))
        return 1;
    if (expected != NULL && expected->is_linear)
        return is_plain_float(t);
    return !policy->is_family_known && policy->only_count > 0 && t->rank >= 2 && is_plain_float(t);
}

/* Refuse a pattern, or a class named by the user, that matches no tensor. */
static ckpt_code check_words(const ckpt_catalog *from, const quantise_policy *policy,
                             ckpt_error *err)
{
    const char *idle = class_rules_idle(&policy->rules, from);

    for (size_t p = 0; p < policy->only_count + policy->skip_count; p++) {
        const int is_only = p < policy->only_count;
        const char *glob = is_only ? policy->only[p] : policy->skip[p - policy->only_count];

        if (!catalog_has_match(from, glob))
            return ckpt_fail(err, CKPT_E_USAGE, "--%s '%s' matches no tensor",
                             is_only ? "only" : "skip", glob);
    }
    if (idle == NULL)
        return CKPT_OK;
    if (policy->rules.preset != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize %s names the class %s, but no tensor is of "
                         "it: name rules instead, such as fp8-ue8m0", policy->rules.preset, idle);
    return ckpt_fail(err, CKPT_E_USAGE, "--quantize names the class %s, but no tensor is of it: "
                     "leave it out", idle);
}

/* Refuse a pattern of --only that matches no weight. */
static ckpt_code check_patterns(const ckpt_catalog *from, const ckpt_catalog *official,
                                const quantise_policy *policy, ckpt_error *err)
{
    for (size_t p = 0; p < policy->only_count; p++) {
        const ckpt_tensor *other = NULL;
        int found = 0;

        for (size_t i = 0; i < ckpt_catalog_count(from) && !found; i++) {
            const ckpt_tensor *t = ckpt_catalog_at(from, i);

            if (!text_matches_any(t->name, &policy->only[p], 1))
                continue;
            found = is_weight(t, official, policy);
            other = other == NULL ? t : other;
        }
        if (!found)
            return ckpt_fail(err, CKPT_E_USAGE, "--only '%s' matches '%s' (%s), which is never "
                             "quantised, and no weight", policy->only[p], other->name,
                             ckpt_dtype_name(other->dtype));
    }
    return CKPT_OK;
}

/* ---- one tensor ---- */

/* Refuse a tensor whose shape the rule does not support. A rule asks for more than its encoding
 * where files may end a row with a part of a group, but none is made. */
static ckpt_code check_rule(const ckpt_tensor *from, const ckpt_tensor *to,
                            const quantise_rule *rule, ckpt_error *err)
{
    const char *problem = encoding_problem(to);
    char groups[64];
    char text[256];

    if (problem == NULL && !quantise_rule_fits(rule, ckpt_tensor_cols(to))) {
        snprintf(groups, sizeof groups, "its columns are not whole groups of %u",
                 (unsigned)rule->block_cols);
        problem = groups;
    }
    if (problem == NULL)
        return CKPT_OK;
    catalog_shape_text(from, text, sizeof text);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s', %s, cannot be quantised by %s: %s; leave it "
                     "out with --skip", from->name, text, rule->name, problem);
}

static ckpt_code fail_quantised(const ckpt_tensor *t, const quantise_rule *rule, ckpt_error *err)
{
    char text[64];

    ckpt_tensor_encoding(t, text, sizeof text);
    if (encoding_is(t, ENCODING_FP4_32) && plan_rule_encoding(rule) == ENCODING_FP8_128)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is quantised already (%s): %s would round "
                         "it a second time; --experts fp8 converts it without a rule, exactly",
                         t->name, text, rule->name);
    return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is quantised already (%s): %s would round it "
                     "a second time; cast to BF16 first (--dtype bf16), or leave its class out",
                     t->name, text, rule->name);
}

/* The scale dtype. Only for FP8 128 x 128 with power-of-two scales is there a choice. */
static ckpt_dtype choose_scale(const quantise_rule *rule, const ckpt_tensor *official,
                               const quantise_policy *policy)
{
    if (!rule->powers_of_two || plan_rule_encoding(rule) != ENCODING_FP8_128)
        return rule->scale_dtype;
    if (policy->scale_dtype != CKPT_NONE)
        return policy->scale_dtype;
    return official != NULL && official->dtype == CKPT_F8_E4M3 ? official->scale_dtype
                                                               : rule->scale_dtype;
}

/* Set the stored dtypes and part names that servers expect. */
static void store_as_read(ckpt_tensor *t, encoding_id id)
{
    t->stored_dtype = t->dtype == CKPT_F4 ? CKPT_I8 : t->dtype;
    if (id == ENCODING_FP8_1X32)        /* SGLang loads it into U8: E8M0 would be cast by value */
        t->stored_scale_dtype = CKPT_U8;
    if (id == ENCODING_FP8_ROW || id == ENCODING_NVFP4)
        t->part_names = CKPT_NAMES_MODELOPT;
    if (id != ENCODING_NVFP4)
        return;
    t->stored_dtype = CKPT_U8;
    t->has_input_scale = 1;
}

static ckpt_code plan_weight(ckpt_tensor *t, const ckpt_tensor *official,
                             const quantise_policy *policy, const quantise_rule **rule,
                             ckpt_error *err)
{
    const ckpt_tensor from = *t;
    const encoding_id id = plan_rule_encoding(*rule);
    const ckpt_dtype scale = choose_scale(*rule, official, policy);
    ckpt_code code;

    if (encoding_is(t, id)) {
        t->scale_dtype = scale;
        *rule = NULL;
        return CKPT_OK;
    }
    if (t->scale_dtype != CKPT_NONE && !takes_quantised(*rule, t))
        return fail_quantised(t, *rule, err);
    if (t->scale_dtype == CKPT_NONE && !is_plain_float(t))
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which is not quantised",
                         t->name, ckpt_dtype_name(t->dtype));
    if ((code = check_exact(t, policy, *rule, err)) != CKPT_OK)
        return code;
    *rule = rule_for(t, *rule);
    encoding_set(t, id, scale);
    store_as_read(t, id);
    return check_rule(&from, t, *rule, err);
}

/* ---- all of them ---- */

/* The scale dtype required by the experts, if they are quantised; see plan.h. */
static ckpt_dtype scale_of_experts(const ckpt_catalog *from, const quantise_policy *policy)
{
    for (size_t i = 0; policy->scales_follow_experts && i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(from, i);
        const quantise_rule *rule = class_rules_find(&policy->rules, t->name);

        if (plan_is_expert(t->name) && rule != NULL)
            return rule->codes == CKPT_F4 ? CKPT_F8_E8M0 : CKPT_F32;
    }
    return CKPT_NONE;
}

static quantise_policy settle(const ckpt_catalog *from, const ckpt_catalog *official,
                              const quantise_policy *policy)
{
    quantise_policy settled = *policy;

    settled.is_family_known = plan_has_quantised(official);
    if (settled.scale_dtype == CKPT_NONE)
        settled.scale_dtype = policy->rules.scale_dtype;
    if (settled.scale_dtype == CKPT_NONE)
        settled.scale_dtype = scale_of_experts(from, policy);
    return settled;
}

/* Refuse a --scale-dtype that a rule cannot produce. */
static ckpt_code check_scales(const quantise_policy *policy, ckpt_error *err)
{
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++) {
        const quantise_rule *rule = policy->rules.rules[class];

        if (rule != NULL && policy->scale_dtype == CKPT_F8_E8M0 && !rule->powers_of_two &&
            rule->scale_dtype == CKPT_F32)
            return ckpt_fail(err, CKPT_E_USAGE, "--scale-dtype e8m0: the scales of %s are no "
                             "powers of two; fp8-b128-ue8m0 has such", rule->name);
    }
    return CKPT_OK;
}

static ckpt_code fail_nothing(const ckpt_catalog *from, int is_family_known, size_t left_out,
                              ckpt_error *err)
{
    if (left_out > 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--quantize changes nothing: --only and --skip leave "
                         "out all weights of its classes, %zu", left_out);
    for (size_t i = 0; i < ckpt_catalog_count(from); i++)
        if (ckpt_catalog_at(from, i)->scale_dtype != CKPT_NONE)
            return ckpt_fail(err, CKPT_E_USAGE, "--quantize changes nothing: what it is about is "
                             "quantised already, such as '%s'", ckpt_catalog_at(from, i)->name);
    return ckpt_fail(err, CKPT_E_USAGE, !is_family_known
                     ? "nothing says which tensors to quantise: give --only PATTERN or --like "
                       "ORIGINAL"
                     : "--quantize changes nothing: the classes that it names have no weights "
                       "here");
}

ckpt_code plan_quantise(const ckpt_catalog *from, const ckpt_catalog *official,
                        const quantise_policy *policy, const quantise_rule **rules,
                        ckpt_catalog **out, ckpt_error *err)
{
    const quantise_policy settled = settle(from, official, policy);
    ckpt_catalog *targets = catalog_create_borrowing();
    ckpt_code code = CKPT_OK;
    size_t quantised = 0;
    size_t left_out = 0;

    if (targets == NULL)
        return ckpt_fail_memory(err, "a plan", ckpt_catalog_count(from));
    if ((code = check_scales(policy, err)) == CKPT_OK &&
        (code = check_words(from, policy, err)) == CKPT_OK)
        code = check_patterns(from, official, &settled, err);
    for (size_t i = 0; i < ckpt_catalog_count(from) && code == CKPT_OK; i++) {
        ckpt_tensor t = *ckpt_catalog_at(from, i);

        rules[i] = NULL;
        if (is_weight(&t, official, &settled))
            rules[i] = class_rules_find(&policy->rules, t.name);
        if (rules[i] != NULL && !is_selected(policy, t.name)) {
            rules[i] = NULL;
            left_out++;
        }
        if (rules[i] != NULL)
            code = plan_weight(&t, plan_find_official(official, &t), &settled, &rules[i], err);
        quantised += rules[i] != NULL;
        if (code == CKPT_OK)
            code = catalog_add(targets, &t, err);
    }
    if (code == CKPT_OK && quantised == 0)
        code = fail_nothing(from, settled.is_family_known, left_out, err);
    if (code != CKPT_OK)
        catalog_free(targets);
    else
        *out = targets;
    return code;
}

/* ---- given targets ---- */

/* 1 when the rule makes tensors of this encoding. */
static int makes(const quantise_rule *rule, const ckpt_tensor *to)
{
    return encoding_is(to, plan_rule_encoding(rule)) &&
           (to->scale_dtype == rule->scale_dtype ||
            (rule->powers_of_two && to->scale_dtype == CKPT_F32));
}

ckpt_code plan_quantise_like(const ckpt_catalog *from, const ckpt_catalog *targets,
                             const quantise_policy *policy, const quantise_rule **rules,
                             ckpt_error *err)
{
    ckpt_code code = check_words(from, policy, err);
    size_t quantised = 0;
    char text[64];

    if (code != CKPT_OK)
        return code;
    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(from, i);
        const ckpt_tensor *to = ckpt_catalog_at(targets, i);

        rules[i] = NULL;
        if (to->scale_dtype == CKPT_NONE || !is_selected(policy, t->name))
            continue;
        rules[i] = class_rules_find(&policy->rules, t->name);
        if (!is_plain_float(t) && !(takes_quantised(rules[i], t) && makes(rules[i], to)))
            rules[i] = NULL;
        if ((code = check_exact(t, policy, rules[i], err)) != CKPT_OK)
            return code;
        rules[i] = rule_for(t, rules[i]);
        quantised += rules[i] != NULL;
        if (rules[i] == NULL || makes(rules[i], to))
            continue;
        ckpt_tensor_encoding(to, text, sizeof text);
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s in the model to follow, which %s "
                         "does not make", to->name, text, rules[i]->name);
    }
    if (quantised > 0)
        return CKPT_OK;
    return plan_has_quantised(targets)
               ? fail_nothing(from, 1, 0, err)
               : ckpt_fail(err, CKPT_E_USAGE, "--quantize changes nothing: no weight of the model "
                           "to follow is quantised");
}

void plan_rounding(const ckpt_catalog *from, const ckpt_catalog *targets, int is_canonical,
                   const quantise_rule **rules)
{
    const quantise_rule *fp8 = quantise_rule_find("fp8-b128-ue8m0");
    const quantise_rule *fp4 =
        quantise_rule_find(is_canonical ? "fp4-b32-deepseek+canonical" : "fp4-b32-deepseek");

    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *to = ckpt_catalog_at(targets, i);

        if (rules[i] != NULL || !is_plain_float(ckpt_catalog_at(from, i)))
            continue;
        rules[i] = makes(fp8, to) ? fp8 : makes(fp4, to) ? fp4 : NULL;
    }
}
