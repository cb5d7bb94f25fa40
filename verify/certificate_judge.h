/*
 * certificate_judge.h: derives checks from facts. Judging reads no tensors: the self-test changes
 * the facts of a checkpoint, which is then judged as if its files were changed.
 *
 * Checks: "structure", "values", "config", "generation_config", "tokenizer", "template",
 * "encoding", "required"; "logits" if outputs of ckpt-run were given.
 */
#ifndef CKPT_CERTIFICATE_JUDGE_H
#define CKPT_CERTIFICATE_JUDGE_H

#include "policy.h"

/* Append the checks of checkpoint `i`; for a candidate also those against the reference. */
ckpt_code certificate_judge(certificate *c, size_t i, const certificate_policy *policy,
                            ckpt_error *err);

/* Append the check of what --require and the policy require. Call it after all other checks. */
ckpt_code certificate_judge_required(certificate *c, const certificate_policy *policy,
                                     ckpt_error *err);

/* Append the check of a candidate's logits against the reference's. */
ckpt_code certificate_judge_logits(certificate *c, size_t i, const logits_comparison *logits,
                                   const certificate_policy *policy, ckpt_error *err);

#endif
