/*
 * codes.h: quantised weights whose scale is not of a kind that is decoded.
 *
 * FP8 with a scale per tensor, NVFP4, INT8, packed integers, blocks that the table of encodings
 * does not have or that the config does not tell: such codes and their scales are tensors of their
 * own, listed, copied, digested and compared as they are stored. Only a change of encoding would
 * have to know what they stand for; it is refused, and the refusal says what the form is called.
 */
#ifndef CKPT_CODES_H
#define CKPT_CODES_H

#include "plan.h"

enum { CODES_FORM_BYTES = 96 };

/* 1 when the tensor, which has no scale of its own, looks like the codes of a quantised weight. */
int codes_are_bare(const ckpt_tensor *tensor);

/* 1 when the elements of a logical tensor have values here: codes that only a scale would make
 * values of have none. */
int codes_are_decoded(const ckpt_tensor *tensor);

/* The encoding of a logical tensor as documents have it: "unknown" for such codes, else that of
 * ckpt_tensor_encoding. */
void codes_encoding(const ckpt_tensor *tensor, char *out, size_t out_bytes);

/* What the form of such codes is called, from the names, dtypes and shapes beside them. Returns
 * the tensor that looks like the scale, or NULL. */
const ckpt_tensor *codes_form(const ckpt_catalog *catalog, const ckpt_tensor *codes,
                              char out[CODES_FORM_BYTES]);

/* Refuse a policy that would have to decode such codes. */
ckpt_code codes_check_policy(const ckpt_catalog *from, const plan_policy *policy, ckpt_error *err);

/* Refuse targets, in the order of `from`, that would. */
ckpt_code codes_check_targets(const ckpt_catalog *from, const ckpt_catalog *targets,
                              ckpt_error *err);

#endif
