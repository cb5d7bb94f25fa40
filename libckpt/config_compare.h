/*
 * config_compare.h: compares what two configs mean. If both are of DeepSeek-V4 but in different
 * spellings, a member that only one of them has may be one that the other cannot express.
 */
#ifndef CKPT_CONFIG_COMPARE_H
#define CKPT_CONFIG_COMPARE_H

#include "config_meaning.h"

/* A member that differs. The text of a side that lacks it is NULL. */
typedef struct {
    const char *name;              /* name and texts are borrowed from the compared meanings */
    const char *a;
    const char *b;
} config_difference;

typedef struct {
    config_difference *differing;
    size_t count;
    size_t compared;               /* members that both have */
    const char **lone;             /* not compared: members of one side that the spelling of the
                                      other side may be unable to express */
    size_t lone_count;
} config_comparison;

/* *out is yours to release. Numbers are compared by value. main_only: without what a config says of
 * next-token blocks (mtp.*), which a layout without them has in another form: their number, and the
 * entries of compress_ratios after those of the layers. */
ckpt_code config_meaning_compare(const config_meaning *a, const config_meaning *b, int main_only,
                                 config_comparison *out, ckpt_error *err);
void config_comparison_release(config_comparison *comparison);

#endif
