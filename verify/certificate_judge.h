/*
 * certificate_judge.h: checks made of facts. Judging reads no tensor: a checkpoint whose record was
 * changed (as the self-test does) is judged as if it were so on the disk.
 *
 * Checks: "structure", "values", "config", "generation_config", "tokenizer", "template",
 * "encoding", "required"; "logits" where outputs of ckpt-run were given.
 */
#ifndef CKPT_CERTIFICATE_JUDGE_H
#define CKPT_CERTIFICATE_JUDGE_H

#include "policy.h"

/* Append the checks of checkpoint `i`: those against the reference where it is a candidate. */
ckpt_code certificate_judge(certificate *c, size_t i, const certificate_policy *policy,
                            ckpt_error *err);

/* Append what --require and the policy ask to be there; last, after all other checks. */
ckpt_code certificate_judge_required(certificate *c, const certificate_policy *policy,
                                     ckpt_error *err);

/* Append the check of a candidate's logits against the reference's. */
ckpt_code certificate_judge_logits(certificate *c, size_t i, const logits_comparison *logits,
                                   const certificate_policy *policy, ckpt_error *err);

#endif
