/*
 * plan_quantise.h: which tensors of a conversion are quantised, and by which rule.
 *
 * Weights are those that the family's official form quantises; of a family that is not known, or
 * has no such form, those that `only` names. They have to be plain: rounding what was rounded is
 * refused. What has the encoding already that the rule makes is left as it is.
 */
#ifndef CKPT_PLAN_QUANTISE_H
#define CKPT_PLAN_QUANTISE_H

#include "catalog.h"
#include "class_rules.h"
#include "encoding.h"

typedef struct {
    int is_given;                  /* 0: nothing is quantised by rule */
    class_rules rules;
    const char *const *only;       /* shell patterns: quantise no other tensors */
    size_t only_count;             /* 0: all */
    const char *const *skip;       /* do not quantise these */
    size_t skip_count;
    ckpt_dtype scale_dtype;        /* of FP8 whose rule leaves it open; CKPT_NONE: as in plan.h */
    int scales_follow_experts;     /* as in plan.h */
    int is_family_known;           /* set by plan_quantise */
} quantise_policy;

/* The encoding that a rule makes. */
encoding_id plan_rule_encoding(const quantise_rule *rule);

/*
 * The tensors of `from` with the encodings that the policy gives them, and the rule by which each
 * gets it: rules[i], NULL for those that stay. `official` is what the family expects, or NULL. *out
 * is yours to free.
 */
ckpt_code plan_quantise(const ckpt_catalog *from, const ckpt_catalog *official,
                        const quantise_policy *policy, const quantise_rule **rules,
                        ckpt_catalog **out, ckpt_error *err);

/* The same for targets that are given: rules that make other encodings are refused. */
ckpt_code plan_quantise_like(const ckpt_catalog *from, const ckpt_catalog *targets,
                             const quantise_policy *policy, const quantise_rule **rules,
                             ckpt_error *err);

/* Rules for plain tensors that have to be rounded and have none: fp8-b128-ue8m0, and for FP4
 * fp4-b32-deepseek, "+canonical" if wanted. */
void plan_rounding(const ckpt_catalog *from, const ckpt_catalog *targets, int is_canonical,
                   const quantise_rule **rules);

/* 1 when the family's official form tells which tensors are quantised. `official` may be NULL. */
int plan_has_quantised(const ckpt_catalog *official);

#endif
