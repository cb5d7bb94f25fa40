/*
 * plan.h: which encoding each tensor of a conversion gets.
 *
 * Only weights that are quantised, in the source or in the family's release, change: norms,
 * routers, hyper-connections and other plain tensors are kept.
 *
 * Servers derive the dtype of all scales from the experts' encoding. vLLM reads E8M0 scales where
 * config.json says FP4 experts and F32 scales where it says FP8 ones, and silently misreads E8M0
 * scales of FP8 experts as integers. The releases are therefore: FP4 experts with E8M0 scales
 * throughout, FP8 experts (Base) with F32 scales throughout.
 */
#ifndef CKPT_PLAN_H
#define CKPT_PLAN_H

#include "catalog.h"

typedef enum { PLAN_KEEP, PLAN_BF16, PLAN_F32, PLAN_FP8, PLAN_FP4 } plan_encoding;

typedef struct {
    plan_encoding dtype;           /* of quantised weights; PLAN_FP4 is only for experts */
    plan_encoding experts;         /* of routed experts */
    ckpt_dtype scale_dtype;        /* of FP8: F8_E8M0, F32; CKPT_NONE: as below, else unchanged */
    int scales_follow_experts;     /* without scale_dtype: experts that become FP8 give all FP8
                                      weights F32 scales, experts that become FP4 E8M0 scales */
} plan_policy;

/* 1 when `experts` applies to it: a weight of a routed expert (tensor_class.h). */
int plan_is_expert(const char *name);

/* 1 for encodings without scales. */
int plan_is_plain(plan_encoding encoding);

/* The family's tensor of this name; NULL: there is none. `official` may be NULL. */
const ckpt_tensor *plan_find_official(const ckpt_catalog *official, const ckpt_tensor *tensor);
/* 1 when it is a weight that is quantised, in the source or in the family's release. */
int plan_is_quantised(const ckpt_tensor *tensor, const ckpt_tensor *official);

/* Make a catalog of the tensors of `from` with the encodings of the policy. `official` is the
 * family's catalog, or NULL. Fails if the policy asks for FP8 or FP4 but applies to no tensor. *out
 * is yours to free, before `from`, whose names it borrows. */
ckpt_code plan_targets(const ckpt_catalog *from, const ckpt_catalog *official,
                       const plan_policy *policy, ckpt_catalog **out, ckpt_error *err);

#endif
