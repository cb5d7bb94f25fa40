/*
 * plan_quantise.h: which tensors of a conversion are quantised, and by which rule.
 *
 * Weights are the tensors that the family's release quantises. If the family is unknown, or has no
 * quantised release, they are the tensors that `only` names. They must be plain: quantised values
 * are not rounded a second time. A tensor that has the encoding of its rule already is kept.
 */
#ifndef CKPT_PLAN_QUANTISE_H
#define CKPT_PLAN_QUANTISE_H

#include "catalog.h"
#include "class_rules.h"
#include "encoding.h"

typedef struct {
    int is_given;                  /* 0: nothing is quantised by rule */
    class_rules rules;
    const char *const *only;       /* shell patterns of tensors to quantise */
    size_t only_count;             /* 0: all weights */
    const char *const *skip;       /* shell patterns of tensors not to quantise */
    size_t skip_count;
    ckpt_dtype scale_dtype;        /* of FP8 if the rule does not say; CKPT_NONE: as in plan.h */
    int scales_follow_experts;     /* as in plan.h */
    int is_family_known;           /* set by plan_quantise */
} quantise_policy;

/* The encoding that a rule makes. */
encoding_id plan_rule_encoding(const quantise_rule *rule);

/*
 * Make a catalog of the tensors of `from` with the encodings of the policy, and set rules[i] to the
 * rule of each, NULL for those that are not quantised. `official` is the family's catalog, or NULL.
 * *out is yours to free, before `from`, whose names it borrows.
 */
ckpt_code plan_quantise(const ckpt_catalog *from, const ckpt_catalog *official,
                        const quantise_policy *policy, const quantise_rule **rules,
                        ckpt_catalog **out, ckpt_error *err);

/* The same for given targets: a rule that makes another encoding than the target's is refused. */
ckpt_code plan_quantise_like(const ckpt_catalog *from, const ckpt_catalog *targets,
                             const quantise_policy *policy, const quantise_rule **rules,
                             ckpt_error *err);

/* Set default rules for plain tensors whose target is quantised and that have no rule:
 * fp8-b128-ue8m0, and for FP4 fp4-b32-deepseek, with "+canonical" if asked for. */
void plan_rounding(const ckpt_catalog *from, const ckpt_catalog *targets, int is_canonical,
                   const quantise_rule **rules);

/* 1 when the family's catalog says which tensors are quantised. `official` may be NULL. */
int plan_has_quantised(const ckpt_catalog *official);

#endif
