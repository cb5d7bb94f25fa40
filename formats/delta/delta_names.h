/*
 * delta_names.h: whether the files that a delta replaces or removes can lie in one folder, with
 * those that are there already. In place, nothing may fail half-way for its name.
 */
#ifndef CKPT_DELTA_NAMES_H
#define CKPT_DELTA_NAMES_H

#include "delta_chain.h"

/* 1 for a name that a delta may replace: a file beside the weights, and none that ckpt writes. */
int delta_name_is_beside(const char *name);
/* Refuse a name that file systems or the readers of a folder do not take. `subject` has it. */
ckpt_code delta_name_check(const char *subject, const char *name, ckpt_error *err);

/* The names in one delta: each once, and none the folder of another one. */
ckpt_code delta_names_check(const ckpt_delta *delta, ckpt_error *err);
/* The same for the names in two lists together; `subject` and `other` have them. */
ckpt_code delta_names_check_lists(const char *subject, const file_list *names, const char *other,
                                  const file_list *others, ckpt_error *err);
/* All names of the chain with those of the base, and with what lies in its folder. `target` is the
 * folder that the files are written to: the base (in place), another one, or NULL. */
ckpt_code delta_names_check_base(const delta_chain *chain, const ckpt_checkpoint *base,
                                 const char *target, ckpt_error *err);

#endif
