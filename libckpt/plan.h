/*
 * plan.h: which encoding each tensor of a conversion gets.
 *
 * Only weights that are quantised, now or by the family's official form, change: norms, routers,
 * hyper-connection and other plain tensors stay as they are. A weight below a component `experts`
 * that is followed by a number is a routed expert.
 */
#ifndef CKPT_PLAN_H
#define CKPT_PLAN_H

#include "catalog.h"

typedef enum { PLAN_KEEP, PLAN_BF16, PLAN_FP8, PLAN_FP4 } plan_encoding;

typedef struct {
    plan_encoding dtype;           /* of quantised weights; PLAN_FP4 is for experts alone */
    plan_encoding experts;         /* of routed experts */
    ckpt_dtype scale_dtype;        /* of FP8: F8_E8M0, F32, or CKPT_NONE to keep what is there */
} plan_policy;

int plan_is_expert(const char *name);

/* The tensors of `from` with the encodings of the policy. `official` is what the family expects, or
 * NULL. Refuses a policy that changes nothing where it should. *out is yours to free. */
ckpt_code plan_targets(const ckpt_catalog *from, const ckpt_catalog *official,
                       const plan_policy *policy, ckpt_catalog **out, ckpt_error *err);

#endif
