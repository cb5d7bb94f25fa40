/*
 * codes.h: quantised weights in encodings that are not decoded.
 *
 * Examples are FP8 with a scale per tensor, INT8, packed integers, and block sizes that are not in
 * the table of encodings or not given by the config. The codes and their scales are separate plain
 * tensors, which are listed, copied, digested and compared as stored. Changing their encoding would
 * require decoding them; it is refused, and the error names the form.
 */
#ifndef CKPT_CODES_H
#define CKPT_CODES_H

#include "plan.h"

enum { CODES_FORM_BYTES = 96 };

/* 1 when a tensor without a scale looks like the codes of a quantised weight. */
int codes_are_bare(const ckpt_tensor *tensor);

/* 1 when the values of a logical tensor are known. Those of codes that are not decoded are not. */
int codes_are_decoded(const ckpt_tensor *tensor);

/* The encoding of a logical tensor for JSON output: "unknown" for such codes, else that of
 * ckpt_tensor_encoding. */
void codes_encoding(const ckpt_tensor *tensor, char *out, size_t out_bytes);

/* Describe the form of such codes, guessed from names, dtypes and shapes of the tensors beside
 * them. Returns the tensor that looks like the scale, or NULL. */
const ckpt_tensor *codes_form(const ckpt_catalog *catalog, const ckpt_tensor *codes,
                              char out[CODES_FORM_BYTES]);

/* Refuse a policy that would have to decode such codes. */
ckpt_code codes_check_policy(const ckpt_catalog *from, const plan_policy *policy, ckpt_error *err);

/* The same for given targets, in the order of `from`. */
ckpt_code codes_check_targets(const ckpt_catalog *from, const ckpt_catalog *targets,
                              ckpt_error *err);

#endif
