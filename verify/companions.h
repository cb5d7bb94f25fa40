/*
 * companions.h: compares the files beside the weights that affect a model's output: tokenizer, chat
 * template, prompt encoding, generation_config. Files of the same name are compared by bytes; if
 * these differ and both are JSON objects, by the values of their members. A tokenizer in the keys
 * of a GGUF file is compared with that of the other side, in keys or files.
 */
#ifndef CKPT_COMPANIONS_H
#define CKPT_COMPANIONS_H

#include "companion_differences.h"

/* Compare the files of the roles that companion_is_role names; both sides need hashes. config.json
 * is not among them: see config_meaning.h. *out is yours to release, also on failure. */
ckpt_code companions_compare(const certificate_checkpoint *a, const certificate_checkpoint *b,
                             companion_comparison *out, ckpt_error *err);

/* 1 for the roles that are compared here. */
int companion_is_role(certificate_role role);

#endif
