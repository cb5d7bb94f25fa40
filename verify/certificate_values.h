/*
 * certificate_values.h: adds the findings of value_check.h to a certificate, as the check
 * "findings".
 *
 * By default the kinds with which no reader can compute fail: those up to VALUE_ID_RANGE; a
 * policy may let all findings fail, none, or all but some kinds.
 */
#ifndef CKPT_CERTIFICATE_VALUES_H
#define CKPT_CERTIFICATE_VALUES_H

#include "policy.h"
#include "value_check.h"

/* Append the check of checkpoint `i` and its findings. */
ckpt_code certificate_judge_findings(certificate *c, size_t i, const value_findings *findings,
                                     const certificate_policy *policy, ckpt_error *err);

#endif
