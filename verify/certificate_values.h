/*
 * certificate_values.h: what value_check.h found in a checkpoint, as the check "findings" of its
 * certificate.
 *
 * NaN, infinities and scales that are not finite fail by default; a policy may say that all
 * findings fail, or none, or all but some kinds.
 */
#ifndef CKPT_CERTIFICATE_VALUES_H
#define CKPT_CERTIFICATE_VALUES_H

#include "policy.h"
#include "value_check.h"

/* Append the check of checkpoint `i` and its findings. */
ckpt_code certificate_judge_findings(certificate *c, size_t i, const value_findings *findings,
                                     const certificate_policy *policy, ckpt_error *err);

#endif
