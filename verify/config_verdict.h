/*
 * config_verdict.h: compares the config members that affect the forward pass
 * (libckpt/config_meaning.h): with other values, the same weights are a different model.
 */
#ifndef CKPT_CONFIG_VERDICT_H
#define CKPT_CONFIG_VERDICT_H

#include "libckpt/config_compare.h"

typedef struct {
    config_meaning a;
    config_meaning b;
    config_comparison comparison;  /* empty when nothing was compared */
    const char *note;              /* why nothing was compared, or which members were not;
                                      NULL: nothing to report */
    char *lone_note;               /* owner of `note` if it is malloc'd; or NULL */
    int is_compared;
} config_verdict;

/* Compare two configs; NULL: the layout has none. main_only: see config_compare.h. *out is yours to
 * release, also on failure. */
ckpt_code config_verdict_make(const json_value *a, const json_value *b, int main_only,
                              config_verdict *out, ckpt_error *err);
/* The same with A's members from a manifest; borrowed. */
ckpt_code config_verdict_make_recorded(const config_meaning *a, const json_value *b, int main_only,
                                       config_verdict *out, ckpt_error *err);
void config_verdict_release(config_verdict *verdict);

/* The member `config`: null if not requested, or {"note": what was not compared, or
 * null, "compared": N, "differing": [{"name", A, B}, ...]}. A and B are the keys of the sides; a
 * side without the member has null. */
void config_verdict_put(json_writer *w, const config_verdict *verdict, const char *a_key,
                        const char *b_key);

#endif
